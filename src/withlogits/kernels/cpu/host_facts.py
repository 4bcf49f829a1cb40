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
    if (x.strides[axis] != x.itemsize or x.shape[axis] == 1) and not _across(x, axis):
        x, axis = np.ascontiguousarray(np.moveaxis(x, axis, -1)), x.ndim - 1
    plan, blocks = _plan(x.shape, axis, x.dtype, x.strides, y is not None, count)
    at, results, numbers = address(x), address(out), 0 if y is None else address(y)
    for i, offset in enumerate(blocks):
        done = i * plan.count * 8
        plan.run(FACTS_JOB.fill(at + offset, numbers + done, results + done))
    return dict(zip(names, out, strict=True))


def _across(x: Array, axis: int) -> bool:
    """Do the rows lie side by side."""
    rest = without(x.strides, axis)
    return bool(rest) and rest[-1] == x.itemsize


@lru_cache(maxsize=256)
def _plan(
    shape: tuple[int, ...], axis: int, dtype: Dtype, strides: Strides, picked: bool, total: int
) -> tuple[Plan, list[int]]:
    layout, outer, inner, steps, offsets = arrangement(shape, axis, dtype, strides)
    head = FACTS_JOB.plan(shape[axis], inner, *steps, strides[axis], total * 8)
    count = outer * inner
    spec = FactsSpec(dtype.name, layout, picked)
    return Plan(spec, head, count, count * shape[axis], 1 if layout == "along" else 16, offsets), offsets


def arrangement(
    shape: tuple[int, ...], axis: int, dtype: Dtype, strides: Strides
) -> tuple[str, int, int, Strides, list[int]]:
    """The layout, the two levels of rows and their strides, and where the blocks of such rows begin."""
    outer, inner, steps, offsets = two_levels(without(shape, axis), [without(strides, axis)])
    along = strides[axis] == dtype.itemsize and shape[axis] > 1
    layout = ("tiled" if shape[axis] <= TILE else "along") if along else "across"
    return layout, outer, inner, steps[0], [o[0] for o in offsets]
