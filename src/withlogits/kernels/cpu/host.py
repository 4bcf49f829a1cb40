"""The engine protocol on compiled kernels: allocate, describe the arrays in a job, run it, reduce."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from withlogits import arguments

from . import buffers, compiler, pool
from .job import BLOCK, SIGMOID_JOB, SOFTMAX_JOB, TILE, SigmoidSpec, SoftmaxSpec
from .layout import Array, address, two_levels, without

ALONG = 16  # from this many contiguous classes on, lanes lie along them
ONE = np.ones(1)
ONE_AT = address(ONE)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

softmax_kernel = functools.cache(lambda *spec: compiler.address(SoftmaxSpec(*spec)))
sigmoid_kernel = functools.cache(lambda *spec: compiler.address(SigmoidSpec(*spec)))


def softmax_loss(
    logits: Array,
    labels: Array,
    *,
    axis: int,
    sparse: bool,
    class_weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Array | None = None,
    reduction: str = "none",
    wrt: tuple[str, ...] = (),
    out: Array | None = None,
) -> tuple[Any, tuple[Array, ...]]:
    """Softmax cross-entropy and its gradients; the meaning of each argument is that of the public losses."""
    kind = FLOAT64 if logits.dtype == FLOAT64 else FLOAT32
    shape, classes = without(logits.shape, axis), logits.shape[axis]
    mean = reduction == "mean"
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, FLOAT64) if sample_weight.dtype != FLOAT64 else sample_weight
    labels = _known(labels)
    if sparse and out is not None:
        _check_range(labels, classes, ignore_index, sample_weight)
    divisor = _divisor(labels, axis, sparse, class_weight, ignore_index, sample_weight, shape) if mean else 1.0
    arguments_ = (logits, labels, axis, sparse, class_weight, label_smoothing, ignore_index, temperature, softcap, z_loss,
                  sample_weight)  # fmt: skip
    loss = buffers.empty(shape, kind if reduction == "none" else FLOAT64)
    kappa = 0.0
    scale = 1.0 / divisor if divisor else 0.0
    if mean and class_weight is not None and "labels" in wrt and divisor:
        _softmax_job(*arguments_, loss, None, None, 1.0, 0.0)
        kappa = float(np.add.reduce(loss, axis=None)) / divisor
    gradient = label_gradient = None
    if "logits" in wrt:
        gradient = out if out is not None else buffers.empty_like(logits, logits.dtype)
    if "labels" in wrt:
        label_gradient = buffers.empty_like(logits, kind if labels.dtype.kind in "biu" else labels.dtype)
    if loss.size and _softmax_job(*arguments_, loss, gradient, label_gradient, scale, kappa):
        raise arguments.label_out_of_range(labels, classes, ignore_index, sample_weight)
    value: Any = loss
    if reduction != "none":
        total = float(np.add.reduce(loss, axis=None))
        value = kind.type(total * scale if not mean else total / divisor if divisor else 0.0)
    return value, tuple([gradient if name == "logits" else label_gradient for name in wrt])  # type: ignore[misc]


def _softmax_job(
    logits: Array,
    labels: Array,
    axis: int,
    sparse: bool,
    class_weight: Array | None,
    label_smoothing: float,
    ignore_index: int | None,
    temperature: float,
    softcap: float | None,
    z_loss: float,
    sample_weight: Array | None,
    loss: Array,
    gradient: Array | None,
    label_gradient: Array | None,
    scale: float,
    kappa: float,
    result: str = "loss",
) -> int:
    """Run it; how many labels were out of range."""
    classes = logits.shape[axis]
    mode = ("smooth" if label_smoothing else "index") if sparse else "dense" if result == "loss" else "none"
    dense = [array for array in (logits, None if sparse or mode == "none" else labels, gradient, label_gradient)]
    strides = [without(array.strides, axis) if array is not None else (0,) * (logits.ndim - 1) for array in dense]
    if sparse:
        strides[1] = labels.strides
    strides.append((0,) * (logits.ndim - 1) if sample_weight is None else sample_weight.strides)
    outer, inner, steps, offsets = two_levels(without(logits.shape, axis), strides)
    class_steps = [array.strides[axis] if array is not None else 0 for array in dense]
    along = across = True
    for array, class_step, step in zip(dense, class_steps, steps, strict=False):
        if array is not None:
            along &= class_step == array.itemsize or classes == 1
            across &= step[1] == array.itemsize
    layout = "along" if along and classes >= ALONG else "across" if across else "strided"
    transformed = temperature != 1.0 or softcap is not None
    if layout == "strided" and classes <= TILE and mode == "index" and not transformed and logits.dtype != FLOAT64:
        layout = "tiled"
    kernel = softmax_kernel(
        logits.dtype.name,
        mode,
        "" if mode == "none" else labels.dtype.name,
        layout,
        result,
        gradient is not None and result == "loss",
        "" if label_gradient is None else label_gradient.dtype.name,
        class_weight is not None and mode in ("smooth", "dense"),
        transformed,
    )
    starts = [address(a) if a is not None else 0 for a in (logits, labels if mode != "none" else None, *dense[2:])]
    starts.append(ONE_AT if sample_weight is None else address(sample_weight))
    loss_at, item = address(loss), loss.itemsize
    count = outer * inner
    wrong = 0
    for offset in offsets:
        x, z, g, h, s = (start + more for start, more in zip(starts, offset, strict=True))
        block = SOFTMAX_JOB.pack(
            classes, inner, x, *steps[0], class_steps[0], z, *steps[1], class_steps[1],
            g, *steps[2], class_steps[2], h, *steps[3], class_steps[3], s, *steps[4],
            ONE_AT if class_weight is None else address(class_weight), 0 if class_weight is None else 8,
            ignore_index or 0, ignore_index is not None, item == 8, loss_at,
            label_smoothing, 1.0 / temperature, softcap or 0.0, z_loss, scale, kappa,
        )  # fmt: skip
        job = ctypes.create_string_buffer(block, len(block))
        multiple = 1 if layout == "along" else 16
        wrong += pool.run(kernel, ctypes.addressof(job), count, count * classes, multiple)
        loss_at += count * item
    return wrong


def _known(labels: Array) -> Array:
    """Labels of a kind that kernels read; the rest (longdouble) as float64."""
    return labels if labels.dtype.kind in "biu" or labels.dtype.itemsize <= 8 else labels.astype(FLOAT64)


def _check_range(labels: Array, classes: int, ignore_index: int | None, sample_weight: Array | None) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if sample_weight is not None:
        wrong &= sample_weight != 0.0
    if wrong.any():
        raise arguments.label_out_of_range(labels, classes, ignore_index, sample_weight)


def _divisor(
    labels: Array,
    axis: int,
    sparse: bool,
    class_weight: Array | None,
    ignore_index: int | None,
    sample_weight: Array | None,
    shape: tuple[int, ...],
) -> float:
    """Σ sᵢ Wᵢ over the rows that count: what a mean divides by. It needs labels and weights alone."""
    weight: Any = np.ones(()) if sample_weight is None else sample_weight
    if sparse and ignore_index is not None:
        weight = weight * (labels != ignore_index)
    if class_weight is None:
        whole = sample_weight is None and (not sparse or ignore_index is None)
        return float(labels.size if sparse else np.prod(shape)) if whole else float(np.add.reduce(weight, axis=None))
    if sparse:
        mass = class_weight.take(np.clip(labels, 0, len(class_weight) - 1).astype(np.int64))
        return float(np.add.reduce(mass * weight, axis=None))
    rows = np.moveaxis(labels, axis, -1)
    mass = np.zeros(shape)
    step = max(1, 65536 // max(1, rows.shape[-1]))
    flat_weight = np.broadcast_to(weight, shape)
    for index in np.ndindex(*shape[:-1]):
        for start in range(0, shape[-1] if shape else 1, step):
            here = (*index, slice(start, start + step)) if shape else ()
            counted = np.where((flat_weight[here] != 0.0)[..., None], rows[here], 0.0).astype(FLOAT64)
            mass[here] = (counted * class_weight).sum(axis=-1)
    return float(np.add.reduce(mass * weight, axis=None))


def softmax_map(x: Array, *, axis: int, kind: str) -> Array:
    """softmax, log_softmax or logsumexp (which drops the axis), in the dtype of x."""
    wide = FLOAT64 if x.dtype == FLOAT64 else FLOAT32
    rows = buffers.empty(without(x.shape, axis), wide)
    result = None if kind == "logsumexp" else buffers.empty_like(x, x.dtype)
    if x.size:
        _softmax_job(x, x, axis, False, None, 0.0, None, 1.0, None, 0.0, None, rows, result, None, 1.0, 0.0, kind)
    return rows.astype(x.dtype, copy=False) if result is None else result


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
    kind = FLOAT64 if logits.dtype == FLOAT64 else FLOAT32
    labels = _known(labels)
    divisor = 1.0
    if reduction == "mean":
        divisor = float(logits.size) if sample_weight is None else float(np.sum(sample_weight, dtype=FLOAT64))
    loss = buffers.empty_like(logits, kind) if reduction == "none" else None
    gradient = label_gradient = None
    if "logits" in wrt:
        gradient = out if out is not None else buffers.empty_like(logits, logits.dtype)
    if "labels" in wrt:
        label_gradient = buffers.empty_like(logits, kind if labels.dtype.kind in "biu" else labels.dtype)
    total = 0.0
    if logits.size:
        total = _elementwise_job(
            logits, labels, loss, gradient, label_gradient, pos_weight, sample_weight, label_smoothing,
            1.0 / divisor if divisor else 0.0,
        )  # fmt: skip
    value: Any = loss if reduction == "none" else kind.type(total / divisor if divisor else 0.0)
    return value, tuple([gradient if name == "logits" else label_gradient for name in wrt])  # type: ignore[misc]


def elementwise(x: Array, *, kind: str) -> Array:
    """sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    result = buffers.empty_like(x, x.dtype)
    if x.size:
        _elementwise_job(x, None, result, None, None, None, None, 0.0, 1.0, kind)
    return result


def _elementwise_job(
    x: Array,
    labels: Array | None,
    result: Array | None,
    gradient: Array | None,
    label_gradient: Array | None,
    pos_weight: Array | None,
    sample_weight: Array | None,
    smoothing: float,
    scale: float,
    what: str = "loss",
) -> float:
    """Run it; the sum of the losses if no array takes them."""
    many = pos_weight is not None and pos_weight.ndim > 0
    weights = np.broadcast_to(pos_weight, x.shape) if many else None  # type: ignore[arg-type]
    arrays = (x, labels, result, gradient, label_gradient, weights, sample_weight)
    strides = [array.strides if array is not None else (0,) * x.ndim for array in arrays]
    rows, columns, steps, offsets = two_levels(x.shape, strides)
    strided = any(a is not None and step[1] != a.itemsize for a, step in zip(arrays[:5], steps, strict=False))
    kernel = sigmoid_kernel(
        x.dtype.name,
        "" if labels is None else labels.dtype.name,
        what,
        strided and columns > 1,
        "" if pos_weight is None else "many" if many else "one",
        "" if sample_weight is None else sample_weight.dtype.name,
        result is not None,
        gradient is not None,
        "" if label_gradient is None else label_gradient.dtype.name,
    )
    starts = [address(array) if array is not None else 0 for array in arrays]
    count = rows * -(-columns // BLOCK)
    total = 0.0
    number = 1.0 if pos_weight is None or many else float(pos_weight)
    for offset in offsets:
        sums = np.empty(count if result is None else 0)
        places = [
            n for start, more, step in zip(starts, offset, steps, strict=True) for n in (start + more, step[0], step[1])
        ]
        block = SIGMOID_JOB.pack(columns, *places, address(sums), number, smoothing, scale)
        job = ctypes.create_string_buffer(block, len(block))
        pool.run(kernel, ctypes.addressof(job), count, rows * columns)
        total += float(np.add.reduce(sums))
    return total
