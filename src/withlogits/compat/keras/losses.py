"""The losses of `keras.losses` that are cross-entropies, as classes and as functions."""

from __future__ import annotations

from typing import Any

from keras import ops

from withlogits.compat.keras.base import ElementwiseLoss, Loss, serializable
from withlogits.compat.keras.tensors import (
    Tensor,
    as_indices,
    as_logits,
    dtype_of,
    length,
    loss_dtype,
    reduced,
    signed,
    summed,
    without_masked,
)
from withlogits.derivable import class_losses, focal
from withlogits.dispatch import adapters
from withlogits.formulas import times
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
from withlogits.options import fraction, index_to_ignore, not_negative


@serializable
class SparseCategoricalCrossentropy(Loss):
    """`keras.losses.SparseCategoricalCrossentropy` of logits: exclusive classes, labels that are class numbers.

    For a row x of C logits and its label y, ``loss = logsumexp(x) − x_y`` in nats.

    Parameters
    ----------
    from_logits : bool
        True; False is an error, since withlogits computes from logits.
    ignore_class : int, optional
        Rows with this label do not count; it need not be a class.
    reduction : {"sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none"} or None
        "sum_over_batch_size", and its other name "mean", divide by the number of losses, of those that count if there
        is a mask or a class to ignore; "mean_with_sample_weight" by the sum of the weights.
    axis : int
        The axis of the classes.
    name : str
        The name of the loss.
    dtype : str or keras.DTypePolicy, optional
        The dtype of the result; by default Keras's float type. The loss is computed in float32 at least.

    Notes
    -----
    Called as ``loss(y_true, y_pred, sample_weight=None)``. `y_true` are numbers in [0, C), integers or floats, of the
    shape of the logits without the class axis, or with length 1 there; `y_pred` are the logits, (..., C, ...).
    `sample_weight` broadcasts to the losses, or has their first axes.

    Raises
    ------
    ValueError
        For `from_logits=False`; at the call, for shapes that do not fit and labels that are no class.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras import SparseCategoricalCrossentropy
    >>> loss = SparseCategoricalCrossentropy()
    >>> float(loss(np.array([0]), np.array([[20.0, 0.0, 0.0]])))  # Keras says 0
    4.1223e-09
    """

    ignore_class: int | None

    def __init__(
        self,
        from_logits: bool = True,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        ignored = None if ignore_class is None else index_to_ignore(ignore_class)
        super().__init__(from_logits, reduction, name, dtype, ignore_class=ignored, axis=axis)

    def _tensors(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
        labels, logits = as_indices(y_true), as_logits(y_pred)
        if len(labels.shape) == len(logits.shape) and labels.shape[self.axis] == 1:
            labels = ops.squeeze(labels, self.axis)
        return labels, logits

    def _kept(self, labels: Tensor) -> Tensor | None:
        return None if self.ignore_class is None else signed(labels) != self.ignore_class

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        return sparse_softmax_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            axis=self.axis,
            ignore_index=self.ignore_class,
            sample_weight=weights,
            reduction=reduction,
        )


@serializable
class CategoricalCrossentropy(Loss):
    """`keras.losses.CategoricalCrossentropy` of logits: exclusive classes, labels that are distributions.

    For a row x of C logits, labels z and ε = `label_smoothing`::

        t_j  = (1 − ε) z_j + ε/C
        loss = Σ_j t_j (logsumexp(x) − x_j)

    Parameters
    ----------
    label_smoothing : float
        The share of each label that is spread over all classes; from 0 to 1.
    from_logits, axis, reduction, name, dtype
        As for `SparseCategoricalCrossentropy`.

    Notes
    -----
    Called as ``loss(y_true, y_pred, sample_weight=None)``; `y_true` has the shape of the logits, (..., C, ...).

    Raises
    ------
    ValueError
        For `from_logits=False`, and smoothing out of range; at the call, for shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras import CategoricalCrossentropy
    >>> loss = CategoricalCrossentropy(label_smoothing=0.1)
    >>> float(loss(np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 2.0, 3.0]])))
    0.50760
    """

    label_smoothing: float

    def __init__(
        self,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        smoothing = fraction("label_smoothing", label_smoothing)
        super().__init__(from_logits, reduction, name, dtype, label_smoothing=smoothing, axis=axis)

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        return softmax_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            axis=self.axis,
            label_smoothing=self.label_smoothing,
            sample_weight=weights,
            reduction=reduction,
        )


@serializable
class BinaryCrossentropy(ElementwiseLoss):
    """`keras.losses.BinaryCrossentropy` of logits: independent yes/no questions.

    For each element, with ε = `label_smoothing` and softplus(x) = log(1 + exp(x))::

        z    = (1 − ε) y_true + ε/2
        loss = z softplus(−x) + (1 − z) softplus(x)

    and the loss of a row is the mean over `axis`.

    Parameters
    ----------
    label_smoothing : float
        Moves the labels this far from 0 and 1 towards 1/2; from 0 to 1.
    axis : int
        The axis over which a mean is taken; "none" has the losses without it.
    from_logits, reduction, name, dtype
        As for `SparseCategoricalCrossentropy`.

    Notes
    -----
    Called as ``loss(y_true, y_pred, sample_weight=None)``; `y_true` has the shape of the logits. Weights are of rows,
    or of elements if they have as many axes as the logits.

    Raises
    ------
    ValueError
        For `from_logits=False`, and smoothing out of range; at the call, for shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras import BinaryCrossentropy
    >>> float(BinaryCrossentropy()(np.array([[0.0], [1.0]]), np.array([[-1.0], [2.0]])))
    0.22009
    """

    label_smoothing: float

    def __init__(
        self,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        smoothing = fraction("label_smoothing", label_smoothing)
        super().__init__(from_logits, reduction, name, dtype, label_smoothing=smoothing, axis=axis)

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        return sigmoid_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            label_smoothing=self.label_smoothing,
            sample_weight=weights,
            reduction=reduction,
        )


@serializable
class CategoricalFocalCrossentropy(Loss):
    """`keras.losses.CategoricalFocalCrossentropy` of logits: exclusive classes, with less weight on the easy ones.

    For a row with probabilities p = softmax(x), labels z, γ = `gamma`, α = `alpha` and ε = `label_smoothing`::

        t_j  = (1 − ε) z_j + ε/C
        loss = Σ_j α_j t_j (1 − p_j)ᵞ (−log p_j)

    Parameters
    ----------
    alpha : float or sequence of float
        A factor for all classes, or for each.
    gamma : float
        How fast the weight falls with 1 − p; 0 or more.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As for `CategoricalCrossentropy`.

    Raises
    ------
    ValueError
        For `from_logits=False`, and options out of range; at the call, for shapes that do not fit.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras import CategoricalFocalCrossentropy
    >>> loss = CategoricalFocalCrossentropy(alpha=1.0, gamma=0.5)
    >>> float(loss(np.array([[1.0, 0.0, 0.0]]), np.array([[20.0, 0.0, 0.0]])))  # Keras says 3e-11
    2.6467e-13
    """

    alpha: Any
    gamma: float
    label_smoothing: float

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = _focal_options(alpha=alpha, gamma=gamma, label_smoothing=label_smoothing)
        super().__init__(from_logits, reduction, name, dtype, axis=axis, **options)

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        xp, axis, dtype = adapters[type(logits)].namespace, self.axis, loss_dtype(logits)
        if weights is not None:
            labels, logits = without_masked(ops.expand_dims(weights, axis), labels, logits)
        x, z = (xp.wide(xp.moveaxis(each, axis, -1)) for each in (logits, labels))
        if self.label_smoothing:
            z = (1.0 - self.label_smoothing) * z + self.label_smoothing / length(z, -1, dtype_of(z))
        z = ops.convert_to_tensor(self.alpha, dtype_of(z)) * z
        loss = class_losses(xp, x)
        loss = xp.where(xp.isinf(loss) & (z == 0.0), 0.0, loss)  # a class that cannot occur, and is not wanted
        losses = summed(z * focal(xp, loss, -xp.expm1(-loss), self.gamma), -1)
        return ops.cast(reduced(losses, weights, reduction), dtype)


@serializable
class BinaryFocalCrossentropy(ElementwiseLoss):
    """`keras.losses.BinaryFocalCrossentropy` of logits: yes/no questions, with less weight on the easy ones.

    For each element with p = sigmoid(x), γ = `gamma`, α = `alpha` and ε = `label_smoothing`::

        z    = (1 − ε) y_true + ε/2
        miss = z (1 − p) + (1 − z) p
        loss = missᵞ (−z log p − (1 − z) log(1 − p))

    times z α + (1 − z)(1 − α) with `apply_class_balancing`; the loss of a row is the mean over `axis`.

    Parameters
    ----------
    apply_class_balancing : bool
        Whether the two answers have different weights.
    alpha : float
        The weight of "yes"; that of "no" is 1 − α.
    gamma : float
        How fast the weight falls with the share that is missed; 0 or more.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As for `BinaryCrossentropy`.

    Raises
    ------
    ValueError
        For `from_logits=False`, and options out of range; at the call, for shapes that do not fit.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras import BinaryFocalCrossentropy
    >>> float(BinaryFocalCrossentropy()(np.array([[1.0]]), np.array([[20.0]])))  # Keras says 1e-21
    8.7565e-27
    """

    apply_class_balancing: bool
    alpha: float
    gamma: float
    label_smoothing: float

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = _focal_options(alpha=alpha, gamma=gamma, label_smoothing=label_smoothing)
        options["apply_class_balancing"] = bool(apply_class_balancing)
        super().__init__(from_logits, reduction, name, dtype, axis=axis, **options)

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        xp, keep, alpha = adapters[type(logits)].namespace, 1.0 - self.label_smoothing, self.alpha
        if weights is not None:
            labels, logits = without_masked(weights, labels, logits)
        z = ops.cast(labels, loss_dtype(logits))
        yes, no = keep * z + self.label_smoothing / 2.0, keep * (1.0 - z) + self.label_smoothing / 2.0
        of_yes = sigmoid_cross_entropy_with_logits(labels=ops.ones_like(z), logits=logits)  # −log p
        of_no = sigmoid_cross_entropy_with_logits(labels=ops.zeros_like(z), logits=logits)
        loss = times(xp, yes, of_yes) + times(xp, no, of_no)
        losses = focal(xp, loss, -yes * xp.expm1(-of_yes) - no * xp.expm1(-of_no), self.gamma)
        if self.apply_class_balancing:
            losses = (yes * alpha + no * (1.0 - alpha)) * losses
        return reduced(losses, weights, reduction)


def _focal_options(alpha: Any, gamma: float, label_smoothing: float) -> dict[str, Any]:
    smoothing = fraction("label_smoothing", label_smoothing)
    return {"alpha": alpha, "gamma": not_negative("gamma", gamma), "label_smoothing": smoothing}


# ---------------------------------------------------------------------------------------------------------- functions


@serializable
def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = True, ignore_class: int | None = None, axis: int = -1
) -> Tensor:
    """Return the loss of each row, as `SparseCategoricalCrossentropy` computes it."""
    return SparseCategoricalCrossentropy(from_logits, ignore_class, None, axis).call(y_true, y_pred)


@serializable
def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = True, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Return the loss of each row, as `CategoricalCrossentropy` computes it."""
    return CategoricalCrossentropy(from_logits, label_smoothing, axis, None).call(y_true, y_pred)


@serializable
def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = True, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Return the loss of each row, as `BinaryCrossentropy` computes it."""
    return BinaryCrossentropy(from_logits, label_smoothing, axis, None).call(y_true, y_pred)


@serializable
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = True,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Return the loss of each row, as `CategoricalFocalCrossentropy` computes it."""
    loss = CategoricalFocalCrossentropy(alpha, gamma, from_logits, label_smoothing, axis, None)
    return loss.call(y_true, y_pred)


@serializable
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = True,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Return the loss of each row, as `BinaryFocalCrossentropy` computes it."""
    loss = BinaryFocalCrossentropy(apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis, None)
    return loss.call(y_true, y_pred)
