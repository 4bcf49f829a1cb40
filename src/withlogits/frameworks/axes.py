"""Softmax functions over several axes, by those along one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from withlogits import shapes

Array = Any  # of the framework whose table `xp` is


def over_axes(xp: Any, x: Array, axis: Any, keepdims: bool, kind: str, along: Callable[..., Array]) -> Array:
    """Return softmax, log_softmax or logsumexp of x over `axis`: None for all, an integer, or a tuple of them.

    `along(x, axis, kind)` does it along one axis. logsumexp drops the axes, or keeps them with length 1.
    """
    shape = tuple(x.shape)
    axes = shapes.reduced_axes(axis, shape)
    kept = tuple([1 if i in axes else n for i, n in enumerate(shape)])
    if len(axes) == 1:
        found = along(x, axes[0], kind)
        return found.reshape(kept) if keepdims else found
    last = tuple(range(len(shape) - len(axes), len(shape)))
    moved = xp.moveaxis(x, axes, last)
    rows = tuple(moved.shape)[: len(shape) - len(axes)]
    found = along(moved.reshape((*rows, math.prod([shape[i] for i in axes]))), len(rows), kind)
    if kind == "logsumexp":
        return found.reshape(kept) if keepdims else found
    return xp.moveaxis(found.reshape(moved.shape), last, axes)
