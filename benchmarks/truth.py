"""What each timed result is compared to before it is timed: the usual formulas in float64, where they are ample.

They come from here and not from the library, which would then be compared with itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .cases import POS_WEIGHT, Case, Inputs

# Rows whose gradients and elementwise losses are compared; of a small case these are all its rows.
CHECKED_ROWS = 64

# Elements of a float64 block; its temporaries stay near 100 MB.
BLOCK = 1 << 21


class Truth:
    """The true result of one loss (or activation) on one set of inputs, on some rows, and the mean over all."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        n, c = case.shape
        self._case, self._size = case, (n * c if case.elementwise else n)
        self.rows = np.unique(np.linspace(0, n - 1, min(n, CHECKED_ROWS)).astype(np.int64))
        if case.activation:
            self.values = _activation(case.what, inputs.activated(case.what)[self.rows].astype(np.float64))
            return
        x = inputs.logits
        labels = inputs.labels(case.what)
        self.values, self.gradient = _loss(case.what, x[self.rows], labels[self.rows])
        step = max(1, BLOCK // c)

        def share(start: int) -> float:
            rows = slice(start, start + step)
            return float(_loss(case.what, x[rows], labels[rows])[0].sum() / self._size)

        with ThreadPoolExecutor() as pool:
            self.mean = sum(pool.map(share, range(0, n, step)))

    def faults(self, case: Case, value: np.ndarray, gradient: np.ndarray | None, strict: bool) -> str:
        """What is wrong with a result, or "". Strict is for float32 results, and loose for those of bfloat16.

        The gradient is that of the mean; what is compared is that of one row (or element), of size 1.
        """
        value = np.asarray(value)
        if case.gradient:
            found = _off("mean loss", value, np.asarray(self.mean), strict)
            ours = gradient[self.rows].astype(np.float64) * self._size
            return found or _off("gradient", ours, self.gradient, strict and gradient.dtype.itemsize > 2)
        if value.shape != (case.shape if case.elementwise or value.ndim == 2 else case.shape[:1]):
            return f"the result has shape {value.shape}"
        return _off(case.mode, value[self.rows], self.values, strict)


def _off(name: str, got: np.ndarray, true: np.ndarray, strict: bool) -> str:
    relative, absolute = (1e-4, 1e-5) if strict else (0.05, 0.1)
    got = got.astype(np.float64)
    # Written so that NaN is beyond, not within.
    beyond = ~(np.abs(got - true) <= relative * np.abs(true) + absolute)
    if not beyond.any():
        return ""
    worst = np.argmax(np.where(beyond, np.nan_to_num(np.abs(got - true), nan=np.inf), -1.0))
    return f"{name} {got.flat[worst]:.6g} instead of {true.flat[worst]:.6g}"


def _loss(what: str, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (N,) or (N, C), and the gradient of their sum (N, C)."""
    x = logits.astype(np.float64)
    if what in ("sigmoid", "weighted"):
        z, weight = labels.astype(np.float64), POS_WEIGHT if what == "weighted" else 1.0
        tail, positive = np.log1p(np.exp(-np.abs(x))), 1.0 / (1.0 + np.exp(-x))
        loss = weight * z * (tail + np.maximum(-x, 0.0)) + (1.0 - z) * (tail + np.maximum(x, 0.0))
        return loss, (1.0 - z) * positive - weight * z * (1.0 - positive)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    total = e.sum(axis=1, keepdims=True)
    log_p = x - x.max(axis=1, keepdims=True) - np.log(total)
    if what == "sparse":
        z = np.zeros_like(x)
        z[np.arange(len(x)), labels] = 1.0
    else:
        z = labels.astype(np.float64)
    return -(z * log_p).sum(axis=1), z.sum(axis=1, keepdims=True) * e / total - z


def _activation(what: str, x: np.ndarray) -> np.ndarray:
    if what == "logit":
        # The inputs include an exact 0 where the generator drew one.
        with np.errstate(divide="ignore"):
            return np.log(x) - np.log1p(-x)
    if what in ("sigmoid", "log_sigmoid", "softplus"):
        softplus = np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))
        return {"sigmoid": np.exp(x - softplus), "log_sigmoid": x - softplus, "softplus": softplus}[what]
    highest = x.max(axis=1, keepdims=True)
    logsumexp = highest + np.log(np.exp(x - highest).sum(axis=1, keepdims=True))
    if what == "logsumexp":
        return logsumexp[:, 0]
    return np.exp(x - logsumexp) if what == "softmax" else x - logsumexp
