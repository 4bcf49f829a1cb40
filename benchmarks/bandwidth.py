"""How fast this machine reads and copies memory, with as many threads as the losses use."""

from __future__ import annotations

import ctypes
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


def _streaming_copy() -> Callable[[int, int, int], object] | None:
    """A copy between two addresses past the cache, of a multiple of four pages; None without llvmlite."""
    try:
        import llvmlite  # noqa: F401
    except ImportError:
        return None
    from withlogits.kernels.cpu import compiler, target

    lines = "\n".join(
        f"""
        %s{page} = getelementptr i8, i8* %source, i64 %o{page}
        %t{page} = getelementptr i8, i8* %target, i64 %o{page}
        %p{page} = bitcast i8* %s{page} to <8 x i64>*
        %q{page} = bitcast i8* %t{page} to <8 x i64>*
        %v{page} = load <8 x i64>, <8 x i64>* %p{page}, align {LINE}
        store <8 x i64> %v{page}, <8 x i64>* %q{page}, align {LINE}, !nontemporal !0"""
        for page in range(TOGETHER)
    )
    offsets = "\n".join(f"%o{page} = add i64 %at, {page * PAGE}" for page in range(TOGETHER))
    text = f"""
    define void @streaming_copy(i8* noalias %source, i8* noalias %target, i64 %size) {{
    entry:
        br label %block
    block:
        %begin = phi i64 [0, %entry], [%next, %ended]
        %more = icmp slt i64 %begin, %size
        br i1 %more, label %page, label %end
    page:
        %line = phi i64 [0, %block], [%following, %page]
        %at = add i64 %begin, %line
        {offsets}
        {lines}
        %following = add i64 %line, {LINE}
        %inside = icmp slt i64 %following, {PAGE}
        br i1 %inside, label %page, label %ended
    ended:
        %next = add i64 %begin, {TOGETHER * PAGE}
        br label %block
    end:
        ret void
    }}
    !0 = !{{i32 1}}
    """  # the metadata is LLVM's word for a store past the cache
    host = target.host()
    address = compiler.loaded(compiler.optimized(text, host), "streaming_copy", host)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
