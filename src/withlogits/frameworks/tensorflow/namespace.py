"""The functions of TensorFlow that `withlogits.formulas` is made of; shapes may be known only when a graph runs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow's types say little to a type checker
float32, float64 = tf.float32, tf.float64
exp, expm1, log, log1p, tanh = tf.math.exp, tf.math.expm1, tf.math.log, tf.math.log1p, tf.math.tanh
isfinite, isinf, equal = tf.math.is_finite, tf.math.is_inf, tf.equal  # of which `==` is something else in v1's graphs
ones_like, zeros_like, stop_gradient = tf.ones_like, tf.zeros_like, tf.stop_gradient


def wide(x: Tensor) -> Tensor:
    """Return x in the type of the arithmetic."""
    return tf.cast(x, tf.float64)


def astype(x: Tensor, dtype: Any) -> Tensor:
    return tf.cast(x, dtype)


def is_floating(x: Tensor) -> bool:
    floating: bool = x.dtype.is_floating
    return floating


def as_index(labels: Tensor) -> Tensor:
    """Return index labels as int64; uint64 keeps its 64 bits."""
    return tf.bitcast(labels, tf.int64) if labels.dtype == tf.uint64 else tf.cast(labels, tf.int64)


def constant(value: Any, like: Tensor) -> Tensor:
    # `tf.cast` alone would make a float32 of a Python number first
    return tf.cast(value if tf.is_tensor(value) else tf.constant(value, like.dtype), like.dtype)


def length(x: Tensor, dtype: Any) -> Any:
    """Return the number of entries on the last axis; in `dtype` if it is known only when the graph runs."""
    known = x.shape[-1] if x.shape.rank is not None else None
    return tf.cast(tf.shape(x, tf.int64)[-1], dtype) if known is None else known


def arange(n: Any, like: Tensor) -> Tensor:
    return tf.range(tf.cast(n, tf.int64))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return x[index]; an index out of range gets the nearest element."""
    return tf.gather(x, tf.clip_by_value(index, 0, tf.shape(x, tf.int64)[0] - 1))


def where(condition: Tensor, yes: Any, no: Any) -> Tensor:
    like = yes if tf.is_tensor(yes) else no
    return tf.where(condition, constant(yes, like), constant(no, like))


def moveaxis(x: Tensor, source: Any, destination: Any) -> Tensor:
    rank = x.shape.rank
    if rank is None:  # only the class axis moves, to the end or back
        axis, n = (source if destination == -1 else destination), tf.rank(x)
        before, after = tf.range(axis % n), tf.range(axis % n + 1, n)
        last = [axis % n] if destination == -1 else [n - 1]
        order = (before, after, last) if destination == -1 else (before, last, after - 1)
        return x if axis == -1 else tf.transpose(x, tf.concat(order, 0))
    sources, places = ([i % rank for i in ((a,) if isinstance(a, int) else a)] for a in (source, destination))
    permutation = [i for i in range(rank) if i not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        permutation.insert(place, axis)
    return x if permutation == sorted(permutation) else tf.transpose(x, permutation)


def max(x: Tensor) -> Tensor:
    """Return the maximum over the last axis, which stays."""
    return tf.reduce_max(x, -1, keepdims=True)


def sum(x: Tensor) -> Tensor:
    """Return the sum over the last axis, which stays."""
    return tf.reduce_sum(x, -1, keepdims=True)
