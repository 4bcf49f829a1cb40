"""The focal loss as a function of a cross-entropy, for every framework: `xp` is a namespace table, as in `formulas`."""

from __future__ import annotations

from typing import Any

Array = Any  # of the framework whose table `xp` is


def focal(xp: Any, loss: Array, miss: Array, gamma: float) -> Array:
    """Return missᵞ loss, for a cross-entropy −log p and miss = 1 − p, which is −expm1(−loss).

    It has derivatives of every order at every magnitude, at miss = 0 and beside an infinite loss too.
    """
    positive = miss > 0.0
    factor = xp.where(positive, xp.where(positive, miss, 1.0) ** gamma, 0.0 if gamma else 1.0)
    return xp.where(xp.isfinite(loss), factor, xp.stop_gradient(factor)) * loss
