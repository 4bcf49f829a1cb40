"""The losses as operators and torch's own reductions: what every transform of torch understands."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from withlogits import formulas
from withlogits.frameworks.torch import namespace
from withlogits.frameworks.torch.families import family_of
from withlogits.frameworks.torch.namespace import wide, wide_dtype
from withlogits.frameworks.torch.operators import LOSSES
from withlogits.frameworks.torch.private import is_compiling, is_tracing
from withlogits.options import Options, SoftmaxOptions, field_values

P = ParamSpec("P")
R = TypeVar("R")


def checks_shapes(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function look at shapes under `torch.jit.trace` without torch's warning that they become constants.

    What the losses decide by shapes, a traced graph is made for; the operators in it check the shapes they get.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_compiling() or not is_tracing():
            return function(*args, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return function(*args, **kwargs)

    return call


def loss(options: Options, labels: Tensor, logits: Tensor, *weights: Tensor | None) -> Tensor:
    """A loss of arguments in the form of the operators: indices without the class axis, weights expanded."""
    entangled = isinstance(options, SoftmaxOptions) and weights[0] is not None
    if options.reduction == "mean" and entangled and labels.requires_grad:
        labels = wide(labels)  # their gradient has two parts, one through the divisor: added up, and rounded only then
    losses: Tensor = LOSSES[family_of(options)](logits, labels, *weights, *field_values(options, without="reduction"))[
        0
    ]
    if options.reduction == "none":
        return losses
    total = _summed(losses)
    if options.reduction == "mean":
        divisor = _divisor(options, losses, labels, *weights)
        if isinstance(divisor, Tensor):  # under torch.jit.trace a number of elements is one too
            divisor = wide(divisor)
            total = total / torch.where(divisor == 0.0, 1.0, divisor)
        elif losses.numel():
            total = total / divisor
    return total.to(losses.dtype)


def _divisor(options: Options, losses: Tensor, labels: Tensor, *weights: Tensor | None) -> Any:
    """What a mean divides by."""
    arrays = family_of(options).arrays(losses, labels, *weights)
    weighing = arrays.sample_weight, getattr(arrays, "class_weight", None)
    if options.ignore_index is None and all(weight is None for weight in weighing):
        return losses.numel()
    return _summed(formulas.row_weights(namespace, arrays, options, losses))


def _summed(x: Tensor) -> Tensor:
    """The sum of all elements, in the type of the arithmetic."""
    return x.sum(dtype=wide_dtype(x))
