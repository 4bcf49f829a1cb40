"""Which builder makes the kernel of which spec."""

from __future__ import annotations

from collections.abc import Callable

from . import facts, sigmoid, single, softmax, spinning
from .job import FactsSpec, PoolSpec, SigmoidSpec, SoftmaxSpec


def build(spec: SoftmaxSpec | SigmoidSpec | FactsSpec | PoolSpec) -> Callable[[int, int, int], int]:
    """The Python function that Numba compiles for `spec`."""
    if isinstance(spec, SoftmaxSpec):
        return single.build(spec) if spec.single else softmax.build(spec)
    if isinstance(spec, SigmoidSpec):
        return sigmoid.build(spec)
    if isinstance(spec, FactsSpec):
        return facts.build(spec)
    return spinning.build(spec)
