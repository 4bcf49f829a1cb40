"""An evaluation spread over batches, threads or processes, and put together exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import sigmoid as probability
from withlogits.evaluation.bins import BINS
from withlogits.evaluation.results import Confusion, Evaluation, Example, Histogram, PerClass
from withlogits.evaluation.scores import Scores
from withlogits.evaluation.tallies import Confusions, Costliest, calibration
from withlogits.guide.arrays import Given, given, silent, without
from withlogits.guide.diagnosing import loss_name, recommended_by
from withlogits.guide.findings import Diagnosis, Finding, in_order
from withlogits.guide.fit import Pair, fitted
from withlogits.guide.rules import findings_of
from withlogits.guide.survey import Block, Survey, in_rows
from withlogits.reference import reliability

Array = NDArray[Any]


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
    ignore_index : int, optional
        Rows with this label do not count (sparse).
    class_names : sequence of str, optional
        What the report calls the classes.

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
        ignore_index: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.loss = loss_name(loss)
        self.axis = axis
        self.ignore_index = ignore_index
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        self.sources: dict[str, str] = {}
        self._findings: list[Finding] = []
        self._hopeless = False
        self._kind: str | None = None
        self._class_axis = -1
        self._recipe: list[tuple[str, Callable[[Array], Array]]] = []
        self._survey: Survey | None = None
        self._library = "numpy"
        self._seen = 0  # entries of the first axis
        self._shape: tuple[int, ...] = ()  # of the first batch's logits
        self._label_shape: tuple[int, ...] = ()
        self._form: tuple[str, str] = ("", "")  # dtypes of logits and labels
        self._costliest = Costliest()
        self._confidence: Array = np.zeros((3, BINS.confidence))  # how many claims, their sum, what came true
        self._histogram: Array = np.zeros(len(BINS.edges) - 1, np.int64)  # of losses
        self._class_loss: Array = np.zeros(0)
        # independent classes: true yes, said yes, both, all
        self._answers: Array = np.zeros((4, 0), np.int64)
        self._scores = Scores(0)
        # exclusive classes
        self._support: Array = np.zeros(0, np.int64)
        self._within: Array = np.zeros(len(BINS.within), np.int64)
        self._confusions = Confusions(0)

    def update(self, labels: Any, logits: Any, *, first: int | None = None) -> None:
        """Count a batch.

        `first` is where it begins on the first axis of the whole; without it, behind the last batch of this meter.
        The costliest examples are named by it.
        """
        self._count(labels, logits, (self._seen if first is None else first,))

    @silent
    def _count(self, labels: Any, logits: Any, begin: tuple[int, ...]) -> None:
        """A block that begins there on the axes of the logits; on those that are not named at 0."""
        x, z = given("logits", logits), given("labels", labels)
        if self._kind is None and not self._hopeless:
            self._begin(z, x)
        if not self._hopeless and self._survey is not None:
            arrays = {"logits": x.array, "labels": z.array}
            for name, turned in self._recipe:
                arrays[name] = turned(arrays[name])
            self._add(arrays["logits"], arrays["labels"], begin)
        self._seen = max(self._seen, sum(begin[:1]) + (x.shape[0] if x.shape else 1))

    def merge(self, other: Meter) -> None:
        """Take in what another meter, of other batches, has counted."""
        if other._kind is None and not other._hopeless:
            return
        if self._kind is None and not self._hopeless:
            seen = self._seen
            names = self.class_names or other.class_names
            sources = self.sources or other.sources
            self.__dict__.update(_copied(other).__dict__)
            self.class_names, self.sources, self._seen = names, sources, max(seen, other._seen)
            return
        if (self._kind, self._class_axis) != (other._kind, other._class_axis) or self._classes != other._classes:
            raise ValueError(
                f"a meter of {self._kind} with {self._classes} classes does not merge with one of {other._kind} with "
                f"{other._classes}: give both the same loss"
            )
        known = {found.code for found in self._findings}
        self._findings += [found for found in other._findings if found.code not in known]
        self._seen = max(self._seen, other._seen)
        if self._survey is None or other._survey is None:
            return
        self._survey.merge(other._survey)
        self._costliest.merge(other._costliest)
        for name in ("_confidence", "_histogram", "_class_loss"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self._kind == "sigmoid":
            self._answers = self._answers + other._answers
            self._scores.merge(other._scores)
        else:
            self._support = self._support + other._support
            self._within = self._within + other._within
            self._confusions.merge(other._confusions)

    # ---------------------------------------------------------------------------------------------------- counting

    @property
    def _classes(self) -> int:
        return 0 if self._survey is None else self._survey.logits.classes

    def _begin(self, z: Given, x: Given) -> None:
        """What kind of pair it is, from the first batch."""
        options = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        pair: Pair = fitted(z, x, self.loss, self.axis, options)
        self._findings, self._hopeless, self._recipe = pair.findings, pair.hopeless, pair.recipe
        self._library, self._shape, self._label_shape = x.library, x.shape, z.shape
        self._form = (pair.logits.dtype, z.dtype)
        if pair.hopeless:
            return
        self._kind = pair.kind
        rows, _, self._class_axis = in_rows(pair.kind, pair.axis, pair.logits.array, pair.labels.array)
        classes = rows.shape[self._class_axis]
        self._survey = Survey.begin(
            pair.kind, self._class_axis, classes, pair.logits.dtype, pair.labels.dtype, self.ignore_index, {}
        )
        self._survey.bins = BINS
        self._class_loss = np.zeros(classes)
        if pair.kind == "sigmoid":
            self._answers = np.zeros((4, classes), np.int64)
            self._scores = Scores(classes)
        else:
            self._support = np.zeros(classes, np.int64)
            self._confusions = Confusions(classes)

    def _add(self, x: Array, z: Array, begin: tuple[int, ...]) -> None:
        assert self._survey is not None
        if not x.size:
            return
        element_shape = x.shape
        x, z, _ = in_rows(self._kind or "", self._class_axis, x, z)
        if self._kind == "sigmoid":
            if z.shape != x.shape:
                raise _changed("labels", z.shape, x.shape)
            if x.shape[self._class_axis] != self._classes:
                raise _changed("logits", x.shape, (..., self._classes))
            self._survey.floor = self._costliest.floor
            self._add_elements(self._survey.add(x, z, _padded(begin, x.ndim)), begin, element_shape)
            return
        axis = self._class_axis
        if x.ndim <= axis or x.shape[axis] != self._classes:
            raise _changed("logits", x.shape, (..., self._classes))
        rows = x.shape[:axis] + x.shape[axis + 1 :]
        wanted = rows if self._kind == "sparse" else x.shape
        if z.shape != wanted:
            raise _changed("labels", z.shape, wanted)
        offset = _padded(begin, x.ndim)
        self._survey.floor = self._costliest.floor
        self._add_rows(self._survey.add(x, z, offset), offset[:axis] + offset[axis + 1 :], rows)

    def _add_rows(self, block: Block, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        y, facts, loss, tallies = block.y, block.facts, block.loss, block.tallies
        self._support += tallies["support"]
        self._within += tallies["within"]
        self._add_figures(tallies)
        if tallies["matrix"] is None:
            self._confusions.add(block.pairs(self._classes))
        else:
            self._confusions.add_matrix(tallies["matrix"])

        def describe(i: int, cost: float) -> Example:
            where = _moved(np.unravel_index(i, shape) if shape else (), begin)
            size = block.size[i] if block.size is not None else facts["own"][i] + cost
            claimed = math.exp(min(facts["top"][i] - size, 0.0))
            return Example(where, cost, float(y[i]), int(facts["first"][i]), claimed)

        self._costliest.add(tallies["costly"], loss[tallies["costly"]], describe)

    def _add_figures(self, tallies: dict[str, Any]) -> None:
        self._class_loss += tallies["class_loss"]
        self._confidence += tallies["confidence"]
        self._histogram += tallies["histogram"]

    def _add_elements(self, block: Block, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        x, z = block.elements
        tallies, places, losses = block.tallies, block.tallies["costly"], block.tallies["costs"]
        self._scores.add(x, z)
        self._answers[:3] += tallies["answers"]
        self._answers[3] += len(x)
        self._add_figures(tallies)
        if block.axis != block.x.ndim - 1:  # elements were moved
            moved = without(block.x.shape, block.axis)
            *rows, classes = np.unravel_index(places, (*moved, self._classes))
            rows.insert(block.axis, classes)
            places = np.ravel_multi_index(tuple(rows), block.x.shape)
            order = np.argsort(places)
            places, losses = places[order], losses[order]

        def describe(i: int, cost: float) -> Example:
            at = np.unravel_index(i, block.x.shape)
            score, label = float(block.x[at]), float(block.z[at])
            p = float(np.asarray(probability(np.float64(score))))
            positive = score > 0
            where = _moved(np.unravel_index(i, shape), begin)
            return Example(where, cost, label, int(positive), p if positive else 1.0 - p)

        self._costliest.add(places, losses, describe)

    # --------------------------------------------------------------------------------------------------- computing

    @silent
    def diagnose(self) -> Diagnosis:
        """What is wrong, or may be wrong, with the batches so far."""
        shapes = (self._grown(shape) for shape in (self._shape, self._label_shape))
        subject = ", ".join(
            " ".join(filter(None, (name, self.sources.get(name), str(shape), form)))
            for name, shape, form in zip(("logits", "labels"), shapes, self._form, strict=True)
        )
        if self._survey is None:
            return Diagnosis(in_order(self._findings), None, self.loss or "sparse", subject)
        written = -1 if self._class_axis == max(2, len(self._shape)) - 1 else self._class_axis
        known = {found.code for found in self._findings}
        more = [f for f in findings_of(self._survey, written, self._library) if f.code not in known]
        advice = recommended_by(self._survey)
        return Diagnosis(in_order([*self._findings, *more]), advice, self.loss or self._survey.kind, subject)

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
        survey = self._survey
        if survey is None:
            raise ValueError("the meter has seen no batch: call update(labels, logits) first")
        pair = survey.pair
        mean = pair.loss / pair.counted if pair.counted else 0.0
        if pair.infinite:
            mean = math.inf
        if pair.nan:
            mean = math.nan
        fit = pair.sample.fit()
        after = np.zeros_like(self._confidence)
        if pair.sample.x is not None:
            after = reliability(*pair.sample.confidences(1.0 if fit is None else fit.temperature), BINS)
        exclusive = survey.kind != "sigmoid"
        common: dict[str, Any] = {
            "loss_name": survey.kind,
            "exclusive": exclusive,
            "classes": survey.logits.classes,
            "count": pair.counted,
            "ignored": survey.labels.ignored,
            "loss": mean,
            "temperature": 1.0 if fit is None else fit.temperature,
            "loss_at_temperature": mean if fit is None else fit.loss_at_temperature,
            "fitted_on": 0 if fit is None else fit.rows,
            "calibration": calibration(self._confidence),
            "calibration_at_temperature": calibration(after),
            "histogram": Histogram(BINS.edges, self._histogram.copy()),
            "costliest": tuple(self._costliest.rows),
            "diagnosis": diagnosis,
            "class_names": self.class_names,
            "sources": dict(self.sources),
        }
        return Evaluation(**common, **(self._exclusive() if exclusive else self._independent()))

    def _exclusive(self) -> dict[str, Any]:
        assert self._survey is not None
        count, classes = self._survey.pair.counted, self._classes
        true, said, both = self._confusions.totals()
        confusion: Confusion = self._confusions.result()
        per_class = _per_class(true, said, both, self._class_loss, self._support)
        return {
            "accuracy": self._survey.pair.right / count if count else math.nan,
            "top_k": {
                k: int(n) / count if count else math.nan
                for k, n in zip(BINS.within, self._within.tolist(), strict=True)
                if k < classes or k == 1
            },
            "precision": None,
            "recall": None,
            "f1": None,
            "macro_f1": None,
            "auroc": None,
            "average_precision": None,
            "per_class": per_class,
            "confusion": confusion,
        }

    def _independent(self) -> dict[str, Any]:
        true, said, both, everything = self._answers
        auroc, average = self._scores.figures()
        one = _per_class(true, said, both, self._class_loss, everything)
        per_class = PerClass(
            one.classes, true.copy(), one.loss, one.recall, one.precision, one.f1, auroc, average
        )  # support is what is true
        wrong = int((true + said - 2 * both).sum())
        elements = int(everything.sum())
        return {
            "accuracy": 1.0 - wrong / elements if elements else math.nan,
            "top_k": None,
            "precision": _ratio(both.sum(), said.sum()),
            "recall": _ratio(both.sum(), true.sum()),
            "f1": _ratio(2 * both.sum(), true.sum() + said.sum()),
            "macro_f1": float(np.nan_to_num(one.f1).mean()) if len(one.f1) else math.nan,
            "auroc": _mean(auroc),
            "average_precision": _mean(average),
            "per_class": per_class,
            "confusion": None,
        }


def _per_class(true: Array, said: Array, both: Array, loss: Array, count: Array) -> PerClass:
    with np.errstate(invalid="ignore", divide="ignore"):
        return PerClass(
            np.arange(len(true)),
            true.astype(np.int64),
            loss / count,
            both / true,
            both / said,
            2 * both / (true + said),
        )


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


def _copied(meter: Meter) -> Meter:
    import copy

    return copy.deepcopy(meter)
