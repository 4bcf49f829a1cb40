"""The losses of plain CPU tensors: one `autograd.Function` around the compiled kernel.

Where a sum or a mean is asked for, whose upstream gradient is nearly always 1, loss and gradient are made in one pass
over the logits, and the backward pass hands the gradient over. Any other upstream goes into the kernel, which writes
the gradient anew, where the first one was if nobody can want that again: it costs one reading of the logits, as a
multiplication would cost one of the gradient, and is rounded once. Losses of single rows ("none") have an upstream that
cannot be guessed, and float16 a mean's gradient that would vanish before a loss scale reaches it: their gradients are
made in the backward pass.

A backward pass that is itself differentiated, or mapped over, is left to the operators (`traced`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from withlogits import engine
from withlogits.frameworks.torch import cpu, traced
from withlogits.frameworks.torch.cpu import SigmoidPlan, SoftmaxPlan, share
from withlogits.kernels.cpu.call import FEW

PLAIN = frozenset((Tensor, torch.nn.Parameter))
_transforms_active = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # what `is_grads_batched` and gradcheck map with
_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


def no_transforms() -> bool:
    """Whether operations happen now, as they are written: no torch.func, no tracing, no forward mode."""
    return not _transforms_active() and not _modes() and forward_ad._current_level < 0


def compiled() -> bool:
    """Whether there are kernels; else the operators compute by the formulas."""
    name: str = engine.select().NAME
    return name == "numba"


class SoftmaxLoss(torch.autograd.Function):
    """A loss that was made already, with what its gradient needs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, made: tuple[Any, ...]) -> Tensor:
        value, dx, dz, class_weight, sample_weight, *ctx.made = made
        ctx.save_for_backward(logits, labels, dx, dz, class_weight, sample_weight)
        found: Tensor = value
        return found

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, dx, dz, class_weight, sample_weight = ctx.saved_tensors
        plan, reduction, divisor = ctx.made
        for_logits, for_labels, _ = ctx.needs_input_grad
        if _elsewhere(upstream):
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                value = traced.softmax(logits, labels, class_weight, sample_weight, plan.options, reduction)
            return *_differentiated(value, logits, labels, for_logits, for_labels, upstream, again), None
        kept = _keeps_graph()
        scale, factor = 1.0, sample_weight
        if reduction == "none":
            factor = share(upstream, sample_weight, torch.float64)
        else:
            weight = upstream.item()
            if weight == 1.0 and (dx is not None or dz is not None):
                return *_handed_over(dx, dz, kept), None
            scale = weight / divisor if divisor else 0.0
        gradient = _room(plan.gradients, dx, kept) if for_logits else None
        label_gradient = _room(plan.label_gradients, dz, kept) if for_labels else None
        if scale == 0.0:
            _clear(gradient, label_gradient)
        else:
            plan.total(logits, labels, class_weight, factor, gradient, label_gradient, scale)
        return gradient, label_gradient, None


class SigmoidLoss(torch.autograd.Function):
    """A loss that was made already, with what its gradient needs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, made: tuple[Any, ...]) -> Tensor:
        value, dx, dz, pos_weight, sample_weight, *ctx.made = made
        ctx.save_for_backward(logits, labels, dx, dz, pos_weight, sample_weight)
        found: Tensor = value
        return found

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, dx, dz, pos_weight, sample_weight = ctx.saved_tensors
        plan, reduction, divisor = ctx.made
        for_logits, for_labels, _ = ctx.needs_input_grad
        if _elsewhere(upstream):
            again = torch.is_grad_enabled()
            whole = pos_weight if pos_weight is None else pos_weight.expand(logits.shape)
            with torch.enable_grad():
                value = traced.sigmoid(logits, labels, whole, sample_weight, plan.label_smoothing, reduction)
            return *_differentiated(value, logits, labels, for_logits, for_labels, upstream, again), None
        kept = _keeps_graph()
        scale, factor = 1.0, sample_weight
        if reduction == "none":
            factor = share(upstream, sample_weight, upstream.dtype)
        else:
            weight = upstream.item()
            if weight == 1.0 and (dx is not None or dz is not None):
                return *_handed_over(dx, dz, kept), None
            scale = weight / divisor if divisor else 0.0
        gradient = _room(plan.gradients, dx, kept) if for_logits else None
        label_gradient = _room(plan.label_gradients, dz, kept) if for_labels else None
        if scale == 0.0:
            _clear(gradient, label_gradient)
        else:
            plan.run(logits, labels, pos_weight, factor, None, gradient, label_gradient, scale)
        return gradient, label_gradient, None


# `Function.apply` looks for transforms first, which was done here already; this is what it then calls
_softmax_node = super(torch.autograd.Function, SoftmaxLoss).apply
_sigmoid_node = super(torch.autograd.Function, SigmoidLoss).apply


def softmax_loss(
    plan: SoftmaxPlan,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """The loss, differentiable where it is wanted; weights are float64."""
    divisor = softmax_divisor(plan, labels, class_weight, sample_weight) if reduction == "mean" else 1.0
    for_logits, for_labels = logits.requires_grad, labels.requires_grad
    wanted = (for_logits or for_labels) and torch.is_grad_enabled()
    now = wanted and reduction != "none" and logits.dtype is not torch.float16 and labels.dtype is not torch.float16
    value, dx, dz = softmax(
        plan, logits, labels, class_weight, sample_weight, reduction, divisor, now and for_logits, now and for_labels
    )
    if not wanted:
        return value
    made = (value, dx, dz, class_weight, sample_weight, plan, reduction, divisor)
    found: Tensor = _softmax_node(logits, labels, made)
    return found


def sigmoid_loss(
    plan: SigmoidPlan,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """The loss, differentiable where it is wanted; `pos_weight` is float64, `sample_weight` float32 or float64."""
    divisor = sigmoid_divisor(logits, sample_weight) if reduction == "mean" else 1.0
    for_logits, for_labels = logits.requires_grad, labels.requires_grad
    wanted = (for_logits or for_labels) and torch.is_grad_enabled()
    now = wanted and reduction != "none" and logits.dtype is not torch.float16 and labels.dtype is not torch.float16
    value, dx, dz = sigmoid(
        plan, logits, labels, pos_weight, sample_weight, reduction, divisor, now and for_logits, now and for_labels
    )
    if not wanted:
        return value
    made = (value, dx, dz, pos_weight, sample_weight, plan, reduction, divisor)
    found: Tensor = _sigmoid_node(logits, labels, made)
    return found


def softmax(
    plan: SoftmaxPlan,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    divisor: float,
    for_logits: bool,
    for_labels: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and the gradients of its sum or mean, in one pass; `out` takes that of the logits."""
    gradient = out if out is not None else plan.gradients.tensor() if for_logits else None
    label_gradient = plan.label_gradients.tensor() if for_labels and plan.label_gradients else None
    if reduction == "none":
        loss = plan.values(logits, labels, class_weight, sample_weight, gradient, label_gradient)
        return loss, gradient, label_gradient
    scale = 1.0 / divisor if divisor else 0.0
    total = plan.total(logits, labels, class_weight, sample_weight, gradient, label_gradient, scale)
    return _number(total / divisor if divisor else 0.0, plan.losses.dtype), gradient, label_gradient


def _number(x: float, dtype: torch.dtype) -> Tensor:
    """A tensor of no axis; infinite where the dtype ends, of which `scalar_tensor` alone makes an error."""
    if dtype == torch.float32 and abs(x) > 3.4e38:
        return torch.scalar_tensor(x, dtype=torch.float64).to(dtype)
    return torch.scalar_tensor(x, dtype=dtype)


def softmax_divisor(
    plan: SoftmaxPlan, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None
) -> float:
    """What a mean divides by."""
    ignored = cpu.ignored_among(labels, plan.options.ignore_index)
    if class_weight is None and sample_weight is None:
        if ignored is None:
            return plan.count
        if plan.count <= FEW and labels.dim() == 1:
            return plan.count - labels.tolist().count(ignored)
        return float(np.count_nonzero(labels.numpy() != ignored))
    with torch.no_grad():
        rows = torch.empty(plan.losses.shape)
        return float(traced.softmax_divisor(rows, labels, class_weight, sample_weight, plan.options))


def sigmoid(
    plan: SigmoidPlan,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    divisor: float,
    for_logits: bool,
    for_labels: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and the gradients of its sum or mean, in one pass; `out` takes that of the logits."""
    gradient = out if out is not None else plan.gradients.tensor() if for_logits else None
    label_gradient = plan.label_gradients.tensor() if for_labels else None
    if reduction == "none":
        loss = plan.losses.tensor()
        plan.run(logits, labels, pos_weight, sample_weight, loss, gradient, label_gradient)
        return loss, gradient, label_gradient
    scale = 1.0 / divisor if divisor else 0.0
    total = plan.run(logits, labels, pos_weight, sample_weight, None, gradient, label_gradient, scale)
    return _number(total / divisor if divisor else 0.0, plan.losses.dtype), gradient, label_gradient


def sigmoid_divisor(logits: Tensor, sample_weight: Tensor | None) -> float:
    """What a mean divides by."""
    return float(traced.sigmoid_divisor(logits, sample_weight))


def _elsewhere(upstream: Tensor) -> bool:
    """Whether this backward pass is differentiated, or mapped over."""
    return (
        torch.is_grad_enabled()
        or type(upstream) is not Tensor
        or _is_wrapped(upstream)
        or _is_batched(upstream)
        or not no_transforms()
    )


def _differentiated(
    value: Tensor, logits: Tensor, labels: Tensor, for_logits: bool, for_labels: bool, upstream: Tensor, again: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by torch's autograd through the operators; differentiable `again`."""
    wanted = [t for t, asked in ((logits, for_logits), (labels, for_labels)) if asked]
    found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=again))
    return next(found) if for_logits else None, next(found) if for_labels else None


def _handed_over(dx: Tensor | None, dz: Tensor | None, kept: bool) -> tuple[Tensor | None, Tensor | None]:
    """Copies, if a later backward pass may want them again."""
    if not kept:
        return dx, dz
    return None if dx is None else dx.clone(), None if dz is None else dz.clone()


def _room(room: Any, used: Tensor | None, kept: bool) -> Tensor:
    found: Tensor = room.tensor() if used is None or kept else used
    return found


def _clear(*gradients: Tensor | None) -> None:
    for gradient in gradients:
        if gradient is not None:
            gradient.zero_()
