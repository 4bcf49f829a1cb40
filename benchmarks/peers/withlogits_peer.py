"""withlogits itself, by the same protocol: called plainly, or with the gradient's buffer given (`out=`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import withlogits
from benchmarks.cases import POS_WEIGHT, Case, Inputs

LOSSES = {
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
    "softmax": withlogits.softmax_cross_entropy_with_logits,
    "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
    "weighted": withlogits.weighted_cross_entropy_with_logits,
}


class WithlogitsPeer:
    version = withlogits.__version__

    def __init__(self, threads: int, reuse: bool) -> None:
        withlogits.set_num_threads(threads)
        self._reuse = reuse
        self.name = "withlogits, out=" if reuse else "withlogits"
        self.note = "`value_and_grad(loss)` with `out=`" if reuse else "the public functions, nothing prepared"

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        logits = inputs.logits
        if case.activation:
            function, x = getattr(withlogits, case.what), inputs.activated(case.what)
            return lambda: function(x)
        loss, labels = LOSSES[case.what], inputs.labels(case.what)
        options = {"pos_weight": POS_WEIGHT} if case.what == "weighted" else {}
        if not case.gradient:
            return lambda: loss(labels=labels, logits=logits, **options)
        if case.what == "weighted":
            loss = LOSSES["sigmoid"]  # the same loss; TensorFlow's name for it takes no reduction
        both = withlogits.value_and_grad(loss)
        options["reduction"] = case.reduction
        if not self._reuse:
            return lambda: both(labels=labels, logits=logits, **options)
        buffer = np.empty_like(logits)
        return lambda: both(labels=labels, logits=logits, out=buffer, **options)

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return result if case.gradient else (result, None)


def make(threads: int, variant: str = "") -> WithlogitsPeer:
    return WithlogitsPeer(threads, reuse=variant == "out")
