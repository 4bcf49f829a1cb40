"""The losses by the formulas: what every device, `jit_compile` and the derivatives beyond the first are made of.

The losses of rows (or elements) have the gradient and the product with the Hessian that `withlogits.formulas` has for
them; what TensorFlow differentiates itself is the reduction, and whatever comes after the second derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from withlogits import errors, formulas
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.tensorflow import namespace
from withlogits.frameworks.tensorflow.checks import has_values, is_exact
from withlogits.options import Options
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
    if isinstance(arrays, SoftmaxArrays):
        return formulas.row_weights(namespace, arrays, options, losses)
    return wide(tf.ones_like(losses)) if arrays.sample_weight is None else arrays.sample_weight


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
    chosen, rows, restored = replace(fit.options, axis=axis), _rows(logits, axis), None
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


def _rows(x: Tensor, axis: int) -> Any:
    """The shape of the rows."""
    if x.shape.is_fully_defined():
        return tuple(n for i, n in enumerate(x.shape) if i != axis % x.shape.rank)
    shape, position = tf.shape(x), axis % tf.rank(x)
    return tf.concat((shape[:position], shape[position + 1 :]), 0)


def _losses(arrays: Any, options: Any) -> Tensor:
    """The losses of rows or elements."""
    family: Callable[..., Any] = formulas.Softmax if isinstance(arrays, SoftmaxArrays) else formulas.Sigmoid
    by_labels = arrays.labels.dtype.is_floating

    def formula(varied: tuple[Tensor, ...]) -> Any:
        return family(namespace, arrays._replace(**dict(zip(("logits", "labels"), varied, strict=False))), options)

    @tf.custom_gradient
    def losses(*varied: Tensor) -> Any:
        def pull(upstream: Tensor) -> Any:
            return gradients(upstream, *varied)

        return formulas.rounded(namespace, formula(varied).losses(), loss_dtype(varied[0])), pull

    @tf.custom_gradient
    def gradients(upstream: Tensor, *varied: Tensor) -> Any:
        rows = formula(varied)
        found = rows.gradients(upstream, True, by_labels)[: len(varied)]

        def pull(*directions: Tensor) -> Any:
            first = gradients(tf.ones_like(upstream), *varied)
            slopes = [times(wide(v), wide(g)) for v, g in zip(directions, tf.nest.flatten(first), strict=True)]
            along = sum(slopes[1:], slopes[0])
            if rows.axis is not None:
                along = tf.reduce_sum(along, rows.axis)
            second = rows.hessian_product(upstream, *directions, *(None,) * (2 - len(varied)))
            return tf.cast(along, upstream.dtype), *second[: len(varied)]

        return found if by_labels else found[0], pull

    return losses(arrays.logits, arrays.labels) if by_labels else losses(arrays.logits)
