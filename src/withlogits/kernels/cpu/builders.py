"""Which builder makes the kernel of which spec."""

from __future__ import annotations

from collections.abc import Callable

from . import element_statistics, row_statistics, sigmoid, single, softmax, spinning
from .job import PoolSpec, SigmoidSpec, SoftmaxSpec
from .statistics import ElementsSpec, RowsSpec, ScoresSpec

Spec = SoftmaxSpec | SigmoidSpec | RowsSpec | ElementsSpec | ScoresSpec | PoolSpec


def build(spec: Spec) -> Callable[[int, int, int], int]:
    """The Python function that Numba compiles for `spec`."""
    if isinstance(spec, SoftmaxSpec):
        return single.build(spec) if spec.single else softmax.build(spec)
    if isinstance(spec, SigmoidSpec):
        return sigmoid.build(spec)
    if isinstance(spec, RowsSpec):
        return row_statistics.build(spec)
    if isinstance(spec, ElementsSpec):
        return element_statistics.build(spec)
    if isinstance(spec, ScoresSpec):
        return element_statistics.build_scores(spec)
    return spinning.build(spec)
