"""The scan of rows that statistics begin with: extremes, sum, the first largest, and how many are above a threshold
or equal to it.

NaN counts in the sum alone; of a row of nothing but NaN, top is −inf, low is inf and first is 0. The sum is a plain one
in float64. What float32 holds is compared in float32, in half the time.
"""

from __future__ import annotations

from . import simd
from .control import Job, Kernel, Variable
from .job import LANES, SCAN_JOB, SCANNED, SoftmaxSpec
from .memory import FLOAT32_HOLDS, Lanes, some_lanes, store_lanes
from .rows import INF, Row, Rows, plus
from .simd import F32, F64, I32, I64, Value, convert, select
from .target import Target

NAN = float("nan")
TOGETHER = 1 << 13  # bytes of logits of a group


def build(spec: SoftmaxSpec, target: Target) -> Kernel:
    """Return the kernel that writes the numbers `SCANNED` of each row, one plane of 8-byte words after another."""
    scan = _Scan(spec)

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, SCAN_JOB.names)
        rows = Rows(spec, job, scan.lanes, scan.lanes)

        def group() -> None:
            own = simd.constant(0.0, simd.vector(F64, scan.lanes))
            if spec.labels == "index":
                own = rows.label_logits(select(rows.first(), rows.indices(), 0))
            rows.numbers.put("own", own)
            rows.visit(None, scan.row)
            for plane, name in enumerate(SCANNED):
                store_lanes(rows.numbers.all(name), rows.i * 8 + job.out + job.plane * plane, rows.n)

        rows.groups(start, stop, rows.most_together(TOGETHER), group)
        return simd.integer(0)

    return kernel


class _Scan:
    def __init__(self, spec: SoftmaxSpec) -> None:
        self._along = spec.layout == "along"
        narrow = spec.x in FLOAT32_HOLDS
        self._element, self._integer = (F32, I32) if narrow else (F64, I64)
        self.lanes = 2 * LANES if narrow or self._along else LANES

    def row(self, row: Row) -> None:
        """Keep the numbers of a row. One pass finds the first largest: each lane remembers where its own was."""
        full, numbers, double = (simd.vector(e, self.lanes) for e in (self._element, self._integer, F64))
        top, low = Variable(simd.constant(-INF, full)), Variable(simd.constant(INF, full))
        total = Variable(simd.constant(0.0, double))
        first, above, equal = (Variable(simd.constant(0, numbers)) for _ in range(3))
        own = row.number("own")
        threshold = convert(simd.splat(own, double) if self._along else own, self._element)
        within = simd.lane_numbers(numbers) if self._along else simd.constant(0, numbers)
        width = self.lanes if self._along else 1

        def step(j: Value, lanes: Lanes) -> None:
            x = row.x.read(j, lanes, NAN, self._element)
            first.value = select(x > top.value, within + convert(j * width, self._integer), first.value)
            above.value = above.value + convert(x > threshold, self._integer)
            equal.value = equal.value + convert(x == threshold, self._integer)
            top.value, low.value = simd.larger(x, top.value), simd.smaller(x, low.value)
            if self._along and lanes is not None:
                x = select(some_lanes(lanes, self.lanes), x, 0.0)
            total.value = total.value + convert(x, F64)

        row.rows.steps(step)
        found = {
            "top": top.value, "low": low.value, "total": total.value, "first": first.value,
            "above": above.value, "equal": equal.value,
        }  # fmt: skip
        if self._along:
            highest = simd.across(top.value, simd.larger)
            nowhere = simd.constant((1 << 31) - 1, numbers)
            found = {
                "top": highest,
                "low": simd.across(low.value, simd.smaller),
                "total": simd.across(total.value, plus),
                "first": simd.across(select(top.value == highest, first.value, nowhere), simd.smaller),
                "above": simd.across(above.value, plus),
                "equal": simd.across(equal.value, plus),
            }
        for name, value in found.items():
            row.put(name, convert(value, I64 if name == "first" else F64))
