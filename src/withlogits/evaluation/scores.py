"""How well scores order yes before no: AUROC, average precision and the best F1, of one class after another.

Up to EXACT elements in all, every score is kept and the figures are exact. Beyond, scores are counted in the bins of
`score_bins.py`, and those of one bin count as equal; how far off that can make a figure is computed beside it. Which of
the two it is depends on how many elements there were, not on how they came; so parts merge exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.score_bins import ScoreBins, ranking

Array = NDArray[Any]
Floats = NDArray[np.float64]

EXACT = 1 << 20


class ScoreFigures(NamedTuple):
    """(C,) each; NaN where one of the answers never occurs."""

    auroc: Floats
    average_precision: Floats
    auroc_error: Floats  # at most so far from the figures of the scores themselves
    average_precision_error: Floats
    best_f1: Floats
    best_logit: Floats  # "yes" from this logit on has the largest F1


class Kept(NamedTuple):
    """Elements of a block, (rows, C) each."""

    scores: Array
    yes: Array
    weight: Array | None  # booleans say which elements count


@dataclass
class Scores:
    """Scores and answers of the elements of each class."""

    classes: int
    count: int = 0
    kept: list[Kept] = field(default_factory=list)
    bins: ScoreBins | None = None

    def add(self, scores: Array, labels: Array, weight: Array | None = None) -> None:
        """(rows, C) each, side by side."""
        self.count += scores.size
        if self.count <= EXACT:
            self.kept.append(
                Kept(
                    scores.astype(np.float64 if scores.dtype == np.float64 else np.float32),
                    labels > 0.5,
                    None if weight is None else weight.copy(),
                )
            )
        else:
            self._binned.add(scores, labels, self._of_class, weight)

    def merge(self, other: Scores) -> None:
        self.count += other.count
        self.kept += other.kept
        if self.count > EXACT:
            binned = self._binned
            if other.bins is not None:
                binned.merge(other.bins, self._of_class)

    @property
    def _of_class(self) -> int:
        return self.count // max(1, self.classes)

    @property
    def _binned(self) -> ScoreBins:
        """The bins, with what was kept."""
        if self.bins is None:
            self.bins = ScoreBins(self.classes)
        kept, self.kept = self.kept, []
        for each in kept:
            self.bins.add(each.scores, each.yes, self._of_class, each.weight)
        return self.bins

    def figures(self) -> ScoreFigures:
        """The figures of each class."""
        found = np.full((len(ScoreFigures._fields), self.classes), np.nan)
        ranked = self._kept_ranked() if self.bins is None else self.bins.ranked()
        for c, each in enumerate(ranked):
            found[:, c] = _of_counts(*each)
        return ScoreFigures(*found)

    def _kept_ranked(self) -> Iterator[tuple[Array, ...]]:
        """Yield of each class the rising scores, and how many have answer no and yes."""
        if not self.kept:
            return
        scores, yes = (np.concatenate(parts) for parts in list(zip(*self.kept, strict=True))[:2])
        weight = None
        if any(part.weight is not None for part in self.kept):
            weight = np.concatenate([_weights(part) for part in self.kept])
        for c in range(self.classes):
            of, said, w = scores[:, c], yes[:, c], None if weight is None else weight[:, c]
            if w is not None:
                of, said, w = of[w > 0], said[w > 0], w[w > 0]
            value, place = np.unique(ranking(of), return_inverse=True)
            answers = ((place[a], None if w is None else w[a]) for a in (~said, said))
            yield value, *(np.bincount(*each, minlength=len(value)) for each in answers)


def _weights(part: Kept) -> Array:
    return np.ones(part.scores.shape, np.int64) if part.weight is None else part.weight * 1


def _of_counts(
    value: Floats, no: Array, yes: Array, binned: Array | None = None, mixed: Array | None = None
) -> tuple[float, ...]:
    """From how many had each score, the scores rising; equal scores count half (AUROC), or together (precision).

    Some may be the scores of bins, of which some are mixed: then precision is that in their middle.
    """
    one = 0.0 if yes.dtype.kind == "f" else 1.0  # an element, if none is weighted
    all_no, all_yes = float(no.sum()), float(yes.sum())
    if not all_yes:
        return (np.nan,) * len(ScoreFigures._fields)
    pairs_of_both = all_yes * all_no or np.nan  # without a no, there is no AUROC
    at = np.flatnonzero(yes)
    below = np.cumsum(no)[at]
    no, yes = no[at].astype(np.float64), yes[at].astype(np.float64)
    wins = _dot(yes, below) - 0.5 * _dot(yes, no)
    true = all_yes - np.cumsum(yes) + yes  # what "yes" from this score on gets right
    said = true + (all_no - below + no)
    precision = true / said
    best = int(np.argmax(true / (said + all_yes)))
    f1 = 2.0 * float(true[best] / (said[best] + all_yes))
    pairs, off = 0.0, 0.0
    if binned is not None and mixed is not None:
        middle = (true - 0.5 * (yes - one)) / (said - 0.5 * (yes - one + no))
        precision = np.where(mixed[at], middle, precision)
        part = binned[at]
        false, right, true, said, taken = (a[part] for a in (no, yes, true, said, precision))
        pairs = _dot(false, right)
        # Within a bin, the precision at each yes lies between that of all no first, and of all yes first.
        before = said - right
        least = np.where(before > 0, (true - right) / np.maximum(before, 1e-300), 1.0)
        off = max(_dot(right, taken - least), _dot(right, true / (said - false) - taken))
    return (
        wins / pairs_of_both,
        _dot(yes, precision) / all_yes,
        0.5 * pairs / pairs_of_both,
        off / all_yes,
        f1,
        float(value[at[best]]),
    )


def _dot(a: Floats, b: Floats) -> float:
    """Return Σ a·b in this thread, and the same to the bit on every machine."""
    return float((a * b).sum())
