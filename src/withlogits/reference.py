"""The engine where llvmlite cannot be had, and the oracle of the kernels' tests: `formulas` on NumPy arrays.

Float64 inside, and one rounding to the result's dtype at the end. Speed is not its aim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, formulas, shapes
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks import numpy_namespace
from withlogits.options import Options, SoftmaxOptions

NAME = "reference"

Floats = NDArray[np.float64]
Array = NDArray[Any]


class FormulaPlan:
    """A loss by the formulas, with the interface of the compiled engine's plans; there is nothing to plan."""

    def __init__(self, options: Options, memory: Any, labels: Any, logits: Any) -> None:
        self._options, self._fit = options, None
        if isinstance(options, SoftmaxOptions):
            self._fit = fit = shapes.softmax_fit(options, labels.shape, logits.shape, labels.dtype)
            # NumPy compares labels of every type with the index as it was given
            self._chosen: Options = replace(fit.options, ignore_index=fit.ignore_index)
        else:
            shapes.check_sigmoid_labels(labels.shape, logits.shape)
            self._chosen = options

    def quick(self, for_logits: bool, weights: tuple[Any, ...] = ()) -> None:
        """There is no shorter way for small arrays."""

    def evaluate(
        self, arrays: tuple[Any, ...], for_logits: bool, for_labels: bool, out: Array | None = None
    ) -> tuple[Any, Array | None, Array | None]:
        """Return the loss, reduced, with the gradients of the reduced loss."""
        labels, logits, weight, sample_weight, *more = arrays
        shape = logits.shape if self._fit is None else self._fit.loss_shape
        if sample_weight is not None:
            sample_weight = np.broadcast_to(sample_weight, shape)
        with np.errstate(all="ignore"):
            loss, losses, weights = self._losses(logits, labels, weight, sample_weight, *more)
            value, divisor = self._reduced(losses, weights)
            share = np.full(losses.shape, 1.0 / divisor if divisor else 0.0)
            if self._fit is None:
                gradients = loss.gradients(share, for_logits, for_labels)
            else:
                entangled = weight is not None and self._options.reduction == "mean"
                gradients = loss.gradients(share, for_logits, for_labels, np.asarray(value) if entangled else None)
            dtype = formulas.loss_dtype(numpy_namespace, logits)
            value = np.asarray(formulas.rounded(numpy_namespace, np.asarray(value), dtype))
            value = value.reshape(shape) if self._options.reduction == "none" else value[()]
        gradient, label_gradient = gradients
        if out is not None:
            out[...] = gradient
            gradient = out
        return value, gradient, label_gradient

    def _losses(
        self, logits: Array, labels: Array, weight: Any, sample_weight: Any, *more: Any
    ) -> tuple[Any, Floats, Floats]:
        """Return the loss object, the losses of rows or elements, and what each adds to the divisor of a mean."""
        fit = self._fit
        if fit is None:
            sigmoid = formulas.Sigmoid(
                numpy_namespace, SigmoidArrays(logits, labels, weight, sample_weight), self._chosen
            )
            return sigmoid, sigmoid.losses(), sigmoid.factor
        given = labels
        if fit.keeps_axis:
            labels = labels.squeeze(fit.axis)
            if sample_weight is not None:
                sample_weight = sample_weight.squeeze(fit.axis)
        elif fit.one_row:
            labels = np.broadcast_to(labels, logits.shape)
        arrays = SoftmaxArrays(logits, labels, weight, sample_weight, *more)
        softmax = formulas.Softmax(numpy_namespace, arrays, self._chosen)
        if not (softmax.valid | ~softmax.unmasked).all():
            counts = None if sample_weight is None else sample_weight.reshape(given.shape)
            raise errors.label_out_of_range(given, logits.shape[fit.axis], fit.ignore_index, counts)
        losses = softmax.losses()
        return softmax, losses, formulas.row_weights(numpy_namespace, arrays, self._chosen, losses)

    def _reduced(self, losses: Floats, weights: Floats) -> tuple[Any, float]:
        """Return the reduced value, and what its gradient is divided by: 0 where nothing contributes."""
        if self._options.reduction == "none":
            return losses, 1.0
        value = _sum(losses)
        if self._options.reduction == "sum":
            return value, 1.0
        divisor = _sum(weights)
        return (value / divisor if divisor else 0.0), divisor


def _sum(x: Floats) -> float:
    return float(formulas.total(numpy_namespace, x.reshape(-1))[0].item())


plan_loss = FormulaPlan


def plan_softmax_map(kind: str, axis: Any, memory: Any, x: Any) -> Callable[[Array], Array]:
    """Return the function of arrays like x; there is nothing to plan."""
    return partial(_softmax_map, axis=shapes.class_axis(axis, x.shape, "x"), kind=kind)


def plan_elementwise(kind: str, memory: Any, x: Any) -> Callable[[Array], Array]:
    """Return the function of arrays like x; there is nothing to plan."""
    return partial(_elementwise, kind=kind)


def _softmax_map(x: Array, *, axis: int, kind: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(formulas.softmax_map(numpy_namespace, x, axis, kind))


def _elementwise(x: Array, *, kind: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(formulas.elementwise(numpy_namespace, x, kind))
