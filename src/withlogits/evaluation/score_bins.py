"""Scores of yes and no in bins, which adapt to the range of the scores and merge exactly.

Of each class, the EXTREMES smallest and as many largest distinct scores are counted one by one. What lies between is
counted in bins 2^s wide, at whole multiples of 2^s rounded towards 0, with the smallest s for which the bins reach from
the one group to the other, and not too many of them are filled. So outliers, infinities and a constant for padding do
not widen the bins. More scores can only move the groups apart and fill more bins: s grows, and two bins become one.
Nothing of this depends on the order of the scores or on how they were split: parts merge to the counts of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics import arrays, backend

Array = NDArray[Any]

MOST_FILLED = 1 << 14  # bins of a class that may be filled, if it is the only one
FILLED = 1 << 12  # the same, if there are several
ALL_FILLED = 1 << 15  # of all classes, if they are few: what caches hold
ROOM, MOST_ROOM = 1 << 20, 1 << 22  # counters, if classes have more bins than may be filled; if not
FEWEST_BINS = 64  # of a class
EXTREMES = 64  # on each side of a class; ROOM_EXTREMES bounds those of many classes
FEWEST_EXTREMES = 4
ROOM_EXTREMES = 1 << 13
NARROW = (1 << 31) - 1  # elements of a class that counters of 4 bytes hold; they take half the room in the caches
FEW = 16  # of so few classes, threads count parts of the rows; of more, some of the classes
TABLES = 2  # parts of the rows
PENDING = 1 << 15  # scores that wait to be sorted
SAMPLE = 1 << 12  # scores that tell about where the extremes of a block begin
MANTISSA = 51  # a bin is not narrower than the distance of float64 numbers of its size, twice
LEAST = -1000  # nor than 2^LEAST


class Counted(NamedTuple):
    """How many elements without and with the label have which score."""

    of_class: Array  # (n,) rising
    value: Array  # (n,) float64, of each class rising
    no: Array  # (n,)
    yes: Array  # (n,)


def ranking(scores: Array) -> Array:
    """Return scores with -inf for NaN, which ranks below all others; the diagnosis speaks of it."""
    return np.where(scores == scores, scores, scores.dtype.type(-np.inf))


def together(parts: list[Counted]) -> Counted:
    """Return the sum: each score of a class once."""
    parts = [part for part in parts if len(part.value)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    both = Counted(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    order = np.lexsort((both.value, both.of_class))
    return _once(Counted(*(each[order] for each in both)))


def _once(each: Counted) -> Counted:
    """Add up equal scores of a class, which follow one another."""
    new = np.ones(len(each.value), np.bool_)
    new[1:] = (each.of_class[1:] != each.of_class[:-1]) | (each.value[1:] != each.value[:-1])
    first = np.flatnonzero(new)
    if len(first) == len(new):
        return each
    return Counted(each.of_class[first], each.value[first], *(np.add.reduceat(a, first) for a in (each.no, each.yes)))


def counted(of_class: Array, value: Array, yes: Array, weight: Array | None = None) -> Counted:
    """Count elements one by one, (n,) each."""
    value = ranking(value) + value.dtype.type(0)  # no -0
    if weight is not None or value.dtype.itemsize > 4:
        order = np.lexsort((value, of_class))
        of_class, value, yes = of_class[order], value[order].astype(np.float64), yes[order]
        ones = np.ones(len(value), np.int64) if weight is None else weight[order]
        return _once(Counted(of_class, value, np.where(yes, 0, ones), np.where(yes, ones, 0)))
    # One sort of whole numbers takes a fraction of the time: class, score, and answer in the bits of one.
    words = value.astype(np.float32, copy=False).view(np.int32).astype(np.int64)
    ordered = np.where(words < 0, ~words & 0x7FFFFFFF, words | 0x80000000).astype(np.uint64)
    keys, many = np.unique(
        of_class.astype(np.uint64) << np.uint64(33) | ordered << np.uint64(1) | yes.astype(np.uint64),
        return_counts=True,
    )
    ordered = (keys >> np.uint64(1) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    words = np.where(ordered & 0x80000000, ordered & 0x7FFFFFFF, ~ordered | 0x80000000).astype(np.uint32)
    said = (keys & np.uint64(1)) == 1
    of_class, value = (keys >> np.uint64(33)).astype(np.int64), words.view(np.float32).astype(np.float64)
    return _once(Counted(of_class, value, np.where(said, 0, many), np.where(said, many, 0)))


@dataclass
class ScoreBins:
    """The scores of elements of independent classes, counted."""

    classes: int
    step: Array = field(init=False)  # (C,) s: a bin is 2^s wide
    base: Array = field(init=False)  # (C,) the first bin, in multiples of 2^s
    low: Array = field(init=False)  # (C,) the largest of the smallest scores; inf while all are counted one by one
    high: Array = field(init=False)  # (C,) the smallest of the largest scores; -inf while all are counted one by one
    counts: Array = field(init=False)  # (TABLES, C, 2, B): how many without and with the label, in parts to be added
    extremes: Counted = field(init=False)
    pending: list[Counted] = field(default_factory=list)  # outside of the bins
    checked: int = 0  # elements of a class when the filled bins were counted last

    def __post_init__(self) -> None:
        classes = max(1, self.classes)
        size = max(FEWEST_BINS, ROOM // (2 * classes), min(self._may_be_filled, MOST_ROOM // (2 * classes)))
        self.step, self.base = np.full(classes, LEAST), np.zeros(classes)
        self.low, self.high = np.full(classes, np.inf), np.full(classes, -np.inf)
        self.counts = np.zeros((TABLES if classes <= FEW else 1, classes, 2, size), np.int32)
        nothing = np.zeros(0, np.int64)
        self.extremes = Counted(nothing, np.zeros(0), nothing, nothing)

    def add(self, x: Array, z: Array, elements: int, weight: Array | None = None) -> None:
        """Count elements (rows, C); `elements` bounds how many there are of a class then.

        Weights that are booleans say which elements count.
        """
        self._widen(elements)
        self._open(x, weight)
        window = (np.ldexp(1.0, -self.step), self.base, self.low, self.high)
        known = weight
        if weight is not None:
            known = weight > 0
            x = np.where(known, x, x.dtype.type(np.nan))  # which is in no bin
            weight = None if weight.dtype == np.bool_ else weight
        if weight is not None and self.counts.dtype.kind != "f":
            self.counts = self.counts.astype(np.float64)
        if self.counts.dtype.kind == "f":
            listed = arrays.count_scores(x, z, self.counts, window, weight)
        else:
            listed = backend().count_scores(x, z, self.counts, window)
        if known is not None:
            listed = listed[known.reshape(-1)[listed]]
        if len(listed):
            chosen = (a.reshape(-1)[listed] for a in (x, z))
            value, yes = next(chosen), next(chosen) > 0.5
            if value.dtype != np.float64:
                value = value.astype(np.float32)
            self.pending.append(
                counted(listed % self.classes, value, yes, None if weight is None else weight.reshape(-1)[listed])
            )
            if sum(len(part.value) for part in self.pending) > PENDING:
                self._absorb()
        if elements >= 4 * self.checked:
            self.checked = elements
            self._coarsen()

    def merge(self, other: ScoreBins, elements: int) -> None:
        """Take in what another has counted."""
        self._widen(elements)
        if other.counts.dtype.kind == "f":
            self.counts = self.counts.astype(np.float64, copy=False)
        self.pending += [other.extremes, *other.pending]
        self._absorb()
        self._place(np.arange(self.classes), other.step, only_coarser=True)
        of_class, bins, no, yes = other._bins()
        if len(of_class):
            self._add_bins(of_class, np.ldexp(bins, other.step[of_class]), no, yes)
        self._coarsen()

    @property
    def _may_be_filled(self) -> int:
        return max(FILLED, min(MOST_FILLED, ALL_FILLED // max(1, self.classes)))

    @property
    def _keep(self) -> int:
        """How many distinct scores on each side are counted one by one."""
        return max(FEWEST_EXTREMES, min(EXTREMES, ROOM_EXTREMES // self.classes))

    def _open(self, x: Array, weight: Array | None) -> None:
        """Find the extremes of classes without bins, so that few elements are counted one by one."""
        keep = self._keep
        for c in np.flatnonzero(self.low == np.inf):
            value = ranking(x[:, c] if weight is None else x[:, c][weight[:, c] > 0])
            if len(value) < 64 * keep:
                continue
            some = np.sort(value[:: -(-len(value) // SAMPLE)])
            ends = 1 + 8 * keep * len(some) // len(value)
            low, high = np.unique(value[value <= some[ends]]), np.unique(value[value >= some[-1 - ends]])
            if len(low) >= keep and len(high) >= keep and low[keep - 1] < high[-keep]:
                self.low[c], self.high[c] = low[keep - 1], high[-keep]
        opened = np.flatnonzero((self.low < self.high) & (self.step == LEAST))
        self._place(opened, self.step[opened])

    def _widen(self, elements: int) -> None:
        if elements > NARROW and self.counts.dtype == np.int32:
            self.counts = self.counts.astype(np.int64)

    def _absorb(self) -> None:
        """Take in elements outside of the bins: those that are not among the extremes any more go to the bins."""
        each, self.pending = together([self.extremes, *self.pending]), []
        keep = self._keep
        start = np.searchsorted(each.of_class, np.arange(self.classes + 1))
        many = np.diff(start)
        place = np.arange(len(each.value)) - start[each.of_class]
        inner = (place >= keep) & (place < many[each.of_class] - keep)
        self.extremes = Counted(*(part[~inner] for part in each))
        apart = np.flatnonzero(many >= 2 * keep)
        if not len(apart):
            return
        self.low[apart], self.high[apart] = each.value[start[apart] + keep - 1], each.value[start[apart + 1] - keep]
        ends = (np.trunc(np.ldexp(end[apart], -self.step[apart])) for end in (self.low, self.high))
        first, last = next(ends), next(ends)
        wide = (
            (first < self.base[apart]) | (last >= self.base[apart] + self.counts.shape[3]) | (self.step[apart] == LEAST)
        )
        self._place(apart[wide], self.step[apart[wide]])
        if inner.any():
            self._add_bins(*(part[inner] for part in each))

    def _smallest_step(self, classes: Array) -> Array:
        """The smallest s for which the bins reach from low to high, and a third further."""
        low, high, size = self.low[classes], self.high[classes], 3 * self.counts.shape[3] // 4
        _, exponent = np.frexp(high * 0.25 - low * 0.25)
        _, largest = np.frexp(np.maximum(np.abs(low), np.abs(high)))
        s = np.maximum(np.maximum(exponent + 1 - int(size).bit_length(), largest - 1 - MANTISSA), LEAST)
        while True:
            wide = np.trunc(np.ldexp(high, -s)) - np.trunc(np.ldexp(low, -s)) > size - 1
            if not wide.any():
                return np.asarray(s)
            s = s + wide

    def _place(self, classes: Array, at_least: Array, only_coarser: bool = False) -> None:
        """Put the bins of these classes where their scores are, and count in them what was counted."""
        if only_coarser:
            coarser = at_least > self.step[classes]
            classes, at_least = classes[coarser], at_least[coarser]
        if not len(classes):
            return
        size = self.counts.shape[3]
        of_class, bins, no, yes = self._bins(classes)
        value = np.ldexp(bins, self.step[of_class])
        s = np.maximum(self._smallest_step(classes), at_least)
        ends = (np.trunc(np.ldexp(end[classes], -s)) for end in (self.low, self.high))
        first, last = next(ends), next(ends)
        self.step[classes] = s
        self.base[classes] = first - (size - 1 - (last - first)) // 2
        self.counts[:, classes] = 0
        self._add_bins(of_class, value, no, yes)

    def _coarsen(self) -> None:
        """Give each class the smallest step that it may have."""
        self._absorb()
        apart = np.flatnonzero(self.low < self.high)
        self._place(apart, self._smallest_step(apart), only_coarser=True)
        most = self._may_be_filled
        while self.counts.shape[3] > most:
            filled = np.count_nonzero(self._any(self.counts), axis=1)
            full = np.flatnonzero(filled > most)
            if not len(full):
                return
            # twice as wide bins are at least half as many
            octaves = np.maximum(1, np.log2(filled[full] / most).astype(np.int64))
            self._place(full, self.step[full] + octaves)

    @staticmethod
    def _any(counts: Array) -> Array:
        """(C, B) which bins are not empty."""
        filled: Array = counts[0, :, 0] != 0
        for table in counts:
            for answer in (0, 1):
                filled |= table[:, answer] != 0
        return filled

    def _bins(self, classes: Array | None = None) -> Counted:
        """The bins that are not empty, by their numbers."""
        counts = self.counts if classes is None or len(classes) == self.classes else self.counts[:, classes]
        row, place = np.nonzero(self._any(counts))
        of_class = row if classes is None else classes[row]
        no, yes = (sum(table[row, answer, place] for table in counts) for answer in (0, 1))
        return Counted(of_class, self.base[of_class] + place, np.asarray(no), np.asarray(yes))

    def _add_bins(self, of_class: Array, value: Array, no: Array, yes: Array) -> None:
        place = np.trunc(np.ldexp(value, -self.step[of_class])) - self.base[of_class]
        size = self.counts.shape[3]
        place = of_class * (2 * size) + place.astype(np.int64)
        flat = self.counts[0].reshape(-1)  # a view
        for first, many in ((0, no), (size, yes)):
            np.add.at(flat, place + first, many.astype(flat.dtype))

    def ranked(self) -> Iterator[tuple[Array, ...]]:
        """Yield of each class the rising scores and bins, how many have answer no and yes, and which are bins.

        A bin may hold several scores; its value is the smallest that it can have. The last of the arrays says which do,
        most likely: those with a neighbour. Scores that lie on a grid, as rounded ones, are alone in their bins.
        """
        self._coarsen()
        ends = self.extremes
        start = np.searchsorted(ends.of_class, np.arange(self.classes + 1))
        for c in range(self.classes):
            value, no, yes = (part[start[c] : start[c + 1]] for part in ends[1:])
            counts = self.counts[0, c] if len(self.counts) == 1 else self.counts[:, c].sum(axis=0)
            place = np.flatnonzero(counts[0] + counts[1])
            number = self.base[c] + place
            lowest = np.where(number > 0, number, np.nextafter(number - 1.0, np.inf)) * 2.0 ** float(self.step[c])
            below = int(np.searchsorted(value, self.high[c])) if len(place) else 0
            parts = ((value, lowest), (no, counts[0, place]), (yes, counts[1, place]))
            binned, mixed = (np.zeros(len(value) + len(place), np.bool_) for _ in range(2))
            binned[below : below + len(place)] = True
            follows = np.diff(place) == 1
            mixed[below + 1 : below + len(place)] = follows
            mixed[below : below + len(follows)] |= follows
            yield *(np.concatenate((end[:below], inner, end[below:])) for end, inner in parts), binned, mixed
