"""What there is to know of logits, of labels, and of the two together: sums and extremes that grow and merge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import engine
from withlogits.activations import logsumexp
from withlogits.guide.temperature import Sample

Array = NDArray[Any]

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
MATRIX = 512  # of up to so many classes every confusion is counted
VALUES = 16  # distinct values that are remembered of odd labels
END = 0.05  # how near to 0 or 1 is near


def closeness(dtype: str, classes: int) -> float:
    """How far the sum of a row of probabilities in this dtype may lie from 1."""
    return max(1e-3, 2.0 * EPS.get(dtype, 0.0) * max(1.0, math.sqrt(classes)))


@dataclass
class LogitFacts:
    """What the logits are like, whatever the labels."""

    dtype: str
    classes: int
    rows: int = 0
    low: float = np.inf
    top: float = -np.inf
    sums_to_one: int = 0
    near_ends: int = 0  # elements near 0 or 1; counted while all lie in [0, 1]
    normalized: int = 0  # rows whose logsumexp is 0; counted while none lies above 0
    nan: int = 0
    plus_inf: int = 0
    minus_inf: int = 0
    dead_rows: int = 0  # only -inf
    first_odd: tuple[int, ...] | None = None  # where the first NaN or +inf lies
    saturated: int = 0
    spread: float = 0.0  # Σ over rows of top − low, where finite
    first_row: Array | None = None
    alike: bool = True  # every row is the first one

    @property
    def elements(self) -> int:
        return self.rows * self.classes

    @property
    def in_unit(self) -> bool:
        """Do all logits lie in [0, 1]."""
        return bool(self.rows) and self.low >= 0.0 and self.top <= 1.0 and not self.nan + self.plus_inf

    def add(
        self,
        x: Array,
        axis: int,
        tallies: dict[str, Any],
        offset: tuple[int, ...],
        facts: dict[str, Array] | None = None,
    ) -> None:
        """A block of logits with its tallies; its facts, if they are there already."""
        if not x.size:
            return
        rows = x.size // self.classes
        was_in_unit = not self.rows or self.in_unit
        self.rows += rows
        self.low, self.top = min(self.low, tallies["low"]), max(self.top, tallies["top"])
        if tallies["odd_rows"]:
            self._add_odd(x, axis, offset)
        # an element may leave [0, 1] by the rounding of its dtype
        if was_in_unit and self.in_unit:
            close = closeness(self.dtype, self.classes)
            facts = engine.select().row_facts(x, axis) if facts is None else facts
            self.sums_to_one += int(np.count_nonzero(np.abs(facts["total"] - 1.0) <= close))
            self.near_ends += int(np.count_nonzero((x < END) | (x > 1 - END)))
        if tallies["top"] <= closeness(self.dtype, self.classes) and self.classes > 1:
            size = logsumexp(x, axis=axis)
            self.normalized += int(np.count_nonzero(np.abs(size) <= closeness(self.dtype, self.classes)))
        self.spread += tallies["spread"]
        self._compare_rows(x, axis, facts)

    def _add_odd(self, x: Array, axis: int, offset: tuple[int, ...]) -> None:
        nan, minus = np.isnan(x), np.isneginf(x)
        plus = np.isposinf(x)
        self.nan += int(np.count_nonzero(nan))
        self.plus_inf += int(np.count_nonzero(plus))
        self.minus_inf += int(np.count_nonzero(minus))
        self.dead_rows += int(np.count_nonzero(minus.all(axis=axis)))
        if self.first_odd is None and (nan | plus).any():
            where = np.unravel_index(int(np.argmax(nan | plus)), x.shape)
            self.first_odd = tuple(int(i) + o for i, o in zip(where, offset, strict=True))

    def _compare_rows(self, x: Array, axis: int, facts: dict[str, Array] | None) -> None:
        if not self.alike:
            return
        if self.first_row is None:
            self.first_row = np.array(np.moveaxis(x, axis, -1)[(0,) * (x.ndim - 1)])
        first = self.first_row
        line = np.moveaxis(x, axis, -1)[(0,) * (x.ndim - 2)]
        self.alike = self._near(line[1:2], first)  # which nearly always tells
        if self.alike and facts is not None:
            ends = (facts["top"], first.max()), (facts["low"], first.min())
            self.alike = all(self._near(numbers, end) for numbers, end in ends)
        if self.alike:
            self.alike = self._near(x, first.reshape([-1 if i == axis else 1 for i in range(x.ndim)]))

    def _near(self, x: Array, first: Array) -> bool:
        """The same but for rounding: a matrix product may treat the rows at its edge in another way."""
        finite = np.abs(first[np.isfinite(first)]) if np.ndim(first) else np.abs(first)
        width = 4.0 * EPS.get(self.dtype, 0.0) * float(np.max(finite, initial=0.0))
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(x.astype(np.float64) - np.asarray(first, np.float64))
            return bool(((x == first) | (off <= width)).all())

    def _is_first(self, row: Array | None) -> bool:
        first = self.first_row
        if first is None or row is None:
            return True
        return self._near(row, first)

    def merge(self, other: LogitFacts) -> None:
        if not other.rows:
            return
        if not self.rows:
            self.first_row, self.alike, self.first_odd = other.first_row, other.alike, other.first_odd
        else:
            self.alike = self.alike and other.alike and self._is_first(other.first_row)
            both = [odd for odd in (self.first_odd, other.first_odd) if odd is not None]
            self.first_odd = min(both, default=None)
        self.rows += other.rows
        self.low, self.top = min(self.low, other.low), max(self.top, other.top)
        for name in (
            "sums_to_one", "near_ends", "normalized", "nan", "plus_inf", "minus_inf", "dead_rows",
            "saturated", "spread",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class LabelFacts:
    """What labels are like, whatever the logits: class numbers, or rows of numbers."""

    dtype: str
    indices: bool
    classes: int  # of dense labels the row's length; of indices what the logits have, or 0 if unknown
    rows: int = 0
    low: float = np.inf
    top: float = -np.inf
    # class numbers
    ignored: int = 0
    counts: Array | None = None  # (C,) how often each class occurs
    outside: dict[int, int] = field(default_factory=dict)  # values that are no class, and how often; not all of them
    outside_rows: int = 0
    first_outside: tuple[tuple[int, ...], int] | None = None
    # rows of numbers
    binary_rows: int = 0  # nothing but 0 and 1
    of_sum: Array = field(default_factory=lambda: np.zeros(4, np.int64))  # binary rows with 0, 1, 2, 3 or more ones
    distributions: int = 0  # rows that sum to 1 without a negative entry
    negative_rows: int = 0
    odd: int = 0  # NaN or infinite entries
    lowest_sum: float = np.inf
    highest_sum: float = -np.inf
    positive: float = 0.0  # Σ of the labels in [0, 1]
    class_totals: Array | None = None  # (C,) Σ of each class's labels, for up to MATRIX classes
    values: set[float] = field(default_factory=set)  # of labels beyond [0, 1], some; VALUES + 1 means many

    def add_indices(self, y: Array, ignore: int | None, offset: tuple[int, ...] = ()) -> Array | None:
        """Returns which rows count and have a class; None if all."""
        if not y.size:
            return None
        self.rows += y.size
        low, high = int(y.min()), int(y.max())
        self.low, self.top = min(self.low, low), max(self.top, high)
        counted = None
        if ignore is not None and low <= ignore <= high:
            skipped = y == ignore
            if skipped.any():
                self.ignored += int(np.count_nonzero(skipped))
                counted = ~skipped
        if self.classes and (low < 0 or high >= self.classes):
            inside = (y >= 0) & (y < self.classes)
            wrong = ~inside if counted is None else ~inside & counted
            if wrong.any():
                values, often = np.unique(y[wrong], return_counts=True)
                self.outside_rows += int(often.sum())
                for value, n in zip(values.tolist(), often.tolist(), strict=True):
                    if value in self.outside or len(self.outside) <= VALUES:
                        self.outside[value] = self.outside.get(value, 0) + n
                if self.first_outside is None:
                    where = np.unravel_index(int(np.argmax(wrong)), y.shape)
                    shifted = tuple(int(i) + o for i, o in zip(where, offset or (0,) * y.ndim, strict=True))
                    self.first_outside = shifted, int(y[where])
            counted = inside if counted is None else inside & counted
        return None if counted is None else counted.reshape(-1)

    def add_rows(self, z: Array, axis: int, tallies: dict[str, Any], sums: Array | None = None) -> None:
        """Rows of which `label_tallies` has told; `sums` are those of each class, if they are known."""
        if not z.size:
            return
        rows = z.size // self.classes
        self.rows += rows
        self.low, self.top = min(self.low, tallies["low"]), max(self.top, tallies["top"])
        if tallies["odd"]:
            self.odd += int(np.count_nonzero(~np.isfinite(z)))
        binary, few = tallies["binary"], [tallies[name] for name in ("none", "one", "two")]
        self.binary_rows += binary
        self.of_sum += [*few, binary - sum(few)]
        self.distributions += tallies["distributions"]
        self.negative_rows += tallies["negative"]
        self.lowest_sum = min(self.lowest_sum, tallies["lowest_sum"])
        self.highest_sum = max(self.highest_sum, tallies["highest_sum"])
        self.positive += tallies["positive"]
        if self.classes <= MATRIX:
            sums = _class_sums(z, axis) if sums is None else sums.astype(np.float64)
            self.class_totals = sums if self.class_totals is None else self.class_totals + sums
        if (tallies["low"] < 0.0 or tallies["top"] > 1.0) and len(self.values) <= VALUES:
            self.values |= set(np.unique(z).astype(np.float64).tolist()[: VALUES + 1])

    def merge(self, other: LabelFacts) -> None:
        self.low, self.top = min(self.low, other.low), max(self.top, other.top)
        self.lowest_sum = min(self.lowest_sum, other.lowest_sum)
        self.highest_sum = max(self.highest_sum, other.highest_sum)
        for name in (
            "rows", "ignored", "outside_rows", "binary_rows", "of_sum", "distributions", "negative_rows", "odd",
            "positive",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("counts", "class_totals"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs if mine is None else mine if theirs is None else mine + theirs)
        for value, n in other.outside.items():
            if value in self.outside or len(self.outside) <= VALUES:
                self.outside[value] = self.outside.get(value, 0) + n
        both = [first for first in (self.first_outside, other.first_outside) if first is not None]
        self.first_outside = min(both, default=None)
        self.values |= other.values


@dataclass
class PairFacts:
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
    sample: Sample = field(default_factory=Sample)

    def merge(self, other: PairFacts) -> None:
        for name in (
            "counted", "loss", "infinite", "nan", "right", "neighbours", "in_place", "ahead", "behind", "changes",
            "z", "x", "zx",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.matrix is not None:
            self.matrix = other.matrix if self.matrix is None else self.matrix + other.matrix
        self.sample.merge(other.sample)


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
