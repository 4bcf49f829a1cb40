"""The compiled CPU kernels behind the operators, for tensors in the operators' form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from withlogits import errors
from withlogits.frameworks.torch.families import SIGMOID, SOFTMAX, Family
from withlogits.frameworks.torch.memory import TorchMemory
from withlogits.kernels.cpu.plan import Plan
from withlogits.memo import keep

_plans: dict[tuple[Any, ...], Plan] = {}
_maps: dict[tuple[Any, ...], Callable[[Tensor], Tensor]] = {}


def looks_of(tensor: Tensor) -> tuple[Any, ...]:
    """What of a tensor a plan depends on."""
    return tensor.shape, tensor.stride(), tensor.dtype


def plan_of(options: Any, labels: Tensor, logits: Tensor) -> Plan:
    """The plan of a loss of tensors like these."""
    from withlogits.kernels import cpu

    key = (options, *looks_of(labels), *looks_of(logits))
    found = _plans.get(key)
    if found is None:
        layout = TorchMemory.layout
        plan: Plan = cpu.plan_loss(options, TorchMemory, layout(labels), layout(logits))
        found = keep(_plans, key, plan)
    return found


def kernel_weights(
    family: Family, weight: Tensor | None, sample_weight: Tensor | None, *per_class: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Weights as the kernels read them: float64, those of classes side by side, those of elements float32 too."""
    if weight is not None:
        weight = weight.to(torch.float64)
        weight = weight.contiguous() if family is SOFTMAX else weight
    if sample_weight is not None and (family is SOFTMAX or sample_weight.dtype != torch.float32):
        sample_weight = sample_weight.to(torch.float64)
    return weight, sample_weight, *[None if each is None else each.to(torch.float64).contiguous() for each in per_class]


def or_nothing(pair: tuple[Tensor | None, Tensor | None], like: Tensor) -> tuple[Tensor, Tensor]:
    """Operators return tensors: an empty one stands for a gradient that was not asked for."""
    first, second = pair
    return like.new_empty(0) if first is None else first, like.new_empty(0) if second is None else second


def share(upstream: Tensor, sample_weight: Tensor | None, family: Family) -> Tensor:
    """What the gradient of each loss is multiplied by."""
    if family is SOFTMAX:
        upstream = upstream.to(torch.float64)
    return upstream if sample_weight is None else upstream * sample_weight


def check_range(family: Family, args: Any) -> None:
    """Raise for a label that contributes and is no class; for kernels that do not look."""
    options = family.options(args)
    if options.sparse:
        logits, labels, sample_weight = args[0], args[1], args[3]
        weight = None if sample_weight is None else sample_weight.numpy()
        errors.check_in_range(labels.numpy(), logits.shape[options.axis], options.ignore_index, weight)


def _losses(family: Family) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(*args: Any) -> tuple[Tensor, Tensor]:
        logits, labels, *weights = args[: family.operands]
        plan = plan_of(family.options(args), labels, logits)
        arrays = (labels, logits, *kernel_weights(family, *weights))
        return plan.evaluate(arrays, False, False)[0], logits.new_empty(0)

    return run


def _gradients(family: Family) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(upstream: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        *args, for_logits, for_labels = rest
        logits, labels, weight, sample_weight, *more = args[: family.operands]
        plan = plan_of(family.options(args), labels, logits)
        gradient = plan.gradients.empty() if for_logits else None
        label_gradient = plan.label_gradients.empty() if for_labels and plan.label_gradients else None
        weights = kernel_weights(family, weight, share(upstream, sample_weight, family), *more)
        plan.fill((labels, logits, *weights), gradient, label_gradient)
        return or_nothing((gradient, label_gradient), logits)

    return run


def _map(make: str) -> Callable[..., Tensor]:
    """The activations; the last argument is their kind."""

    def run(x: Tensor, *given: Any) -> Tensor:
        from withlogits.kernels import cpu

        key = (make, *given, *looks_of(x))
        found = _maps.get(key)
        if found is None:
            *axis, kind = given
            found = keep(_maps, key, getattr(cpu, make)(kind, *axis, TorchMemory, TorchMemory.layout(x)))
        return found(x)

    return run


KERNELS: dict[str, Callable[..., Any]] = {
    "softmax_map": _map("plan_softmax_map"),
    "elementwise": _map("plan_elementwise"),
}
for _family in (SOFTMAX, SIGMOID):
    KERNELS[_family.name] = _losses(_family)
    KERNELS[f"{_family.name}_backward"] = _gradients(_family)
