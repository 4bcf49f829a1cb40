"""Hard rows for `accuracy`, with the truth of each and the errors of what a library returned for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.cases import ACTIVATIONS, LOSSES, POS_WEIGHT, Case
from benchmarks.peers import Peer

# The truth and the hard rows are those of the tests.
sys.path.insert(0, str(ROOT / "tests"))
import oracle

KINDS = (*oracle.KINDS, "random")
ELEMENTWISE = ("sigmoid", "weighted", "log_sigmoid", "softplus", "logit")
ELEMENTS = 256

# A gradient counts where its entry matters: at the label, and where the probability is at least this.
SEEN = 1e-6


class Rows:
    """Rows of logits of every kind, more of them where they are short. A subclass adds what is computed from them.

    It stands in for `cases.Inputs`.
    """

    def __init__(self, what: str, dtype: str, classes: int, seed: int) -> None:
        self.what, self.dtype_name, self.dtype = what, dtype, oracle.DTYPES[dtype]
        self.random = np.random.default_rng([seed, classes])
        each = 8 if classes <= 10 else 4 if classes <= 1000 else 1
        if what in ELEMENTWISE:
            each, classes = 1, ELEMENTS
        self.kinds = [kind for kind in KINDS for _ in range(2 * each)]
        self.logits = np.stack([self._row(kind, classes) for kind in self.kinds])

    def _row(self, kind: str, classes: int) -> np.ndarray:
        if kind != "random":
            return oracle.row(kind, classes, self.dtype, self.random)
        values = self.random.normal(0.0, 3.0, min(classes, 256)).astype(np.float32)
        return np.resize(values, classes).astype(self.dtype)

    def _case(self, mode: str) -> Case:
        return Case(self.what, mode, self.dtype_name, self.logits.shape, reduction="sum")

    def _largest(self, errors: dict[str, Any]) -> dict[tuple[str, str], float]:
        """{(kind, part): the largest error}, of a function of the row's number for each part."""
        found: dict[tuple[str, str], float] = {}
        for part, of_row in errors.items():
            for i, kind in enumerate(self.kinds):
                found[kind, part] = max(found.get((kind, part), 0.0), *of_row(i), 0.0)
        return found


class LossRows(Rows):
    """Rows with labels of one loss."""

    def __init__(self, what: str, dtype: str, classes: int) -> None:
        super().__init__(what, dtype, classes, seed=LOSSES.index(what))
        make = {"sparse": self._index_labels, "softmax": self._soft_labels}.get(what, self._yes_no_labels)
        self._labels = make()
        self._truth = [self._true(i) for i in range(len(self.kinds))]
        self._places = [] if what in ELEMENTWISE else [self._looked_at(i) for i in range(len(self.kinds))]

    def labels(self, what: str) -> np.ndarray:
        return self._labels

    def _possible(self, i: int) -> np.ndarray:
        """The classes that are not masked: labels that have a finite loss."""
        return np.flatnonzero(np.isfinite(self.logits[i].astype(np.float64)))

    def _index_labels(self) -> np.ndarray:
        """The class with the largest logit in every second row, and any other class in the rest."""
        numbers = range(len(self.kinds))
        return np.array(
            [int(self.logits[i].argmax()) if i % 2 else self.random.choice(self._possible(i)) for i in numbers]
        )

    def _soft_labels(self) -> np.ndarray:
        """Distributions over up to 64 classes, nearly one-hot in every second row; the masked classes get nothing."""
        labels = np.zeros(self.logits.shape)
        for i, row in enumerate(labels):
            some = self.random.permutation(self._possible(i))[:64]
            row[some] = self.random.dirichlet(np.full(len(some), 0.02 if i % 2 else 1.0))
        return labels.astype(self.logits.dtype)

    def _yes_no_labels(self) -> np.ndarray:
        """Zeros and ones, and probabilities in a quarter of the places. A logit of −inf gets a 0."""
        labels = self.random.integers(0, 2, self.logits.shape).astype(np.float64)
        soft = self.random.random(labels.shape)
        labels = np.where(self.random.random(labels.shape) < 0.25, soft, labels)
        return np.where(np.isneginf(self.logits.astype(np.float64)), 0.0, labels).astype(self.logits.dtype)

    def _true(self, i: int) -> Any:
        x, z = self.logits[i], self._labels[i]
        if self.what == "sparse":
            return oracle.softmax(x, label=int(z))
        if self.what == "softmax":
            return oracle.softmax(x, labels=z)
        weight = POS_WEIGHT if self.what == "weighted" else 1.0
        return [oracle.sigmoid_loss(a, b, pos_weight=weight) for a, b in zip(x, z, strict=True)]

    def _loss_errors(self, i: int, losses: np.ndarray) -> Iterator[float]:
        truths = self._truth[i] if isinstance(self._truth[i], list) else [self._truth[i]]
        for got, truth in zip(np.atleast_1d(losses[i]), truths, strict=True):
            yield oracle.ulp_error(got, truth.loss, self.dtype)

    def _gradient_errors(self, i: int, gradient: np.ndarray) -> Iterator[float]:
        """In ulp of the entry; with soft labels, of the larger part where two parts of an entry cancel."""
        truth = self._truth[i]
        if isinstance(truth, list):
            for j, of_one in enumerate(truth):
                yield oracle.ulp_error(gradient[i, j], of_one.gradient[0], self.dtype, of_one.scale[0])
            return
        for j, scale in self._places[i]:
            yield oracle.ulp_error(gradient[i, j], truth.gradient[j], self.dtype, scale)

    def _looked_at(self, i: int) -> list[tuple[int, Any]]:
        """The entries of a row that count, each different one where it stands first and last, with their scale."""
        x = self.logits[i].astype(np.float64)
        z = self._labels[i].astype(np.float64) if self.what == "softmax" else np.zeros(len(x))
        if self.what == "sparse":
            z[self._labels[i]] = 1.0
        pairs = x + 1j * z
        first = np.unique(pairs, return_index=True)[1]
        last = len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1]
        truth, places = self._truth[i], np.unique(np.concatenate([first, last])).tolist()
        counted = [j for j in places if z[j] > 0.0 or truth.p[j] >= SEEN]
        return [(j, truth.scale[j] if self.what == "softmax" else oracle.mp.zero) for j in counted]

    def measure(self, peer: Peer) -> dict[tuple[str, str], float]:
        loss, step = self._case("loss"), self._case("loss+gradient")
        with np.errstate(all="ignore"):
            losses, _ = peer.read(loss, peer.prepare(loss, self)())
            _, gradient = peer.read(step, peer.prepare(step, self)())
        return self._largest(
            {"loss": lambda i: self._loss_errors(i, losses), "gradient": lambda i: self._gradient_errors(i, gradient)}
        )


class ActivationRows(Rows):
    """Rows under an activation; for `logit`, probabilities that reach to both ends."""

    def __init__(self, what: str, dtype: str, classes: int) -> None:
        super().__init__(what, dtype, classes, seed=len(LOSSES) + ACTIVATIONS.index(what))
        if what == "logit":
            self.kinds = ["random"] * len(self.kinds)
            near_the_ends = 10.0 ** -self.random.uniform(0.0, 30.0, self.logits.shape)
            p = np.where(self.random.random(self.logits.shape) < 0.5, near_the_ends, 0.5 + near_the_ends / 2)
            self.logits = p.astype(self.dtype)
        self._truth = [self._true(x) for x in self.logits]

    def activated(self, what: str) -> np.ndarray:
        return self.logits

    def measure(self, peer: Peer) -> dict[tuple[str, str], float]:
        case = self._case("activation")
        with np.errstate(all="ignore"):
            values, _ = peer.read(case, peer.prepare(case, self)())
        return self._largest({"value": lambda i: self._errors(i, values[i])})

    def _errors(self, i: int, got: np.ndarray) -> Iterator[float]:
        places, truths, scale = self._truth[i]
        for value, truth in zip(np.atleast_1d(got)[places], truths, strict=True):
            yield oracle.ulp_error(value, truth, self.dtype, scale)

    def _true(self, x: np.ndarray) -> tuple[np.ndarray, list[Any], Any]:
        """The places looked at (each different entry once), the truth there, and what an ulp is at least one of."""
        places, scale = np.unique(x.astype(np.float64), return_index=True)[1], oracle.mp.zero
        if self.what in oracle.ELEMENTWISE:
            return places, [oracle.ELEMENTWISE[self.what](value) for value in x[places]], scale
        row = oracle.softmax(x)
        if self.what == "logsumexp":
            # m and r cancel where they have opposite signs: the error counts in ulp of the larger.
            return np.zeros(1, int), [row.logsumexp], max(abs(row.m), abs(row.r))
        if self.what == "softmax":
            return places, [row.p[j] for j in places.tolist()], scale
        return places, [oracle.exact(value) - row.m - row.r for value in x[places]], scale
