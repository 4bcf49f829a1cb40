"""How good the logits are beside guessing, that is, beside logits that are the same for every example."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.findings import Performance
from withlogits.statistics.sample import Sample
from withlogits.statistics.summary import Summary

Array = NDArray[Any]


def performance_of(summary: Summary) -> Performance | None:
    """The figures of what counts; None if nothing does."""
    pair = summary.pair
    if not pair.counted:
        return None
    loss = math.nan if pair.nan else math.inf if pair.infinite else pair.loss / pair.counted
    right = pair.right / pair.counted
    if summary.kind == "sigmoid":
        right = _share_right(pair.sample)
    shares = class_shares(summary)
    if shares is None:
        return Performance(pair.counted, loss, right, None, None)
    guessed = float(shares.max(axis=0).mean())
    return Performance(pair.counted, loss, right, guessing_loss(shares, summary.options), guessed)


def _share_right(sample: Sample) -> float:
    """How many elements of the sample that count are right at probability 1/2."""
    if sample.x is None or sample.z is None:
        return math.nan
    known = np.True_ if sample.w is None else sample.w > 0
    right = ((sample.x > 0.0) == (sample.z > 0.5)) & known
    return np.count_nonzero(right) / np.count_nonzero(np.broadcast_to(known, right.shape))


def class_shares(summary: Summary) -> Array | None:
    """(C, 1) How often each class occurs, or (2, C) how often each independent one is false and true; None: unknown."""
    labels, pair = summary.labels, summary.pair
    if labels.odd or labels.negative or labels.outside_rows:
        return None
    if summary.kind == "sigmoid":
        true = np.array([pair.z / pair.counted])
        if labels.class_totals is not None and not labels.ignored + summary.logits.masked:
            true = labels.class_totals / labels.rows
        return None if true.max() > 1.0 else np.stack([1.0 - true, true])
    totals = labels.counts if summary.kind == "sparse" else labels.class_totals
    total = 0.0 if totals is None else float(totals.sum())
    return None if totals is None or not total > 0.0 else (totals / total)[:, None]


def guessing_loss(shares: Array, options: dict[str, Any]) -> float | None:
    """The smallest mean loss of logits that are the same for every example, with these options of the loss."""
    smoothing, weights = float(options.get("label_smoothing", 0.0)), options.get("class_weight")
    targets = (1.0 - smoothing) * shares + smoothing / len(shares) if smoothing else shares
    if weights is not None:
        targets = targets * np.asarray(weights)[:, None]
    elif "pos_weight" in options:
        if np.ndim(options["pos_weight"]):
            return None
        targets = targets * np.array([[1.0], [float(options["pos_weight"])]])
    loss: float = (_entropy(targets) - _entropy(targets.sum(axis=0))) / targets.shape[1]
    return loss


def _entropy(shares: Array) -> float:
    """−Σ t log t."""
    some = shares[shares > 0.0]
    return -float(some @ np.log(some))
