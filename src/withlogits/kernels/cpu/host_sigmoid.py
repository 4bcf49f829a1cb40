"""The elementwise half of the engine protocol on compiled kernels: allocate, plan, run, reduce."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from withlogits.memo import keep

from . import buffers
from .call import FLOAT64, Dtype, Plan, in_order, known, label_gradient_dtype, loss_dtype, scalar
from .job import BLOCK, SIGMOID_JOB, STREAM, SigmoidSpec
from .layout import Array, Strides, address, two_levels


def sigmoid_loss(
    logits: Array,
    labels: Array,
    *,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    out: Array | None = None,
    **options: Any,
) -> tuple[Any, tuple[Array, ...]]:
    """Sigmoid cross-entropy, element by element, and its gradients."""
    labels = known(labels)
    return plan_sigmoid_loss(logits, labels, **options)(logits, labels, pos_weight, sample_weight, out)


def plan_sigmoid_loss(logits: Array, labels: Array, **options: Any) -> Callable[..., tuple[Any, tuple[Array, ...]]]:
    """The loss of arrays that have the shapes, strides and dtypes of these, as often as it is wanted."""
    return _Loss(logits, labels, **options).run


class _Loss:
    """What shapes, strides, dtypes and options decide about a loss."""

    __slots__ = (
        "_gradients", "_kind", "_label_dtype", "_label_gradients", "_losses", "_plans", "_reduction", "_size",
        "_smoothing", "_wrt",
    )  # fmt: skip

    def __init__(
        self,
        logits: Array,
        labels: Array,
        *,
        label_smoothing: float = 0.0,
        reduction: str = "none",
        wrt: tuple[str, ...] = (),
    ) -> None:
        self._smoothing, self._reduction, self._wrt = label_smoothing, reduction, wrt
        self._size = float(logits.size)
        self._kind = loss_dtype(logits.dtype)
        self._label_dtype = label_gradient_dtype(labels.dtype, logits.dtype)
        self._losses = buffers.Room(logits.shape, self._kind, logits) if reduction == "none" else None
        self._gradients = buffers.Room(logits.shape, logits.dtype, logits) if "logits" in wrt else None
        self._label_gradients = buffers.Room(logits.shape, self._label_dtype, logits) if "labels" in wrt else None
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def run(
        self,
        logits: Array,
        labels: Array,
        pos_weight: Array | None,
        sample_weight: Array | None,
        out: Array | None,
    ) -> tuple[Any, tuple[Array, ...]]:
        divisor = 1.0
        if self._reduction == "mean":
            divisor = self._size if sample_weight is None else float(np.sum(sample_weight, dtype=FLOAT64))
        loss = gradient = label_gradient = None
        if self._losses is not None:
            loss = self._losses.array(self._kind)
        if self._gradients is not None:
            gradient = self._gradients.array(logits.dtype) if out is None else out
        if self._label_gradients is not None:
            label_gradient = self._label_gradients.array(self._label_dtype)
        scale = 1.0 / divisor if divisor else 0.0
        total = 0.0
        if self._size:
            number, weights = 1.0, None
            if pos_weight is not None:
                if pos_weight.ndim == 0:
                    number = pos_weight.item()
                else:
                    weights = np.broadcast_to(pos_weight, logits.shape)
            key = (
                pos_weight is None, None if weights is None else weights.strides,
                None if sample_weight is None else (sample_weight.dtype, sample_weight.strides),
                None if gradient is None else gradient.strides,
            )  # fmt: skip
            plan = self._plans.get(key)
            if plan is None:
                plan = plan_of(
                    logits.shape, "loss", self._smoothing, logits.dtype, logits.strides, labels.dtype, labels.strides,
                    None if loss is None else loss.strides, None if gradient is None else gradient.strides,
                    None if label_gradient is None else label_gradient.dtype,
                    None if label_gradient is None else label_gradient.strides,
                    "" if pos_weight is None else "one" if weights is None else "many",
                    None if weights is None else weights.strides,
                    None if sample_weight is None else sample_weight.dtype,
                    None if sample_weight is None else sample_weight.strides,
                )  # fmt: skip
                keep(self._plans, key, plan)
            total = _run(plan, logits, labels, loss, gradient, label_gradient, weights, sample_weight, number, scale)
        value: Any = loss
        if loss is None:
            value = scalar(total / divisor if divisor else 0.0, self._kind)
        return value, in_order(self._wrt, gradient, label_gradient)


def elementwise(x: Array, *, kind: str) -> Array:
    """sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    return plan_elementwise(x, kind=kind)(x)


def plan_elementwise(x: Array, *, kind: str) -> Callable[[Array], Array]:
    """The function `elementwise` for arrays that have the shape, strides and dtype of x."""
    results = buffers.Room(x.shape, x.dtype, x)
    if not x.size:
        return lambda x: results.array(x.dtype)
    strides = results.array(x.dtype).strides
    plan = plan_of(
        x.shape, kind, 0.0, x.dtype, x.strides, None, None, strides, None, None, None, "", None, None, None
    )  # fmt: skip

    def run(x: Array) -> Array:
        result = results.array(x.dtype)
        _run(plan, x, None, result, None, None, None, None, 1.0, 1.0)
        return result

    return run


def _run(
    plan: Plan,
    logits: Array,
    labels: Array | None,
    result: Array | None,
    gradient: Array | None,
    label_gradient: Array | None,
    weights: Array | None,
    sample_weight: Array | None,
    number: float,
    scale: float,
) -> float:
    """The sum of the losses if no array takes them."""
    return run_at(
        plan,
        address(logits),
        0 if labels is None else address(labels),
        0 if result is None else address(result),
        0 if gradient is None else address(gradient),
        0 if label_gradient is None else address(label_gradient),
        0 if weights is None else address(weights),
        0 if sample_weight is None else address(sample_weight),
        number,
        scale,
    )


def run_at(
    plan: Plan, x: int, z: int, o: int, g: int, h: int, q: int, s: int, number: float, scale: float, alone: bool = False
) -> float:
    """A planned call on the arrays at these addresses (see `SIGMOID_JOB`): the sum of losses that no array takes.

    `alone` are gradients without a loss.
    """
    if (o or alone) and plan.whole:
        plan.run(SIGMOID_JOB.fill(x, z, o, g, h, q, s, 0, number, scale))
        return 0.0
    total = 0.0
    sums = np.zeros(plan.count)
    at = address(sums)
    for dx, dz, do, dg, dh, dq, ds in plan.offsets:
        plan.run(SIGMOID_JOB.fill(x + dx, z + dz, o + do, g + dg, h + dh, q + dq, s + ds, at, number, scale))
        total += float(np.add.reduce(sums)) if plan.count > 1 else sums.item()
    return total


@lru_cache(maxsize=512)
def plan_of(
    shape: tuple[int, ...],
    what: str,  # "loss" or, of kernels that make no loss, "gradient"; or an activation
    smoothing: float,
    x_dtype: Dtype,
    x_strides: Strides,
    z_dtype: Dtype | None,
    z_strides: Strides | None,
    o_strides: Strides | None,
    g_strides: Strides | None,
    h_dtype: Dtype | None,
    h_strides: Strides | None,
    q: str,
    q_strides: Strides | None,
    s_dtype: Dtype | None,
    s_strides: Strides | None,
) -> Plan:
    """Of a call on arrays with these shapes, strides (in bytes) and dtypes, of which name and itemsize are asked."""
    whole = [x_strides, z_strides, o_strides, g_strides, h_strides, q_strides, s_strides]
    o_dtype = loss_dtype(x_dtype) if what == "loss" else x_dtype
    sizes = [x_dtype.itemsize, z_dtype.itemsize if z_dtype else 0, o_dtype.itemsize, x_dtype.itemsize]
    sizes.append(h_dtype.itemsize if h_dtype else 0)
    rows, columns, steps, offsets = two_levels(shape, [s if s is not None else (0,) * len(shape) for s in whole])
    strided = any(whole[i] is not None and steps[i][1] != sizes[i] for i in range(5))
    spec = SigmoidSpec(
        x=x_dtype.name,
        z="" if z_dtype is None else z_dtype.name,
        result=what,
        strided=strided and columns > 1,
        q=q,
        s="" if s_dtype is None else s_dtype.name,
        s_along=s_dtype is not None and not strided and steps[6][1] == s_dtype.itemsize,
        kept=o_strides is not None,
        gradient=g_strides is not None,
        label_gradient="" if h_dtype is None else h_dtype.name,
        streaming=not strided and rows * columns * x_dtype.itemsize >= STREAM,
    )
    head = SIGMOID_JOB.plan(columns, *(n for step in steps for n in step), smoothing)
    return Plan(spec, head, rows * -(-columns // BLOCK), rows * columns, 1, offsets)
