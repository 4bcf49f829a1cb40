"""The classification losses of optax, with its signatures and defaults, computed by withlogits; optax is not needed.

`sigmoid_binary_cross_entropy`, `softmax_cross_entropy`, `safe_softmax_cross_entropy`,
`softmax_cross_entropy_with_integer_labels`, `poly_loss_cross_entropy`, `sigmoid_focal_loss` and `smooth_labels` stand
in for those of `optax.losses`. Logits come first, arguments may be positional, and nothing is reduced.

What differs, since optax has no answer there or a wrong one:

- Confident losses and their gradients keep their digits: 4e-9 where optax says 0.
- An index label that is no class, −1 too, is an error; where values cannot be seen (under `jax.jit`), the loss of its
  row is NaN and its gradient 0.
- The loss of half-precision logits is computed in float32 and returned in float32.
- A logit of −inf whose label is 0 costs nothing, in every function; a class that `where` leaves out and the label asks
  for costs infinity.
- Labels broadcast to the logits' shape, and never the logits to the labels'.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from withlogits import errors

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise errors.not_installed(__name__, "JAX", "jax") from None

import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from withlogits import formulas, shapes
from withlogits.activations import log_softmax, sigmoid, softmax
from withlogits.derivable import focal
from withlogits.frameworks.jax import checks, namespace
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)

__all__ = [
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Array = Any  # jax.Array, and the tracers that stand for one
Axis = int | tuple[int, ...] | None


def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Sigmoid cross-entropy of each element, called as optax's.

    With softplus(x) = log(1 + exp(x))::

        loss = labels softplus(−logits) + (1 − labels) softplus(logits)

    Parameters
    ----------
    logits : array
        Any shape; floating-point.
    labels : array
        How true each is, from 0 to 1; a shape that broadcasts to the logits'.

    Returns
    -------
    jax.Array
        The losses in nats, in the logits' shape; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.

    References
    ----------
    `optax.losses.sigmoid_binary_cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import sigmoid_binary_cross_entropy
    >>> sigmoid_binary_cross_entropy(jnp.array([2.0, -1.0]), jnp.array([1.0, 0.0]))
    Array([0.12692802, 0.3132617 ], dtype=float32)
    """
    logits = checks.checked_logits("logits", logits)
    return sigmoid_cross_entropy_with_logits(labels=_in_shape_of(logits, labels), logits=logits)


def softmax_cross_entropy(logits: Array, labels: Array, axis: Axis = -1, where: Array | None = None) -> Array:
    """Softmax cross-entropy of distributions, called as optax's.

    For a row x of logits with labels t::

        loss = Σ_j t_j (logsumexp(x) − x_j)

    Parameters
    ----------
    logits : array
        (..., C); floating-point.
    labels : array
        What each class is expected with; a shape that broadcasts to the logits'.
    axis : int, tuple of int or None
        The axis of the classes, or several whose elements are all classes; None for all.
    where : boolean array, optional
        The elements that take part, in a shape that broadcasts to the logits'; or the rows, in the shape of the result.
        A class that does not has probability 0, and a row without any costs 0.

    Returns
    -------
    jax.Array
        The losses in nats, in the logits' shape without the class axes; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.

    References
    ----------
    `optax.losses.softmax_cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import softmax_cross_entropy
    >>> softmax_cross_entropy(jnp.array([1.0, 2.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0]))  # optax says nan
    Array(0.8133, dtype=float32)
    """
    rows, labels = _distributions(logits, labels, axis, where)
    return _dense(rows, labels)


def safe_softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy of distributions over the last axis: `softmax_cross_entropy`, which is as safe.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import safe_softmax_cross_entropy
    >>> safe_softmax_cross_entropy(jnp.array([1.0, 2.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0]))
    Array(0.8133, dtype=float32)
    """
    return softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(
    logits: Array, labels: Array, axis: Axis = -1, where: Array | None = None
) -> Array:
    """Softmax cross-entropy of class indices, called as optax's.

    For a row x of logits with label y::

        loss = logsumexp(x) − x_y

    Parameters
    ----------
    logits : array
        (..., C); floating-point.
    labels : array of integers
        From 0 to C − 1, in the logits' shape without the class axes; with several of these, an index into their
        elements in the order in which `axis` names them.
    axis, where
        As in `softmax_cross_entropy`.

    Returns
    -------
    jax.Array
        The losses in nats, in the labels' shape; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit, and for a label out of range, where its value can be seen.

    References
    ----------
    `optax.losses.softmax_cross_entropy_with_integer_labels`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import softmax_cross_entropy_with_integer_labels
    >>> softmax_cross_entropy_with_integer_labels(jnp.array([[20.0, 0.0, 0.0]]), jnp.array([0]))  # optax says 0
    Array([4.1223e-09], dtype=float32)
    """
    rows = _rows(checks.checked_logits("logits", logits), axis, where)
    return sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=rows.logits, axis=rows.axis, sample_weight=rows.included
    )


def poly_loss_cross_entropy(
    logits: Array, labels: Array, *, epsilon: Any = 2.0, axis: Axis = -1, where: Array | None = None
) -> Array:
    """Poly-1 loss: the softmax cross-entropy, plus ε times the probability that is not where the labels are.

    For a row of logits with probabilities p and labels t::

        loss = Σ_j t_j (−log p_j + ε (1 − p_j))

    Parameters
    ----------
    logits, labels, axis, where
        As in `softmax_cross_entropy`.
    epsilon : number
        The weight of the second term.

    Returns
    -------
    jax.Array
        The losses in nats, as from `softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.

    References
    ----------
    `optax.losses.poly_loss_cross_entropy`; Leng et al., "PolyLoss", 2022, https://arxiv.org/abs/2204.12511

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import poly_loss_cross_entropy
    >>> poly_loss_cross_entropy(jnp.array([20.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 0.0]))  # optax says 0
    Array(1.2367e-08, dtype=float32)
    """
    rows, labels = _distributions(logits, labels, axis, where)
    loss = _dense(rows, labels)
    x, t = (jnp.moveaxis(each, rows.axis, -1).astype(loss.dtype) for each in (rows.logits, labels))
    if rows.included is None:
        return loss + epsilon * _missed(x, t)
    x = jnp.where(rows.included[..., None], x, 0.0)
    return loss + epsilon * jnp.where(rows.included, _missed(x, t), 0.0)


def sigmoid_focal_loss(logits: Array, labels: Array, *, alpha: Any = None, gamma: Any = 2.0) -> Array:
    """Focal loss: the sigmoid cross-entropy of each element, times a power of the probability that it missed.

    With z = `labels`, and σ the sigmoid::

        loss = α' ((1 − z) σ(x) + z σ(−x))^γ (z softplus(−x) + (1 − z) softplus(x)),  α' = α z + (1 − α) (1 − z)

    Parameters
    ----------
    logits, labels : array
        As in `sigmoid_binary_cross_entropy`.
    alpha : number, optional
        The weight of what is true; that of what is not is 1 − α. Without it both are 1.
    gamma : number
        The power, 0 or more.

    Returns
    -------
    jax.Array
        The losses in nats, in the logits' shape; float64 for float64 logits, else float32.

    Raises
    ------
    TypeError, ValueError
        For dtypes and shapes that do not fit.

    References
    ----------
    `optax.losses.sigmoid_focal_loss`; Lin et al., "Focal Loss for Dense Object Detection", 2017,
    https://arxiv.org/abs/1708.02002

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import sigmoid_focal_loss
    >>> sigmoid_focal_loss(jnp.array([2.0, jnp.inf]), jnp.array([0.0, 1.0]))  # optax says nan for the second
    Array([1.65, 0.  ], dtype=float32)
    """
    logits = checks.checked_logits("logits", logits)
    x = logits.astype(formulas.loss_dtype(namespace, logits))
    z = jnp.asarray(_in_shape_of(x, labels)).astype(x.dtype)
    loss = sigmoid_cross_entropy_with_logits(labels=z, logits=x)
    missed = (1.0 - z) * sigmoid(x) + z * sigmoid(-x)
    loss = focal(namespace, loss, missed, gamma)
    return loss if alpha is None else (alpha * z + (1.0 - alpha) * (1.0 - z)) * loss


def smooth_labels(labels: Array, alpha: Any, *, axis: Axis = -1, where: Array | None = None) -> Array:
    """Labels of which a share α is spread over all classes: (1 − α) labels + α/C.

    `label_smoothing=alpha` of the losses of withlogits does the same without the array.

    Parameters
    ----------
    labels : array
        One-hot or soft labels, (..., C); floating-point.
    alpha : number
        The share, from 0 to 1.
    axis : int, tuple of int or None
        As in `softmax_cross_entropy`.
    where : boolean array, optional
        The elements that are counted as classes, in a shape that broadcasts to that of the labels.

    Returns
    -------
    jax.Array
        In the labels' shape.

    References
    ----------
    `optax.losses.smooth_labels`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from withlogits.compat.optax import smooth_labels
    >>> smooth_labels(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.2)
    Array([0.85, 0.05, 0.05, 0.05], dtype=float32)
    """
    labels = jnp.asarray(labels)
    axes = shapes.reduced_axes(axis, labels.shape, "labels")
    classes: Any = math.prod([labels.shape[i] for i in axes])
    if where is not None:
        where = jnp.broadcast_to(jnp.asarray(where), labels.shape)
        classes = jnp.maximum(jnp.sum(where, axes, keepdims=True), 1)
    return labels * (1.0 - alpha) + alpha / classes


# --------------------------------------------------------------------------------------------------------------- rows


class _Rows(NamedTuple):
    """Logits with one axis of classes, of which those that do not take part are −inf."""

    logits: Array
    axis: int
    included: Array | None  # the rows that have a class, as booleans; None if all have
    mask: Array | None  # the elements that take part, in the logits' shape; None if all do, or all of an included row


def _rows(logits: Array, axis: Axis, where: Array | None) -> _Rows:
    axes = shapes.reduced_axes(axis, logits.shape, "logits")
    one = axes[0] if len(axes) == 1 else logits.ndim - len(axes)
    mask = included = None
    if where is not None:
        where = jnp.asarray(where).astype(bool)
        by_element = where.ndim == logits.ndim
        target = logits.shape if by_element else tuple([n for i, n in enumerate(logits.shape) if i not in axes])
        if not shapes.broadcasts(where.shape, target):
            raise errors.weight_shape("where", where.shape, target, "logits" if by_element else "rows")
        included = jnp.broadcast_to(where, target)
        if by_element:
            mask = _one_axis(included, axes)
            included = mask.any(one)
    logits = _one_axis(logits, axes)
    return _Rows(logits if mask is None else jnp.where(mask, logits, -jnp.inf), one, included, mask)


def _distributions(logits: Array, labels: Array, axis: Axis, where: Array | None) -> tuple[_Rows, Array]:
    """Rows, and labels in their shape."""
    logits = checks.checked_logits("logits", logits)
    rows = _rows(logits, axis, where)
    labels = _in_shape_of(logits, labels)
    if labels.shape == logits.shape:
        labels = _one_axis(jnp.asarray(labels), shapes.reduced_axes(axis, logits.shape, "logits"))
        if rows.mask is not None:
            labels = jnp.where(rows.mask, labels, 0)
    return rows, labels


def _dense(rows: _Rows, labels: Array) -> Array:
    if rows.mask is None:
        return softmax_cross_entropy_with_logits(
            labels=labels, logits=rows.logits, axis=rows.axis, sample_weight=rows.included
        )
    return _of_some(rows.axis, rows.logits, labels, rows.included, rows.mask)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_some(axis: int, x: Array, t: Array, included: Array, mask: Array) -> Array:
    """Return the loss of classes of which some take no part.

    Its derivative in the labels of those is 0, and not the inf of a logit of −inf, which times a tangent of 0 were NaN.
    """
    return softmax_cross_entropy_with_logits(labels=t, logits=x, axis=axis, sample_weight=included)


@partial(_of_some.defjvp, symbolic_zeros=True)
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    x, t, included, mask = primals
    v, h = (jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d for d in tangents[:2])

    def loss(x: Array) -> Array:
        return softmax_cross_entropy_with_logits(labels=t, logits=x, axis=axis, sample_weight=included)

    value, along = jax.jvp(loss, (x,), (v,))
    if namespace.is_floating(t):
        x = namespace.wide(jnp.where(jnp.expand_dims(included, axis), x, 0.0))
        slope = jnp.where(mask, -log_softmax(x, axis=axis), 0.0)
        along = along + jnp.sum(slope * h, axis).astype(along.dtype)
    return value, along


def _one_axis(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x with these axes as one behind the others, or as it is if they are one."""
    if len(axes) == 1:
        return x
    moved = jnp.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], math.prod([x.shape[i] for i in axes]))


def _in_shape_of(logits: Array, labels: Array) -> Array:
    """Return labels broadcast to the logits' shape; of another shape as they are, which the loss refuses."""
    labels = checks.as_array("labels", labels)
    if labels.shape == logits.shape or not shapes.broadcasts(labels.shape, logits.shape):
        return labels
    labels = jnp.asarray(labels)
    # The gradient of one row for all is summed over the rows, and rounded only then.
    return jnp.broadcast_to(namespace.wide(labels) if namespace.is_floating(labels) else labels, logits.shape)


@jax.custom_jvp
def _missed(x: Array, t: Array) -> Array:
    """Return Σ_j t_j (1 − p_j) over the last axis, whose derivative in floating point would cancel."""
    return jnp.sum(t * -jnp.expm1(log_softmax(x)), -1)


@_missed.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, t = primals
    expected = t * softmax(x)  # the derivative in x is that of a cross-entropy with these labels

    def loss(x: Array) -> Array:
        return softmax_cross_entropy_with_logits(labels=expected, logits=x)

    along = jax.jvp(loss, (x,), tangents[:1])[1]
    return _missed(x, t), along + jnp.sum(tangents[1] * -jnp.expm1(log_softmax(x)), -1)
