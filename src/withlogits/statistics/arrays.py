"""Statistics of logits and labels in plain NumPy: the definition, and what computes where Numba cannot be had.

`withlogits.kernels.cpu.statistics` has the same functions on compiled kernels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics.bins import Bins

Array = NDArray[Any]
Floats = NDArray[np.float64]

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
    how many the class is among the k largest (`within`), and `confidence` and `histogram` as of `element_statistics`;
    `first`, the class of each row's largest logit, and of its largest label (`labels`). And each row's key: the rows
    with the smallest keys are a sample.
    """
    rows, exclusive = math.prod(x.shape) // x.shape[axis], loss is not None
    with np.errstate(invalid="ignore", over="ignore"):
        found: dict[str, Any] = {}
        y, label_totals, live = labels, np.zeros(rows), np.ones(rows, bool)
        if labels.ndim == x.ndim:
            z = _scan(labels, axis)
            found |= _label_counts(z, label_close)
            y, label_totals, live = z["first"], z["total"], z["top"] > 0.0
        if counted is not None:
            live = counted
        own = _in_rows(x, axis)[np.arange(rows), y] if exclusive else None
        s = _scan(x, axis, own)
        spread = s["top"] - s["low"]
        found |= {
            "low": float(s["low"].min()), "top": float(s["top"].max()), "total": float(s["total"].sum()),
            "spread": float(spread[np.isfinite(spread)].sum()), "odd_rows": _number(~np.isfinite(s["total"])),
            "sums_to_one": _number(np.abs(s["total"] - 1.0) <= close),
        }  # fmt: skip
        if loss is None:
            found["saturated"] = _number(np.maximum(np.abs(s["top"]), np.abs(s["low"])) > CERTAIN)
            found["keys"] = np.where(np.isfinite(s["total"]), row_keys(s["total"], label_totals), NEVER)
            return found
        loss = loss.astype(np.float64)
        rest = loss - (s["top"] - own) if size is None else size.astype(np.float64) - s["top"]
        finite, right = np.isfinite(loss), live & (s["first"] == y)
        within = 2.0**-24 + (2.0**-22 * np.abs(loss) if size is None else 0.0)
        found |= {
            "loss": float(loss[finite].sum()), "counted": _number(live), "right": _number(right),
            "nan": _number(np.isnan(loss)), "infinite": _number(np.isinf(loss)),
            "saturated": _number(live & (rest <= within)),
            "keys": np.where(live & finite, row_keys(loss, s["total"]), NEVER), "first": s["first"],
        }  # fmt: skip
        if labels.ndim == x.ndim:
            found["labels"] = y
        if bins is not None:
            found["within"] = np.array([_number(live & (s["above"] < k)) for k in bins.within])
            probabilities = np.exp(np.minimum(-rest, 0.0))
            found["confidence"] = reliability(probabilities[live], right[live].astype(np.float64), bins)
            found["histogram"] = loss_histogram(loss[live], bins)
    return found


def _in_rows(x: Array, axis: int) -> Floats:
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)


def _number(mask: Array) -> int:
    return int(np.count_nonzero(mask))


def _scan(x: Array, axis: int, threshold: Array | None = None) -> dict[str, Array]:
    """What each row is like; NaN counts in the total alone. `above`: how many are above the row's threshold, or 0."""
    rows = _in_rows(x, axis)
    nan = np.isnan(rows)
    high = np.where(nan, -np.inf, rows)
    return {
        "top": high.max(axis=1),
        "low": np.where(nan, np.inf, rows).min(axis=1),
        "total": rows.sum(axis=1),
        "first": high.argmax(axis=1),
        "above": np.count_nonzero(rows > (0.0 if threshold is None else threshold[:, None]), axis=1),
    }


def _label_counts(z: dict[str, Array], close: float) -> dict[str, Any]:
    good = (z["low"] >= 0.0) & (z["top"] <= 1.0)
    binary = good & (z["total"] == z["above"])
    found: dict[str, Any] = {
        "label_low": float(z["low"].min()),
        "label_top": float(z["top"].max()),
        "label_lowest_sum": float(np.fmin.reduce(z["total"], initial=np.inf)),
        "label_highest_sum": float(np.fmax.reduce(z["total"], initial=-np.inf)),
        "label_total": float(z["total"].sum()),
        "label_positive": float(z["total"][good].sum()),
        "label_binary": _number(binary),
        "label_distributions": _number((z["low"] >= 0.0) & (np.abs(z["total"] - 1.0) <= close)),
        "label_negative": _number(z["low"] < 0.0),
        "label_odd": _number(~np.isfinite(z["total"])),
        "label_hot": _number(z["top"] == 1.0),
    }
    for i, name in enumerate(("label_none", "label_one", "label_two")):
        found[name] = _number(binary & (z["above"] == i))
    return found


def element_statistics(x: Array, z: Array, *, bins: Bins, floor: float, binary: bool = False) -> dict[str, Any]:
    """Count the elements (rows, C) of independent classes.

    Returns the sum of the finite losses, and how many are NaN or infinite; for each class the sum of its losses, and
    how many elements have a label above 1/2, a logit above 0, and both (`answers`, (3, C)); in `bins` the `histogram`
    of losses, and `confidence`, (3, B): how many probabilities, their sum, and the sum of the labels; and the flat
    numbers of the elements that lose at least `floor` (`listed`). `binary` promises that all labels are 0 or 1, which
    takes a kernel less time.
    """
    wide, labels = x.astype(np.float64), z.astype(np.float64)
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(wide))
        rest = np.log1p(e)
        no, yes = (np.maximum(a, 0.0) + rest for a in (wide, -wide))  # the losses of either label
        loss = np.where(labels == 0.0, 0.0, labels * yes) + np.where(labels == 1.0, 0.0, (1.0 - labels) * no)
        finite, true, said = np.isfinite(loss), labels > 0.5, wide > 0.0
        probabilities = np.where(wide < 0.0, e, 1.0) / (1.0 + e)
        return {
            "loss": float(loss[finite].sum()),
            "nan": _number(np.isnan(loss)),
            "infinite": _number(np.isinf(loss)),
            "class_loss": loss.sum(axis=0),
            "answers": np.array([np.count_nonzero(mask, axis=0) for mask in (true, said, true & said)]),
            "confidence": reliability(probabilities.reshape(-1), labels.reshape(-1), bins),
            "histogram": loss_histogram(loss.reshape(-1), bins),
            "listed": np.flatnonzero(loss >= floor),
        }


def count_scores(x: Array, z: Array, counts: Array, *, bins: Bins, fraction: int) -> None:
    """Add to `counts` (tables, C, 2, B) how many of (rows, C) elements, without and with the label, have which score.

    The tables are added up by who reads them. A bin is the exponent of the float32 |x| + 2^score_lowest and `fraction`
    bits behind it, mirrored for negative x: so small scores are 2^(score_lowest − fraction) apart. From
    2^(score_lowest + score_octaves) on all are alike; NaN is with the smallest.
    """
    classes, size = x.shape[1], bins.scores(fraction)
    half = size // 2
    with np.errstate(over="ignore"):
        single = np.where(x == x, x, -np.inf).astype(np.float32)
    words = (np.abs(single) + np.float32(2.0**bins.score_lowest)).view(np.int32)
    steps = np.minimum((words >> (23 - fraction)) - ((127 + bins.score_lowest) << fraction), half - 1)
    place = np.where(np.signbit(single), half - 1 - steps, half + steps) + np.where(z.astype(np.float64) > 0.5, size, 0)
    place = place + np.arange(classes) * 2 * size
    counts[0] += np.bincount(place.reshape(-1), minlength=2 * classes * size).reshape(classes, 2, size)


def row_keys(first: Array, second: Array) -> Array:
    """64 well-mixed bits (splitmix64) of two float64 numbers of each row."""
    h = first.view(np.uint64) + second.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return h


def reliability(probabilities: Floats, true: Floats, bins: Bins) -> Floats:
    """(3, B): how many probabilities lie in each of `bins.confidence` bins over [0, 1], their sum, what came true."""
    known = ~np.isnan(probabilities)
    probabilities, true = probabilities[known], true[known]
    place = np.clip((probabilities * bins.confidence).astype(np.int64), 0, bins.confidence - 1)
    return np.array(
        [np.bincount(place, weights, bins.confidence) for weights in (None, probabilities, true)], np.float64
    )


def loss_histogram(loss: Floats, bins: Bins) -> Array:
    """How many finite losses lie below 2^lowest, then in [2^k, 1.5·2^k) and [1.5·2^k, 2^(k+1)) of each octave."""
    place = (loss[np.isfinite(loss)].view(np.int64) >> 51) - (((1023 + bins.lowest) << 1) - 1)
    return np.bincount(np.clip(place, 0, bins.losses - 1), minlength=bins.losses)
