"""Formulas whose derivatives, taken by the framework itself, are accurate. `xp` is a namespace as in `formulas`."""

from __future__ import annotations

from typing import Any

from withlogits.formulas import add, rounded, softmax_map

Array = Any  # of the framework whose table `xp` is


def class_losses(xp: Any, x: Array) -> Array:
    """Return −log p_j of every class, (..., C), for rows of logits; a framework's own derivative of it is accurate.

    It is (m − x_j) + r as in `formulas`. The derivative for the only highest logit is −s/(k + s) itself, and not the
    difference p − 1: there m follows the logit, by a `shift` of value 0, and m − x_j is constant.
    """
    m = xp.stop_gradient(xp.max(x))
    highest = xp.equal(xp.stop_gradient(x), m)
    above, lost = x - m, add(xp, -m, xp.stop_gradient(x))[1]
    e = xp.exp(above) * (1.0 + lost)
    k = xp.sum(xp.where(highest, e, 0.0))
    s = xp.sum(xp.where(highest, 0.0, e))
    ties = xp.stop_gradient(k)
    shift = xp.sum(xp.where(highest, above, 0.0)) / ties
    gap = xp.where(xp.equal(ties, 1.0), 0.0, shift - above)
    of_highest = gap + xp.log1p((ties - 1.0) + s * xp.exp(-shift))
    return xp.where(highest, of_highest, xp.log1p((k - 1.0) + s) - above)


def derivable_softmax_map(xp: Any, x: Array, kind: str) -> Array:
    """Return softmax or log_softmax over the last axis, of which a framework's own derivative is accurate."""
    wide = xp.wide(x)
    q = -class_losses(xp, wide)
    q = xp.exp(q) if kind == "softmax" else q
    value = softmax_map(xp, wide, -1, kind)
    return rounded(xp, q + xp.stop_gradient(xp.where(xp.isfinite(q), value - q, 0.0)), x.dtype)


def focal(xp: Any, loss: Array, miss: Array, gamma: Any) -> Array:
    """Return missᵞ loss, for a cross-entropy −log p and miss = 1 − p, which is −expm1(−loss).

    It has derivatives of every order at every magnitude, at miss = 0 and beside an infinite loss too.
    """
    positive = miss > 0.0
    factor = xp.where(positive, xp.where(positive, miss, 1.0) ** gamma, 0.0**gamma)
    return xp.where(xp.isfinite(loss), factor, xp.stop_gradient(factor)) * loss
