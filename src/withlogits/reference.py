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

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits import arguments

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
                raise arguments.label_out_of_range(labels, classes, ignore_index, sample_weight)
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


def plan_elementwise(x: Array, *, kind: str) -> Callable[[Array], Array]:
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
