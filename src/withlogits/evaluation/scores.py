"""How well scores order yes before no: AUROC and average precision, one class after another, exactly or from bins.

Up to EXACT elements in all, every score is kept and the figures are exact. Beyond, scores are counted in bins: 2^-12
wide around 0, 2^-9 of a score from 1/8 on (2^-6 and coarser where the classes are many), and all alike from 2^10 on.
Scores of one bin count as equal, so that the AUROC is off by at most half the share of pairs that share a bin. Which of
the two it is depends on how many elements there were, not on how they came; so parts merge exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics import backend
from withlogits.statistics.bins import BINS

Array = NDArray[Any]
Floats = NDArray[np.float64]

EXACT = 1 << 20
ROOM = 1 << 22  # bins in all
NARROW = (1 << 31) - 1  # elements of a class that counters of 4 bytes hold; they take half the room in the caches
FEW = 16  # of so few classes, threads count parts of the rows; of more, some of the classes
TABLES = 2  # parts of the rows


@dataclass
class Scores:
    """Scores and answers of the elements of each class."""

    classes: int
    count: int = 0
    kept: list[tuple[Array, Array]] = field(default_factory=list)  # (rows, C) scores and answers
    # (TABLES, C, 2, B): how many of each class with answer no, yes, in parts to be added
    bins: Array | None = None

    @property
    def fraction(self) -> int:
        """Bits of a bin's fraction: 9, or fewer where the classes are many."""
        bits = 9
        while bits > 3 and 2 * self.classes * BINS.scores(bits) > ROOM:
            bits -= 1
        return bits

    def add(self, scores: Array, labels: Array) -> None:
        """(rows, C) each, side by side."""
        self.count += scores.size
        if self.count <= EXACT:
            kept = np.where(scores == scores, scores, -np.inf)  # NaN ranks nowhere; the diagnosis speaks of it
            self.kept.append((kept.astype(np.float64 if scores.dtype == np.float64 else np.float32), labels > 0.5))
        else:
            self._bin(scores, labels)

    def merge(self, other: Scores) -> None:
        self.count += other.count
        self.kept += other.kept
        if self.count > EXACT:
            self._fold()
            if other.bins is not None:
                table = self._table
                table += other.bins.astype(table.dtype, copy=False)

    @property
    def _table(self) -> Array:
        counter = np.int32 if self.count // self.classes <= NARROW else np.int64
        if self.bins is None:
            tables = TABLES if self.classes <= FEW else 1
            self.bins = np.zeros((tables, self.classes, 2, BINS.scores(self.fraction)), counter)
        self.bins = self.bins.astype(counter, copy=False)
        return self.bins

    def _fold(self) -> None:
        """Bin what was kept."""
        kept, self.kept = self.kept, []
        for scores, yes in kept:
            self._bin(scores, yes)

    def _bin(self, scores: Array, labels: Array) -> None:
        if self.kept:
            self._fold()
        backend().count_scores(scores, labels, self._table, bins=BINS, fraction=self.fraction)

    def figures(self) -> tuple[Floats, Floats]:
        """(C,) AUROC and average precision; NaN where one of the answers never occurs."""
        auroc, precision = np.full(self.classes, np.nan), np.full(self.classes, np.nan)
        if self.bins is None and self.kept:
            scores = np.concatenate([part for part, _ in self.kept])
            answers = np.concatenate([part for _, part in self.kept])
            for c in range(self.classes):
                values, place = np.unique(scores[:, c], return_inverse=True)
                yes = np.bincount(place[answers[:, c]], minlength=len(values))
                no = np.bincount(place[~answers[:, c]], minlength=len(values))
                auroc[c], precision[c] = _of_counts(no, yes)
        elif self.bins is not None:
            for c, (no, yes) in enumerate(self.bins.sum(axis=0)):
                auroc[c], precision[c] = _of_counts(no, yes)
        return auroc, precision


def _of_counts(no: Array, yes: Array) -> tuple[float, float]:
    """From how many had each score, the scores rising; equal scores count half (AUROC), or together (precision)."""
    all_no, all_yes = int(no.sum()), int(yes.sum())
    if not all_no or not all_yes:
        return np.nan, np.nan
    below = np.cumsum(no) - no
    wins = float((yes.astype(np.float64) * (below + 0.5 * no)).sum())
    true = np.cumsum(yes[::-1])
    said = true + np.cumsum(no[::-1])
    gained = yes[::-1] / all_yes
    there = said > 0
    average = float((gained[there] * (true[there] / said[there])).sum())
    return wins / (all_yes * all_no), average
