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
    how many are `above` that, and `equal` to it. NaN counts in the sum alone.
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
            "equal": np.count_nonzero(rows == own[:, None], axis=1).astype(np.float64),
            "own": own,
        }


def row_figures(
    surprisal: Array, right: Array, loss: Array, bins: Bins, weight: Array | None = None
) -> dict[str, Array]:
    """Return the `confidence` and `histogram` of `element_statistics` for rows, (N,) each, float64, or bool (`right`).

    The surprisal is −log p of the class that counts, the loss what is asked of it.
    """
    with np.errstate(over="ignore"):
        probabilities = np.exp(np.minimum(-surprisal, 0.0))
    return {"confidence": bins.reliability(probabilities, right, weight), "histogram": bins.histogram(loss)}


def element_statistics(
    x: Array, z: Array, *, bins: Bins, floor: float, binary: bool = False, weight: Array | None = None
) -> dict[str, Any]:
    """Count the elements (rows, C) of independent classes: those of positive `weight` (rows, C), if there are weights.

    Returns the sum of the finite losses, and how many are NaN or infinite; for each class the sum of its losses
    (`class_loss`) and of its weights, and how many elements have a label above 1/2, a logit above 0, and both
    (`answers`, (3, C)); in `bins` the `histogram` of losses, and `confidence`, (3, B): how many probabilities, their
    sum, and the sum of the labels; and the flat numbers of the elements that lose at least `floor` (`listed`). What is
    of a class or a confidence is weighted, as is `weighted_loss`. `binary` promises that all labels are 0 or 1, which
    takes a kernel less time; the kernels know no weights.
    """
    wide, labels = x.astype(np.float64), z.astype(np.float64)
    known = np.ones(x.shape, np.bool_) if weight is None else weight > 0
    w = known if weight is None else weight
    if weight is not None:
        wide, labels = np.where(known, wide, 0.0), np.where(known, labels, 0.0)
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(wide))
        rest = np.log1p(e)
        no, yes = (np.maximum(a, 0.0) + rest for a in (wide, -wide))  # the losses of either label
        loss = np.where(labels == 0.0, 0.0, labels * yes) + np.where(labels == 1.0, 0.0, (1.0 - labels) * no)
        finite, true, said = np.isfinite(loss) & known, labels > 0.5, wide > 0.0
        probabilities = np.where(wide < 0.0, e, 1.0) / (1.0 + e)
        confidence = (probabilities[known], labels[known])
        return {
            "loss": float(loss[finite].sum()),
            "weighted_loss": float((loss * w)[finite].sum()),
            "nan": np.count_nonzero(np.isnan(loss)),
            "infinite": np.count_nonzero(np.isinf(loss)),
            "class_loss": (loss * w).sum(axis=0),
            "class_weight": w.sum(axis=0),
            "answers": np.array([(w * mask).sum(axis=0) for mask in (true, said, true & said)]),
            "confidence": bins.reliability(*confidence, None if weight is None else weight[known]),
            "histogram": bins.histogram(loss[known]),
            "listed": np.flatnonzero((loss >= floor) & known),
        }


def count_scores(x: Array, z: Array, counts: Array, window: tuple[Array, ...], weight: Array | None = None) -> Array:
    """Add to `counts` (tables, C, 2, B) how many of (rows, C) elements, without and with the label, have which score.

    The tables are added up by who reads them. `window` has four numbers of each class (C,), scale, base, low and high:
    scores x between low and high are counted in the bin ⌊x · scale⌋ − base, rounded towards 0, which must exist.
    Returns the flat numbers of the others. The kernels know no weights.
    """
    wide, (scale, base, low, high) = x.astype(np.float64), window
    inside = (wide > low) & (wide < high)
    classes, size = counts.shape[1], counts.shape[3]
    place = np.trunc(np.where(inside, wide, 0.0) * scale) - base
    place = np.where(inside, place, 0.0).astype(np.int64) + np.where(z.astype(np.float64) > 0.5, size, 0)
    place += np.arange(classes) * 2 * size
    added = np.bincount(place[inside], None if weight is None else weight[inside], 2 * classes * size)
    counts[0] += added.reshape(classes, 2, size).astype(counts.dtype, copy=False)
    return np.flatnonzero(~inside)
