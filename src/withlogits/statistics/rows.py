"""What rows of logits and their labels are like, counted from a scan of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics import arrays, backend
from withlogits.statistics.bins import Bins

Array = NDArray[Any]

CERTAIN = 40.0  # a logit beyond it is a probability of 0 or 1 to the last bit
NEVER = np.uint64((1 << 64) - 1)  # the key of rows that are in no sample


def row_statistics(
    x: Array,
    axis: int,
    labels: Array,
    *,
    close: float,
    label_close: float = 0.0,
    loss: Array | None = None,
    size: Array | None = None,
    counted: Array | None = None,
    bins: Bins | None = None,
    weight: Array | None = None,
) -> dict[str, Any]:
    """Count what rows of logits and their labels are like.

    Labels are int64 class numbers (N,), one for each row, or have the shape of x. Classes are exclusive if the rows'
    losses are given, (N,): then the `counted` rows contribute (None: all), or those that have a positive label.
    Without `size`, the rows' logsumexp, each loss must be that of its class alone.

    Returns, of the logits: extremes (`low`, `top`), the sum of all (`total`) and of the rows' ranges (`spread`), how
    many rows have a sum that is not finite (`odd_rows`), a sum within `close` of 1 (`sums_to_one`), and a probability
    that is 0 or 1 to the last bit (`saturated`). Of labels in the shape of x, under names with `label_`: extremes of
    elements and of row sums, the sum of all, and of rows within [0, 1] (`positive`); how many rows hold nothing but 0
    and 1 (`binary`), and then `none`, `one` or `two` of 1; are `distributions` within `label_close`; have a `negative`
    entry; a sum that is not finite (`odd`); 1 as their maximum (`hot`). Of exclusive classes: how many rows contribute
    (`counted`), and are `right`; the sum of the finite losses, and how many are `nan` or `infinite`; with `bins`, for
    how many the class is among the k largest (`within`), and `confidence` and `histogram` as of `element_statistics`.
    There a row whose class ties with others has a share of what is right, and is weighted (N,), as are `weight`, the
    sum over the rows, and `weighted_loss`;
    `first`, the class of each row's largest logit, and of its largest label (`labels`). And each row's key: the rows
    with the smallest keys are a sample.
    """
    dense = labels.ndim == x.ndim
    with np.errstate(invalid="ignore", over="ignore"):
        z = backend().scan(labels, axis) if dense else None
        y = labels if z is None else z["first"]
        s = backend().scan(x, axis, None if loss is None else y)
        found = _logit_counts(s, close)
        if z is not None:
            found |= _label_counts(z, label_close)
        if loss is None:
            found["saturated"] = _number(np.maximum(np.abs(s["top"]), np.abs(s["low"])) > CERTAIN)
            keys = row_keys(s["total"], np.zeros(len(y)) if z is None else z["total"])
            return found | {"keys": np.where(np.isfinite(s["total"]), keys, NEVER)}
        live = z["top"] > 0.0 if counted is None and z is not None else counted
        loss = loss.astype(np.float64, copy=False)
        rest = _surprisal(s, loss, size)
        found |= _exclusive_counts(s, y, live, loss, rest, size is not None)
        if bins is not None:
            found |= _row_figures(s, live, loss, rest, bins, weight)
    return found | {"first": s["first"], "labels": y}


def label_counts(z: Array, axis: int, close: float) -> dict[str, Any]:
    """Count what rows of labels are like, as `row_statistics`."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _label_counts(backend().scan(z, axis), close)


def _number(mask: Array) -> int:
    return int(np.count_nonzero(mask))


def _label_counts(z: dict[str, Array], close: float) -> dict[str, Any]:
    low, top, total, above = (z[name] for name in ("low", "top", "total", "above"))
    good = (low >= 0.0) & (top <= 1.0)
    binary = good & (total == above)
    found: dict[str, Any] = {
        "label_low": float(low.min()),
        "label_top": float(top.max()),
        "label_lowest_sum": float(np.fmin.reduce(total, initial=np.inf)),
        "label_highest_sum": float(np.fmax.reduce(total, initial=-np.inf)),
        "label_total": float(total.sum()),
        "label_positive": float(np.where(good, total, 0.0).sum()),
        "label_binary": _number(binary),
        "label_distributions": _number((low >= 0.0) & (np.abs(total - 1.0) <= close)),
        "label_negative": _number(low < 0.0),
        "label_odd": _number(~np.isfinite(total)),
        "label_hot": _number(top == 1.0),
    }
    for i, name in enumerate(("label_none", "label_one", "label_two")):
        found[name] = _number(binary & (above == i))
    return found


def _finite_sum(x: Array) -> tuple[float, Array | None]:
    """Return the sum of the finite numbers, and which they are (None: all, as a finite sum says at once)."""
    total = float(x.sum())
    if math.isfinite(total):
        return total, None
    finite = np.isfinite(x)
    return float(x[finite].sum()), finite


def _logit_counts(s: dict[str, Array], close: float) -> dict[str, Any]:
    low, top, total = s["low"], s["top"], s["total"]
    _, finite = _finite_sum(total)
    return {
        "low": float(low.min()),
        "top": float(top.max()),
        "total": float(total.sum()),
        "spread": _finite_sum(top - low)[0],
        "odd_rows": 0 if finite is None else _number(~finite),
        "sums_to_one": _number(np.abs(total - 1.0) <= close),
    }


def _exclusive_counts(
    s: dict[str, Array], y: Array, live: Array | None, loss: Array, rest: Array, sized: bool
) -> dict[str, Any]:
    """Count rows of which one class is right; `live` ones contribute (None: all)."""
    known, right, keys = live, s["first"] == y, row_keys(loss, s["total"])
    saturated = rest <= (0.0 if sized else np.abs(loss) * 2.0**-22) + 2.0**-24
    if live is not None:
        right, saturated = right & live, saturated & live
    total, finite = _finite_sum(loss)
    if finite is not None:
        known = finite if live is None else live & finite
    found: dict[str, Any] = {
        "loss": total,
        "counted": len(loss) if live is None else _number(live),
        "right": _number(right),
        "nan": 0 if finite is None else _number(np.isnan(loss)),
        "infinite": 0 if finite is None else _number(np.isinf(loss)),
        "saturated": _number(saturated),
        "keys": keys if known is None else np.where(known, keys, NEVER),
    }
    return found


def _surprisal(s: dict[str, Array], loss: Array, size: Array | None) -> Array:
    """Return −log p of each row's largest logit."""
    # the loss of one class is the row's logsumexp without that class's logit
    return loss - (s["top"] - s["own"]) if size is None else size - s["top"]


def _row_figures(
    s: dict[str, Array], live: Array | None, losses: Array, surprisal: Array, bins: Bins, weight: Array | None
) -> dict[str, Any]:
    """Return the figures of an evaluation, of the live rows."""
    parts = (s["above"], s["equal"], surprisal, losses)
    above, equal, rest, loss = parts if live is None else (part[live] for part in parts)
    w = weight if weight is None or live is None else weight[live]
    tied = equal != 1.0
    ties = np.flatnonzero(tied) if tied.any() else None
    found: dict[str, Any] = {}
    right: Array = above < 1.0
    if ties is not None:
        right = _shares(above, equal, ties, 1)
    hits = (right if k == 1 else above < k if ties is None else _shares(above, equal, ties, k) for k in bins.within)
    found["within"] = np.array([_weighed(hit, w) for hit in hits])
    found["weight"] = len(loss) if w is None else float(w.sum())
    if w is None:
        found["weighted_loss"] = _finite_sum(loss)[0]
        found |= backend().row_figures(rest, right, loss, bins)
    else:
        found["weighted_loss"] = float(np.where(np.isfinite(loss), loss * w, 0.0).sum())
        found |= arrays.row_figures(rest, right, loss, bins, w)
    return found


def _shares(above: Array, equal: Array, ties: Array, k: int) -> Array:
    """Return which share of each row's class is among the k largest: of equal logits, as many as there is room for."""
    shares = (above < k).astype(np.float64)
    shares[ties] = np.clip((k - above[ties]) / np.maximum(equal[ties], 1.0), 0.0, 1.0)
    shares[equal == 0.0] = 0.0  # NaN
    return shares


def _weighed(hit: Array, weight: Array | None) -> float | int:
    if weight is not None:
        return float((weight * hit).sum())
    return _number(hit) if hit.dtype == np.bool_ else float(hit.sum())


def row_keys(first: Array, second: Array) -> Array:
    """64 well-mixed bits (splitmix64) of two float64 numbers of each row."""
    h = second.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    h += first.view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h ^= h >> np.uint64(shift)
        h *= np.uint64(factor)
    return h ^ (h >> np.uint64(31))
