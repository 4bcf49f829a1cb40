"""A sample of rows that does not depend on the order in which they come, and the temperature that fits it best.

A row's place in the sample is decided by a hash of its numbers (their sum, and the loss): the rows with the
smallest hashes are kept, whatever the order in which they came and however they were split among processes. So samples
merge exactly. Where all rows fit into the sample, it is all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import logsumexp, softmax
from withlogits.activations import sigmoid as probability
from withlogits.losses import sigmoid_cross_entropy_with_logits

Array = NDArray[Any]
Floats = NDArray[np.float64]

SIZE = 1 << 17  # logits in a sample
NEVER = (1 << 64) - 1  # the key of rows that are in no sample
FEWEST = 50  # rows from which on a temperature means something
MASKED = -1e9  # what stands for -inf: a class that is ruled out at every temperature, and whose square is finite
MAX_LOG_TEMPERATURE = 8.0  # its logarithm is sought between minus this and this


class Fit(NamedTuple):
    """The temperature, and what it is worth on the sample."""

    temperature: float
    loss: float  # mean of the sample at temperature 1
    loss_at_temperature: float
    gain_error: float  # standard error of the difference of the two
    rows: int


@dataclass
class Sample:
    """Rows of logits with the labels that they are to answer for, in any order."""

    size: int = SIZE
    keys: Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    independent: bool = False  # is each logit a yes or no of its own
    x: Array | None = None  # (n, C)
    z: Floats | None = None  # (n,) class numbers, or as x
    w: Floats | None = None  # weights, as z, or (n,); without them all are 1

    def capacity(self, classes: int) -> int:
        return max(64, self.size // max(1, classes))

    def _smallest(self, keys: Array, room: int) -> Array:
        """Which of these keys may be among the smallest of all; NEVER is none."""
        rows = len(keys)
        if len(self.keys) >= room:
            chosen = np.flatnonzero(keys < self.keys.max())
        else:
            chosen = np.zeros(0, np.int64)
            if rows > 4 * room:  # keys are spread evenly, unless rows are equal
                chosen = np.flatnonzero(keys <= np.uint64(NEVER // rows * (room + 8 * math.isqrt(room))))
            if len(chosen) < room:
                chosen = np.flatnonzero(keys != np.uint64(NEVER))
        return chosen if len(chosen) <= room else chosen[np.argpartition(keys[chosen], room - 1)[:room]]

    def add(self, x: Array, z: Array, axis: int, keys: Array, w: Array | None = None) -> None:
        """Take in the rows with the smallest of these keys, which `rows.row_keys` makes of two of a row's numbers.

        Weights are of rows, or of elements of independent classes in the shape of x.
        """
        room = self.capacity(x.shape[axis])
        chosen = self._smallest(keys, room)
        if not len(chosen):
            return
        keys = keys[chosen]
        wide = np.float64 if x.dtype == np.float64 else np.float32
        where = np.unravel_index(chosen, x.shape[:axis] + x.shape[axis + 1 :])
        at = (*where[:axis], slice(None), *where[axis:])
        rows = taken(x, at, axis).astype(wide, copy=False)
        labels, weights = (
            None if a is None else (a[where] if a.ndim < x.ndim else taken(a, at, axis)).astype(np.float64, copy=False)
            for a in (z, w)
        )
        assert labels is not None
        self._keep(keys, rows, labels, weights, room)

    def merge(self, other: Sample) -> None:
        if other.x is not None and other.z is not None:
            self._keep(other.keys, other.x, other.z, other.w, self.capacity(other.x.shape[1]))

    def _keep(self, keys: Array, x: Array, z: Floats, w: Floats | None, room: int) -> None:
        """The smallest keys of both; rows that stay are not moved."""
        if self.x is None or self.z is None:
            self.keys, self.x, self.z, self.w = keys, x, z, w
            return
        old = len(self.keys)
        both = np.concatenate((self.keys, keys))
        if self.w is not None or w is not None:
            self.w = np.ones(self.z.shape if w is None else (old, *w.shape[1:])) if self.w is None else self.w
            w = np.ones((len(keys), *self.w.shape[1:])) if w is None else w
        if len(both) <= room:
            self.keys, self.x, self.z = both, np.concatenate((self.x, x)), np.concatenate((self.z, z))
            if self.w is not None and w is not None:
                self.w = np.concatenate((self.w, w))
            return
        kept = np.argpartition(both, room - 1)[:room]
        stays = np.zeros(len(both), np.bool_)
        stays[kept] = True
        new = np.flatnonzero(stays[old:])
        free = np.flatnonzero(~stays[:old])[: len(new)]
        filled = new[: len(free)]
        self.keys[free], self.x[free], self.z[free] = keys[filled], x[filled], z[filled]
        if self.w is not None and w is not None:
            self.w[free] = w[filled]
        if len(filled) < len(new):  # the sample was not full
            rest = new[len(free) :]
            self.keys = np.concatenate((self.keys, keys[rest]))
            self.x, self.z = np.concatenate((self.x, x[rest])), np.concatenate((self.z, z[rest]))
            if self.w is not None and w is not None:
                self.w = np.concatenate((self.w, w[rest]))

    def rows(self, kind: Any = np.float64) -> tuple[Array, Array]:
        """Logits and labels in this dtype, in an order that does not depend on how they came."""
        assert self.x is not None
        assert self.z is not None
        order = np.argsort(self.keys, kind="stable")
        return self.x[order].astype(kind, copy=False), self.z[order].astype(kind, copy=False)

    def weights(self) -> Floats | None:
        """Return the weights of what `rows` returns, None if all are 1."""
        if self.w is None:
            return None
        w = self.w[np.argsort(self.keys, kind="stable")]
        return w.reshape(-1) if self.independent else w

    def fit(self, steps: int = 30, at_least: float = 0.0, kind: Any = np.float64, smallest: float = 1e-7) -> Fit | None:
        """By Newton's method on the logarithm of the inverse temperature; None where there is too little to go by.

        It ends at once where the first step promises to take away less than the share `at_least` of the loss, and after
        a step that is no larger than `smallest`. `kind` is the dtype to compute in.
        """
        if self.x is None or self.z is None or (self.x.size if self.independent else len(self.x)) < FEWEST:
            return None
        (x, z), w = self.rows(kind), self.weights()
        if x.min() == -np.inf:
            x = np.where(np.isneginf(x), MASKED, x)
        u, low, high = 0.0, -MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE
        if self.independent:
            x, z = x.reshape(-1, 1), z.reshape(-1, 1)
        if w is not None:
            x, z, w = x[w > 0], z[w > 0], w[w > 0].astype(kind, copy=False)
            if len(x) < FEWEST:
                return None
        before = _losses(x, z, 1.0, self.independent)
        for i in range(steps):
            slope, bend = _derivatives(x, z, w, float(np.exp(u)), self.independent)
            if i == 0 and bend > 0.0 and slope * slope < 2.0 * bend * at_least * _mean(before, w):
                break
            low, high = (u, high) if slope < 0.0 else (low, u)
            step = -slope / bend if bend > 0.0 else (1.0 if slope < 0.0 else -1.0)
            step = min(1.0, max(-1.0, step))
            new = u + step
            u = new if low < new < high else (low + high) / 2
            if abs(step) <= smallest:
                break
        after = before if u == 0.0 else _losses(x, z, float(np.exp(u)), self.independent)
        difference = before - after
        error = float(difference.std() / np.sqrt(len(x)))
        if w is not None:
            error = float(np.sqrt(((w * (difference - _mean(difference, w))) ** 2).sum()) / w.sum())
        return Fit(float(np.exp(-u)), _mean(before, w), _mean(after, w), error, len(x))

    def confidences(self, temperature: float) -> tuple[Floats, Floats, Floats | None]:
        """Return each prediction's probability and whether it is right; independent: that of "yes" and the label.

        Of a tie, the share of the right class. The weights are None if all are 1.
        """
        (x, z), w = self.rows(), self.weights()
        scaled = x / temperature
        if self.independent:
            return np.asarray(probability(scaled)).reshape(-1), z.reshape(-1), w
        p = np.asarray(softmax(scaled, axis=1))
        true = z if z.ndim == 1 else z.argmax(axis=1)
        largest = x == x.max(axis=1, keepdims=True)
        right = np.take_along_axis(largest, true.astype(np.intp)[:, None], 1)[:, 0] / largest.sum(axis=1)
        return p.max(axis=1), right, w


def taken(x: Array, at: tuple[Any, ...], axis: int) -> Array:
    """The rows at these places, (n, C): indices on both sides of a slice put their own axis first."""
    rows: Array = x[at]
    apart = 0 < axis < x.ndim - 1
    if not apart and axis == 0 and rows.ndim == 2 and x.ndim > 1:
        rows = rows.T
    return rows.reshape(-1, x.shape[axis])


def _losses(x: Floats, z: Floats, beta: float, independent: bool) -> Floats:
    scaled = x if beta == 1.0 else x * beta
    if independent:
        return np.asarray(sigmoid_cross_entropy_with_logits(labels=z, logits=scaled)).reshape(-1)
    own = np.take_along_axis(scaled, z.astype(np.intp)[:, None], 1)[:, 0] if z.ndim == 1 else _row_products(z, scaled)
    total = 1.0 if z.ndim == 1 else z.sum(axis=1)
    return np.asarray(logsumexp(scaled, axis=1)) * total - own


def _row_products(z: Floats, x: Floats) -> Floats:
    found: Floats = np.einsum("ij,ij->i", z, x)
    return found


def _mean(values: Floats, w: Floats | None) -> float:
    return float(values.mean() if w is None else (values.reshape(-1) @ w) / w.sum())


def _derivatives(x: Floats, z: Floats, w: Floats | None, beta: float, independent: bool) -> tuple[float, float]:
    """Of the mean loss of beta·x by log(beta): first and second."""
    if independent:
        p = np.asarray(probability(x * beta))
        first, second = _mean((p - z) * x, w), _mean(p * (1 - p) * x * x, w)
    else:
        weighted = np.asarray(softmax(x if beta == 1.0 else x * beta, axis=1))
        weighted *= x
        expected = weighted.sum(axis=1)
        spread = _row_products(weighted, x) - expected * expected
        if z.ndim == 1:
            wanted, total = np.take_along_axis(x, z.astype(np.intp)[:, None], 1)[:, 0], np.ones(len(x))
        else:
            wanted, total = _row_products(z, x), z.sum(axis=1)
        first, second = _mean(expected * total - wanted, w), _mean(spread * total, w)
    return float(beta * first), float(beta * first + beta * beta * second)
