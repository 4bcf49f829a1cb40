"""Planned calls of the softmax family: losses, their gradients, and the maps softmax, log_softmax and logsumexp.

The passes of a loss: divisor (of a mean) → kernel (losses of rows, and gradients in the same pass) → total → value.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from withlogits import errors, shapes
from withlogits.memo import keep
from withlogits.options import FEW, SoftmaxOptions

from .job import ROW_WEIGHTS_JOB, SOFTMAX_JOB, STREAM, RowWeightsSpec, SoftmaxSpec
from .layout import Layout, Strides, address, broadcast_strides, dense_strides, two_levels, without
from .plan import (
    ONE_AT,
    Array,
    Kernel,
    Memory,
    Outcome,
    Quick,
    by_weights,
    heap,
    label_gradient_dtype,
    loss_dtype,
    total,
)
from .small_plan import FEWEST, Limits, Small, Weights


class Parts(NamedTuple):
    """The arrays of one call of the kernel; None where there is none."""

    logits: Layout
    labels: Layout | None = None
    gradient: Strides | None = None  # of an array like the logits
    label_gradient: Layout | None = None
    sample_weight: Strides | None = None  # of float64, one for each row
    per_class: tuple[str, ...] = ()  # the names of the arrays (C,) of float64
    losses: str = "float64"  # their dtype; they lie side by side


def softmax_kernel(options: SoftmaxOptions, axis: int, result: str, parts: Parts) -> Kernel:
    """The kernel for arrays like these; `result` is "loss" or the name of a map."""
    x, z, h = parts.logits, parts.labels, parts.label_gradient
    classes, nothing, weighted = x.shape[axis], (0,) * (len(x.shape) - 1), "class_weight" in parts.per_class
    labels = (
        "none" if z is None else "dense" if not options.sparse else "smooth" if options.label_smoothing else "index"
    )
    whole = [
        x.strides,
        None if options.sparse or z is None else z.strides,
        parts.gradient,
        None if h is None else h.strides,
    ]
    sizes = [x.itemsize, z.itemsize if z else 0, x.itemsize, h.itemsize if h else 0]
    rows = [without(strides, axis) if strides is not None else nothing for strides in whole]
    if options.sparse and z is not None:
        rows[1] = z.strides
    rows.append(nothing if parts.sample_weight is None else parts.sample_weight)
    outer, inner, steps, offsets = two_levels(without(x.shape, axis), rows)
    class_steps = [strides[axis] if strides is not None else 0 for strides in whole]
    present = [i for i in range(4) if whole[i] is not None]
    spec = SoftmaxSpec(
        x=x.dtype,
        labels=labels,
        z="" if z is None else z.dtype,
        layout="strided",
        result=result,
        gradient=parts.gradient is not None and result == "loss",
        label_gradient="" if h is None else h.dtype,
        weighted=weighted and labels in ("smooth", "dense"),
        transformed=options.temperature != 1.0 or options.softcap is not None or bool(parts.per_class[weighted:]),
        per_class=parts.per_class[weighted:],
    )
    if all(steps[i][1] == sizes[i] for i in present):
        spec = replace(spec, layout="across")
    elif all(class_steps[i] == sizes[i] for i in present):
        spec = replace(spec, layout="tiled" if classes <= spec.short else "along")
    count = outer * inner
    streaming = spec.layout == "along" and count * classes * x.itemsize >= STREAM and steps[2][1] % 64 == 0
    ignored = options.ignore_index
    allocate, release = heap()
    slots: dict[str, float] = {
        "classes": classes,
        "inner": inner,
        "w_class": 8 if weighted else 0,
        "ignore": ignored or 0,
        "has_ignore": ignored is not None,
        "wide": parts.losses == "float64",
        "stream": streaming,
        "allocate": allocate,
        "release": release,
        "smoothing": options.label_smoothing,
        "temperature": options.temperature,
        "inverse_temperature": 1.0 / options.temperature,
        "softcap": options.softcap or 0.0,
        "z_loss": options.z_loss,
    }
    for letter, (outer_step, row_step), class_step in zip("xzghs", steps, (*class_steps, 0), strict=True):
        slots |= {f"{letter}_outer": outer_step, f"{letter}_row": row_step, f"{letter}_class": class_step}
    head = SOFTMAX_JOB.head(slots)
    return Kernel(spec, head, count, count * classes, 1 if spec.layout == "along" else 16, offsets)


def weights_kernel(
    options: SoftmaxOptions, axis: int, logits: Layout, labels: Layout, weighted: bool, sample: Strides | None
) -> Kernel:
    """The kernel of what each row adds to the divisor of a mean, in float64."""
    rows, classes = without(logits.shape, axis), logits.shape[axis]
    z_rows = labels.strides if options.sparse else without(labels.strides, axis)
    steps = [z_rows, (0,) * len(rows) if sample is None else sample]
    outer, inner, (z_steps, s_steps), offsets = two_levels(rows, steps)
    ignored, z_class = options.ignore_index, 0 if options.sparse else labels.strides[axis]
    head = ROW_WEIGHTS_JOB.plan(classes, inner, *z_steps, z_class, *s_steps, ignored or 0, ignored is not None)
    spec = RowWeightsSpec(labels.dtype, options.sparse, weighted)
    work = outer * inner * (classes if weighted and not options.sparse else 1)
    return Kernel(spec, head, outer * inner, work, 1, offsets)


def _per_class(arrays: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """The arrays of classes, in the order of `SoftmaxOptions.PER_CLASS`."""
    return arrays[2], *arrays[4:]


class SoftmaxPlan:
    """What the layouts and options of a loss decide, for the arrays of one framework."""

    __slots__ = (
        "_arrays", "_few", "_kernels", "_label_layout", "_logits", "_memory", "_options", "count", "fit", "gradients",
        "label_gradients", "losses",
    )  # fmt: skip

    def __init__(self, options: SoftmaxOptions, memory: Memory, labels: Layout, logits: Layout) -> None:
        self.fit = fit = shapes.softmax_fit(options, labels.shape, logits.shape, labels.dtype)
        self._options = fit.options
        self._memory, self._logits = memory, logits
        self._label_layout = labels
        if fit.keeps_axis:
            self._label_layout = labels.without(fit.axis)
        elif fit.one_row:
            self._label_layout = labels.broadcast_to(logits.shape)
        self.count = math.prod(fit.loss_shape)
        self._few = ctypes.c_double * min(self.count, FEW)  # memory for the losses of few rows
        self.losses = memory.allocator(fit.loss_shape, loss_dtype(logits.dtype))
        self.gradients = memory.allocator(logits.shape, logits.dtype, logits)
        dtype = label_gradient_dtype(labels.dtype, logits.dtype)
        self.label_gradients = None if options.sparse else memory.allocator(logits.shape, dtype, logits)
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    def evaluate(
        self, arrays: tuple[Array, ...], for_logits: bool, for_labels: bool, out: Array | None = None
    ) -> Outcome:
        """The loss, reduced, with the gradients of the reduced loss; `out` takes that of the logits."""
        labels, _, _, sample_weight, *_ = arrays
        if out is not None and self._options.sparse:
            self._check_range(labels, sample_weight)  # before anything is written into the caller's own memory
        gradient = out if out is not None else self.gradients.empty() if for_logits else None
        label_gradient = self.label_gradients.empty() if for_labels and self.label_gradients is not None else None
        if self._options.reduction == "none":
            losses = self.losses.empty()
            self.compute(arrays, losses, gradient, label_gradient)
            return losses, gradient, label_gradient
        value = self.compute(arrays, None, gradient, label_gradient)
        return self._memory.scalar(value, self.losses.layout.dtype), gradient, label_gradient

    def compute(
        self,
        arrays: tuple[Array, ...],
        losses: Array | None,
        gradient: Array | None,
        label_gradient: Array | None,
        strict: bool = True,
    ) -> float:
        """Fill the losses of rows, or return the reduced one where no array takes them; fill the gradients.

        Unless `strict`, a label out of range costs NaN and has no gradient.
        """
        divisor, kappa = 1.0, 0.0
        if self._options.reduction == "mean":
            divisor = self.divisor(arrays)
            if arrays[2] is not None and divisor and label_gradient is not None:
                # the divisor depends on the labels, so their gradient needs the value first
                kappa = self.total(arrays, None, None) / divisor
        if losses is None:
            scale = 1.0 / divisor if divisor else 0.0
            loss = self.total(arrays, gradient, label_gradient, scale, kappa, strict)
            return loss / divisor if divisor else 0.0
        if self.count:
            at, dtype = self._memory.address(losses), self.losses.layout.dtype
            self._run(arrays, (at, dtype), gradient, label_gradient, 1.0, 0.0, strict)
        return 0.0

    def fill(
        self,
        arrays: tuple[Array, ...],
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float = 1.0,
        strict: bool = True,
    ) -> None:
        """Fill the gradients, times `scale`."""
        self.total(arrays, gradient, label_gradient, scale, 0.0, strict)

    def total(
        self,
        arrays: tuple[Array, ...],
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float = 1.0,
        kappa: float = 0.0,
        strict: bool = True,
    ) -> float:
        """Fill the gradients, times `scale`; the sum of the losses."""
        if not self.count:
            return 0.0
        if self.count > FEW:
            losses = np.empty(self.count)
            self._run(arrays, (address(losses), "float64"), gradient, label_gradient, scale, kappa, strict)
            return total(address(losses), self.count)
        few = self._few()
        self._run(arrays, (ctypes.addressof(few), "float64"), gradient, label_gradient, scale, kappa, strict)
        return total(ctypes.addressof(few), self.count)

    def _run(
        self,
        arrays: tuple[Array, ...],
        losses: tuple[int, str],
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float,
        kappa: float,
        strict: bool,
    ) -> None:
        """Fill the losses (of this address and dtype) and the gradients, times `scale`."""
        loss, loss_kind = losses
        labels, logits, _, sample_weight, *_ = arrays
        address = self._memory.address
        slots = (
            address(logits),
            address(labels),
            0 if gradient is None else address(gradient),
            0 if label_gradient is None else address(label_gradient),
            ONE_AT if sample_weight is None else address(sample_weight),
            loss,
            *[ONE_AT if array is None else address(array) for array in _per_class(arrays)],
            scale,
            kappa,
        )
        kernel = self._kernel(loss_kind, arrays, gradient, label_gradient)
        if kernel.run_blocks(SOFTMAX_JOB.fill, slots, 8 if loss_kind == "float64" else 4) and strict:
            raise self.label_out_of_range(labels, sample_weight)

    def _kernel(
        self, loss_kind: str, arrays: tuple[Array, ...], gradient: Array | None, label_gradient: Array | None
    ) -> Kernel:
        key = (
            loss_kind, tuple([array is not None for array in _per_class(arrays)]), self._row_strides(arrays[3]),
            None if gradient is None else self._memory.strides(gradient), label_gradient is not None,
        )  # fmt: skip
        return self._kernels.get(key) or keep(self._kernels, key, self._new_kernel(*key))

    def _new_kernel(
        self,
        loss_kind: str,
        given: tuple[bool, ...],
        sample: Strides | None,
        gradient: Strides | None,
        for_labels: bool,
    ) -> Kernel:
        fit, h = self.fit, self.label_gradients
        label_gradient = h.layout if for_labels and h is not None else None
        per_class = tuple(name for name, is_given in zip(SoftmaxOptions.PER_CLASS, given, strict=True) if is_given)
        parts = Parts(self._logits, self._label_layout, gradient, label_gradient, sample, per_class, loss_kind)
        return softmax_kernel(self._options, fit.axis, "loss", parts)

    def quick(self, for_logits: bool, weights: tuple[Layout | None, ...] = ()) -> Quick | None:
        """Return a function for the value and the gradient of few rows, with these weights."""
        small = self.small(for_logits, weights)
        return None if small is None else small.call(self._memory, self.label_out_of_range)

    def small(self, for_logits: bool, weights: tuple[Layout | None, ...] = (), limits: Limits = FEWEST) -> Small | None:
        """Return what runs a small call for the value and the gradient of few rows, with these weights."""
        options, fit = self._options, self.fit
        if not 0 < self.count <= limits.rows:
            return None
        row_shape = without(self._logits.shape, fit.axis)
        given = dict(zip(SoftmaxOptions.WEIGHTS, weights or (None,) * len(SoftmaxOptions.WEIGHTS), strict=True))
        rows = given["sample_weight"]
        if rows is not None:
            given["sample_weight"] = Layout(row_shape, self._broadcast_rows(rows.shape, rows.strides), rows.dtype)
        found = [Weights.of(layout, limits) for layout in given.values()]
        read = tuple([each for each in found if each is not None])
        if len(read) < len(found):
            return None
        reduced = options.reduction != "none"
        per_class = tuple([given[name] is not None for name in SoftmaxOptions.PER_CLASS])
        sample = None if rows is None else dense_strides(row_shape, 8)
        gradient = self.gradients if for_logits else None
        strides = None if gradient is None else gradient.layout.strides
        dtype = self.losses.layout.dtype
        kernel = self._new_kernel("float64" if reduced else dtype, per_class, sample, strides, False)
        of_rows, weighted = None, given["class_weight"] is not None
        if by_weights(options, weighted, rows is not None):
            of_rows = self._weights_kernel(weighted, sample)
        value = self._memory.allocator((), dtype) if reduced else self.losses
        small = Small("softmax", options, kernel, value, gradient, read, float(self.count), of_rows)
        return small if small.fits(limits) else None

    def label_out_of_range(self, labels: Array, sample_weight: Array | None = None) -> ValueError:
        """What to raise when a kernel has met a label that counts and is no class."""
        return errors.label_out_of_range(*self._for_range(labels, sample_weight))

    def _check_range(self, labels: Array, sample_weight: Array | None) -> None:
        given = self._for_range(labels, sample_weight)
        if errors.wrong_labels(*given).any():
            raise errors.label_out_of_range(*given)

    def _for_range(self, labels: Array, sample_weight: Array | None) -> tuple[Any, ...]:
        read, fit = self._memory.numpy, self.fit
        weight = None if sample_weight is None else np.broadcast_to(read(sample_weight), fit.loss_shape)
        return read(labels), self._logits.shape[fit.axis], fit.ignore_index, weight

    def divisor(self, arrays: tuple[Array, ...]) -> float:
        """Σ sᵢ Wᵢ over the rows that count: what a mean divides by."""
        labels, _, class_weight, sample_weight, *_ = arrays
        if not by_weights(self._options, class_weight is not None, sample_weight is not None) or not self.count:
            return float(self.count)
        weights, memory = np.empty(self.count), self._memory
        kernel = self._weights_kernel(class_weight is not None, self._row_strides(sample_weight))
        slots = (
            memory.address(labels),
            ONE_AT if sample_weight is None else memory.address(sample_weight),
            address(weights),
            ONE_AT if class_weight is None else memory.address(class_weight),
        )
        kernel.run_blocks(ROW_WEIGHTS_JOB.fill, slots, 8)
        return total(address(weights), self.count)

    def _weights_kernel(self, weighted: bool, sample: Strides | None) -> Kernel:
        key = ("weights", weighted, sample)
        return self._kernels.get(key) or keep(
            self._kernels,
            key,
            weights_kernel(self._options, self.fit.axis, self._logits, self._label_layout, weighted, sample),
        )

    def _row_strides(self, sample_weight: Array | None) -> Strides | None:
        """The strides of sample weights from row to row, whatever they broadcast from."""
        if sample_weight is None:
            return None
        return self._broadcast_rows(tuple(sample_weight.shape), self._memory.strides(sample_weight))

    def _broadcast_rows(self, shape: tuple[int, ...], strides: Strides) -> Strides:
        fit = self.fit
        found = broadcast_strides(shape, strides, fit.loss_shape)
        return without(found, fit.axis) if fit.keeps_axis else found


class SoftmaxMap:
    """softmax, log_softmax or logsumexp (which drops the axis) of arrays with one layout."""

    __slots__ = ("_count", "_dtype", "_kernel", "_memory", "_results", "_rows")

    def __init__(self, kind: str, axis: Any, memory: Memory, x: Layout) -> None:
        position = shapes.class_axis(axis, x.shape, "x")
        rows, dtype = without(x.shape, position), loss_dtype(x.dtype)
        self._memory, self._dtype, self._count = memory, x.dtype, math.prod(rows)
        self._rows = np.dtype(dtype)
        alone = kind == "logsumexp"  # the rows' numbers are all there is
        self._results = memory.allocator(rows, dtype) if alone else memory.allocator(x.shape, x.dtype, x)
        self._kernel = None
        if self._count:
            parts = Parts(x, gradient=None if alone else self._results.layout.strides, losses=dtype)
            self._kernel = softmax_kernel(SoftmaxOptions(position, False), position, kind, parts)

    def __call__(self, x: Array) -> Array:
        """The result, in the dtype of x."""
        memory, kernel, result = self._memory, self._kernel, self._results.empty()
        alone = len(result.shape) < len(x.shape)
        if kernel is not None:
            rows = result if alone else np.empty(self._count, self._rows)
            at = memory.address(rows) if alone else address(rows)
            per_class = (ONE_AT,) * len(SoftmaxOptions.PER_CLASS)
            slots = (memory.address(x), 0, 0 if alone else memory.address(result), 0, ONE_AT, at, *per_class, 1.0, 0.0)
            kernel.run_blocks(SOFTMAX_JOB.fill, slots, self._rows.itemsize)
        return memory.cast(result, self._dtype) if alone else result
