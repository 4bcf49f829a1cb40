"""What is counted of elements of independent classes: `reference.element_tallies` in one pass.

Elements lie side by side, and many of them are looked at together. Bins are counted one lane after another; the
counters of the classes lie side by side as the elements do, so that a whole vector is added at once. The losses are
those of `sigmoid.py`, before they are rounded.
"""

from __future__ import annotations

from collections.abc import Callable

from . import counting, functions, simd
from .job import ANSWER_BITS, ELEMENTS_JOB, ElementsSpec, SigmoidSpec
from .memory import KINDS, Access
from .sigmoid import formulas
from .simd import F64, I1, I64, Value, select, traced

INF = float("inf")


def build(spec: ElementsSpec) -> Callable[[int, int, int], int]:
    lanes = spec.lanes
    full, numbers = simd.vector(F64, lanes), simd.vector(I64, lanes)
    x_access, z_access = (Access(KINDS[kind], lanes, False) for kind in (spec.x, spec.z))
    parts, _, cross_entropy = formulas(SigmoidSpec(spec.x, spec.z))
    figures, settle = spec.figures, counting.settler(spec.figures)
    lines, run = (figures.lines, figures.RUN) if figures else (0, 1 << 62)

    @traced
    def nothing() -> tuple[Value, Value]:
        return simd.constant(0.0, full), simd.constant(0.0, full)

    @traced
    def keep(total: Value, agreement: Value, out: Value) -> None:
        simd.store(total, out)
        simd.store(agreement, out + 8 * lanes)

    def look(
        total: Value, agreement: Value, i: Value, there: Value, at: Value, period: Value, x_at: Value, z_at: Value,
        out: Value, costly: Value, floor: Value,
    ) -> tuple[Value, Value]:  # fmt: skip
        """Count some elements; gives the sums with them."""
        x = x_access.read(x_at + i * x_access.kind.size, there, 0.0)
        z = z_access.read(z_at + i * z_access.kind.size, there, 0.0)
        e, u = parts(x)
        loss, _, _ = cross_entropy(x, e, u, z, None, simd.constant(0.0, full))
        finite = there & (simd.absolute(loss) < INF)
        sums = total + select(finite, loss, 0.0), agreement + select(finite, x * z, 0.0)
        counts = out + spec.counts_at * 8

        def count_odd() -> None:
            counting.count(counts, there & (loss != loss))
            counting.count(counts + 8, there & (simd.absolute(loss) == INF))

        simd.either(simd.set_lanes(there & ~finite) > 0, count_odd, lambda: None)
        if figures is None:
            return sums
        counting.append(counts + 16, costly, i, there & (loss >= floor), simd.bits(loss))
        r = functions.reciprocal(e + 1.0, 2)
        claimed = select(x < 0.0, e * r, r)
        yes, said = there & (z > 0.5), there & (x > 0.0)
        place = counting.add_claims(figures, out + spec.figures_at * 8, there, claimed, yes, loss)
        if not spec.binary:
            counting.add(out + spec.true_at * 8, place, z)
        more = simd.constant(0, numbers)
        for answer, mask in enumerate((yes, said, yes & said)):
            more = more | select(mask, simd.constant(1 << ANSWER_BITS * answer, numbers), 0)
        answers = out + (at + spec.classes_at) * 8
        simd.store(simd.load(answers, numbers) + more, answers)
        losses = answers + (period + lanes) * 8
        simd.store(simd.load(losses, full) + select(there, loss, 0.0), losses)
        return sums

    @traced
    def visit(
        total: Value, agreement: Value, i: Value, at: Value, period: Value, x_at: Value, z_at: Value, out: Value,
        costly: Value, floor: Value,
    ) -> tuple[Value, Value]:  # fmt: skip
        """The elements from i on; the first one's entries in the tables of the classes are the ones at `at`."""
        there = simd.constant(1, simd.vector(I1, lanes))
        return look(total, agreement, i, there, at, period, x_at, z_at, out, costly, floor)

    @traced
    def visit_last(
        total: Value, agreement: Value, i: Value, stop: Value, at: Value, period: Value, x_at: Value, z_at: Value,
        out: Value, costly: Value, floor: Value,
    ) -> tuple[Value, Value]:  # fmt: skip
        """Fewer than lanes."""
        there = simd.lane_numbers(numbers) + i < stop
        return look(total, agreement, i, there, at, period, x_at, z_at, out, costly, floor)

    unpack, figures_at = simd.reader(ELEMENTS_JOB.names), spec.figures_at * 8

    def kernel(job: int, start: int, stop: int) -> int:
        elements, grain, period, out_step, x, z, out_at, costly_at, floor = unpack(job)
        for piece in range(start, stop):
            i, end = piece * grain, min(elements, piece * grain + grain)
            out, costly = out_at + piece * out_step, costly_at + piece * (grain + lanes) * 16
            at = i % period
            total, agreement = nothing()
            while i < end:
                until = min(i + run, end)
                while i + lanes <= until:
                    total, agreement = visit(total, agreement, i, at, period, x, z, out, costly, floor)
                    i += lanes
                    at += lanes
                    if at >= period:
                        at -= period
                if i < until:
                    total, agreement = visit_last(total, agreement, i, until, at, period, x, z, out, costly, floor)
                    i = until
                for line in range(lines):
                    settle(out + figures_at, line)
            keep(total, agreement, out)
        return 0

    return kernel
