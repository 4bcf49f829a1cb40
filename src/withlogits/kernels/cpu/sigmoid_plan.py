"""Planned calls of the elementwise family: the sigmoid loss with its gradients, and sigmoid, softplus, logit, …."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from withlogits import shapes
from withlogits.memo import keep
from withlogits.options import SigmoidOptions

from . import compiler
from .job import BLOCK, SIGMOID_JOB, SMALL_JOBS, STREAM, SigmoidSpec, SmallSpec
from .layout import Layout, address, dense_strides, two_levels
from .plan import Array, Kernel, Memory, Outcome, Quick, by_weights, label_gradient_dtype, loss_dtype, total
from .small_plan import FEWEST, Limits, Small, Weights


class Parts(NamedTuple):
    """The arrays of one call of the kernel, all in one shape; None where there is none."""

    x: Layout
    labels: Layout | None = None
    result: Layout | None = None  # of each element
    gradient: Layout | None = None
    label_gradient: Layout | None = None
    pos_weight: Layout | None = None  # of float64
    sample_weight: Layout | None = None


def sigmoid_kernel(result: str, options: SigmoidOptions, parts: Parts, one_pos_weight: bool = False) -> Kernel:
    """The kernel for arrays like these.

    `result` is "loss" or, of kernels that make no loss, "gradient" or "weights" (what a mean divides by, in the blocks
    of the loss of the same parts, and with its job); or the name of a function of each element.
    """
    x, z, _, g, h, q, s = parts
    zeros = (0,) * len(x.shape)
    rows, columns, steps, offsets = two_levels(x.shape, [zeros if part is None else part.strides for part in parts])
    strided = any(part is not None and steps[i][1] != part.itemsize for i, part in enumerate(parts[:5]))
    ignored = options.ignore_index
    missing = ignored is not None and ignored != ignored
    spec = SigmoidSpec(
        x="" if result == "weights" else x.dtype,
        z="" if z is None else z.dtype,
        result=result,
        ignored="" if ignored is None else "nan" if missing else "number",
        strided=strided and columns > 1,
        q="one" if one_pos_weight else "" if q is None else "many",
        s="" if s is None else s.dtype,
        s_along=s is not None and not strided and steps[6][1] == s.itemsize,
        kept=parts.result is not None,
        gradient=g is not None,
        label_gradient="" if h is None else h.dtype,
        streaming=not strided and rows * columns * x.itemsize >= STREAM,
    )
    if result == "weights":
        spec = replace(spec, q="", kept=False, gradient=False, label_gradient="", streaming=False)
    ignore = 0.0 if ignored is None or missing else float(ignored)
    slots = {"columns": columns, "smoothing": options.label_smoothing, "ignore": ignore}
    for letter, (row_step, column_step) in zip("xzoghqs", steps, strict=True):
        slots |= {f"{letter}_row": row_step, f"{letter}_column": column_step}
    head = SIGMOID_JOB.head(slots)
    return Kernel(spec, head, rows * -(-columns // BLOCK), rows * columns, 1, offsets)


class SigmoidPlan:
    """What the layouts and options of a loss decide, for the arrays of one framework."""

    __slots__ = (
        "_kernels",
        "_labels",
        "_logits",
        "_memory",
        "_options",
        "gradients",
        "label_gradients",
        "losses",
        "size",
    )

    def __init__(self, options: SigmoidOptions, memory: Memory, labels: Layout, logits: Layout) -> None:
        shapes.check_sigmoid_labels(labels.shape, logits.shape)
        self._options, self._memory, self._labels, self._logits = options, memory, labels, logits
        self.size = math.prod(logits.shape)
        self.losses = memory.allocator(logits.shape, loss_dtype(logits.dtype), logits)
        self.gradients = memory.allocator(logits.shape, logits.dtype, logits)
        dtype = label_gradient_dtype(labels.dtype, logits.dtype)
        self.label_gradients = memory.allocator(logits.shape, dtype, logits)
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    def evaluate(
        self, arrays: tuple[Array, ...], for_logits: bool, for_labels: bool, out: Array | None = None
    ) -> Outcome:
        """The loss, reduced, with the gradients of the reduced loss; `out` takes that of the logits."""
        gradient = out if out is not None else self.gradients.empty() if for_logits else None
        label_gradient = self.label_gradients.empty() if for_labels else None
        losses = self.losses.empty() if self._options.reduction == "none" else None
        value: Any = self.compute(arrays, losses, gradient, label_gradient)
        if losses is None:
            losses = self._memory.scalar(value, self.losses.layout.dtype)
        return losses, gradient, label_gradient

    def compute(
        self,
        arrays: tuple[Array, ...],
        losses: Array | None,
        gradient: Array | None,
        label_gradient: Array | None,
        strict: bool = True,
    ) -> float:
        """Fill the losses of elements, or return the reduced one where no array takes them; fill the gradients."""
        divisor = self.divisor(arrays) if self._options.reduction == "mean" else 1.0
        scale = 1.0 / divisor if divisor else 0.0
        loss = self._run(arrays, "loss", losses, gradient, label_gradient, scale)
        return loss / divisor if divisor else 0.0

    def fill(
        self,
        arrays: tuple[Array, ...],
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float = 1.0,
        strict: bool = True,
    ) -> None:
        """Fill the gradients, times `scale`."""
        self._run(arrays, "gradient", None, gradient, label_gradient, scale)

    def divisor(self, arrays: tuple[Array, ...]) -> float:
        """What a mean divides by: the sum of the sample weights of what counts."""
        labels, logits, _, sample_weight = arrays
        if self._options.ignore_index is not None:
            return self._run((labels, logits, None, sample_weight), "weights", None, None, None, 1.0)
        if sample_weight is None:
            return float(self.size)
        weights = self._memory.numpy(sample_weight)
        repeated = self.size / weights.size if weights.size else 0.0  # a weight may stand for many elements
        return float(np.add.reduce(weights, None, np.float64)) * repeated

    def _run(
        self,
        arrays: tuple[Array, ...],
        result: str,
        loss: Array | None,
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float,
    ) -> float:
        """Fill the losses and the gradients; the sum of the losses if no array takes them."""
        if not self.size:
            return 0.0
        labels, logits, pos_weight, sample_weight = arrays
        number, many = 1.0, pos_weight
        if pos_weight is not None and not pos_weight.shape:
            number, many = float(pos_weight), None
        memory = self._memory
        kernel = self._kernel(
            result, pos_weight is not None and many is None, loss, gradient, label_gradient, many, sample_weight
        )
        moving = (logits, labels, loss, gradient, label_gradient, many, sample_weight)
        at = [0 if array is None else memory.address(array) for array in moving]
        if loss is not None or result == "gradient":
            kernel.run_blocks(SIGMOID_JOB.fill, (*at, 0, number, scale), 0)
            return 0.0
        sums = np.empty(kernel.count * len(kernel.offsets))
        kernel.run_blocks(SIGMOID_JOB.fill, (*at, address(sums), number, scale), 8)
        return total(address(sums), sums.size)

    def _kernel(self, result: str, one_pos_weight: bool, *given: Array | None) -> Kernel:
        memory, shape = self._memory, self._logits.shape
        key = (result, one_pos_weight, *[None if a is None else (a.shape, a.dtype, memory.strides(a)) for a in given])
        found = self._kernels.get(key)
        if found is None:
            parts = [None if a is None else memory.layout(a).broadcast_to(shape) for a in given]
            kernel = sigmoid_kernel(result, self._options, Parts(self._logits, self._labels, *parts), one_pos_weight)
            found = keep(self._kernels, key, kernel)
        return found

    def quick(self, for_logits: bool, weights: tuple[Layout | None, ...] = ()) -> Quick | None:
        """Return a function for the value and the gradient of few elements, with these weights."""
        small = self.small(for_logits, weights)
        return None if small is None else small.call(self._memory, self.label_out_of_range)

    def small(self, for_logits: bool, weights: tuple[Layout | None, ...] = (), limits: Limits = FEWEST) -> Small | None:
        """Return what runs a small call for the value and the gradient of few elements, with these weights."""
        pos_weight, sample_weight = weights or (None, None)
        read, of_elements = Weights.of(pos_weight, limits), Weights.of(sample_weight, limits)
        if not self.size or read is None or of_elements is None:
            return None
        gradient, reduced = self.gradients if for_logits else None, self._options.reduction != "none"
        one = pos_weight is not None and read.length == 1
        parts = Parts(
            self._logits,
            self._labels,
            None if reduced else self.losses.layout,
            None if gradient is None else gradient.layout,
            None,
            None if one else self._copied(pos_weight),
            self._copied(sample_weight),
        )
        kernel, weights_kernel = sigmoid_kernel("loss", self._options, parts, one), None
        if by_weights(self._options):
            weights_kernel = sigmoid_kernel("weights", self._options, parts, one)
        value = self._memory.allocator((), self.losses.layout.dtype) if reduced else self.losses
        divisor = -float(self.size) / of_elements.length if of_elements.length else float(self.size)
        if weights_kernel is not None:
            divisor = 1.0
        small = Small("sigmoid", self._options, kernel, value, gradient, (read, of_elements), divisor, weights_kernel)
        return small if small.fits(limits) else None

    def label_out_of_range(self, labels: Array, sample_weight: Array | None = None) -> AssertionError:
        """Labels of this family may have any value."""
        return AssertionError(labels)

    def _copied(self, weights: Layout | None) -> Layout | None:
        """The layout, for all elements, of the float64 copy that a small call makes of weights."""
        if weights is None:
            return None
        copy = Layout(weights.shape, dense_strides(weights.shape, 8), "float64")
        return copy.broadcast_to(self._logits.shape)


def elementwise_map(kind: str, memory: Memory, x: Layout) -> Callable[[Array], Array]:
    """Return sigmoid, log_sigmoid, softplus or logit as a function of arrays with this layout."""
    results = memory.allocator(x.shape, x.dtype, x)
    address, empty = memory.address, results.empty
    if not math.prod(x.shape):
        return lambda x: empty()
    kernel = sigmoid_kernel(kind, SigmoidOptions(), Parts(x, result=results.layout))

    if not kernel.at_once:

        def large(x: Array) -> Array:
            result = empty()
            kernel.run_blocks(SIGMOID_JOB.fill, (address(x), 0, address(result), 0, 0, 0, 0, 0, 1.0, 1.0), 0)
            return result

        return large
    spec, job, handle = SmallSpec("elementwise", memory.behind), SMALL_JOBS["elementwise"], memory.handle
    run, head, fill = compiler.ALONE(compiler.address(spec)), kernel.head + job.plan(kernel.at, kernel.count), job.fill

    def small(x: Array) -> Array:
        result = empty()
        run(head + fill(handle(x), handle(result)))
        return result

    return small
