"""All that the guide looks at, gathered block by block in one pass: sums and extremes that merge, never a copy.

A block is some rows of logits with their labels. What a row is like comes from `row_facts` (one pass of a compiled
kernel over the logits, one over dense labels), the losses from the public losses, and what there is to count of them
from `row_tallies` (one pass over the rows' numbers). Costlier looks (for NaN, for equal rows) are taken only after the
cheap facts have raised the suspicion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from withlogits import engine
from withlogits.activations import logsumexp
from withlogits.guide.temperature import SIZE, Sample
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)

if TYPE_CHECKING:
    from withlogits.evaluation.bins import Bins

Array = NDArray[Any]

IGNORED = -1  # what stands for labels that do not count, or are no class, when a loss is asked for
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
MATRIX = 512  # of up to so many classes every confusion is counted
VALUES = 16  # distinct values that are remembered of odd labels
END = 0.05  # how near to 0 or 1 is near


def closeness(dtype: str, classes: int) -> float:
    """How far the sum of a row of probabilities in this dtype may lie from 1."""
    return max(1e-3, 2.0 * EPS.get(dtype, 0.0) * max(1.0, math.sqrt(classes)))


@dataclass
class Block:
    """Rows of logits and labels with what has been found out about each row."""

    x: Array  # logits, (..., C on `axis`, ...)
    z: Array  # labels: (rows) of class numbers, or as the logits
    axis: int
    y: Array  # (N,) the class of each row: its number, or the first of the largest labels; sigmoid: unused
    counts: Array | None  # (N,) which rows count and have a class; None: all
    loss: Array  # (N,), sigmoid: the logits' shape
    facts: dict[str, Array]  # of the logits' rows
    label_facts: dict[str, Array] | None  # of the rows of dense labels
    size: Array | None = None  # (N,) logsumexp of each row, where the loss does not tell it
    tallies: dict[str, Any] = field(default_factory=dict)  # what was counted of the rows; sigmoid: nothing

    @property
    def predicted(self) -> Array:
        return self.facts["first"].astype(np.int64)

    def pairs(self, classes: int) -> Array:
        """class · C + prediction of each row that counts."""
        codes = self.y * classes + self.predicted
        return codes if self.counts is None else codes[self.counts]


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
        self, x: Array, axis: int, facts: dict[str, Array], tallies: dict[str, Any], offset: tuple[int, ...]
    ) -> None:
        rows = len(facts["top"])
        if not rows or not self.classes:
            return
        was_in_unit = not self.rows or self.in_unit
        self.rows += rows
        self.low, self.top = min(self.low, tallies["low"]), max(self.top, tallies["top"])
        if tallies["odd_rows"]:
            self._add_odd(x, axis, facts, offset)
        # an element may leave [0, 1] by the rounding of its dtype
        if was_in_unit and self.in_unit:
            close = closeness(self.dtype, self.classes)
            self.sums_to_one += int(np.count_nonzero(np.abs(facts["total"] - 1.0) <= close))
            self.near_ends += int(np.count_nonzero((x < END) | (x > 1 - END)))
        if tallies["top"] <= closeness(self.dtype, self.classes) and self.classes > 1:
            size = logsumexp(x, axis=axis)
            self.normalized += int(np.count_nonzero(np.abs(size) <= closeness(self.dtype, self.classes)))
        self.spread += tallies["spread"]
        self._compare_rows(x, axis, facts)

    def _add_odd(self, x: Array, axis: int, facts: dict[str, Array], offset: tuple[int, ...]) -> None:
        nan, minus = np.isnan(x), np.isneginf(x)
        plus = np.isposinf(x)
        self.nan += int(np.count_nonzero(nan))
        self.plus_inf += int(np.count_nonzero(plus))
        self.minus_inf += int(np.count_nonzero(minus))
        self.dead_rows += int(np.count_nonzero(minus.all(axis=axis)))
        if self.first_odd is None and (nan | plus).any():
            where = np.unravel_index(int(np.argmax(nan | plus)), x.shape)
            self.first_odd = tuple(int(i) + o for i, o in zip(where, offset, strict=True))

    def _compare_rows(self, x: Array, axis: int, facts: dict[str, Array]) -> None:
        if not self.alike:
            return
        if self.first_row is None:
            self.first_row = np.array(np.moveaxis(x, axis, -1)[(0,) * (x.ndim - 1)])
        first = self.first_row
        ends = (facts["top"][:64], first.max()), (facts["top"], first.max()), (facts["low"], first.min())
        same = all(self._near(numbers, end) for numbers, end in ends)
        self.alike = same and self._near(x, first.reshape([-1 if i == axis else 1 for i in range(x.ndim)]))

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

    def add_rows(self, z: Array, axis: int, tallies: dict[str, Any]) -> None:
        """Rows of which `label_tallies` has told."""
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
            sums = _class_sums(z, axis)
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


@dataclass
class Survey:
    """A pair of labels and logits, looked at block by block. `kind` is "sparse", "softmax" or "sigmoid"."""

    kind: str
    axis: int  # of the classes
    logits: LogitFacts
    labels: LabelFacts
    pair: PairFacts
    ignore_index: int | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of the loss, that change its value
    losses: bool = True  # is the loss of each element wanted (sigmoid), or their sum alone
    bins: Bins | None = None  # of the figures of an evaluation, if they are wanted
    floor: float = -np.inf  # losses that are worth remembering one by one

    @classmethod
    def begin(
        cls,
        kind: str,
        axis: int,
        classes: int,
        logits: str,
        labels: str,
        ignore: int | None,
        options: dict[str, Any],
        sample: int = SIZE,
    ) -> Survey:
        """With nothing seen yet; `logits` and `labels` are the names of dtypes."""
        return cls(
            kind, axis, LogitFacts(logits, classes), LabelFacts(labels, kind == "sparse", classes),
            PairFacts(sample=Sample(sample, independent=kind == "sigmoid")), ignore, options,
        )  # fmt: skip

    def add(self, x: Array, z: Array, offset: tuple[int, ...] = ()) -> Block:
        """Look at a block: logits with the classes on `axis`, labels without it (sparse) or in the same shape.

        `offset` is where the block lies in the whole.
        """
        offset = offset or (0,) * x.ndim
        if self.kind == "sigmoid":
            return self._add_elements(x, z, offset)
        rows, label_facts, size = engine.select().row_facts, None, None
        if self.kind == "sparse":
            row_offset = offset[: self.axis] + offset[self.axis + 1 :]
            counts = self.labels.add_indices(z, self.ignore_index, row_offset)
            y = z.reshape(-1)
            if counts is not None:
                y = np.where(counts, y, 0)
            y = np.ascontiguousarray(y, np.int64)
            facts = rows(x, self.axis, y)
            labels = z if counts is None else np.where(counts, y, IGNORED).reshape(z.shape)
            with np.errstate(invalid="ignore"):
                loss = sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=x, axis=self.axis, ignore_index=None if counts is None else IGNORED,
                    **self.options,
                )  # fmt: skip
        else:
            label_facts = rows(z, self.axis)
            close = closeness(self.labels.dtype, self.labels.classes)
            self.labels.add_rows(z, self.axis, engine.select().label_tallies(label_facts, close))
            y, counts = label_facts["first"].astype(np.int64), None
            if self.labels.distributions < self.labels.rows:  # rows that want no class are no mistake of the logits
                counts = label_facts["top"] > 0.0
                counts = None if counts.all() else counts
            facts = rows(x, self.axis, y)
            loss = softmax_cross_entropy_with_logits(labels=z, logits=x, axis=self.axis, **self.options)
        if self.kind == "softmax" or self.options:
            size = np.asarray(logsumexp(x, axis=self.axis)).reshape(-1).astype(np.float64)
        block = Block(x, z, self.axis, y, counts, np.asarray(loss).reshape(-1), facts, label_facts, size)
        self._count(block)
        self.logits.add(x, self.axis, facts, block.tallies, offset)
        return block

    def _count(self, block: Block) -> None:
        pair, classes, rows = self.pair, self.logits.classes, len(block.y)
        shape = without(block.x.shape, block.axis)
        hot = block.label_facts is None or bool((block.label_facts["top"] == 1.0).all())
        wanted = 1 < classes <= MATRIX
        for limit in pair.sample.limits(classes, rows):
            block.tallies = tallies = engine.select().row_tallies(
                block.facts, block.y, block.loss, classes=classes, line=shape[-1] if shape else 1,
                matrix=wanted and classes * classes <= max(4096, 4 * rows), limit=limit,
                counts=block.counts, size=block.size, bins=self.bins, floor=self.floor,
            )  # fmt: skip
            if pair.sample.enough(classes, len(tallies["keyed"])):
                break
        for name in (
            "right", "counted", "loss", "nan", "infinite", "neighbours", "in_place", "ahead", "behind", "changes",
        ):  # fmt: skip
            setattr(pair, name, getattr(pair, name) + tallies[name])
        if classes > 1:
            self.logits.saturated += tallies["saturated"]
        if self.kind == "sparse" and classes <= 1 << 20:
            counts = self.labels.counts
            self.labels.counts = tallies["support"] if counts is None else counts + tallies["support"]
        if wanted and hot:
            if pair.matrix is None:
                pair.matrix = np.zeros((classes, classes), np.int64)
            if tallies["matrix"] is None:
                np.add.at(pair.matrix.reshape(-1), block.pairs(classes), 1)
            else:
                pair.matrix += tallies["matrix"]
        pair.sample.add(block.x, block.z, block.axis, tallies["keyed"], tallies["keys"])

    def _add_elements(self, x: Array, z: Array, offset: tuple[int, ...]) -> Block:
        rows, pair = engine.select().row_facts, self.pair
        facts, label_facts = rows(x, self.axis), rows(z, self.axis)
        close = closeness(self.labels.dtype, self.labels.classes)
        for limit in pair.sample.limits(self.logits.classes, len(facts["top"])):
            tallies = engine.select().label_tallies(label_facts, close, facts, limit)
            if pair.sample.enough(self.logits.classes, len(tallies["logits"]["keyed"])):
                break
        of_logits = tallies["logits"]
        self.labels.add_rows(z, self.axis, tallies)
        self.logits.add(x, self.axis, facts, of_logits, offset)
        self.logits.saturated += of_logits["saturated"]
        loss, total = np.zeros(0), np.nan
        if not self.losses and not of_logits["odd_rows"]:
            total = float(sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction="sum", **self.options))
        if not np.isfinite(total):
            loss = np.asarray(sigmoid_cross_entropy_with_logits(labels=z, logits=x, **self.options))
            total = float(loss.sum(dtype=np.float64))
        if not np.isfinite(total):
            pair.nan += int(np.count_nonzero(np.isnan(loss)))
            pair.infinite += int(np.count_nonzero(np.isinf(loss)))
            total = float(loss[np.isfinite(loss)].sum(dtype=np.float64))
        pair.loss += total
        pair.counted += x.size
        if not of_logits["odd_rows"] and not tallies["odd"]:
            wide = np.float64 if x.dtype == np.float64 else np.float32
            a, b = x.astype(wide, copy=False).reshape(-1), z.astype(wide, copy=False).reshape(-1)
            with np.errstate(over="ignore", invalid="ignore"):
                pair.zx += float(np.dot(a, b))
            pair.x += of_logits["total"]
            pair.z += tallies["total"]
        pair.sample.add(x, z, self.axis, of_logits["keyed"], of_logits["keys"])
        return Block(x, z, self.axis, np.zeros(0, np.int64), None, loss, facts, label_facts)

    def merge(self, other: Survey) -> None:
        """Take in what another survey of the same kind has seen."""
        self.logits.merge(other.logits)
        self.labels.merge(other.labels)
        self.pair.merge(other.pair)


def in_rows(kind: str, axis: int, x: Array, z: Array) -> tuple[Array, Array, int]:
    """Logits and labels with an axis of rows, where there was none, and the axis of the classes."""
    if z.dtype == np.uint64:
        z = z.astype(np.int64)
    if kind == "sigmoid" and x.ndim < 2:
        return x.reshape(-1, 1), z.reshape(-1, 1), 1
    if x.ndim == 1:
        return x[None], z[None], 1
    return x, z, axis % x.ndim


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


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
