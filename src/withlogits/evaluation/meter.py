"""An evaluation spread over batches, threads or processes, and put together exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.activations import sigmoid, softmax
from withlogits.evaluation import checks
from withlogits.evaluation.confusions import Confusions
from withlogits.evaluation.files.errors import naming
from withlogits.evaluation.highest_losses import HighestLosses
from withlogits.evaluation.probabilities import ClassProbabilities, Decisions
from withlogits.evaluation.results import Calibration, Evaluation, Example, Histogram, PerClass
from withlogits.evaluation.scores import Scores
from withlogits.guide.arrays import Given, given, silent
from withlogits.guide.diagnosing import loss_name
from withlogits.guide.findings import Diagnosis, Finding, in_order
from withlogits.guide.fit import fitted
from withlogits.guide.recommending import for_summary
from withlogits.guide.rules import findings_of
from withlogits.guide.rules.performance import performance_of
from withlogits.options import any_label_to_ignore, number_of
from withlogits.statistics.bins import BINS
from withlogits.statistics.sample import taken
from withlogits.statistics.summary import Block, Summary, in_rows

Array = NDArray[Any]

MOST_BINS = 1000  # of a calibration


class Meter:
    """Counts batches of labels and logits, and computes from them what `withlogits.evaluate` computes from all at once.

    Meters of different batches merge: into the same figures, up to the rounding of sums, whatever the split and the
    order. A meter can be pickled and sent to another process.

    Parameters
    ----------
    loss : {"sigmoid", "softmax", "sparse"} or a loss of withlogits, optional
        The loss that is meant; without it the one that fits the first batch.
    axis : int
        The axis of the classes.
    ignore_index : int or NaN, optional
        Rows with this label do not count (sparse); of independent classes, elements with this label. With NaN, labels
        that are NaN are missing.
    class_names : sequence of str, optional
        What the report calls the classes.
    thresholds : sequence of float, optional
        Probabilities between 0 and 1: precision, recall and F1 of independent classes where "yes" is what is above.
    calibration_bins : int
        The number of bins of equal width over [0, 1] for calibration errors.
    classwise : bool
        Whether the Brier score and the class-wise calibration error are wanted, which need the probability of every
        class: an evaluation of exclusive classes takes several times as long.

    Raises
    ------
    TypeError, ValueError
        As `diagnose`: for what is no array of real numbers, and shapes of which no loss could make anything.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> a, b = withlogits.Meter(), withlogits.Meter()
    >>> a.update(np.array([0, 1]), np.array([[2.0, 0.0], [1.0, 3.0]]))
    >>> b.update(np.array([1]), np.array([[1.0, 0.0]]), first=2)
    >>> a.merge(b)
    >>> evaluation = a.compute()
    >>> evaluation.count, evaluation.accuracy
    (3, 0.6666666666666666)
    """

    def __init__(
        self,
        *,
        loss: str | Callable[..., Any] | None = None,
        axis: int = -1,
        ignore_index: float | None = None,
        class_names: Sequence[str] | None = None,
        thresholds: Sequence[float] | None = None,
        calibration_bins: int = BINS.confidence,
        classwise: bool = False,
    ) -> None:
        self.loss = loss_name(loss)
        self.axis = axis
        self.ignore_index = any_label_to_ignore(ignore_index)
        self._thresholds = checks.probabilities(thresholds)
        self._bins = replace(BINS, confidence=number_of("calibration_bins", calibration_bins, MOST_BINS))
        self._classwise = classwise
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        self.sources: dict[str, str] = {}
        self._findings: list[Finding] = []
        self._hopeless = False
        self._kind: str | None = None
        self._class_axis = -1
        self._recipe: list[tuple[str, Callable[[Array], Array]]] = []
        self._summary: Summary | None = None
        self._library = "numpy"
        self._seen = 0  # entries of the first axis
        self._shape: tuple[int, ...] = ()  # of the first batch's logits
        self._label_shape: tuple[int, ...] = ()
        self._form: tuple[str, str] = ("", "")  # dtypes of logits and labels
        self._highest = HighestLosses()
        self._scores = Scores(0)  # independent classes
        self._confusions = Confusions(0)  # exclusive classes
        self._decisions = Decisions.empty(0, 0)  # independent classes
        self._probabilities = ClassProbabilities.empty(0, BINS)

    def update(self, labels: Any, logits: Any, *, sample_weight: Any = None, first: int | None = None) -> None:
        """Count a batch.

        `sample_weight` are weights of examples, in the shape of the logits without their classes, or of elements of
        independent classes in the shape of the logits; what has weight 0 does not count.

        `first` is where it begins on the first axis of the whole; without it, behind the last batch of this meter.
        The costliest examples are named by it.
        """
        self._count(labels, logits, (self._seen if first is None else first,), sample_weight)

    @silent
    def _count(self, labels: Any, logits: Any, begin: tuple[int, ...], weight: Any = None) -> None:
        """A block that begins there on the axes of the logits; on those that are not named at 0."""
        x, z = given("logits", logits), given("labels", labels)
        if self._kind is None and not self._hopeless:
            self._begin(z, x)
        if not self._hopeless and self._summary is not None:
            arrays = {"logits": x.array, "labels": z.array}
            for name, turned in self._recipe:
                arrays[name] = turned(arrays[name])
            self._add(arrays["logits"], arrays["labels"], begin, weight)
        self._seen = max(self._seen, sum(begin[:1]) + (x.shape[0] if x.shape else 1))

    def merge(self, other: Meter) -> None:
        """Take in what another meter, of other batches, has counted."""
        if other._kind is None and not other._hopeless:
            return
        if self._kind is None and not self._hopeless:
            seen = self._seen
            names = self.class_names or other.class_names
            sources = self.sources or other.sources
            self.__dict__.update(copy.deepcopy(other).__dict__)
            self.class_names, self.sources, self._seen = names, sources, max(seen, other._seen)
            return
        mine, others = (
            (meter._thresholds, meter._bins, meter._classwise, str(meter.ignore_index)) for meter in (self, other)
        )
        if mine != others:
            raise ValueError(
                "meters with other ignore_index, thresholds, calibration_bins or classwise do not merge: give all the "
                "same"
            )
        if (self._kind, self._class_axis) != (other._kind, other._class_axis) or self._classes != other._classes:
            raise ValueError(
                f"a meter of {self._kind} with {self._classes} classes does not merge with one of {other._kind} with "
                f"{other._classes}: give both the same loss"
            )
        known = {found.code for found in self._findings}
        self._findings += [found for found in other._findings if found.code not in known]
        self._seen = max(self._seen, other._seen)
        if self._summary is None or other._summary is None:
            return
        for name in ("_summary", "_highest", "_scores", "_confusions", "_decisions", "_probabilities"):
            getattr(self, name).merge(getattr(other, name))

    # ---------------------------------------------------------------------------------------------------- counting

    @property
    def _classes(self) -> int:
        return 0 if self._summary is None else self._summary.logits.classes

    def _begin(self, z: Given, x: Given) -> None:
        """What kind of pair it is, from the first batch."""
        options = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        pair = fitted(z, x, self.loss, self.axis, options)
        self._findings, self._hopeless, self._recipe = pair.findings, pair.hopeless, pair.recipe
        self._library, self._shape, self._label_shape = x.library, x.shape, z.shape
        self._form = (pair.logits.dtype, z.dtype)
        if pair.hopeless:
            return
        rows, _, self._class_axis = in_rows(pair.kind, pair.axis, pair.logits.array, pair.labels.array)
        classes = rows.shape[self._class_axis]
        if self.class_names is not None and len(self.class_names) != classes:
            raise ValueError(
                f"class_names has {len(self.class_names)} names, where logits {x.shape} have {classes} classes"
            )
        if self._thresholds and pair.kind != "sigmoid":
            raise errors.thresholds_of_exclusive(pair.kind)
        if pair.kind != "sigmoid" and self.ignore_index != self.ignore_index:
            raise errors.ignore_index(self.ignore_index)
        self._kind = pair.kind
        dtypes = pair.logits.dtype, pair.labels.dtype
        self._summary = Summary.begin(pair.kind, self._class_axis, classes, dtypes, self.ignore_index, bins=self._bins)
        self._scores, self._confusions = Scores(classes), Confusions(classes)
        self._decisions = Decisions.empty(len(self._thresholds), classes)
        self._probabilities = ClassProbabilities.empty(classes if self._classwise else 0, self._bins)

    def _add(self, x: Array, z: Array, begin: tuple[int, ...], given_weight: Any) -> None:
        assert self._summary is not None
        if not x.size:
            return
        element_shape, axis = x.shape, self._class_axis
        x, z, _ = in_rows(self._kind or "", axis, x, z)
        if x.ndim <= axis or x.shape[axis] != self._classes:
            raise _changed("logits", x.shape, (..., self._classes))
        rows = shapes.rows(x.shape, axis)
        wanted = rows if self._kind == "sparse" else x.shape
        if z.shape != wanted:
            raise _changed("labels", z.shape, wanted)
        offset, weight = _padded(begin, x.ndim), None
        if given_weight is not None:
            independent = self._kind == "sigmoid"
            file = self.sources.get("sample_weight")
            with naming(file) if file else nullcontext():
                weight = checks.weights(
                    given_weight, element_shape, rows if len(element_shape) > 1 else (), axis, independent
                )
            weight = weight.reshape(x.shape if independent else rows)
        block = self._summary.add(x, z, offset, self._highest.floor, weight)
        if self._classwise:
            self._probabilities.add(block, axis, self._bins)
        if self._kind == "sigmoid":
            self._decisions.add(block.x, block.z, block.weight, self._thresholds)
            self._scores.add(block.x, block.z, block.weight)
            self._keep_elements(block, x, z, begin, element_shape)
        else:
            self._confusions.add(block)
            self._keep_rows(block, shapes.rows(offset, axis), rows)

    def _keep_rows(self, block: Block, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        def describe(i: int, loss: float) -> Example:
            where = np.unravel_index([i], shape) if shape else ()
            row = taken(
                block.x, (*where[: self._class_axis], slice(None), *where[self._class_axis :]), self._class_axis
            )
            confidence = float(np.max(softmax(row.astype(np.float64))))
            at = _moved(tuple(n[0] for n in where), begin)
            return Example(at, loss, float(block.y[i]), int(block.predicted[i]), confidence)

        self._highest.add(block.listed, block.loss[block.listed], describe)

    def _keep_elements(self, block: Block, x: Array, z: Array, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        places, losses, axis = block.listed, block.loss, self._class_axis
        if axis != x.ndim - 1:  # elements were moved
            places = np.moveaxis(np.arange(x.size).reshape(x.shape), axis, -1).reshape(-1)[places]
            order = np.argsort(places)
            places, losses = places[order], losses[order]

        def describe(i: int, loss: float) -> Example:
            at = np.unravel_index(i, x.shape)
            score, label = float(x[at]), float(z[at])
            confidence = float(np.asarray(sigmoid(np.float64(abs(score)))))
            return Example(_moved(np.unravel_index(i, shape), begin), loss, label, int(score > 0), confidence)

        self._highest.add(places, losses, describe)

    # --------------------------------------------------------------------------------------------------- computing

    @silent
    def diagnose(self) -> Diagnosis:
        """What is wrong, or may be wrong, with the batches so far."""
        grown = [self._grown(shape) for shape in (self._shape, self._label_shape)]
        subject = ", ".join(
            " ".join(filter(None, (name, self.sources.get(name), str(shape), form)))
            for name, shape, form in zip(("logits", "labels"), grown, self._form, strict=True)
        )
        if self._summary is None:
            return Diagnosis(in_order(self._findings, []), None, self.loss or "sparse", subject)
        written = -1 if self._class_axis == max(2, len(self._shape)) - 1 else self._class_axis
        findings = in_order(self._findings, findings_of(self._summary, written, self._library))
        advice, figures = for_summary(self._summary, grown[1]), performance_of(self._summary)
        return Diagnosis(findings, advice, self.loss or self._summary.kind, subject, figures)

    def _grown(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of all batches together, from that of the first."""
        return (self._seen, *shape[1:]) if shape[:1] == self._shape[:1] != () else shape

    @silent
    def compute(self) -> Evaluation:
        """The figures of all batches so far.

        Raises
        ------
        DiagnosisError
            A `ValueError`, if labels and logits do not fit together at all; it says why.
        ValueError
            If there was no batch.
        """
        diagnosis = self.diagnose()
        if self._hopeless:
            diagnosis.raise_for_errors()
        summary = self._summary
        if summary is None:
            raise ValueError("the meter has seen no batch: call update(labels, logits) first")
        pair, figures, fit = summary.pair, summary.figures, summary.pair.sample.fit()
        mean = figures.weighted_loss / figures.weight if figures.weight else 0.0
        if pair.nan or pair.infinite:
            mean = math.nan if pair.nan else math.inf
        temperature = 1.0 if fit is None else fit.temperature
        after = np.zeros((3, self._bins.confidence))
        if pair.sample.x is not None:
            probabilities, right, weight = pair.sample.confidences(temperature)
            after = self._bins.reliability(probabilities, right, weight)
        exclusive = summary.kind != "sigmoid"
        found = self._exclusive(summary) if exclusive else self._independent(summary)
        if self._classwise:
            found |= self._classwise_figures(found["per_class"], exclusive)
        return Evaluation(
            loss_name=summary.kind,
            exclusive=exclusive,
            classes=summary.logits.classes,
            count=pair.counted,
            ignored=summary.labels.ignored,
            loss=mean,
            temperature=temperature,
            loss_at_temperature=mean if fit is None else fit.loss_at_temperature,
            fitted_on=0 if fit is None else fit.rows,
            calibration=Calibration.of(figures.confidence),
            calibration_at_temperature=Calibration.of(after),
            histogram=Histogram(BINS.edges, figures.histogram.copy()),
            costliest=tuple(self._highest.rows),
            diagnosis=diagnosis,
            class_names=self.class_names,
            sources=dict(self.sources),
            **found,
        )

    def _classwise_figures(self, per_class: PerClass, exclusive: bool) -> dict[str, Any]:
        sums = self._probabilities
        errors_of_classes, squares = sums.calibration_errors(), sums.squares.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            brier = sums.squares / sums.weight
        return {
            "brier": _ratio(squares, sums.weight[0] if exclusive else sums.weight.sum()),
            "classwise_calibration_error": _mean(errors_of_classes),
            "per_class": replace(per_class, brier=brier, calibration_error=errors_of_classes),
        }

    def _exclusive(self, summary: Summary) -> dict[str, Any]:
        figures = summary.figures
        within = [_ratio(n, figures.weight) for n in np.asarray(figures.within).tolist()]
        return {
            "accuracy": within[0],
            "top_k": {k: hit for k, hit in zip(BINS.within, within, strict=True) if k < self._classes or k == 1},
            "per_class": _per_class(*self._confusions.totals(), figures.class_loss, figures.class_weight),
            "confusion": self._confusions.result(),
        }

    def _independent(self, summary: Summary) -> dict[str, Any]:
        true, said, both = np.asarray(summary.figures.answers)
        order, figures = self._scores.figures(), summary.figures
        one = _per_class(true, said, both, figures.class_loss, figures.class_weight)
        wrong = (true + said - 2 * both).sum()
        return {
            "accuracy": 1.0 - float(wrong / figures.weight) if figures.weight else math.nan,
            "precision": _ratio(both.sum(), said.sum()),
            "recall": _ratio(both.sum(), true.sum()),
            "f1": _ratio(2 * both.sum(), true.sum() + said.sum()),
            "thresholds": self._decisions.result(self._thresholds, true) if self._thresholds else None,
            "macro_f1": float(np.nan_to_num(one.f1).mean()) if len(one.f1) else math.nan,
            **{name: _mean(values) for name, values in order._asdict().items() if name != "best_logit"},
            "per_class": replace(
                one,
                auroc=order.auroc,
                average_precision=order.average_precision,
                best_f1=order.best_f1,
                best_logit=order.best_logit,
            ),
        }


def _per_class(true: Array, said: Array, both: Array, loss: Any, count: Any) -> PerClass:
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * both / (true + said)
        return PerClass(np.arange(len(true)), true, loss / count, both / true, both / said, f1)


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else math.nan


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _padded(begin: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (*begin, *(0,) * (rank - len(begin)))[:rank]


def _moved(where: tuple[Any, ...], begin: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) + b for i, b in zip(where, _padded(begin, len(where)), strict=True))


def _changed(name: str, got: tuple[Any, ...], expected: tuple[Any, ...]) -> ValueError:
    shown = str(expected).replace("Ellipsis", "...")
    return ValueError(f"{name} have shape {got} in this batch, where the first batch lets expect {shown}")
