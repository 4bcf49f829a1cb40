"""The metrics of `keras.metrics` that are cross-entropies: means over all batches, masked and weighted."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from withlogits.compat.keras import losses
from withlogits.compat.keras.base import Loss

__all__ = ["BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"]

serializable = keras.saving.register_keras_serializable("withlogits.metrics")


class _Metric(keras.metrics.Mean):
    """The mean of a loss, Σ w loss / Σ w."""

    def __init__(self, loss: Loss, name: str, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self._loss = loss
        self._direction = "down"  # less is better, to a tuner

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the losses of a batch of logits `y_pred`."""
        labels, logits, weights, _ = self._loss.arguments(y_true, y_pred, sample_weight, counting=True)
        found = self._loss.losses(labels, logits, weights)
        super().update_state(found, None if weights is None else ops.broadcast_to(weights, ops.shape(found)))

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal metric."""
        return {**super().get_config(), **self._loss.options}


@serializable
class SparseCategoricalCrossentropy(_Metric):
    """`keras.metrics.SparseCategoricalCrossentropy` of logits; ignored rows do not count.

    Examples
    --------
    >>> import numpy as np
    >>> from withlogits.compat.keras.metrics import SparseCategoricalCrossentropy
    >>> metric = SparseCategoricalCrossentropy(ignore_class=-1)
    >>> metric.update_state(np.array([0, -1]), np.array([[20.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    >>> float(metric.result())
    4.1223e-09
    """

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = True,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits, ignore_class, None, axis), name, dtype)


@serializable
class CategoricalCrossentropy(_Metric):
    """`keras.metrics.CategoricalCrossentropy` of logits."""

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.CategoricalCrossentropy(from_logits, label_smoothing, axis, None), name, dtype)


@serializable
class BinaryCrossentropy(_Metric):
    """`keras.metrics.BinaryCrossentropy` of logits: the mean over elements."""

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing, -1, None), name, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal metric."""
        return {name: value for name, value in super().get_config().items() if name != "axis"}
