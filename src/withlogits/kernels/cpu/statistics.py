"""Statistics of logits and labels on compiled kernels: `withlogits.statistics.arrays` explains what is counted.

Work is cut into pieces that do not depend on the threads, each with counters of its own, which are added up at the end.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from .job import LANES, TILE, Fields
from .layout import Array, Strides, address, two_levels, without
from .plan import Kernel

PIECES = 16  # at most
GRAIN = 1 << 15  # elements of a piece, at least
ROW_COST, ELEMENT_COST = 16, 8  # elements of a loss that take as long
SCORE_CLASSES = 16  # classes that a unit of the work on scores has, if there are more

# The slots of a piece of rows, 8 bytes each: extremes and sums, LANES float64 each, then counts
EXTREMES = ("low", "top", "label_low", "label_top", "label_lowest_sum", "label_highest_sum")
SUMS = ("loss", "spread", "total", "label_total", "label_positive")
COUNTS = (
    "counted", "right", "nan", "infinite", "saturated", "odd_rows", "sums_to_one",
    "label_binary", "label_none", "label_one", "label_two", "label_distributions", "label_negative", "label_odd",
    "label_hot",
)  # fmt: skip
# x the logits, z dense labels or class numbers; keys, first and labels (classes of dense labels): a word for each row
ROWS_JOB = Fields(
    "rows grain out_step classes inner x_outer x_row x_class z_outer z_row z_class",
    "x z loss size counted keys first labels out close. label_close.",
)
ELEMENTS_JOB = Fields("elements grain period out_step", "x z listed out floor.")
# classes_at: the class of each element of a period; each part of `grain` elements counts into `table_step` bytes
SCORES_JOB = Fields("elements grain period classes table_step", "x z scores classes_at")


class Bins(Hashable, Protocol):
    """Into which bins figures are counted; see `withlogits.statistics.bins`."""

    @property
    def confidence(self) -> int: ...
    @property
    def lowest(self) -> int: ...
    @property
    def losses(self) -> int: ...
    @property
    def within(self) -> tuple[int, ...]: ...
    @property
    def score_lowest(self) -> int: ...
    def scores(self, fraction: int) -> int: ...


@dataclass(frozen=True)
class RowsSpec:
    """Of rows of logits, with labels in the same shape (`z`, their kind) or class numbers."""

    x: str  # kinds of elements
    x_layout: str  # classes side by side: "along", or "tiled" in short rows; "across" rows whose elements are
    z: str = ""
    z_layout: str = "along"
    loss: str = ""  # of exclusive classes
    size: str = ""  # the rows' logsumexp is given; without it, it follows from the loss of one class
    counted: bool = False  # not all rows count
    within: tuple[int, ...] = ()  # of an evaluation: is the class among the k largest
    confidence: int = 0
    lowest: int = 0
    losses: int = 0

    @property
    def counts_at(self) -> int:
        return LANES * (len(EXTREMES) + len(SUMS))

    @property
    def within_at(self) -> int:
        return self.counts_at + len(COUNTS)

    @property
    def figures_at(self) -> int:
        """For each bin of probabilities, of what did not come true and of what did: how many, and their sum."""
        return self.within_at + len(self.within)

    @property
    def histogram_at(self) -> int:
        return self.figures_at + 4 * (self.confidence + 1)

    @property
    def end(self) -> int:
        return self.histogram_at + self.losses + 1


WIDE = 16  # elements that are counted together: the arithmetic of one vector waits, and that of another goes on
# For each class three whole numbers of so many bits in a word: label yes, logit yes, both. The tables have few classes
# several times, so that vectors of them seldom meet, and WIDE more entries for those that begin at the last.
ANSWER_BITS = 21
MOST_ELEMENTS = 1 << 26  # of a piece, so that no such number overflows


def period(classes: int) -> int:
    """Entries of a table that has all classes, several times if they are few."""
    return -(-8 * LANES // classes) * classes


@dataclass(frozen=True)
class ElementsSpec:
    """Of elements of independent classes: WIDE sums of the finite losses come first, then NaN, infinite and listed."""

    x: str  # kinds of elements
    z: str
    binary: bool  # all labels are 0 or 1
    confidence: int
    lowest: int
    losses: int

    figures_at = WIDE + LANES

    @property
    def histogram_at(self) -> int:
        return self.figures_at + 4 * (self.confidence + 1)

    @property
    def true_at(self) -> int:
        """Sums of the labels in each bin of probabilities, if they are not binary."""
        return self.histogram_at + self.losses + 1

    @property
    def classes_at(self) -> int:
        return self.true_at + (0 if self.binary else self.confidence + 1)

    def end(self, classes: int) -> int:
        return self.classes_at + 2 * (period(classes) + WIDE)


@dataclass(frozen=True)
class ScoresSpec:
    """Into which bins scores are counted."""

    x: str  # kinds of elements
    z: str
    counts: str  # the kind of the counters
    fraction: int  # bits of a bin
    lowest: int
    bins: int


def row_statistics(
    x: Array,
    axis: int,
    labels: Array,
    *,
    close: float,
    label_close: float = 0.0,
    loss: Array | None = None,
    size: Array | None = None,
    counted: Array | None = None,
    bins: Bins | None = None,
) -> dict[str, Any]:
    """As `statistics.arrays.row_statistics`, which explains the arguments."""
    rows, dense = math.prod(without(x.shape, axis)), labels.ndim == x.ndim
    x = _laid_out(x, axis)
    z = _laid_out(labels, axis) if dense else None
    kinds = ["" if a is None else a.dtype.name for a in (loss, size)]
    found = _rows_plan(
        x.shape,
        axis,
        (x.dtype, x.strides),
        None if z is None else (z.dtype, z.strides),
        *kinds,
        counted is not None,
        bins,
    )
    if found is None:  # rows that three strides do not reach
        x = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        labels = np.ascontiguousarray(np.moveaxis(labels, axis, -1)) if dense else labels
        return row_statistics(
            x,
            x.ndim - 1,
            labels,
            close=close,
            label_close=label_close,
            loss=loss,
            size=size,
            counted=counted,
            bins=bins,
        )
    plan, spec, step = found
    out = _counters(plan.count, step)
    words = np.empty((3, rows), np.int64)
    given = [0 if a is None else address(a) for a in (x, labels if z is None else z, loss, size, counted)]
    plan.run(ROWS_JOB.fill(*given, *(address(line) for line in words), address(out), close, label_close))
    return _row_results(spec, out, words)


def _laid_out(x: Array, axis: int) -> Array:
    """The array, or a copy if neither its classes nor its rows lie side by side."""
    side_by_side = x.strides[axis] == x.itemsize or without(x.strides, axis)[-1:] == (x.itemsize,)
    return x if side_by_side else np.ascontiguousarray(x)


@lru_cache(maxsize=256)
def _rows_plan(
    shape: tuple[int, ...], axis: int, x: tuple[np.dtype[Any], Strides], z: tuple[np.dtype[Any], Strides] | None,
    loss: str, size: str, counted: bool, bins: Bins | None,
) -> tuple[Kernel, RowsSpec, int] | None:  # fmt: skip
    arrays = [x] if z is None else [x, z]
    strides = [without(of, axis) for _, of in arrays]
    outer, inner, steps, offsets = two_levels(without(shape, axis), strides)
    layouts = [
        "across"
        if step[1] == a.itemsize
        else ""
        if s[axis] != a.itemsize
        else "tiled"
        if shape[axis] <= TILE
        else "along"
        for (a, s), step in zip(arrays, steps, strict=True)
    ]
    if len(offsets) > 1 or "" in layouts:
        return None
    rows, classes = outer * inner, shape[axis]
    of_bins = {} if bins is None else {
        "within": bins.within, "confidence": bins.confidence, "lowest": bins.lowest, "losses": bins.losses
    }  # fmt: skip
    spec = RowsSpec(x[0].name, layouts[0], "" if z is None else z[0].name, layouts[-1], loss, size, counted, **of_bins)  # type: ignore[arg-type]
    pieces, grain = _pieces(rows, classes + ROW_COST)
    step = -(-spec.end // 8) * 8
    z_steps = (0, 0, 0) if z is None else (*steps[1], z[1][axis])
    head = ROWS_JOB.plan(rows, grain, step * 8, classes, inner, *steps[0], x[1][axis], *z_steps)
    return Kernel(spec, head, pieces, rows * (classes + ROW_COST), 1, ()), spec, step


def _pieces(count: int, cost: int, counters: int = 0) -> tuple[int, int]:
    """How many pieces, and how much each has; large beside its counters."""
    pieces = max(1, min(PIECES, count * cost // max(GRAIN, 16 * counters)), count // MOST_ELEMENTS + 1)
    return pieces, -(-count // (pieces * LANES)) * LANES


def _row_results(spec: RowsSpec, out: Array, words: Array) -> dict[str, Any]:
    floats = out.view(np.float64)
    found: dict[str, Any] = {"keys": words[0].view(np.uint64)}
    if spec.loss:
        found |= {"first": words[1], "labels": words[2]} if spec.z else {"first": words[1]}
    vectors = floats[:, : spec.counts_at].reshape(len(out), -1, LANES)
    for i, name in enumerate((*EXTREMES, *SUMS)):
        largest = name.endswith(("top", "highest_sum"))
        reduce = np.sum if name in SUMS else np.max if largest else np.min
        found[name] = float(reduce(vectors[:, i]))
    found |= zip(COUNTS, out[:, spec.counts_at : spec.within_at].sum(axis=0).tolist(), strict=True)
    if spec.within:
        found["within"] = out[:, spec.within_at : spec.figures_at].sum(axis=0)
        found |= _figures(spec, out)
    return found


def _figures(spec: RowsSpec | ElementsSpec, out: Array) -> dict[str, Array]:
    """The (3, bins) confidences, and the histogram of losses."""
    entries = np.ascontiguousarray(out[:, spec.figures_at : spec.histogram_at]).reshape(len(out), -1, 2, 2)[:, :-1]
    many, sums = entries[..., 0].sum(axis=0), entries.view(np.float64)[..., 1].sum(axis=(0, 2))
    histogram = out[:, spec.histogram_at :][:, : spec.losses].sum(axis=0)
    return {"confidence": np.array([many.sum(axis=1), sums, many[:, 1]], np.float64), "histogram": histogram}


def element_statistics(x: Array, z: Array, *, bins: Bins, floor: float, binary: bool = False) -> dict[str, Any]:
    """As `statistics.arrays.element_statistics`, which explains the arguments; all arrays lie side by side."""
    classes = x.shape[1]
    spec = ElementsSpec(x.dtype.name, z.dtype.name, binary, bins.confidence, bins.lowest, bins.losses)
    plan, grain, step = _elements_plan(spec, x.size, classes)
    out, lists = _counters(plan.count, step), np.empty((plan.count, grain + WIDE), np.int64)
    plan.run(ELEMENTS_JOB.fill(*(address(a) for a in (x, z, lists, out)), floor))
    nan, infinite, _ = out[:, WIDE : WIDE + 3].sum(axis=0).tolist()
    words, losses = out[:, spec.classes_at : spec.end(classes)].reshape(plan.count, 2, -1).transpose(1, 0, 2)
    answers = np.array([(words >> ANSWER_BITS * i & (1 << ANSWER_BITS) - 1).sum(axis=0) for i in range(3)])
    found = _figures(spec, out)
    if not binary:
        true = out[:, spec.true_at : spec.classes_at - 1]
        found["confidence"][2] = np.ascontiguousarray(true).view(np.float64).sum(axis=0)
    return found | {
        "loss": float(out[:, :WIDE].view(np.float64).sum()),
        "nan": nan,
        "infinite": infinite,
        "answers": _folded(answers, classes),
        "class_loss": _folded(np.ascontiguousarray(losses).view(np.float64).sum(axis=0)[None], classes)[0],
        "listed": np.concatenate([part[:n] for part, n in zip(lists, out[:, WIDE + 2].tolist(), strict=True)]),
    }


def _folded(tables: Array, classes: int) -> Array:
    """(k, C) from tables that have each class several times."""
    whole: Array = tables[:, :-WIDE].reshape(len(tables), -1, classes).sum(axis=1)
    for i, more in enumerate(tables[:, -WIDE:].T):
        whole[:, i % classes] += more
    return whole


def _counters(pieces: int, step: int) -> Array:
    """Zeros, of which each piece's begin on a cache line: what lies on two is slow to be read after it was written."""
    zeros = np.zeros(pieces * step + 8, np.int64)
    begin = -(address(zeros) // 8) % 8
    counters: Array = zeros[begin : begin + pieces * step].reshape(pieces, step)
    return counters


@lru_cache(maxsize=256)
def _elements_plan(spec: ElementsSpec, elements: int, classes: int) -> tuple[Kernel, int, int]:
    step = -(-spec.end(classes) // 8) * 8
    pieces, grain = _pieces(elements, ELEMENT_COST, step)
    head = ELEMENTS_JOB.plan(elements, grain, period(classes), step * 8)
    return Kernel(spec, head, pieces, elements * ELEMENT_COST, 1, ()), grain, step


def count_scores(x: Array, z: Array, counts: Array, *, bins: Bins, fraction: int) -> None:
    """As `statistics.arrays.count_scores`, which explains the arguments; all arrays lie side by side."""
    spec = ScoresSpec(x.dtype.name, z.dtype.name, counts.dtype.name, fraction, bins.score_lowest, bins.scores(fraction))
    plan = _scores_plan(spec, x.size, x.shape[1], len(counts), counts.strides[0])
    plan.run(SCORES_JOB.fill(address(x), address(z), address(counts), address(_numbers(x.shape[1]))))


@lru_cache(maxsize=256)
def _scores_plan(spec: ScoresSpec, elements: int, classes: int, tables: int, table_step: int) -> Kernel:
    units, grain = -(-classes // SCORE_CLASSES), elements
    if units == 1:
        units = min(tables, max(1, elements * ELEMENT_COST // GRAIN))
        grain = -(-elements // (units * LANES)) * LANES
    head = SCORES_JOB.plan(elements, grain, period(classes), classes, table_step)
    return Kernel(spec, head, units, elements * ELEMENT_COST, 1, ())


@lru_cache(maxsize=16)
def _numbers(classes: int) -> Array:
    """The classes of the elements of a period, and of LANES more."""
    return np.arange(period(classes) + LANES) % classes
