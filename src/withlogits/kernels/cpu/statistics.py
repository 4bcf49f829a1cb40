"""The functions of `withlogits.statistics.arrays`, which says what they do, on compiled kernels.

Rows are scanned one by one. Elements are cut into pieces that do not depend on the threads, each with counters of its
own, which are added up at the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from withlogits.statistics.bins import Bins

from .job import (
    ANSWER_BITS,
    ELEMENTS_JOB,
    LANES,
    SCAN_JOB,
    SCANNED,
    SCORE_CLASSES,
    SCORES_JOB,
    TILE,
    WIDE,
    ElementsSpec,
    ScoresSpec,
    SoftmaxSpec,
)
from .layout import Array, Strides, address, dense_strides, two_levels, without
from .plan import Kernel

PIECES = 16  # at most
MOST_ELEMENTS = 1 << 26  # of a piece, so that no number of ANSWER_BITS overflows
GRAIN = 1 << 15  # elements of a piece, at least
ROW_COST, ELEMENT_COST = 16, 8  # elements of a loss that take as long


def scan(x: Array, axis: int, y: Array | None = None) -> dict[str, Array]:
    """As `statistics.arrays.scan`."""
    kernel = _scan_plan(x.shape, axis, x.dtype, x.strides, y is not None)
    planes = np.empty((len(SCANNED), x.size // x.shape[axis]))
    slots = (address(x), 0 if y is None else address(y), address(planes))
    kernel.run_blocks(SCAN_JOB.fill, slots, planes.itemsize)
    return dict(zip(SCANNED, planes, strict=True)) | {"first": planes[SCANNED.index("first")].view(np.int64)}


@lru_cache(maxsize=256)
def _scan_plan(shape: tuple[int, ...], axis: int, dtype: np.dtype[Any], strides: Strides, labelled: bool) -> Kernel:
    rows, classes, class_step = without(shape, axis), shape[axis], strides[axis]
    labels = dense_strides(rows, 8) if labelled else (0,) * len(rows)
    outer, inner, (x_steps, y_steps), offsets = two_levels(rows, [without(strides, axis), labels])
    layout = "strided"
    if x_steps[1] == dtype.itemsize:
        layout = "across"
    elif class_step == dtype.itemsize:
        layout = "tiled" if classes <= TILE else "along"
    index = ("index", "int64") if labelled else ("none", "")
    spec = SoftmaxSpec(dtype.name, *index, layout, result="scan")
    count = outer * inner
    head = SCAN_JOB.plan(classes, inner, *x_steps, class_step, *y_steps, 8 * count * len(offsets))
    return Kernel(spec, head, count, count * (classes + ROW_COST), 1 if layout == "along" else 16, offsets)


def element_statistics(x: Array, z: Array, *, bins: Bins, floor: float, binary: bool = False) -> dict[str, Any]:
    """As `statistics.arrays.element_statistics`; all arrays lie side by side."""
    classes = x.shape[1]
    spec = ElementsSpec(x.dtype.name, z.dtype.name, binary, bins.confidence, bins.lowest, bins.losses)
    plan, grain = _elements_plan(spec, x.size, classes)
    out, lists = _counters(plan.count, spec.counters()), np.empty((plan.count, grain + WIDE), np.int64)
    words = np.zeros((plan.count, period(classes) + WIDE), np.int64)
    losses = np.zeros(words.shape)
    plan.run(ELEMENTS_JOB.fill(address(x), address(z), 0, *(address(a) for a in (lists, out, words, losses)), floor))
    answers = np.array([(words >> ANSWER_BITS * i & (1 << ANSWER_BITS) - 1).sum(axis=0) for i in range(3)])
    return _figures(out, binary) | {
        "loss": float(out["loss"].sum()),
        "weighted_loss": float(out["loss"].sum()),
        "nan": int(out["nan"].sum()),
        "infinite": int(out["infinite"].sum()),
        "answers": _folded(answers, classes),
        "class_loss": _folded(losses.sum(axis=0)[None], classes)[0],
        "class_weight": np.full(classes, len(x)),
        "listed": np.concatenate([part[:n] for part, (n,) in zip(lists, out["listed"].tolist(), strict=True)]),
    }


def row_figures(surprisal: Array, right: Array, loss: Array, bins: Bins) -> dict[str, Array]:
    """As `statistics.arrays.row_figures`."""
    binary = right.dtype == np.bool_
    spec = ElementsSpec("float64", right.dtype.name, binary, bins.confidence, bins.lowest, bins.losses, rows=True)
    plan, _ = _elements_plan(spec, loss.size, 1)
    out = _counters(plan.count, spec.counters())
    plan.run(ELEMENTS_JOB.fill(*(address(a) for a in (surprisal, right, loss)), 0, address(out), 0, 0, 0.0))
    return _figures(out, binary)


def _figures(out: Array, binary: bool) -> dict[str, Array]:
    many, sums = (out[name].sum(axis=0).reshape(-1, 2)[:-1] for name in ("count", "sum"))
    true = many[:, 1] if binary else out["true"].sum(axis=0)[:-1]
    confidence = np.array([many.sum(axis=1), sums.sum(axis=1), true], np.float64)
    return {"confidence": confidence, "histogram": out["histogram"].sum(axis=0)[:-1]}


def period(classes: int) -> int:
    """Entries of a table that has all classes, several times if they are few."""
    return -(-8 * LANES // classes) * classes


def _folded(tables: Array, classes: int) -> Array:
    """(k, C) from tables that have each class several times."""
    whole: Array = tables[:, :-WIDE].reshape(len(tables), -1, classes).sum(axis=1)
    for i, more in enumerate(tables[:, -WIDE:].T):
        whole[:, i % classes] += more
    return whole


def _counters(pieces: int, dtype: np.dtype[Any]) -> Array:
    """Zeros, of which each piece's begin on a cache line: what lies on two is slow to be read after it was written."""
    zeros = np.zeros(pieces * dtype.itemsize + 64, np.int8)
    begin = -address(zeros) % 64
    counters: Array = zeros[begin : begin + pieces * dtype.itemsize].view(dtype)
    return counters


@lru_cache(maxsize=256)
def _elements_plan(spec: ElementsSpec, elements: int, classes: int) -> tuple[Kernel, int]:
    counters = spec.counters().itemsize // 8 + 2 * period(classes)
    pieces = max(1, min(PIECES, elements * ELEMENT_COST // max(GRAIN, 16 * counters)), elements // MOST_ELEMENTS + 1)
    grain = -(-elements // (pieces * LANES)) * LANES
    head = ELEMENTS_JOB.plan(elements, grain, period(classes))
    return Kernel(spec, head, pieces, elements * ELEMENT_COST, 1, ()), grain


def count_scores(x: Array, z: Array, counts: Array, window: tuple[Array, ...]) -> Array:
    """As `statistics.arrays.count_scores`; all arrays lie side by side."""
    classes = x.shape[1]
    spec = ScoresSpec(x.dtype.name, z.dtype.name, counts.dtype.name, counts.shape[-1])
    plan, room = _scores_plan(spec, x.size, classes, len(counts), counts.strides[0])
    lists, listed = np.empty((plan.count, room), np.int64), np.zeros((plan.count, 8), np.int64)
    numbers = np.arange(period(classes) + LANES) % classes  # of the elements of a period, and of LANES more
    scale, base, low, high = window
    first = 2.0 * counts.shape[-1] * np.arange(classes) - base
    tables = [of_class[numbers] for of_class in (scale, first, low, high)]
    plan.run(SCORES_JOB.fill(*(address(a) for a in (x, z, counts, *tables, lists, listed))))
    return np.concatenate([part[:n] for part, n in zip(lists, listed[:, 0].tolist(), strict=True)])


@lru_cache(maxsize=256)
def _scores_plan(spec: ScoresSpec, elements: int, classes: int, tables: int, table_step: int) -> tuple[Kernel, int]:
    units, grain = -(-classes // SCORE_CLASSES), elements
    room = elements // classes * SCORE_CLASSES + LANES
    if units == 1:
        units = min(tables, max(1, elements * ELEMENT_COST // GRAIN))
        grain = -(-elements // (units * LANES)) * LANES
        room = grain + LANES
    head = SCORES_JOB.plan(elements, grain, period(classes), classes, table_step, 8 * room)
    return Kernel(spec, head, units, elements * ELEMENT_COST, 1, ()), room
