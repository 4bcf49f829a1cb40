"""Counters in memory, several at a time: bins of probabilities and losses, tables, and lists."""

from __future__ import annotations

from typing import Protocol

from llvmlite import ir

from . import simd
from .job import LANES
from .simd import F64, I32, I64, Value, convert, select

INF = float("inf")
FLOATS, INTEGERS = simd.vector(F64, LANES), simd.vector(I64, LANES)


class Figures(Protocol):
    """The part of a spec that says which bins there are."""

    @property
    def figures_at(self) -> int: ...
    @property
    def histogram_at(self) -> int: ...
    @property
    def confidence(self) -> int: ...
    @property
    def lowest(self) -> int: ...
    @property
    def losses(self) -> int: ...


def count_figures(spec: Figures, out: Value, live: Value, probability: Value, true: Value, loss: Value) -> Value:
    """Count probabilities by what came true of them, and losses, in their bins; returns the bins of probabilities.

    The last bin of each kind is for what does not count. Places and numbers go through memory, where each lane is read
    by itself: that takes fewer instructions than to take them out of vectors.
    """
    n = probability.type.count
    known = live & (probability == probability)
    probability = select(known, probability, 0.0)
    place = _between(convert(probability * float(spec.confidence), I32), spec.confidence - 1)
    place = select(known, place, spec.confidence)
    octave = convert(simd.bits(loss) >> 51, I32) - (((1023 + spec.lowest) << 1) - 1)
    octave = select(live & (simd.absolute(loss) < INF), _between(octave, spec.losses - 1), spec.losses)
    numbers, entries, octaves = simd.scratch(8 * n), simd.scratch(4 * n), simd.scratch(4 * n)
    simd.store(probability, numbers)
    simd.store((place << 1) + convert(true, I32), entries)
    simd.store(octave, octaves)
    for i in range(n):
        at = (convert(simd.load(entries + 4 * i, I32), I64) << 4) + (out + 8 * spec.figures_at)
        simd.store(simd.load(at, I64) + 1, at)
        simd.store(simd.load(at + 8, F64) + simd.load(numbers + 8 * i, F64), at + 8)
        at = (convert(simd.load(octaves + 4 * i, I32), I64) << 3) + (out + 8 * spec.histogram_at)
        simd.store(simd.load(at, I64) + 1, at)
    return place


def _between(x: Value, high: int) -> Value:
    return simd.smaller(simd.larger(x, simd.constant(0, x.type)), simd.constant(high, x.type))


def count(address: Value, mask: Value) -> None:
    """As many more as lanes hold."""
    simd.store(simd.load(address, I64) + simd.set_lanes(mask), address)


def scatter_add(table: Value, places: Value, x: Value) -> None:
    """Add lane i of x to the entry at its place, one lane after another, since places may be equal."""
    element: ir.Type = x.type.element
    size = 8 if element == F64 else element.width // 8
    for i in range(places.type.count):
        address = convert(simd.lane(places, i), I64) * size + table
        simd.store(simd.load(address, element) + simd.lane(x, i), address)


def append(address: Value, entries: Value, first: Value, mask: Value) -> None:
    """The numbers of the lanes that hold, from `first` on, behind those that are in a list already.

    How many these are stands at `address`. As many entries as there are lanes are overwritten behind the list.
    """

    def write() -> None:
        n = simd.load(address, I64)
        for i in range(mask.type.count):
            simd.store(first + i, n * 8 + entries)
            n = n + convert(simd.lane(mask, i), I64)
        simd.store(n, address)

    simd.either(simd.set_lanes(mask) > 0, write, lambda: None)
