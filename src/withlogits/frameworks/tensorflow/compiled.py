"""The losses by the operations on compiled kernels, with their derivatives.

A loss whose gradient a tape wants is made with it in one pass: a reduced one, and in a graph every loss whose upstream
gradient is known to be 1. The first derivative by the logits is an operation too; that by the labels, and all further
ones, are made of the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tensorflow as tf

from withlogits import shapes
from withlogits.frameworks.tensorflow import calls, formula, native, private
from withlogits.frameworks.tensorflow.checks import fit_of
from withlogits.options import Options, SoftmaxOptions
from withlogits.shapes import SoftmaxFit

Tensor = Any


def serves(logits: Tensor) -> bool:
    """Whether there is an operation for these logits, where they are; XLA compiles none of ours."""
    if not tf.is_symbolic_tensor(logits):
        return ":CPU:" in logits.device and native.operations() is not None
    if private.in_xla() or native.operations() is None:
        return False
    return ":CPU:" in logits.device or not _accelerators()


@cache
def _accelerators() -> bool:
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def loss(
    options: Options, fit: SoftmaxFit | None, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]
) -> Tensor:
    """The loss, differentiable by logits and labels as often as wanted."""
    eager = tf.executing_eagerly()
    names = tuple([name for name, weight in zip(options.WEIGHTS, weights, strict=False) if weight is not None])
    given = [weight for weight in weights if weight is not None]
    by_labels = labels.dtype.is_floating and (not eager or private.is_watched(labels))
    watched = private.is_watched(logits)
    # float16 gets its gradient in the backward pass: a mean's would vanish before a loss scale reaches it
    fused = watched and options.reduction != "none" and logits.dtype != tf.float16
    text = calls.text_of(options, names, strict=eager, labels=by_labels, made=fused)
    if not eager:
        value = _loss(logits, labels, given, text, watched)[0]
        _set_shapes(options, labels, logits, value)
        return value
    try:
        if not fused or private.has_tangent(logits):
            return _loss(logits, labels, given, text, False)[0]
        with private.unrecorded():
            value, (gradient,) = _loss(logits, labels, given, text, True)
    except tf.errors.InvalidArgumentError:
        formula.check_range(fit, labels, logits, weights)  # raises what NumPy's arrays would
        raise

    def pull(upstream: Tensor) -> Any:
        if not (private.is_recording() or tf.is_symbolic_tensor(upstream)) and float(upstream) == 1.0:
            by_logits = gradient
        else:
            by_logits = _gradient(upstream, logits, labels, given, text, [gradient])
        return by_logits, _by_labels(options, labels, logits, weights, upstream) if by_labels else None

    private.record("WithlogitsLoss", [value], [logits, labels], pull)
    return value


def _loss(logits: Tensor, labels: Tensor, weights: list[Tensor], text: str, watched: bool) -> Any:
    """The loss and, where it is watched, a list of its gradient, empty as long as the text does not say it is made."""
    operation = native.operations()["WithlogitsLoss"]  # type: ignore[index]
    types = {"Tloss": formula.loss_dtype(logits), "gradients": int(watched)}
    return operation(logits=logits, labels=labels, weights=weights, call=text, **types)


def _gradient(
    upstream: Tensor, logits: Tensor, labels: Tensor, weights: list[Tensor], text: Any, made: list[Tensor]
) -> Tensor:
    operation = native.operations()["WithlogitsGradient"]  # type: ignore[index]
    found = operation(upstream=upstream, logits=logits, labels=labels, weights=weights, made=made, call=text)
    found.set_shape(logits.shape)
    return found


def _set_shapes(options: Options, labels: Tensor, logits: Tensor, value: Tensor) -> None:
    """Tell the graph what is known of the results' shapes."""
    if options.reduction != "none":
        value.set_shape(())
    elif not isinstance(options, SoftmaxOptions):
        value.set_shape(logits.shape)
    elif options.sparse:
        value.set_shape(labels.shape)
    elif logits.shape.rank is not None:
        value.set_shape(shapes.rows(tuple(logits.shape), options.axis % logits.shape.rank))


# -------------------------------------------------------------------------------------------------------- derivatives


def _pulled(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor | None) -> list[Tensor]:
    """The gradients of function(*inputs) by the inputs."""
    if not tf.executing_eagerly():  # where tapes may be stopped
        inputs = [tf.identity(each) for each in inputs]
        found: list[Tensor] = tf.gradients(function(*inputs), inputs, grad_ys=upstream)
        return found
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return list(tape.gradient(value, inputs, output_gradients=upstream))


def _by_labels(
    options: Options, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...], upstream: Tensor
) -> Tensor:
    """The gradient of the labels."""

    def value(labels: Tensor) -> Tensor:
        return formula.loss(options, fit_of(options, labels, logits), labels, logits, weights)

    return _pulled(value, [labels], upstream)[0]


def _call_of(op: Any) -> tuple[Options, dict[str, Any], str]:
    text = op.get_attr("call").decode()
    return *calls.options_of(text), text


def _weights(options: Options, call: dict[str, Any], inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    given = dict(zip(call["weights"], inputs, strict=False))
    return tuple([given.get(name) for name in options.WEIGHTS])


@tf.RegisterGradient("WithlogitsLoss")
def _of_loss(op: Any, upstream: Tensor, *unused: Tensor) -> list[Any]:
    """The gradient that the loss gives besides is for this one alone, so that nothing else can depend on it."""
    options, call, text = _call_of(op)
    logits, labels, *weights = op.inputs
    made = list(op.outputs[1:])
    if made and private.can_change(op, "WithlogitsLoss") and private.is_one(upstream):
        found = [_made(made[0], text, list(op.inputs)), None]
    else:
        found = [_gradient(upstream, logits, labels, weights, text, made if call["made"] else []), None]
    if call["labels"]:
        found[1] = _by_labels(options, labels, logits, _weights(options, call, weights), upstream)
    return found + [None] * len(weights)


def _made(gradient: Tensor, text: str, arrays: list[Tensor]) -> Tensor:
    """The gradient that the loss gives, which it makes from now on, with derivatives of its own."""
    _, call = calls.options_of(text)
    if not call["made"]:
        private.set_text(gradient.op, "call", calls.changed(text, made=True))
    gradient.set_shape(arrays[0].shape)
    with private.unrecorded():
        found = private.named_node("WithlogitsMade", text, [gradient, *arrays])[0]
    varied = arrays[: 1 + call["labels"]]
    private.record("WithlogitsMade", [found], varied, lambda direction: _further(text, None, arrays, direction))
    return found


@tf.RegisterGradient("WithlogitsMade")
def _of_made(op: Any, direction: Tensor, *unused: Tensor) -> list[Any]:
    found = [None, *_further(private.text_of(op), None, list(op.inputs[1:]), direction)]
    return found + [None] * (len(op.inputs) - len(found))


@tf.RegisterGradient("WithlogitsGradient")
def _of_gradient(op: Any, direction: Tensor) -> list[Any]:
    upstream, *arrays = op.inputs
    found = _further(op.get_attr("call").decode(), upstream, arrays, direction)
    return [*found, *[None] * (len(op.inputs) - len(found))]


def _further(text: str, upstream: Tensor | None, arrays: list[Tensor], direction: Tensor) -> list[Tensor]:
    """The derivatives of the gradient, by the upstream if there is one, the logits, and the labels if they vary."""
    options, call = calls.options_of(text)
    logits, labels, *rest = arrays
    weights = _weights(options, call, rest)

    def gradient(upstream: Tensor | None, logits: Tensor, labels: Tensor = labels) -> Tensor:
        def value(logits: Tensor) -> Tensor:
            return formula.loss(options, fit_of(options, labels, logits), labels, logits, weights)

        return _pulled(value, [logits], upstream)[0]

    varied = [logits, *([labels] if call["labels"] else [])]
    if upstream is None:
        return _pulled(partial(gradient, None), varied, direction)
    return _pulled(gradient, [upstream, *varied], direction)
