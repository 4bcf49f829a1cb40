"""TensorFlow's own cross-entropies, with the signatures of `tf.nn` and `tf.compat.v1.nn`, by withlogits.

`patch` puts them where TensorFlow has its own; Keras on TensorFlow looks them up there too. The result has the logits'
dtype, as TensorFlow's has. `v1` holds those of TensorFlow 1, whose softmax loss gives labels no gradient.

What differs, since TensorFlow has no answer there or a wrong one:

- Confident losses and their gradients keep their digits: 4e-9 where TensorFlow says 0.
- A logit of −inf costs nothing unless its label has weight, where TensorFlow says NaN.
- The gradient is (Σ z) p − z, which TensorFlow has for labels that sum to 1 alone.
- Derivatives are right to every order, by the labels too, where TensorFlow's second ones are wrong or missing.
- The sigmoid loss has its gradient at a logit of exactly 0 too, where TensorFlow's second derivative is 0.
- Half precision is computed in float32 at least, and rounded once.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from withlogits import errors, losses

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise errors.not_installed(__name__, "TensorFlow", "tensorflow") from None

from withlogits.compat.patching import Patch, Places
from withlogits.options import one_axis

__all__ = [
    "patch",
    "sigmoid_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits",
    "sparse_softmax_cross_entropy_with_logits",
    "v1",
    "weighted_cross_entropy_with_logits",
]

Tensor = Any


def sigmoid_cross_entropy_with_logits(labels: Any = None, logits: Any = None, name: str | None = None) -> Tensor:
    """Sigmoid cross-entropy of each element, called as `tf.nn.sigmoid_cross_entropy_with_logits`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from withlogits.compat import tf as wtf
    >>> wtf.sigmoid_cross_entropy_with_logits(labels=tf.constant([1.0, 0.0]), logits=tf.constant([20.0, 0.0])).numpy()
    array([2.0611537e-09, 6.9314718e-01], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    return _like(logits, losses.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits, name=name))


def weighted_cross_entropy_with_logits(labels: Any, logits: Any, pos_weight: Any, name: str | None = None) -> Tensor:
    """Sigmoid cross-entropy in which "yes" weighs `pos_weight` times, called as tf.nn's.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from withlogits.compat import tf as wtf
    >>> wtf.weighted_cross_entropy_with_logits(tf.constant([1.0, 0.0]), tf.constant([0.0, 0.0]), 3.0).numpy()
    array([2.0794415, 0.6931472], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    loss = losses.weighted_cross_entropy_with_logits(labels=labels, logits=logits, pos_weight=pos_weight, name=name)
    return _like(logits, loss)


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, axis: int = -1, name: str | None = None) -> Tensor:
    """Softmax cross-entropy of distributions, called as `tf.nn.softmax_cross_entropy_with_logits`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from withlogits.compat import tf as wtf
    >>> labels, logits = tf.constant([[1.0, 0.0, 0.0]]), tf.constant([[20.0, 0.0, 0.0]])
    >>> wtf.softmax_cross_entropy_with_logits(labels, logits).numpy()
    array([4.12230e-09], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    return _like(logits, losses.softmax_cross_entropy_with_logits(labels=labels, logits=logits, axis=axis, name=name))


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Tensor:
    """Softmax cross-entropy of class indices, called as `tf.nn.sparse_softmax_cross_entropy_with_logits`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from withlogits.compat import tf as wtf
    >>> wtf.sparse_softmax_cross_entropy_with_logits(tf.constant([0]), tf.constant([[20.0, 0.0, 0.0]])).numpy()
    array([4.12230e-09], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    return _like(logits, losses.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, name=name))


def _like(logits: Tensor, loss: Tensor) -> Tensor:
    return tf.cast(loss, logits.dtype)


# ------------------------------------------------------------------------------------------------------ TensorFlow 1


def _softmax_v1(
    labels: Any = None, logits: Any = None, dim: int = -1, name: str | None = None, axis: int | None = None
) -> Tensor:
    """As `tf.compat.v1.nn.softmax_cross_entropy_with_logits`, which gives labels no gradient."""
    labels = tf.stop_gradient(tf.convert_to_tensor(labels))
    return softmax_cross_entropy_with_logits(labels, logits, _axis(axis, dim), name)


def _softmax_v2(labels: Any, logits: Any, axis: int | None = None, name: str | None = None, dim: Any = None) -> Tensor:
    """As `tf.compat.v1.nn.softmax_cross_entropy_with_logits_v2`."""
    return softmax_cross_entropy_with_logits(labels, logits, _axis(axis, -1 if dim is None else dim), name)


def _sparse_v1(labels: Any = None, logits: Any = None, name: str | None = None) -> Tensor:
    return sparse_softmax_cross_entropy_with_logits(labels, logits, name)


def _weighted_v1(
    labels: Any = None, logits: Any = None, pos_weight: Any = None, name: str | None = None, targets: Any = None
) -> Tensor:
    """As `tf.compat.v1.nn.weighted_cross_entropy_with_logits`, whose labels were once called targets."""
    return weighted_cross_entropy_with_logits(targets if labels is None else labels, logits, pos_weight, name)


def _axis(axis: int | None, dim: int) -> int:
    found: int = dim if axis is None else one_axis(axis, None if dim == -1 else dim)
    return found


v1 = SimpleNamespace(
    sigmoid_cross_entropy_with_logits=sigmoid_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits=_weighted_v1,
    softmax_cross_entropy_with_logits=_softmax_v1,
    softmax_cross_entropy_with_logits_v2=_softmax_v2,
    sparse_softmax_cross_entropy_with_logits=_sparse_v1,
)

# ------------------------------------------------------------------------------------------------------------- patch

_FUNCTIONS = (
    sigmoid_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
_places = Places(
    *[(module, function.__name__, function) for module in (tf.nn, tf.compat.v2.nn) for function in _FUNCTIONS],
    *[(tf.compat.v1.nn, name, function) for name, function in vars(v1).items()],
)


def patch() -> Patch:
    """Put these functions into `tf.nn` and `tf.compat.v1.nn`, until undone.

    Whoever looks them up there at each call, Keras's losses on TensorFlow among them, computes by withlogits from then
    on; graphs that were made before stay as they are.

    Returns
    -------
    Patch
        Call it to undo, or use it in ``with``. Patches nest: TensorFlow's functions come back with the last one.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from withlogits.compat.tf import patch
    >>> labels, logits = tf.constant([0]), tf.constant([[20.0, 0.0, 0.0]])
    >>> with patch():
    ...     tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    array([4.12230e-09], dtype=float32)
    >>> tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    array([0.], dtype=float32)
    """
    return Patch(_places)
