"""Planned calls for few elements, where finding the way takes Python longer than the arithmetic takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from withlogits.options import FEW, RANGES, SoftmaxOptions

from . import compiler
from .job import ROW_WEIGHTS_JOB, SMALL_JOB, SmallSpec
from .plan import NONE, SMALL, Allocator, Array, Kernel, Memory, Quick, heap


class Limits(NamedTuple):
    """What counts as a small call: up to so many rows, and fewer elements than this."""

    rows: int = FEW
    work: int = SMALL


FEWEST = Limits()


class Weights(NamedTuple):
    """How the weights of one name lie in memory."""

    length: int = 0
    size: int = 0  # bytes of one, float32 or float64
    step: int = 0  # bytes from one to the next
    least: float | None = None  # that is allowed; None: what the name says


class Small(NamedTuple):
    """What a small call runs, and what it makes."""

    family: str
    kernel: Kernel
    value: Allocator
    gradient: Allocator | None
    reduced: bool
    divisor: float  # of the value, unless the weights of rows decide
    weights: tuple[Weights, ...] = (Weights(),) * len(SoftmaxOptions.WEIGHTS)
    weights_kernel: Kernel | None = None

    def fits(self, limits: Limits) -> bool:
        """Whether there are few elements, in one block."""
        return len(self.kernel.offsets) == 1 and self.kernel.count <= limits.rows and self.kernel.work < limits.work

    def head(self) -> bytes:
        """Return all of the job but what each call fills."""
        kernel, of_rows = self.kernel, self.weights_kernel
        allocate, release = heap()
        slots: dict[str, float] = {
            "kernel": kernel.at,
            "weights_kernel": 0 if of_rows is None else of_rows.at,
            "count": kernel.count,
            "reduced": self.reduced,
            "wide": self.value.layout.dtype == "float64",
            "allocate": allocate,
            "release": release,
            "divisor": self.divisor,
        }
        for name, weights in zip(SoftmaxOptions.WEIGHTS, self.weights, strict=True):
            least = RANGES.get(name, (0.0, ""))[0] if weights.least is None else weights.least
            slots |= {f"{name}_{what}": number for what, number in weights._replace(least=least)._asdict().items()}
        unused = bytes(8 * len(ROW_WEIGHTS_JOB.planned))
        return kernel.head + (unused if of_rows is None else of_rows.head) + SMALL_JOB.head(slots)

    def call(self, memory: Memory, refused: Callable[[Array, tuple[Array | None, ...]], Exception]) -> Quick:
        """Return the function; `refused` tells what to raise for labels and weights that are not allowed."""
        head, run = self.head(), compiler.SHORT(compiler.address(SmallSpec(self.family)))
        address, new_value, fill = memory.address, self.value.empty, SMALL_JOB.fill
        new_gradient = None if self.gradient is None else self.gradient.empty
        finish = memory.number if self.reduced else None
        without = (0,) * len(SoftmaxOptions.WEIGHTS)

        def call(labels: Array, logits: Array, weights: tuple[Array | None, ...] = ()) -> tuple[Array, Array | None]:
            value, gradient, g, at = new_value(), None, 0, without
            if new_gradient is not None:
                gradient = new_gradient()
                g = address(gradient)
            if weights:
                at = tuple([0 if weight is None else address(weight) for weight in weights])
            if run(head + fill(address(logits), address(labels), g, address(value), *at), NONE, NONE):
                raise refused(labels, weights)
            return value if finish is None else finish(value), gradient

        return call
