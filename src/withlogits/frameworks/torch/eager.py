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

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from withlogits import engine
from withlogits.frameworks.torch import traced
from withlogits.frameworks.torch.cpu import kernel_weights, share
from withlogits.frameworks.torch.families import Family
from withlogits.frameworks.torch.memory import TorchMemory
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
from withlogits.kernels.cpu.plan import Plan
from withlogits.options import Options

HALF = torch.float16  # a mean's gradient would vanish in it before a loss scale reaches it
PLAIN = frozenset((Tensor, torch.nn.Parameter))
Adapted = Callable[..., Tensor]


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
    return name == "compiled"


class Call(NamedTuple):
    """A loss of plain tensors that look alike."""

    plan: Plan
    family: Family
    options: Options
    adapted: Adapted  # labels and weights in the form of the operators


class Loss(torch.autograd.Function):
    """A loss that was made already, with what its gradient needs.

    A small gradient is kept beside the saved tensors, whose unpacking takes longer than the gradient took.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: tuple[Any, ...], labels: Tensor | None = None) -> Tensor:
        value, ctx.small, ctx.call, kept = made
        ctx.save_for_backward(*kept)
        found: Tensor = value
        return found

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        elsewhere = (
            torch.is_grad_enabled()  # this backward pass is differentiated
            or type(upstream) is not Tensor
            or is_wrapped(upstream)
            or is_batched(upstream)  # what `is_grads_batched` and gradcheck map with
            or not no_transforms()
        )
        kept, small = keeps_graph(), ctx.small
        if not kept:
            ctx.small = None
        if small is not None and not elsewhere and upstream.item() == 1.0:
            return small.clone() if kept else small, None
        gradient, label_gradient = _gradients(ctx, upstream, elsewhere, kept)
        return (gradient, None, label_gradient)[: len(ctx.needs_input_grad)]


def _gradients(ctx: Any, upstream: Tensor, elsewhere: bool, kept: bool) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by logits and labels, as far as they are needed; made again, or handed over."""
    logits, labels, dx, *more = ctx.saved_tensors
    call: Call = ctx.call
    dz, weight, sample_weight, *rest = more or (None,) * (1 + len(call.options.WEIGHTS))
    arrays = (labels, logits, weight, sample_weight, *rest)
    for_logits, _, *of_labels = ctx.needs_input_grad
    for_labels = any(of_labels)
    if elsewhere:
        return _differentiated(call, arrays, (for_logits, for_labels), upstream)
    scale = 1.0
    if call.options.reduction == "none":
        arrays = (
            labels,
            logits,
            *kernel_weights(call.family, weight, share(upstream, sample_weight, call.family), *rest),
        )
    else:
        scale = upstream.item()
        if scale == 1.0 and (dx is not None or dz is not None):
            return _handed_over(dx, dz, kept)
        arrays = (labels, logits, *kernel_weights(call.family, weight, sample_weight, *rest))
        if call.options.reduction == "mean":
            divisor = call.plan.divisor(arrays)
            scale = scale / divisor if divisor else 0.0
    gradient = _memory(call.plan.gradients, dx, kept) if for_logits else None
    label_gradient = _memory(call.plan.label_gradients, dz, kept) if for_labels else None
    if scale == 0.0:
        for each in (gradient, label_gradient):
            if each is not None:
                each.zero_()
    else:
        call.plan.fill(arrays, gradient, label_gradient, scale)
    return gradient, label_gradient


_node = apply_of(Loss)  # that no transform is at work was seen already


def loss(call: Call, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
    """The loss, differentiable where it is wanted."""
    for_logits, for_labels = logits.requires_grad, labels.requires_grad
    wanted = (for_logits or for_labels) and torch.is_grad_enabled()
    now = wanted and call.options.reduction != "none" and logits.dtype is not HALF and labels.dtype is not HALF
    weights = kernel_weights(call.family, *weights)
    value, dx, dz = call.plan.evaluate((labels, logits, *weights), now and for_logits, now and for_labels)
    if not wanted:
        found: Tensor = value
        return found
    kept: tuple[Any, ...] = (logits, labels, dx)
    if dz is not None or any(weight is not None for weight in weights):
        kept = (logits, labels, dx, dz, *weights)
    found = _node(logits, (value, None, call, kept), *[labels] * for_labels)
    return found


def quick(call: Call, given: tuple[Any, ...], general: Callable[..., Tensor]) -> Callable[..., Tensor] | None:
    """Return `loss` of small tensors, for weights like those given; `general` takes labels that require a gradient."""
    if not all(weight is None or (type(weight) in PLAIN and weight.is_cpu) for weight in given):
        return None
    layouts = tuple([None if weight is None else TorchMemory.layout(weight) for weight in given])
    alone = call.plan.quick(False, layouts)
    if alone is None:
        return None
    now = call.options.reduction != "none" and call.plan.gradients.layout.dtype != "float16"
    with_gradient = None if now else alone  # compiled by the first call that needs it
    grad_enabled, node = torch.is_grad_enabled, _node

    def run(labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
        nonlocal with_gradient
        if labels.requires_grad:
            return general(labels, logits, weights)
        if not (logits.requires_grad and grad_enabled()):
            value: Tensor = alone(labels, logits, weights)[0]
            return value
        if with_gradient is None:
            with_gradient = call.plan.quick(True, layouts) or alone
        value, gradient = with_gradient(labels, logits, weights)
        kept: tuple[Tensor | None, ...] = (logits, labels, None)
        if weights:  # may change before the backward pass
            kept = (*kept, None, *[weight if weight is None else weight.clone() for weight in weights])
        found: Tensor = node(logits, (value, gradient, call, kept))
        return found

    return run


def _differentiated(
    call: Call, arrays: tuple[Any, ...], wanted: tuple[bool, bool], upstream: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by torch's autograd through the operators; differentiable, if this is to be."""
    again = torch.is_grad_enabled()
    labels, logits, *weights = arrays
    with torch.enable_grad():
        value = call.adapted(traced.loss, labels, logits, weights)
    inputs = [t for t, asked in zip((logits, labels), wanted, strict=True) if asked]
    found = iter(torch.autograd.grad(value, inputs, upstream, create_graph=again))
    return next(found) if wanted[0] else None, next(found) if wanted[1] else None


def _handed_over(dx: Tensor | None, dz: Tensor | None, kept: bool) -> tuple[Tensor | None, Tensor | None]:
    """Copies, if a later backward pass may want them again."""
    if not kept:
        return dx, dz
    return None if dx is None else dx.clone(), None if dz is None else dz.clone()


def _memory(allocator: Any, used: Tensor | None, kept: bool) -> Tensor:
    found: Tensor = allocator.empty() if used is None or kept else used
    return found
