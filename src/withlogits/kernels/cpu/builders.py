"""Which builder makes the kernel of which spec."""

from __future__ import annotations

from collections.abc import Callable

from . import elements, facts, labels, row_weights, scores, sigmoid, single, softmax, spinning, tallies
from .job import (
    ElementsSpec,
    FactsSpec,
    LabelsSpec,
    PairsSpec,
    PoolSpec,
    RowWeightsSpec,
    ScoresSpec,
    SigmoidSpec,
    SoftmaxSpec,
    TalliesSpec,
)

Spec = (
    SoftmaxSpec | RowWeightsSpec | SigmoidSpec | FactsSpec | TalliesSpec | LabelsSpec | PairsSpec | ElementsSpec | ScoresSpec | PoolSpec
)


def build(spec: Spec) -> Callable[[int, int, int], int]:
    """The Python function that Numba compiles for `spec`."""
    if isinstance(spec, SoftmaxSpec):
        return single.build(spec) if spec.single else softmax.build(spec)
    if isinstance(spec, RowWeightsSpec):
        return row_weights.build(spec)
    if isinstance(spec, SigmoidSpec):
        return sigmoid.build(spec)
    if isinstance(spec, FactsSpec):
        return facts.build(spec)
    if isinstance(spec, TalliesSpec):
        return tallies.build(spec)
    if isinstance(spec, LabelsSpec):
        return labels.build(spec)
    if isinstance(spec, PairsSpec):
        return labels.build_pairs(spec)
    if isinstance(spec, ElementsSpec):
        return elements.build(spec)
    if isinstance(spec, ScoresSpec):
        return scores.build(spec)
    return spinning.build(spec)
