"""Counters in memory, several at a time: tables of whole numbers and of sums, lists, and which bin a number is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from . import simd
from .job import LANES, Figures
from .simd import F64, I32, I64, Value, fma, select, traced

INF = float("inf")
SIGN = -(1 << 63)  # with this bit turned, unsigned numbers compare as signed ones
# The keys of `reference.row_keys`: the second number's bits times FACTOR are added to the first one's, then mixed.
FACTOR = 0x9E3779B97F4A7C15
MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def mixed(first: Value, second: Value) -> Value:
    h = simd.bits(first) + simd.bits(second) * _signed(FACTOR)
    for shift, factor in MIXERS:
        h = (h ^ ((h >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return h


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def bump(table: Value, places: Value, mask: Value | None = None, counter: ir.Type = I64) -> None:
    """One more at each place (of the lanes that hold), one lane after another, since places may be equal."""
    for i, address in enumerate(entries(table, places, counter.width // 8)):
        one = 1 if mask is None else simd.convert(simd.lane(mask, i), counter)
        simd.store(simd.load(address, counter) + one, address)


def add(table: Value, places: Value, x: Value) -> None:
    """Lane i of x at its place."""
    for i, address in enumerate(entries(table, places, 8)):
        simd.store(simd.load(address, F64) + simd.lane(x, i), address)


def add_claims(figures: Figures, table: Value, there: Value, claimed: Value, true: Value, loss: Value) -> Value:
    """One more claim in the table of `figures` for each lane that is there; gives the bins of the claims.

    Words and places go through memory, where each lane is read by itself: that takes fewer instructions than to take
    them out of vectors.
    """
    n = claimed.type.count
    known = there & (claimed == claimed)
    claimed = select(known, claimed, 0.0)
    place = select(known, width_bin(claimed, figures.confidence), figures.confidence)
    octave = select(there & (simd.absolute(loss) < INF), octave_bin(loss, figures), figures.losses)
    line = place + select(true, simd.constant(figures.confidence + 1, place.type), 0)
    # the number in the low bits of a float64 just above 2^52; its exponent is shifted out
    fixed = simd.bits(fma(claimed, figures.UNIT, 2.0**52))
    words, entry = simd.scratch(8 * n), simd.scratch(4 * n)
    simd.store((fixed << figures.PLACES) + 1, words)
    simd.store(line * figures.columns + octave, entry)
    for i in range(n):
        address = simd.convert(simd.load(entry + 4 * i, I32), I64) * 8 + table
        simd.store(simd.load(address, I64) + simd.load(words + 8 * i, I64), address)
    return place


def settler(figures: Figures | None) -> Callable[..., Any]:
    """What adds up and empties line `line` of a table of claims."""
    numbers = simd.vector(I64, LANES)

    @traced
    def settle(table: Value, line: Value) -> None:
        if figures is None:
            return
        row, zero = line * (figures.columns * 8) + table, simd.constant(0, numbers)
        many = total = zero
        for i in range(0, figures.columns, LANES):
            words = simd.load(row + i * 8, numbers)
            simd.store(zero, row + i * 8)
            counts = words & ((1 << figures.PLACES) - 1)
            at = table + (figures.histogram_at + i) * 8
            simd.store(simd.load(at, numbers) + counts, at)
            many = many + counts
            total = total + ((words >> figures.PLACES) & ((1 << (64 - figures.PLACES)) - 1))
        many, total = (simd.across(x, lambda a, b: a + b) for x in (many, total))
        at = line * 16 + (table + figures.claims_at * 8)
        simd.store(simd.load(at, I64) + many, at)
        simd.store(simd.load(at + 8, F64) + simd.convert(total, F64) * (1.0 / figures.UNIT), at + 8)

    return settle


def entries(table: Value, places: Value, size: int) -> list[Value]:
    """The addresses of a table's entries of `size` bytes."""
    return [simd.convert(simd.lane(places, i), I64) * size + table for i in range(places.type.count)]


def count(address: Value, mask: Value) -> None:
    """As many more as lanes hold."""
    simd.store(simd.load(address, I64) + simd.set_lanes(mask), address)


def append(address: Value, entries: Value, first: Value, mask: Value, key: Value) -> None:
    """The numbers of the lanes that hold, from `first` on, each with its key, behind those that are in a list already.

    How many these are stands at `address`. As many entries as there are lanes are overwritten behind the list.
    """

    def write() -> None:
        n = simd.load(address, I64)
        for i in range(mask.type.count):
            simd.store(first + i, n * 16 + entries)
            simd.store(simd.lane(key, i), n * 16 + entries + 8)
            n = n + simd.convert(simd.lane(mask, i), I64)
        simd.store(n, address)

    simd.either(simd.set_lanes(mask) > 0, write, lambda: None)


def least(x: Value, most: int) -> Value:
    return simd.smaller(x, simd.constant(most, x.type))


def whole(x: Value) -> Value:
    """Float64 between -2^31 and 2^31 as integers of 32 bits, to which processors without AVX-512 convert at once."""
    return simd.convert(x, I32)


def width_bin(p: Value, bins: int) -> Value:
    """Which of `bins` of equal width over [0, 1]."""
    return least(whole(p * float(bins)), bins - 1)


def octave_bin(x: Value, figures: Figures) -> Value:
    """Below 2^lowest, then two bins an octave: a float's exponent and the first bit behind it."""
    place = simd.convert(simd.bits(x) >> 51, I32) - (((1023 + figures.lowest) << 1) - 1)
    return least(simd.larger(place, simd.constant(0, place.type)), figures.losses - 1)
