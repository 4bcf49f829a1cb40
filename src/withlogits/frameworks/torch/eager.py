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

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from withlogits import engine
from withlogits.arguments import FEW
from withlogits.frameworks.torch import traced
from withlogits.frameworks.torch.cpu import CPU, KINDS, SigmoidPlan, SoftmaxPlan, share
from withlogits.frameworks.torch.private import (
    apply_of,
    dispatch_modes,
    forward_mode,
    is_batched,
    is_tracing,
    is_wrapped,
    keeps_graph,
    transforms_active,
)
from withlogits.kernels.cpu.call import FLOAT64
from withlogits.kernels.cpu.call import Plan as Kernel
from withlogits.kernels.cpu.host_softmax import ONE_AT
from withlogits.kernels.cpu.job import SOFTMAX_JOB

Plan = SoftmaxPlan | SigmoidPlan

HALF = torch.float16  # a mean's gradient would vanish in it before a loss scale reaches it
PLAIN = frozenset((Tensor, torch.nn.Parameter))


def no_transforms() -> bool:
    """Whether operations happen now, as they are written: no torch.func, no tracing, no forward mode."""
    return (
        not torch.compiler.is_compiling()
        and not transforms_active()
        and not dispatch_modes()
        and not is_tracing()
        and forward_mode._current_level < 0
    )


def compiled() -> bool:
    """Whether there are kernels; else the operators compute by the formulas."""
    name: str = engine.select().NAME
    return name == "numba"


class Loss(torch.autograd.Function):
    """A loss that was made already, with what its gradient needs.

    A small gradient is kept beside the saved tensors, whose unpacking takes longer than the gradient took.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor | None, made: tuple[Any, ...]) -> Tensor:
        value, kept, ctx.small, ctx.made = made
        ctx.save_for_backward(*kept)
        found: Tensor = value
        return found

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        elsewhere, kept, small = _elsewhere(upstream), keeps_graph(), ctx.small
        if not kept:
            ctx.small = None
        if small is not None and not elsewhere and upstream.item() == 1.0:
            return small.clone() if kept else small, None, None
        logits, labels, dx, *more = ctx.saved_tensors
        dz, weight, sample_weight = more or (None, None, None)
        plan, reduction, divisor = ctx.made
        if elsewhere:
            wanted = ctx.needs_input_grad[:2]
            return *_differentiated(plan, logits, labels, weight, sample_weight, reduction, wanted, upstream), None
        scale, factor = 1.0, sample_weight
        if reduction == "none":
            factor = share(upstream, sample_weight, plan.factor_dtype)
        else:
            scale = upstream.item()
            if scale == 1.0 and (dx is not None or dz is not None):
                return *_handed_over(dx, dz, kept), None
            scale = scale / divisor if divisor else 0.0
        for_logits, for_labels, _ = ctx.needs_input_grad
        gradient = _room(plan.gradients, dx, kept) if for_logits else None
        label_gradient = _room(plan.label_gradients, dz, kept) if for_labels else None
        if scale == 0.0:
            _clear(gradient, label_gradient)
        else:
            plan.fill(logits, labels, weight, factor, gradient, label_gradient, scale)
        return gradient, label_gradient, None


_node = apply_of(Loss)  # that no transform is at work was seen already


def loss(
    plan: Plan, logits: Tensor, labels: Tensor, weight: Tensor | None, sample_weight: Tensor | None, reduction: str
) -> Tensor:
    """The loss, differentiable where it is wanted; the weights are as the plan takes them."""
    for_logits, for_labels = logits.requires_grad, labels.requires_grad
    wanted = (for_logits or for_labels) and torch.is_grad_enabled()
    now = wanted and reduction != "none" and logits.dtype is not HALF and labels.dtype is not HALF
    value, dx, dz, divisor = value_and_gradients(
        plan, logits, labels, weight, sample_weight, reduction, now and for_logits, now and for_labels
    )
    if not wanted:
        return value
    kept = [logits, labels, dx]
    if dz is not None or weight is not None or sample_weight is not None:
        kept += [dz, weight, sample_weight]
    found: Tensor = _node(logits, labels if for_labels else None, (value, kept, None, (plan, reduction, divisor)))
    return found


def prepared(plan: Plan, reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    """`loss` without weights, for calls of a kind that has come before.

    Of few rows the arithmetic takes less time than Python takes to find its way there: the way is found here, once.
    """

    def general(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(plan, logits, labels, None, None, reduction)

    if not isinstance(plan, SoftmaxPlan) or not 0 < plan.count <= FEW or plan.gradients.dtype is HALF:
        return general
    reduced, mean, dtype = reduction != "none", reduction == "mean", plan.losses.dtype
    kind = FLOAT64 if reduced else KINDS[dtype]
    alone: Kernel | None = None  # each is compiled by the first call that needs it
    with_gradient: Kernel | None = None

    def call(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal alone, with_gradient
        if labels.requires_grad:
            return general(logits, labels)
        wanted = logits.requires_grad and torch.is_grad_enabled()
        if wanted and reduced:
            kernel = with_gradient or plan.kernel(kind, False, None, plan.gradients.strides, False)
            with_gradient = kernel
        else:
            kernel = alone or plan.kernel(kind, False, None, None, False)
            alone = kernel
        if not (kernel.whole and kernel.small):
            return general(logits, labels)
        divisor = plan.divisor(labels, None, None) if mean else 1.0
        scale = 1.0 / divisor if divisor else 0.0
        dx, g = None, 0
        if wanted and reduced:
            dx = plan.gradients.tensor()
            g = dx.data_ptr()
        if reduced:
            few = plan.few()
            at = ctypes.addressof(few)
        else:
            value = plan.losses.tensor()
            at = value.data_ptr()
        if kernel.run(SOFTMAX_JOB.fill(logits.data_ptr(), labels.data_ptr(), g, 0, ONE_AT, at, ONE_AT, scale, 0.0)):
            raise plan.label_out_of_range(labels)
        if reduced:
            value = _number(sum(few[:]) / divisor if divisor else 0.0, dtype)
        if not wanted:
            return value
        found: Tensor = _node(logits, None, (value, (logits, labels, None), dx, (plan, reduction, divisor)))
        return found

    return call


def value_and_gradients(
    plan: Plan,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    for_logits: bool,
    for_labels: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
    """The loss and the gradients of its sum or mean, in one pass, and what a mean was divided by.

    `out` takes the gradient of the logits.
    """
    divisor = plan.divisor(labels, weight, sample_weight) if reduction == "mean" else 1.0
    gradient = out if out is not None else plan.gradients.tensor() if for_logits else None
    label_gradient = plan.label_gradients.tensor() if for_labels and plan.label_gradients is not None else None
    if reduction == "none":
        value = plan.values(logits, labels, weight, sample_weight, gradient, label_gradient)
    else:
        scale = 1.0 / divisor if divisor else 0.0
        total = plan.total(logits, labels, weight, sample_weight, gradient, label_gradient, scale)
        value = _number(total / divisor if divisor else 0.0, plan.losses.dtype)
    return value, gradient, label_gradient, divisor


def _number(x: float, dtype: torch.dtype) -> Tensor:
    """A tensor of no axis; infinite where the dtype ends, of which `scalar_tensor` alone makes an error."""
    if abs(x) > 3.4e38 and dtype is torch.float32:
        return torch.scalar_tensor(x, dtype=torch.float64, device=CPU).to(dtype)
    return torch.scalar_tensor(x, dtype=dtype, device=CPU)


def _elsewhere(upstream: Tensor) -> bool:
    """Whether this backward pass is differentiated, or mapped over."""
    return (
        torch.is_grad_enabled()
        or type(upstream) is not Tensor
        or is_wrapped(upstream)
        or is_batched(upstream)  # what `is_grads_batched` and gradcheck map with
        or not no_transforms()
    )


def _differentiated(
    plan: Plan,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    wanted: tuple[bool, ...],
    upstream: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's autograd through the operators; differentiable, if this is to be."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if isinstance(plan, SoftmaxPlan):
            value = traced.softmax(logits, labels, weight, sample_weight, plan.options, reduction)
        else:
            weight = weight if weight is None else weight.expand(logits.shape)
            value = traced.sigmoid(logits, labels, weight, sample_weight, plan.label_smoothing, reduction)
    inputs = [t for t, asked in zip((logits, labels), wanted, strict=True) if asked]
    found = iter(torch.autograd.grad(value, inputs, upstream, create_graph=again))
    return tuple(next(found) if asked else None for asked in wanted)


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
