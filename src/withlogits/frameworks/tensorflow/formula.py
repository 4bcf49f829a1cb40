"""The losses by the formulas: what every device, `jit_compile` and the derivatives beyond the first are made of.

The losses of rows (or elements) have the gradient and the product with the Hessian that `withlogits.formulas` has for
them; what TensorFlow differentiates itself is the reduction, and whatever comes after the second derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from withlogits import errors, formulas
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.tensorflow import calls, namespace, private
from withlogits.frameworks.tensorflow.checks import has_values, is_exact
from withlogits.options import Options, SoftmaxOptions
from withlogits.shapes import SoftmaxFit

Tensor = Any
loss_dtype = partial(formulas.loss_dtype, namespace)
times = partial(formulas.times, namespace)
wide = namespace.wide


def loss(
    options: Options, fit: SoftmaxFit | None, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]
) -> Tensor:
    """The loss, differentiable by logits and labels as often as wanted."""
    arrays, chosen, shape = _adapted(options, fit, labels, logits, weights)
    check_range(fit, labels, logits, weights)
    losses = _losses(arrays, chosen)
    if options.reduction == "none":
        return losses if shape is None else tf.reshape(losses, shape)
    value = tf.reduce_sum(wide(losses))
    if options.reduction == "mean":
        divisor = tf.reduce_sum(_parts(arrays, chosen, losses))
        value = value / tf.where(tf.equal(divisor, 0.0), tf.ones_like(divisor), divisor)
    return tf.cast(value, losses.dtype)


def check_range(fit: SoftmaxFit | None, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]) -> None:
    """Raise for the first index label that counts and is no class, if labels are there to be seen."""
    if fit is None or not fit.options.sparse or not (has_values(labels) and has_values(logits)):
        return
    counts = None if weights[1] is None else np.broadcast_to(weights[1].numpy(), labels.shape)
    given = labels.numpy(), int(logits.shape[fit.axis]), fit.ignore_index, counts
    if errors.wrong_labels(*given).any():
        raise errors.label_out_of_range(*given)


def _parts(arrays: Any, options: Any, losses: Tensor) -> Tensor:
    """What each loss adds to the divisor of a mean."""
    return formulas.row_weights(namespace, arrays, options, losses)


def _adapted(
    options: Options, fit: SoftmaxFit | None, labels: Tensor, logits: Tensor, weights: tuple[Tensor | None, ...]
) -> tuple[Any, Any, Any]:
    """The arrays as the formulas take them, options with the axis, and the shape of the losses where it is another."""
    exact = is_exact(labels, logits)
    weight, sample_weight, *more = weights
    if fit is None:
        shape = _shape(logits)
        if not exact:
            labels = tf.broadcast_to(labels, shape)
        return (
            SigmoidArrays(logits, labels, *[w if w is None else tf.broadcast_to(w, shape) for w in weights]),
            options,
            None,
        )
    axis = options.axis if logits.shape.rank is None else fit.axis  # type: ignore[union-attr]
    chosen, rows, restored = replace(fit.options, axis=axis), _row_shape(logits, axis), None
    if not chosen.sparse:
        if fit.one_row and labels.dtype.is_floating:
            labels = tf.cast(labels, loss_dtype(logits))  # its gradient is summed over the rows, and rounded only then
        if fit.one_row or not exact:
            labels = tf.broadcast_to(labels, _shape(logits))
        if chosen.reduction == "mean" and weight is not None:
            labels = wide(labels)  # their gradient has two parts, added up and rounded only then
    elif fit.keeps_axis or not exact:
        restored = _shape(labels)
        labels = tf.reshape(labels, rows)
    if sample_weight is not None:
        sample_weight = tf.reshape(tf.broadcast_to(sample_weight, rows if restored is None else restored), rows)
    return SoftmaxArrays(logits, labels, weight, sample_weight, *more), chosen, restored


def _shape(x: Tensor) -> Any:
    return x.shape if x.shape.is_fully_defined() else tf.shape(x)


def _row_shape(x: Tensor, axis: int) -> Any:
    """The shape of the rows."""
    if x.shape.is_fully_defined():
        return tuple(n for i, n in enumerate(x.shape) if i != axis % x.shape.rank)
    shape, position = tf.shape(x), axis % tf.rank(x)
    return tf.concat((shape[:position], shape[position + 1 :]), 0)


def _losses(arrays: Any, options: Any) -> Tensor:
    """The losses of rows or elements."""
    names = tuple([name for name, array in zip(arrays._fields, arrays, strict=True) if array is not None])
    text = calls.text_of(options, names, labels=arrays.labels.dtype.is_floating)
    return _apply("WithlogitsRows", text, [array for array in arrays if array is not None])[0]


class _Node(NamedTuple):
    """A function of (text, inputs) that gives a list, and of (text, inputs, upstreams) that gives its derivatives."""

    compute: Callable[[str, list[Tensor]], list[Tensor]]
    pull: Callable[[str, list[Tensor], tuple[Tensor, ...]], list[Tensor]]
    before: int  # how many inputs stand before the arrays; these, the logits and perhaps the labels have derivatives

    def varied(self, text: str) -> int:
        return self.before + 1 + int(calls.options_of(text)[1]["labels"])


def _formula(text: str, inputs: list[Tensor]) -> Any:
    options, call = calls.options_of(text)
    softmax = isinstance(options, SoftmaxOptions)
    arrays = (SoftmaxArrays if softmax else SigmoidArrays)(**dict(zip(call["weights"], inputs, strict=True)))
    return (formulas.Softmax if softmax else formulas.Sigmoid)(namespace, arrays, options)  # type: ignore[arg-type]


def _rows(text: str, inputs: list[Tensor]) -> list[Tensor]:
    return [formulas.rounded(namespace, _formula(text, inputs).losses(), loss_dtype(inputs[0]))]


def _pull_rows(text: str, inputs: list[Tensor], upstream: tuple[Tensor, ...]) -> list[Tensor]:
    return _apply("WithlogitsSlopes", text, [*upstream, *inputs])


def _slopes(text: str, inputs: list[Tensor]) -> list[Tensor]:
    upstream, *arrays = inputs
    by_labels = calls.options_of(text)[1]["labels"]
    return list(_formula(text, arrays).gradients(upstream, True, by_labels)[: 1 + by_labels])


def _pull_slopes(text: str, inputs: list[Tensor], directions: tuple[Tensor, ...]) -> list[Tensor]:
    upstream, *arrays = inputs
    rows = _formula(text, arrays)
    first = _apply("WithlogitsSlopes", text, [tf.ones_like(upstream), *arrays])
    parts = [times(wide(v), wide(g)) for v, g in zip(directions, first, strict=True)]
    along = sum(parts[1:], parts[0])
    if rows.axis is not None:
        along = tf.reduce_sum(along, rows.axis)
    second = rows.hessian_product(upstream, *directions, *(None,) * (2 - len(directions)))
    return [tf.cast(along, upstream.dtype), *second[: len(directions)]]


NODES = {"WithlogitsRows": _Node(_rows, _pull_rows, 0), "WithlogitsSlopes": _Node(_slopes, _pull_slopes, 1)}


def _apply(name: str, text: str, inputs: list[Tensor]) -> list[Tensor]:
    """Compute a node, whose derivatives are its own."""
    node = NODES[name]
    varied = node.varied(text)
    if not tf.executing_eagerly():
        return _in_graph(name, text, inputs)
    fixed = inputs[varied:]

    @tf.custom_gradient
    def computed(*given: Tensor) -> Any:
        every = [*given, *fixed]
        return node.compute(text, every), lambda *upstream: node.pull(text, every, upstream)

    return list(computed(*inputs[:varied]))


def _in_graph(name: str, text: str, inputs: list[Tensor]) -> list[Tensor]:
    """Tell tapes of the derivatives, and the graph itself, for whoever differentiates it later.

    TensorFlow's `custom_gradient` knows the tensors of the graph that was traced alone, and fails in others.
    """
    node = NODES[name]
    with private.unrecorded():
        results = node.compute(text, inputs)
        found = private.named_node(name, text, [*results, *inputs])[: len(results)]
    private.record(name, found, inputs[: node.varied(text)], lambda *upstream: node.pull(text, inputs, upstream))
    return found


def _pulled_by_name(name: str) -> Callable[..., list[Any]]:
    def pull(op: Any, *upstream: Tensor) -> list[Any]:
        node, text = NODES[name], private.text_of(op)
        results = 1 if name == "WithlogitsRows" else node.varied(text) - 1
        derivatives = node.pull(text, list(op.inputs[results:]), upstream[:results])
        return [None] * results + derivatives + [None] * (len(op.inputs) - results - len(derivatives))

    return pull


for _name in NODES:
    tf.RegisterGradient(_name)(_pulled_by_name(_name))
