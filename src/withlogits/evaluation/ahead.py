"""Blocks that are read by a thread of their own while those before them are looked at."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WAITING = 1  # blocks that are read and not yet asked for
LOOK = 0.2  # seconds after which a thread looks whether it is still wanted


def ahead(blocks: Generator[Array], largest: int, dtype: np.dtype[Any]) -> Generator[Array]:
    """The same blocks, each valid until the next is asked for; `largest` is the most elements that one has.

    What goes wrong while reading goes wrong here, at its block. Who does not ask for all of them closes
    this generator, which ends the thread and closes `blocks`.
    """
    rooms: queue.SimpleQueue[Array] = queue.SimpleQueue()
    for _ in range(WAITING + 2):  # one is looked at, and one is being read
        rooms.put(np.empty(largest, dtype))
    full: queue.Queue[tuple[Array, Array] | BaseException | None] = queue.Queue(WAITING + 2)
    wanted = threading.Event()
    wanted.set()

    def read() -> None:
        try:
            for block in blocks:
                room = _next(rooms, wanted)
                if room is None:
                    break
                copy = room[: math.prod(block.shape)].reshape(block.shape, order="F" if _fortran(block) else "C")
                np.copyto(copy, block)
                full.put((copy, room))
            full.put(None)
        except BaseException as error:
            full.put(error)
        finally:
            blocks.close()

    reader = threading.Thread(target=read, name="withlogits-reader", daemon=True)
    reader.start()
    try:
        while True:
            found = full.get()
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            copy, room = found
            yield copy
            rooms.put(room)
    finally:
        wanted.clear()
        reader.join()


def _fortran(block: Array) -> bool:
    return bool(block.flags.f_contiguous and not block.flags.c_contiguous)


def _next(rooms: queue.SimpleQueue[Array], wanted: threading.Event) -> Array | None:
    while wanted.is_set():
        try:
            return rooms.get(timeout=LOOK)
        except queue.Empty:
            continue
    return None
