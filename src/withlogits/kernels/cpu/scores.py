"""Scores in bins, each class and answer by itself: `reference.score_bins`.

The bins of many classes are larger than the near caches, so a unit of the work is SCORE_CLASSES of them, over all rows.
Fewer classes are one line of elements, cut into parts with bins of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from . import counting, simd
from .job import LANES, SCORE_CLASSES, SCORES_JOB, ScoresSpec
from .memory import KINDS, Access
from .simd import F32, I1, I64, Value, select, traced

INF = float("inf")


def build(spec: ScoresSpec) -> Callable[[int, int, int], int]:
    numbers = simd.vector(I64, LANES)
    x_access, z_access = (Access(KINDS[kind], LANES, False) for kind in (spec.x, spec.z))
    size, half, counter = spec.bins, spec.bins // 2, KINDS[spec.counts].llvm

    def place(x: Value) -> Value:
        single = simd.convert(select(x == x, x, -INF), F32)
        word = simd.bits(simd.absolute(single) + 2.0**spec.lowest)
        steps = counting.least((word >> (23 - spec.fraction)) - ((127 + spec.lowest) << spec.fraction), half - 1)
        return select(simd.bits(single) < 0, half - 1 - steps, steps + half)

    def entries(x_at: Value, z_at: Value, i: Value, classes: Value, there: Value) -> Value:
        x = x_access.read(x_at + i * x_access.kind.size, there, 0.0)
        z = z_access.read(z_at + i * z_access.kind.size, there, 0.0)
        of_class = simd.load(classes, numbers) * (2 * size) + simd.convert(place(x), I64)
        return select(z > 0.5, of_class + size, of_class)

    @traced
    def visit(x_at: Value, z_at: Value, i: Value, ahead: Value, classes: Value, table: Value) -> None:
        """The elements from i on; the numbers of their classes stand at `classes`."""
        simd.prefetch(x_at + ahead * x_access.kind.size + i * x_access.kind.size)
        simd.prefetch(z_at + ahead * z_access.kind.size + i * z_access.kind.size)
        everything = simd.constant(1, simd.vector(I1, LANES))
        counting.bump(table, entries(x_at, z_at, i, classes, everything), counter=counter)

    @traced
    def visit_last(x_at: Value, z_at: Value, i: Value, stop: Value, classes: Value, table: Value) -> None:
        """Fewer than LANES."""
        there = simd.lane_numbers(numbers) + i < stop
        counting.bump(table, entries(x_at, z_at, i, classes, there), there, counter)

    unpack = simd.reader(SCORES_JOB.names)
    x_size, z_size = x_access.kind.size, z_access.kind.size

    def kernel(job: int, start: int, stop: int) -> int:
        elements, grain, period, classes, table_step, x, z, scores, numbers_at = unpack(job)
        for unit in range(start, stop):
            if classes > SCORE_CLASSES:
                first = unit * SCORE_CLASSES
                begin, length, lines, table = first, min(SCORE_CLASSES, classes - first), elements // classes, scores
            else:
                first, lines, begin, table = 0, 1, unit * grain, scores + unit * table_step
                length = min(grain, elements - begin)
            phase = begin % period
            for line in range(lines):
                xa, za = x + (begin + line * classes) * x_size, z + (begin + line * classes) * z_size
                i, at = 0, phase
                while i + LANES <= length:
                    visit(xa, za, i, 8 * classes, numbers_at + at * 8, table)
                    i += LANES
                    at += LANES
                    if at >= period:
                        at -= period
                if i < length:
                    visit_last(xa, za, i, length, numbers_at + at * 8, table)
        return 0

    return kernel
