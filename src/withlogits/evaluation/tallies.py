"""What an evaluation counts: confusions, bins of confidence, a histogram, the costliest rows. All of it merges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.results import Calibration, Confusion, Example, Histogram

Array = NDArray[Any]
Floats = NDArray[np.float64]

BINS = 15
# Two bins an octave, [2^k, 1.5·2^k) and [1.5·2^k, 2^(k+1)): told by a float's exponent and the first bit behind it, a
# tenth of the time of a search. Losses below 2^-20 are in the first bin, from 2^10 on in the last.
LOWEST, OCTAVES = -20, 30
EDGES = np.concatenate(
    ([0.0], (2.0 ** np.arange(LOWEST, LOWEST + OCTAVES)[:, None] * [1.0, 1.5]).reshape(-1), [np.inf])
)
COSTLIEST = 20
WAITING = 1 << 18
PAIRS = 1 << 20  # confusions that are remembered one by one
SHOWN = 25  # classes of a confusion matrix


@dataclass
class Reliability:
    """What was claimed and what came true, in bins of equal width."""

    sums: Floats = field(default_factory=lambda: np.zeros((3, BINS)))  # how many, Σ claimed, Σ true

    def add(self, claimed: Array, true: Array) -> None:
        """Probabilities in [0, 1] (NaN is left out), and 0 or 1, or what lies between."""
        if not len(claimed):
            return
        with np.errstate(invalid="ignore"):
            place = np.minimum((claimed * BINS).astype(np.int64), BINS - 1)
        good = claimed == claimed
        if not good.all():
            claimed, true, place = claimed[good], true[good], place[good]
        place = np.maximum(place, 0)
        for i, weights in enumerate((None, claimed, true)):
            self.sums[i] += np.bincount(place, weights, BINS)

    def merge(self, other: Reliability) -> None:
        self.sums = self.sums + other.sums

    def result(self) -> Calibration:
        counts, claimed, true = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            confidence, accuracy = claimed / counts, true / counts
        gap = float(np.abs(true - claimed).sum() / counts.sum()) if counts.sum() else 0.0
        return Calibration(np.linspace(0.0, 1.0, BINS + 1), counts.astype(np.int64), confidence, accuracy, gap)


@dataclass
class LossHistogram:
    """How many losses lie where."""

    counts: Array = field(default_factory=lambda: np.zeros(len(EDGES) - 1, np.int64))

    def add(self, losses: Array) -> None:
        finite = np.isfinite(losses)
        if not finite.all():
            losses = losses[finite]
        single = np.ascontiguousarray(losses, np.float32)
        place = (single.view(np.int32) >> 22) - (((127 + LOWEST) << 1) - 1)
        self.counts += np.bincount(np.clip(place, 0, len(EDGES) - 2), minlength=len(EDGES) - 1)

    def merge(self, other: LossHistogram) -> None:
        self.counts = self.counts + other.counts

    def result(self) -> Histogram:
        return Histogram(EDGES.copy(), self.counts.copy())


@dataclass
class Confusions:
    """How often class i was taken for j. Beyond PAIRS different ones the rarest are forgotten."""

    classes: int
    codes: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # i·C + j, rising
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[Array] = field(default_factory=list)  # codes that are not yet counted: sorting takes its time

    def add(self, true: Array, predicted: Array) -> None:
        code = true.astype(np.int64) * self.classes + predicted
        if self.classes**2 <= 4 * len(code):
            counts = np.bincount(code, minlength=self.classes**2)
            codes = np.flatnonzero(counts)
            self._take(codes, counts[codes])
            return
        self.waiting.append(code)
        if sum(map(len, self.waiting)) >= WAITING:
            self._settle()

    def merge(self, other: Confusions) -> None:
        other._settle()
        self._settle()
        self._take(other.codes, other.counts)

    def _settle(self) -> None:
        if self.waiting:
            code, self.waiting = np.concatenate(self.waiting), []
            self._take(*np.unique(code, return_counts=True))

    def _take(self, codes: Array, counts: Array) -> None:
        if np.array_equal(codes, self.codes):
            self.counts = self.counts + counts
            return
        both, place = np.unique(np.concatenate((self.codes, codes)), return_inverse=True)
        sums = np.zeros(len(both), np.int64)
        np.add.at(sums, place, np.concatenate((self.counts, counts)))
        if len(both) > PAIRS:
            kept = np.sort(np.argsort(-sums, kind="stable")[:PAIRS])
            both, sums = both[kept], sums[kept]
        self.codes, self.counts = both, sums

    def totals(self) -> tuple[Array, Array, Array]:
        """(C,) rows of each class, rows taken for it, and both at once."""
        self._settle()
        true, predicted = np.divmod(self.codes, self.classes)
        right = true == predicted
        return (
            np.bincount(true, self.counts, self.classes).astype(np.int64),
            np.bincount(predicted, self.counts, self.classes).astype(np.int64),
            np.bincount(true[right], self.counts[right], self.classes).astype(np.int64),
        )

    def result(self) -> Confusion:
        self._settle()
        true, predicted = np.divmod(self.codes, self.classes)
        wrong = np.flatnonzero(true != predicted)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")]
        common = tuple((int(true[i]), int(predicted[i]), int(self.counts[i])) for i in order[: 2 * SHOWN])
        if self.classes <= SHOWN:
            classes = np.arange(self.classes)
        else:
            errors = np.bincount(true[wrong], self.counts[wrong], self.classes)
            errors += np.bincount(predicted[wrong], self.counts[wrong], self.classes)
            classes = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])
        place = np.full(self.classes, -1)
        place[classes] = np.arange(len(classes))
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        inside = (place[true] >= 0) & (place[predicted] >= 0)
        matrix[place[true[inside]], place[predicted[inside]]] = self.counts[inside]
        return Confusion(classes.astype(np.int64), matrix, common)


@dataclass
class Costliest:
    """The rows with the largest losses; of equal losses those that come first."""

    rows: list[Example] = field(default_factory=list)

    def add(self, losses: Array, describe: Any) -> None:
        """`describe(i, loss)` is the example of the i-th loss."""
        floor = self.rows[-1].loss if len(self.rows) == COSTLIEST else -np.inf
        flat = losses.reshape(-1)
        worth = np.flatnonzero(flat >= floor) if np.isfinite(floor) else np.flatnonzero(flat == flat)
        if len(worth) > COSTLIEST:
            chosen = np.argpartition(-flat[worth], COSTLIEST - 1)[:COSTLIEST]
            least = flat[worth][chosen].min()
            equal = worth[flat[worth] == least][:COSTLIEST]  # the first of the equal ones, whatever the partition took
            worth = np.unique(np.concatenate((worth[flat[worth] > least], equal)))
        self._keep([describe(int(i), float(flat[i])) for i in worth])

    def merge(self, other: Costliest) -> None:
        self._keep(other.rows)

    def _keep(self, more: list[Example]) -> None:
        self.rows = sorted([*self.rows, *more], key=lambda e: (-e.loss, e.index))[:COSTLIEST]
