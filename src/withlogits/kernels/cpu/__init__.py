"""The compiled engine: planned calls on addresses, for the arrays of every framework."""

from __future__ import annotations

from withlogits.kernels.cpu.layout import Layout
from withlogits.kernels.cpu.plan import Memory
from withlogits.kernels.cpu.sigmoid_plan import SigmoidPlan, elementwise_map
from withlogits.kernels.cpu.softmax_plan import SoftmaxMap, SoftmaxPlan
from withlogits.options import Options, SoftmaxOptions

NAME = "compiled"

__all__ = [
    "NAME",
    "plan_elementwise",
    "plan_loss",
    "plan_softmax_map",
]

plan_softmax_map, plan_elementwise = SoftmaxMap, elementwise_map


def plan_loss(options: Options, memory: Memory, labels: Layout, logits: Layout) -> SoftmaxPlan | SigmoidPlan:
    """The loss of arrays with these layouts, as often as it is wanted."""
    if isinstance(options, SoftmaxOptions):
        return SoftmaxPlan(options, memory, labels, logits)
    return SigmoidPlan(options, memory, labels, logits)
