"""NumPy: the formulas that people write, log(softmax(x)) and x − logsumexp(x), both with the maximum subtracted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import POS_WEIGHT, Case, Inputs
from benchmarks.peers import Absent


class NumPyPeer:
    version = np.__version__

    def __init__(self, log_of: str) -> None:
        self._log_of = log_of
        self.name = f"numpy.{log_of}"
        self.note = "−log softmax(x)" if log_of == "softmax" else "logsumexp(x) − x, and log1p for the sigmoid"

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.activation:
            raise Absent("the usual formulas of the activations are SciPy's")
        logits, labels = inputs.logits, inputs.labels(case.what)
        softmax = {"sparse": _index_loss, "softmax": _row_loss}
        function = _sigmoid_loss if case.elementwise else softmax[case.what]
        weight = logits.dtype.type(POS_WEIGHT if case.what == "weighted" else 1.0)
        reduce = {"mean": np.mean, "sum": np.sum}[case.reduction]

        def call() -> Any:
            with np.errstate(all="ignore"):
                losses, gradient = function(logits, labels, weight, self._log_of, case.gradient)
                if not case.gradient:
                    return losses
                return reduce(losses), gradient if case.reduction == "sum" else gradient / losses.size

        return call

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return result if case.gradient else (result, None)


def _log_softmax(x: np.ndarray, log_of: str) -> np.ndarray:
    highest = x.max(axis=1, keepdims=True)
    exps = np.exp(x - highest)
    total = exps.sum(axis=1, keepdims=True)
    return np.log(exps / total) if log_of == "softmax" else x - (highest + np.log(total))


def _index_loss(x: np.ndarray, y: np.ndarray, _: Any, log_of: str, wanted: bool) -> tuple[np.ndarray, Any]:
    log_p, rows = _log_softmax(x, log_of), np.arange(len(y))
    losses = -log_p[rows, y]
    if not wanted:
        return losses, None
    gradient = np.exp(log_p)
    gradient[rows, y] -= 1
    return losses, gradient


def _row_loss(x: np.ndarray, z: np.ndarray, _: Any, log_of: str, wanted: bool) -> tuple[np.ndarray, Any]:
    log_p = _log_softmax(x, log_of)
    return -(z * log_p).sum(axis=1), np.exp(log_p) - z if wanted else None


def _sigmoid_loss(x: np.ndarray, z: np.ndarray, q: Any, log_of: str, wanted: bool) -> tuple[np.ndarray, Any]:
    p = 1 / (1 + np.exp(-x))
    if log_of == "softmax":
        losses = -q * z * np.log(p) - (1 - z) * np.log(1 - p)
    else:
        losses = (1 - z) * x + (1 + (q - 1) * z) * (np.log1p(np.exp(-np.abs(x))) + np.maximum(-x, 0))
    return losses, (1 - z) * p - q * z * (1 - p) if wanted else None


def make(threads: int, variant: str = "softmax") -> NumPyPeer:
    return NumPyPeer(variant)
