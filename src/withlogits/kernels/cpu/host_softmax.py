"""The softmax half of the engine protocol on compiled kernels: allocate, plan, run, reduce."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from withlogits import arguments
from withlogits.memo import keep

from . import buffers
from .call import FLOAT64, Dtype, Plan, heap, in_order, known, label_gradient_dtype, loss_dtype, scalar, total
from .job import SOFTMAX_JOB, STREAM, SoftmaxSpec
from .layout import Array, Strides, address, two_levels, without

ONE = np.ones(1)
ONE_AT = address(ONE)


def softmax_loss(
    logits: Array,
    labels: Array,
    *,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    out: Array | None = None,
    **options: Any,
) -> tuple[Any, tuple[Array, ...]]:
    """Softmax cross-entropy and its gradients; the meaning of each argument is that of the public losses."""
    labels = known(labels)
    return plan_softmax_loss(logits, labels, **options)(logits, labels, class_weight, sample_weight, out)


def plan_softmax_loss(logits: Array, labels: Array, **options: Any) -> Callable[..., tuple[Any, tuple[Array, ...]]]:
    """The loss of arrays that have the shapes, strides and dtypes of these, as often as it is wanted."""
    return _Loss(logits, labels, **options).run


class _Loss:
    """What shapes, strides, dtypes and options decide about a loss."""

    __slots__ = (
        "_axis", "_classes", "_count", "_gradients", "_ignore", "_kind", "_label_dtype", "_label_gradients", "_losses",
        "_options", "_plans", "_reduction", "_shape", "_sparse", "_total", "_wrt",
    )  # fmt: skip

    def __init__(
        self,
        logits: Array,
        labels: Array,
        *,
        axis: int,
        sparse: bool,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        reduction: str = "none",
        wrt: tuple[str, ...] = (),
    ) -> None:
        self._axis, self._sparse, self._ignore, self._reduction, self._wrt = axis, sparse, ignore_index, reduction, wrt
        self._options = (label_smoothing, ignore_index, temperature, softcap, z_loss)
        self._shape, self._classes = without(logits.shape, axis), logits.shape[axis]
        self._count = float(math.prod(self._shape))
        self._kind = loss_dtype(logits.dtype)
        self._total = self._kind if reduction == "none" else FLOAT64
        self._losses = buffers.Room(self._shape, self._total)
        self._label_dtype = label_gradient_dtype(labels.dtype, logits.dtype)
        self._gradients = buffers.Room(logits.shape, logits.dtype, logits) if "logits" in wrt else None
        self._label_gradients = buffers.Room(logits.shape, self._label_dtype, logits) if "labels" in wrt else None
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def run(
        self,
        logits: Array,
        labels: Array,
        class_weight: Array | None,
        sample_weight: Array | None,
        out: Array | None,
    ) -> tuple[Any, tuple[Array, ...]]:
        loss = self._losses.array(self._total)
        if sample_weight is not None and sample_weight.dtype != FLOAT64:
            sample_weight = sample_weight.astype(FLOAT64)
        if out is not None and self._sparse:
            check_range(labels, self._classes, self._ignore, sample_weight)
        divisor, kappa = 1.0, 0.0
        if self._reduction == "mean":
            divisor = self._count
            if class_weight is not None or sample_weight is not None or self._ignore is not None:
                divisor = divisor_of(
                    labels, self._axis, self._sparse, class_weight, self._ignore, sample_weight, self._shape
                )
            if class_weight is not None and divisor and self._label_gradients is not None:
                # the denominator depends on the labels, so their gradient needs the value first
                self._fill(logits, labels, class_weight, sample_weight, loss, None, None, 1.0, 0.0)
                kappa = total(loss) / divisor
        gradient = label_gradient = None
        if self._gradients is not None:
            gradient = self._gradients.array(logits.dtype) if out is None else out
        if self._label_gradients is not None:
            label_gradient = self._label_gradients.array(self._label_dtype)
        scale = 1.0 / divisor if divisor else 0.0
        if self._count and self._fill(
            logits, labels, class_weight, sample_weight, loss, gradient, label_gradient, scale, kappa
        ):
            raise arguments.label_out_of_range(labels, self._classes, self._ignore, sample_weight)
        value: Any = loss
        if self._reduction != "none":
            value = scalar(total(loss) / divisor if divisor else 0.0, self._kind)
        return value, in_order(self._wrt, gradient, label_gradient)

    def _fill(
        self,
        logits: Array,
        labels: Array,
        class_weight: Array | None,
        sample_weight: Array | None,
        loss: Array,
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float,
        kappa: float,
    ) -> int:
        """How many labels were out of range."""
        key = (
            class_weight is None, None if sample_weight is None else sample_weight.strides,
            None if gradient is None else gradient.strides, label_gradient is None,
        )  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            plan = plan_of(
                logits.shape, self._axis, self._sparse, "loss", class_weight is not None, self._options,
                logits.dtype, logits.strides, labels.dtype, labels.strides,
                None if gradient is None else gradient.strides,
                None if label_gradient is None else label_gradient.dtype,
                None if label_gradient is None else label_gradient.strides,
                None if sample_weight is None else sample_weight.strides,
                loss.dtype,
            )  # fmt: skip
            keep(self._plans, key, plan)
        return _run(plan, logits, labels, class_weight, sample_weight, loss, gradient, label_gradient, scale, kappa)


def softmax_map(x: Array, *, axis: int, kind: str) -> Array:
    """softmax, log_softmax or logsumexp (which drops the axis), in the dtype of x."""
    rows = buffers.empty(without(x.shape, axis), loss_dtype(x.dtype))
    result = None if kind == "logsumexp" else buffers.Room(x.shape, x.dtype, x).array(x.dtype)
    if x.size:
        plan = plan_of(
            x.shape, axis, False, kind, False, (0.0, None, 1.0, None, 0.0), x.dtype, x.strides, None, None,
            None if result is None else result.strides, None, None, None, rows.dtype,
        )  # fmt: skip
        _run(plan, x, None, None, None, rows, result, None, 1.0, 0.0)
    return rows.astype(x.dtype, copy=False) if result is None else result


def _run(
    plan: Plan,
    logits: Array,
    labels: Array | None,
    class_weight: Array | None,
    sample_weight: Array | None,
    loss: Array,
    gradient: Array | None,
    label_gradient: Array | None,
    scale: float,
    kappa: float,
) -> int:
    """How many labels were out of range."""
    return run_at(
        plan,
        address(logits),
        0 if labels is None else address(labels),
        0 if gradient is None else address(gradient),
        0 if label_gradient is None else address(label_gradient),
        ONE_AT if sample_weight is None else address(sample_weight),
        ONE_AT if class_weight is None else address(class_weight),
        address(loss),
        loss.itemsize,
        scale,
        kappa,
    )


def run_at(
    plan: Plan, x: int, z: int, g: int, h: int, s: int, w: int, loss: int, itemsize: int, scale: float, kappa: float
) -> int:
    """A planned call on the arrays at these addresses (see `SOFTMAX_JOB`); how many labels were out of range."""
    if plan.whole:
        return plan.run(SOFTMAX_JOB.fill(x, z, g, h, s, loss, w, scale, kappa))
    wrong = 0
    for dx, dz, dg, dh, ds in plan.offsets:
        wrong += plan.run(SOFTMAX_JOB.fill(x + dx, z + dz, g + dg, h + dh, s + ds, loss, w, scale, kappa))
        loss += plan.count * itemsize
    return wrong


@lru_cache(maxsize=512)
def plan_of(
    shape: tuple[int, ...],
    axis: int,
    sparse: bool,
    result: str,
    weighted: bool,
    options: tuple[Any, ...],
    x_dtype: Dtype,
    x_strides: Strides,
    z_dtype: Dtype | None,
    z_strides: Strides | None,
    g_strides: Strides | None,
    h_dtype: Dtype | None,
    h_strides: Strides | None,
    s_strides: Strides | None,
    loss: Dtype,
) -> Plan:
    """Of a call on arrays with these shapes, strides (in bytes) and dtypes, of which name and itemsize are asked."""
    smoothing, ignore, temperature, softcap, z_loss = options
    classes, nothing = shape[axis], (0,) * (len(shape) - 1)
    labels = "none" if z_dtype is None else "dense" if not sparse else "smooth" if smoothing else "index"
    whole = [x_strides, None if sparse else z_strides, g_strides, h_strides]
    sizes = [x_dtype.itemsize, z_dtype.itemsize if z_dtype else 0, x_dtype.itemsize, h_dtype.itemsize if h_dtype else 0]
    rows = [without(strides, axis) if strides is not None else nothing for strides in whole]
    if sparse and z_strides is not None:
        rows[1] = z_strides
    rows.append(nothing if s_strides is None else s_strides)
    outer, inner, steps, offsets = two_levels(without(shape, axis), rows)
    class_steps = [strides[axis] if strides is not None else 0 for strides in whole]
    present = [i for i in range(4) if whole[i] is not None]
    transformed = temperature != 1.0 or softcap is not None
    spec = SoftmaxSpec(
        x=x_dtype.name,
        labels=labels,
        z="" if z_dtype is None else z_dtype.name,
        layout="strided",
        result=result,
        gradient=g_strides is not None and result == "loss",
        label_gradient="" if h_dtype is None else h_dtype.name,
        weighted=weighted and labels in ("smooth", "dense"),
        transformed=transformed,
    )
    contiguous = all(class_steps[i] == sizes[i] for i in present)
    if all(steps[i][1] == sizes[i] for i in present):
        spec = replace(spec, layout="across")
    elif contiguous:
        spec = replace(spec, layout="tiled" if classes <= spec.short else "along")
    count = outer * inner
    streaming = spec.layout == "along" and count * classes * x_dtype.itemsize >= STREAM and steps[2][1] % 64 == 0
    head = SOFTMAX_JOB.plan(
        classes, inner, *(n for i in range(4) for n in (*steps[i], class_steps[i])), *steps[4],
        8 if weighted else 0, _as_signed(ignore), ignore is not None, loss == FLOAT64, streaming, *heap(),
        smoothing, 1.0 / temperature, softcap or 0.0, z_loss,
    )  # fmt: skip
    return Plan(spec, head, count, count * classes, 1 if spec.layout == "along" else 16, offsets)


def _as_signed(ignore: int | None) -> int:
    """The 64 bits of an index, as the kernels compare them (uint64 labels may have one beyond int64)."""
    return 0 if ignore is None else (ignore + (1 << 63)) % (1 << 64) - (1 << 63)


def _wrong(labels: Array, classes: int, ignore_index: int | None, sample_weight: Array | None) -> Array:
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if sample_weight is not None:
        wrong &= sample_weight != 0.0
    return wrong


def check_range(labels: Array, classes: int, ignore_index: int | None, sample_weight: Array | None) -> None:
    """Before anything is written into the caller's own array."""
    if _wrong(labels, classes, ignore_index, sample_weight).any():
        raise arguments.label_out_of_range(labels, classes, ignore_index, sample_weight)


def divisor_of(
    labels: Array,
    axis: int,
    sparse: bool,
    class_weight: Array | None,
    ignore_index: int | None,
    sample_weight: Array | None,
    shape: tuple[int, ...],
    read: Callable[[Array], Array] | None = None,
) -> float:
    """Σ sᵢ Wᵢ over the rows that count: what a mean divides by. It needs labels and weights alone.

    `read` makes numbers of labels that NumPy has no dtype for.
    """
    counts: Any = sample_weight
    if sparse and ignore_index is not None:
        counts = labels != ignore_index if counts is None else counts * (labels != ignore_index)
    if class_weight is None:
        return float(math.prod(shape) if counts is None else np.add.reduce(counts, None, FLOAT64))
    if sparse:
        mass = class_weight.take(labels.astype(np.int64, copy=False), mode="clip")
        return total(mass if counts is None else mass * counts)
    counts = np.ones(shape) if counts is None else counts
    rows, found = np.moveaxis(labels, axis, -1), 0.0
    step = max(1, 65536 // rows.shape[-1])
    for index in np.ndindex(*shape[:-1]):  # in blocks: labels may be as large as memory
        for start in range(0, shape[-1] if shape else 1, step):
            here = (*index, slice(start, start + step)) if shape else ()
            block = rows[here] if read is None else read(rows[here])
            counted = np.where((counts[here] != 0.0)[..., None], block, 0.0).astype(FLOAT64)
            found += float(np.add.reduce((counted * class_weight).sum(axis=-1) * counts[here], axis=None))
    return found
