"""The statistics of elements of independent classes, and their scores in bins; see `statistics.arrays`."""

from __future__ import annotations

from collections.abc import Callable

from . import counting, functions, simd
from .job import LANES, SigmoidSpec
from .memory import KINDS, Access
from .sigmoid import formulas
from .simd import F32, F64, I1, I64, Value, convert, select, traced
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
    """The bins of many classes are larger than the near caches: a unit of the work is SCORE_CLASSES, over all rows.

    Fewer classes are one line of elements, cut into parts with bins of their own.
    """
    numbers = simd.vector(I64, LANES)
    x_access, z_access = (Access(KINDS[kind], LANES, False) for kind in (spec.x, spec.z))
    size, half, counter = spec.bins, spec.bins // 2, KINDS[spec.counts].llvm
    x_size, z_size = x_access.kind.size, z_access.kind.size

    def place(x: Value) -> Value:
        narrow = convert(select(x == x, x, -INF), F32)
        word = simd.bits(simd.absolute(narrow) + 2.0**spec.lowest)
        steps = (word >> (23 - spec.fraction)) - ((127 + spec.lowest) << spec.fraction)
        steps = simd.smaller(steps, simd.constant(half - 1, steps.type))
        return select(simd.bits(narrow) < 0, half - 1 - steps, steps + half)

    def look(there: Value, x_at: Value, z_at: Value, i: Value, classes: Value, table: Value) -> None:
        """Counts the elements from i on; the numbers of their classes stand at `classes`."""
        x, z = x_access.read(x_at + i * x_size, there, 0.0), z_access.read(z_at + i * z_size, there, 0.0)
        of_class = simd.load(classes, numbers) * (2 * size) + convert(place(x), I64)
        one = convert(convert(there, I64), counter)
        counting.scatter_add(table, select(z > 0.5, of_class + size, of_class), one)

    @traced
    def visit(x_at: Value, z_at: Value, i: Value, ahead: Value, classes: Value, table: Value) -> None:
        simd.prefetch(x_at + (ahead + i) * x_size)
        simd.prefetch(z_at + (ahead + i) * z_size)
        look(simd.constant(1, simd.vector(I1, LANES)), x_at, z_at, i, classes, table)

    @traced
    def visit_last(x_at: Value, z_at: Value, i: Value, stop: Value, classes: Value, table: Value) -> None:
        """Fewer than LANES."""
        look(simd.lane_numbers(numbers) + i < stop, x_at, z_at, i, classes, table)

    unpack = simd.reader(SCORES_JOB.names)

    def kernel(job: int, start: int, stop: int) -> int:
        elements, grain, period, classes, table_step, x, z, scores, classes_at = unpack(job)
        for unit in range(start, stop):
            if classes > SCORE_CLASSES:
                begin = unit * SCORE_CLASSES
                length, lines, table = min(SCORE_CLASSES, classes - begin), elements // classes, scores
            else:
                begin, lines, table = unit * grain, 1, scores + unit * table_step
                length = min(grain, elements - begin)
            phase = begin % period
            for line in range(lines):
                xa, za = x + (begin + line * classes) * x_size, z + (begin + line * classes) * z_size
                i, at = 0, phase
                while i + LANES <= length:
                    visit(xa, za, i, 8 * classes, classes_at + at * 8, table)
                    i += LANES
                    at += LANES
                    if at >= period:
                        at -= period
                if i < length:
                    visit_last(xa, za, i, length, classes_at + at * 8, table)
        return 0

    return kernel
