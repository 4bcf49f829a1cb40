"""The functions of PyTorch that `withlogits.formulas` is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, exp, expm1, float32, float64, isfinite, isinf, log, log1p, ones_like, tanh, where, zeros_like
from torch import eq as equal
from torch import movedim as moveaxis

from withlogits.frameworks.torch.private import is_batched

__all__ = [
    "arange", "as_index", "astype", "constant", "equal", "exp", "expm1", "float32", "float64", "is_floating",
    "isfinite", "isinf", "length", "log", "log1p", "max", "moveaxis", "ones_like", "stop_gradient", "sum", "take",
    "tanh", "where", "wide", "zeros_like",
]  # fmt: skip

NO_FLOAT64 = frozenset(("mps", "xpu"))  # kinds of devices of which some lack it


def wide_dtype(x: Tensor) -> torch.dtype:
    return float32 if x.device.type in NO_FLOAT64 else float64


def wide(x: Tensor) -> Tensor:
    """Return x in the type of the arithmetic; a whole number that float64 cannot hold is no label."""
    return x.to(wide_dtype(x))


def astype(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)


def is_floating(x: Tensor) -> bool:
    return x.dtype.is_floating_point


def as_index(labels: Tensor) -> Tensor:
    """Return index labels as int64; uint64 keeps its 64 bits."""
    return labels.view(torch.int64) if labels.dtype == torch.uint64 else labels.to(torch.int64)


def constant(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype=like.dtype, device=like.device)
    return torch.full((), value, dtype=like.dtype, device=like.device)  # the host would wait for a copy of a number


def arange(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device)


def length(x: Tensor, dtype: Any) -> int:
    """Return the number of entries on the last axis; in `dtype` if it is known only when the graph runs."""
    return x.shape[-1]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return x[index]; an index out of range gets the nearest element."""
    return torch.index_select(x, 0, index.clamp(0, x.shape[0] - 1).flatten()).reshape(index.shape)


def stop_gradient(x: Tensor) -> Tensor:
    # what `is_grads_batched` maps with knows no views, and differentiates nothing again
    return x if is_batched(x) and not x.requires_grad else x.detach()


def max(x: Tensor) -> Tensor:
    """Return the maximum over the last axis, which stays."""
    return x.amax(-1, keepdim=True)


def sum(x: Tensor) -> Tensor:
    """Return the sum over the last axis, which stays."""
    return x.sum(-1, keepdim=True)
