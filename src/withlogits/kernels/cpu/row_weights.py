"""What each row of a softmax loss adds to the divisor of a mean: its sample weight times its class weight.

    index labels y:  s w_y, and 0 where y is the ignored index
    dense labels z:  s Σ_j w_j z_j
    0 where s is 0, whatever the labels hold; the class weight is 1 where there are none

float64; the terms of a row are added in order.
"""

from __future__ import annotations

from collections.abc import Callable

from . import simd
from .job import ROW_WEIGHTS_JOB, RowWeightsSpec
from .memory import KINDS, Access
from .simd import F64, I64, Value, traced


def build(spec: RowWeightsSpec) -> Callable[[int, int, int], int]:
    one, every = Access(KINDS[spec.z], 1, False), simd.vector(simd.I1, 1)
    sparse, weighted = spec.sparse, spec.weighted

    @traced
    def label(address: Value) -> Value:
        return simd.lane(one.read(address, simd.constant(1, every), 0.0, I64 if sparse else F64), 0)

    @traced
    def number(address: Value) -> Value:
        return simd.load(address, F64)

    @traced
    def store(x: Value, address: Value) -> None:
        simd.store(x, address)

    unpack = simd.reader(ROW_WEIGHTS_JOB.names)

    def kernel(job: int, start: int, stop: int) -> int:
        classes, inner, z_outer, z_row, z_class, s_outer, s_row, ignore, has_ignore, z, s, out, w = unpack(job)
        for i in range(start, stop):
            outer = i // inner
            row = i - outer * inner
            sample, at = number(s + outer * s_outer + row * s_row), z + outer * z_outer + row * z_row
            weight = 1.0
            if sparse:
                y = label(at)
                if has_ignore != 0 and y == ignore:
                    sample = 0.0
                if weighted:
                    weight = number(w + 8 * y) if 0 <= y < classes else 0.0
            elif weighted and sample != 0.0:
                weight = 0.0
                for j in range(classes):
                    weight += number(w + 8 * j) * label(at + j * z_class)
            store(sample * weight if sample != 0.0 else 0.0, out + 8 * i)
        return 0

    return kernel
