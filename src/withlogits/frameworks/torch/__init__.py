"""The adapter of PyTorch tensors, on every device and under every transform of torch.

Plain CPU tensors go straight to the kernels (`eager`); all others, and whatever is traced, mapped or differentiated by
torch.func, go through the operators (`operators`, `traced`), which know what runs where.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from withlogits import errors, shapes
from withlogits.frameworks.axes import over_axes
from withlogits.frameworks.torch import checks, cpu, eager, namespace, operators, private, traced
from withlogits.frameworks.torch.checks import as_tensor, check_labels, check_logits, checked_weight
from withlogits.frameworks.torch.families import family_of, loss_dtype
from withlogits.frameworks.torch.memory import CPU
from withlogits.memo import keep
from withlogits.options import EXACT, NUMBERS, Options, SoftmaxOptions
from withlogits.shapes import SoftmaxFit

_float64 = partial(torch.scalar_tensor, dtype=torch.float64, device=CPU)
_looks = attrgetter("__class__", "is_cpu", "dtype", "shape")  # of what has strides
# What computes each kind of call of plain tensors
_known: dict[tuple[Any, ...], Callable[..., Tensor]] = {}


def loss(
    options: Options,
    labels: Any,
    logits: Any,
    weights: tuple[Any, ...] = (),
    wrt: tuple[str, ...] = (),
    out: Any = None,
    name: str | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """A loss and the gradients that `wrt` names."""
    if name is not None:
        if not isinstance(name, str):
            raise errors.call_name(name)
        with torch.profiler.record_function(name):
            return loss(options, labels, logits, weights, wrt, out)
    if not wrt and eager.no_transforms():
        try:
            if weights and logits.is_cpu:
                weights = tuple([_float64(w) if type(w) in NUMBERS and abs(w) < EXACT else w for w in weights])
            known = _known.get(_key(options, labels, logits, weights))
        except (AttributeError, RuntimeError):  # no tensor, or one that has no shape or no strides
            known = None
        if known is not None:
            return known(labels, logits, weights), ()
    return _loss(options, labels, logits, weights, wrt, out)


def _key(options: Options, labels: Any, logits: Any, weights: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a kind of call of tensors is known by."""
    key = (options, _looks(logits), logits.stride(), _looks(labels), labels.stride())
    return (*key, *[w if w is None else (_looks(w), w.stride()) for w in weights]) if weights else key


@traced.checks_shapes
def _loss(
    options: Options, labels: Any, logits: Any, given: tuple[Any, ...], wrt: tuple[str, ...], out: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Every check, and whatever way there is."""
    labels = as_tensor("labels", labels, logits)
    plain = _are_plain(logits, labels)
    check_logits("logits", logits)
    check_labels(labels, logits, options)
    fit = _fit(options, labels, logits)
    weights = _checked_weights(options.WEIGHTS, fit, given, logits, plain)
    if out is not None:
        checks.check_out(out, wrt, logits, labels=labels, **dict(zip(options.WEIGHTS, weights, strict=True)))
    entangled = _is_entangled(options, weights)
    if plain and not (entangled and labels.requires_grad and not wrt) and not (fit and fit.one_row and "labels" in wrt):
        if wrt:
            return _plain_value_and_grad(options, labels, logits, weights, wrt, out)
        call = eager.Call(cpu.plan_of(options, labels, logits), family_of(options), options, _adapted(options, fit))
        _remember(call, fit, labels, logits, given)
        return eager.loss(call, labels, logits, weights), ()
    adapted = _adapted(options, fit)

    def through_operators(labels: Tensor, logits: Tensor) -> Tensor:
        value: Tensor = adapted(traced.loss, labels, logits, weights)
        return value

    if wrt:
        return _value_and_grad(through_operators, wrt, labels, logits, out)
    return through_operators(labels, logits), ()


def _remember(call: eager.Call, fit: SoftmaxFit | None, labels: Tensor, logits: Tensor, given: tuple[Any, ...]) -> None:
    """Let the next calls with tensors like these skip the checks that cannot fail, unless that is known already."""
    try:
        key = _key(call.options, labels, logits, given)
    except (AttributeError, RuntimeError):  # weights that are no tensors
        return
    if key in _known:
        return

    entangled = _is_entangled(call.options, given)

    def general(labels: Tensor, logits: Tensor, given: tuple[Any, ...]) -> Tensor:
        if eager.are_negative(labels, logits) or (entangled and labels.requires_grad):
            value: Tensor = _loss(call.options, labels, logits, given, (), None)[0]
            return value
        return eager.loss(call, labels, logits, _checked_weights(call.options.WEIGHTS, fit, given, logits, True))

    keep(_known, key, eager.quick(call, given, general) or general)


def _is_entangled(options: Options, weights: tuple[Tensor | None, ...]) -> bool:
    """Whether the divisor of a mean depends on the labels too: autograd has to go through it."""
    if not isinstance(options, SoftmaxOptions) or options.sparse:
        return False
    return options.reduction == "mean" and bool(weights) and weights[0] is not None


def _plain_value_and_grad(
    options: Options,
    labels: Tensor,
    logits: Tensor,
    weights: tuple[Tensor | None, ...],
    wrt: tuple[str, ...],
    out: Tensor | None,
) -> tuple[Tensor, tuple[Any, ...]]:
    """The loss of plain CPU tensors with its gradients, from the kernels."""
    arrays = (labels.detach(), logits.detach(), *cpu.kernel_weights(family_of(options), *weights))
    to = None if out is None else out.detach()
    plan = cpu.plan_of(options, labels, logits)
    value, dx, dz = plan.evaluate(arrays, "logits" in wrt, "labels" in wrt, to)
    if out is not None:
        torch.autograd.graph.increment_version(out)
        dx = out
    return value, tuple([dx if name == "logits" else dz for name in wrt])


@traced.checks_shapes
def softmax_map(x: Any, axis: Any, kind: str, keepdims: bool = False) -> Any:
    """softmax, log_softmax or logsumexp over an axis, several (a tuple) or all (None)."""
    check_logits("x", x)
    if keepdims or axis is None or isinstance(axis, tuple):
        return over_axes(namespace, x, axis, keepdims, kind, operators.softmax_map)
    return operators.softmax_map(x, shapes.class_axis(axis, tuple(x.shape), "x"), kind)


@traced.checks_shapes
def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    check_logits("p" if kind == "logit" else "x", x)
    return operators.elementwise(x, kind)


def _are_plain(logits: Any, labels: Any) -> bool:
    """Whether the kernels may read these where they lie: strided CPU tensors, and no transform of torch at work."""
    return (
        eager.no_transforms()
        and type(logits) in eager.PLAIN
        and type(labels) in eager.PLAIN
        and logits.is_cpu
        and labels.is_cpu
        and logits.layout is torch.strided
        and labels.layout is torch.strided
        and not eager.are_negative(logits, labels)
        and not logits.is_nested
        and eager.compiled()
    )


def _fit(options: Options, labels: Tensor, logits: Tensor) -> SoftmaxFit | None:
    """How the shapes of labels and logits fit; None for the sigmoid family, where they are the same."""
    if isinstance(options, SoftmaxOptions):
        dtype = checks.dtype_name(labels.dtype)
        return shapes.softmax_fit(options, tuple(labels.shape), tuple(logits.shape), dtype)
    shapes.check_sigmoid_labels(tuple(labels.shape), tuple(logits.shape))
    return None


def _checked_weights(
    names: tuple[str, ...], fit: SoftmaxFit | None, given: tuple[Any, ...], logits: Tensor, plain: bool
) -> tuple[Tensor | None, ...]:
    """The weights as tensors, None for those that are not given; `given` is empty if none is."""
    checked: list[Tensor | None] = []
    for name, each in zip(names, given or (None,) * len(names), strict=True):
        weight = None if each is None else checked_weight(name, each, logits, plain)
        if weight is not None:
            shapes.check_weight(name, tuple(weight.shape), tuple(logits.shape), fit)
        checked.append(weight)
    return tuple(checked)


def _adapted(given: Options, fit: SoftmaxFit | None) -> Callable[..., Tensor]:
    """What calls a function of (options, labels, logits, *weights) with arguments in the form of the operators."""

    def call(function: Callable[..., Tensor], labels: Tensor, logits: Tensor, weights: Any) -> Tensor:
        weight, sample_weight, *more = weights
        if fit is None:
            weight = None if weight is None else weight.expand(logits.shape)
            sample_weight = None if sample_weight is None else sample_weight.expand(logits.shape)
            return function(given, labels, logits, weight, sample_weight)
        if sample_weight is not None:
            sample_weight = sample_weight.expand(fit.loss_shape)
        if fit.keeps_axis:
            labels = labels.squeeze(fit.axis)
            sample_weight = None if sample_weight is None else sample_weight.squeeze(fit.axis)
        elif fit.one_row:
            if labels.dtype.is_floating_point:
                labels = labels.to(loss_dtype(logits))  # its gradient is summed over the rows, and rounded only then
            labels = labels.expand(logits.shape)
        value = function(fit.options, labels, logits, weight, sample_weight, *more)
        return value.unsqueeze(fit.axis) if fit.keeps_axis and fit.options.reduction == "none" else value

    return call


def _value_and_grad(
    loss: Callable[[Tensor, Tensor], Tensor], wrt: tuple[str, ...], labels: Tensor, logits: Tensor, out: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """By torch's own differentiation of the operators."""
    if not torch.compiler.is_compiling() and private.is_tracing():
        raise errors.traced_value_and_grad()
    if eager.no_transforms():  # as from the kernels, value and gradient carry no graph
        labels, logits = labels.detach(), logits.detach()
    if "labels" in wrt and not labels.dtype.is_floating_point:
        labels = labels.to(loss_dtype(logits))
    given = {"labels": labels, "logits": logits}

    def of_wrt(*varied: Tensor) -> Tensor:
        both = {**given, **dict(zip(wrt, varied, strict=True))}
        return loss(both["labels"], both["logits"])

    value, pull, *_ = torch.func.vjp(of_wrt, *(given[name] for name in wrt))
    gradients = pull(torch.ones_like(value))
    if out is not None:
        out.detach().copy_(gradients[wrt.index("logits")])
        gradients = tuple(out if name == "logits" else g for name, g in zip(wrt, gradients, strict=True))
    return value, gradients
