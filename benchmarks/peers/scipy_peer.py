"""SciPy: the losses a person writes with `scipy.special`, and its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from scipy import special

from benchmarks.cases import POS_WEIGHT, Case, Inputs
from benchmarks.peers import Absent, reduced


class SciPyPeer:
    name = "scipy"
    version = scipy.__version__
    note = "written by hand on `scipy.special` (log_softmax, softmax, log_expit, expit); one thread, it has no more"

    def __init__(self, threads: int) -> None:
        pass

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.dtype not in ("float32", "float64"):
            raise Absent("its functions compute in float32 and float64 only")
        if case.activation:
            return _activation(case, inputs)
        logits, labels = inputs.logits.copy(), inputs.labels(case.what).copy()
        forward, gradient = {
            "sparse": (_sparse, _sparse_gradient),
            "softmax": (_softmax, _softmax_gradient),
            "sigmoid": (_sigmoid, _sigmoid_gradient),
            "weighted": (_weighted, _weighted_gradient),
        }[case.what]
        if case.gradient:
            return lambda: reduced(forward(logits, labels), gradient(logits, labels), case)
        return lambda: forward(logits, labels)

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return result if case.gradient else (result, None)


def _sparse(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def _sparse_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    gradient = special.softmax(logits, axis=1)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient


def _softmax(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -(labels * special.log_softmax(logits, axis=1)).sum(axis=1)


def _softmax_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    gradient = special.softmax(logits, axis=1)
    gradient -= labels
    return gradient


def _sigmoid(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -(labels * special.log_expit(logits) + (1 - labels) * special.log_expit(-logits))


def _sigmoid_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    gradient = special.expit(logits)
    gradient -= labels
    return gradient


def _weighted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    weight = logits.dtype.type(POS_WEIGHT)
    return -(weight * labels * special.log_expit(logits) + (1 - labels) * special.log_expit(-logits))


def _weighted_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    weight = logits.dtype.type(POS_WEIGHT)
    return (1 - labels) * special.expit(logits) - weight * labels * special.expit(-logits)


def _activation(case: Case, inputs: Inputs) -> Callable[[], np.ndarray]:
    x = inputs.activated(case.what).copy()
    by_name = {"sigmoid": "expit", "log_sigmoid": "log_expit"}
    function = getattr(special, by_name.get(case.what, case.what), None)
    if function is None:
        raise Absent(f"scipy {scipy.__version__} has no {case.what}")
    if case.what in ("softmax", "log_softmax", "logsumexp"):
        return lambda: function(x, axis=-1)
    return lambda: function(x)


def make(threads: int, variant: str = "") -> SciPyPeer:
    return SciPyPeer(threads)
