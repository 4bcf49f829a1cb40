"""The two halves of the thread pool that run outside the interpreter.

A worker enters by raising INSIDE and only then looking at OPEN again; the leader closes OPEN and then waits until
INSIDE is 0. So nobody is in a job that has ended, and the leader comes back only when no other thread can touch its
arrays: one call, without the interpreter, so that no signal handler or exception can come between.
"""

from __future__ import annotations

from collections.abc import Callable

from . import simd
from .job import GRAIN, INSIDE, JOB, KERNEL, NEXT, OPEN, STOP, WRONG, YIELD, PoolSpec
from .simd import I64, Value, traced

PATIENCE = 1000  # spins between two offers of the processor to somebody else, while others finish


@traced
def read(control: Value, slot: Value) -> Value:
    return simd.atomic_load(control + slot)


@traced
def write(control: Value, slot: Value, x: Value) -> None:
    simd.atomic_store(x, control + slot)


@traced
def add(control: Value, slot: Value, x: Value) -> Value:
    return simd.atomic_add(control + slot, x)


@traced
def plain(control: Value, slot: Value) -> Value:
    return simd.load(control + slot, I64)


@traced
def kernel_call(kernel: Value, job: Value, start: Value, stop: Value) -> Value:
    return simd.call(kernel, job, start, stop)


@traced
def offer(function: Value) -> None:
    simd.call(function)


@traced
def rest() -> None:
    simd.pause()


def build(spec: PoolSpec) -> Callable[[int, int, int], int]:
    opened, inside, nearest, wrong, last, size = OPEN, INSIDE, NEXT, WRONG, STOP, GRAIN
    kernel_slot, job_slot, yield_slot, patience = KERNEL, JOB, YIELD, PATIENCE

    def lead(control: int, _start: int, _stop: int) -> int:
        stop, grain = plain(control, last), plain(control, size)
        kernel, job = plain(control, kernel_slot), plain(control, job_slot)
        write(control, opened, 1)
        start = add(control, nearest, grain)
        while start < stop:
            bad = kernel_call(kernel, job, start, min(start + grain, stop))
            if bad != 0:
                add(control, wrong, bad)
            start = add(control, nearest, grain)
        write(control, opened, 0)
        spins = 0
        while read(control, inside) != 0:
            rest()
            spins += 1
            if spins == patience:
                spins = 0
                offer(plain(control, yield_slot))
        found: int = read(control, wrong)
        return found

    def serve(control: int, _start: int, spins: int) -> int:
        joined = 0
        left = spins
        while left > 0:
            if read(control, opened) == 1:
                add(control, inside, 1)
                if read(control, opened) == 1:
                    stop, grain = plain(control, last), plain(control, size)
                    kernel, job = plain(control, kernel_slot), plain(control, job_slot)
                    start = add(control, nearest, grain)
                    while start < stop:
                        bad = kernel_call(kernel, job, start, min(start + grain, stop))
                        if bad != 0:
                            add(control, wrong, bad)
                        start = add(control, nearest, grain)
                        joined += 1
                        left = spins
                add(control, inside, -1)
            rest()
            left -= 1
        return joined

    return lead if spec.half == "lead" else serve
