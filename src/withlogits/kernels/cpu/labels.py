"""What is counted of the rows of dense labels, and of logits beside them: `reference.label_tallies` in one pass.

What short rows are like is not written down for all of them, which would take as much memory as the rows themselves:
`build_pairs` finds it out for CHUNK rows at a time and counts it while it is in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from . import counting, simd
from .counting import SIGN
from .facts import scanning
from .job import FACTS, LABEL_COUNTS, LABELS_JOB, LANES, LOGIT_COUNTS, PAIRS_JOB, LabelsSpec, PairsSpec
from .simd import F64, I1, I64, Value, select, traced

INF = float("inf")
CHUNK = 256  # rows
CERTAIN = 40.0  # a logit beyond it is a probability of 0 or 1 to the last bit


def build(spec: LabelsSpec) -> Callable[[int, int, int], int]:
    unpack, (start, count) = simd.reader(LABELS_JOB.names), judging(spec)

    def kernel(job: int, begin: int, stop: int) -> int:
        rows, grain, step, out_step, labels, logits, out_at, keyed_at, limit, close = unpack(job)
        for piece in range(begin, stop):
            i, end = piece * grain, min(rows, piece * grain + grain)
            out, keyed = out_at + piece * out_step, keyed_at + piece * (grain + LANES) * 16
            start(out)
            count(i, end, labels, logits, step, out, keyed, limit, close)
        return 0

    return kernel


def build_pairs(spec: PairsSpec) -> Callable[[int, int, int], int]:
    unpack, (start, count) = simd.reader(PAIRS_JOB.names), judging(LabelsSpec(True))
    scan_logits, scan_labels = scanning(spec.x), scanning(spec.z)
    step = CHUNK * 8
    room = len(FACTS) * step

    @traced
    def rooms() -> Value:
        return simd.scratch(2 * room)

    def kernel(job: int, begin: int, stop: int) -> int:
        (
            rows, grain, out_step, classes, inner, x_outer, x_row, x_class, z_outer, z_row, z_class, x, z,
            out_at, keyed_at, limit, close,
        ) = unpack(job)  # fmt: skip
        facts = rooms()
        for piece in range(begin, stop):
            i, end = piece * grain, min(rows, piece * grain + grain)
            out, keyed = out_at + piece * out_step, keyed_at + piece * (grain + LANES) * 16
            start(out)
            while i < end:
                until, logits = min(i + CHUNK, end), facts - i * 8
                labels = logits + room
                scan_logits(classes, inner, x_outer, x_row, x_class, step, x, 0, logits, i, until)
                scan_labels(classes, inner, z_outer, z_row, z_class, step, z, 0, labels, i, until)
                count(i, until, labels, logits, step, out, keyed, limit, close)
                i = until
        return 0

    return kernel


def judging(spec: LabelsSpec) -> tuple[Callable[..., None], Callable[..., None]]:
    """Functions that kernels call: one that begins the counters of a piece, one that counts rows whose facts are known.

    The rows are those from `i` to `end`.
    """
    full, numbers = simd.vector(F64, LANES), simd.vector(I64, LANES)
    names = LABEL_COUNTS + (LOGIT_COUNTS if spec.paired else ())

    @traced
    def start(out: Value) -> None:
        """The extremes of nothing; all else is 0 already."""
        extremes = {0: INF, 1: -INF, 2: INF, 3: -INF, 6: INF, 7: -INF}
        for i, x in extremes.items():
            if i < spec.vectors:
                simd.store(simd.constant(x, full), out + i * 8 * LANES)

    def look(
        i: Value, there: Value, labels: Value, logits: Value, step: Value, out: Value, keyed: Value, limit: Value,
        close: Value,
    ) -> None:  # fmt: skip
        def of(facts: Value, name: str) -> Value:
            return simd.load_some(facts + step * FACTS.index(name) + i * 8, there, simd.constant(0.0, full))

        def update(vector: int, combine: Callable[[Value, Value], Value], x: Value) -> None:
            address = out + vector * 8 * LANES
            so_far = simd.load(address, full)
            simd.store(select(there, combine(x, so_far), so_far), address)

        def plus(x: Value, so_far: Value) -> Value:
            return x + so_far

        low, top, total, above = (of(labels, name) for name in ("low", "top", "total", "above"))
        good = there & (low >= 0.0) & (top <= 1.0)
        binary = good & (total == above)
        masks = {
            "binary": binary,
            "none": binary & (above == 0.0),
            "one": binary & (above == 1.0),
            "two": binary & (above == 2.0),
            "distributions": there & (low >= 0.0) & (simd.absolute(total - 1.0) <= close),
            "negative": there & (low < 0.0),
            "odd": there & ~(simd.absolute(total) < INF),
        }
        update(0, simd.smaller, low)
        update(1, simd.larger, top)
        update(2, simd.smaller, total)
        update(3, simd.larger, total)
        update(4, plus, total)
        update(5, plus, select(good, total, 0.0))
        if spec.paired:
            least, most, size = (of(logits, name) for name in ("low", "top", "total"))
            spread = most - least
            finite = simd.absolute(size) < INF
            update(6, simd.smaller, least)
            update(7, simd.larger, most)
            update(8, plus, select(simd.absolute(spread) < INF, spread, 0.0))
            update(9, plus, size)
            far = (simd.absolute(most) > CERTAIN) | (simd.absolute(least) > CERTAIN)
            masks |= {"odd_rows": there & ~finite, "saturated": there & far}
            key = counting.mixed(size, total)
            address = out + (spec.counts_at + names.index("keyed")) * 8
            counting.append(address, keyed, i, there & finite & ((key ^ SIGN) <= limit), key)
        for name, mask in masks.items():
            counting.count(out + (spec.counts_at + names.index(name)) * 8, mask)

    @traced
    def visit(
        i: Value, labels: Value, logits: Value, step: Value, out: Value, keyed: Value, limit: Value, close: Value
    ) -> None:
        """LANES rows."""
        everything = simd.constant(1, simd.vector(I1, LANES))
        look(i, everything, labels, logits, step, out, keyed, limit, close)

    @traced
    def visit_last(
        i: Value, stop: Value, labels: Value, logits: Value, step: Value, out: Value, keyed: Value, limit: Value,
        close: Value,
    ) -> None:  # fmt: skip
        """As many rows as there are."""
        look(i, simd.lane_numbers(numbers) + i < stop, labels, logits, step, out, keyed, limit, close)

    @njit(error_model="numpy")
    def count(
        i: int, end: int, labels: int, logits: int, step: int, out: int, keyed: int, limit: int, close: float
    ) -> None:
        while i + LANES <= end:
            visit(i, labels, logits, step, out, keyed, limit, close)
            i += LANES
        if i < end:
            visit_last(i, end, labels, logits, step, out, keyed, limit, close)

    return start, count
