"""Evaluations made by hand, of both kinds, for the tests of the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from withlogits.evaluation.results import (
    Calibration,
    Confusion,
    Evaluation,
    Example,
    Histogram,
    PerClass,
)
from withlogits.guide.findings import CODES, Diagnosis, Finding, Recommendation

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GENRES = ("drama", "comedy", "documentary", "science fiction", "horror", "romance", "western", "animation")

MISCALIBRATED = Finding(
    "WL304",
    "note",
    "the logits are too large: the model is surer than it is right",
    "dividing the logits by 1.62 lowers the loss from 0.3127 to 0.2671 nats; 95.1% is claimed, 91.2% is right",
    "logits = logits / 1.62  # a temperature found on held-out rows",
)
IMBALANCED = Finding(
    "WL214",
    "warning",
    "strong imbalance of the classes",
    "class 6 (western) has 41 of 16,000 labels that are 1, class 0 (drama) has 7,212",
    "loss = withlogits.weighted_cross_entropy_with_logits(labels=labels, logits=logits, pos_weight=pos_weight)",
)
PROBABILITIES = Finding(
    "WL101",
    "error",
    "probabilities passed as logits",
    "all 4,000 rows lie in [0, 1] and add up to 1 within 3e-7; the loss cannot fall below 1.461 nats",
    "logits = model(x)  # without the softmax at its end",
)


def calibration(claimed: np.ndarray, true: np.ndarray, bins: int = 15) -> Calibration:
    edges = np.linspace(0, 1, bins + 1)
    places = np.minimum((claimed * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(places, claimed, bins) / counts
        accuracy = np.bincount(places, true, bins) / counts
    error = float(np.nansum(counts / counts.sum() * np.abs(accuracy - confidence)))
    return Calibration(edges, counts, confidence, accuracy, error)


def histogram(losses: np.ndarray) -> Histogram:
    """Bins as the meter has them."""
    edges = np.concatenate(([0.0], np.logspace(-6, 3, 37)))
    return Histogram(edges, np.histogram(losses, edges)[0].astype(np.int64))


def even_histogram(losses: np.ndarray, bins: int = 40) -> Histogram:
    counts, edges = np.histogram(losses, bins, range=(0, float(losses.max())))
    return Histogram(edges, counts.astype(np.int64))


def scores(hit: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    with np.errstate(invalid="ignore"):
        recall, precision = hit / support, hit / predicted
        return recall, precision, 2 * hit / (support + predicted)


def exclusive(
    classes: int = 10, rows: int = 4000, names: tuple[str, ...] | None = DIGITS, findings: tuple[Finding, ...] = ()
) -> Evaluation:
    """A model with small faults: it confuses neighbours, and claims more than it keeps."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) * 1.9
    logits[np.arange(rows), labels] += 5 + 1.5 * (labels % 3)
    logits[np.arange(rows), (labels + 1 + labels % 2) % classes] += 3.1
    logits *= 2
    truth = np.arange(rows)

    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    every = log_softmax(logits)
    losses, predicted = -every[truth, labels], logits.argmax(axis=1)
    grid = np.linspace(1, 3, 11)
    temperature = min(grid, key=lambda t: -log_softmax(logits / t)[truth, labels].mean())
    cooled = log_softmax(logits / temperature)
    right = predicted == labels
    support, taken = (np.bincount(x, minlength=classes) for x in (labels, predicted))
    hit = np.bincount(labels[right], minlength=classes)
    with np.errstate(invalid="ignore"):
        per_class = PerClass(
            np.arange(classes), support, np.bincount(labels, losses, classes) / support, *scores(hit, support, taken)
        )
    pairs, times = np.unique(np.stack([labels, predicted])[:, ~right], axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")[:30]
    kept = np.arange(min(classes, 40))
    matrix = np.zeros((len(kept), len(kept)), np.int64)
    inside = (labels < len(kept)) & (predicted < len(kept))
    np.add.at(matrix, (labels[inside], predicted[inside]), 1)
    rank = (logits > logits[truth, labels][:, None]).sum(axis=1)
    worst = np.argsort(-losses)[:20]
    return Evaluation(
        loss_name="sparse",
        exclusive=True,
        classes=classes,
        count=rows,
        ignored=12,
        loss=float(losses.mean()),
        accuracy=float(right.mean()),
        top_k={1: float(right.mean()), 5: float((rank < 5).mean())},
        precision=None,
        recall=None,
        f1=None,
        macro_f1=None,
        auroc=None,
        average_precision=None,
        temperature=float(temperature),
        loss_at_temperature=float(-cooled[truth, labels].mean()),
        fitted_on=rows,
        calibration=calibration(np.exp(every.max(axis=1)), right),
        calibration_at_temperature=calibration(np.exp(cooled.max(axis=1)), right),
        histogram=histogram(losses),
        per_class=per_class,
        confusion=Confusion(
            kept,
            matrix,
            tuple((int(a), int(b), int(n)) for (a, b), n in zip(pairs.T[order], times[order], strict=True)),
        ),
        costliest=tuple(
            Example((int(i),), float(losses[i]), float(labels[i]), int(predicted[i]), float(np.exp(every[i].max())))
            for i in worst
        ),
        diagnosis=Diagnosis(
            findings,
            Recommendation(
                "sparse",
                f"exactly one class is true in each of {rows:,} rows",
                "class indices, (N,) int64",
                "withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)",
            ),
            "sparse",
            f"logits ({rows}, {classes}) float32, labels ({rows},) int64",
        ),
        class_names=names,
        sources={"logits": "runs/digits/logits.npy", "labels": "runs/digits/labels.npy"},
    )


def independent(
    rows: int = 2000, names: tuple[str, ...] = GENRES, findings: tuple[Finding, ...] = (IMBALANCED, MISCALIBRATED)
) -> Evaluation:
    """Several classes may be true at once."""
    rng = np.random.default_rng(2)
    classes = len(names)
    share = np.linspace(0.45, 0.02, classes)
    labels = (rng.random((rows, classes)) < share).astype(np.int64)
    logits = (labels * 2 - 1) * 1.3 + np.log(share / (1 - share)) + rng.normal(size=labels.shape) * 1.6
    logits *= 1.8

    def loss_of(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0) - z * labels + np.log1p(np.exp(-np.abs(z)))

    temperature = float(min(np.linspace(1, 3, 11), key=lambda t: loss_of(logits / t).mean()))
    losses, p = loss_of(logits), 1 / (1 + np.exp(-logits))
    yes = p >= 0.5
    hit, support, taken = (x.sum(axis=0) for x in (yes & (labels == 1), labels, yes))
    recall, precision, f1 = scores(hit, support, taken)
    worst = np.argsort(-losses, axis=None)[:20]
    places = np.stack(np.unravel_index(worst, losses.shape), axis=1)
    return Evaluation(
        loss_name="sigmoid",
        exclusive=False,
        classes=classes,
        count=rows * classes,
        ignored=0,
        loss=float(losses.mean()),
        accuracy=float((yes == labels).mean()),
        top_k=None,
        precision=float(hit.sum() / taken.sum()),
        recall=float(hit.sum() / support.sum()),
        f1=float(2 * hit.sum() / (taken.sum() + support.sum())),
        macro_f1=float(np.nanmean(f1)),
        auroc=0.9312,
        average_precision=0.8127,
        temperature=temperature,
        loss_at_temperature=float(loss_of(logits / temperature).mean()),
        fitted_on=rows * classes,
        calibration=calibration(p.ravel(), labels.ravel()),
        calibration_at_temperature=calibration((1 / (1 + np.exp(-logits / temperature))).ravel(), labels.ravel()),
        histogram=histogram(losses.ravel()),
        per_class=PerClass(
            np.arange(classes),
            support,
            losses.mean(axis=0),
            recall,
            precision,
            f1,
            np.linspace(0.97, 0.88, classes),
            np.linspace(0.95, 0.41, classes),
        ),
        confusion=None,
        costliest=tuple(
            Example(
                (int(i), int(j)),
                float(losses[i, j]),
                float(labels[i, j]),
                int(yes[i, j]),
                float(max(p[i, j], 1 - p[i, j])),
            )
            for i, j in places
        ),
        diagnosis=Diagnosis(
            findings,
            Recommendation(
                "sigmoid",
                "between 0 and 5 classes are true in a row; 61.2% of the rows have more than one",
                "0 or 1 for each class, (N, C)",
                "withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)",
                "labels = labels.astype(numpy.float32)",
            ),
            "sigmoid",
            f"logits ({rows}, {classes}) float32, labels ({rows}, {classes}) int64",
        ),
        class_names=names,
        sources={"logits": "runs/films/logits.npz:validation", "labels": "runs/films/labels.npy"},
    )


def everything_wrong() -> Evaluation:
    """Every code, NaN and infinities, nothing that counts, names that are markup."""
    base = exclusive()
    nothing = Calibration(
        np.linspace(0, 1, 11), np.zeros(10, np.int64), np.full(10, np.nan), np.full(10, np.nan), np.nan
    )
    severities = ("error", "warning", "note")
    findings = tuple(
        Finding(code, severities[place % 3], title, "evidence <b>in</b> figures", "logits = logits  # <fix>")
        for place, (code, title) in enumerate(CODES.items())
    )
    return replace(
        base,
        count=0,
        loss=float("nan"),
        accuracy=float("nan"),
        top_k={5: float("nan")},
        temperature=float("inf"),
        loss_at_temperature=float("inf"),
        calibration=nothing,
        calibration_at_temperature=nothing,
        histogram=Histogram(np.linspace(0, 1, 11), np.zeros(10, np.int64)),
        per_class=PerClass(np.arange(10), np.zeros(10, np.int64), *(np.full(10, x) for x in [np.nan] * 4)),
        confusion=Confusion(np.arange(10), np.zeros((10, 10), np.int64), ()),
        costliest=(Example((3,), float("inf"), float("nan"), 2, float("nan")),),
        diagnosis=Diagnosis(findings, None, "sparse", "logits (0, 10)"),
        class_names=("<script>alert(1)</script>", *DIGITS[1:]),
        sources={"logits": "<script>alert(2)</script>.npy", "labels": Path("a&b\udcff.npy").name},
    )
