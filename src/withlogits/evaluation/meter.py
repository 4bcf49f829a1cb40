"""An evaluation spread over batches, threads or processes, and put together exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import logsumexp
from withlogits.activations import sigmoid as probability
from withlogits.evaluation.results import Confusion, Evaluation, Example, PerClass
from withlogits.evaluation.scores import Scores
from withlogits.evaluation.tallies import Confusions, Costliest, LossHistogram, Reliability
from withlogits.guide.arrays import Given, given, silent
from withlogits.guide.diagnosing import loss_name, recommended_by
from withlogits.guide.findings import Diagnosis, Finding, in_order
from withlogits.guide.fit import Pair, fitted
from withlogits.guide.rules import findings_of
from withlogits.guide.survey import Block, Survey, in_rows

Array = NDArray[Any]

TOP = (1, 3, 5, 10)


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
        self._reliability, self._histogram, self._costliest = Reliability(), LossHistogram(), Costliest()
        self._class_loss: Array = np.zeros(0)
        # independent classes: true yes, said yes, both, all
        self._answers: Array = np.zeros((4, 0), np.int64)
        self._scores = Scores(0)
        # exclusive classes
        self._support: Array = np.zeros(0, np.int64)
        self._within: Array = np.zeros(len(TOP), np.int64)
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
        for name in ("_reliability", "_histogram", "_costliest"):
            getattr(self, name).merge(getattr(other, name))
        self._class_loss = self._class_loss + other._class_loss
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
        self._add_rows(self._survey.add(x, z, offset), offset[:axis] + offset[axis + 1 :], rows)

    def _add_rows(self, block: Block, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        y, facts, loss = block.y, block.facts, block.loss.astype(np.float64)
        predicted = facts["first"].astype(np.intp)
        if self._kind == "sparse":
            with np.errstate(invalid="ignore"):
                claimed = np.exp(np.minimum(facts["top"] - block.own - loss, 0.0))
        else:
            size = np.asarray(logsumexp(block.x, axis=block.axis)).reshape(-1).astype(np.float64)
            with np.errstate(invalid="ignore"):
                claimed = np.exp(np.minimum(facts["top"] - size, 0.0))
        above = facts["above"]
        places: Array = np.arange(len(y)) if block.counts is None else np.flatnonzero(block.counts)
        if block.counts is not None:
            y, predicted, loss = y[places], predicted[places], loss[places]
            claimed, above = claimed[places], above[places]
        self._support += np.bincount(y, minlength=self._classes)
        self._class_loss += np.bincount(y, loss, self._classes)
        self._within += [np.count_nonzero(above < k) for k in TOP]
        self._confusions.add(y, predicted)
        self._reliability.add(claimed, (y == predicted).astype(np.float64))
        self._histogram.add(loss)

        def describe(i: int, cost: float) -> Example:
            where = _moved(np.unravel_index(int(places[i]), shape) if shape else (), begin)
            return Example(where, cost, float(y[i]), int(predicted[i]), float(claimed[i]))

        self._costliest.add(loss, describe)

    def _add_elements(self, block: Block, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        x = np.moveaxis(block.x, block.axis, -1).reshape(-1, self._classes)
        z = np.moveaxis(block.z, block.axis, -1).reshape(-1, self._classes)
        loss = np.moveaxis(block.loss, block.axis, -1).reshape(-1, self._classes)
        yes, said = z > 0.5, x > 0.0
        for i, these in enumerate((yes, said, yes & said)):
            self._answers[i] += np.count_nonzero(these, axis=0)
        self._answers[3] += len(x)
        self._class_loss += loss.sum(axis=0, dtype=np.float64)
        self._scores.add(x, yes)
        claimed = np.asarray(probability(x)).astype(np.float64).reshape(-1)
        self._reliability.add(claimed, z.astype(np.float64).reshape(-1))
        self._histogram.add(loss.reshape(-1))
        flat_x, flat_z = block.x.reshape(-1), block.z.reshape(-1)

        def describe(i: int, cost: float) -> Example:
            where = _moved(np.unravel_index(i, shape), begin)
            p = float(np.asarray(probability(np.float64(flat_x[i]))))
            positive = bool(flat_x[i] > 0)
            return Example(where, cost, float(flat_z[i]), int(positive), p if positive else 1.0 - p)

        self._costliest.add(block.loss, describe)

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
        after = Reliability()
        if pair.sample.x is not None:
            after.add(*pair.sample.confidences(1.0 if fit is None else fit.temperature))
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
            "calibration": self._reliability.result(),
            "calibration_at_temperature": after.result(),
            "histogram": self._histogram.result(),
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
                for k, n in zip(TOP, self._within.tolist(), strict=True)
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
