"""The losses under every transformation of JAX: values and first derivatives by the kernels or the formulas.

The first derivative of a loss is the gradient of `withlogits.formulas`, computed with the loss; from there on JAX
differentiates the formulas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from withlogits import formulas, shapes
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.jax import checks, kernels, namespace
from withlogits.frameworks.jax.namespace import is_floating, wide
from withlogits.options import Options, SoftmaxOptions

Array = Any
Weights = tuple[Array | None, ...]


@partial(jax.jit, static_argnums=0)
def loss(options: Options, labels: Array, logits: Array, weights: Weights) -> Array:
    """The loss, reduced, of arrays that fit."""
    shape = logits.shape
    if isinstance(options, SoftmaxOptions):
        rows = shapes.rows(shape, options.axis)
        shape = labels.shape if options.sparse else rows
        if options.sparse:
            labels = labels.reshape(rows)
        elif is_floating(labels) and labels.shape != logits.shape:
            # the gradient of one row for all is summed over the rows, and rounded only then
            labels = jnp.broadcast_to(wide(labels), logits.shape)
        else:
            labels = jnp.broadcast_to(labels, logits.shape)
        if weights[1] is not None:
            weights = (weights[0], jnp.broadcast_to(weights[1], shape).reshape(rows), *weights[2:])
        options = replace(options, axis=options.axis - logits.ndim)
    else:
        weights = tuple([w if w is None else jnp.broadcast_to(w, shape) for w in weights])
    value: Array = _loss(options)(logits, labels, weights)
    return value.reshape(shape) if options.reduction == "none" else value


@lru_cache(maxsize=1024)
def _loss(options: Options) -> Any:
    """The loss of logits, labels and weights, reduced."""
    by_formulas = _by_formulas(options)

    @jax.custom_jvp
    def value(logits: Array, labels: Array, weights: Weights) -> Array:
        if not kernels.serves(options, logits, weights):
            found: Array = by_formulas(logits, labels, weights)
            return found
        return _fused(options, False, logits, labels, weights)[0]

    @partial(value.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> Any:
        logits, labels, weights = primals
        checks.refuse_weight_gradients(options.WEIGHTS, tangents[2])
        moved = [not isinstance(tangent, SymbolicZero) for tangent in tangents[:2]]
        if (moved[1] and is_floating(labels)) or not kernels.serves(options, logits, weights):
            found, along = jax.jvp(lambda x, z=labels: by_formulas(x, z, weights), *_varied(primals, tangents))
            return found, along
        found, gradient = value_and_slope(logits, labels, weights)
        along = gradient.astype(found.dtype) * tangents[0].astype(found.dtype)
        if options.reduction != "none":
            return found, jnp.sum(along)
        return found, jnp.sum(along, options.axis) if isinstance(options, SoftmaxOptions) else along

    @jax.custom_jvp
    def value_and_slope(logits: Array, labels: Array, weights: Weights) -> tuple[Array, Array]:
        found: tuple[Array, Array] = _fused(options, True, logits, labels, weights)
        return found

    @partial(value_and_slope.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        _, labels, weights = primals
        checks.refuse_weight_gradients(options.WEIGHTS, tangents[2])

        def both(x: Array, z: Array = labels) -> tuple[Array, Array]:
            found, pull = jax.vjp(lambda x: by_formulas(x, z, weights), x)
            return found, pull(jnp.ones_like(found))[0]

        along: tuple[Array, Array] = jax.jvp(both, *_varied(primals, tangents))[1]
        return value_and_slope(*primals), along

    return value


def _varied(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Logits, and labels if they are floating-point numbers, with tangents that are arrays."""
    n = 2 if is_floating(primals[1]) else 1
    numbers = [jnp.zeros(t.shape, t.dtype) if isinstance(t, SymbolicZero) else t for t in tangents[:n]]
    return tuple(primals[:n]), tuple(numbers)


def _fused(options: Options, gradient: bool, logits: Array, labels: Array, weights: Weights) -> Any:
    """The reduced loss of the kernels, and its gradient if that is wanted."""
    names = tuple([name for name, weight in zip(options.WEIGHTS, weights, strict=True) if weight is not None])
    call = kernels.Call(options, gradient, names, _formula(options, gradient, names), logits.ndim)
    return kernels.fused(call)(logits, labels, *[weight for weight in weights if weight is not None])


@lru_cache(maxsize=1024)
def _formula(options: Options, gradient: bool, names: tuple[str, ...]) -> Any:
    """What a kernel computes, by the formulas."""

    def formula(logits: Array, labels: Array, *given: Array) -> tuple[Array, ...]:
        by_name = dict(zip(names, given, strict=True))
        weights = tuple([by_name.get(name) for name in options.WEIGHTS])
        made = _made(options, logits, labels, weights)
        losses = made.losses()
        value, share = _reduced(options, logits, labels, weights, losses)
        if not gradient:
            return (value,)
        return value, made.gradients(jnp.broadcast_to(share, losses.shape), True, False)[0]

    return formula


@lru_cache(maxsize=1024)
def _by_formulas(options: Options) -> Any:
    """The reduced loss by the formulas."""

    def value(logits: Array, labels: Array, weights: Weights) -> Array:
        return _reduced(options, logits, labels, weights, _losses(options, logits, labels, weights))[0]

    return value


def _reduced(options: Options, logits: Array, labels: Array, weights: Weights, losses: Array) -> tuple[Array, Array]:
    """The loss of all, from those of rows or elements; and what the gradient of each of these is multiplied by."""
    share = jnp.ones((), losses.dtype)
    if options.reduction != "none":
        losses = kernels.total(losses)
    if options.reduction == "mean":
        divisor = kernels.total(
            kernels.row_weights(options, logits, labels, dict(zip(options.WEIGHTS, weights, strict=True)))
        )
        divisor = jnp.where(divisor == 0.0, 1.0, divisor)
        losses, share = losses / divisor, 1.0 / divisor
    return formulas.rounded(namespace, losses, formulas.loss_dtype(namespace, logits)), share


def _made(options: Options, logits: Array, labels: Array, weights: Weights) -> Any:
    if isinstance(options, SoftmaxOptions):
        options, labels = checks.indexed(options, labels, logits.shape[options.axis])
        counted = replace(options, axis=options.axis % logits.ndim)
        return formulas.Softmax(namespace, SoftmaxArrays(logits, labels, *weights), counted)
    return formulas.Sigmoid(namespace, SigmoidArrays(logits, labels, *weights), options)


def _losses(options: Options, logits: Array, labels: Array, weights: Weights) -> Array:
    """The losses of rows or elements, in the type of the arithmetic."""
    by_labels = is_floating(labels)

    @jax.custom_jvp
    def losses(logits: Array, labels: Array, weights: Weights) -> Array:
        found: Array = _made(options, logits, labels, weights).losses()
        return found

    @partial(losses.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
        made = _made(options, *primals)
        value = made.losses()
        moved = [not isinstance(tangent, SymbolicZero) for tangent in tangents[:2]]
        gradients = made.gradients(jnp.ones_like(value), moved[0], moved[1] and by_labels)
        along = jnp.zeros_like(value)
        for gradient, tangent in zip(gradients, tangents, strict=False):
            if gradient is not None:
                part = gradient * tangent
                along = along + (part if made.axis is None else jnp.sum(part, made.axis))
        return value, along

    return losses(wide(logits), wide(labels) if by_labels else labels, weights)
