"""The functions of NumPy that `withlogits.formulas` is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import (
    equal,
    exp,
    expm1,
    float32,
    float64,
    isfinite,
    isinf,
    log,
    log1p,
    moveaxis,
    ones_like,
    tanh,
    where,
    zeros_like,
)
from numpy.typing import NDArray

__all__ = [
    "arange", "as_index", "astype", "constant", "equal", "exp", "expm1", "float32", "float64", "is_floating",
    "isfinite", "isinf", "length", "log", "log1p", "max", "moveaxis", "ones_like", "stop_gradient", "sum", "take",
    "tanh", "where", "wide", "zeros_like",
]  # fmt: skip

Array = NDArray[Any]


def wide(x: Array) -> NDArray[np.float64]:
    """Return x in the type of the arithmetic, rows side by side: so a row's sums do not depend on the other rows."""
    return x.astype(np.float64, order="C")


def astype(x: Array, dtype: Any) -> Array:
    return x.astype(dtype, copy=False)


def is_floating(x: Array) -> bool:
    return x.dtype.kind not in "biu"  # bfloat16 is of kind "V"


def as_index(labels: Array) -> Array:
    """Return index labels in a type that compares with every Python integer as it should."""
    return labels


def constant(value: Any, like: Array) -> Array:
    return np.asarray(value, like.dtype)


def arange(n: int, like: Array) -> Array:
    return np.arange(n)


def length(x: Array, dtype: Any) -> int:
    """Return the number of entries on the last axis; in `dtype` if it is known only when the graph runs."""
    n: int = x.shape[-1]
    return n


def take(x: Array, index: Array) -> Array:
    """Return x[index]; an index out of range gets the nearest element."""
    return x[np.clip(index, 0, len(x) - 1).astype(np.intp)]


def stop_gradient(x: Array) -> Array:
    return x


def max(x: Array) -> Array:
    """Return the maximum over the last axis, which stays."""
    return np.asarray(x.max(axis=-1, keepdims=True))


def sum(x: Array) -> Array:
    """Return the sum over the last axis, which stays."""
    return np.asarray(x.sum(axis=-1, keepdims=True))
