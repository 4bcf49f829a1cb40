"""What needs the probability of every class: Brier score, class-wise calibration, and decisions at given thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import sigmoid, softmax
from withlogits.evaluation.results import Thresholds
from withlogits.statistics.bins import Bins
from withlogits.statistics.merging import Merging
from withlogits.statistics.summary import Block

Array = NDArray[Any]

CHUNK = 1 << 18  # logits that are looked at together


@dataclass
class ClassProbabilities(Merging):
    """Weighted sums over the probabilities p of each class, and what came true: t, which is 0 or 1, or a label."""

    squares: Array  # (C,) Σ (p − t)²
    weight: Array  # (C,)
    reliability: Array  # (3, C, B): how many probabilities lie in each bin, their sum, and that of t

    @classmethod
    def empty(cls, classes: int, bins: Bins) -> ClassProbabilities:
        """Return sums of nothing."""
        return cls(np.zeros(classes), np.zeros(classes), np.zeros((3, classes, bins.confidence)))

    def add(self, block: Block, axis: int, bins: Bins) -> None:
        """Take in a block; NaN does not count."""
        classes = len(self.weight)
        independent = block.x.ndim == block.z.ndim == 2 and not len(block.y)
        rows = block.x if independent else np.moveaxis(block.x, axis, -1).reshape(-1, classes)
        labels = np.moveaxis(block.z, axis, -1).reshape(-1, classes) if block.z.ndim == block.x.ndim else block.y
        step = max(1, CHUNK // classes)
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            x, z = rows[part].astype(np.float64), labels[part]
            p = np.asarray(sigmoid(x) if independent else softmax(x, axis=1))
            t = z.astype(np.float64) if z.ndim == 2 else (z[:, None] == np.arange(classes)).astype(np.float64)
            w = np.ones(x.shape) if block.weight is None else np.broadcast_to(_column(block.weight[part]), x.shape)
            known = (w > 0) & ~np.isnan(p) & ~np.isnan(t)
            if block.counted is not None:
                known &= block.counted[part, None]
            self._count(p, t, np.where(known, w, 0.0), known, bins)

    def _count(self, p: Array, t: Array, w: Array, known: Array, bins: Bins) -> None:
        classes = p.shape[1]
        p, t = (a if known.all() else np.where(known, a, 0.0) for a in (p, t))
        place = (bins.places(p) + np.arange(classes) * bins.confidence).reshape(-1)
        sums = [
            np.bincount(place, each.reshape(-1), classes * bins.confidence).reshape(classes, -1)
            for each in (w, w * p, w * t)
        ]
        self.accumulate(
            {
                "squares": (w * (p - t) ** 2).sum(axis=0),
                "weight": w.sum(axis=0),
                "reliability": np.array(sums),
            }
        )

    def calibration_errors(self) -> Array:
        """(C,) The expected calibration error of each class's probability."""
        counts, claimed, true = self.reliability
        with np.errstate(invalid="ignore", divide="ignore"):
            errors: Array = np.abs(true - claimed).sum(axis=1) / counts.sum(axis=1)
        return errors


def _column(weight: Array) -> Array:
    return weight[:, None] if weight.ndim == 1 else weight


@dataclass
class Decisions(Merging):
    """How many elements have a probability above each threshold, and how many of them a label above 1/2."""

    said: Array  # (T, C)
    both: Array  # (T, C)

    @classmethod
    def empty(cls, thresholds: int, classes: int) -> Decisions:
        """Return counts of nothing."""
        return cls(*(np.zeros((thresholds, classes), np.int64) for _ in range(2)))

    def add(self, x: Array, z: Array, weight: Array | None, thresholds: tuple[float, ...]) -> None:
        """Take in elements (rows, C)."""
        yes = z > 0.5
        for i, threshold in enumerate(thresholds):
            said = x > np.float64(np.log(threshold) - np.log1p(-threshold))  # in float64, whatever the logits
            both = said & yes
            if weight is None:
                counts = [np.count_nonzero(mask, axis=0) for mask in (said, both)]
            else:
                counts = [(mask * weight).sum(axis=0) for mask in (said, both)]
            if counts[0].dtype.kind == "f":
                self.said, self.both = (a.astype(np.float64, copy=False) for a in (self.said, self.both))
            self.said[i] += counts[0]
            self.both[i] += counts[1]

    def result(self, thresholds: tuple[float, ...], true: Array) -> Thresholds:
        """Return precision, recall and F1; `true` (C,) are the elements with a label above 1/2."""

        def figures(said: Array, both: Array, true: Array) -> tuple[Array, Array, Array]:
            with np.errstate(invalid="ignore", divide="ignore"):
                return both / said, both / true, 2 * both / (said + true)

        micro = figures(self.said.sum(axis=1), self.both.sum(axis=1), true.sum())
        return Thresholds(np.array(thresholds), *micro, *figures(self.said, self.both, true))
