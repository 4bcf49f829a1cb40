"""Every formula in plain array code: the oracle of the tests, and the engine where Numba cannot be had.

Float64 inside, and one rounding to the result's dtype at the end. The letters, for a row x of C logits and target
weights t:

    m = max x      k = how many x_j equal m      s = Σ over x_j < m of exp(x_j − m)
    r = log1p((k − 1) + s)                       logsumexp(x) = m + r, kept as the pair (m, r)
    T = Σ t_j      loss = Σ t_j (m − x_j) + T r + λ (m + r)²
    p_j = exp((x_j − m) − r) = exp(x_j − m) / (k + s)

For float64 logits three things keep the last digits: the difference m − x_j is a pair (its rounding error, ε·|m − x_j|,
would be that of exp(x_j − m) too), sums are pairs, and p_j divides by k + s, since r near 10 would bring p_j an error
of 10 ε. Speed is nobody's aim here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.options import Options, SoftmaxOptions, field_names

NAME = "reference"

Floats = NDArray[np.float64]
Array = NDArray[Any]
Pair = tuple[Floats, Floats]  # an unevaluated sum: the rounded value, and what rounding left


def add(a: Floats, b: Floats) -> Pair:
    """a + b as a pair (Knuth's two-sum); infinite sums and NaN leave nothing over."""
    total = a + b
    part = total - a
    left = (a - (total - part)) + (b - part)
    return total, np.where(np.isfinite(left), left, 0.0)


def add_up(terms: Floats) -> Pair:
    """The sum over the last axis as a pair, folded in halves: the same whatever stands in the other rows."""
    left = np.zeros(terms.shape[:-1])
    if terms.shape[-1] == 0:
        return left, left
    while (n := terms.shape[-1]) > 1:
        folded, lost = add(terms[..., : n // 2], terms[..., n // 2 : n // 2 * 2])
        left = left + lost.sum(axis=-1)
        terms = np.concatenate([folded, terms[..., n // 2 * 2 :]], axis=-1)
    return add(terms[..., 0], left)


class Row(NamedTuple):
    """What the softmax formulas need of rows of logits, shape (..., C); the row's own numbers are (..., 1)."""

    gap: Floats  # m − x_j
    gap_left: Floats  # what its rounding left
    e: Floats  # exp(x_j − m)
    m: Floats
    k: Floats
    s: Floats
    r: Floats


def row_of(x: Floats) -> Row:
    """The row's numbers; NaN where it holds NaN or +inf, or only −inf."""
    m = x.max(axis=-1, keepdims=True)
    m = np.where(np.isfinite(m), m, np.nan)
    gap, gap_left = add(m, -x)
    highest = x == m
    e = np.exp(-gap) * (1.0 - gap_left)
    k = highest.sum(axis=-1, keepdims=True, dtype=np.float64)
    s, s_left = (part[..., None] for part in add_up(np.where(highest, 0.0, e)))
    s = np.where(np.isnan(m), np.nan, s)
    r = np.log1p((k - 1.0) + s) + s_left / (k + s)
    return Row(gap, gap_left, e, m, k, s, r)


def times(weight: Floats | float, x: Floats) -> Floats:
    """The product in which 0 · inf is 0: what has no weight costs nothing."""
    product = weight * x
    return np.where((np.asarray(weight) == 0.0) & np.isinf(x), 0.0, product)


def softmax_loss(
    logits: Array,
    labels: Array,
    *,
    axis: int,
    sparse: bool,
    class_weight: Floats | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Array | None = None,
    reduction: str = "none",
    wrt: tuple[str, ...] = (),
    out: Array | None = None,
) -> tuple[Any, tuple[Array, ...]]:
    """Softmax cross-entropy and its gradients; the meaning of each argument is that of the public losses."""
    with np.errstate(all="ignore"):
        x = np.moveaxis(logits, axis, -1).astype(np.float64, order="C")  # (..., C)
        classes = x.shape[-1]
        sample = np.ones(x.shape[:-1]) if sample_weight is None else sample_weight.astype(np.float64)
        if sparse:
            if ignore_index is not None:
                sample = np.where(labels == ignore_index, 0.0, sample)
            if (((labels < 0) | (labels >= classes)) & (sample != 0.0)).any():
                raise errors.label_out_of_range(labels, classes, ignore_index, sample_weight)
            z = (labels[..., None] == np.arange(classes)).astype(np.float64)
        else:
            z = np.moveaxis(labels, axis, -1).astype(np.float64, order="C")
        counts = (sample != 0.0)[..., None]
        x, z = np.where(counts, x, 0.0), np.where(counts, z, 0.0)
        w = np.ones(classes) if class_weight is None else class_weight
        t = w * ((1.0 - label_smoothing) * z + label_smoothing / classes)

        slope: Floats | float = 1.0 / temperature
        if softcap is not None:
            slope = slope * square_of_sech(x / softcap)
            x = np.where(np.isfinite(x), softcap * np.tanh(x / softcap), x)  # −inf stays a class that cannot occur
        gap, gap_left, e, m, k, s, r = row_of(x / temperature)
        total, total_left = (part[..., None] for part in add_up(t))
        cost, cost_left = add_up(times(t, gap))
        cost_left = cost_left + times(t, gap_left).sum(axis=-1)
        lse = m + r
        z_term = z_loss * lse**2 if z_loss else np.zeros_like(lse)
        loss = cost + (cost_left + (total * r + z_term)[..., 0])
        loss = times(sample, np.where(counts[..., 0], loss, 0.0))

        mass = np.ones_like(sample) if class_weight is None else add_up(w * z)[0]
        value, divisor = reduced(loss, sample * mass, reduction)
        share = sample[..., None] / divisor if divisor else np.zeros_like(sample)[..., None]

        gradients: dict[str, Floats] = {}
        if "logits" in wrt:
            p = e / (k + s)
            # T p − t twice: from 1 − p = −expm1(−r) where that is the smaller, at an only maximum; else from p
            by_rest = total * np.expm1(-r) + ((total - t) + total_left)
            g = np.where(p > 0.5, by_rest, total * p - t) + 2.0 * z_loss * lse * p
            gradients["logits"] = np.where(counts, g * slope * share, 0.0)
        if "labels" in wrt:
            h = times(w * (1.0 - label_smoothing), gap + (r + gap_left))
            if class_weight is not None and reduction == "mean" and divisor:
                h = h - times(w, np.asarray(value))  # the denominator depends on the labels too
            gradients["labels"] = np.where(counts, h * share, 0.0)
        return rounded(
            value, {name: np.moveaxis(g, -1, axis) for name, g in gradients.items()}, logits, labels, wrt, out
        )


def sigmoid_loss(
    logits: Array,
    labels: Array,
    *,
    pos_weight: Floats | None = None,
    label_smoothing: float = 0.0,
    sample_weight: Array | None = None,
    reduction: str = "none",
    wrt: tuple[str, ...] = (),
    out: Array | None = None,
) -> tuple[Any, tuple[Array, ...]]:
    """Sigmoid cross-entropy, element by element, and its gradients.

    The smoothed label and its complement are both built from z: 1 − z' would lose the digits of a small ε.
    """
    with np.errstate(all="ignore"):
        sample = np.ones(logits.shape) if sample_weight is None else sample_weight.astype(np.float64)
        counts = sample != 0.0
        x, z = np.where(counts, logits.astype(np.float64), 0.0), np.where(counts, labels.astype(np.float64), 0.0)
        q = np.ones(()) if pos_weight is None else pos_weight
        positive = q * ((1.0 - label_smoothing) * z + label_smoothing / 2.0)
        negative = (1.0 - label_smoothing) * (1.0 - z) + label_smoothing / 2.0
        loss = times(sample, times(positive, softplus_of(-x)) + times(negative, softplus_of(x)))
        value, divisor = reduced(loss, sample, reduction)
        share = sample / divisor if divisor else np.zeros_like(sample)

        gradients: dict[str, Floats] = {}
        if "logits" in wrt:
            gradients["logits"] = np.where(counts, (negative * sigmoid_of(x) - positive * sigmoid_of(-x)) * share, 0.0)
        if "labels" in wrt:
            # q softplus(−x) − softplus(x), with the part that both share taken out: q = 1 leaves exactly −x
            h = times(q, np.maximum(-x, 0.0)) - np.maximum(x, 0.0) + (q - 1.0) * np.log1p(np.exp(-np.abs(x)))
            gradients["labels"] = np.where(counts, times(1.0 - label_smoothing, h) * share, 0.0)
        return rounded(value, gradients, logits, labels, wrt, out)


def plan_softmax_loss(logits: Array, labels: Array, **options: Any) -> Callable[..., tuple[Any, tuple[Array, ...]]]:
    """The loss of arrays like these; there is nothing to plan."""

    def run(
        logits: Array, labels: Array, class_weight: Floats | None, sample_weight: Array | None, out: Array | None
    ) -> tuple[Any, tuple[Array, ...]]:
        return softmax_loss(logits, labels, class_weight=class_weight, sample_weight=sample_weight, out=out, **options)

    return run


def plan_sigmoid_loss(logits: Array, labels: Array, **options: Any) -> Callable[..., tuple[Any, tuple[Array, ...]]]:
    """The loss of arrays like these; there is nothing to plan."""

    def run(
        logits: Array, labels: Array, pos_weight: Floats | None, sample_weight: Array | None, out: Array | None
    ) -> tuple[Any, tuple[Array, ...]]:
        return sigmoid_loss(logits, labels, pos_weight=pos_weight, sample_weight=sample_weight, out=out, **options)

    return run


def plan_elementwise(kind: str, memory: Any, x: Any) -> Callable[[Array], Array]:
    """The function of arrays like x; there is nothing to plan."""
    return partial(elementwise, kind=kind)


def softmax_map(x: Array, *, axis: int, kind: str) -> Array:
    """softmax, log_softmax or logsumexp (which drops the axis), in the dtype of x."""
    with np.errstate(all="ignore"):
        row = row_of(np.moveaxis(x, axis, -1).astype(np.float64, order="C"))
        if kind == "logsumexp":
            return to_dtype((row.m + row.r)[..., 0], x.dtype)
        if kind == "softmax":
            return to_dtype(np.moveaxis(row.e / (row.k + row.s), -1, axis), x.dtype)
        return to_dtype(np.moveaxis(-(row.gap + (row.r + row.gap_left)), -1, axis), x.dtype)


def elementwise(x: Array, *, kind: str) -> Array:
    """sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    formula = {"sigmoid": sigmoid_of, "log_sigmoid": log_sigmoid_of, "softplus": softplus_of, "logit": logit_of}[kind]
    with np.errstate(all="ignore"):
        return to_dtype(formula(x.astype(np.float64)), x.dtype)


class _Plan:
    """The losses of arrays by the formulas; there is nothing to plan."""

    def __init__(self, chosen: Options, memory: Any, labels: Any, logits: Any) -> None:
        self._options, self._fit = chosen, None
        if isinstance(chosen, SoftmaxOptions):
            self._fit = shapes.softmax_fit(chosen, labels.shape, logits.shape, labels.dtype)
        else:
            shapes.check_sigmoid_labels(labels.shape, logits.shape)

    def quick(self, for_logits: bool) -> None:
        return None

    def evaluate(self, arrays: Any, for_logits: bool, for_labels: bool, out: Any = None) -> Any:
        labels, logits, weight, sample_weight = arrays
        given, fit = labels, self._fit
        wrt = ("logits",) * for_logits + ("labels",) * for_labels
        shape = logits.shape if fit is None else fit.loss_shape
        if sample_weight is not None:
            sample_weight = np.broadcast_to(sample_weight, shape)
        if fit is None:
            value, gradients = sigmoid_loss(
                logits, labels, pos_weight=weight, sample_weight=sample_weight, out=out, wrt=wrt,
                label_smoothing=self._options.label_smoothing, reduction=self._options.reduction,
            )
        else:
            if fit.keeps_axis:
                labels = labels.squeeze(fit.axis)
                sample_weight = None if sample_weight is None else sample_weight.squeeze(fit.axis)
            elif fit.one_row:
                labels = np.broadcast_to(labels, logits.shape)
            options = {name: getattr(fit.options, name) for name in (*field_names(SoftmaxOptions), "reduction")}
            options["ignore_index"] = fit.ignore_index
            try:
                value, gradients = softmax_loss(
                    logits, labels, class_weight=weight, sample_weight=sample_weight, out=out, wrt=wrt, **options
                )
            except ValueError:
                if not fit.keeps_axis:
                    raise
                s = None if arrays[3] is None else np.broadcast_to(arrays[3], shape)
                raise errors.label_out_of_range(given, logits.shape[fit.axis], fit.ignore_index, s) from None
            if self._options.reduction == "none":
                value = value.reshape(shape)
        found = dict(zip(wrt, gradients, strict=True))
        return value, found.get("logits"), found.get("labels"), 1.0


plan_loss = _Plan


def plan_softmax_map(kind: str, axis: Any, memory: Any, x: Any) -> Any:
    return partial(softmax_map, axis=shapes.class_axis(axis, x.shape, "x"), kind=kind)


def softplus_of(x: Floats) -> Floats:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(−|x|))."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def log_sigmoid_of(x: Floats) -> Floats:
    """−softplus(−x)."""
    return -softplus_of(-x)


def sigmoid_of(x: Floats) -> Floats:
    """1/(1 + e) for x ≥ 0 and e/(1 + e) below, e = exp(−|x|)."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0.0, e, 1.0) / (1.0 + e)


def logit_of(p: Floats) -> Floats:
    """log(p / (1 − p)); between 1/4 and 3/4 by log1p, where 2p − 1 is exact and the result may be tiny."""
    lower = np.where(p < 0.25, np.log(p / (1.0 - p)), -np.log1p((1.0 - 2.0 * p) / p))
    upper = np.where(p > 0.75, -np.log((1.0 - p) / p), np.log1p((2.0 * p - 1.0) / (1.0 - p)))
    return np.where(p < 0.5, lower, upper)


def square_of_sech(x: Floats) -> Floats:
    """1/cosh²(x) = 1 − tanh²(x), without the cancellation."""
    e = np.exp(-2.0 * np.abs(x))
    return 4.0 * e / (1.0 + e) ** 2


def reduced(loss: Floats, weight: Floats, reduction: str) -> tuple[Any, float]:
    """The value of a reduction, and what its gradient is divided by: 0 where nothing counts."""
    if reduction == "none":
        return loss, 1.0
    value = float(add_up(loss.ravel())[0])
    if reduction == "sum":
        return value, 1.0
    divisor = float(add_up(weight.ravel())[0])
    return (value / divisor if divisor else 0.0), divisor


def rounded(
    value: Any, gradients: dict[str, Floats], logits: Array, labels: Array, wrt: tuple[str, ...], out: Array | None
) -> tuple[Any, tuple[Array, ...]]:
    """Value and gradients in the dtypes of the results; `out` is written last, since it may be the logits."""
    kind = np.dtype(np.float64 if logits.dtype == np.float64 else np.float32)
    result: Any = to_dtype(value, kind) if isinstance(value, np.ndarray) else kind.type(value)
    dtypes = {"logits": logits.dtype, "labels": kind if labels.dtype.kind in "biu" else labels.dtype}
    arrays = {name: to_dtype(g, dtypes[name]) for name, g in gradients.items()}
    if out is not None:
        out[...] = arrays["logits"]
        arrays["logits"] = out
    return result, tuple(arrays[name] for name in wrt)


def to_dtype(x: Floats, dtype: np.dtype[Any]) -> Array:
    """Rounded to `dtype`; half precision is the float32 result, rounded once more."""
    x = np.asarray(x)
    return x.astype(dtype) if dtype == np.float64 else x.astype(np.float32).astype(dtype, copy=False)


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
