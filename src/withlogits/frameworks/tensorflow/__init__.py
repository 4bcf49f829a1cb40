"""The adapter of TensorFlow's tensors: eager, in a `tf.function`, ragged, of known and unknown shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from withlogits import errors, formulas, shapes
from withlogits.derivable import derivable_softmax_map
from withlogits.frameworks import named
from withlogits.frameworks.tensorflow import checks, compiled, formula, namespace, native, private
from withlogits.frameworks.tensorflow.checks import checked_labels, checked_logits, checked_weights
from withlogits.options import Options, SoftmaxOptions, changed

Tensor = Any
private.check_version()
native.operations()  # so that a SavedModel that holds them can be loaded


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
    with named(name, _scope):
        if isinstance(logits, tf.RaggedTensor):
            return _ragged(options, labels, logits, weights, wrt, out)
        logits = checked_logits("logits", logits)
        labels = checked_labels(labels, logits, options)
        fit = checks.fit_of(options, labels, logits)
        checked = checked_weights(options.WEIGHTS, weights, logits, fit)

        def value(labels: Tensor, logits: Tensor) -> Tensor:
            if compiled.serves(logits):
                return compiled.loss(options, fit, labels, logits, checked)
            return formula.loss(options, fit, labels, logits, checked)

        if not wrt:
            return value(labels, logits), ()
        return _value_and_grad(value, wrt, labels, logits, out)


def _value_and_grad(
    loss: Callable[[Tensor, Tensor], Tensor], wrt: tuple[str, ...], labels: Tensor, logits: Tensor, out: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if out is not None:
        checks.check_out(out, wrt, logits)
    if "labels" in wrt and not labels.dtype.is_floating:
        labels = tf.cast(labels, formula.loss_dtype(logits))
    given = {"labels": labels, "logits": logits}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([given[each] for each in wrt])
        value = loss(labels, logits)
    gradients = tape.gradient(value, [given[each] for each in wrt])
    if out is not None:
        gradients = [out.assign(g) if each == "logits" else g for each, g in zip(wrt, gradients, strict=True)]
    return value, tuple(gradients)


def _scope(name: str) -> Any:
    """A scope in a graph, a mark in the profiler of eager calls."""
    return tf.profiler.experimental.Trace(name) if tf.executing_eagerly() else tf.name_scope(name)


def _ragged(
    options: Options, labels: Any, logits: Any, weights: tuple[Any, ...], wrt: tuple[str, ...], out: Any
) -> tuple[Any, tuple[Any, ...]]:
    """The loss of the flat values of ragged tensors, whose class axis is none of the ragged ones."""
    if isinstance(options, SoftmaxOptions):
        axis = shapes.class_axis(options.axis, (1,) * logits.shape.rank)
        if axis <= logits.ragged_rank:
            raise errors.ragged_classes(axis)
        options = changed(options, axis=axis - logits.ragged_rank)
    found = []

    def call(labels: Any, logits: Tensor, *weights: Any) -> Tensor:
        found.append(loss(options, labels, logits, weights, wrt, out))
        return logits

    tf.ragged.map_flat_values(call, labels, logits, *weights)  # raises for partitions that differ
    value, gradients = found[0]
    if options.reduction == "none":
        value = logits.with_flat_values(value)
    return value, tuple([logits.with_flat_values(g) for g in gradients])


def softmax_map(x: Any, axis: Any, kind: str, keepdims: bool = False) -> Any:
    """softmax, log_softmax or logsumexp over an axis, several (a tuple) or all (None)."""
    x = checked_logits("x", x)
    rank = x.shape.rank
    if rank is None:
        found = _of_rows(namespace.moveaxis(x, axis, -1), kind)
        return found if kind == "logsumexp" else namespace.moveaxis(found, -1, axis)
    axes = shapes.reduced_axes(axis, checks.shape_of(x))
    last = tuple(range(rank - len(axes), rank))
    moved = namespace.moveaxis(x, axes, last)
    rows = moved if len(axes) == 1 else tf.reshape(moved, tf.concat((tf.shape(moved)[: last[0]], [-1]), 0))
    found = _of_rows(rows, kind)
    if kind != "logsumexp":
        return namespace.moveaxis(found if len(axes) == 1 else tf.reshape(found, tf.shape(moved)), last, axes)
    for each in sorted(axes) if keepdims else ():
        found = tf.expand_dims(found, each)
    return found


def _of_rows(rows: Tensor, kind: str) -> Tensor:
    if kind == "logsumexp":
        return formulas.softmax_map(namespace, rows, -1, kind)
    return derivable_softmax_map(namespace, rows, kind)


def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    return formulas.elementwise(namespace, checked_logits("p" if kind == "logit" else "x", x), kind)
