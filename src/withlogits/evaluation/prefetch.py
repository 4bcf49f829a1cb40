"""Read the next blocks on a background thread."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

AHEAD = 2  # blocks: one that waits, and one that is being read


def prefetch(
    blocks: Callable[[Callable[[], Array]], Generator[Array]], largest: int, dtype: np.dtype[Any]
) -> Generator[Array]:
    """Yield the same blocks, each valid until the next is asked for; `largest` is the most elements that one has.

    `blocks` makes their generator, and may ask its argument for a buffer to read the next one into; otherwise that is
    copied. An error while reading is raised here, at its block. A caller that does not take all blocks must close this
    generator, which ends the thread and closes the other.
    """
    buffers = itertools.cycle([np.empty(largest, dtype) for _ in range(AHEAD + 1)])
    lent: list[Array] = []

    def lend() -> Array:
        lent.append(next(buffers))
        return lent[-1]

    found = blocks(lend)

    def read() -> Array | None:
        block = next(found, None)
        if block is not None and not lent:
            fortran = block.flags.f_contiguous and not block.flags.c_contiguous
            copy = next(buffers)[: block.size].reshape(block.shape, order="F" if fortran else "C")
            np.copyto(copy, block)
            block = copy
        lent.clear()
        return block

    with ThreadPoolExecutor(1, "withlogits-reader") as reader:
        reads = deque(reader.submit(read) for _ in range(AHEAD))
        try:
            while (block := reads.popleft().result()) is not None:
                reads.append(reader.submit(read))  # into the buffer of the block before, which nobody reads any more
                yield block
        finally:
            reader.shutdown(cancel_futures=True)
            found.close()
