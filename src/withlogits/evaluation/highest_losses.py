"""The rows (sigmoid: elements) with the largest losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.results import Example

Array = NDArray[Any]

KEPT = 20


@dataclass
class HighestLosses:
    """Examples by their loss; of equal losses those that come first."""

    rows: list[Example] = field(default_factory=list)

    @property
    def floor(self) -> float:
        """The loss below which a row is not among them."""
        return self.rows[-1].loss if len(self.rows) == KEPT else -np.inf

    def add(self, places: Array, losses: Array, describe: Callable[[int, float], Example]) -> None:
        """`describe(i, loss)` is the example at the place i, whose loss stands in `losses`; places rise."""
        if len(places) > KEPT:
            least = -np.partition(-losses, KEPT - 1)[KEPT - 1]
            equal = np.flatnonzero(losses == least)[:KEPT]  # the first of the equal ones
            kept = np.union1d(np.flatnonzero(losses > least), equal)
            places, losses = places[kept], losses[kept]
        self._keep([describe(int(i), float(loss)) for i, loss in zip(places, losses, strict=True)])

    def merge(self, other: HighestLosses) -> None:
        """Take in what another has kept."""
        self._keep(other.rows)

    def _keep(self, more: list[Example]) -> None:
        self.rows = sorted([*self.rows, *more], key=lambda e: (-e.loss, e.index))[:KEPT]
