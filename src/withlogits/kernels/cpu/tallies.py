"""What is counted of rows whose facts and losses are known: for short rows, most of what a diagnosis or a score costs.

Each row is looked at once, eight at a time, and every figure of it goes into its counter at once; NumPy would pass over
all rows some forty times. What is counted stands in `reference.row_tallies`. The rows are done in pieces of fixed
sizes with counters of their own, so the sums do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Callable

from . import counting, functions, simd
from .counting import SIGN, add, bump, whole
from .job import FACTS, LANES, TALLIES_JOB, TALLY_COUNTS, TalliesSpec
from .memory import KINDS, Access
from .simd import F64, I1, I64, Value, select, traced

INF = float("inf")


def build(spec: TalliesSpec) -> Callable[[int, int, int], int]:
    full, numbers = simd.vector(F64, LANES), simd.vector(I64, LANES)
    losses, flag = Access(KINDS[spec.loss], LANES, False), simd.vector(KINDS["bool"].llvm, LANES)
    fact = {name: i for i, name in enumerate((*FACTS, "own"))}

    @traced
    def first_lanes(n: Value) -> Value:
        return simd.lane_numbers(numbers) < n

    @traced
    def places(start: Value, line: Value) -> Value:
        """Where in their lines these rows lie."""
        at = simd.lane_numbers(numbers) + start
        return at - at / line * line

    @traced
    def nothing() -> tuple[Value, ...]:
        zero = simd.constant(0.0, full)
        return simd.constant(INF, full), simd.constant(-INF, full), zero, zero

    def count(out: Value, slot: int, mask: Value) -> None:
        counting.count(out + slot * 8, mask)

    def append(out: Value, name: str, entries: Value, i: Value, mask: Value, key: Value) -> None:
        counting.append(out + (spec.counts_at + TALLY_COUNTS.index(name)) * 8, entries, i, mask, key)

    def look(
        low: Value, top: Value, loss_sum: Value, spread_sum: Value, place: Value, there: Value, next_there: Value,
        i: Value, line: Value, classes: Value, facts: Value, step: Value, loss_at: Value, y_at: Value,
        size_at: Value, counts_at: Value, out: Value, keyed: Value, costly: Value, limit: Value, floor: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """The rows i to i + LANES, and the sums with them."""
        zero, nothing = simd.constant(0.0, full), simd.constant(0, numbers)

        def of_rows(name: str) -> Value:
            return simd.load_some(facts + step * fact[name] + i * 8, there, zero)

        def number(x: Value) -> Value:
            return simd.convert(whole(x), I64)

        def counted(at: Value, mask: Value) -> Value:
            return mask & (simd.load_some(at, mask, simd.constant(0, flag)) != 0)

        highest, lowest, total = of_rows("top"), of_rows("low"), of_rows("total")
        first, y = number(of_rows("first")), simd.load_some(y_at + i * 8, there, nothing)
        loss = losses.read(loss_at + i * losses.kind.size, there, 0.0)
        live = counted(counts_at + i, there) if spec.some else there
        finite = simd.absolute(loss) < INF
        right = live & (first == y)
        if spec.sized:
            rest = simd.load_some(size_at + i * 8, there, zero) - highest
            room = simd.constant(2.0**-24, full)
        else:  # the loss of one class is the row's logsumexp without that class's logit
            rest = loss - (highest - of_rows("own"))
            room = simd.absolute(loss) * 2.0**-22 + 2.0**-24
        both = there & next_there & (place < line - 1)
        if spec.some:
            both = both & live & counted(counts_at + i + 1, next_there)
        y_next = simd.load_some(y_at + i * 8 + 8, next_there, nothing)
        first_next = number(simd.load_some(facts + step * fact["first"] + i * 8 + 8, next_there, zero))
        key = counting.mixed(loss, total)
        masks = {
            "right": right,
            "saturated": live & (rest <= room),
            "in_place": both & (first == y),
            "ahead": both & (first == y_next),
            "behind": both & (first_next == y),
            "changes": both & (y != y_next),
        }
        if spec.some:
            masks |= {"counted": live, "neighbours": both}
        seldom = {
            "nan": there & (loss != loss),
            "infinite": there & (simd.absolute(loss) == INF),
            "odd_rows": there & ~(simd.absolute(total) < INF),
        }
        for name, mask in masks.items():
            count(out, spec.counts_at + TALLY_COUNTS.index(name), mask)

        def count_seldom() -> None:
            for name, mask in seldom.items():
                count(out, spec.counts_at + TALLY_COUNTS.index(name), mask)

        simd.either(simd.set_lanes(~finite | seldom["odd_rows"]) > 0, count_seldom, lambda: None)
        append(out, "keyed", keyed, i, live & finite & ((key ^ SIGN) <= limit), key)
        table = out + spec.classes_at * 8
        if spec.matrix:
            bump(table, select(live, y * classes + first, classes * classes))
        else:
            bump(table, select(live, y, classes))
        if spec.figures is not None:
            append(out, "costly", costly, i, live & (loss >= floor), key)
            above = of_rows("above")
            for j, k in enumerate(spec.within):
                count(out, spec.within_at + j, live & (above < float(k)))
            claimed = functions.exp(simd.smaller(zero, -rest))
            counting.add_claims(spec.figures, out + spec.figures_at * 8, live, claimed, right, loss)
            add(table + (classes * classes + 1 if spec.matrix else classes + 1) * 8, select(live, y, classes), loss)
        spread = highest - lowest
        return (
            select(there, simd.smaller(lowest, low), low),
            select(there, simd.larger(highest, top), top),
            loss_sum + select(there & finite, loss, 0.0),
            spread_sum + select(there & (simd.absolute(spread) < INF), spread, 0.0),
        )

    @traced
    def visit(
        low: Value, top: Value, loss_sum: Value, spread_sum: Value, place: Value,
        i: Value, line: Value, classes: Value, facts: Value, step: Value, loss_at: Value, y_at: Value, size_at: Value,
        counts_at: Value, out: Value, keyed: Value, costly: Value, limit: Value, floor: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """LANES rows, behind which there is another."""
        everything = simd.constant(1, simd.vector(I1, LANES))
        return look(
            low, top, loss_sum, spread_sum, place, everything, everything, i, line, classes, facts, step, loss_at,
            y_at, size_at, counts_at, out, keyed, costly, limit, floor,
        )  # fmt: skip

    @traced
    def visit_last(
        low: Value, top: Value, loss_sum: Value, spread_sum: Value, place: Value,
        i: Value, stop: Value, rows: Value, line: Value, classes: Value, facts: Value, step: Value, loss_at: Value,
        y_at: Value, size_at: Value, counts_at: Value, out: Value, keyed: Value, costly: Value, limit: Value,
        floor: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """As many rows as there are."""
        there, next_there = (simd.lane_numbers(numbers) + i < end for end in (stop, rows - 1))
        return look(
            low, top, loss_sum, spread_sum, place, there, next_there, i, line, classes, facts, step, loss_at, y_at,
            size_at, counts_at, out, keyed, costly, limit, floor,
        )  # fmt: skip

    @traced
    def advanced(place: Value, advance: Value, line: Value) -> Value:
        """LANES rows on, which is `advance` places if lines are shorter."""
        place = place + advance
        return select(place < line, place, place - line)

    @traced
    def keep(low: Value, top: Value, loss: Value, spread: Value, out: Value) -> None:
        for i, x in enumerate((low, top, loss, spread)):
            simd.store(x, out + i * LANES * 8)

    unpack, figures_at = simd.reader(TALLIES_JOB.names), spec.figures_at * 8
    lines, run = (spec.figures.lines, spec.figures.RUN) if spec.figures else (0, 1 << 62)
    settle = counting.settler(spec.figures)

    def kernel(job: int, start: int, stop: int) -> int:
        (
            rows, grain, line, classes, step, out_step, facts, loss_at, y_at, size_at, counts_at, out_at, keyed_at,
            costly_at, limit, floor,
        ) = unpack(job)  # fmt: skip
        advance = LANES % line
        for piece in range(start, stop):
            i, end = piece * grain, min(rows, piece * grain + grain)
            out, room = out_at + piece * out_step, piece * (grain + LANES) * 16
            keyed, costly = keyed_at + room, costly_at + room
            place = places(i, line)
            low, top, loss, spread = nothing()
            while i < end:
                until = min(i + run, end)
                while i + LANES <= until and i + LANES < rows:
                    low, top, loss, spread = visit(
                        low, top, loss, spread, place, i, line, classes, facts, step, loss_at, y_at, size_at,
                        counts_at, out, keyed, costly, limit, floor,
                    )  # fmt: skip
                    place = advanced(place, advance, line)
                    i += LANES
                if i < until:
                    low, top, loss, spread = visit_last(
                        low, top, loss, spread, place, i, until, rows, line, classes, facts, step, loss_at, y_at,
                        size_at, counts_at, out, keyed, costly, limit, floor,
                    )  # fmt: skip
                    i = until
                for each in range(lines):
                    settle(out + figures_at, each)
            keep(low, top, loss, spread, out)
        return 0

    return kernel
