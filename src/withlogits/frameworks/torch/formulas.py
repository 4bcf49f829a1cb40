"""`withlogits.formulas` on tensors: options, result dtypes and a loss from the arguments of the operators."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from withlogits import formulas
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.torch import namespace
from withlogits.frameworks.torch.namespace import as_index as as_signed
from withlogits.frameworks.torch.namespace import wide, wide_dtype

__all__ = ["as_signed", "wide"]

loss_dtype = partial(formulas.loss_dtype, namespace)
label_gradient_dtype = partial(formulas.label_gradient_dtype, namespace)
rounded = partial(formulas.rounded, namespace)
times = partial(formulas.times, namespace)
excess = partial(formulas.excess, namespace)
centred = partial(formulas.centred, namespace)
softmax_map = partial(formulas.softmax_map, namespace)
elementwise = partial(formulas.elementwise, namespace)


class Softmax(NamedTuple):
    """The plain options of a softmax loss."""

    axis: int
    sparse: bool
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    temperature: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0


class Sigmoid(NamedTuple):
    """The plain options of a sigmoid loss."""

    label_smoothing: float = 0.0


def summed(x: Tensor) -> Tensor:
    """Return the sum of all elements, in the type of the arithmetic."""
    return x.sum(dtype=wide_dtype(x))


def softmax(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, options: Any
) -> formulas.Softmax:
    """Return the softmax loss of these arrays: its losses, gradients and Hessian product."""
    return formulas.Softmax(namespace, SoftmaxArrays(logits, labels, class_weight, sample_weight), options)


def softmax_divisor(
    rows: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, options: Any
) -> Tensor:
    """Return Σ sᵢ Wᵢ over the unmasked rows, by which a mean divides; `rows` has their shape and device."""
    arrays = SoftmaxArrays(rows, labels, class_weight, sample_weight)
    return summed(formulas.row_weights(namespace, arrays, options, rows))


def sigmoid(
    logits: Tensor, labels: Tensor, pos_weight: Tensor | None, sample_weight: Tensor | None, label_smoothing: float
) -> formulas.Sigmoid:
    """Return the sigmoid loss of these arrays: its losses, gradients and Hessian product."""
    arrays = SigmoidArrays(logits, labels, pos_weight, sample_weight)
    return formulas.Sigmoid(namespace, arrays, Sigmoid(label_smoothing))
