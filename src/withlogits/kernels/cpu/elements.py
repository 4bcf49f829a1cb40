"""What is counted of elements of independent classes whose losses are known: `reference.element_tallies` in one pass.

Elements lie side by side, and eight are looked at together. Bins are counted one lane after another; the counters of
the classes lie side by side as the elements do, so that a whole vector is added at once.
"""

from __future__ import annotations

from collections.abc import Callable

from . import counting, functions, simd
from .counting import bump
from .job import ANSWER_BITS, ELEMENTS_JOB, WIDE, ElementsSpec
from .memory import KINDS, Access
from .simd import F64, I1, I64, Value, fma, select, traced

INF = float("inf")


def build(spec: ElementsSpec) -> Callable[[int, int, int], int]:
    full, numbers = simd.vector(F64, WIDE), simd.vector(I64, WIDE)
    x_access, z_access, losses = (Access(KINDS[kind], WIDE, False) for kind in (spec.x, spec.z, spec.loss))

    def sigmoid(x: Value) -> Value:
        """Within 3e-10 of it."""
        scale, t = functions.exp_pair(-simd.absolute(x), coefficients=functions.EXP_SINGLE, to_zero=False)
        e = fma(scale, t, scale)
        r = functions.reciprocal(e + 1.0, 2)
        return select(x < 0.0, e * r, r)

    def look(
        i: Value, there: Value, at: Value, period: Value, x_at: Value, z_at: Value, loss_at: Value, out: Value,
        costly: Value, floor: Value,
    ) -> None:  # fmt: skip
        x = x_access.read(x_at + i * x_access.kind.size, there, 0.0)
        z = z_access.read(z_at + i * z_access.kind.size, there, 0.0)
        loss = losses.read(loss_at + i * losses.kind.size, there, 0.0)
        claimed = sigmoid(x)
        known = there & (claimed == claimed)
        claimed = select(known, claimed, 0.0)
        place = select(known, counting.width_bin(claimed, spec.confidence), spec.confidence)
        counting.add_claims(out, place, claimed, z)
        octave = counting.octave_bin(loss, spec.lowest, spec.losses)
        bump(out + spec.histogram_at * 8, select(there & (simd.absolute(loss) < INF), octave, spec.losses))
        yes, said = there & (z > 0.5), there & (x > 0.0)
        table, step = out + spec.classes_at * 8 + at * 8, (period + WIDE) * 8
        more = simd.constant(0, numbers)
        for i_answer, mask in enumerate((yes, said, yes & said)):
            more = more | select(mask, simd.constant(1 << ANSWER_BITS * i_answer, numbers), 0)
        simd.store(simd.load(table, numbers) + more, table)
        table = table + step
        simd.store(simd.load(table, full) + select(there, loss, 0.0), table)
        counting.append(out + spec.costly_at * 8, costly, i, there & (loss >= floor), simd.bits(loss))

    @traced
    def visit(
        i: Value, at: Value, period: Value, x_at: Value, z_at: Value, loss_at: Value, out: Value, costly: Value,
        floor: Value,
    ) -> None:  # fmt: skip
        """The elements from i on; the first one's entries in the tables of the classes are the ones at `at`."""
        there = simd.constant(1, simd.vector(I1, WIDE))
        look(i, there, at, period, x_at, z_at, loss_at, out, costly, floor)

    @traced
    def visit_last(
        i: Value, stop: Value, at: Value, period: Value, x_at: Value, z_at: Value, loss_at: Value, out: Value,
        costly: Value, floor: Value,
    ) -> None:  # fmt: skip
        """Fewer than WIDE."""
        there = simd.lane_numbers(numbers) + i < stop
        look(i, there, at, period, x_at, z_at, loss_at, out, costly, floor)

    unpack = simd.reader(ELEMENTS_JOB.names)

    def kernel(job: int, start: int, stop: int) -> int:
        elements, grain, period, out_step, x, z, loss, out_at, costly_at, floor = unpack(job)
        for piece in range(start, stop):
            i, end = piece * grain, min(elements, piece * grain + grain)
            out, costly = out_at + piece * out_step, costly_at + piece * (grain + WIDE) * 16
            at = i % period
            while i + WIDE <= end:
                visit(i, at, period, x, z, loss, out, costly, floor)
                i += WIDE
                at += WIDE
                if at >= period:
                    at -= period
            if i < end:
                visit_last(i, end, at, period, x, z, loss, out, costly, floor)
        return 0

    return kernel
