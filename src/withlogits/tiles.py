"""How an array is cut into blocks that fit in memory.

A block holds all classes of its rows. It is as long as the budget allows along the axes that vary fastest, so that a
block of an array with classes on a fast axis is one stretch of its file, and the next block the stretch after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]
Tile = tuple[slice, ...]
Turn = tuple[int | None, ...]  # the axes of another array; None for one of length 1 that it lacks


@dataclass(frozen=True)
class Tiling:
    """The blocks of an array of this shape, in the order in which they are visited."""

    shape: Shape
    extents: Shape  # the size of a block along each axis; the last block of an axis may be smaller
    fortran: bool  # the first axis varies fastest

    def __iter__(self) -> Iterator[Tile]:
        if 0 in self.shape:
            return
        cuts = [
            [slice(start, min(start + extent, length)) for start in range(0, length, extent)]
            for length, extent in zip(self.shape, self.extents, strict=True)
        ]
        for tile in itertools.product(*(cuts[axis] for axis in self._slow_to_fast())):
            yield tile[::-1] if self.fortran else tile

    def turned(self, turn: Turn) -> Tiling:
        """The blocks of an array that has these axes of this one, one for each block of this."""
        if turn == tuple(range(len(self.shape))):
            return self
        shape, extents = (tuple(1 if a is None else n[a] for a in turn) for n in (self.shape, self.extents))
        return Turned(shape, extents, self.fortran, self, turn)

    def without(self, axis: int) -> Tiling:
        """The blocks of an array that lacks the axis."""
        return self.turned(tuple(a for a in range(len(self.shape)) if a != axis))

    def is_sequential(self, fortran: bool) -> bool:
        """Whether the blocks of a file in this memory order are consecutive stretches of it, first byte to last."""
        if fortran != self.fortran and sum(length > 1 for length in self.shape) > 1:
            return False
        several = False
        for axis in self._slow_to_fast():
            if several and self.extents[axis] != self.shape[axis]:
                return False
            several = several or self.extents[axis] > 1
        return True

    def _slow_to_fast(self) -> tuple[int, ...]:
        axes = tuple(range(len(self.shape)))
        return axes[::-1] if self.fortran else axes


@dataclass(frozen=True)
class Turned(Tiling):
    """Blocks of an array whose axes are some of those of another, in the other's order."""

    of: Tiling
    turn: Turn

    def __iter__(self) -> Iterator[Tile]:
        for tile in self.of:
            yield tuple(slice(0, 1) if a is None else tile[a] for a in self.turn)

    def is_sequential(self, fortran: bool) -> bool:
        """Whether the blocks follow one another, as those of the other array do, with nothing asked for twice."""
        of, rising = self.of, [a for a in self.turn if a is not None]
        whole = all(of.extents[a] == of.shape[a] for a in range(len(of.shape)) if a not in rising)
        return whole and rising == sorted(rising) and super().is_sequential(fortran)


def cut(shape: Shape, axis: int | None, budget: int, fortran: bool = False) -> Tiling:
    """Blocks of about `budget` elements at most that are whole along `axis`; a single row may be longer."""
    extents = [1] * len(shape)
    left = budget
    if axis is not None:
        extents[axis] = shape[axis]
        left //= max(1, shape[axis])
    fast_to_slow = range(len(shape)) if fortran else range(len(shape) - 1, -1, -1)
    for other in fast_to_slow:
        if other != axis:
            extents[other] = max(1, min(shape[other], left))
            left //= extents[other]
    return Tiling(shape, tuple(extents), fortran)


def size(shape: Shape, tile: Tile) -> Shape:
    """The shape of a block."""
    return tuple(part.indices(length)[1] - part.start for part, length in zip(tile, shape, strict=True))


def position(tile: Tile, flat: int) -> Shape:
    """Where in the whole array an element of a block lies, of which its number in the order of C is known."""
    inside = np.unravel_index(flat, [part.stop - part.start for part in tile])
    return tuple(part.start + int(i) for part, i in zip(tile, inside, strict=True))
