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
from withlogits.arguments import FEW
from withlogits.frameworks.torch.formulas import Softmax, label_gradient_dtype, loss_dtype
from withlogits.kernels.cpu import buffers, call, host_sigmoid, host_softmax
from withlogits.kernels.cpu.call import FLOAT64, total
from withlogits.kernels.cpu.layout import address
from withlogits.memo import keep

BYTE = np.dtype(np.uint8)
CPU = torch.device("cpu")  # named in every call that makes a tensor: torch's default device may be another


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

    __slots__ = ("_nbytes", "byte_strides", "dtype", "shape", "strides")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor | None = None) -> None:
        template = torch.empty(shape, dtype=dtype, device="meta")
        if like is not None:
            template = torch.empty_like(torch.empty_strided(shape, like.stride(), dtype=dtype, device="meta"))
        self.shape, self.strides, self.dtype = tuple(shape), template.stride(), dtype
        self._nbytes = template.numel() * template.itemsize
        self.byte_strides = byte_strides(template)

    def tensor(self) -> Tensor:
        if self._nbytes < buffers.SMALLEST:
            return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=CPU)
        flat = torch.from_numpy(buffers.empty((self._nbytes,), BYTE)).view(self.dtype)
        return flat.as_strided(self.shape, self.strides)


class SoftmaxPlan:
    """What the shapes, strides, dtypes and options of a call decide."""

    __slots__ = (
        "_classes", "_kinds", "_options", "_plans", "_rows", "_shape", "count", "few", "gradients", "label_gradients",
        "losses", "options",
    )  # fmt: skip
    factor_dtype = torch.float64

    def __init__(self, logits: Tensor, labels: Tensor, options: Softmax) -> None:
        axis = options.axis
        self._shape = tuple(logits.shape)
        rows = self._shape[:axis] + self._shape[axis + 1 :]
        self._kinds = (KINDS[logits.dtype], byte_strides(logits), KINDS[labels.dtype], byte_strides(labels))
        self._options = (
            options.label_smoothing, options.ignore_index, options.temperature, options.softcap, options.z_loss
        )  # fmt: skip
        self._classes, self.options = self._shape[axis], options
        self._rows, self.count = rows, math.prod(rows)
        self.few = ctypes.c_double * min(self.count, FEW)  # room for the losses of few rows
        self.losses = Room(rows, loss_dtype(logits))
        self.gradients = Room(self._shape, logits.dtype, logits)
        self.label_gradients = None
        if not options.sparse:
            self.label_gradients = Room(self._shape, label_gradient_dtype(labels, logits), logits)
        self._plans: dict[tuple[Any, ...], Any] = {}

    def kernel(
        self,
        loss_kind: Any,
        weighted: bool,
        factor: Tensor | None,
        gradient: tuple[int, ...] | None,
        for_labels: bool,
    ) -> call.Plan:
        """The planned call that makes losses of this kind and gradients with these strides."""
        key = (loss_kind, weighted, None if factor is None else factor.stride(), gradient, for_labels)
        plan = self._plans.get(key)
        if plan is None:
            x_kind, x_strides, z_kind, z_strides = self._kinds
            size = x_kind.itemsize
            h = self.label_gradients if for_labels else None
            plan = host_softmax.plan_of(
                self._shape, self.options.axis, self.options.sparse, "loss", weighted, self._options,
                x_kind, x_strides, z_kind, z_strides,
                None if gradient is None else tuple(step * size for step in gradient),
                None if h is None else KINDS[h.dtype],
                None if h is None else h.byte_strides,
                None if factor is None else byte_strides(factor),
                loss_kind,
            )  # fmt: skip
            keep(self._plans, key, plan)
        return plan

    def run(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        loss: int,
        loss_kind: Any,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
    ) -> None:
        """Fill the losses (at the address `loss`) and the gradients; `factor` are the rows' weights, float64."""
        strides = None if gradient is None else gradient.stride()
        wrong = host_softmax.run_at(
            self.kernel(loss_kind, weight is not None, factor, strides, label_gradient is not None),
            logits.data_ptr(),
            labels.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            0 if label_gradient is None else label_gradient.data_ptr(),
            host_softmax.ONE_AT if factor is None else factor.data_ptr(),
            host_softmax.ONE_AT if weight is None else weight.data_ptr(),
            loss,
            loss_kind.itemsize,
            scale,
            0.0,
        )
        if wrong:
            raise self.label_out_of_range(labels, factor)

    def label_out_of_range(self, labels: Tensor, factor: Tensor | None = None) -> ValueError:
        """What to raise when a kernel has met a label that counts and is no class."""
        ignored = ignored_among(labels, self.options.ignore_index)
        weight = None if factor is None else factor.numpy()
        return arguments.label_out_of_range(labels.numpy(), self._classes, ignored, weight)

    def values(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None = None,
        label_gradient: Tensor | None = None,
    ) -> Tensor:
        """The loss of each row."""
        loss, kind = self.losses.tensor(), KINDS[self.losses.dtype]
        if self.count:
            self.run(logits, labels, weight, factor, loss.data_ptr(), kind, gradient, label_gradient)
        return loss

    def check_range(self, labels: Tensor, factor: Tensor | None) -> None:
        """Raise for a label that counts and is no class."""
        check_range(labels, self._classes, self.options.ignore_index, factor)

    def fill(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
    ) -> Any:
        """Fill the gradients, times `scale`; the losses of the rows, in float64, come along."""
        losses: Any
        if self.count > FEW:
            losses = np.empty(self.count)
            at = address(losses)
        else:
            losses = self.few()
            at = ctypes.addressof(losses)
        if self.count:
            self.run(logits, labels, weight, factor, at, FLOAT64, gradient, label_gradient, scale)
        return losses

    def total(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float,
    ) -> float:
        """Fill the gradients, times `scale`; the sum of the losses."""
        losses = self.fill(logits, labels, weight, factor, gradient, label_gradient, scale)
        return total(losses) if self.count > FEW else sum(losses[:])

    def divisor(self, labels: Tensor, weight: Tensor | None, sample_weight: Tensor | None) -> float:
        """What a mean divides by."""
        ignored = self.options.ignore_index
        if weight is None and sample_weight is None and ignored is None:
            return self.count
        ignored = ignored_among(labels, ignored)
        if (
            self.options.sparse
            and sample_weight is None
            and max(self.count, 0 if weight is None else self._classes) <= FEW
        ):
            few: list[int] = labels.flatten().tolist()
            if weight is None:
                return self.count - few.count(ignored)  # type: ignore[arg-type]
            weights: list[float] = weight.tolist()
            try:
                return sum([weights[y] for y in few if y != ignored])
            except IndexError:
                return 1.0  # the kernel will refuse these labels
        given, read = labels.detach(), None
        if given.dtype == torch.bfloat16:  # which NumPy does not have
            given, read = given.view(torch.int16), _of_bfloat16
        return host_softmax.divisor_of(
            given.numpy(), self.options.axis, self.options.sparse, None if weight is None else weight.numpy(), ignored,
            None if sample_weight is None else sample_weight.numpy(), self._rows, read,
        )  # fmt: skip


def _of_bfloat16(bits: Any) -> Any:
    return np.left_shift(bits, 16, dtype=np.int32).view(np.float32)


def check_range(labels: Tensor, classes: int, ignore_index: int | None, factor: Tensor | None) -> None:
    """Raise for a label that counts and is no class."""
    ignored = ignored_among(labels, ignore_index)
    host_softmax.check_range(labels.numpy(), classes, ignored, None if factor is None else factor.numpy())


def ignored_among(labels: Tensor, ignore_index: int | None) -> int | None:
    """The index as it stands among the labels: signed in the options, and not so in uint64 labels."""
    return ignore_index if ignore_index is None or labels.dtype != torch.uint64 else ignore_index % 2**64


class SigmoidPlan:
    """What the shapes, strides, dtypes and options of a call decide."""

    __slots__ = (
        "_kinds", "_plans", "_shape", "_size", "factor_dtype", "gradients", "label_gradients", "label_smoothing",
        "losses",
    )  # fmt: skip

    def __init__(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> None:
        self._shape, self._size, self.label_smoothing = tuple(logits.shape), logits.numel(), label_smoothing
        self._kinds = (KINDS[logits.dtype], byte_strides(logits), KINDS[labels.dtype], byte_strides(labels))
        self.losses = Room(self._shape, loss_dtype(logits), logits)
        self.factor_dtype = self.losses.dtype
        self.gradients = Room(self._shape, logits.dtype, logits)
        self.label_gradients = Room(self._shape, label_gradient_dtype(labels, logits), logits)
        self._plans: dict[tuple[Any, ...], Any] = {}

    def run(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        loss: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
        alone: bool = False,
    ) -> float:
        """Fill the losses and the gradients, or these `alone`; the sum of the losses if no tensor takes them.

        `weight` (float64) and `factor`, the elements' weights (float32 or float64), have the shape of the logits,
        with any strides; a `weight` of no axis is one number for all.
        """
        if not self._size:
            return 0.0
        number, many = 1.0, None
        if weight is not None:
            if weight.dim():
                many = weight
            else:
                number = weight.item()
        key = (
            alone, weight is None, None if many is None else many.stride(),
            None if factor is None else (factor.dtype, factor.stride()),
            None if loss is None else loss.stride(), None if gradient is None else gradient.stride(),
            None if label_gradient is None else label_gradient.stride(),
        )  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            x_kind, x_strides, z_kind, z_strides = self._kinds
            what = "gradient" if alone else "loss"
            plan = host_sigmoid.plan_of(
                self._shape, what, self.label_smoothing, x_kind, x_strides, z_kind, z_strides,
                None if loss is None else byte_strides(loss), None if gradient is None else byte_strides(gradient),
                None if label_gradient is None else KINDS[label_gradient.dtype],
                None if label_gradient is None else byte_strides(label_gradient),
                "" if weight is None else "one" if many is None else "many",
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
            alone,
        )

    def values(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None = None,
        label_gradient: Tensor | None = None,
    ) -> Tensor:
        """The loss of each element."""
        loss = self.losses.tensor()
        self.run(logits, labels, weight, factor, loss, gradient, label_gradient)
        return loss

    def total(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float,
    ) -> float:
        """Fill the gradients, times `scale`; the sum of the losses."""
        return self.run(logits, labels, weight, factor, None, gradient, label_gradient, scale)

    def fill(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        factor: Tensor | None,
        gradient: Tensor | None,
        label_gradient: Tensor | None,
        scale: float = 1.0,
    ) -> None:
        """Fill the gradients, times `scale`."""
        self.run(logits, labels, weight, factor, None, gradient, label_gradient, scale, alone=True)

    def divisor(self, labels: Tensor, weight: Tensor | None, sample_weight: Tensor | None) -> float:
        """What a mean divides by."""
        return self._size if sample_weight is None else float(sample_weight.sum(dtype=torch.float64))


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
    plan.fill(logits, labels, doubles(class_weight), factor, gradient, label_gradient)
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
    return plan.values(logits, labels, double(pos_weight), weight(sample_weight))


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
    plan.fill(logits, labels, double(pos_weight), weight(factor), gradient, label_gradient)
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
