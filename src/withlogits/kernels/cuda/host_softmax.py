"""From arrays and options to the softmax kernels' arguments: strides, tiles, and what is known at compile time."""

from __future__ import annotations

import ctypes
import math
from typing import Any

from . import softmax as kernels
from .tiles import softmax_tile

Array = Any  # anything that Triton takes, with shape, stride() and element_size()
LOAD = 16  # bytes


def softmax_forward(
    x: Array,  # (outer, C, inner)
    z: Array,  # (outer, inner) if sparse, else (outer, C, inner)
    w: Array | None,  # (C,)
    s: Array | None,  # (outer, inner)
    loss: Array,  # (outer, inner)
    stats: Array,  # (2, outer, inner)
    *,
    sparse: bool,
    label_smoothing: float,
    ignore_index: int | None,
    temperature: float,
    softcap: float | None,
    z_loss: float,
) -> None:
    """Write s times the loss of each row, and what `softmax_backward` needs of the row.

    That is, in `stats`, the largest logit as it was given (its transformation is made again, which is exact) and
    2^64·S, where S = exp(r) − 1: r itself, rounded to float32, would cost p = exp(x − m − r) up to 8 ulp.
    """
    outer, rows, classes = _shape(x)
    if not outer * rows:
        return
    unit = _unit(x, None if sparse else z)
    plain = sparse and label_smoothing == 0.0 and softcap is None and temperature == 1.0
    # What a lane carries along is worth its registers where arithmetic is short, as it is for float32.
    vector = 1 if plain and x.element_size() == 4 else unit
    tile = softmax_tile(classes, vector, _along(x), forward=True)
    tiles = -(-rows // tile.rows)
    kernel = kernels.forward_transposed if _transposed(x) else kernels.softmax_forward
    kernel[(outer * tiles,)](
        x, z, w, s, loss, stats,
        _strides(x, unit), _strides(z, 1 if sparse else unit), _strides(s), _step(x), _step(z),
        classes // unit, rows, tiles, outer * rows,
        **_options(classes, sparse, label_smoothing, ignore_index, temperature, softcap, z_loss),
        SINGLE=tile.classes >= classes, FAST=x.element_size() == 2,
        UNIT=unit, ROWS=tile.rows, LANES=tile.lanes, VECTOR=tile.vector, num_warps=tile.warps,
    )  # fmt: skip


def softmax_backward(
    u: Array,  # (outer, inner)
    stats: Array,  # (2, outer, inner), as softmax_forward left it
    x: Array,  # (outer, C, inner)
    z: Array,  # (outer, inner) if sparse, else (outer, C, inner)
    w: Array | None,  # (C,)
    s: Array | None,  # (outer, inner)
    dx: Array | None,  # (outer, C, inner)
    dz: Array | None,  # (outer, C, inner)
    *,
    sparse: bool,
    label_smoothing: float,
    ignore_index: int | None,
    temperature: float,
    softcap: float | None,
    z_loss: float,
) -> None:
    """Write u s dL/dx and u s dL/dz, where there is a place for them."""
    outer, rows, classes = _shape(x)
    if not outer * rows or (dx is None and dz is None):
        return
    unit = _unit(x, None if sparse else z, dx, dz)
    tile = softmax_tile(classes, unit, _along(x), forward=False)
    tiles = -(-rows // tile.rows)
    visited = not sparse or (label_smoothing != 0.0 and w is not None)  # then a program has the whole row
    chunks = 1 if visited else -(-classes // tile.classes)
    kernel = kernels.backward_transposed if _transposed(x) else kernels.softmax_backward
    kernel[(outer * tiles, chunks)](
        u, stats, x, z, w, s, dx, dz,
        _strides(u), _strides(x, unit), _strides(z, 1 if sparse else unit), _strides(s),
        _strides(dx, unit), _strides(dz, unit), _step(x), _step(z), _step(dx), _step(dz),
        classes // unit, rows, tiles, outer * rows, inverse=_single(1.0 / temperature),
        **_options(classes, sparse, label_smoothing, ignore_index, temperature, softcap, z_loss),
        FAST=x.element_size() == 2,
        UNIT=unit, ROWS=tile.rows, LANES=tile.lanes, VECTOR=tile.vector, num_warps=tile.warps,
    )  # fmt: skip


def _shape(x: Array) -> tuple[int, int, int]:
    """(outer, rows, C): the rows of a tile are those along `inner`, or where there is one such, along `outer`."""
    outer, classes, inner = x.shape
    return (1, outer, classes) if inner == 1 else (outer, inner, classes)


def _strides(array: Array | None, unit: int = 1) -> tuple[int, int]:
    """Of the outer axis and of the rows, as `_shape` has them, in units of so many elements."""
    if array is None:
        return (0, 0)
    outer, *_, inner = array.stride()
    return (0, outer // unit) if array.shape[-1] == 1 else (outer // unit, inner // unit)


def _step(array: Array | None) -> int:
    """From a class to the next, in elements; 0 where there are none."""
    return 0 if array is None or len(array.shape) == 2 else array.stride()[1]


def _along(x: Array) -> bool:
    rows = _strides(x)[1]
    return _step(x) <= rows or _step(x) == 1 or rows == 0


def _transposed(x: Array) -> bool:
    return bool(x.shape[-1] == 1 and not _along(x))


def _unit(x: Array, *others: Array | None) -> int:
    """How many elements of a row a thread may load at once: 16 bytes of logits, where all rows begin at such places."""
    unit = LOAD // int(x.element_size())
    for array in (x, *others):
        if array is not None:
            outer, rows = _strides(array)
            if _step(array) != 1 or (outer | rows | array.shape[1]) % unit or array.data_ptr() % LOAD:
                return 1
    return unit


def _single(value: float) -> float:
    """Rounded to float32, which the compiled kernel would do and the interpreter would not."""
    return ctypes.c_float(value).value


def _options(
    classes: int,
    sparse: bool,
    label_smoothing: float,
    ignore_index: int | None,
    temperature: float,
    softcap: float | None,
    z_loss: float,
) -> dict[str, Any]:
    """The arguments that both kernels share."""
    inverse = 1.0 / temperature
    fraction, exponent = math.frexp(inverse)
    high = math.ldexp(math.floor(fraction * 4096.0) / 4096.0, exponent)
    if ignore_index is not None and ignore_index >= 1 << 63:
        ignore_index -= 1 << 64  # labels are compared by their 64 bits
    return {
        "ignore": 0 if ignore_index is None else ignore_index,
        "keep": _single(1.0 - label_smoothing),
        "share": _single(label_smoothing / classes),
        "z_loss": _single(z_loss),
        "cap": 1.0 if softcap is None else _single(softcap),
        "inverse_cap": 1.0 if softcap is None else _single(1.0 / softcap),
        "inverse_high": high,
        "inverse_low": _single(inverse - high),
        "SPARSE": sparse,
        "SMOOTH": label_smoothing != 0.0,
        "IGNORE": ignore_index is not None,
        "CAPPED": softcap is not None,
        "TEMPERED": temperature != 1.0,
        "SQUARED": z_loss != 0.0,
    }
