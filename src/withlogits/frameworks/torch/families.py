"""The two families of losses as the operators see them: their arguments, and the formulas on tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from withlogits import formulas
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.torch import namespace
from withlogits.options import (
    Options,
    SigmoidOptions,
    SoftmaxOptions,
    field_values,
    operator_schema,
    sigmoid_options,
    softmax_options,
)

loss_dtype = partial(formulas.loss_dtype, namespace)
label_gradient_dtype = partial(formulas.label_gradient_dtype, namespace)
rounded = partial(formulas.rounded, namespace)


class Family(NamedTuple):
    """A family of losses: `name(logits, labels, weights, options) -> (losses, row statistics)` and its gradients."""

    name: str
    kind: type[Options]
    loss: Callable[..., Any]
    arrays: Callable[..., Any]
    checked: Callable[[tuple[Any, ...]], Any]  # options from their values

    @property
    def schema(self) -> str:
        """The arguments of the operator."""
        weights = "".join(f"Tensor? {name}, " for name in self.kind.WEIGHTS)
        return f"Tensor logits, Tensor labels, {weights}{operator_schema(self.kind)}"

    @property
    def operands(self) -> int:
        """How many of the operator's arguments are arrays."""
        return 2 + len(self.kind.WEIGHTS)

    def options(self, args: Any) -> Any:
        """The options among an operator's arguments, which no reduction is one of.

        There an index to ignore has 64 signed bits, whatever the labels' dtype.
        """
        options = self.checked((*args[self.operands :], "none"))
        ignored = options.ignore_index if self.kind is SoftmaxOptions else None
        if ignored is not None and ignored < 0 and args[1].dtype == torch.uint64:
            options = self.checked(field_values(replace(options, ignore_index=ignored + 2**64)))
        return options

    def formula(self, args: Any) -> Any:
        """The loss of an operator's arguments by the formulas."""
        return self.loss(namespace, self.arrays(*args[: self.operands]), self.kind(*args[self.operands :]))


SOFTMAX = Family("softmax_rows", SoftmaxOptions, formulas.Softmax, SoftmaxArrays, softmax_options)
SIGMOID = Family("sigmoid_elements", SigmoidOptions, formulas.Sigmoid, SigmoidArrays, sigmoid_options)


def family_of(options: Options) -> Family:
    return SOFTMAX if isinstance(options, SoftmaxOptions) else SIGMOID


def losses_shape(logits: Tensor, options: Any) -> list[int]:
    """The shape of the losses of these logits."""
    axis = getattr(options, "axis", None)
    return [n for i, n in enumerate(logits.shape) if i != axis]
