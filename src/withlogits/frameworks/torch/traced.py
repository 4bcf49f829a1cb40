"""The losses as operators and torch's own reductions: what every transform of torch understands."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from withlogits.frameworks.torch import formulas
from withlogits.frameworks.torch.formulas import Softmax, summed, wide
from withlogits.frameworks.torch.operators import sigmoid_elements, softmax_rows
from withlogits.frameworks.torch.private import is_tracing

P = ParamSpec("P")
R = TypeVar("R")


def checks_shapes(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function look at shapes under `torch.jit.trace` without torch's warning that they become constants.

    What the losses decide by shapes, a traced graph is made for; the operators in it check the shapes they get.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or not is_tracing():
            return function(*args, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return function(*args, **kwargs)

    return call


def softmax(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    options: Softmax,
    reduction: str,
) -> Tensor:
    """A softmax loss of labels in the form of the operators: indices without the class axis, or the logits' shape."""
    if reduction == "mean" and class_weight is not None and labels.requires_grad:
        labels = wide(labels)  # their gradient has two parts, one through the divisor: added up, and rounded only then
    loss: Tensor = softmax_rows(logits, labels, class_weight, sample_weight, *options)[0]
    if reduction == "none":
        return loss
    divisor = softmax_divisor(loss, labels, class_weight, sample_weight, options) if reduction == "mean" else 1
    return _reduced(loss, divisor)


def softmax_divisor(
    rows: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, options: Softmax
) -> Any:
    """Σ sᵢ Wᵢ over the rows that count: what a mean divides by. Of `rows` the shape and the device are asked."""
    if class_weight is None and sample_weight is None and options.ignore_index is None:
        return rows.numel()
    return formulas.softmax_divisor(rows, labels, class_weight, sample_weight, options)


def sigmoid(
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    reduction: str,
) -> Tensor:
    """A sigmoid loss of labels and weights in the logits' shape."""
    loss: Tensor = sigmoid_elements(logits, labels, pos_weight, sample_weight, label_smoothing)
    if reduction == "none":
        return loss
    return _reduced(loss, sigmoid_divisor(loss, sample_weight) if reduction == "mean" else 1)


def sigmoid_divisor(elements: Tensor, sample_weight: Tensor | None) -> Any:
    return elements.numel() if sample_weight is None else summed(sample_weight)


def _reduced(loss: Tensor, divisor: Any) -> Tensor:
    """The sum over a divisor; of nothing 0."""
    total = summed(loss)
    if isinstance(divisor, Tensor):  # under torch.jit.trace a number of elements is one too
        divisor = wide(divisor)
        total = total / torch.where(divisor == 0.0, 1.0, divisor)
    elif loss.numel():
        total = total / divisor
    return total.to(loss.dtype)
