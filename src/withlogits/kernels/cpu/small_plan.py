"""Planned calls for few elements, where finding the way takes Python longer than the arithmetic takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from withlogits.options import FEW, RANGES, Options, check_weight_values

from . import compiler
from .job import FEW_WEIGHTS, ROW_WEIGHTS_JOB, SMALL_JOBS, SmallSpec
from .layout import Layout, merged
from .plan import SMALL, Allocator, Array, Kernel, Memory, Quick, heap


class Limits(NamedTuple):
    """What counts as a small call: up to so many rows, fewer elements than this, up to so many weights of a name."""

    rows: int = FEW
    work: int = SMALL
    weights: int = FEW_WEIGHTS


FEWEST = Limits()


class Weights(NamedTuple):
    """How the weights of one name lie in memory."""

    length: int = 0
    size: int = 0  # bytes of one, float32 or float64
    step: int = 0  # bytes from one to the next
    least: float | None = None  # that is allowed; None: what the name says

    @classmethod
    def of(cls, layout: Layout | None, limits: Limits) -> Weights | None:
        """Return how a small call reads these weights; None if it does not."""
        if layout is None:
            return cls()
        length = math.prod(layout.shape)
        sizes, steps = merged(layout.shape, [layout.strides])
        if layout.dtype not in ("float32", "float64") or len(sizes) > 1 or length > limits.weights:
            return None
        return cls(length, layout.itemsize, steps[0][0] if sizes else 0)


class Small(NamedTuple):
    """What a small call runs, and what it makes."""

    family: str
    options: Options
    kernel: Kernel
    value: Allocator
    gradient: Allocator | None
    weights: tuple[Weights, ...]
    divisor: float  # of a mean: see `SMALL_JOBS`
    weights_kernel: Kernel | None = None

    def fits(self, limits: Limits) -> bool:
        """Whether there are few elements, in one block."""
        return len(self.kernel.offsets) == 1 and self.kernel.count <= limits.rows and self.kernel.work < limits.work

    def head(self) -> bytes:
        """Return all of the job but what each call fills."""
        kernel, of_rows, reduction = self.kernel, self.weights_kernel, self.options.reduction
        allocate, release = heap()
        slots: dict[str, float] = {
            "kernel": kernel.at,
            "weights_kernel": 0 if of_rows is None else of_rows.at,
            "count": kernel.count,
            "reduced": reduction != "none",
            "wide": self.value.layout.dtype == "float64",
            "allocate": allocate,
            "release": release,
            "divisor": self.divisor if reduction == "mean" else 1.0,
        }
        for name, weights in zip(self.options.WEIGHTS, self.weights, strict=True):
            least = RANGES.get(name, (0.0, ""))[0] if weights.least is None else weights.least
            slots |= {f"{name}_{what}": number for what, number in weights._replace(least=least)._asdict().items()}
        second = bytes(8 * len(ROW_WEIGHTS_JOB.planned)) if of_rows is None else of_rows.head
        return kernel.head + (second if self.family == "softmax" else b"") + SMALL_JOBS[self.family].head(slots)

    def call(self, memory: Memory, out_of_range: Callable[[Array, Any], Exception]) -> Quick:
        """Return the function; `out_of_range` makes an error of labels and sample weights, for a label that is."""
        head, run = self.head(), compiler.ALONE(compiler.address(SmallSpec(self.family, memory.behind)))
        handle, new_value, fill = memory.handle, self.value.empty, SMALL_JOBS[self.family].fill
        new_gradient = None if self.gradient is None else self.gradient.empty
        finish = None if self.options.reduction == "none" else memory.number
        names = self.options.WEIGHTS
        without = (0,) * len(names)

        def refused(labels: Array, weights: tuple[Array | None, ...]) -> Exception:
            for name, weight in zip(names, weights, strict=False):
                if weight is not None:
                    check_weight_values(name, memory.numpy(weight))
            return out_of_range(labels, weights[1] if weights else None)

        def call(labels: Array, logits: Array, weights: tuple[Array | None, ...] = ()) -> tuple[Array, Array | None]:
            value, gradient, g, at = new_value(), None, 0, without
            if new_gradient is not None:
                gradient = new_gradient()
                g = handle(gradient)
            if weights:
                at = tuple([0 if weight is None else handle(weight) for weight in weights])
            if run(head + fill(handle(logits), handle(labels), g, handle(value), *at)):
                raise refused(labels, weights)
            return value if finish is None else finish(value), gradient

        return call
