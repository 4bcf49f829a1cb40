"""What rows are like, on compiled kernels: plan and run."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .call import Dtype, Plan
from .job import FACTS, FACTS_JOB, TILE, FactsSpec
from .layout import Array, Strides, address, two_levels, without

ZERO = np.zeros(1)
OF_NOTHING = np.array([[-np.inf], [np.inf], [0.0], [0.0], [0.0], [0.0]])  # what rows of no classes are like


def row_facts(x: Array, axis: int, threshold: Array | None = None) -> dict[str, Array]:
    """The `job.FACTS` of the rows along `axis`, each a float64 array in the order of the rows; see `facts.py`.

    `threshold` is one float64 number a row, in that order, or nothing for 0.
    """
    count = math.prod(without(x.shape, axis))
    out = np.empty((len(FACTS), count)) if x.size else np.tile(OF_NOTHING, count)
    if x.size:
        if x.strides[axis] != x.itemsize and not _across(x, axis):
            x, axis = np.ascontiguousarray(np.moveaxis(x, axis, -1)), x.ndim - 1
        plan, blocks = _plan(x.shape, axis, x.dtype, x.strides, threshold is not None, count)
        at, limits, results = address(x), ZERO if threshold is None else threshold, address(out)
        for i, offset in enumerate(blocks):
            t = address(limits) + (0 if threshold is None else i * plan.count * 8)
            plan.run(FACTS_JOB.fill(at + offset, t, results + i * plan.count * 8))
    return dict(zip(FACTS, out, strict=True))


def _across(x: Array, axis: int) -> bool:
    """Do the rows lie side by side."""
    rest = without(x.strides, axis)
    return bool(rest) and rest[-1] == x.itemsize


@lru_cache(maxsize=256)
def _plan(
    shape: tuple[int, ...], axis: int, dtype: Dtype, strides: Strides, limited: bool, total: int
) -> tuple[Plan, list[int]]:
    outer, inner, steps, offsets = two_levels(without(shape, axis), [without(strides, axis)])
    along = strides[axis] == dtype.itemsize
    layout = ("tiled" if shape[axis] <= TILE else "along") if along else "across"
    head = FACTS_JOB.plan(shape[axis], inner, *steps[0], strides[axis], 8 if limited else 0, total * 8)
    count = outer * inner
    spec = FactsSpec(dtype.name, layout)
    return Plan(spec, head, count, count * shape[axis], 1 if layout == "along" else 16, offsets), [
        o[0] for o in offsets
    ]
