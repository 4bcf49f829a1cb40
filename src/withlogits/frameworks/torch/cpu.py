"""The compiled CPU kernels on torch tensors: read where they lie, by address and strides.

No NumPy array is made of a tensor: NumPy has no bfloat16, and the kernels want no more than an address. Large results
come from the shelf of used memory (`kernels.cpu.buffers`), and go back to it when their last tensor dies.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from withlogits import arguments
from withlogits.frameworks.torch.formulas import Softmax, label_gradient_dtype, loss_dtype
from withlogits.kernels.cpu import buffers, host_sigmoid, host_softmax
from withlogits.kernels.cpu.call import FEW, FLOAT64, total
from withlogits.kernels.cpu.layout import address
from withlogits.memo import keep

BYTE = np.dtype(np.uint8)


class Kind(NamedTuple):
    """An element type that NumPy does not have, as plans ask for it."""

    name: str
    itemsize: int


KINDS: dict[torch.dtype, Any] = {
    torch.bfloat16: Kind("bfloat16", 2),
    torch.bool: np.dtype(np.bool_),
    **{
        getattr(torch, name): np.dtype(name)
        for name in (
            "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"
        )
    },
}  # fmt: skip


def byte_strides(tensor: Tensor) -> tuple[int, ...]:
    size = tensor.itemsize
    return tuple(step * size for step in tensor.stride())


class Room:
    """Makes uninitialised tensors of one shape and dtype, laid out as `torch.empty_like` would lay them out."""

    __slots__ = ("_nbytes", "_strides", "byte_strides", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor | None = None) -> None:
        template = torch.empty(shape, dtype=dtype, device="meta")
        if like is not None:
            template = torch.empty_like(torch.empty_strided(shape, like.stride(), dtype=dtype, device="meta"))
        self.shape, self._strides, self.dtype = tuple(shape), template.stride(), dtype
        self._nbytes = template.numel() * template.itemsize
        self.byte_strides = byte_strides(template)

    def tensor(self) -> Tensor:
        if self._nbytes < buffers.SMALLEST:
            return torch.empty_strided(self.shape, self._strides, dtype=self.dtype)
        flat = torch.from_numpy(buffers.empty((self._nbytes,), BYTE)).view(self.dtype)
        return flat.as_strided(self.shape, self._strides)


class SoftmaxPlan:
    """What the shapes, strides, dtypes and options of a call decide."""

    __slots__ = (
        "_classes", "_few", "_kinds", "_options", "_plans", "_shape", "count", "gradients", "label_gradients", "losses",
        "options",
    )  # fmt: skip

    def __init__(self, logits: Tensor, labels: Tensor, options: Softmax) -> None:
        axis = options.axis
        self._shape = tuple(logits.shape)
        rows = self._shape[:axis] + self._shape[axis + 1 :]
        self._kinds = (KINDS[logits.dtype], byte_strides(logits), KINDS[labels.dtype], byte_strides(labels))
        self._options = (
            options.label_smoothing, options.ignore_index, options.temperature, options.softcap, options.z_loss
        )  # fmt: skip
        self._classes, self.count, self.options = self._shape[axis], math.prod(rows), options
        self._few = ctypes.c_double * min(self.count, FEW)
        self.losses = Room(rows, loss_dtype(logits))
        self.gradients = Room(self._shape, logits.dtype, logits)
        self.label_gradients = None
        if not options.sparse:
            self.label_gradients = Room(self._shape, label_gradient_dtype(labels, logits), logits)
        self._plans: dict[tuple[Any, ...], Any] = {}

    def run(
        self,
        logits: Tensor,
        labels: Tensor,
        class_weight: Tensor | None,
        factor: Tensor | None,
        loss: int,
        loss_kind: Any,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
    ) -> None:
        """Fill the losses (at the address `loss`) and the gradients; `factor` are the rows' weights, float64."""
        key = (
            loss_kind, class_weight is None, None if factor is None else factor.stride(),
            None if gradient is None else gradient.stride(), label_gradient is None,
        )  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            x_kind, x_strides, z_kind, z_strides = self._kinds
            plan = host_softmax.plan_of(
                self._shape, self.options.axis, self.options.sparse, "loss", class_weight is not None, self._options,
                x_kind, x_strides, z_kind, z_strides,
                None if gradient is None else byte_strides(gradient),
                None if label_gradient is None else KINDS[label_gradient.dtype],
                None if label_gradient is None else byte_strides(label_gradient),
                None if factor is None else byte_strides(factor),
                loss_kind,
            )  # fmt: skip
            keep(self._plans, key, plan)
        wrong = host_softmax.run_at(
            plan,
            logits.data_ptr(),
            labels.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            0 if label_gradient is None else label_gradient.data_ptr(),
            host_softmax.ONE_AT if factor is None else factor.data_ptr(),
            host_softmax.ONE_AT if class_weight is None else class_weight.data_ptr(),
            loss,
            loss_kind.itemsize,
            scale,
            0.0,
        )
        if wrong:
            ignored = ignored_among(labels, self.options.ignore_index)
            raise arguments.label_out_of_range(
                labels.numpy(), self._classes, ignored, None if factor is None else factor.numpy()
            )

    def values(
        self,
        logits: Tensor,
        labels: Tensor,
        class_weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None = None,
        label_gradient: Tensor | None = None,
    ) -> Tensor:
        """The loss of each row."""
        loss, kind = self.losses.tensor(), KINDS[self.losses.dtype]
        if self.count:
            self.run(logits, labels, class_weight, factor, loss.data_ptr(), kind, gradient, label_gradient)
        return loss

    def check_range(self, labels: Tensor, factor: Tensor | None) -> None:
        """Raise for a label that counts and is no class."""
        check_range(labels, self._classes, self.options.ignore_index, factor)

    def total(
        self,
        logits: Tensor,
        labels: Tensor,
        class_weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float,
    ) -> float:
        """The sum of the losses; `scale` is for their gradients alone."""
        if self.count > FEW:
            losses = np.empty(self.count)
            at = address(losses)
            self.run(logits, labels, class_weight, factor, at, FLOAT64, gradient, label_gradient, scale)
            return total(losses)
        if not self.count:
            return 0.0
        few = self._few()
        at = ctypes.addressof(few)
        self.run(logits, labels, class_weight, factor, at, FLOAT64, gradient, label_gradient, scale)
        return sum(few)


def check_range(labels: Tensor, classes: int, ignore_index: int | None, factor: Tensor | None) -> None:
    """Raise for a label that counts and is no class."""
    ignored = ignored_among(labels, ignore_index)
    host_softmax.check_range(labels.numpy(), classes, ignored, None if factor is None else factor.numpy())


def ignored_among(labels: Tensor, ignore_index: int | None) -> int | None:
    """The index as it stands among the labels: signed in the options, and not so in uint64 labels."""
    return ignore_index if ignore_index is None or labels.dtype != torch.uint64 else ignore_index % 2**64


class SigmoidPlan:
    """What the shapes, strides, dtypes and options of a call decide."""

    __slots__ = ("_kinds", "_plans", "_shape", "_size", "gradients", "label_gradients", "label_smoothing", "losses")

    def __init__(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> None:
        self._shape, self._size, self.label_smoothing = tuple(logits.shape), logits.numel(), label_smoothing
        self._kinds = (KINDS[logits.dtype], byte_strides(logits), KINDS[labels.dtype], byte_strides(labels))
        self.losses = Room(self._shape, loss_dtype(logits), logits)
        self.gradients = Room(self._shape, logits.dtype, logits)
        self.label_gradients = Room(self._shape, label_gradient_dtype(labels, logits), logits)
        self._plans: dict[tuple[Any, ...], Any] = {}

    def run(
        self,
        logits: Tensor,
        labels: Tensor,
        pos_weight: Tensor | None,
        factor: Tensor | None,
        loss: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
    ) -> float:
        """Fill the losses and the gradients; the sum of the losses if no tensor takes them.

        `pos_weight` (float64) and `factor`, the elements' weights (float32 or float64), have the shape of the logits,
        with any strides; a `pos_weight` of no axis is one number for all.
        """
        if not self._size:
            return 0.0
        number, many = 1.0, None
        if pos_weight is not None:
            if pos_weight.dim():
                many = pos_weight
            else:
                number = pos_weight.item()
        key = (
            pos_weight is None, None if many is None else many.stride(),
            None if factor is None else (factor.dtype, factor.stride()),
            None if loss is None else loss.stride(), None if gradient is None else gradient.stride(),
            None if label_gradient is None else label_gradient.stride(),
        )  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            x_kind, x_strides, z_kind, z_strides = self._kinds
            plan = host_sigmoid.plan_of(
                self._shape, "loss", self.label_smoothing, x_kind, x_strides, z_kind, z_strides,
                None if loss is None else byte_strides(loss), None if gradient is None else byte_strides(gradient),
                None if label_gradient is None else KINDS[label_gradient.dtype],
                None if label_gradient is None else byte_strides(label_gradient),
                "" if pos_weight is None else "one" if many is None else "many",
                None if many is None else byte_strides(many),
                None if factor is None else KINDS[factor.dtype],
                None if factor is None else byte_strides(factor),
            )  # fmt: skip
            keep(self._plans, key, plan)
        return host_sigmoid.run_at(
            plan,
            logits.data_ptr(),
            labels.data_ptr(),
            0 if loss is None else loss.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            0 if label_gradient is None else label_gradient.data_ptr(),
            0 if many is None else many.data_ptr(),
            0 if factor is None else factor.data_ptr(),
            number,
            scale,
        )


_softmax_plans: dict[tuple[Any, ...], SoftmaxPlan] = {}
_sigmoid_plans: dict[tuple[Any, ...], SigmoidPlan] = {}


def kind_of(logits: Tensor, labels: Tensor) -> tuple[Any, ...]:
    """What of two tensors a plan depends on."""
    return logits.shape, logits.stride(), logits.dtype, labels.shape, labels.stride(), labels.dtype


def softmax_plan(logits: Tensor, labels: Tensor, options: Softmax) -> SoftmaxPlan:
    key = (options, *kind_of(logits, labels))
    return _softmax_plans.get(key) or keep(_softmax_plans, key, SoftmaxPlan(logits, labels, options))


def sigmoid_plan(logits: Tensor, labels: Tensor, label_smoothing: float) -> SigmoidPlan:
    key = (label_smoothing, *kind_of(logits, labels))
    return _sigmoid_plans.get(key) or keep(_sigmoid_plans, key, SigmoidPlan(logits, labels, label_smoothing))


# ------------------------------------------------------------------------------------- the operators, on these plans


def softmax_rows(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    """The losses of the rows, and nothing to keep for the gradient."""
    plan = softmax_plan(logits, labels, Softmax(*options))
    return plan.values(logits, labels, doubles(class_weight), double(sample_weight)), logits.new_empty(0)


def softmax_rows_backward(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """The gradients, each empty where it is not asked for."""
    *options, for_logits, for_labels = rest
    plan = softmax_plan(logits, labels, Softmax(*options))
    gradient = plan.gradients.tensor() if for_logits else None
    label_gradient = plan.label_gradients.tensor() if for_labels and plan.label_gradients is not None else None
    factor = share(upstream, sample_weight, torch.float64)
    plan.total(logits, labels, doubles(class_weight), factor, gradient, label_gradient, 1.0)
    return or_nothing((gradient, label_gradient), logits)


def sigmoid_elements(
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """The losses of the elements."""
    plan = sigmoid_plan(logits, labels, label_smoothing)
    loss = plan.losses.tensor()
    plan.run(logits, labels, double(pos_weight), weight(sample_weight), loss, None, None)
    return loss


def sigmoid_elements_backward(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    for_logits: bool,
    for_labels: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients, each empty where it is not asked for."""
    plan = sigmoid_plan(logits, labels, label_smoothing)
    gradient = plan.gradients.tensor() if for_logits else None
    label_gradient = plan.label_gradients.tensor() if for_labels else None
    factor = share(upstream, sample_weight, upstream.dtype)
    plan.run(logits, labels, double(pos_weight), weight(factor), None, gradient, label_gradient)
    return or_nothing((gradient, label_gradient), logits)


def or_nothing(pair: tuple[Tensor | None, Tensor | None], like: Tensor) -> tuple[Tensor, Tensor]:
    """Operators return tensors: an empty one stands for a gradient that was not asked for."""
    first, second = pair
    return like.new_empty(0) if first is None else first, like.new_empty(0) if second is None else second


def share(upstream: Tensor, sample_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What the gradient of each loss is multiplied by."""
    upstream = upstream.to(dtype)
    return upstream if sample_weight is None else upstream * sample_weight


def double(x: Tensor | None) -> Tensor | None:
    """As float64, with any strides."""
    return x if x is None else x.to(torch.float64)


def doubles(x: Tensor | None) -> Tensor | None:
    """As float64, side by side."""
    return x if x is None else x.to(torch.float64).contiguous()


def weight(x: Tensor | None) -> Tensor | None:
    """As the elementwise kernels take weights: float32 or float64."""
    return x if x is None or x.dtype in (torch.float32, torch.float64) else x.to(torch.float64)


def elementwise(x: Tensor, kind: str) -> Tensor:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    room = Room(tuple(x.shape), x.dtype, x)
    result = room.tensor()
    if x.numel():
        plan = host_sigmoid.plan_of(
            tuple(x.shape), kind, 0.0, KINDS[x.dtype], byte_strides(x), None, None, room.byte_strides, None, None, None,
            "", None, None, None,
        )  # fmt: skip
        host_sigmoid.run_at(plan, x.data_ptr(), 0, result.data_ptr(), 0, 0, 0, 0, 1.0, 1.0)
    return result


def softmax_map(x: Tensor, axis: int, kind: str) -> Tensor:
    """softmax, log_softmax or logsumexp (which drops the axis)."""
    shape = tuple(x.shape)
    rows = Room(shape[:axis] + shape[axis + 1 :], loss_dtype(x)).tensor()
    room = None if kind == "logsumexp" else Room(shape, x.dtype, x)
    result = None if room is None else room.tensor()
    if x.numel():
        plan = host_softmax.plan_of(
            shape, axis, False, kind, False, (0.0, None, 1.0, None, 0.0), KINDS[x.dtype], byte_strides(x), None, None,
            None if room is None else room.byte_strides, None, None, None, KINDS[rows.dtype],
        )  # fmt: skip
        one = host_softmax.ONE_AT
        out = 0 if result is None else result.data_ptr()
        host_softmax.run_at(plan, x.data_ptr(), 0, out, 0, one, one, rows.data_ptr(), rows.itemsize, 1.0, 0.0)
    return rows.to(x.dtype) if result is None else result
