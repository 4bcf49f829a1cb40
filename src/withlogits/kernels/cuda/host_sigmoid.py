"""From arrays and options to the sigmoid kernels' arguments."""

from __future__ import annotations

import ctypes
from typing import Any

from . import sigmoid as kernels
from .tiles import elementwise_layout

Array = Any  # anything that Triton takes, with shape and stride()


def sigmoid_forward(
    x: Array, z: Array, q: Array | None, s: Array | None, loss: Array, *, label_smoothing: float
) -> None:
    """Write s times the loss of each element. All arrays have one shape of at most four axes."""
    arrays = (x, z, q, s, loss)
    layout = elementwise_layout(x.shape, [_strides(array, x) for array in arrays])
    if layout.programs:
        kernels.sigmoid_forward[(layout.programs,)](
            *arrays, layout.sizes, *layout.strides, *_smoothing(label_smoothing),
            ROWS=layout.rows, COLUMNS=layout.columns, num_warps=4,
        )  # fmt: skip


def sigmoid_backward(
    u: Array,
    x: Array,
    z: Array,
    q: Array | None,
    s: Array | None,
    dx: Array | None,
    dz: Array | None,
    *,
    label_smoothing: float,
) -> None:
    """Write u s dL/dx and u s dL/dz, where there is a place for them."""
    arrays = (u, x, z, q, s, dx, dz)
    layout = elementwise_layout(x.shape, [_strides(array, x) for array in arrays])
    if layout.programs and not (dx is None and dz is None):
        kernels.sigmoid_backward[(layout.programs,)](
            *arrays, layout.sizes, *layout.strides, *_smoothing(label_smoothing),
            ROWS=layout.rows, COLUMNS=layout.columns, num_warps=4,
        )  # fmt: skip


def _strides(array: Array | None, x: Array) -> tuple[int, ...]:
    """In elements; an array that is not there goes with every layout."""
    return (0,) * len(x.shape) if array is None else tuple(array.stride())


def _smoothing(label_smoothing: float) -> tuple[float, float]:
    """1 − ε and ε/2, rounded to float32, which the compiled kernel would do and the interpreter would not."""
    return ctypes.c_float(1.0 - label_smoothing).value, ctypes.c_float(label_smoothing / 2.0).value
