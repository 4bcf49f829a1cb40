"""The adapter of JAX's arrays: eager ones, and the tracers of jit, grad, vmap and all other transformations."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from withlogits import engine, errors, formulas
from withlogits.frameworks import named
from withlogits.frameworks.axes import over_axes
from withlogits.options import Options, changed

LEAST = (0, 9)  # in which programs are split over devices as they are here
if jax.__version_info__[:2] < LEAST:
    raise errors.too_old("JAX", jax.__version__, ".".join(map(str, LEAST)))

from withlogits.frameworks.jax import checks, kernels, losses, namespace  # noqa: E402

if engine.select().NAME == "compiled":
    kernels.register()

Array = Any


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
    if out is not None:
        raise errors.constant_arrays("out")
    with named(name, jax.named_scope):
        logits = checks.checked_logits("logits", logits)
        labels = checks.checked_labels(labels, logits, options)
        fit = checks.fit_of(options, labels, logits)
        checked = checks.checked_weights(options.WEIGHTS, weights, logits, fit)
        if fit is not None:
            options = changed(fit.options, ignore_index=fit.ignore_index)
            if fit.options.sparse:
                classes = logits.shape[fit.axis]
                checks.check_indices(labels, classes, fit.ignore_index, checked[1])
                if isinstance(labels, np.ndarray):  # 64 bits, of which JAX may drop half
                    options, labels = checks.indexed(options, labels, classes)
        if wrt:
            both: tuple[Any, tuple[Any, ...]] = _value_and_grad(options, labels, logits, checked, wrt)
            return both
        return losses.loss(options, labels, logits, checked), ()


@partial(jax.jit, static_argnums=(0, 4))
def _value_and_grad(
    options: Options, labels: Array, logits: Array, weights: tuple[Array | None, ...], wrt: tuple[str, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """The loss, and the gradients of the sum of what it returns."""
    if "labels" in wrt and not namespace.is_floating(labels):
        labels = labels.astype(formulas.loss_dtype(namespace, logits))

    def value(given: dict[str, Array]) -> Array:
        every = {"labels": labels, "logits": logits, **given}
        return losses.loss(options, every["labels"], every["logits"], weights)

    found, pull = jax.vjp(value, {each: labels if each == "labels" else logits for each in wrt})
    gradients = pull(jnp.ones_like(found))[0]
    return found, tuple([gradients[each] for each in wrt])


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
@partial(jax.jit, static_argnums=(1, 2))
def _along(x: Array, axis: int, kind: str) -> Array:
    return formulas.softmax_map(namespace, x, axis, kind)


def _slope_along(axis: int, kind: str, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """By the differences from the tangent of a likely class, which keep the digits of 1 − p."""
    (x,), (v,) = primals, tangents
    p = formulas.softmax_map(namespace, namespace.wide(jnp.moveaxis(x, axis, -1)), -1, "softmax")
    differences, mean = formulas.centred(namespace, p, namespace.wide(jnp.moveaxis(v, axis, -1)))
    along = {"softmax": p * differences, "log_softmax": differences, "logsumexp": mean}[kind]
    along = along[..., 0] if kind == "logsumexp" else jnp.moveaxis(along, -1, axis)
    return _along(x, axis, kind), formulas.rounded(namespace, along, x.dtype)


_along.defjvp(_slope_along)


def softmax_map(x: Any, axis: Any, kind: str, keepdims: bool = False) -> Any:
    """softmax, log_softmax or logsumexp over an axis, several (a tuple) or all (None)."""
    return over_axes(namespace, checks.checked_logits("x", x), axis, keepdims, kind, _along)


@partial(jax.jit, static_argnums=1)
def _elements(x: Array, kind: str) -> Array:
    return formulas.elementwise(namespace, x, kind)


def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    return _elements(checks.checked_logits("p" if kind == "logit" else "x", x), kind)
