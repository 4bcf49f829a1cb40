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

from withlogits import engine, errors
from withlogits.frameworks.torch import traced
from withlogits.frameworks.torch.cpu import kernel_weights, share
from withlogits.frameworks.torch.families import Family
from withlogits.frameworks.torch.memory import TorchMemory
from withlogits.frameworks.torch.private import (
    apply_of,
    dispatch_modes,
    forward_mode,
    is_batched,
    is_compiling,
    is_tracing,
    keeps_graph,
    transforms_active,
)
from withlogits.kernels.cpu.plan import Plan
from withlogits.options import Options

HALF = torch.float16  # a mean's gradient would vanish in it before a loss scale reaches it
is_grad_enabled = torch.is_grad_enabled
PLAIN = frozenset((Tensor, torch.nn.Parameter))
Adapted = Callable[..., Tensor]


def no_transforms() -> bool:
    """Whether operations happen now, as they are written: no torch.func, no tracing, no forward mode."""
    return (
        not is_compiling()
        and not transforms_active()
        and not dispatch_modes()
        and not is_tracing()
        and forward_mode._current_level < 0
    )


def are_negative(*tensors: Tensor) -> bool:
    """Whether what lies in the memory of some is minus the tensor."""
    return any(tensor.is_neg() for tensor in tensors)


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
    """A loss that was made already, with what its gradient needs."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: tuple[Any, ...], labels: Tensor | None = None) -> Tensor:
        value: Tensor
        value, ctx.call, saved = made
        ctx.save_for_backward(*saved)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        for_logits, _, *of_labels = ctx.needs_input_grad
        wanted = for_logits, any(of_labels)
        gradient, label_gradient = _gradients(ctx.call, ctx.saved_tensors, wanted, upstream, _is_plain(upstream))
        return gradient, None, *[label_gradient for _ in of_labels]


class SmallLoss(torch.autograd.Function):
    """A loss of few elements and, if it was made already, their gradient.

    What the gradient needs is kept as it is: for torch to save and unpack it takes longer than the gradient took.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: tuple[Tensor, Any]) -> Tensor:
        value, ctx.kept = made
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        again, kept = keeps_graph(), ctx.kept
        gradient, call, logits, labels, weights, version = kept or ctx.saved_tensors  # torch says that these are gone
        if not again:
            ctx.kept = None
        plain = _is_plain(upstream)
        if plain and gradient is not None:
            try:
                if upstream.item() == 1.0:
                    return gradient.clone() if again else gradient, None
            except RuntimeError:  # a batch is no number
                pass
        if logits._version + labels._version != version:
            raise errors.changed_in_place()
        return _gradients(call, (logits, labels, None, None, *weights), (True, False), upstream, plain)[0], None


def _is_plain(upstream: Tensor) -> bool:
    """Whether the kernels may go on in a backward pass: nothing is at work, and it is not itself differentiated."""
    return type(upstream) is Tensor and not is_grad_enabled() and no_transforms()


def _gradients(
    call: Call, saved: tuple[Any, ...], wanted: tuple[bool, bool], upstream: Tensor, plain: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by logits and labels, as far as they are wanted; made again, or handed over."""
    logits, labels, dx, dz, *weights = saved
    weight, sample_weight, *rest = weights or (None,) * len(call.options.WEIGHTS)
    arrays = (labels, logits, weight, sample_weight, *rest)
    if not plain or is_batched(upstream):  # what `is_grads_batched` and gradcheck map with
        return _differentiated(call, arrays, wanted, upstream)
    kept, scale = keeps_graph(), 1.0
    if call.options.reduction == "none":
        sample_weight = share(upstream, sample_weight, call.family)
    else:
        scale = upstream.item()
        if scale == 1.0 and (dx is not None or dz is not None):
            return _handed_over(dx, dz, kept)
    arrays = (labels, logits, *kernel_weights(call.family, weight, sample_weight, *rest))
    if call.options.reduction == "mean":
        divisor = call.plan.divisor(arrays)
        scale = scale / divisor if divisor else 0.0
    gradient = _memory(call.plan.gradients, dx, kept) if wanted[0] else None
    label_gradient = _memory(call.plan.label_gradients, dz, kept) if wanted[1] else None
    if scale == 0.0:
        for each in (gradient, label_gradient):
            if each is not None:
                each.zero_()
    else:
        call.plan.fill(arrays, gradient, label_gradient, scale)
    return gradient, label_gradient


_node, _small_node = apply_of(Loss), apply_of(SmallLoss)  # that no transform is at work was seen already


def loss(call: Call, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
    """The loss, differentiable where it is wanted."""
    for_logits, for_labels = logits.requires_grad, labels.requires_grad
    wanted = (for_logits or for_labels) and is_grad_enabled()
    now = wanted and call.options.reduction != "none" and logits.dtype is not HALF and labels.dtype is not HALF
    weights = kernel_weights(call.family, *weights)
    value: Tensor
    value, dx, dz = call.plan.evaluate((labels, logits, *weights), now and for_logits, now and for_labels)
    if wanted:
        value = _node(logits, (value, call, (logits, labels, dx, dz, *weights)), *[labels] * for_labels)
    return value


def quick(call: Call, given: tuple[Any, ...], general: Callable[..., Tensor]) -> Callable[..., Tensor] | None:
    """Return `loss` of small tensors, for weights like those given; `general` takes what is seen at the call only."""
    if not all(weight is None or (type(weight) in PLAIN and weight.is_cpu) for weight in given):
        return None
    layouts = tuple([None if weight is None else TorchMemory.layout(weight) for weight in given])
    alone = call.plan.quick(False, layouts)
    if alone is None:
        return None
    floating = not getattr(call.options, "sparse", False)  # whole numbers have neither gradients nor a negative bit
    now = call.options.reduction != "none" and call.plan.gradients.layout.dtype != "float16"
    with_gradient = None if now else alone  # compiled by the first call that needs it
    node = _small_node

    def run(labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
        nonlocal with_gradient
        if logits.is_neg() or (floating and (labels.requires_grad or labels.is_neg())):
            return general(labels, logits, weights)
        if weights and any(weight is not None and (weight.requires_grad or weight.is_neg()) for weight in weights):
            return general(labels, logits, weights)
        value: Tensor
        if not (logits.requires_grad and is_grad_enabled()):
            value, _ = alone(labels, logits, weights)
            return value
        if with_gradient is None:
            with_gradient = call.plan.quick(True, layouts) or alone
        value, gradient = with_gradient(labels, logits, weights)
        if weights:  # may change before the backward pass
            weights = tuple([weight if weight is None else weight.clone() for weight in weights])
        kept = (gradient, call, logits, labels, weights, logits._version + labels._version)
        value = node(logits, (value, kept))
        return value

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
