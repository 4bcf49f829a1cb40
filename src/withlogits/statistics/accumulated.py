"""What there is to know of logits, of labels, and of the two together: sums and extremes that grow and merge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import logsumexp
from withlogits.statistics.bins import Bins
from withlogits.statistics.merging import EARLIER, KEPT, LEAST, MOST, Merging, merged_by
from withlogits.statistics.sample import Sample

Array = NDArray[Any]

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
MATRIX = 512  # of up to so many classes every confusion is counted
VALUES = 16  # distinct values that are remembered of odd labels, and one more if there are many
END = 0.05  # how near to 0 or 1 is near


def closeness(dtype: str, classes: int) -> float:
    """How far the sum of a row of probabilities in this dtype may lie from 1."""
    return max(1e-3, 2.0 * EPS.get(dtype, 0.0) * max(1.0, math.sqrt(classes)))


@dataclass
class LogitStatistics(Merging):
    """Statistics of the logits, whatever the labels."""

    dtype: str = field(metadata=KEPT)
    classes: int = field(metadata=KEPT)
    rows: int = 0
    low: float = field(default=math.inf, metadata=LEAST)
    top: float = field(default=-math.inf, metadata=MOST)
    sums_to_one: int = 0  # rows
    near_ends: int = 0  # elements near 0 or 1; counted while all lie in [0, 1]
    normalized: int = 0  # rows whose logsumexp is 0; counted while none lies above 0
    nan: int = 0
    plus_inf: int = 0
    minus_inf: int = 0
    dead_rows: int = 0  # only -inf
    first_odd: tuple[int, ...] | None = field(default=None, metadata=EARLIER)  # where the first NaN or +inf lies
    saturated: int = 0
    spread: float = 0.0  # Σ over rows of top − low, where finite
    first_row: Array | None = field(default=None, metadata=KEPT)
    alike: bool = field(default=True, metadata=KEPT)  # every row is the first one

    @property
    def elements(self) -> int:
        return self.rows * self.classes

    @property
    def in_unit(self) -> bool:
        """Whether all logits lie in [0, 1]."""
        return bool(self.rows) and self.low >= 0.0 and self.top <= 1.0 and not self.nan + self.plus_inf

    def add(self, x: Array, axis: int, counts: dict[str, Any], offset: tuple[int, ...]) -> None:
        """Take in a block of logits with the counts of its rows."""
        was_in_unit, close = not self.rows or self.in_unit, closeness(self.dtype, self.classes)
        self.rows += x.size // self.classes
        self.accumulate({name: counts[name] for name in ("low", "top", "sums_to_one", "saturated", "spread")})
        if counts["odd_rows"]:
            self._add_odd(x, axis, offset)
        if was_in_unit and self.in_unit:
            self.near_ends += int(np.count_nonzero((x < END) | (x > 1 - END)))
        if counts["top"] <= close and self.classes > 1:
            self.normalized += int(np.count_nonzero(np.abs(logsumexp(x, axis=axis)) <= close))
        if self.alike:
            self._compare_rows(x, axis)

    def _add_odd(self, x: Array, axis: int, offset: tuple[int, ...]) -> None:
        nan, minus, plus = np.isnan(x), np.isneginf(x), np.isposinf(x)
        self.nan += int(np.count_nonzero(nan))
        self.plus_inf += int(np.count_nonzero(plus))
        self.minus_inf += int(np.count_nonzero(minus))
        self.dead_rows += int(np.count_nonzero(minus.all(axis=axis)))
        if self.first_odd is None and (nan | plus).any():
            self.first_odd = first_place(nan | plus, offset)

    def _compare_rows(self, x: Array, axis: int) -> None:
        rows = np.moveaxis(x, axis, -1)
        if self.first_row is None:
            self.first_row = np.array(rows[(0,) * (x.ndim - 1)])
        # the second row nearly always tells
        self.alike = self._is_first(rows[(0,) * (x.ndim - 2)][1:2]) and self._is_first(rows)

    def _is_first(self, rows: Array) -> bool:
        """Whether rows are the first one but for rounding: a matrix product may treat those at its edge differently."""
        first = np.asarray(self.first_row)
        width = 4.0 * EPS.get(self.dtype, 0.0) * float(np.max(np.abs(first[np.isfinite(first)]), initial=0.0))
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(rows.astype(np.float64) - first.astype(np.float64))
            return bool(((rows == first) | (off <= width)).all())

    def merge(self, other: LogitStatistics) -> None:
        if self.first_row is None:
            self.first_row, self.alike = other.first_row, other.alike
        elif other.first_row is not None:
            self.alike = self.alike and other.alike and self._is_first(other.first_row)
        super().merge(other)


def _add_values(mine: dict[int, int], more: dict[int, int]) -> dict[int, int]:
    """How often each value occurs, of VALUES + 1 different ones at most."""
    for value, n in more.items():
        if value in mine or len(mine) <= VALUES:
            mine[value] = mine.get(value, 0) + n
    return mine


@dataclass
class LabelStatistics(Merging):
    """Statistics of labels, whatever the logits: class numbers, or rows of numbers."""

    dtype: str = field(metadata=KEPT)
    indices: bool = field(metadata=KEPT)
    classes: int = field(
        metadata=KEPT
    )  # of dense labels the row's length; of indices what the logits have, or 0 if unknown
    rows: int = 0
    low: float = field(default=math.inf, metadata=LEAST)
    top: float = field(default=-math.inf, metadata=MOST)
    # class numbers
    ignored: int = 0
    counts: Array | None = None  # (C,) how often each class occurs
    outside: dict[int, int] = field(
        default_factory=dict, metadata=merged_by(_add_values)
    )  # values that are no class; not all of them
    outside_rows: int = 0
    first_outside: tuple[tuple[int, ...], int] | None = field(default=None, metadata=EARLIER)
    # rows of numbers
    binary: int = 0  # rows of nothing but 0 and 1
    none: int = 0  # such rows without a 1, with one, and with two
    one: int = 0
    two: int = 0
    distributions: int = 0  # rows that sum to 1 without a negative entry
    negative: int = 0  # rows with a negative entry
    odd: int = 0  # NaN or infinite entries
    lowest_sum: float = field(default=math.inf, metadata=LEAST)
    highest_sum: float = field(default=-math.inf, metadata=MOST)
    positive: float = 0.0  # Σ of the labels in [0, 1]
    class_totals: Array | None = None  # (C,) Σ of each class's labels, for up to MATRIX classes
    values: set[float] = field(default_factory=set, metadata=merged_by(set.union))  # some beyond [0, 1]

    @property
    def several(self) -> int:
        """Rows of 0 and 1 with two or more ones."""
        return self.binary - self.none - self.one

    def add_indices(
        self, y: Array, ignore: float | None, offset: tuple[int, ...] = (), known: Array | None = None
    ) -> Array | None:
        """Take in class numbers, of those rows that are known; returns which count and have a class, None if all."""
        if not y.size:
            return None
        self.rows += y.size if known is None else int(np.count_nonzero(known))
        if known is not None:
            y = np.where(known, y, y.dtype.type(0))
        low, high = int(y.min()), int(y.max())
        self.low, self.top = min(self.low, low), max(self.top, high)
        counted = None
        if ignore is not None and low <= ignore <= high:
            counted = y != ignore
            self.ignored += int(np.count_nonzero(~counted if known is None else ~counted & known))
        if self.classes and (low < 0 or high >= self.classes):
            inside = (y >= 0) & (y < self.classes)
            wrong = ~inside if counted is None else ~inside & counted
            if wrong.any():
                values, often = np.unique(y[wrong], return_counts=True)
                self.outside_rows += int(often.sum())
                _add_values(self.outside, dict(zip(values.tolist(), often.tolist(), strict=True)))
                if self.first_outside is None:
                    at = np.unravel_index(int(np.argmax(wrong)), y.shape)
                    self.first_outside = first_place(wrong, offset), int(y[at])
            counted = inside if counted is None else inside & counted
        if known is not None:
            counted = known if counted is None else known & counted
        return None if counted is None or counted.all() else counted.reshape(-1)

    def add_rows(self, z: Array, axis: int, counts: dict[str, Any], sums: Array | None = None) -> None:
        """Take in rows with their counts; `sums` are those of each class, if they are known."""
        self.rows += z.size // self.classes
        self.accumulate(counts | {"label_odd": 0}, "label_")
        if counts["label_odd"]:
            self.odd += int(np.count_nonzero(~np.isfinite(z)))
        if self.classes <= MATRIX:
            sums = _class_sums(z, axis) if sums is None else sums.astype(np.float64)
            self.class_totals = sums if self.class_totals is None else self.class_totals + sums
        if (counts["label_low"] < 0.0 or counts["label_top"] > 1.0) and len(self.values) <= VALUES:
            self.values |= set(np.unique(z).astype(np.float64).tolist()[: VALUES + 1])


@dataclass
class PairStatistics(Merging):
    """How the two go together."""

    counted: int = 0  # rows; sigmoid: elements
    loss: float = 0.0  # Σ of the finite losses
    infinite: int = 0
    nan: int = 0
    right: int = 0
    matrix: Array | None = None  # (C, C) rows of true class i that were taken for j, of up to MATRIX classes
    # neighbours on the last axis of the rows
    neighbours: int = 0
    in_place: int = 0  # predicted[t] == labels[t], of those that have a neighbour
    ahead: int = 0  # predicted[t] == labels[t + 1]
    behind: int = 0  # predicted[t + 1] == labels[t]
    changes: int = 0  # labels[t] != labels[t + 1]
    # sigmoid: sums over elements for the sign
    z: float = 0.0
    x: float = 0.0
    zx: float = 0.0
    sample: Sample = field(default_factory=Sample, metadata=KEPT)

    def merge(self, other: PairStatistics) -> None:
        super().merge(other)
        self.sample.merge(other.sample)

    def add_neighbours(self, y: Array, predicted: Array, counted: Array | None, line: int) -> None:
        """Count rows that follow one another within lines of this length."""
        if line < 2:
            return
        own, said = y.reshape(-1, line), predicted.reshape(-1, line)
        here, there = (..., slice(None, -1)), (..., slice(1, None))
        pairs = {
            "in_place": said[here] == own[here],
            "ahead": said[here] == own[there],
            "behind": said[there] == own[here],
            "changes": own[here] != own[there],
        }
        self.neighbours += pairs["in_place"].size
        if counted is not None:
            known = counted.reshape(-1, line)
            both = known[here] & known[there]
            self.neighbours += int(np.count_nonzero(both)) - both.size
            pairs = {name: mask & both for name, mask in pairs.items()}
        self.accumulate({name: int(np.count_nonzero(mask)) for name, mask in pairs.items()})


@dataclass
class Figures(Merging):
    """What an evaluation counts besides, of all classes (C) and in the bins of `bins`.

    All but the histogram is weighted. Without weights, what is counted are integers.
    """

    class_loss: Array  # (C,) Σ of the losses of each class
    class_weight: Array  # (C,) exclusive classes: rows of each class; independent: elements
    within: Array  # exclusive classes: rows whose class is among the k largest
    answers: Array  # (3, C) independent classes: label yes, logit yes, both
    confidence: Array  # (3, B) how many probabilities, their sum, what came true
    histogram: Array  # of losses
    weight: float = 0  # of all that counts
    weighted_loss: float = 0.0  # Σ of the finite losses

    @classmethod
    def empty(cls, classes: int, bins: Bins) -> Figures:
        """Figures with nothing counted yet."""
        return cls(
            np.zeros(classes), np.zeros(classes, np.int64), np.zeros(len(bins.within), np.int64),
            np.zeros((3, classes), np.int64), np.zeros((3, bins.confidence)), np.zeros(bins.losses, np.int64),
        )  # fmt: skip


def first_place(mask: Array, offset: tuple[int, ...]) -> tuple[int, ...]:
    """Where the first flag of a block lies in the whole."""
    where = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return tuple(int(i) + o for i, o in zip(where, offset or (0,) * mask.ndim, strict=True))


def _class_sums(z: Array, axis: int) -> Array:
    """(C,) The sum of each class's labels."""
    classes = z.shape[axis]
    if axis < z.ndim - 1:
        return np.asarray(z.sum(axis=tuple(i for i in range(z.ndim) if i != axis), dtype=np.float64))
    rows = z.reshape(-1, classes)
    together = 1024 // classes  # rows side by side: NumPy adds up long rows several times faster than short ones
    whole = len(rows) // together * together
    sums: Array = rows[whole:].sum(axis=0, dtype=np.float64)
    if whole:
        sums += rows[:whole].reshape(-1, together * classes).sum(axis=0, dtype=np.float64).reshape(-1, classes).sum(0)
    return sums
