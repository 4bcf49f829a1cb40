"""The options of an evaluation, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors
from withlogits.guide.arrays import sample_weights

Array = NDArray[Any]


def probabilities(given: Sequence[float] | None) -> tuple[float, ...]:
    """Return thresholds, which lie between 0 and 1, in rising order."""
    try:
        thresholds = () if given is None else tuple(sorted({float(each) for each in given}))
    except (TypeError, ValueError):
        raise errors.thresholds(given) from None
    if not all(0.0 < each < 1.0 for each in thresholds):
        raise errors.thresholds(given)
    return thresholds


def weights(given: Any, logits: tuple[int, ...], rows: tuple[int, ...], axis: int, independent: bool) -> Array:
    """Return the weights of rows, or of elements in the shape of the logits, float64.

    Independent classes take either; those of rows are the elements' then.
    """
    weight = sample_weights(given).astype(np.float64)
    if independent and weight.shape == rows and len(logits) > 1:
        weight = np.expand_dims(weight, axis)
    target = logits if independent else rows
    try:
        return np.broadcast_to(weight, target)
    except ValueError:
        raise errors.weight_shape("sample_weight", weight.shape, rows, "rows") from None
