"""What the losses share: their arguments, weights and reductions, by Keras's rules."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from withlogits import errors
from withlogits.compat.keras.tensors import (
    Sizes,
    Tensor,
    aligned,
    as_logits,
    as_tensor,
    as_weights,
    count,
    count_true,
    is_symbolic,
    length,
    loss_dtype,
    mask_of,
    of_one_replica,
    over,
    reduced,
    same_rank,
    sizes,
    summed,
)
from withlogits.dispatch import adapters

serializable = keras.saving.register_keras_serializable("withlogits.losses")


class Loss(keras.losses.Loss):
    """A loss of rows of logits: arguments, weights and reductions; `_loss` computes it."""

    _activation: ClassVar = "softmax"  # what turns the logits into probabilities
    axis: int

    def __init__(self, from_logits: bool, reduction: str | None, name: str, dtype: Any, **options: Any) -> None:
        if not from_logits:
            raise errors.from_probabilities(type(self).__name__, self._activation)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.options = {"from_logits": True, **options}
        self.__dict__.update(self.options)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal loss, with the axis and the dtype."""
        return {**super().get_config(), "dtype": self.dtype, **self.options}

    def __repr__(self) -> str:
        config = self.get_config()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in config.items())})"

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the loss of the logits `y_pred`, reduced, in the loss's dtype.

        Keras's own method would cast labels and logits to that dtype first.
        """
        if is_symbolic(y_true, y_pred, sample_weight):
            return InModel(self)(y_true, y_pred, sample_weight)
        with keras.name_scope(self.name):
            labels, logits, weights, counted = self.arguments(y_true, y_pred, sample_weight)
            reduction = self.reduction or "none"
            if reduction == "none":
                value = self._of_rows(self._weighted(labels, logits, weights, "none"))
            elif reduction == "sum":
                value = self._weighted(labels, logits, weights, "sum") / self._elements_of_row(logits)
            elif sample_weight is None or reduction == "mean_with_sample_weight":
                value = of_one_replica(self._weighted(labels, logits, weights, "mean"))
            else:  # of the losses, whatever they weigh
                shape = self._shape(logits)
                number = count(shape) if counted is None else count_true(counted, shape)
                shares = over(weights, number)  # the gradient need not be divided once more
                value = of_one_replica(self._weighted(labels, logits, shares, "sum"))
            return ops.cast(value, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each row, float64 for float64 logits and float32 otherwise."""
        if is_symbolic(y_true, y_pred):
            return InModel(self.of_rows())(y_true, y_pred)
        labels, logits = self._tensors(y_true, y_pred)
        return self._of_rows(self._loss(labels, logits, None, "none"))

    def of_rows(self) -> Loss:
        """Return this loss without its reduction."""
        loss: Loss = type(self).from_config({**self.get_config(), "reduction": None})
        return loss

    def arguments(
        self, y_true: Any, y_pred: Any, sample_weight: Any, *, counting: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return labels, logits, the weights of the losses, and which losses count; None where all are 1, or count.

        Labels to ignore are left to withlogits, unless `counting` or weights want them counted.
        """
        mask = mask_of(y_pred)
        labels, logits = self._tensors(y_true, y_pred)
        weights = None if sample_weight is None else self._fitted(as_weights(sample_weight, logits), logits)
        counted = None if mask is None else self._fitted(ops.cast(mask, "bool"), logits)
        if (counting or weights is not None) and (kept := self._kept(labels)) is not None:
            counted = kept if counted is None else ops.logical_and(counted, kept)
        if counted is not None:
            ones = as_weights(counted, logits)
            weights = ones if weights is None else adapters[type(ones)].namespace.where(counted, weights, 0.0)
        return labels, logits, weights, counted

    def losses(self, labels: Tensor, logits: Tensor, weights: Tensor | None) -> Tensor:
        """Return losses that are not weighted yet: of rows or elements, and 0 for what weighs 0."""
        return self._loss(labels, logits, None if weights is None else as_weights(weights != 0.0, logits), "none")

    def _loss(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: Any) -> Tensor:
        """Return the loss, times weights that broadcast to its shape, reduced as withlogits does."""
        raise NotImplementedError

    def _weighted(self, labels: Tensor, logits: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
        """Return the loss for weights of any sign, of which withlogits refuses those below 0."""
        if weights is None:
            return self._loss(labels, logits, None, reduction)
        try:
            return self._loss(labels, logits, weights, reduction)
        except ValueError:  # one that has another reason comes again
            pass
        return reduced(self.losses(labels, logits, weights), weights, reduction)

    def _tensors(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
        """Return labels and logits of shapes that fit."""
        return same_rank(as_tensor(y_true), as_logits(y_pred))

    def _kept(self, labels: Tensor) -> Tensor | None:
        """Return which labels are not ignored; None for all."""
        return None

    def _rows(self, logits: Tensor) -> Sizes:
        """Return the sizes of the logits without the class axis."""
        return _without(sizes(logits), self.axis)

    def _shape(self, logits: Tensor) -> tuple[Any, ...]:
        """Return the shape of the losses, whose sizes are tensors where the graph does not know them."""
        return _without(tuple(ops.shape(logits)), self.axis)

    def _fitted(self, weights: Tensor, logits: Tensor) -> Tensor:
        """Return weights, or a mask, that broadcast to the losses."""
        return aligned(weights, self._rows(logits))

    def _of_rows(self, losses: Tensor) -> Tensor:
        return losses

    def _elements_of_row(self, logits: Tensor) -> Any:
        """Return how many losses are averaged to the one of a row."""
        return 1


class ElementwiseLoss(Loss):
    """A loss of elements, of which a row's loss is the mean over `axis`; weights may be of rows or of elements."""

    _activation: ClassVar = "sigmoid"

    def _shape(self, logits: Tensor) -> tuple[Any, ...]:
        return tuple(ops.shape(logits))

    def _fitted(self, weights: Tensor, logits: Tensor) -> Tensor:
        if len(weights.shape) == len(logits.shape):
            return weights
        return ops.expand_dims(aligned(weights, self._rows(logits)), self.axis)

    def _of_rows(self, losses: Tensor) -> Tensor:
        return summed(losses, self.axis) / self._elements_of_row(losses)

    def _elements_of_row(self, logits: Tensor) -> Any:
        return length(logits, self.axis, loss_dtype(logits))


def _without(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return tuple(n for i, n in enumerate(shape) if i != axis % len(shape))


@serializable
class InModel(keras.Operation):
    """A loss as a step of a functional model."""

    def __init__(self, loss: Any, name: str | None = None) -> None:
        super().__init__(name=name)
        self.loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss

    def call(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the loss of tensors."""
        return self.loss(y_true, y_pred, sample_weight)

    def compute_output_spec(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> keras.KerasTensor:
        """Return what stands for the loss while the model is built."""
        rows = self.loss.reduction in (None, "none")
        return keras.KerasTensor(self.loss._rows(y_pred) if rows else (), dtype=self.loss.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal step."""
        return {"loss": keras.saving.serialize_keras_object(self.loss), "name": self.name}
