"""scikit-learn: the loss classes behind its boosting and linear models (`sklearn._loss`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss

from benchmarks.cases import Case, Inputs
from benchmarks.peers import Absent, reduced


class ScikitLearnPeer:
    name = "scikit-learn"
    version = sklearn.__version__
    note = "`sklearn._loss` (private there), result arrays reused; mean and division as in its linear models"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.activation:
            raise Absent("it has none of the activations")
        if case.dtype not in ("float32", "float64"):
            raise Absent("float32 and float64 only")
        if case.what == "softmax":
            raise Absent("its multinomial loss takes class indices only")
        if case.what == "weighted":
            raise Absent("no weight for the positives")
        if case.elementwise:
            loss = HalfBinomialLoss()
            logits, labels = inputs.logits.ravel().copy(), inputs.labels(case.what).ravel().copy()
        else:
            loss = HalfMultinomialLoss(n_classes=case.shape[1])
            # It wants the class indices as floats of the logits' format.
            logits, labels = inputs.logits.copy(), inputs.labels(case.what).astype(inputs.logits.dtype)
        values = np.empty(len(labels), logits.dtype)
        if not case.gradient:
            return lambda: loss.loss(labels, logits, loss_out=values, n_threads=self._threads)
        gradient = np.empty_like(logits)

        def step() -> tuple[np.ndarray, np.ndarray]:
            loss.loss_gradient(labels, logits, loss_out=values, gradient_out=gradient, n_threads=self._threads)
            return reduced(values, gradient, case)

        return step

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        if not case.gradient:
            return result.reshape(case.shape) if case.elementwise else result, None
        value, gradient = result
        return value, gradient.reshape(case.shape)


def make(threads: int, variant: str = "") -> ScikitLearnPeer:
    return ScikitLearnPeer(threads)
