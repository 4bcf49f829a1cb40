"""How arguments become tensors of Keras's backend, and how their shapes fit, by Keras's rules."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from withlogits.dispatch import adapters

Tensor = Any  # of the backend
Sizes = tuple[int | None, ...]  # a shape, of which a graph may not know every size


def is_symbolic(*given: Any) -> bool:
    """Return whether one of these stands for a tensor of a model that is being built."""
    return any(isinstance(each, keras.KerasTensor) for each in given)


def mask_of(x: Any) -> Tensor | None:
    """Return the mask that a model has attached to its output."""
    try:
        from keras.src.backend import get_keras_mask  # it finds the masks of NumPy arrays too
    except ImportError:
        return getattr(x, "_keras_mask", None)
    return get_keras_mask(x)


def dtype_of(x: Tensor) -> str:
    name: str = keras.backend.standardize_dtype(x.dtype)
    return name


def as_tensor(x: Any) -> Tensor:
    """Return a tensor of the backend; Keras would copy NumPy's arrays, and make float32 of float64."""
    return x if keras.backend.backend() == "numpy" and isinstance(x, np.ndarray) else ops.convert_to_tensor(x)


def as_logits(y_pred: Any) -> Tensor:
    """Return logits in their own dtype; integers in Keras's default one."""
    x = as_tensor(y_pred)
    return x if "float" in dtype_of(x) else ops.cast(x, keras.backend.floatx())


def as_indices(y_true: Any) -> Tensor:
    """Return class indices as integers: data are often floats."""
    y = as_tensor(y_true)
    return y if "int" in dtype_of(y) else signed(y)


def signed(y: Tensor) -> Tensor:
    """Return integers that compare with every class to ignore as they should."""
    return ops.cast(y, "int32" if keras.backend.backend() == "jax" else "int64")


def loss_dtype(logits: Tensor) -> str:
    return "float64" if dtype_of(logits) == "float64" else "float32"


def as_weights(weights: Any, logits: Tensor) -> Tensor:
    return ops.cast(weights, loss_dtype(logits))


def sizes(x: Tensor) -> Sizes:
    return tuple(x.shape)


def length(x: Tensor, axis: int, dtype: str) -> Any:
    """Return the length of an axis; a tensor of `dtype` where the graph does not know it."""
    n = ops.shape(x)[axis]
    return n if isinstance(n, int) else ops.cast(n, dtype)


def count(shape: tuple[Any, ...]) -> Any:
    """Return how many elements a shape has: a number, or a tensor where the graph does not know it."""
    return math.prod(shape)


def count_true(x: Tensor, shape: tuple[Any, ...]) -> Tensor:
    """Return how many elements of x are true, broadcast to a shape."""
    return total(adapters[type(x)].namespace.wide(ops.broadcast_to(x, shape)))


def same_rank(labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with as many axes, where they differ by a last axis of length 1."""
    y, x = sizes(labels), sizes(logits)
    if len(x) == len(y) + 1 and x[-1] == 1:
        return (ops.expand_dims(labels, -1), logits) if len(y) == 1 else (labels, ops.squeeze(logits, -1))
    if len(y) == len(x) + 1 and y[-1] == 1:
        return (labels, ops.expand_dims(logits, -1)) if len(x) == 1 else (ops.squeeze(labels, -1), logits)
    return labels, logits


def aligned(weights: Tensor, losses: Sizes) -> Tensor:
    """Return weights, or a mask, with as many axes as the losses: the first axes if these fit, or else the last."""
    while len(weights.shape) > len(losses) and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    first = sizes(weights) == losses[: len(weights.shape)]
    while len(weights.shape) < len(losses):
        weights = ops.expand_dims(weights, -1 if first else 0)
    return weights


def without_masked(weights: Tensor, *arrays: Tensor) -> list[Tensor]:
    """Return arrays with 0 for what weighs 0, which may be NaN."""
    return [ops.where(weights == 0.0, ops.zeros_like(array), array) for array in arrays]


def reduced(losses: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
    """Return losses times weights of any sign, reduced as the losses of withlogits are; what weighs 0 costs 0."""
    if weights is not None:
        weights = ops.broadcast_to(ops.cast(weights, dtype_of(losses)), ops.shape(losses))
        losses = adapters[type(losses)].namespace.where(weights == 0.0, 0.0, losses * weights)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return total(losses)
    return over(total(losses), count(ops.shape(losses)) if weights is None else total(weights))


def total(x: Tensor) -> Tensor:
    """Return the sum of all elements."""
    return summed(ops.reshape(x, (-1,)), 0)


def summed(x: Tensor, axis: int) -> Tensor:
    """Return the sum over an axis; Keras's own makes float32 of float64."""
    xp = adapters[type(x)].namespace
    return xp.sum(xp.moveaxis(x, axis, -1))[..., 0]


def over(x: Tensor, divisor: Any) -> Tensor:
    """Return a quotient that is 0 if the divisor is."""
    if isinstance(divisor, int):
        return x / max(divisor, 1)
    xp, divisor = adapters[type(x)].namespace, ops.cast(divisor, dtype_of(x))
    nothing = divisor == 0.0
    return xp.where(nothing, 0.0, x / xp.where(nothing, 1.0, divisor))


def of_one_replica(mean: Tensor) -> Tensor:
    """Return the share of a mean that a replica of `tf.distribute` contributes to the sum over all of them."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            return mean / replicas
    return mean
