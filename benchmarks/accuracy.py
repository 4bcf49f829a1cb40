"""Errors of withlogits and its peers against mpmath, on hard rows, in units in the last place (ulp).

    python -m benchmarks accuracy [--quick] [--output DIR]

Writes accuracy.json, accuracy.md and accuracy.png to docs/results; a quick run to build/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# JAX keeps float64 only if told so before it starts.
os.environ.setdefault("JAX_ENABLE_X64", "1")

from benchmarks import PARTIAL, RESULTS, accuracy_picture, accuracy_report, machine, peers
from benchmarks.accuracy_rows import ELEMENTWISE, ActivationRows, LossRows, oracle
from benchmarks.cases import ACTIVATIONS, LOSSES, Case

CONTESTANTS = accuracy_report.ORDER
DTYPES = ("float32", "float64", "bfloat16", "float16")
CLASSES = (1, 2, 10, 1000, 32_000, 262_144)

# How far the first of three logits is above the others, in the picture; from 88 on the loss is no normal number.
MARGINS = np.linspace(0.3, 85.3, 69)


def batches(dtypes: Sequence[str], largest: int) -> Iterator[tuple[str, type[LossRows | ActivationRows], str, int]]:
    """(what, rows, format, classes) of everything measured; what does not depend on the classes comes once."""
    for dtype in dtypes:
        for names, rows in ((LOSSES, LossRows), (ACTIVATIONS, ActivationRows)):
            for what in names:
                for classes in CLASSES[:1] if what in ELEMENTWISE else CLASSES:
                    if classes <= largest:
                        yield what, rows, dtype, classes


def run(dtypes: Sequence[str], largest: int, names: Sequence[str] = CONTESTANTS) -> dict[str, Any]:
    """The result as it goes into accuracy.json. A null is a NaN, or an infinity where the truth is a number."""
    planned = list(batches(dtypes, largest))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors: dict[tuple[str, ...], float] = {}
    absences: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("loading the libraries", total=len(planned))
        threads = machine.limit_cores(None)
        contestants, missing = peers.load(threads, names)
        for what, rows, dtype, classes in planned:
            title = what if rows is LossRows else f"{what}(x)"
            progress.update(task, description=f"{title} {dtype} C = {classes:,}")
            batch = rows(what, dtype, classes)
            for peer in contestants:
                try:
                    found = batch.measure(peer)
                except Exception as error:  # what a library cannot do is told in the table, and is not the end
                    why = str(error) if isinstance(error, peers.Absent) else _first_line(error)
                    absences.append({"name": peer.name, "what": title, "dtype": dtype, "classes": classes, "why": why})
                    continue
                for (kind, part), error in found.items():
                    key = (dtype, title, part, kind, peer.name)
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
            entry["got"][peer.name] = [_number(loss), _number(gradient[0, 0])]
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
    """To four digits, which is more than anybody reads, in a file that stays small."""
    return None if math.isinf(error) or math.isnan(error) else float(f"{error:.4g}")


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="float32 alone, up to 1,000 classes")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    parser.add_argument("--refresh", metavar="A,B", help="measure these alone, and keep the others' figures")
    options = parser.parse_args(arguments)
    names = options.refresh.split(",") if options.refresh else CONTESTANTS
    result = run(DTYPES[:1], 1000, names) if options.quick else run(DTYPES, CLASSES[-1], names)
    output = options.output or (PARTIAL if options.quick else RESULTS)
    if options.refresh:
        result = _completed(result, names, output / "accuracy.json")
    write(result, output)
    print(accuracy_report.summary(result))
    print(f"written to {output}")
    return 0


def _completed(result: dict[str, Any], names: Sequence[str], path: Path) -> dict[str, Any]:
    """What was measured anew, with the figures of the other libraries from the run before."""
    old = json.loads(path.read_text())
    result = machine.refreshed(path, result, names, ("errors", "absent"))
    for new_tail, old_tail in zip(result["tails"], old["tails"], strict=True):
        new_tail["got"] = {**old_tail["got"], **new_tail["got"]}
    result["margins"]["ulp"] = {**old["margins"]["ulp"], **result["margins"]["ulp"]}
    return result


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "accuracy.json").write_text(json.dumps(result, indent=0, ensure_ascii=False, allow_nan=False) + "\n")
    (output / "accuracy.md").write_text(accuracy_report.markdown(result))
    accuracy_picture.draw(result, output / "accuracy.png")


if __name__ == "__main__":
    raise SystemExit(main())
