"""The losses by the formulas: what every device, and every derivative, is made of.

The first derivative of a loss is the gradient of `withlogits.formulas`; from there on JAX differentiates the formulas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from withlogits import formulas, shapes
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.jax import checks, namespace
from withlogits.frameworks.jax.namespace import is_floating, wide
from withlogits.options import Options, SoftmaxOptions

Array = Any


@partial(jax.jit, static_argnums=0)
def loss(options: Options, labels: Array, logits: Array, weights: tuple[Array | None, ...]) -> Array:
    """The loss, reduced, of arrays that fit."""
    shape = logits.shape
    if isinstance(options, SoftmaxOptions):
        weight, sample_weight, *more = weights
        rows = shape = shapes.rows(shape, options.axis)
        if options.sparse:
            shape = labels.shape
            labels = checks.indices(labels, logits.shape[options.axis], options.ignore_index).reshape(rows)
            options = with_marks(options)
        elif is_floating(labels) and labels.shape != logits.shape:
            # the gradient of one row for all is summed over the rows, and rounded only then
            labels = jnp.broadcast_to(wide(labels), logits.shape)
        else:
            labels = jnp.broadcast_to(labels, logits.shape)
        if sample_weight is not None:
            sample_weight = jnp.broadcast_to(sample_weight, shape).reshape(rows)
        arrays: Any = SoftmaxArrays(logits, labels, weight, sample_weight, *more)
    else:
        arrays = SigmoidArrays(
            logits, labels, *[w if w is None else jnp.broadcast_to(w, logits.shape) for w in weights]
        )
    dtype = formulas.loss_dtype(namespace, logits)
    losses = _losses(options, arrays)
    if options.reduction == "none":
        return formulas.rounded(namespace, losses, dtype).reshape(shape)
    value = jnp.sum(losses)
    if options.reduction == "mean":
        divisor = jnp.sum(_parts(options, arrays, losses))
        value = value / jnp.where(divisor == 0.0, 1.0, divisor)
    return formulas.rounded(namespace, value, dtype)


def with_marks(options: SoftmaxOptions) -> SoftmaxOptions:
    """The options for labels from `checks.indices`."""
    return options if options.ignore_index is None else replace(options, ignore_index=checks.IGNORED)


def _parts(options: Options, arrays: Any, losses: Array) -> Array:
    """What each loss adds to the divisor of a mean."""
    if isinstance(options, SoftmaxOptions):
        return formulas.row_weights(namespace, arrays, options, losses)
    return jnp.ones_like(losses) if arrays.sample_weight is None else arrays.sample_weight


def _losses(options: Options, arrays: Any) -> Array:
    """The losses of rows or elements, in the type of the arithmetic."""
    family: Any = formulas.Softmax if isinstance(options, SoftmaxOptions) else formulas.Sigmoid
    by_labels = is_floating(arrays.labels)

    def formula(logits: Array, labels: Array, rest: Any) -> Any:
        return family(namespace, type(arrays)(logits, labels, *rest), options)

    @jax.custom_jvp
    def losses(logits: Array, labels: Array, rest: Any) -> Array:
        found: Array = formula(logits, labels, rest).losses()
        return found

    @partial(losses.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
        made = formula(*primals)
        value = made.losses()
        moved = [not isinstance(t, jax.custom_derivatives.SymbolicZero) for t in tangents[:2]]
        gradients = made.gradients(jnp.ones_like(value), moved[0], moved[1] and by_labels)
        along = jnp.zeros_like(value)
        for gradient, tangent in zip(gradients, tangents, strict=False):
            if gradient is not None:
                part = gradient * tangent
                along = along + (part if made.axis is None else jnp.sum(part, made.axis))
        return value, along

    logits, labels, *rest = arrays
    return losses(wide(logits), wide(labels) if by_labels else labels, tuple(rest))
