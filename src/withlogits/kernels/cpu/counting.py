"""Counters in memory, several at a time: tables of whole numbers and of sums, lists, and which bin a number is in."""

from __future__ import annotations

from . import simd
from .job import CLAIM
from .memory import transposed
from .simd import F64, I32, I64, Value

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


def bump(table: Value, places: Value, mask: Value | None = None) -> None:
    """One more at each place (of the lanes that hold), one lane after another, since places may be equal."""
    for i, address in enumerate(entries(table, places, 8)):
        one = 1 if mask is None else simd.convert(simd.lane(mask, i), I64)
        simd.store(simd.load(address, I64) + one, address)


def add(table: Value, places: Value, x: Value) -> None:
    """Lane i of x at its place."""
    for i, address in enumerate(entries(table, places, 8)):
        simd.store(simd.load(address, F64) + simd.lane(x, i), address)


def add_claims(table: Value, places: Value, claimed: Value, true: Value) -> None:
    """One more claim, what is claimed and what is true, in entries of CLAIM float64: one addition of four numbers."""
    one, zero = simd.constant(1.0, claimed.type), simd.constant(0.0, claimed.type)
    addresses = entries(table, places, 8 * CLAIM)
    for begin in range(0, len(addresses), CLAIM):
        part = list(range(begin, begin + CLAIM))
        rows = transposed([simd.shuffle(x, x, part) for x in (one, claimed, true, zero)])
        for row, address in zip(rows, addresses[begin:], strict=False):
            simd.store(simd.load(address, row.type) + row, address)


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


def octave_bin(x: Value, lowest: int, bins: int) -> Value:
    """Below 2^lowest, then two bins an octave: a float's exponent and the first bit behind it."""
    place = simd.convert(simd.bits(x) >> 51, I32) - (((1023 + lowest) << 1) - 1)
    return least(simd.larger(place, simd.constant(0, place.type)), bins - 1)
