"""What each row of a softmax loss adds to the divisor of a mean: its sample weight times its class weight.

    index labels y:  s w_y, and 0 where y is the ignored index
    dense labels z:  s Σ_j w_j z_j
    0 where s is 0, whatever the labels hold; the class weight is 1 where there are none

float64; the terms of a row are added in order.
"""

from __future__ import annotations

from . import simd
from .control import Job, Kernel, Variable, loop, when
from .job import ROW_WEIGHTS_JOB, RowWeightsSpec
from .memory import KINDS, Access
from .simd import F64, I64, Value, select
from .target import Target


def build(spec: RowWeightsSpec, target: Target) -> Kernel:
    """Return the kernel that writes the weights of rows."""
    one, zero = Access(KINDS[spec.z], 1, False), 0.0

    def label(address: Value) -> Value:
        return simd.lane(one.read(address, None, zero, I64 if spec.sparse else F64), 0)

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, ROW_WEIGHTS_JOB.names)
        with loop(start, stop) as i:
            outer = i / job.inner
            row = i - outer * job.inner
            sample = simd.load(job.s + outer * job.s_outer + row * job.s_row, F64)
            at = job.z + outer * job.z_outer + row * job.z_row
            weight = Variable(simd.constant(1.0, F64))
            if spec.sparse:
                y = label(at)
                sample = select((job.has_ignore != 0) & (y == job.ignore), zero, sample)
                if spec.weighted:  # a label that is no class is refused by the loss
                    valid = (y >= 0) & (y < job.classes)
                    weight.value = simd.load(job.class_weight + select(valid, y, 0) * 8, F64)
            elif spec.weighted:
                with when(sample != zero):
                    weight.value = simd.constant(zero, F64)
                    with loop(0, job.classes) as j:
                        weight.value = weight.value + simd.load(job.class_weight + j * 8, F64) * label(
                            at + j * job.z_class
                        )
            simd.store(select(sample == zero, zero, sample * weight.value), job.out + i * 8)
        return simd.integer(0)

    return kernel
