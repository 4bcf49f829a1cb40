"""The tables: columns of texts, with keys to sort them by; a long table is cut, and its caption says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from withlogits.evaluation.report.words import NOTHING, Words, decimal, percent, whole
from withlogits.evaluation.results import Evaluation, Floats

CLASSES = 200  # a page with 32,000 rows helps nobody
ROWS = 100  # of the other tables


@dataclass(frozen=True)
class Column:
    """A heading and its cells; numbers stand at the right. `keys` are what the script sorts by, "" for no value."""

    text: str
    cells: list[str]
    keys: list[str] = field(default_factory=list)
    numeric: bool = True
    heads: bool = False  # its cells are the headings of the rows


@dataclass(frozen=True)
class Table:
    """Columns of one length. A table that can be sorted says by which column it is, the largest first."""

    name: str
    caption: str
    columns: list[Column]
    sorted_by: int | None = None
    empty: str = ""  # what is said instead of a table without rows

    @property
    def rows(self) -> range:
        """The numbers of the rows."""
        return range(len(self.columns[0].cells))


def numbers(text: str, values: Iterable[Any], shown: Callable[[Any], str] = decimal, heads: bool = False) -> Column:
    """Return a column of numbers, and of keys to sort them by."""
    values = list(values)
    keys = ["" if math.isnan(value) else repr(float(value)) for value in values]
    return Column(text, [shown(value) for value in values], keys, heads=heads)


def total_losses(evaluation: Evaluation) -> Floats:
    """Return what each class adds to the sum of all losses; of independent classes, each has as many elements."""
    each = evaluation.per_class
    if not evaluation.exclusive:
        return each.loss
    loss: Floats = np.where(each.support == 0, 0.0, each.loss)
    return loss * each.support  # a class that never occurs has the loss NaN


def by_total_loss(evaluation: Evaluation) -> list[int]:
    """Return places in `per_class`, the highest total loss first; NaN, which hides what it is, before all numbers."""
    totals = np.nan_to_num(total_losses(evaluation), nan=np.inf)
    return [int(place) for place in np.lexsort((evaluation.per_class.classes, -totals))]


def per_class_table(order: Sequence[int], t: Words) -> Table:
    """Return one row for each class, at most `CLASSES`."""
    evaluation, each = t.evaluation, t.evaluation.per_class
    shown = list(order[:CLASSES])
    classes = each.classes[shown].tolist()
    totals = total_losses(evaluation)
    with np.errstate(invalid="ignore"):
        shares = totals / (float(totals.sum()) or 1.0)
    named = evaluation.class_names is not None
    columns = [numbers(t("class"), classes, str, heads=not named)]
    if named:
        names = [evaluation.name_of(number) for number in classes]
        columns.append(Column(t("name"), names, names, numeric=False, heads=True))
    columns += [
        numbers(t("support"), each.support[shown], whole),
        numbers(t("mean_loss"), each.loss[shown]),
        numbers(t("loss_share"), shares[shown], percent),
    ]
    sorted_by = len(columns) - 1
    columns += [numbers(t(key), getattr(each, key)[shown], percent) for key in ("recall", "precision", "f1")]
    for key in ("auroc", "average_precision", "best_f1", "best_logit", "brier", "calibration_error"):
        if (values := getattr(each, key)) is not None:
            form = percent if key in ("best_f1", "calibration_error") else lambda value: decimal(value, 3)
            columns.append(numbers(t(key), values[shown], form))
    caption = "per_class_caption" if len(shown) == len(order) else "per_class_caption_some"
    caption = t(caption, shown=whole(len(shown)), all=whole(len(order)))
    return Table(t("per_class"), caption, columns, sorted_by, t("per_class_figure_none"))


def costliest_table(t: Words) -> Table:
    """Return the examples with the highest losses."""
    exclusive, name_of = t.evaluation.exclusive, t.evaluation.name_of
    shown = t.evaluation.costliest[:ROWS]

    def label(value: float) -> str:
        if not math.isfinite(value):
            return decimal(value)
        return name_of(int(value)) if exclusive else f"{value:g}"

    places = [", ".join(map(str, e.index)) if len(e.index) == 1 else f"({', '.join(map(str, e.index))})" for e in shown]
    columns = [Column(t("where"), places, numeric=False, heads=True)]
    if not exclusive:
        names = [name_of(e.index[-1]) if len(e.index) > 1 else NOTHING for e in shown]
        columns.append(Column(t("class"), names, numeric=False))
    predicted = [name_of(e.predicted) if exclusive else str(e.predicted) for e in shown]
    columns += [
        numbers(t("loss"), [e.loss for e in shown]),
        Column(t("label"), [label(e.label) for e in shown], numeric=not exclusive),
        Column(t("predicted"), predicted, numeric=not exclusive),
        numbers(t("confidence"), [e.confidence for e in shown], percent),
    ]
    caption = t("costliest_caption") + _cut(len(shown), len(t.evaluation.costliest), t)
    return Table(t("costliest"), caption, columns, empty=t("costliest_none"))


def _cut(shown: int, all_: int, t: Words) -> str:
    return "" if shown == all_ else t("space") + t("first_of", shown=whole(shown), all=whole(all_))


def confusions_table(t: Words) -> Table | None:
    """Return which class was predicted for which, and how often."""
    if t.evaluation.confusion is None:
        return None
    common = t.evaluation.confusion.common
    shown, name_of = common[:ROWS], t.evaluation.name_of
    columns = [
        Column(t("true_class"), [name_of(label) for label, _, _ in shown], numeric=False, heads=True),
        Column(t("predicted_class"), [name_of(predicted) for _, predicted, _ in shown], numeric=False),
        numbers(t("times"), [times for _, _, times in shown], whole),
    ]
    caption = t("confusions_caption") + _cut(len(shown), len(common), t)
    return Table(t("confusions"), caption, columns, empty=t("confusions_none"))


def thresholds_table(t: Words) -> Table | None:
    """Return precision, recall and F1 at the thresholds that were asked for."""
    found = t.evaluation.thresholds
    if found is None:
        return None
    columns = [
        numbers(t("threshold"), found.thresholds, lambda value: f"{value:g}", heads=True),
        *(numbers(t(key), getattr(found, key), percent) for key in ("precision", "recall", "f1")),
    ]
    return Table(t("thresholds"), t("thresholds_caption"), columns)


def histogram_table(t: Words) -> Table:
    """Return the bins of the histogram that are not empty."""
    edges, counts = t.evaluation.histogram.edges, t.evaluation.histogram.counts
    used = np.flatnonzero(counts)
    columns = [
        numbers(t("from"), edges[used], heads=True),
        numbers(t("to"), edges[used + 1]),
        numbers(t("count"), counts[used], whole),
        numbers(t("share"), counts[used] / counts.sum(), percent),
    ]
    return Table(t("histogram"), f"{t('histogram')}. {t('histogram_x')}", columns)


def reliability_table(titles: Sequence[str], t: Words) -> Table:
    """Return the numbers of both reliability diagrams, one after the other."""
    both = (t.evaluation.calibration, t.evaluation.calibration_at_temperature)
    bins = [(title, c, i) for title, c in zip(titles, both, strict=True) for i in np.flatnonzero(c.counts)]
    reach = [f"{percent(c.edges[i])} – {percent(c.edges[i + 1])}" for _, c, i in bins]
    columns = [
        Column("", [title for title, _, _ in bins], numeric=False, heads=True),
        Column(t("reliability_x"), reach, numeric=False),
        numbers(t("claimed"), [c.confidence[i] for _, c, i in bins], percent),
        numbers(t("came_true"), [c.accuracy[i] for _, c, i in bins], percent),
        numbers(t("count"), [c.counts[i] for _, c, i in bins], whole),
    ]
    return Table(t("reliability"), t("reliability"), columns)
