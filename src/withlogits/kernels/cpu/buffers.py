"""Allocate result arrays from recycled memory.

The first touch of fresh memory costs more than the mathematics: the system hands it out page by page, zeroed. So the
memory of a large result goes to a free list when the last array that uses it is deleted, and the next result of about
that size takes it from there. The free list is bounded (`set_recycling_limit`, WITHLOGITS_RECYCLE_BYTES; 0 turns it
off). Memory of a live array is never reused.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

SMALLEST = 1 << 20  # below this the allocator of NumPy is as good
DEFAULT_LIMIT = 512 << 20
WASTE = 1.25  # a block may be this much larger than asked

_free: deque[mmap.mmap] = deque()  # appends and pops are atomic: arrays die in any thread, at any time
_limit: int | None = None


def recycling_limit() -> int:
    """Return how many bytes of idle result memory may be kept."""
    global _limit
    if _limit is None:
        chosen = os.environ.get("WITHLOGITS_RECYCLE_BYTES", "")
        _limit = int(chosen) if chosen.isdecimal() else DEFAULT_LIMIT
    return _limit


def set_recycling_limit(nbytes: int) -> None:
    """Set how many bytes of idle result memory may be kept for the next results; 0 keeps none."""
    global _limit
    _limit = nbytes
    _trim()


def _trim() -> None:
    while sum(map(len, [*_free])) > recycling_limit():
        try:
            _free.popleft()
        except IndexError:
            return


class _Lease(np.ndarray[Any, Any]):
    """The bytes behind a result; results are views of it, so it is deleted after the last of them."""

    # Defaults, since at interpreter exit the globals of this module may be None already.
    def __del__(self, kind: type[mmap.mmap] = mmap.mmap, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        block: Any = self.base
        if type(block) is kind and not is_finalizing():
            _free.append(block)
            _trim()


def _block(nbytes: int) -> mmap.mmap:
    for _ in range(len(_free)):
        try:
            block = _free.popleft()
        except IndexError:
            break
        if nbytes <= len(block) <= nbytes * WASTE:
            return block
        _free.append(block)
    # private: what the system shares by default, parent and child of a fork would both write to
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    block = mmap.mmap(-1, nbytes, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def advise_large_pages(at: int, nbytes: int) -> None:
    """Ask for large pages behind fresh memory of somebody else's, which are handed out in a fraction of the time."""
    if nbytes < SMALLEST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    start = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (at + nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)  # or it stays as it is


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an uninitialised C-ordered array."""
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if nbytes < SMALLEST or recycling_limit() < nbytes:
        return np.empty(shape, dtype)
    try:
        block = _block(nbytes)
    except OSError:  # no such mapping: NumPy knows other ways, or raises MemoryError
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _Lease(nbytes, np.uint8, block))
