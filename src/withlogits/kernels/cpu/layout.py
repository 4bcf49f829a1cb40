"""Arrays of any rank and strides as rows that two strides address."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Strides = tuple[int, ...]
ITEM_SIZES = {"bool": 1, "bfloat16": 2} | {
    f"{kind}{bits}": bits // 8
    for kind, sizes in (("float", (16, 32, 64)), ("int", (8, 16, 32, 64)), ("uint", (8, 16, 32, 64)))
    for bits in sizes
}


class Layout(NamedTuple):
    """How an array lies in memory, in the words of no framework."""

    shape: tuple[int, ...]
    strides: Strides  # in bytes
    dtype: str

    @property
    def itemsize(self) -> int:
        return ITEM_SIZES[self.dtype]

    def without(self, axis: int) -> Layout:
        """The layout with one axis, of length 1, taken away."""
        return Layout(without(self.shape, axis), without(self.strides, axis), self.dtype)

    def broadcast_to(self, shape: tuple[int, ...]) -> Layout:
        """The layout of the array as one of `shape`, to which it broadcasts."""
        return Layout(shape, broadcast_strides(self.shape, self.strides, shape), self.dtype)


def broadcast_strides(shape: tuple[int, ...], strides: Strides, target: tuple[int, ...]) -> Strides:
    """The strides of an array of `shape` as one of the shape `target`, to which it broadcasts."""
    new = len(target) - len(shape)
    return (0,) * new + tuple([0 if n == 1 else step for n, step in zip(shape, strides, strict=True)])


def dense_strides(shape: tuple[int, ...], itemsize: int, like: Strides | None = None) -> Strides:
    """The strides of a fresh array, whose axes lie in memory in the order of those with the strides `like`."""
    order = range(len(shape)) if like is None else sorted(range(len(shape)), key=lambda i: -abs(like[i]))
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


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


def _reader_of_memory() -> Callable[[Array], int]:
    word, head = ctypes.sizeof(ctypes.c_size_t), object.__basicsize__
    memory = (ctypes.c_size_t * (sys.maxsize // word)).from_address(0)  # all there is, of which one word is read
    shift = word.bit_length() - 1
    return lambda array: memory[(id(array) + head) >> shift]


_quick_address = _reader_of_memory()


def _is_quick() -> bool:
    """Does the data pointer stand right behind the object's head, as NumPy's C interface has it since 1.0."""
    probes: list[Array] = [np.zeros(3), np.zeros((2, 2), np.int8)[1:], np.zeros(5)[::-2]]
    wide = sys.maxsize > 2**32  # with fewer bits, addresses may lie beyond what one array covers
    return wide and sys.implementation.name == "cpython" and all(_quick_address(p) == _slow_address(p) for p in probes)


# NumPy's own ways to say where an array lies take a microsecond, five times as long. A kernel is told where the array's
# object lies, and that the address stands so many bytes behind its beginning (−1: it is told the address).
address, handle, BEHIND = (
    (_quick_address, id, object.__basicsize__) if _is_quick() else (_slow_address, _slow_address, -1)
)
