"""The truth: each formula in mpmath, the error of a result in units in the last place, and rows that are hard.

Here the formulas are written as a textbook has them, not as `withlogits.reference` does: probabilities, logarithms, and
enough digits (350 bits) that cancellation does not matter between 1e-45 and 1e38.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from mpmath import mp, mpf

mp.prec = 350

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {"bfloat16": BFLOAT16}
# bits of the significand, exponent of the smallest normal number, largest finite number
FORMATS = {
    "float16": (11, -14, 65504.0),
    "bfloat16": (8, -126, float(ml_dtypes.finfo(BFLOAT16).max)),
    "float32": (24, -126, float(np.finfo(np.float32).max)),
    "float64": (53, -1022, float(np.finfo(np.float64).max)),
}


# ---------------------------------------------------------------------------------------------------------- in ulp


def ulp(x: mpf, dtype: Any) -> mpf:
    """The spacing of `dtype` at x; below the normal numbers, that of the subnormal ones."""
    digits, lowest, _ = FORMATS[np.dtype(dtype).name]
    exponent = mp.frexp(x)[1] - 1 if x else lowest
    return mp.ldexp(mpf(1), int(max(exponent, lowest)) - digits + 1)


def ulp_error(got: Any, truth: mpf, dtype: Any, scale: mpf = mp.zero, granted: mpf = mp.zero) -> float:
    """How far `got` is from the truth, less what is `granted`, in ulp of the truth (or of `scale`, if that is larger).

    Infinity is right where the truth is beyond the largest number of `dtype`; NaN only for NaN.
    """
    got = float(got)
    if mp.isnan(truth) or np.isnan(got):
        return 0.0 if mp.isnan(truth) and np.isnan(got) else float("inf")
    largest = FORMATS[np.dtype(dtype).name][2]
    if np.isinf(got):
        return 0.0 if mp.sign(truth) == np.sign(got) and abs(truth) > largest else float("inf")
    if mp.isinf(truth):
        return float("inf")
    return float(max(abs(mpf(got) - truth) - granted, 0) / ulp(max(abs(truth), abs(scale)), dtype))


def worst(got: Any, truth: Sequence[mpf], dtype: Any) -> float:
    return max((ulp_error(g, t, dtype) for g, t in zip(np.ravel(got), truth, strict=True)), default=0.0)


# ------------------------------------------------------------------------------------------------------- the truth


def exact(x: Any) -> mpf:
    return mpf(float(x))


class Entries(Sequence[mpf]):
    """A sequence whose entries are computed when asked for, each different one once."""

    def __init__(self, entry: Callable[..., mpf], *arguments: list[Any]):
        self.entry = functools.cache(entry)
        self.arguments = arguments

    def __len__(self) -> int:
        return len(self.arguments[0])

    def __getitem__(self, j: Any) -> Any:
        return self.entry(*(values[j] for values in self.arguments))


@dataclass(frozen=True)
class Truth:
    """Of one row (softmax) or one element (sigmoid); sequences run over the classes.

    `scale` is the size of what is added up to make an entry of the gradient. It is larger than the entry only where
    float64 arithmetic must cancel: where a soft label is nearly the probability, or the z-loss nearly undoes the rest.
    `sensitivity` is Σ |x'_j · d loss/d x'_j|: by how much of itself the loss moves with a relative change of the
    transformed logits x'.
    """

    loss: mpf
    gradient: Sequence[mpf]
    label_gradient: Sequence[mpf]
    scale: Sequence[mpf]
    p: Sequence[mpf] = ()
    m: mpf = mp.zero
    r: mpf = mp.zero
    sensitivity: mpf = mp.zero
    slope: Sequence[mpf] = ()

    @property
    def logsumexp(self) -> mpf:
        return self.m + self.r


def softmax(
    x: Any,
    *,
    label: int | None = None,
    labels: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Truth:
    """Loss and gradients of one row, for an index (`label`) or for a row of labels; without either, the row alone.

    Work is done once for each different (logit, label, weight), so a long row of few values is cheap.
    """
    x = np.asarray(x).astype(np.float64)
    count = len(x)
    z = np.zeros(count) if labels is None else np.asarray(labels).astype(np.float64)
    if label is not None:
        z[label] = 1.0
    w = np.ones(count) if class_weight is None else np.asarray(class_weight, np.float64)
    eps, tau, lam = exact(label_smoothing), exact(temperature), exact(z_loss)
    cap = None if softcap is None else exact(softcap)
    if np.isnan(x).any() or np.isposinf(x).any() or np.isneginf(x).all():
        nothing = [mp.nan] * count
        return Truth(mp.nan, nothing, nothing, nothing, nothing, mp.nan, mp.nan, mp.nan, nothing)

    @functools.cache
    def bent(a: float) -> mpf:
        if cap is None or a == -np.inf:  # a class that cannot occur stays one
            return mpf(a) / tau
        return cap * mp.tanh(mpf(a) / cap) / tau

    @functools.cache
    def slope(a: float) -> mpf:
        return (mpf(1) if cap is None else mp.sech(mpf(a) / cap) ** 2) / tau

    def target(zj: float, wj: float) -> mpf:
        return mpf(wj) * ((1 - eps) * mpf(zj) + eps / count)

    numbers = (x.tolist(), z.tolist(), w.tolist())
    different = Counter(zip(*numbers, strict=True))
    values = {a: sum(n for (b, _, _), n in different.items() if a == b) for a in set(numbers[0])}
    m = max(bent(a) for a in values)
    exps = {a: mpf(0) if a == -np.inf else mp.exp(bent(a) - m) for a in values}
    ties = sum(n for a, n in values.items() if bent(a) == m)
    others = mp.fsum(n * exps[a] for a, n in values.items() if bent(a) < m)
    r = mp.log1p(ties - 1 + others)
    lse = m + r
    total = mp.fsum(n * target(zj, wj) for (_, zj, wj), n in different.items())
    cost = mp.fsum(n * t * (m - bent(a) + r) for (a, zj, wj), n in different.items() if (t := target(zj, wj)))

    def p(a: float) -> mpf:
        return exps[a] / (ties + others)

    def terms(a: float, zj: float, wj: float) -> tuple[mpf, mpf, mpf]:
        """What adds up to d loss/d x'_j: T p − t, or (T − t) − T (1 − p), which is the same; and the z-loss."""
        t = target(zj, wj)
        if 2 * p(a) > 1:
            return total - t, -total * others / (1 + others), 2 * lam * lse * p(a)
        return total * p(a), -t, 2 * lam * lse * p(a)

    def label_entry(a: float, wj: float) -> mpf:
        weight = mpf(wj) * (1 - eps)
        return weight * (m - bent(a) + r) if weight else mpf(0)

    finite = [key for key in different if key[0] != -np.inf]
    return Truth(
        loss=cost + lam * lse**2,
        gradient=Entries(lambda a, zj, wj: mp.fsum(terms(a, zj, wj)) * slope(a), *numbers),
        label_gradient=Entries(label_entry, numbers[0], numbers[2]),
        scale=Entries(lambda a, zj, wj: max(map(abs, terms(a, zj, wj))) * slope(a), *numbers),
        p=Entries(p, numbers[0]),
        m=m,
        r=r,
        sensitivity=mp.fsum(different[key] * abs(bent(key[0]) * mp.fsum(terms(*key))) for key in finite),
        slope=Entries(slope, numbers[0]),
    )


def softplus(x: Any) -> mpf:
    x = exact(x)
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def sigmoid(x: Any) -> mpf:
    x = exact(x)
    return 1 / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x))


def logit(p: Any) -> mpf:
    p = exact(p)
    if not 0 <= p <= 1:
        return mp.nan
    if p in (0, 1):
        return -mp.inf if p == 0 else mp.inf
    return mp.log(p / (1 - p)) if p != mpf(0.5) else mpf(0)


def sigmoid_loss(x: Any, z: Any, *, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> Truth:
    """Loss and gradients of one element."""
    q, eps = exact(pos_weight), exact(label_smoothing)
    z = (1 - eps) * exact(z) + eps / 2
    yes, no = q * z, 1 - z
    loss = (yes * softplus(-x) if yes else 0) + (no * softplus(x) if no else 0)
    terms = no * sigmoid(x), -yes * sigmoid(-x)
    by_label = (1 - eps) * ((q * softplus(-x) if q else 0) - softplus(x)) if eps != 1 else mpf(0)
    return Truth(mpf(loss), [mp.fsum(terms)], [by_label], [max(map(abs, terms))])


ELEMENTWISE: dict[str, Callable[[Any], mpf]] = {
    "sigmoid": sigmoid,
    "log_sigmoid": lambda x: -softplus(-x),
    "softplus": softplus,
    "logit": logit,
}


# ------------------------------------------------------------------------------------------------------- hard rows

KINDS = ("confident", "uniform", "tied", "masked", "adversarial", "huge", "tiny")


def row(kind: str, classes: int, dtype: Any, rng: np.random.Generator, distinct: int = 256) -> np.ndarray:
    """A row of logits, of at most `distinct` different values (so that the truth of a long row stays cheap)."""
    dtype = np.dtype(dtype)
    largest = FORMATS[dtype.name][2] / 2
    n = min(classes, distinct)
    if kind == "confident":
        x = rng.normal(0.0, 1.0, n)
        x[0] = rng.choice([10.0, 20.0, 40.0, 80.0, 100.0, 700.0])
    elif kind == "uniform":
        x = rng.uniform(-5.0, 5.0, n)
    elif kind == "tied":
        x = rng.choice(rng.normal(0.0, 10.0, 3), n)
    elif kind == "masked":
        x = rng.normal(0.0, 5.0, n)
        x[rng.permutation(n)[: n // 2]] = -np.inf
    elif kind == "adversarial":
        x = adversarial(n, dtype, rng)
    elif kind == "huge":
        x = rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(2.0, 38.0, n)
        x = np.clip(x, -largest, largest)
    elif kind == "tiny":
        x = rng.choice([-1.0, 0.0, 1.0], n) * 10.0 ** rng.uniform(-45.0, -3.0, n)
    else:
        raise KeyError(kind)
    x = x.astype(np.float32).astype(dtype) if dtype != np.float64 else x
    if classes > n:
        x = np.concatenate([x, rng.choice(x[1:], classes - n)])
    return rng.permutation(x)


def adversarial(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> np.ndarray:
    """Differences that do not fit the format, near-ties, and the places where exp leaves the normal numbers."""
    digits = FORMATS[dtype.name][0]
    top = rng.choice([0.1, 1.0 / 3.0, 17.3, 20.1, 100.7])
    tiny = 2.0**-digits
    steps = np.array([1.0, 1.0 - tiny, 1.0 - 2 * tiny, 0.999])
    ends = np.array([np.log(2.0), 17.328679, 36.736801, 87.336544, 88.722839, 103.97208, 708.39642, 745.13322])
    x = np.where(
        rng.random(n) < 0.3, top * rng.choice(steps, n), top - rng.choice(ends, n) * (1 + rng.normal(0, 1e-3, n))
    )
    return np.where(rng.random(n) < 0.2, rng.normal(0.0, 1e-3, n), x)


def rows(classes: int, dtype: Any, seed: int, each: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for _ in range(each):
            yield kind, row(kind, classes, dtype, rng)


# -------------------------------------------------------------------------------------------------- ordinary arrays


def some(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.0, 3.0, shape).astype(dtype)


def some_labels(shape: tuple[int, ...], classes: int, dtype: Any = np.int64, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, classes, shape).astype(dtype)


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Any:
    return (labels[..., None] == np.arange(classes)).astype(dtype)
