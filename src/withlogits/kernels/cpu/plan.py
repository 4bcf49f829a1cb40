"""What the planned calls of all families share: the kernel with its job, and what is asked of a framework's arrays.

A plan is made from layouts (shape, byte strides, dtype name) and runs on addresses, so it serves every framework. How
an array is allocated, where it lies, and how a number becomes a scalar is asked of a `Memory`, which an adapter offers.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from withlogits.options import Options

from . import compiler, pool
from .job import TotalSpec
from .layout import Layout, Strides, address

SMALL = 12_000  # elements: below, a second thread costs more than it brings, and so does letting other threads in
NONE = ctypes.c_int64(0)
ONE = np.ones(1)
ONE_AT = address(ONE)
Array = Any  # of the framework that a plan is made for


class Memory(Protocol):
    """What an adapter tells about its framework's arrays."""

    behind: int  # where the address stands in what `handle` points to, in bytes; −1 if `handle` is the address

    def address(self, array: Array, /) -> int: ...

    def handle(self, array: Array, /) -> int:
        """What a small kernel is given, where `address` would take Python longer."""

    def strides(self, array: Array, /) -> Strides:
        """In bytes."""

    def layout(self, array: Array, /) -> Layout: ...

    def allocator(self, shape: tuple[int, ...], dtype: str, like: Layout | None = None, /) -> Allocator:
        """What makes uninitialised arrays whose axes lie in memory in the order of those of `like`."""

    def number(self, array: Array, /) -> Any:
        """A result without axes as the framework hands it back."""

    def scalar(self, x: float, dtype: str, /) -> Any:
        """A number as the framework hands it back; infinite beyond the range of the dtype."""

    def cast(self, array: Array, dtype: str, /) -> Array: ...

    def numpy(self, array: Array, /) -> NDArray[Any]:
        """The array for NumPy, without a copy where that is possible."""


class Allocator(NamedTuple):
    """Makes uninitialised arrays of one layout."""

    empty: Callable[[], Array]
    layout: Layout


Outcome: TypeAlias = tuple[Any, Array | None, Array | None]  # a loss and its gradients; None where it was not asked for
# From labels, logits and, if any were planned, weights to a loss and its gradient by the logits
Quick: TypeAlias = Callable[..., tuple[Any, Array | None]]


class Plan(Protocol):
    """What the layouts and options of a loss decide. Arrays go as (labels, logits, *weights)."""

    @property
    def losses(self) -> Allocator: ...

    @property
    def gradients(self) -> Allocator: ...

    @property
    def label_gradients(self) -> Allocator | None: ...

    def evaluate(
        self, arrays: tuple[Array, ...], for_logits: bool, for_labels: bool, out: Array | None = None, /
    ) -> Outcome: ...

    def compute(
        self,
        arrays: tuple[Array, ...],
        losses: Array | None,
        gradient: Array | None,
        label_gradient: Array | None,
        strict: bool = True,
        /,
    ) -> float: ...

    def fill(
        self,
        arrays: tuple[Array, ...],
        gradient: Array | None,
        label_gradient: Array | None,
        scale: float = 1.0,
        strict: bool = True,
        /,
    ) -> None: ...

    def quick(self, for_logits: bool, weights: tuple[Layout | None, ...] = (), /) -> Quick | None: ...

    def small(self, for_logits: bool, weights: tuple[Layout | None, ...] = (), limits: Any = ..., /) -> Any:
        """What runs a small call as a whole (`small_plan.Small`); None if there is no such way."""

    def label_out_of_range(self, labels: Array, sample_weight: Array | None = None, /) -> Exception:
        """What to raise when a kernel has met a label that counts and is no class."""

    def divisor(self, arrays: tuple[Array, ...], /) -> float: ...


def loss_dtype(logits: str) -> str:
    """The dtype of a loss."""
    return "float64" if logits == "float64" else "float32"


def label_gradient_dtype(labels: str, logits: str) -> str:
    """The dtype of a gradient of labels; that of integers has the dtype of the loss."""
    return loss_dtype(logits) if labels.startswith(("bool", "int", "uint")) else labels


def by_weights(options: Options, class_weight: bool = False, sample_weight: bool = False) -> bool:
    """Whether a mean divides by a sum of weights, or of what counts, and not by the number of losses."""
    return options.reduction == "mean" and (class_weight or sample_weight or options.ignore_index is not None)


@cache
def _total() -> Callable[[int, int, int], int]:
    return compiler.NUMBERS(compiler.address(TotalSpec()))


def total(at: int, count: int) -> float:
    """The sum of float64 numbers at an address, in the order of `total.py`; it takes the place of the first."""
    _total()(at, 0, count)
    return ctypes.c_double.from_address(at).value


@cache
def heap() -> tuple[int, int]:
    """The addresses of the C library's malloc and free, for scratch that is too large for a thread's stack."""
    library = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
    allocate, release = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (library.malloc, library.free))
    return allocate, release


class Kernel:
    """A compiled kernel with the part of its job that a plan knows.

    `offsets` are those of the blocks that the two levels of a job cannot hold (nearly always one block, at 0).
    """

    __slots__ = ("_all", "_short", "at", "count", "head", "multiple", "offsets", "small", "work")

    def __init__(self, spec: Any, head: bytes, count: int, work: int, multiple: int, offsets: Sequence[Any]) -> None:
        self.at = compiler.address(spec)
        self._short = compiler.SHORT(self.at)
        self._all = ctypes.c_int64(count)  # ctypes takes its own numbers in half the time
        self.multiple, self.work = multiple, work
        self.head, self.count, self.offsets = head, count, offsets
        self.small = work < SMALL

    @property
    def at_once(self) -> bool:
        """Whether it is one small block."""
        return self.small and len(self.offsets) == 1

    def run(self, filled: bytes) -> int:
        """Run on one block; how many labels were out of range."""
        if self.small:
            wrong: int = self._short(self.head + filled, NONE, self._all)
            return wrong
        return pool.run(self.at, self.head + filled, self.count, self.work, self.multiple)

    def run_blocks(self, fill: Callable[..., bytes], slots: tuple[Any, ...], size: int) -> int:
        """Run on every block; how many labels were out of range.

        `slots` begin with the addresses of the arrays that have offsets. Next is where results lie side by side, of
        `size` bytes for each row or block of elements.
        """
        if len(self.offsets) == 1:
            return self.run(fill(*slots))
        arrays = len(self.offsets[0])
        out, *rest = slots[arrays:]
        wrong = 0
        for offsets in self.offsets:
            moved = [at + step for at, step in zip(slots[:arrays], offsets, strict=True)]
            wrong += self.run(fill(*moved, out, *rest))
            out += self.count * size
        return wrong
