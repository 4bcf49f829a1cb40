"""Functions of SIMD values compiled alone, so that a test can put numbers through them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from withlogits.kernels.cpu import compiler, control, simd
from withlogits.kernels.cpu.simd import F32, F64, I64, Value
from withlogits.kernels.cpu.target import Target, host

_count = itertools.count()


def runner(step: Callable[[Value, Value], None], target: Target | None = None) -> Callable[..., None]:
    """Compile `step(job, i)`; the answer runs it for i in range(count) on a job of integers and array addresses."""

    def kernel(job: Value, start: Value, stop: Value) -> Value:
        with control.loop(start, stop) as i:
            step(job, i)
        return simd.integer(0)

    name, target = f"test_{next(_count)}", target or host()
    address = compiler.loaded(compiler.optimized(control.written(kernel, name, target), target), name, target)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)

    def run(count: int, *slots: Any) -> None:
        job = np.array([s.ctypes.data if isinstance(s, np.ndarray) else s for s in slots], np.int64)
        call(job.ctypes.data, 0, count)

    return run


def slot(job: Value, i: int) -> Value:
    """The i-th number of the job."""
    return simd.load(job + 8 * i, I64)


def elementwise(function: Callable[..., Any], inputs: int, outputs: int, element: Any = F64) -> Callable[..., Any]:
    """`function` of vectors, compiled, as a function of arrays: one array, or a tuple of them."""
    lanes = 16 if element is F32 else 8
    vector, dtype = simd.vector(element, lanes), np.float32 if element is F32 else np.float64
    step_bytes = lanes * np.dtype(dtype).itemsize

    def step(job: Value, i: Value) -> None:
        at = i * step_bytes
        results = function(*(simd.load(slot(job, k) + at, vector) for k in range(inputs)))
        results = results if isinstance(results, tuple) else (results,)
        for k, result in enumerate(results):
            simd.store(result, slot(job, inputs + k) + at)

    run = runner(step)

    def call(*arrays: Any) -> Any:
        size = len(arrays[0])
        count = -(-size // lanes)
        given = [np.zeros(count * lanes, dtype) for _ in arrays]
        for padded, array in zip(given, arrays, strict=True):
            padded[:size] = array
        results = [np.empty(count * lanes, dtype) for _ in range(outputs)]
        run(count, *given, *results)
        found = tuple(result[:size] for result in results)
        return found if outputs > 1 else found[0]

    return call
