"""Result arrays from memory that was used before.

The first touch of fresh memory costs more than the mathematics: the system hands it out page by page, zeroed. So the
memory of a large result goes back to a shelf when the last array that uses it dies, and the next result of about that
size takes it from there. The shelf is bounded (`set_recycling_limit`, WITHLOGITS_RECYCLE_BYTES; 0 turns it off); an
array that is alive is never touched, whoever holds it.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections import deque
from typing import Any

import numpy as np

SMALLEST = 1 << 20  # below this the allocator of NumPy is as good
DEFAULT_LIMIT = 512 << 20
WASTE = 1.25  # a block may be this much larger than asked

_shelf: deque[mmap.mmap] = deque()  # appends and pops are atomic: arrays die in any thread, at any time
_limit: int | None = None


def recycling_limit() -> int:
    global _limit
    if _limit is None:
        chosen = os.environ.get("WITHLOGITS_RECYCLE_BYTES", "")
        _limit = int(chosen) if chosen.isdecimal() else DEFAULT_LIMIT
    return _limit


def set_recycling_limit(nbytes: int) -> None:
    """How many bytes of idle result memory may be kept for the next results; 0 keeps none."""
    global _limit
    _limit = nbytes
    _trim()


def _trim() -> None:
    while sum(map(len, [*_shelf])) > recycling_limit():
        try:
            _shelf.popleft()
        except IndexError:
            return


class _Lease(np.ndarray[Any, Any]):
    """The bytes behind a result; results are views of it, so it dies after the last of them."""

    def __del__(self) -> None:
        block: Any = self.base
        if type(block) is mmap.mmap:
            _shelf.append(block)
            _trim()


def _block(nbytes: int) -> mmap.mmap:
    for _ in range(len(_shelf)):
        try:
            block = _shelf.popleft()
        except IndexError:
            break
        if nbytes <= len(block) <= nbytes * WASTE:
            return block
        _shelf.append(block)
    # private: what the system shares by default, parent and child of a fork would both write to
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    block = mmap.mmap(-1, nbytes, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialised C-ordered array."""
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if nbytes < SMALLEST or recycling_limit() < nbytes:
        return np.empty(shape, dtype)
    try:
        block = _block(nbytes)
    except OSError:  # no such mapping to be had: NumPy knows other ways, or how to say that memory is out
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _Lease(nbytes, np.uint8, block))


class Room:
    """Makes uninitialised arrays of one shape, whose axes lie in memory in the order of those of `like`."""

    __slots__ = ("_empty", "_place", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], like: np.ndarray[Any, Any] | None = None) -> None:
        self._shape, self._place = shape, None
        if like is not None and not like.flags.c_contiguous and like.ndim > 1:
            order = sorted(range(like.ndim), key=lambda i: -abs(like.strides[i]))
            self._shape = tuple(shape[i] for i in order)
            self._place = [order.index(i) for i in range(like.ndim)]
        self._empty = np.empty if dtype.itemsize * math.prod(shape) < SMALLEST else empty

    def array(self, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """A new one; of the dtype that was planned for, or an equal one."""
        made = self._empty(self._shape, dtype)
        return made if self._place is None else made.transpose(self._place)
