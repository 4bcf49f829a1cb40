"""From a planned call to the kernel: small jobs at once, large ones through the pool."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from withlogits.arguments import FEW

from . import compiler, pool

SMALL = 12_000  # elements: below, a second thread costs more than it brings, and so does letting other threads in
NONE = ctypes.c_int64(0)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Dtype(Protocol):
    """What a plan asks of an element type: NumPy's dtypes answer, and so may other libraries'."""

    @property
    def name(self) -> str: ...

    @property
    def itemsize(self) -> int: ...


def loss_dtype(logits: Dtype) -> np.dtype[Any]:
    return FLOAT64 if logits == FLOAT64 else FLOAT32


def known(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels of a kind that kernels read; the rest (longdouble) as float64."""
    return labels if labels.dtype.itemsize <= 8 else labels.astype(FLOAT64)


def label_gradient_dtype(labels: np.dtype[Any], logits: np.dtype[Any]) -> np.dtype[Any]:
    return labels if labels.kind not in "biu" else loss_dtype(logits)


def in_order(wrt: tuple[str, ...], gradient: Any, label_gradient: Any) -> tuple[Any, ...]:
    """The gradients that `wrt` asks for; the others are None."""
    if label_gradient is None:
        return () if gradient is None else (gradient,)
    if gradient is None:
        return (label_gradient,)
    return (gradient, label_gradient) if wrt[0] == "logits" else (label_gradient, gradient)


def total(losses: np.ndarray[Any, Any]) -> float:
    """The sum of float64 losses; infinite or NaN without a word, as IEEE arithmetic has it."""
    if losses.size <= FEW:
        few: list[float] = losses.ravel().tolist()
        return sum(few)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.add.reduce(losses, None))


def scalar(x: float, dtype: np.dtype[Any]) -> Any:
    """A NumPy scalar of this dtype; infinite, without a word, where the dtype ends."""
    if abs(x) > 3.4e38:
        with np.errstate(over="ignore"):
            return dtype.type(x)
    return dtype.type(x)


@cache
def heap() -> tuple[int, int]:
    """The addresses of the C library's malloc and free, for scratch that is too large for a thread's stack."""
    library = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
    allocate, release = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (library.malloc, library.free))
    return allocate, release


class Plan:
    """Everything about a call that shapes, strides, dtypes and options decide; kept for the next such call.

    `offsets` are those of the blocks that the two levels of a job cannot hold (nearly always one block, at 0).
    """

    __slots__ = ("_all", "_alone", "_kernel", "_multiple", "_work", "count", "head", "offsets", "small", "whole")

    def __init__(self, spec: Any, head: bytes, count: int, work: int, multiple: int, offsets: Sequence[Any]) -> None:
        self._kernel = compiler.address(spec)
        self._alone = compiler.SHORT(self._kernel)
        self._all = ctypes.c_int64(count)  # ctypes takes its own numbers in half the time
        self.small = work < SMALL
        self._multiple, self._work = multiple, work
        self.head, self.count, self.offsets = head, count, offsets
        self.whole = len(offsets) == 1

    def run(self, filled: bytes) -> int:
        """How many labels were out of range."""
        if self.small:
            wrong: int = self._alone(self.head + filled, NONE, self._all)
            return wrong
        return pool.run(self._kernel, self.head + filled, self.count, self._work, self._multiple)
