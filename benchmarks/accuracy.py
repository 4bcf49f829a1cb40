"""Errors of withlogits and its peers against mpmath, on hard rows, in units in the last place (ulp).

    python -m benchmarks accuracy [--quick] [--output DIR]

Writes accuracy.json, accuracy.md and accuracy.png to docs/results; a quick run to build/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# JAX keeps float64 only if told so before it starts.
os.environ.setdefault("JAX_ENABLE_X64", "1")

from benchmarks import PARTIAL, RESULTS, ROOT, accuracy_picture, accuracy_report, machine, peers
from benchmarks.cases import LOSSES, POS_WEIGHT, Case

# The truth and the hard rows are those of the tests.
sys.path.insert(0, str(ROOT / "tests"))
import oracle

CONTESTANTS = (
    "withlogits",
    "numpy.softmax",
    "numpy.logsumexp",
    "scipy",
    "torch",
    "tensorflow",
    "jax",
    "scikit-learn",
)
DTYPES = ("float32", "float64", "bfloat16", "float16")
CLASSES = (1, 2, 10, 1000, 32_000, 262_144)
KINDS = (*oracle.KINDS, "random")
ELEMENTS = 256

# A gradient counts where its entry matters: at the label, and where the probability is at least this.
SEEN = 1e-6

# How far the first of three logits is above the others, in the picture: the truth falls to the smallest float32.
MARGINS = np.linspace(0.3, 100.3, 81)


class Batch:
    """Hard rows of one loss, format and number of classes, with the truth of each. Stands in for `cases.Inputs`."""

    def __init__(self, what: str, dtype: str, classes: int, seed: int = 7) -> None:
        self.what, self.dtype = what, dtype
        self._random = np.random.default_rng([seed, classes, LOSSES.index(what)])
        each = 8 if classes <= 10 else 4 if classes <= 1000 else 1
        if what in ("sigmoid", "weighted"):
            each, classes = 1, ELEMENTS
        self.kinds = [kind for kind in KINDS for _ in range(2 * each)]
        self.logits = np.stack([self._row(kind, classes) for kind in self.kinds])
        made = {"sparse": self._index_labels, "softmax": self._soft_labels}.get(what, self._yes_no_labels)
        self._labels = made()
        self.truth = [self._truth(i) for i in range(len(self.kinds))]

    def labels(self, what: str) -> np.ndarray:
        return self._labels

    def _row(self, kind: str, classes: int) -> np.ndarray:
        if kind != "random":
            return oracle.row(kind, classes, oracle.DTYPES[self.dtype], self._random)
        values = self._random.normal(0.0, 3.0, min(classes, 256)).astype(np.float32)
        return np.resize(values, classes).astype(oracle.DTYPES[self.dtype])

    def _possible(self, i: int) -> np.ndarray:
        """The classes that are not masked: labels that have a finite loss."""
        return np.flatnonzero(np.isfinite(self.logits[i].astype(np.float64)))

    def _index_labels(self) -> np.ndarray:
        """The class with the largest logit in every second row, and any other class in the rest."""
        numbers = range(len(self.kinds))
        return np.array(
            [int(self.logits[i].argmax()) if i % 2 else self._random.choice(self._possible(i)) for i in numbers]
        )

    def _soft_labels(self) -> np.ndarray:
        """Distributions over up to 64 classes, nearly one-hot in every second row; the masked classes get nothing."""
        labels = np.zeros(self.logits.shape)
        for i, row in enumerate(labels):
            some = self._random.permutation(self._possible(i))[:64]
            row[some] = self._random.dirichlet(np.full(len(some), 0.02 if i % 2 else 1.0))
        return labels.astype(self.logits.dtype)

    def _yes_no_labels(self) -> np.ndarray:
        """Zeros and ones, and probabilities in a quarter of the places. A logit of −inf gets a 0."""
        labels = self._random.integers(0, 2, self.logits.shape).astype(np.float64)
        soft = self._random.random(labels.shape)
        labels = np.where(self._random.random(labels.shape) < 0.25, soft, labels)
        return np.where(np.isneginf(self.logits.astype(np.float64)), 0.0, labels).astype(self.logits.dtype)

    def _truth(self, i: int) -> Any:
        x, z = self.logits[i], self._labels[i]
        if self.what == "sparse":
            return oracle.softmax(x, label=int(z))
        if self.what == "softmax":
            return oracle.softmax(x, labels=z)
        weight = POS_WEIGHT if self.what == "weighted" else 1.0
        return [oracle.sigmoid_loss(a, b, pos_weight=weight) for a, b in zip(x, z, strict=True)]

    def loss_errors(self, i: int, losses: np.ndarray) -> Iterator[float]:
        truths = self.truth[i] if isinstance(self.truth[i], list) else [self.truth[i]]
        for got, truth in zip(np.atleast_1d(losses[i]), truths, strict=True):
            yield oracle.ulp_error(got, truth.loss, oracle.DTYPES[self.dtype])

    def gradient_errors(self, i: int, gradient: np.ndarray) -> Iterator[float]:
        """In ulp of the entry; of soft labels, of the larger part where two parts of an entry cancel."""
        dtype, truth = oracle.DTYPES[self.dtype], self.truth[i]
        if isinstance(truth, list):
            for j, of_one in enumerate(truth):
                yield oracle.ulp_error(gradient[i, j], of_one.gradient[0], dtype, of_one.scale[0])
            return
        x = self.logits[i].astype(np.float64)
        z = self._labels[i].astype(np.float64) if self.what == "softmax" else np.zeros(len(x))
        if self.what == "sparse":
            z[self._labels[i]] = 1.0
        # A long row has few different entries; each is looked at where it stands first and where it stands last.
        pairs = np.stack([x, z], axis=1)
        length = len(pairs) - 1
        places = [
            np.unique(pairs, axis=0, return_index=True)[1],
            length - np.unique(pairs[::-1], axis=0, return_index=True)[1],
        ]
        for j in np.unique(np.concatenate(places)).tolist():
            if z[j] > 0.0 or truth.p[j] >= SEEN:
                scale = truth.scale[j] if self.what == "softmax" else oracle.mp.zero
                yield oracle.ulp_error(gradient[i, j], truth.gradient[j], dtype, scale)


def batches(dtypes: Sequence[str], largest: int) -> Iterator[tuple[str, str, int]]:
    for dtype in dtypes:
        for what in LOSSES:
            for classes in CLASSES:
                if classes <= largest and not (what in ("sigmoid", "weighted") and classes > 1):
                    yield what, dtype, classes


def measure(batch: Batch, peer: peers.Peer) -> dict[tuple[str, str], float]:
    """The largest error of one library on a batch: {(kind, "loss" | "gradient"): ulp}."""
    loss, step = (
        Case(batch.what, mode, batch.dtype, batch.logits.shape, reduction="sum") for mode in ("loss", "loss+gradient")
    )
    with np.errstate(all="ignore"):
        losses, _ = peer.read(loss, peer.prepare(loss, batch)())
        _, gradient = peer.read(step, peer.prepare(step, batch)())
    found: dict[tuple[str, str], float] = {}
    for i, kind in enumerate(batch.kinds):
        for part, errors in (("loss", batch.loss_errors(i, losses)), ("gradient", batch.gradient_errors(i, gradient))):
            found[kind, part] = max(found.get((kind, part), 0.0), *errors, 0.0)
    return found


def run(dtypes: Sequence[str], largest: int, names: Sequence[str] = CONTESTANTS) -> dict[str, Any]:
    """The result as it goes into accuracy.json; an error of null is a NaN or an infinity where the truth is a number."""
    planned = list(batches(dtypes, largest))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors: dict[tuple[str, ...], float] = {}
    absences: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("loading the libraries", total=len(planned))
        threads = machine.limit_cores(None)
        contestants, missing = peers.load(threads, names)
        for what, dtype, classes in planned:
            progress.update(task, description=f"{what} {dtype} C = {classes:,}")
            batch = Batch(what, dtype, classes)
            for peer in contestants:
                try:
                    found = measure(batch, peer)
                except Exception as error:  # what a library cannot do is told in the table, and is not the end
                    why = str(error) if isinstance(error, peers.Absent) else _first_line(error)
                    absences.append({"name": peer.name, "what": what, "dtype": dtype, "classes": classes, "why": why})
                    continue
                for (kind, part), error in found.items():
                    key = (dtype, what, part, kind, peer.name)
                    errors[key] = max(errors.get(key, 0.0), error)
            progress.advance(task)
    return {
        "machine": machine.describe(threads),
        "classes": [classes for classes in CLASSES if classes <= largest],
        "errors": [
            dict(zip(("dtype", "what", "part", "kind", "name"), key, strict=True)) | {"ulp": _finite(error)}
            for key, error in errors.items()
        ],
        "tails": tails(contestants),
        "margins": margins(contestants),
        "missing": missing,
        "absent": absences,
    }


def tails(contestants: Sequence[peers.Peer]) -> list[dict[str, Any]]:
    """What each library returns for rows that are nearly certain, and what is true."""
    rows = [
        ("sparse", "float32", [[20.0, 0.0, 0.0]], [0]),
        ("sparse", "float64", [[40.0, 0.0]], [0]),
        ("sparse", "float32", [[1e8, 1e8]], [0]),
        ("sigmoid", "float32", [[20.0]], [[1.0]]),
        ("sigmoid", "float32", [[-20.0]], [[0.0]]),
    ]
    told = []
    for what, dtype, logits, labels in rows:
        given = _Given(np.array(logits, dtype), np.array(labels, np.int64 if what == "sparse" else dtype))
        if what == "sparse":
            truth = oracle.softmax(given.logits[0], label=labels[0])
        else:
            truth = oracle.sigmoid_loss(logits[0][0], labels[0][0])
        entry = {"what": what, "dtype": dtype, "logits": logits, "labels": labels}
        entry["truth"] = [float(truth.loss), float(truth.gradient[0])]
        entry["got"] = {}
        for peer in contestants:
            step = Case(what, "loss+gradient", dtype, given.logits.shape, reduction="sum")
            loss, gradient = peer.read(step, peer.prepare(step, given)())
            entry["got"][peer.name] = [_finite(float(loss)), _finite(float(gradient[0, 0]))]
        told.append(entry)
    return told


def margins(contestants: Sequence[peers.Peer]) -> dict[str, Any]:
    """The error of the float32 loss of [d, 0, 0] with label 0, for d = MARGINS."""
    logits = np.zeros((len(MARGINS), 3), np.float32)
    logits[:, 0] = MARGINS
    given = _Given(logits, np.zeros(len(MARGINS), np.int64))
    truths = [oracle.softmax(row, label=0).loss for row in logits]
    case = Case("sparse", "loss", "float32", logits.shape)
    errors = {}
    for peer in contestants:
        got, _ = peer.read(case, peer.prepare(case, given)())
        errors[peer.name] = [_finite(oracle.ulp_error(a, b, np.float32)) for a, b in zip(got, truths, strict=True)]
    return {"margin": logits[:, 0].tolist(), "truth": [float(truth) for truth in truths], "ulp": errors}


class _Given:
    def __init__(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.logits, self._labels = logits, labels

    def labels(self, what: str) -> np.ndarray:
        return self._labels


def _finite(error: float) -> float | None:
    return None if math.isinf(error) or math.isnan(error) else error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="float32 alone, up to 1,000 classes")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    options = parser.parse_args(arguments)
    result = run(DTYPES[:1], 1000) if options.quick else run(DTYPES, CLASSES[-1])
    output = options.output or (PARTIAL if options.quick else RESULTS)
    write(result, output)
    print(accuracy_report.summary(result))
    print(f"written to {output}")
    return 0


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "accuracy.json").write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    (output / "accuracy.md").write_text(accuracy_report.markdown(result))
    accuracy_picture.draw(result, output / "accuracy.png")


if __name__ == "__main__":
    raise SystemExit(main())
