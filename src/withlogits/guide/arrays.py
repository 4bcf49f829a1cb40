"""A caller's array as the guide looks at it: a NumPy view, and what its framework knows besides."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors
from withlogits.frameworks import array_of
from withlogits.frameworks.numpy import plain_array
from withlogits.options import check_weight_values

Array = NDArray[Any]

MISSING_MARKS = (-1.0, -100.0, 255.0)  # what people write among 0 and 1 where an answer is missing, besides NaN
# NaN and infinities are what the guide looks for, and no news of NumPy's.
silent = np.errstate(invalid="ignore", over="ignore", divide="ignore", under="ignore")


@dataclass(frozen=True)
class Given:
    """Labels or logits: where their numbers lie, and how the caller would write about them."""

    name: str  # "labels" or "logits"
    array: Array
    dtype: str  # as the caller's framework names it
    library: str = "numpy"  # the name that a line of code has for the caller's framework
    tensor: Any = None  # the PyTorch tensor, if it is one

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def integral(self) -> bool:
        """Integers; booleans are not."""
        return self.array.dtype.kind in "iu"

    @property
    def floating(self) -> bool:
        """float16, float32, float64 or bfloat16."""
        return self.array.dtype.kind == "f" or self.array.dtype.name == "bfloat16"

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"


def given(name: str, x: Any) -> Given:
    """An array that is served (read where it lies, if that is on the CPU), or what converts to one of NumPy."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        dtype = str(x.dtype).removeprefix("torch.")
        if x.layout is not torch.strided:
            raise errors.not_dense(name, "sparse")
        if x.is_complex():
            raise errors.logits_dtype(name, dtype)
        y = x.detach().resolve_neg().cpu()
        array = bfloat16(y.contiguous().view(torch.uint16).numpy()) if y.dtype == torch.bfloat16 else y.numpy()
        return Given(name, array, dtype, "torch", x)
    if is_traced(x):
        raise errors.traced_values(name, array_of(type(x)) or "")
    of = array_of(type(x))
    if of == "TensorFlow" and hasattr(x, "flat_values"):
        raise errors.not_dense(name, "RaggedTensor")
    array = plain_array(name, as_numpy(x))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufV":
        dtype = array.dtype.name
        raise errors.label_dtype(dtype) if name == "labels" else errors.logits_dtype(name, dtype)
    dtype = _dtype_name(array.dtype)
    return Given(name, array, dtype, {"JAX": "jax.numpy", "TensorFlow": "tf"}.get(of or "", "numpy"))


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "|V2" if dtype == np.dtype("V2") else dtype.name


def is_traced(x: Any) -> bool:
    """Return whether x stands for an array in a program that JAX or TensorFlow records, and has no values."""
    of = array_of(type(x))
    if of == "JAX":
        return isinstance(x, sys.modules["jax"].core.Tracer)
    return of == "TensorFlow" and bool(sys.modules["tensorflow"].is_symbolic_tensor(x))


def as_numpy(x: Any) -> Any:
    """Return an array of a framework as NumPy's; anything else as it is."""
    if hasattr(x, "detach"):
        return x.detach().cpu().numpy()
    of = array_of(type(x))
    return np.asarray(x) if of == "JAX" else x.numpy() if of == "TensorFlow" else x


def bfloat16(words: Array) -> Array:
    """The bfloat16 numbers of which these are the bits, or of which `numpy.save` has made 2-byte voids."""
    words = np.asarray(words, order="C").view(np.uint16)
    try:
        import ml_dtypes
    except ImportError:  # the numbers themselves, in twice the memory
        return (words.astype(np.uint32) << 16).view(np.float32)
    return words.view(ml_dtypes.bfloat16)


def is_whole(a: Array) -> bool:
    """Are all numbers integers, in whatever dtype; NaN is none."""
    return a.dtype.kind in "iub" or bool((a == np.floor(a.astype(np.float64))).all())


def is_binary(a: Array) -> bool:
    """Are all numbers 0 or 1."""
    return bool(((a == 0) | (a == 1)).all())


def sample_weights(given: Any) -> Array:
    """Return weights of any numbers that the losses take."""
    weight = np.asarray(as_numpy(given))
    if weight.dtype.kind not in "biuf" and weight.dtype.name != "bfloat16":
        raise errors.number_dtype("sample_weight", weight.dtype.name)
    check_weight_values("sample_weight", weight)
    return weight
