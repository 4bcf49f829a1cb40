"""The engine where Numba cannot be had, and the oracle of the kernels' tests: `formulas` on NumPy arrays.

Float64 inside, and one rounding to the result's dtype at the end. Speed is not its aim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, formulas, shapes
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks import numpy_namespace
from withlogits.options import Options, SoftmaxOptions

NAME = "reference"

Floats = NDArray[np.float64]
Array = NDArray[Any]

times = partial(formulas.times, numpy_namespace)
softplus_of = partial(formulas.softplus, numpy_namespace)
sigmoid_of = partial(formulas.sigmoid, numpy_namespace)


class FormulaPlan:
    """A loss by the formulas, with the interface of the compiled engine's plans; there is nothing to plan."""

    def __init__(self, options: Options, memory: Any, labels: Any, logits: Any) -> None:
        self._options, self._fit = options, None
        if isinstance(options, SoftmaxOptions):
            self._fit = fit = shapes.softmax_fit(options, labels.shape, logits.shape, labels.dtype)
            # NumPy compares labels of every type with the index as it was given
            self._chosen: Options = replace(fit.options, ignore_index=fit.ignore_index)
        else:
            shapes.check_sigmoid_labels(labels.shape, logits.shape)
            self._chosen = options

    def quick(self, for_logits: bool) -> None:
        """There is no shorter way for small arrays."""

    def evaluate(
        self, arrays: tuple[Any, ...], for_logits: bool, for_labels: bool, out: Array | None = None
    ) -> tuple[Any, Array | None, Array | None]:
        """Return the loss, reduced, with the gradients of the reduced loss."""
        labels, logits, weight, sample_weight = arrays
        shape = logits.shape if self._fit is None else self._fit.loss_shape
        if sample_weight is not None:
            sample_weight = np.broadcast_to(sample_weight, shape)
        with np.errstate(all="ignore"):
            loss, losses, weights = self._losses(logits, labels, weight, sample_weight)
            value, divisor = self._reduced(losses, weights)
            share = np.full(losses.shape, 1.0 / divisor if divisor else 0.0)
            if self._fit is None:
                gradients = loss.gradients(share, for_logits, for_labels)
            else:
                entangled = weight is not None and self._options.reduction == "mean"
                gradients = loss.gradients(share, for_logits, for_labels, np.asarray(value) if entangled else None)
            dtype = formulas.loss_dtype(numpy_namespace, logits)
            value = np.asarray(formulas.rounded(numpy_namespace, np.asarray(value), dtype))
            value = value.reshape(shape) if self._options.reduction == "none" else value[()]
        gradient, label_gradient = gradients
        if out is not None:
            out[...] = gradient
            gradient = out
        return value, gradient, label_gradient

    def _losses(self, logits: Array, labels: Array, weight: Any, sample_weight: Any) -> tuple[Any, Floats, Floats]:
        """Return the loss object, the losses of rows or elements, and what each adds to the divisor of a mean."""
        fit = self._fit
        if fit is None:
            sigmoid = formulas.Sigmoid(
                numpy_namespace, SigmoidArrays(logits, labels, weight, sample_weight), self._chosen
            )
            return sigmoid, sigmoid.losses(), sigmoid.factor
        given = labels
        if fit.keeps_axis:
            labels = labels.squeeze(fit.axis)
            if sample_weight is not None:
                sample_weight = sample_weight.squeeze(fit.axis)
        elif fit.one_row:
            labels = np.broadcast_to(labels, logits.shape)
        arrays = SoftmaxArrays(logits, labels, weight, sample_weight)
        softmax = formulas.Softmax(numpy_namespace, arrays, self._chosen)
        if not (softmax.valid | ~softmax.unmasked).all():
            counts = None if sample_weight is None else sample_weight.reshape(given.shape)
            raise errors.label_out_of_range(given, logits.shape[fit.axis], fit.ignore_index, counts)
        losses = softmax.losses()
        return softmax, losses, formulas.row_weights(numpy_namespace, arrays, self._chosen, losses)

    def _reduced(self, losses: Floats, weights: Floats) -> tuple[Any, float]:
        """Return the reduced value, and what its gradient is divided by: 0 where nothing contributes."""
        if self._options.reduction == "none":
            return losses, 1.0
        value = _sum(losses)
        if self._options.reduction == "sum":
            return value, 1.0
        divisor = _sum(weights)
        return (value / divisor if divisor else 0.0), divisor


def _sum(x: Floats) -> float:
    return float(formulas.total(numpy_namespace, x.reshape(-1))[0].item())


plan_loss = FormulaPlan


def plan_softmax_map(kind: str, axis: Any, memory: Any, x: Any) -> Callable[[Array], Array]:
    """Return the function of arrays like x; there is nothing to plan."""
    return partial(_softmax_map, axis=shapes.class_axis(axis, x.shape, "x"), kind=kind)


def plan_elementwise(kind: str, memory: Any, x: Any) -> Callable[[Array], Array]:
    """Return the function of arrays like x; there is nothing to plan."""
    return partial(_elementwise, kind=kind)


def _softmax_map(x: Array, *, axis: int, kind: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(formulas.softmax_map(numpy_namespace, x, axis, kind))


def _elementwise(x: Array, *, kind: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(formulas.elementwise(numpy_namespace, x, kind))


def row_facts(x: Array, axis: int, y: Array | None = None) -> dict[str, Array]:
    """top, low, total, first, above (and own) of the rows along `axis`, in float64; NaN counts in total alone."""
    count = math.prod(x.shape[:axis] + x.shape[axis + 1 :])
    rows = np.moveaxis(x, axis, -1).reshape(count, x.shape[axis]).astype(np.float64)
    nan = np.isnan(rows)
    high, low = np.where(nan, -np.inf, rows), np.where(nan, np.inf, rows)
    own = {} if y is None else {"own": rows[np.arange(count), y]}
    with np.errstate(invalid="ignore", over="ignore"):
        facts = {
            "top": high.max(axis=1, initial=-np.inf),
            "low": low.min(axis=1, initial=np.inf),
            "total": rows.sum(axis=1),
            "first": high.argmax(axis=1) if rows.shape[1] else np.zeros(count),
            "above": np.count_nonzero(rows > (own["own"][:, None] if own else 0.0), axis=1),
        } | own
    return {name: np.asarray(values, np.float64) for name, values in facts.items()}


def row_tallies(
    facts: dict[str, Array],
    y: Array,
    loss: Array,
    *,
    classes: int,
    line: int,
    matrix: bool,
    limit: int,
    counts: Array | None = None,
    size: Array | None = None,
    bins: Any = None,
    floor: float = -np.inf,
) -> dict[str, Any]:
    """What there is to count of rows whose `facts` and losses are known.

    y are the rows' classes, int64 (N,), the `counts` rows those that count (None: all). `line` rows that follow one
    another are neighbours. Without `size`, the rows' logsumexp, each loss must be that of its class alone. Rows with a
    finite loss and a key up to `limit` are listed (`keyed`, with their `keys`). With `matrix`, every pair of a class
    and a prediction is counted. With `bins`, which has the numbers of bins, there are the figures of an evaluation
    too, and the rows that lose at least `floor` (`costly`).
    """
    first = facts["first"].astype(np.int64)
    live = np.ones(len(y), bool) if counts is None else counts
    loss = loss.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        if size is None:
            rest = loss - (facts["top"] - facts["own"])
            saturated = rest <= 2.0**-24 + 2.0**-22 * np.abs(loss)
        else:
            rest = size - facts["top"]
            saturated = rest <= 2.0**-24
        claimed = np.exp(np.minimum(-rest, 0.0))
        spread = facts["top"] - facts["low"]
    finite, right = np.isfinite(loss), live & (first == y)
    both = np.flatnonzero(live[:-1] & live[1:] & (np.arange(1, len(y)) % line != 0)) if len(y) else np.zeros(0, int)
    keys = row_keys(loss, facts["total"])
    keyed = np.flatnonzero(live & finite & (keys <= np.uint64(limit)))
    masks = {
        "right": right,
        "counted": live,
        "nan": np.isnan(loss),
        "infinite": np.isinf(loss),
        "saturated": live & saturated,
        "odd_rows": ~np.isfinite(facts["total"]),
        "neighbours": np.ones(len(both), bool),
        "in_place": first[both] == y[both],
        "ahead": first[both] == y[both + 1],
        "behind": first[both + 1] == y[both],
        "changes": y[both] != y[both + 1],
    }
    found: dict[str, Any] = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    found["low"], found["top"] = float(facts["low"].min(initial=np.inf)), float(facts["top"].max(initial=-np.inf))
    found["loss"], found["spread"] = float(loss[finite].sum()), float(spread[np.isfinite(spread)].sum())
    found["keyed"], found["keys"] = keyed, keys[keyed]
    found["support"] = np.bincount(y[live], minlength=classes)
    pairs = np.bincount((y * classes + first)[live], minlength=classes**2) if matrix else None
    found["matrix"] = None if pairs is None else pairs.reshape(classes, classes)
    if bins is not None:
        found["within"] = np.array([np.count_nonzero(live & (facts["above"] < k)) for k in bins.within])
        found["confidence"] = reliability(claimed[live], right[live].astype(np.float64), bins)
        found["histogram"] = loss_histogram(loss[live], bins)
        found["class_loss"] = np.bincount(y[live], loss[live], classes)
        found["costly"] = np.flatnonzero(live & (loss >= floor))
    return found


def label_tallies(
    label_facts: dict[str, Array], close: float, facts: dict[str, Array] | None = None, limit: int = 0
) -> dict[str, Any]:
    """What there is to count of the rows of dense labels, and of logits beside them, whose facts are known.

    Of the labels: extremes and sums; rows of nothing but 0 and 1 (`binary`), and how many of these have none, one or
    two ones; rows that sum to 1 but for `close` without a negative entry (`distributions`); rows with a negative entry;
    rows whose sum is not finite (`odd`); `positive` is the sum of the rows within [0, 1]. Of the logits: extremes and
    sums, the rows with one beyond 40 (`saturated`), and those with a finite sum and a key up to `limit`.
    """
    low, top, total, above = (label_facts[name] for name in ("low", "top", "total", "above"))
    good = (low >= 0.0) & (top <= 1.0)
    binary = good & (total == above)
    with np.errstate(invalid="ignore"):
        found: dict[str, Any] = {
            "low": float(low.min(initial=np.inf)),
            "top": float(top.max(initial=-np.inf)),
            "lowest_sum": float(np.fmin.reduce(total, initial=np.inf)),
            "highest_sum": float(np.fmax.reduce(total, initial=-np.inf)),
            "total": float(total.sum()),
            "positive": float(total[good].sum()),
            "binary": int(np.count_nonzero(binary)),
            "distributions": int(np.count_nonzero((low >= 0.0) & (np.abs(total - 1.0) <= close))),
            "negative": int(np.count_nonzero(low < 0.0)),
            "odd": int(np.count_nonzero(~np.isfinite(total))),
        }
        for i, name in enumerate(("none", "one", "two")):
            found[name] = int(np.count_nonzero(binary & (above == i)))
        if facts is not None:
            spread = facts["top"] - facts["low"]
            finite, keys = np.isfinite(facts["total"]), row_keys(facts["total"], total)
            keyed = np.flatnonzero(finite & (keys <= np.uint64(limit)))
            found["logits"] = {
                "low": float(facts["low"].min(initial=np.inf)),
                "top": float(facts["top"].max(initial=-np.inf)),
                "spread": float(spread[np.isfinite(spread)].sum()),
                "total": float(facts["total"].sum()),
                "odd_rows": int(np.count_nonzero(~finite)),
                "saturated": int(np.count_nonzero(np.maximum(np.abs(facts["top"]), np.abs(facts["low"])) > 40.0)),
                "keyed": keyed,
                "keys": keys[keyed],
            }
    return found


def pair_tallies(x: Array, z: Array, axis: int, close: float, limit: int) -> dict[str, Any]:
    """The `label_tallies` of the rows of labels and logits in the same shape, along `axis`."""
    return label_tallies(row_facts(z, axis), close, row_facts(x, axis), limit)


def element_tallies(
    x: Array, z: Array, *, bins: Any = None, floor: float = np.inf, binary: bool = False
) -> dict[str, Any]:
    """What there is to count of the elements (rows, C) of independent classes: sums, and the figures of an evaluation.

    The sums of the finite losses and of label times logit where the loss is finite (`agreement`); how many losses are
    NaN or infinite. With `bins`, for each class the elements whose label is above 1/2, those whose logit is above 0,
    and both (`answers`, (3, C)), and the sum of its losses; calibration and the histogram of losses in `bins`; the flat
    numbers of the elements that lose at least `floor` (`costly`), and their losses (`costs`). `binary` promises that
    all labels are 0 or 1, which takes a kernel less time.
    """
    wide, labels = x.astype(np.float64), z.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        loss = times(labels, softplus_of(-wide)) + times(1.0 - labels, softplus_of(wide))
        finite, agreement, class_loss = np.isfinite(loss), labels * wide, loss.sum(axis=0)
    found = {
        "loss": float(loss[finite].sum()),
        "agreement": float(agreement[finite].sum()),
        "nan": int(np.count_nonzero(np.isnan(loss))),
        "infinite": int(np.count_nonzero(np.isinf(loss))),
    }
    if bins is None:
        return found
    yes, said = labels > 0.5, wide > 0.0
    costly = np.flatnonzero(loss >= floor)
    return found | {
        "answers": np.array([np.count_nonzero(mask, axis=0) for mask in (yes, said, yes & said)]),
        "class_loss": class_loss,
        "confidence": reliability(sigmoid_of(wide).reshape(-1), labels.reshape(-1), bins),
        "histogram": loss_histogram(loss.reshape(-1), bins),
        "costly": costly,
        "costs": loss.reshape(-1)[costly],
    }


def count_scores(x: Array, z: Array, counts: Array, *, bins: Any, fraction: int) -> None:
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


def reliability(claimed: Floats, true: Floats, bins: Any) -> Floats:
    """(3, B): how many claims lie in each of `bins.confidence` bins over [0, 1], their sum, and what came true."""
    known = ~np.isnan(claimed)
    claimed, true = claimed[known], true[known]
    place = np.clip((claimed * bins.confidence).astype(np.int64), 0, bins.confidence - 1)
    return np.array([np.bincount(place, weights, bins.confidence) for weights in (None, claimed, true)], np.float64)


def loss_histogram(loss: Floats, bins: Any) -> Array:
    """How many finite losses lie below 2^lowest, then in [2^k, 1.5·2^k) and [1.5·2^k, 2^(k+1)) of each octave.

    A float's exponent and the first bit behind it tell, in a tenth of the time of a search.
    """
    last = 2 * bins.octaves
    place = (loss[np.isfinite(loss)].view(np.int64) >> 51) - (((1023 + bins.lowest) << 1) - 1)
    return np.bincount(np.clip(place, 0, last), minlength=last + 1)
