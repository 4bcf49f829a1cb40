"""What an evaluation counts beside sums: confusions, and the costliest rows. All of it merges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.results import Calibration, Confusion, Example

Array = NDArray[Any]
Floats = NDArray[np.float64]

COSTLIEST = 20
WAITING = 1 << 18
PAIRS = 1 << 20  # confusions that are remembered one by one
SHOWN = 25  # classes of a confusion matrix


def calibration(sums: Floats) -> Calibration:
    """From how many claims each bin has, their sum, and what came true of them."""
    counts, claimed, true = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence, accuracy = claimed / counts, true / counts
    gap = float(np.abs(true - claimed).sum() / counts.sum()) if counts.sum() else 0.0
    return Calibration(np.linspace(0.0, 1.0, len(counts) + 1), counts.astype(np.int64), confidence, accuracy, gap)


@dataclass
class Confusions:
    """How often class i was taken for j. Beyond PAIRS different ones the rarest are forgotten."""

    classes: int
    codes: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # i·C + j, rising
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[Array] = field(default_factory=list)  # codes that are not yet counted, since sorting takes its time

    def add(self, code: Array) -> None:
        self.waiting.append(code)
        if sum(map(len, self.waiting)) >= WAITING:
            self._settle()

    def add_matrix(self, counts: Array) -> None:
        codes = np.flatnonzero(counts)
        self._take(codes, counts.reshape(-1)[codes])

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

    @property
    def floor(self) -> float:
        """Rows that lose less than this are not among them."""
        return self.rows[-1].loss if len(self.rows) == COSTLIEST else -np.inf

    def add(self, places: Array, losses: Array, describe: Callable[[int, float], Example]) -> None:
        """`describe(i, loss)` is the example at the place i, whose loss stands in `losses`; places rise."""
        if len(places) > COSTLIEST:
            least = -np.partition(-losses, COSTLIEST - 1)[COSTLIEST - 1]
            equal = np.flatnonzero(losses == least)[:COSTLIEST]  # the first of the equal ones
            kept = np.union1d(np.flatnonzero(losses > least), equal)
            places, losses = places[kept], losses[kept]
        self._keep([describe(int(i), float(loss)) for i, loss in zip(places, losses, strict=True)])

    def merge(self, other: Costliest) -> None:
        self._keep(other.rows)

    def _keep(self, more: list[Example]) -> None:
        self.rows = sorted([*self.rows, *more], key=lambda e: (-e.loss, e.index))[:COSTLIEST]
