"""How fast this machine reads and copies memory, with as many threads as the losses use."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BYTES = 262_144_000  # 2048 × 32,000 float32: the size of the largest case, and of 64,000 pages
LINE = 64
PAGE = 4096
TOGETHER = 4


def measure(threads: int, seconds: float = 3.0) -> dict[str, float]:
    """GB/s (1e9 bytes) of reading and of copying: the best pass of several. Copying counts both ways.

    Reading alone has no function in NumPy, so it is the faster of two reductions that run as SIMD code (a maximum, a
    bitwise or): two cores take longer to load the numbers than to reduce them.
    Copying is measured twice, into a buffer used before (no page faults): `np.copyto`, whose ordinary stores first
    fetch the line that they overwrite, so that three bytes travel for two that count; and with streaming stores, which
    do not, four pages side by side, which keeps more of the memory busy (that is how a large memcpy of glibc goes).
    Shares of the copy bandwidth are shares of the faster one: the most that the machine can do.
    """
    source = _aligned(BYTES)
    target = _aligned(BYTES)
    floats, integers = source.view(np.float32), source.view(np.int64)
    block = TOGETHER * PAGE
    edges = [BYTES // block * i // threads * block for i in range(threads + 1)]
    parts = list(itertools.pairwise(edges))

    def slices(size: int) -> list[slice]:
        return [slice(begin // size, end // size) for begin, end in parts]

    by_copyto = [(target[part], source[part]) for part in slices(1)]
    copies: dict[str, tuple[Callable[..., object], list]] = {"copyto": (lambda pair: np.copyto(*pair), by_copyto)}
    stream = _streaming_copy()
    if stream is not None:
        begins = (source.ctypes.data, target.ctypes.data)
        jobs = [(begins[0] + begin, begins[1] + begin, end - begin) for begin, end in parts]
        stream(*jobs[0])  # compiles
        copies["streaming"] = (lambda job: stream(*job), jobs)
    reads = {
        "maximum": (np.max, [floats[part] for part in slices(4)]),
        "or": (np.bitwise_or.reduce, [integers[part] for part in slices(8)]),
    }
    share = seconds / (len(copies) + len(reads))
    with ThreadPoolExecutor(threads) as pool:
        read = max(_best(pool, work, share) for work in reads.values())
        found = {name: 2 * _best(pool, work, share) for name, work in copies.items()}
    return {"read": read, "copy": max(found.values()), "copyto": found["copyto"]}


def _best(pool: ThreadPoolExecutor, work: tuple[Callable[..., object], list], seconds: float) -> float:
    """GB/s of the fastest pass over BYTES."""
    function, parts = work
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        list(pool.map(function, parts))
        shortest = min(shortest, time.perf_counter() - begin)
    return BYTES / shortest / 1e9


def _aligned(size: int) -> np.ndarray:
    buffer = np.ones(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + size]


def _streaming_copy() -> Callable[[int, int, int], None] | None:
    """A copy between two addresses past the cache, of a multiple of four pages; None without Numba."""
    try:
        import numba
        from llvmlite import ir
        from numba.core import types
        from numba.extending import intrinsic
    except ImportError:
        return None

    @intrinsic
    def copy_line(context, source, target):
        def emit(context, builder, signature, arguments):
            line = ir.VectorType(ir.IntType(64), LINE // 8).as_pointer()
            source, target = (builder.inttoptr(address, line) for address in arguments)
            store = builder.store(builder.load(source, align=LINE), target, align=LINE)
            # LLVM's word for a store past the cache; its operand is a constant 1.
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    @numba.njit(nogil=True)
    def copy(source, target, size):
        for block in range(0, size, TOGETHER * PAGE):
            for offset in range(block, block + PAGE, LINE):
                for page in range(TOGETHER):
                    copy_line(source + offset + page * PAGE, target + offset + page * PAGE)

    return copy
