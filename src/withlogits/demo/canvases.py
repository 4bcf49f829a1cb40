"""Pictures in which none, one, two or three digits overlap, and scores of predicted sets of digits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE = 12  # two digits of 8 pixels share 4
MOST = 3


class Canvases(NamedTuple):
    """Pictures, and which digits are in them."""

    images: Floats  # (N, 12, 12)
    present: Floats  # (N, 10), 0 or 1

    @property
    def rows(self) -> Floats:
        """Return the pictures as inputs of a network, (N, 144)."""
        return self.images.reshape(len(self.images), -1)


def compose(digits: Floats, labels: NDArray[np.int64], count: int, seed: int) -> Canvases:
    """Place none to three random digits in different corners; where they overlap, the darker pixel is kept."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, SIDE, SIDE), np.float32)
    present = np.zeros((count, 10), np.float32)
    many = rng.integers(0, MOST + 1, count)
    corners = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    for nth in range(MOST):
        where = np.flatnonzero(many > nth)
        chosen = rng.integers(0, len(digits), len(where))
        bottom, right = np.divmod(corners[where, nth], 2)
        pixels = (
            where[:, None, None],
            bottom[:, None, None] * (SIDE - 8) + np.arange(8)[:, None],
            right[:, None, None] * (SIDE - 8) + np.arange(8),
        )
        images[pixels] = np.maximum(images[pixels], digits[chosen])
        present[where, labels[chosen]] = 1
    return Canvases(images, present)


class Scores(NamedTuple):
    """Scores of predicted sets; each number is in [0, 1], and 1 is best."""

    exact: float  # the share of pictures whose set of digits is exactly right
    f1: float  # of all yes/no answers together
    mean_average_precision: float  # over the digits; needs no threshold


def score(probabilities: NDArray[Any], present: Floats, threshold: float) -> Scores:
    """Return the scores of the sets {j : p_j > threshold}."""
    said = probabilities > threshold
    true = present > 0
    right, both = int(np.count_nonzero(said & true)), int(np.count_nonzero(said) + np.count_nonzero(true))
    f1 = 2 * right / max(1, both)
    precision = [average_precision(probabilities[:, j], true[:, j]) for j in range(present.shape[1])]
    return Scores(exact_share(said, true), f1, float(np.mean(precision)))


def exact_share(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float((said == true).all(axis=1).mean())


def average_precision(p: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Return the mean, over the true pictures, of the precision among all that rank no lower; ties rank as one."""
    order = np.argsort(-p, kind="stable")
    ranked, hits = p[order], true[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    found = np.cumsum(hits)[last_of_tie]
    precision = found / (np.flatnonzero(last_of_tie) + 1)
    return float((precision * np.diff(found, prepend=0)).sum() / max(1, found[-1]))


def best_threshold(probabilities: NDArray[Any], present: Floats) -> float:
    """Return the threshold with the most sets exactly right, of 99 between 0 and 1."""
    candidates = np.linspace(0.01, 0.99, 99)
    return float(max(candidates, key=lambda t: exact_share(probabilities > t, present > 0)))


def as_distribution(present: Floats) -> Floats:
    """Return labels for softmax: equal shares for the digits that are there, or for all if there is none."""
    shares: Floats = np.where(present.any(axis=1, keepdims=True), present, np.float32(1))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
