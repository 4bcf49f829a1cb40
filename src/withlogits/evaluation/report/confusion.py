"""The heat map of confusions: shares of the true class, right and wrong in colours and on scales of their own."""

from __future__ import annotations

import numpy as np

from withlogits.evaluation.report.canvas import COLUMN, NAME_COLUMNS, Plot
from withlogits.evaluation.report.texts import Texts
from withlogits.evaluation.report.words import percent, rows_text, short, spoken, width
from withlogits.evaluation.results import Confusion, Counts, Evaluation

CLASSES = 30  # more would be dust


def confusion_plot(evaluation: Evaluation, confusion: Confusion, t: Texts) -> tuple[Plot, str, str]:
    """A heat map of shares of the true class, and what the deepest colours of right and wrong mean."""
    kept = most_confused(confusion)
    matrix, classes = confusion.matrix[np.ix_(kept, kept)], confusion.classes[kept]
    shares = matrix / np.maximum(_rows_of(evaluation, confusion)[kept], 1)[:, None]
    names = [spoken(evaluation, int(index), t) for index in classes]
    shown = [short(evaluation.name_of(int(index)), NAME_COLUMNS) for index in classes]
    many = len(kept)
    cell = 40 if many <= 6 else 32 if many <= 12 else 24
    longest = max((width(name) for name in shown), default=1)
    upright = longest <= 3
    plot = Plot(
        height=cell * many,
        top=46 if upright else 34 + int(longest * COLUMN * 0.72),
        right=8 if upright else 8 + max(0, int(width(shown[-1]) * COLUMN * 0.72) - 20),
        bottom=6,
        left=max(58, 14 + int(longest * COLUMN)),
    )
    plot.narrow = plot.left + plot.right + many * 62
    plot.wide = plot.left + plot.right + many * (24 if many <= 12 else 18)
    plot.message = _message(evaluation, confusion, t)
    if not matrix.any():
        return plot, percent(0), percent(0)
    right = np.eye(many, dtype=bool)
    scales = {True: float(shares[right].max(initial=0)), False: float(shares[~right].max(initial=0))}
    for i in range(many):
        for j in range(many):
            _cell(plot, i, j, int(matrix[i, j]), float(shares[i, j]), scales[i == j], names, many, cell, t)
    for i, name in enumerate(shown):
        plot.letters(0, cell * (i + 0.5) + 4, name, "tick end", dx="-8")
        if upright:
            plot.letters((i + 0.5) / many, -8, name, "tick middle")
        else:
            plot.letters((i + 0.5) / many, -6, name, "tick turned", dx="6")
    plot.letters(0, 14 - plot.top, t["confusion_predicted"], "name start")
    plot.letters(0, -8, t["confusion_true"], "name end", dx="-8")
    return plot, percent(scales[True]), percent(scales[False])


def _cell(
    plot: Plot,
    i: int,
    j: int,
    count: int,
    share: float,
    most: float,
    names: list[str],
    many: int,
    cell: int,
    t: Texts,
) -> None:
    x = j / many
    if not count:
        plot.rect(x, cell * i, 1 / many, cell, "cell")
        return
    # The letters of a cell stay readable on the deepest colour, which is therefore not the full one.
    depth = 0.08 + 0.62 * share / most if most else 0.0
    text = "confusion_tip_right" if i == j else "confusion_tip"
    tip = t[text].format(label=names[i], predicted=names[j], count=rows_text(count, t), share=percent(share))
    kind = "cell right" if i == j else "cell wrong"
    plot.rect(x, cell * i, 1 / many, cell, kind, tip, **{"fill-opacity": f"{depth:.2f}"})
    if many <= 12:
        plot.letters((j + 0.5) / many, cell * (i + 0.5) + 4, compact(count), "value middle")


def compact(count: int) -> str:
    """A count in at most four characters, for a cell.

    >>> [compact(n) for n in (7, 980, 12345, 999_999, 3_400_000)]
    ['7', '980', '12k', '1M', '3.4M']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if round(count / (size / 1000)) >= 1000 and count >= 1000:
            value = count / size
            return f"{value:.1f}".removesuffix(".0") + letter if value < 9.95 else f"{value:.0f}{letter}"
    return str(count)


def most_confused(confusion: Confusion) -> Counts:
    """The places of at most `CLASSES` classes, those with most confusions, in the order of their numbers."""
    wrong = confusion.matrix - np.diag(np.diag(confusion.matrix))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(order[:CLASSES]).astype(np.int64)


def _rows_of(evaluation: Evaluation, confusion: Confusion) -> Counts:
    """How many rows each class of the matrix has, those taken for a class outside of it too."""
    known = dict(zip(evaluation.per_class.classes.tolist(), evaluation.per_class.support.tolist(), strict=True))
    inside = confusion.matrix.sum(axis=1)
    rows = [
        max(known.get(number, 0), at_least) for number, at_least in zip(confusion.classes.tolist(), inside, strict=True)
    ]
    return np.array(rows, np.int64)


def _message(evaluation: Evaluation, confusion: Confusion, t: Texts) -> str:
    kept = most_confused(confusion)
    total = int(_rows_of(evaluation, confusion)[kept].sum())
    right = int(confusion.matrix[kept, kept].sum())
    if not total:
        return t["confusion_empty"]
    share = percent(right / total)
    if not confusion.common:
        return t["confusion_message_none"].format(right=share)
    label, predicted, count = confusion.common[0]
    return t["confusion_message"].format(
        right=share,
        label=spoken(evaluation, label, t),
        predicted=spoken(evaluation, predicted, t),
        count=rows_text(count, t),
    )
