"""Arrays of any rank and strides as rows that two strides address."""

from __future__ import annotations

import ctypes
import itertools
import sys
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Strides = tuple[int, ...]


def merged(shape: tuple[int, ...], strides: list[Strides]) -> tuple[list[int], list[list[int]]]:
    """Neighbouring axes made one wherever every array's strides allow it; order (C) is kept."""
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis in range(len(shape)):
        if shape[axis] == 1:
            continue
        size = shape[axis]
        if sizes and all(steps[-1] == array[axis] * size for steps, array in zip(kept, strides, strict=True)):
            sizes[-1] *= size
            for steps, array in zip(kept, strides, strict=True):
                steps[-1] = array[axis]
        else:
            sizes.append(size)
            for steps, array in zip(kept, strides, strict=True):
                steps.append(array[axis])
    return sizes, kept


def two_levels(
    shape: tuple[int, ...], strides: list[Strides]
) -> tuple[int, int, list[tuple[int, int]], list[list[int]]]:
    """(outer, inner), each array's two strides, and the byte offsets of every (outer, inner) block there is.

    Almost always there is one block. Axes that cannot be merged into two are walked outside the kernel.
    """
    sizes, kept = merged(shape, strides)
    while len(sizes) < 2:
        sizes.insert(0, 1)
        for steps in kept:
            steps.insert(0, 0)
    walked = sizes[:-2]
    pairs = [(steps[-2], steps[-1]) for steps in kept]
    offsets = [
        [sum(i * step for i, step in zip(index, steps, strict=False)) for steps in kept]
        for index in itertools.product(*map(range, walked))
    ]
    return sizes[-2], sizes[-1], pairs, offsets


def without(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return values[:axis] + values[axis + 1 :]


def _slow_address(array: Array) -> int:
    found: int = array.ctypes.data
    return found


def _quick_address(array: Array) -> int:
    return _memory[(id(array) + _HEAD) // _WORD]


_WORD, _HEAD = ctypes.sizeof(ctypes.c_size_t), object.__basicsize__
_memory = (ctypes.c_size_t * (sys.maxsize // _WORD)).from_address(0)  # all there is, of which one word is read


def _is_quick() -> bool:
    """Does the data pointer stand right behind the object's head, as NumPy's C interface has it since 1.0."""
    probes: list[Array] = [np.zeros(3), np.zeros((2, 2), np.int8)[1:], np.zeros(5)[::-2]]
    wide = sys.maxsize > 2**32  # with fewer bits, addresses may lie beyond what one array covers
    return wide and sys.implementation.name == "cpython" and all(_quick_address(p) == _slow_address(p) for p in probes)


# NumPy's own ways to say where an array lies take a microsecond, five times as long
address = _quick_address if _is_quick() else _slow_address
