"""How often each class was predicted as each other one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.results import Confusion
from withlogits.statistics.summary import Block

Array = NDArray[Any]

WAITING = 1 << 18
PAIRS = 1 << 20  # confusions that are remembered one by one
SHOWN = 25  # classes of a confusion matrix


@dataclass
class Confusions:
    """How often class i was predicted as j. Beyond PAIRS different ones the rarest are forgotten."""

    classes: int
    codes: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # i·C + j, rising
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[Array] = field(default_factory=list)  # codes that are not yet counted, since sorting takes its time

    def add(self, block: Block) -> None:
        """Take in some rows."""
        if block.matrix is not None and block.weight is None:
            codes = np.flatnonzero(block.matrix)
            self._add_counts(codes, block.matrix.reshape(-1)[codes])
            return
        if block.weights is not None:
            codes, place = np.unique(block.codes(self.classes), return_inverse=True)
            self._add_counts(codes, np.bincount(place, block.weights, len(codes)))
            return
        self.waiting.append(block.codes(self.classes))
        if sum(map(len, self.waiting)) >= WAITING:
            self._flush()

    def merge(self, other: Confusions) -> None:
        other._flush()
        self._flush()
        self._add_counts(other.codes, other.counts)

    def _flush(self) -> None:
        if self.waiting:
            code, self.waiting = np.concatenate(self.waiting), []
            self._add_counts(*np.unique(code, return_counts=True))

    def _add_counts(self, codes: Array, counts: Array) -> None:
        if np.array_equal(codes, self.codes):
            self.counts = self.counts + counts
            return
        both, place = np.unique(np.concatenate((self.codes, codes)), return_inverse=True)
        sums = np.zeros(len(both), np.result_type(self.counts, counts))
        np.add.at(sums, place, np.concatenate((self.counts, counts)))
        if len(both) > PAIRS:
            kept = np.sort(np.argsort(-sums, kind="stable")[:PAIRS])
            both, sums = both[kept], sums[kept]
        self.codes, self.counts = both, sums

    def totals(self) -> tuple[Array, Array, Array]:
        """(C,) rows of each class, rows taken for it, and both at once."""
        self._flush()
        true, predicted = np.divmod(self.codes, self.classes)
        right = true == predicted
        pairs = ((true, self.counts), (predicted, self.counts), (true[right], self.counts[right]))
        of_true, of_predicted, both = (
            np.bincount(codes, counts, self.classes).astype(self.counts.dtype, copy=False) for codes, counts in pairs
        )
        return of_true, of_predicted, both

    def result(self) -> Confusion:
        self._flush()
        true, predicted = np.divmod(self.codes, self.classes)
        wrong = np.flatnonzero(true != predicted)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")]
        common = tuple((int(true[i]), int(predicted[i]), self.counts[i].item()) for i in order[: 2 * SHOWN])
        if self.classes <= SHOWN:
            classes = np.arange(self.classes)
        else:
            errors = np.bincount(true[wrong], self.counts[wrong], self.classes)
            errors += np.bincount(predicted[wrong], self.counts[wrong], self.classes)
            classes = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])
        place = np.full(self.classes, -1)
        place[classes] = np.arange(len(classes))
        matrix = np.zeros((len(classes), len(classes)), self.counts.dtype)
        inside = (place[true] >= 0) & (place[predicted] >= 0)
        matrix[place[true[inside]], place[predicted[inside]]] = self.counts[inside]
        return Confusion(classes.astype(np.int64), matrix, common)
