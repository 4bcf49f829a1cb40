"""How well scores order yes before no: AUROC and average precision, one class after another, exactly or from bins.

Up to EXACT elements in all, every score is kept and the figures are exact. Beyond, scores are counted in bins that are
2^-9 of a score wide (and all alike below 2^-10 and from 2^10 on); scores of one bin count as equal, so that the AUROC
is off by at most half the share of pairs that share a bin. Which of the two it is depends on how many elements there
were, not on how they came; so parts merge exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

EXACT = 1 << 20
ROOM = 1 << 22  # bins in all
LOWEST, OCTAVES = -10, 20


@dataclass
class Scores:
    """Scores and answers of the elements of each class."""

    classes: int
    count: int = 0
    kept: list[tuple[Array, Array]] = field(default_factory=list)  # (rows, C) scores and answers
    bins: Array | None = None  # (2, C, B): how many of each class with answer no, yes

    @property
    def _fraction(self) -> int:
        """Bits of a bin's fraction: 9, or fewer where the classes are many."""
        bits = 9
        while bits > 3 and 2 * self.classes * self._size(bits) > ROOM:
            bits -= 1
        return bits

    @staticmethod
    def _size(bits: int) -> int:
        return 2 * ((OCTAVES << bits) + 1)

    def add(self, scores: Array, answers: Array) -> None:
        """(rows, C) each; answers are true or false."""
        usable = np.isfinite(scores) | np.isinf(scores)
        if not usable.all():
            scores = np.where(usable, scores, -np.inf)  # NaN ranks nowhere; the diagnosis speaks of it
        self.count += scores.size
        if self.count <= EXACT:
            self.kept.append((scores.astype(np.float64 if scores.dtype == np.float64 else np.float32), answers.copy()))
            return
        self._fold()
        self._bin(scores, answers)

    def merge(self, other: Scores) -> None:
        self.count += other.count
        self.kept += other.kept
        if self.count > EXACT:
            self._fold()
        if other.bins is not None:
            self.bins = other.bins.copy() if self.bins is None else self.bins + other.bins

    def _fold(self) -> None:
        for scores, answers in self.kept:
            self._bin(scores, answers)
        self.kept = []

    def _bin(self, scores: Array, answers: Array) -> None:
        bits = self._fraction
        size = self._size(bits)
        half = size // 2
        single = scores.astype(np.float32, copy=False)
        words = single.view(np.int32)
        steps = ((words & 0x7FFFFFFF) >> (23 - bits)) - ((127 + LOWEST) << bits)
        np.clip(steps, 0, half - 1, out=steps)
        place = np.where(words < 0, half - 1 - steps, half + steps)
        place += (np.arange(self.classes, dtype=np.int64) * size).astype(np.int32)
        place += answers.astype(np.int32) * np.int32(self.classes * size)
        counted = np.bincount(place.reshape(-1), minlength=2 * self.classes * size).reshape(2, self.classes, size)
        self.bins = counted if self.bins is None else self.bins + counted

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
            for c in range(self.classes):
                auroc[c], precision[c] = _of_counts(self.bins[0, c], self.bins[1, c])
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
