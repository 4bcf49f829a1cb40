"""A caller's array as the guide looks at it: a NumPy view, and what its framework knows besides."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors
from withlogits.frameworks.numpy import plain_array

Array = NDArray[Any]

# NaN and infinities are what the guide looks for, and no news of NumPy's.
silent = np.errstate(invalid="ignore", over="ignore", divide="ignore", under="ignore")


@dataclass(frozen=True)
class Given:
    """Labels or logits: where their numbers lie, and how the caller would write about them."""

    name: str  # "labels" or "logits"
    array: Array
    dtype: str  # as the caller's framework names it
    tensor: Any = None  # the PyTorch tensor, if it is one

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def library(self) -> str:
        """The name that a line of code has for the caller's framework."""
        return "numpy" if self.tensor is None else "torch"

    @property
    def integral(self) -> bool:
        """Integers; booleans are not."""
        return self.array.dtype.kind in "iu"

    @property
    def floating(self) -> bool:
        """float16, float32, float64 or bfloat16."""
        return self.array.dtype.kind == "f" or self.array.dtype.name == "bfloat16"

    def seen_as(self, array: Array) -> Given:
        """The same, after what a fix does to it."""
        return replace(self, array=array)

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"


def given(name: str, x: Any) -> Given:
    """An array of NumPy or PyTorch (read where it lies, if that is on the CPU), or what converts to one."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        if x.is_sparse or x.layout is not torch.strided:
            raise errors.not_dense(name, "sparse")
        y = x.detach().resolve_neg().resolve_conj().cpu()
        if y.is_complex():
            raise errors.logits_dtype(name, str(x.dtype).removeprefix("torch."))
        array = _bfloat16(y.contiguous().view(torch.uint16).numpy()) if y.dtype == torch.bfloat16 else y.numpy()
        return Given(name, array, str(x.dtype).removeprefix("torch."), x)
    array = plain_array(name, x)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufV":
        raise (
            errors.label_dtype(array.dtype.name) if name == "labels" else errors.logits_dtype(name, array.dtype.name)
        )
    return Given(name, array, array.dtype.name if array.dtype != np.dtype("V2") else "|V2")


def _bfloat16(words: Array) -> Array:
    try:
        import ml_dtypes
    except ImportError:  # the numbers themselves, in twice the memory
        return (words.astype(np.uint32) << 16).view(np.float32)
    return words.view(ml_dtypes.bfloat16)


def from_voids(words: Array) -> Array:
    """What a bfloat16 array was before `numpy.save` made 2-byte voids of it."""
    return _bfloat16(np.ascontiguousarray(words).view(np.uint16))


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of the rows along this axis."""
    return shape[:axis] + shape[axis + 1 :]
