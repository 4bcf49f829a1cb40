"""What rows are like, on compiled kernels: plan and run."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from . import buffers
from .call import FLOAT64, Dtype, Plan
from .job import FACTS, FACTS_JOB, TILE, FactsSpec
from .layout import Array, Strides, address, two_levels, without

OF_NOTHING = np.array([[-np.inf], [np.inf], [0.0], [0.0], [0.0]])  # what rows of no classes are like


def row_facts(x: Array, axis: int, y: Array | None = None) -> dict[str, Array]:
    """The `job.FACTS` of the rows along `axis`, each a float64 array in the order of the rows; see `facts.py`.

    `y` is one int64 number of a class for each row, in that order, whose element is `own`; none may be out of range.
    """
    count = math.prod(without(x.shape, axis))
    if not x.size:
        return dict(zip(FACTS, np.tile(OF_NOTHING, count), strict=True))
    names = FACTS if y is None else (*FACTS, "own")
    out = buffers.empty((len(names), count), FLOAT64)
    if not layout_of(x.shape, axis, x.dtype, x.strides):
        x, axis = np.ascontiguousarray(np.moveaxis(x, axis, -1)), x.ndim - 1
    plan, blocks = _plan(x.shape, axis, x.dtype, x.strides, y is not None, count)
    at, results, numbers = address(x), address(out), 0 if y is None else address(y)
    for i, offset in enumerate(blocks):
        done = i * plan.count * 8
        plan.run(FACTS_JOB.fill(at + offset, numbers + done, results + done))
    return dict(zip(names, out, strict=True))


def layout_of(shape: tuple[int, ...], axis: int, dtype: Dtype, strides: Strides) -> str:
    """As in a spec; empty if neither the classes nor the rows lie side by side."""
    if strides[axis] == dtype.itemsize and shape[axis] > 1:
        return "tiled" if shape[axis] <= TILE else "along"
    return "across" if without(strides, axis)[-1:] == (dtype.itemsize,) else ""


@lru_cache(maxsize=256)
def _plan(
    shape: tuple[int, ...], axis: int, dtype: Dtype, strides: Strides, picked: bool, total: int
) -> tuple[Plan, list[int]]:
    outer, inner, steps, offsets = two_levels(without(shape, axis), [without(strides, axis)])
    layout = layout_of(shape, axis, dtype, strides)
    head = FACTS_JOB.plan(shape[axis], inner, *steps[0], strides[axis], total * 8)
    count = outer * inner
    spec = FactsSpec(dtype.name, layout, picked)
    return Plan(spec, head, count, count * shape[axis], 1 if layout == "along" else 16, offsets), [
        o[0] for o in offsets
    ]
