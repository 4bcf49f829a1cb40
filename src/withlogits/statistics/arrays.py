"""What statistics need of the whole arrays, in plain NumPy: the definition, and what computes without compiled kernels.

`withlogits.kernels.cpu.statistics` has the same functions on compiled kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics.bins import Bins

Array = NDArray[Any]


def scan(x: Array, axis: int, y: Array | None = None) -> dict[str, Array]:
    """Return what each row of classes is like, (N,): its extremes (`top`, `low`), its sum (`total`), all float64.

    Also `first`, the class of its first largest element; `own`, the element of its class in y (N,), or 0 without y; and
    `above`, how many are above that. NaN counts in the sum alone.
    """
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)
    own = np.zeros(len(rows)) if y is None else rows[np.arange(len(rows)), y]
    nan = np.isnan(rows)
    high = np.where(nan, -np.inf, rows)
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "top": high.max(axis=1),
            "low": np.where(nan, np.inf, rows).min(axis=1),
            "total": rows.sum(axis=1),
            "first": high.argmax(axis=1),
            "above": np.count_nonzero(rows > own[:, None], axis=1).astype(np.float64),
            "own": own,
        }


def row_figures(surprisal: Array, right: Array, loss: Array, bins: Bins) -> dict[str, Array]:
    """Return the `confidence` and `histogram` of `element_statistics` for rows, (N,) each, float64 and bool.

    The surprisal is −log p of the class that counts, the loss what is asked of it.
    """
    with np.errstate(over="ignore"):
        probabilities = np.exp(np.minimum(-surprisal, 0.0))
    return {"confidence": bins.reliability(probabilities, right), "histogram": bins.histogram(loss)}


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
            "nan": np.count_nonzero(np.isnan(loss)),
            "infinite": np.count_nonzero(np.isinf(loss)),
            "class_loss": loss.sum(axis=0),
            "answers": np.array([np.count_nonzero(mask, axis=0) for mask in (true, said, true & said)]),
            "confidence": bins.reliability(probabilities.reshape(-1), labels.reshape(-1)),
            "histogram": bins.histogram(loss.reshape(-1)),
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
