"""The functions of JAX that `withlogits.formulas` is made of; without 64 bits, arithmetic is in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.numpy import equal, exp, expm1, isfinite, isinf, log, log1p, moveaxis, ones_like, tanh, where, zeros_like

__all__ = [
    "arange", "as_index", "astype", "constant", "equal", "exp", "expm1", "float32", "float64", "is_floating",
    "isfinite", "isinf", "length", "log", "log1p", "max", "moveaxis", "ones_like", "stop_gradient", "sum", "take",
    "tanh", "where", "wide", "zeros_like",
]  # fmt: skip

Array = Any  # jax.Array, and the tracers that stand for one
float32, float64 = jnp.dtype("float32"), jnp.dtype("float64")
stop_gradient = jax.lax.stop_gradient


def wide_dtype() -> Any:
    """Return the type of the arithmetic: float64 if JAX is allowed 64 bits."""
    return jax.dtypes.canonicalize_dtype(float64)


def wide(x: Array) -> Array:
    """Return x in the type of the arithmetic."""
    return x.astype(wide_dtype())


def astype(x: Array, dtype: Any) -> Array:
    return x.astype(dtype)


def is_floating(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def as_index(labels: Array) -> Array:
    """Return index labels, which come as int32 (`checks.indices`)."""
    return labels


def constant(value: Any, like: Array) -> Array:
    return jnp.asarray(value, like.dtype)


def length(x: Array, dtype: Any) -> int:
    """Return the number of entries on the last axis; in `dtype` if it is known only when the graph runs."""
    n: int = x.shape[-1]
    return n


def arange(n: int, like: Array) -> Array:
    return jnp.arange(n)


def take(x: Array, index: Array) -> Array:
    """Return x[index]; an index out of range gets the nearest element."""
    split = jax.typeof(index).sharding  # by axes that are explicit in types, or none
    return x.at[index].get(mode="clip", out_sharding=split if any(split.spec) else None)


def max(x: Array) -> Array:
    """Return the maximum over the last axis, which stays."""
    return jnp.max(x, -1, keepdims=True, initial=-jnp.inf)


def sum(x: Array) -> Array:
    """Return the sum over the last axis, which stays."""
    return jnp.sum(x, -1, keepdims=True)
