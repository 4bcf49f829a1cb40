"""The sum of float64 numbers that lie side by side: of the losses of rows, and of what a mean divides by.

They are added up in `LANES` partial sums that keep what rounding loses (Knuth's two-sum). The partial sums are those of
every machine, whatever its vectors: the bits are the same on all. The error is one rounding and that of the lost parts,
far below it; infinities and NaN add up as in IEEE arithmetic.
"""

from __future__ import annotations

from . import simd
from .control import Kernel, Variable, loop
from .job import LANES, TotalSpec
from .simd import F64, Value, select
from .target import Target


def build(spec: TotalSpec, target: Target) -> Kernel:
    """Return the kernel that puts the sum of the numbers at an address in the place of the first."""

    def kernel(at: Value, _start: Value, count: Value) -> Value:
        simd.store(summed(at, count), at)
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
