"""What an evaluation says: figures, and the arrays behind the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.findings import Diagnosis

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def plain(value: Any) -> Any:
    """In dictionaries, lists, numbers and strings, as JSON has them; NaN, inf and -inf become strings."""
    if isinstance(value, Diagnosis):
        return value.to_dict()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Result:
    """A dataclass that may hold arrays: equal if all fields are; NaN equals NaN."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return plain(self) == plain(other) if type(other) is type(self) else NotImplemented


@dataclass(frozen=True, eq=False)
class Calibration(Result):
    """A reliability diagram: what was claimed and what came true, in bins of equal width over [0, 1]."""

    edges: Floats  # (B + 1,)
    counts: Counts | Floats  # (B,), or the sums of weights
    confidence: Floats  # (B,) mean claimed probability; NaN in an empty bin
    accuracy: Floats  # (B,) share that came true; NaN in an empty bin
    error: float  # expected calibration error: Σ counts/total · |accuracy − confidence|

    @classmethod
    def of(cls, sums: Floats) -> Calibration:
        """From the number of probabilities in each bin, their sum, and what came true of them."""
        counts, claimed, true = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            confidence, accuracy = claimed / counts, true / counts
        error = float(np.abs(true - claimed).sum() / counts.sum()) if counts.sum() else 0.0
        counts = counts if (counts % 1.0).any() else counts.astype(np.int64)
        return cls(np.linspace(0.0, 1.0, len(counts) + 1), counts, confidence, accuracy, error)


@dataclass(frozen=True, eq=False)
class Histogram(Result):
    """How many losses lie between edges[i] and edges[i + 1] (nats); infinite and NaN losses are not in it."""

    edges: Floats  # (B + 1,), rising, from 0 on
    counts: Counts  # (B,)


@dataclass(frozen=True, eq=False)
class PerClass(Result):
    """One entry a class."""

    classes: Counts  # (K,) the numbers of the classes
    support: Counts | Floats  # (K,) rows of that class; sigmoid: elements that are "yes"; their weights, if there are
    loss: Floats  # (K,) mean loss of those rows; sigmoid: of all elements of the class; NaN without any
    recall: Floats  # (K,)
    precision: Floats  # (K,) NaN where never predicted
    f1: Floats  # (K,)
    auroc: Floats | None = None  # (K,) sigmoid only; NaN if one answer never occurs
    average_precision: Floats | None = None  # (K,) sigmoid only; NaN without a "yes", as what follows
    best_f1: Floats | None = None  # (K,) sigmoid only: the largest F1 of any threshold
    best_logit: Floats | None = None  # (K,) sigmoid only: which "yes" from this logit on has
    brier: Floats | None = None  # (K,) with `classwise`: mean of (probability − label)²
    calibration_error: Floats | None = None  # (K,) with `classwise`: that of the class's probability


@dataclass(frozen=True, eq=False)
class Confusion(Result):
    """Who was taken for whom, for the classes with most confusions (all, if they are few)."""

    classes: Counts  # (K,) rows and columns of the matrix
    matrix: Counts | Floats  # (K, K): matrix[i, j] rows of classes[i] were taken for classes[j]; their weights
    # (true, predicted, how often), the commonest first, without the diagonal
    common: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, eq=False)
class Thresholds(Result):
    """Decisions of independent classes: "yes" where the probability is above a threshold. NaN of nothing."""

    thresholds: Floats  # (T,)
    precision: Floats  # (T,) micro-averaged
    recall: Floats
    f1: Floats
    class_precision: Floats  # (T, K)
    class_recall: Floats
    class_f1: Floats


@dataclass(frozen=True, eq=False)
class Example(Result):
    """One row (sigmoid: one element) whose loss is among the largest."""

    index: tuple[int, ...]  # where it lies among the rows; sigmoid: among the elements
    loss: float
    label: float  # class number, or for dense labels the most probable class; sigmoid: the label itself
    predicted: int  # class number; sigmoid: 0 or 1
    confidence: float  # the probability claimed for what was predicted


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(Result):
    """How good logits are for labels; `withlogits.evaluate` and `Meter.compute` make it.

    Losses are in nats. `exclusive` says whether the classes exclude one another (softmax losses) or are independent
    yes/no questions (sigmoid loss); figures that make sense for one of the two are None for the other.
    """

    loss_name: str  # "sparse", "softmax" or "sigmoid"
    exclusive: bool
    classes: int
    count: int  # rows that count; sigmoid: elements
    ignored: int
    loss: float  # mean, nats
    accuracy: float  # share of rows (sigmoid: elements, at probability 1/2) that are right
    top_k: dict[int, float] | None = None  # exclusive: share of rows whose label is among the k largest logits
    precision: float | None = None  # independent: micro-averaged, at probability 1/2
    recall: float | None = None
    f1: float | None = None  # independent: micro-averaged
    macro_f1: float | None = None  # independent: mean over classes
    auroc: float | None = None  # independent: mean over the classes for which it exists
    average_precision: float | None = None
    auroc_error: float | None = None  # at most so far from the figure of all scores; 0 up to 2^20 elements
    average_precision_error: float | None = None
    best_f1: float | None = None  # independent: mean over classes, each at the threshold that is best for it
    thresholds: Thresholds | None = None  # independent, if asked for
    # with `classwise`: the mean of Σ (probability − label)² (independent: of one term), and of the classes' errors
    brier: float | None = None
    classwise_calibration_error: float | None = None
    temperature: float  # by which to divide the logits for the smallest loss
    loss_at_temperature: float
    fitted_on: int  # rows that the temperature was found on: all, or a sample
    calibration: Calibration
    calibration_at_temperature: Calibration
    histogram: Histogram
    per_class: PerClass
    confusion: Confusion | None = None  # exclusive
    costliest: tuple[Example, ...]
    diagnosis: Diagnosis
    class_names: tuple[str, ...] | None = None
    sources: dict[str, str] = field(default_factory=dict)  # "logits", "labels": the names of the files

    @property
    def bits(self) -> float:
        """The mean loss in bits."""
        return self.loss / float(np.log(2.0))

    @property
    def perplexity(self) -> float | None:
        """exp(loss) of exclusive classes."""
        if not self.exclusive:
            return None
        with np.errstate(over="ignore"):
            return float(np.exp(self.loss))

    def name_of(self, index: int) -> str:
        """The name of a class, or its number."""
        return str(index) if self.class_names is None else self.class_names[index]

    def to_dict(self) -> dict[str, Any]:
        """All of it in dictionaries, lists, numbers and strings; NaN and infinities as strings, as JSON has none."""
        return {**plain(self), "bits": plain(self.bits), "perplexity": plain(self.perplexity)}

    def report(self, path: str | Path, *, language: str = "en") -> None:
        """Write one HTML file that needs nothing but itself; `language` is "en" or "zh"."""
        from withlogits.evaluation.report import write

        write(self, Path(path), language)

    def __str__(self) -> str:
        from withlogits.evaluation.show import text

        return text(self)
