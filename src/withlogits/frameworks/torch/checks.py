"""The checks that need a tensor: dtypes, devices, layouts and values, with the texts of `withlogits.errors`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from withlogits import errors, options, shapes
from withlogits.frameworks import refuse_other_frameworks
from withlogits.frameworks.torch.namespace import wide_dtype

WORDS = errors.Words(cast="{name}.to(torch.{dtype})", convert="{name}.to(torch.{dtype})", reload="")
FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
INTEGERS = frozenset(getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64))
REALS = FLOATS | INTEGERS | {torch.bool}


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype in error texts."""
    return str(dtype).removeprefix("torch.")


def as_tensor(name: str, given: Any, logits: Tensor) -> Tensor:
    """A tensor, or what becomes one beside the logits: numbers, lists, NumPy arrays."""
    if isinstance(given, Tensor):
        return given
    if given is None:
        raise errors.none_given(name)
    number = isinstance(given, (int, float))
    plain = number or isinstance(given, (list, tuple))
    if not plain:  # of which torch.compile does not see the ancestry
        refuse_other_frameworks(name, given, "PyTorch")
    try:
        # torch's default dtype would round a float: numbers and lists of them are float64, as with NumPy
        wide = wide_dtype(logits)
        if number and not logits.is_cpu:  # a copy of one would wait for the device
            dtype = wide if isinstance(given, float) else None
            return torch.full((), given, dtype=dtype, device=logits.device)
        made = torch.as_tensor(given, device=logits.device)
        if plain and made.is_floating_point():
            made = torch.as_tensor(given, dtype=wide, device=logits.device)
        return made
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise errors.no_array(name, error) from None


def check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.").replace("_", " ")
        raise errors.not_dense(name, kind)


def check_device(name: str, tensor: Tensor, logits: Tensor) -> None:
    if tensor.device != logits.device:
        raise errors.other_device(name, str(tensor.device), str(logits.device))


def check_logits(name: str, logits: Tensor) -> None:
    check_dense(name, logits)
    if logits.dtype not in FLOATS:
        raise errors.logits_dtype(name, dtype_name(logits.dtype), WORDS)


def check_labels(labels: Tensor, logits: Tensor, chosen: options.Options) -> None:
    check_dense("labels", labels)
    check_device("labels", labels, logits)
    if isinstance(chosen, options.SoftmaxOptions) and chosen.sparse and labels.dtype not in INTEGERS:
        shape, dtype = tuple(labels.shape), dtype_name(labels.dtype)
        raise shapes.index_labels_misfit(shape, tuple(logits.shape), chosen.axis, dtype, WORDS)
    if labels.dtype not in REALS:
        raise errors.label_dtype(dtype_name(labels.dtype))


def checked_weight(name: str, given: Any, logits: Tensor, plain: bool) -> Tensor:
    """Finite weights of 0 or more; their values are looked at where that makes nobody wait."""
    weight = as_tensor(name, given, logits)
    check_dense(name, weight)
    if weight.device != logits.device:
        if weight.dim():
            check_device(name, weight, logits)
        weight = weight.to(logits.device)
    if weight.dtype not in REALS:
        raise errors.number_dtype(name, dtype_name(weight.dtype))
    if weight.requires_grad:
        raise errors.weight_gradient(name)
    if weight.dtype not in (torch.float32, torch.float64):
        narrow = weight.dtype in FLOATS or weight.itemsize < 4  # float32 holds all of these
        weight = weight.to(torch.float32 if narrow else wide_dtype(logits))
    if plain:
        options.check_weight_values(name, weight.numpy())
    return weight


def check_out(out: Any, wrt: tuple[str, ...], logits: Tensor, **others: Tensor | None) -> None:
    """`out` takes the gradient of the logits: theirs in shape and dtype, and its memory theirs exactly or nobody's."""
    if "logits" not in wrt:
        raise errors.out_without_logits()
    if not isinstance(out, Tensor):
        raise errors.out_array("a torch.Tensor", f"a {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype or out.device != logits.device:
        raise errors.out_array(_described(logits), _described(out))
    if out.requires_grad and out is not logits:
        raise errors.out_array("a tensor that takes no part in autograd", "one that requires a gradient")
    if any(n > 1 and step == 0 for n, step in zip(out.shape, out.stride(), strict=True)):
        raise errors.out_array("without overlap in its own memory", f"a view with strides {out.stride()}")
    if torch.compiler.is_compiling():  # where tensors have no addresses
        return
    if out is not logits and _overlap(out, logits) and not _same_places(out, logits):
        raise errors.out_overlaps("logits")
    for name, other in others.items():
        if other is not None and _overlap(out, other):
            raise errors.out_overlaps(name)


def _described(tensor: Tensor) -> str:
    return f"of shape {tuple(tensor.shape)} and dtype {dtype_name(tensor.dtype)} on {tensor.device}"


def _same_places(a: Tensor, b: Tensor) -> bool:
    return a.stride() == b.stride() and a.data_ptr() == b.data_ptr()


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the stretches of memory from the first to the last element meet."""
    if not a.numel() or not b.numel():
        return False
    (first, after), (other, behind) = _stretch(a), _stretch(b)
    return first < behind and other < after


def _stretch(tensor: Tensor) -> tuple[int, int]:
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize
