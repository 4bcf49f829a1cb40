"""The bins of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bins:
    """Probabilities in bins of equal width over [0, 1]; losses in two bins an octave, from 2^lowest on.

    A loss's octave is in a float's exponent, its half of it in the first bit behind, so that no bin must be searched.
    """

    confidence: int = 15
    lowest: int = -20
    octaves: int = 30
    within: tuple[int, ...] = (1, 3, 5, 10)  # is the class among the k largest

    @property
    def losses(self) -> int:
        """The number of bins of losses."""
        return 2 * self.octaves + 1

    @property
    def edges(self) -> NDArray[np.float64]:
        """Of the losses' bins: 0, each 2^k and 1.5·2^k, infinity."""
        octaves = 2.0 ** np.arange(self.lowest, self.lowest + self.octaves)[:, None] * [1.0, 1.5]
        return np.concatenate(([0.0], octaves.reshape(-1), [np.inf]))

    def places(self, probabilities: NDArray[Any]) -> NDArray[np.intp]:
        """Return the bin over [0, 1] of each probability."""
        return np.minimum((probabilities * self.confidence).astype(np.intp), self.confidence - 1)

    def reliability(
        self, probabilities: NDArray[Any], true: NDArray[Any], weight: NDArray[Any] | None = None
    ) -> NDArray[np.float64]:
        """(3, B): how many probabilities lie in each of the bins over [0, 1], their sum, what came true; weighted."""
        known = ~np.isnan(probabilities)
        if not known.all():
            probabilities, true = probabilities[known], true[known]
            weight = None if weight is None else weight[known]
        place = self.places(probabilities)
        terms = (None, probabilities, true) if weight is None else (weight, weight * probabilities, weight * true)
        return np.array([np.bincount(place, each, self.confidence) for each in terms])

    def histogram(self, loss: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many finite losses lie below 2^lowest, then in [2^k, 1.5·2^k) and [1.5·2^k, 2^(k+1)) of each octave."""
        finite = np.isfinite(loss)
        if not finite.all():
            loss = loss[finite]
        place = (loss.view(np.int64) >> 51) - (((1023 + self.lowest) << 1) - 1)
        return np.bincount(np.clip(place, 0, self.losses - 1), minlength=self.losses)


BINS = Bins()
