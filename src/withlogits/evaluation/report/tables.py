"""The cells of the tables, each with the value that it is sorted by; long tables are cut, and their captions say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from withlogits.evaluation.report.texts import Texts
from withlogits.evaluation.report.words import NOTHING, decimal, percent, whole
from withlogits.evaluation.results import Evaluation, Floats

CLASSES = 200  # a page with 32,000 rows helps nobody
ROWS = 100  # of the other tables


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by: a number, a text, or nothing, which comes last."""

    text: str
    value: float | str | None = None

    @property
    def key(self) -> str:
        """The value for the script."""
        if isinstance(self.value, str):
            return self.value
        return "" if self.value is None or math.isnan(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand at the right."""

    text: str
    numeric: bool = True
    heads: bool = False  # its cells are the headings of the rows


@dataclass(frozen=True)
class Table:
    """Columns and rows. A table that can be sorted says by which column it is, the largest first."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]
    sorted_by: int | None = None
    empty: str = ""  # what is said instead of a table without rows


def total_losses(evaluation: Evaluation) -> Floats:
    """What each class adds to the sum of all losses; each question has as many elements as any other."""
    each = evaluation.per_class
    # A class that never occurs has no loss: NaN, and adds nothing.
    losses = np.where(each.support == 0, 0.0, each.loss) if evaluation.exclusive else each.loss
    return losses * (np.where(each.support == 0, 1, each.support) if evaluation.exclusive else 1)


def by_total_loss(evaluation: Evaluation) -> list[int]:
    """Places in `per_class`, the highest total loss first; NaN, which hides what it is, before all numbers."""
    totals = total_losses(evaluation)
    return [int(place) for place in np.lexsort((evaluation.per_class.classes, -np.nan_to_num(totals, nan=np.inf)))]


def per_class_table(evaluation: Evaluation, order: Sequence[int], t: Texts) -> Table:
    """One row a class, at most `CLASSES`."""
    each, named = evaluation.per_class, evaluation.class_names is not None
    totals = total_losses(evaluation)
    with np.errstate(invalid="ignore"):
        shares = totals / (float(totals.sum()) or 1.0)
    support = "support_exclusive" if evaluation.exclusive else "support_independent"
    columns = [Column(t["class"], heads=not named)]
    if named:
        columns.append(Column(t["name"], numeric=False, heads=True))
    sorted_by = len(columns) + 2  # the share
    columns += [Column(t[key]) for key in (support, "mean_loss", "loss_share", "recall", "precision", "f1")]
    extra = [(key, values) for key in ("auroc", "average_precision") if (values := getattr(each, key)) is not None]
    columns += [Column(t[key]) for key, _ in extra]
    rows = []
    for i in order[:CLASSES]:
        number = int(each.classes[i])
        row = [Cell(str(number), number)]
        if named:
            row.append(Cell(evaluation.name_of(number), evaluation.name_of(number)))
        row.append(Cell(whole(each.support[i]), int(each.support[i])))
        row.append(Cell(decimal(each.loss[i]), float(each.loss[i])))
        row.append(Cell(percent(shares[i]), float(shares[i])))
        row += [Cell(percent(values[i]), float(values[i])) for values in (each.recall, each.precision, each.f1)]
        row += [Cell(decimal(values[i], 3), float(values[i])) for _, values in extra]
        rows.append(row)
    caption = "per_class_caption" if len(rows) == len(order) else "per_class_caption_some"
    text = t[caption].format(shown=whole(len(rows)), all=whole(len(order)))
    return Table(t["per_class"], text, tuple(columns), rows, sorted_by=sorted_by, empty=t["per_class_figure_none"])


def costliest_table(evaluation: Evaluation, t: Texts) -> Table:
    """The examples with the largest losses."""
    exclusive = evaluation.exclusive
    columns = [Column(t["where_exclusive" if exclusive else "where_independent"], numeric=False, heads=True)]
    if not exclusive:
        columns.append(Column(t["class"], numeric=False))
    columns.append(Column(t["loss"]))
    columns += [Column(t["label"], numeric=not exclusive), Column(t["predicted"], numeric=not exclusive)]
    columns.append(Column(t["confidence"]))
    rows = []
    for example in evaluation.costliest[:ROWS]:
        place = ", ".join(map(str, example.index))
        row = [Cell(place if len(example.index) == 1 else f"({place})")]
        if not exclusive:
            row.append(Cell(evaluation.name_of(example.index[-1]) if len(example.index) > 1 else NOTHING))
        row.append(Cell(decimal(example.loss)))
        row.append(Cell(_label(evaluation, example.label)))
        row.append(Cell(evaluation.name_of(example.predicted) if exclusive else str(example.predicted)))
        row.append(Cell(percent(example.confidence)))
        rows.append(row)
    caption = t["costliest_caption_exclusive" if exclusive else "costliest_caption_independent"]
    return Table(
        t["costliest"],
        caption + _cut(len(rows), len(evaluation.costliest), t),
        tuple(columns),
        rows,
        empty=t["costliest_none"],
    )


def _label(evaluation: Evaluation, label: float) -> str:
    if not math.isfinite(label):
        return decimal(label)
    return evaluation.name_of(int(label)) if evaluation.exclusive else f"{label:g}"


def _cut(shown: int, all_: int, t: Texts) -> str:
    if shown == all_:
        return ""
    return t["space"] + t["first_of"].format(shown=whole(shown), all=whole(all_))


def confusions_table(evaluation: Evaluation, t: Texts) -> Table | None:
    """Who was taken for whom, and how often."""
    if evaluation.confusion is None:
        return None
    common = evaluation.confusion.common
    columns = (
        Column(t["true_class"], numeric=False, heads=True),
        Column(t["predicted_class"], numeric=False),
        Column(t["times"]),
    )
    rows = [
        [Cell(evaluation.name_of(label)), Cell(evaluation.name_of(predicted)), Cell(whole(times))]
        for label, predicted, times in common[:ROWS]
    ]
    caption = t["confusions_caption"] + _cut(len(rows), len(common), t)
    return Table(t["confusions"], caption, columns, rows, empty=t["confusions_none"])


def histogram_table(evaluation: Evaluation, t: Texts) -> Table:
    """The numbers of the histogram: bins that are not empty."""
    edges, counts = evaluation.histogram.edges, evaluation.histogram.counts
    total = int(counts.sum())
    rows = [
        [Cell(decimal(low)), Cell(decimal(high)), Cell(whole(count)), Cell(percent(count / total))]
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    columns = (Column(t["from"], heads=True), Column(t["to"]), Column(t["count"]), Column(t["share"]))
    return Table(t["histogram"], f"{t['histogram']}. {t['histogram_x']}", columns, rows)


def reliability_table(evaluation: Evaluation, titles: Sequence[str], t: Texts) -> Table:
    """The numbers of both reliability diagrams, one after the other."""
    rows = []
    for title, calibration in zip(titles, (evaluation.calibration, evaluation.calibration_at_temperature), strict=True):
        for i in np.flatnonzero(calibration.counts):
            low, high = calibration.edges[i], calibration.edges[i + 1]
            row = [Cell(title), Cell(f"{percent(low)} – {percent(high)}")]
            row += [Cell(percent(calibration.confidence[i])), Cell(percent(calibration.accuracy[i]))]
            rows.append([*row, Cell(whole(calibration.counts[i]))])
    columns = (
        Column("", numeric=False, heads=True),
        Column(t["reliability_x"], numeric=False),
        Column(t["claimed"]),
        Column(t["came_true"]),
        Column(t["count"]),
    )
    return Table(t["reliability"], t["reliability"], columns, rows)
