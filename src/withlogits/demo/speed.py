"""How long the losses take on this machine, beside the usual NumPy formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import withlogits
from withlogits.demo import usual

ROUNDS = 7


class Timing(NamedTuple):
    """The best times of one task, in seconds."""

    task: str
    shape: tuple[int, int]
    usual: float
    ours: float

    @property
    def ratio(self) -> float:
        return self.usual / self.ours


def time(rows: int, classes: int, rounds: int = ROUNDS) -> Iterator[Timing]:
    """Yield the timing of each task: the results are compared, the two timed in turns, the best rounds kept."""
    rng = np.random.default_rng(0)
    x = (4 * rng.standard_normal((rows, classes), np.float32)).astype(np.float32)
    indices = rng.integers(0, classes, rows)
    one_hot = np.zeros((rows, classes), np.float32)
    one_hot[np.arange(rows), indices] = 1
    yes_no = (rng.random((rows, classes)) < 0.1).astype(np.float32)

    sparse = withlogits.sparse_softmax_cross_entropy_with_logits
    softmax = withlogits.softmax_cross_entropy_with_logits
    sigmoid = withlogits.sigmoid_cross_entropy_with_logits
    tasks: list[tuple[str, Any, Any, Callable[..., Any]]] = [
        ("sparse softmax", indices, usual.logsumexp_minus, sparse),
        ("sparse softmax\nand gradient", indices, usual.sparse_loss_and_gradient, withlogits.value_and_grad(sparse)),
        ("softmax\nand gradient", one_hot, usual.softmax_loss_and_gradient, withlogits.value_and_grad(softmax)),
        ("sigmoid", yes_no, usual.sigmoid_loss, sigmoid),
        ("sigmoid\nand gradient", yes_no, usual.sigmoid_loss_and_gradient, withlogits.value_and_grad(sigmoid)),
    ]
    for task, labels, formula, ours in tasks:
        expected, got = formula(x, labels), ours(logits=x, labels=labels)
        np.testing.assert_allclose(first(got), first(expected), rtol=1e-4, atol=1e-4)
        best = [np.inf, np.inf]
        for _ in range(rounds):
            start = perf_counter()
            expected = formula(x, labels)
            middle = perf_counter()
            got = ours(logits=x, labels=labels)
            best = [min(best[0], middle - start), min(best[1], perf_counter() - middle)]
        yield Timing(task, (rows, classes), *best)


def first(result: Any) -> Any:
    """Return the loss, of a loss alone or with its gradient."""
    return result[0] if isinstance(result, tuple) else result
