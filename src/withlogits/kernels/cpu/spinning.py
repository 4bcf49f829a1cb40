"""The two halves of the thread pool that run outside the interpreter.

A worker enters by raising INSIDE and only then looking at OPEN again; the leader closes OPEN and then waits until
INSIDE is 0. So nobody is in a job that has ended, and the leader comes back only when no other thread can touch its
arrays: one call, without the interpreter, so that no signal handler or exception can come between.
"""

from __future__ import annotations

from . import simd
from .control import Kernel, Variable, repeat, when
from .job import CHUNK, INSIDE, JOB, KERNEL, NEXT, OPEN, STOP, WRONG, YIELD, PoolSpec
from .simd import I64, Value, select
from .target import Target

PATIENCE = 1000  # spins between two offers of the processor to somebody else, while others finish


def build(spec: PoolSpec, target: Target) -> Kernel:
    """Return the leader's half of the pool, or a worker's."""
    return lead if spec.half == "lead" else serve


def work(control: Value, chunks: Variable | None = None) -> None:
    """Take chunks of the job and run the kernel on them until none is left."""
    stop, size, kernel, job = (simd.load(control + slot, I64) for slot in (STOP, CHUNK, KERNEL, JOB))
    start = Variable(simd.atomic_add(control + NEXT, size))
    with repeat(lambda: start.value < stop):
        bad = simd.call(kernel, job, start.value, simd.smaller(start.value + size, stop))
        with when(bad != 0):
            simd.atomic_add(control + WRONG, bad)
        start.value = simd.atomic_add(control + NEXT, size)
        if chunks is not None:
            chunks.value = chunks.value + 1


def lead(control: Value, _start: Value, _stop: Value) -> Value:
    """Open the job, work on it, close it, and wait until nobody is inside; returns how many labels were wrong."""
    simd.atomic_store(simd.integer(1), control + OPEN)
    work(control)
    simd.atomic_store(simd.integer(0), control + OPEN)
    spins = Variable(simd.integer(0))
    with repeat(lambda: simd.atomic_load(control + INSIDE) != 0):
        simd.pause()
        spins.value = spins.value + 1
        with when(spins.value == PATIENCE):
            spins.value = simd.integer(0)
            simd.call(simd.load(control + YIELD, I64))
    return simd.atomic_load(control + WRONG)


def serve(control: Value, _start: Value, spins: Value) -> Value:
    """Look out for jobs for so many spins after the last one, and work on them; returns how many chunks were done."""
    chunks, left = Variable(simd.integer(0)), Variable(spins)
    with repeat(lambda: left.value > 0):
        with when(simd.atomic_load(control + OPEN) == 1):
            simd.atomic_add(control + INSIDE, simd.integer(1))
            with when(simd.atomic_load(control + OPEN) == 1):
                before = chunks.value
                work(control, chunks)
                left.value = select(chunks.value != before, spins, left.value)
            simd.atomic_add(control + INSIDE, simd.integer(-1))
        simd.pause()
        left.value = left.value - 1
    return chunks.value
