"""The statistics of elements of independent classes, and their scores in bins; see `statistics.arrays`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from . import counting, functions, simd
from .job import SigmoidSpec
from .memory import KINDS, Access
from .scalars import bits32, loader, storer
from .sigmoid import formulas
from .simd import F64, I1, I64, Value, select, traced
from .statistics import ANSWER_BITS, ELEMENTS_JOB, SCORE_CLASSES, SCORES_JOB, WIDE, ElementsSpec, ScoresSpec

INF = float("inf")


def build(spec: ElementsSpec) -> Callable[[int, int, int], int]:
    """Elements lie side by side, and WIDE of them are looked at together; so do the counters of their classes.

    The losses are those of `sigmoid.py`, before they are rounded.
    """
    full, numbers = simd.vector(F64, WIDE), simd.vector(I64, WIDE)
    x_access, z_access = (Access(KINDS[kind], WIDE, False) for kind in (spec.x, spec.z))
    parts, _, cross_entropy = formulas(SigmoidSpec(spec.x, spec.z))

    def look(
        i: Value, there: Value, at: Value, period: Value, x_at: Value, z_at: Value, out: Value, listed: Value,
        floor: Value,
    ) -> None:  # fmt: skip
        """Counts some elements."""
        x = x_access.read(x_at + i * x_access.kind.size, there, 0.0)
        z = z_access.read(z_at + i * z_access.kind.size, there, 0.0)
        e, u = parts(x)
        loss, _, _ = cross_entropy(x, e, u, z, None, simd.constant(0.0, full))
        finite = there & (simd.absolute(loss) < INF)
        simd.store(simd.load(out, full) + select(finite, loss, 0.0), out)

        def count_odd() -> None:
            counting.count(out + 8 * WIDE, there & (loss != loss))
            counting.count(out + 8 * WIDE + 8, there & (simd.absolute(loss) == INF))

        simd.either(simd.set_lanes(there & ~finite) > 0, count_odd, lambda: None)
        counting.append(out + 8 * WIDE + 16, listed, i, there & (loss >= floor))
        r = functions.reciprocal(e + 1.0, 2)
        yes, said = there & (z > 0.5), there & (x > 0.0)
        place = counting.count_figures(spec, out, there, select(x < 0.0, e * r, r), yes, loss)
        if not spec.binary:
            counting.scatter_add(out + 8 * spec.true_at, place, z)
        more = simd.constant(0, numbers)
        for answer, mask in enumerate((yes, said, yes & said)):
            more = more | select(mask, simd.constant(1 << ANSWER_BITS * answer, numbers), 0)
        answers = out + (at + spec.classes_at) * 8
        simd.store(simd.load(answers, numbers) + more, answers)
        losses = answers + (period + WIDE) * 8
        simd.store(simd.load(losses, full) + select(there, loss, 0.0), losses)

    @traced
    def visit(
        i: Value, at: Value, period: Value, x_at: Value, z_at: Value, out: Value, listed: Value, floor: Value
    ) -> None:
        look(i, simd.constant(1, simd.vector(I1, WIDE)), at, period, x_at, z_at, out, listed, floor)

    @traced
    def visit_last(
        i: Value, stop: Value, at: Value, period: Value, x_at: Value, z_at: Value, out: Value, listed: Value,
        floor: Value,
    ) -> None:  # fmt: skip
        look(i, simd.lane_numbers(numbers) + i < stop, at, period, x_at, z_at, out, listed, floor)

    unpack = simd.reader(ELEMENTS_JOB.names)

    def kernel(job: int, start: int, stop: int) -> int:
        elements, grain, period, out_step, x, z, lists, out_at, floor = unpack(job)
        for piece in range(start, stop):
            i, end = piece * grain, min(elements, piece * grain + grain)
            out, listed, at = out_at + piece * out_step, lists + piece * (grain + WIDE) * 8, i % period
            while i + WIDE <= end:
                visit(i, at, period, x, z, out, listed, floor)
                i += WIDE
                at += WIDE
                if at >= period:
                    at -= period
            if i < end:
                visit_last(i, end, at, period, x, z, out, listed, floor)
        return 0

    return kernel


def build_scores(spec: ScoresSpec) -> Callable[[int, int, int], int]:
    load_x, load_z, load_count = loader(KINDS[spec.x], F64), loader(KINDS[spec.z], F64), loader(KINDS[spec.counts], I64)
    store_count = storer(KINDS[spec.counts].llvm)
    counter = np.dtype(spec.counts).type
    size, half, smallest = spec.bins, spec.bins // 2, np.float32(2.0**spec.lowest)
    shift, base = 23 - spec.fraction, (127 + spec.lowest) << spec.fraction
    unpack = simd.reader(SCORES_JOB.names)
    x_size, z_size = KINDS[spec.x].size, KINDS[spec.z].size

    @traced
    def prefetch(address: Value) -> None:
        simd.prefetch(address)

    @njit(error_model="numpy")
    def place(x: float) -> Any:
        single = np.float32(x) if x == x else np.float32(-INF)
        steps: Any = min((np.int64(bits32(abs(single) + smallest)) >> shift) - base, half - 1)
        return half - 1 - steps if bits32(single) < 0 else half + steps

    def kernel(job: int, start: int, stop: int) -> int:
        rows, grain, classes, table_step, x_at, z_at, scores = unpack(job)
        for unit in range(start, stop):
            first, last, begin, end, table = 0, classes, unit * grain, min(rows, unit * grain + grain), scores
            if classes > SCORE_CLASSES:
                first, last, begin, end = unit * SCORE_CLASSES, min(classes, (unit + 1) * SCORE_CLASSES), 0, rows
            else:
                table = scores + unit * table_step
            for row in range(begin, end):
                ahead = (row + 8) * classes + first
                prefetch(x_at + ahead * x_size)
                prefetch(z_at + ahead * z_size)
                for c in range(first, last):
                    i = row * classes + c
                    entry = 2 * c * size + (size if load_z(z_at, i) > 0.5 else 0) + place(load_x(x_at, i))
                    store_count(table, entry, counter(load_count(table, entry) + 1))
        return 0

    return kernel
