"""The elementwise half of the engine protocol on compiled kernels: allocate, plan, run, reduce."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from . import buffers
from .call import FLOAT64, Plan, known, loss_dtype
from .job import BLOCK, SIGMOID_JOB, STREAM, SigmoidSpec
from .layout import Array, Strides, address, two_levels


def sigmoid_loss(
    logits: Array,
    labels: Array,
    *,
    pos_weight: Array | None = None,
    label_smoothing: float = 0.0,
    sample_weight: Array | None = None,
    reduction: str = "none",
    wrt: tuple[str, ...] = (),
    out: Array | None = None,
) -> tuple[Any, tuple[Array, ...]]:
    """Sigmoid cross-entropy, element by element, and its gradients."""
    kind = loss_dtype(logits.dtype)
    labels = known(labels)
    loss = buffers.empty_like(logits, kind) if reduction == "none" else None
    divisor = 1.0
    if reduction == "mean":
        divisor = float(logits.size) if sample_weight is None else float(np.sum(sample_weight, dtype=FLOAT64))
    gradient = label_gradient = None
    if wrt:
        if "logits" in wrt:
            gradient = buffers.empty_like(logits, logits.dtype) if out is None else out
        if "labels" in wrt:
            label_gradient = buffers.empty_like(logits, kind if labels.dtype.kind in "biu" else labels.dtype)
    scale = 1.0 / divisor if divisor else 0.0
    total = 0.0
    if logits.size:
        total = _run(
            logits, labels, loss, gradient, label_gradient, pos_weight, sample_weight, label_smoothing, scale, "loss"
        )
    value: Any = kind.type(total / divisor if divisor else 0.0) if loss is None else loss
    if not wrt:
        return value, ()
    return value, tuple([gradient if name == "logits" else label_gradient for name in wrt])  # type: ignore[misc]


def elementwise(x: Array, *, kind: str) -> Array:
    """sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    result = buffers.empty_like(x, x.dtype)
    if x.size:
        _run(x, None, result, None, None, None, None, 0.0, 1.0, kind)
    return result


def _run(
    x: Array,
    labels: Array | None,
    result: Array | None,
    gradient: Array | None,
    label_gradient: Array | None,
    pos_weight: Array | None,
    sample_weight: Array | None,
    smoothing: float,
    scale: float,
    what: str,
) -> float:
    """The sum of the losses if no array takes them."""
    number = 1.0
    weights = None
    if pos_weight is not None:
        if pos_weight.ndim == 0:
            number = float(pos_weight)
        else:
            weights = np.broadcast_to(pos_weight, x.shape)
    plan, offsets = _plan(
        x.shape, what, smoothing, x.dtype, x.strides,
        None if labels is None else labels.dtype, None if labels is None else labels.strides,
        None if result is None else result.strides, None if gradient is None else gradient.strides,
        None if label_gradient is None else label_gradient.dtype,
        None if label_gradient is None else label_gradient.strides,
        "" if pos_weight is None else "one" if weights is None else "many",
        None if weights is None else weights.strides,
        None if sample_weight is None else sample_weight.dtype,
        None if sample_weight is None else sample_weight.strides,
    )  # fmt: skip
    arrays = (x, labels, result, gradient, label_gradient, weights, sample_weight)
    places = [0 if array is None else address(array) for array in arrays]
    if result is not None and len(offsets) == 1:
        plan.run(SIGMOID_JOB.fill(*places, 0, number, scale))
        return 0.0
    total = 0.0
    sums = np.zeros(plan.count)
    for offset in offsets:
        here = [place + more for place, more in zip(places, offset, strict=True)]
        plan.run(SIGMOID_JOB.fill(*here, address(sums), number, scale))
        total += float(np.add.reduce(sums)) if plan.count > 1 else float(sums[0])
    return total


@lru_cache(maxsize=512)
def _plan(
    shape: tuple[int, ...],
    what: str,
    smoothing: float,
    x_dtype: np.dtype[Any],
    x_strides: Strides,
    z_dtype: np.dtype[Any] | None,
    z_strides: Strides | None,
    o_strides: Strides | None,
    g_strides: Strides | None,
    h_dtype: np.dtype[Any] | None,
    h_strides: Strides | None,
    q: str,
    q_strides: Strides | None,
    s_dtype: np.dtype[Any] | None,
    s_strides: Strides | None,
) -> tuple[Plan, list[list[int]]]:
    whole = [x_strides, z_strides, o_strides, g_strides, h_strides, q_strides, s_strides]
    o_dtype = x_dtype if what != "loss" else loss_dtype(x_dtype)
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
        kept=o_strides is not None,
        gradient=g_strides is not None,
        label_gradient="" if h_dtype is None else h_dtype.name,
        streaming=not strided and rows * columns * x_dtype.itemsize >= STREAM,
    )
    head = SIGMOID_JOB.plan(columns, *(n for step in steps for n in step), smoothing)
    return Plan(spec, head, rows * -(-columns // BLOCK), rows * columns, 1, offsets), offsets
