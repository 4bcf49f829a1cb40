"""The loss of rows with confident logits: by the usual formulas, by this library, and in truth."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import withlogits
from withlogits.demo import usual


class Tail(NamedTuple):
    """One row's loss, four ways."""

    logits: NDArray[np.float32]
    label: int
    textbook: float  # −log(softmax)
    shifted: float  # logsumexp − x
    ours: float
    truth: float


def truth(row: Sequence[float], label: int) -> Decimal:
    """Return log Σ exp(x_j − x_y) for exactly these numbers, to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        context.Emin, context.Emax = -(10**9), 10**9
        wanted = Decimal(row[label])
        others = sum(((Decimal(x) - wanted).exp() for j, x in enumerate(row) if j != label), Decimal(0))
        if others < Decimal("1e-40"):  # 60 digits hold too few of 1 + others; what is cut is others²/2
            return others
        return (1 + others).ln()


def compare(rows: Sequence[tuple[Any, int]]) -> list[Tail]:
    """Return the loss of each row of float32 logits, with its label."""
    compared = []
    for row, label in rows:
        x = np.asarray(row, np.float32)[None, :]
        y = np.array([label])
        ours = withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)
        compared.append(
            Tail(
                x[0],
                label,
                float(usual.log_of_softmax(x, y)[0]) + 0.0,  # −0 becomes 0
                float(usual.logsumexp_minus(x, y)[0]),
                float(ours[0]),
                float(truth(x[0].tolist(), label)),
            )
        )
    return compared


class Wrong(NamedTuple):
    """How many losses are off by more than 1 %, and how many of them are exactly 0, which none is in truth."""

    formula: str
    off: int
    zero: int


def count_wrong(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Wrong]:
    """Compare every row's loss with the truth."""
    true = np.array([float(truth(row, label)) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)])
    losses = {
        "log(softmax)": usual.log_of_softmax(logits, labels),
        "logsumexp − x": usual.logsumexp_minus(logits, labels),
        "withlogits": withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits),
    }
    return [
        Wrong(formula, int(np.count_nonzero(~(np.abs(loss - true) <= 0.01 * true))), int(np.count_nonzero(loss == 0)))
        for formula, loss in losses.items()
    ]
