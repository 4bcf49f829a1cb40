"""Read the next blocks on a background thread."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WAITING = 1  # blocks that are read and not yet asked for
POLL = 0.2  # seconds after which a thread looks whether it is still wanted


class _Unwanted(Exception):
    """Nobody asks for the blocks any more."""


def prefetch(
    blocks: Callable[[Callable[[], Array]], Generator[Array]], largest: int, dtype: np.dtype[Any]
) -> Generator[Array]:
    """Yield the same blocks, each valid until the next is asked for; `largest` is the most elements that one has.

    `blocks` makes their generator, and may ask its argument for a buffer to read the next one into; otherwise that is
    copied. An error while reading is raised here, at its block. A caller that does not take all blocks must close this
    generator, which ends the thread and closes the other.
    """
    buffers: queue.SimpleQueue[Array] = queue.SimpleQueue()
    for _ in range(WAITING + 2):  # one is looked at, and one is being read
        buffers.put(np.empty(largest, dtype))
    full: queue.Queue[tuple[Array, Array] | BaseException | None] = queue.Queue(WAITING + 2)
    wanted = threading.Event()
    wanted.set()
    lent: list[Array] = []

    def lend() -> Array:
        lent.append(_next(buffers, wanted))
        return lent[-1]

    def read() -> None:
        found = blocks(lend)
        try:
            for block in found:
                if lent:
                    full.put((block, lent.pop()))
                    continue
                buffer = _next(buffers, wanted)
                copy = buffer[: math.prod(block.shape)].reshape(block.shape, order="F" if _fortran(block) else "C")
                np.copyto(copy, block)
                full.put((copy, buffer))
            full.put(None)
        except BaseException as error:
            full.put(error)
        finally:
            found.close()

    reader = threading.Thread(target=read, name="withlogits-reader", daemon=True)
    reader.start()
    try:
        while True:
            found = full.get()
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            block, buffer = found
            yield block
            buffers.put(buffer)
    finally:
        wanted.clear()
        reader.join()


def _fortran(block: Array) -> bool:
    return bool(block.flags.f_contiguous and not block.flags.c_contiguous)


def _next(buffers: queue.SimpleQueue[Array], wanted: threading.Event) -> Array:
    while wanted.is_set():
        try:
            return buffers.get(timeout=POLL)
        except queue.Empty:
            continue
    raise _Unwanted
