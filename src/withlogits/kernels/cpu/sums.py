"""The sum of float64 numbers side by side, in `LANES` partial sums that keep what rounding loses (Knuth's two-sum).

The partial sums are those of every machine, whatever its vectors: the bits are the same on all. The error is one
rounding and that of the lost parts, far below it.
"""

from __future__ import annotations

from . import simd
from .control import Job, Kernel, Variable, loop
from .job import LANES, SUM_JOB, SumSpec
from .simd import F64, Value, select
from .target import Target


def build(spec: SumSpec, target: Target) -> Kernel:
    """Return the kernel that sums up the numbers from start to stop."""

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, SUM_JOB.names)
        simd.store(summed(job.at + start * 8, stop - start), job.out)
        return simd.integer(0)

    return kernel


def summed(at: Value, count: Value) -> Value:
    """Return the sum of so many numbers."""
    lanes = simd.vector(F64, LANES)
    total, lost = (Variable(simd.constant(0.0, lanes)) for _ in range(2))
    whole = count / LANES * LANES
    with loop(0, whole, LANES) as i:
        _add(total, lost, simd.load(at + i * 8, lanes))
    last, last_lost = (Variable(simd.constant(0.0, F64)) for _ in range(2))
    for lane in range(LANES):
        _add(last, last_lost, simd.lane(total.value, lane))
        last_lost.value = last_lost.value + simd.lane(lost.value, lane)
    with loop(whole, count) as i:
        _add(last, last_lost, simd.load(at + i * 8, F64))
    found = last.value + last_lost.value
    return select(found == found, found, last.value)  # next to infinities and NaN nothing is lost


def _add(total: Variable, lost: Variable, x: Value) -> None:
    before = total.value
    after = before + x
    part = after - before
    lost.value = lost.value + ((before - (after - part)) + (x - part))
    total.value = after
