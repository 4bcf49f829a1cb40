"""The figures: what is drawn where, and what each of them shows in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from withlogits.evaluation.report.svg import COLUMN, WIDTH, Drawing, Plot
from withlogits.evaluation.report.words import Words, compact, decimal, percent, short, whole, width
from withlogits.evaluation.results import Calibration, Confusion, Counts, Evaluation, Floats, Histogram

BARS = 20
CELLS = 30  # classes in the heat map; more would be dust
NAME_COLUMNS = 16  # of the name of a class beside a figure


def finite_edges(histogram: Histogram) -> Floats:
    """Return the edges of the bins, with a last one at infinity replaced by twice the one before."""
    edges = np.array(histogram.edges, np.float64)
    if np.isinf(edges[-1]):
        edges[-1] = 2 * edges[-2]
    return edges


def quantile(histogram: Histogram, share: float) -> float:
    """Return the loss below which this share of the losses in the histogram lies; even within a bin. NaN without any.

    >>> quantile(Histogram(np.array([0.0, 1.0, 4.0, np.inf]), np.array([1, 0, 3])), 0.5)
    5.333333333333333
    """
    total = int(histogram.counts.sum())
    if not total:
        return math.nan
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    place = int(np.searchsorted(below[1:], share * total))
    low, high = finite_edges(histogram)[place : place + 2]
    return float(low + (high - low) * (share * total - below[place]) / histogram.counts[place])


def histogram_plot(guess: float, t: Words) -> Plot:
    """Draw densities over the logarithm of the loss, with the mean and the loss of guessing as lines.

    A bar's height is what its bin has for each doubling of the loss, so that the width of a bin does not matter.
    """
    evaluation, unit = t.evaluation, t.unit
    histogram = evaluation.histogram
    total = int(histogram.counts.sum())
    message = t("histogram_empty")
    if total:
        message = t(
            "histogram_message",
            unit=unit,
            median=decimal(quantile(histogram, 0.5), 2),
            high=decimal(quantile(histogram, 0.9), 2),
            mean=decimal(evaluation.loss),
            guess=decimal(guess),
        )
    if evaluation.count > total:
        left_out = t.count(evaluation.count - total)
        message += t("space") + t("histogram_left_out", count=left_out)
    if not total:
        return Plot(message)
    edges = finite_edges(histogram)
    if edges[0] == 0:
        edges[0] = edges[1] / 2  # on a logarithmic scale 0 lies nowhere
    used = np.flatnonzero(histogram.counts)
    drawing = Drawing(WIDTH - 66, 200, top=62, right=10, bottom=44, left=56, log=True)
    axes = drawing.axes
    axes.set_xlim(edges[max(0, used[0] - 1)], edges[min(len(edges) - 1, used[-1] + 2)])
    density = histogram.counts / np.diff(np.log2(edges))
    axes.set_ylim(0, density.max())
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.grid(axis="y")
    for i in used:
        count = int(histogram.counts[i])
        tip = t(
            "histogram_tip",
            low=decimal(histogram.edges[i], 3),
            high=decimal(histogram.edges[i + 1], 3),
            count=t.count(count),
            share=percent(count / total),
        )
        tall = max(density[i], 0.01 * density.max())  # what is there is seen
        bar = Rectangle((edges[i], 0), edges[i + 1] - edges[i], tall)
        drawing.mark(axes.add_artist(bar), "bar", tip)
    drawing.label(-52, 250, t("histogram_y", unit=unit))
    drawing.text(0.5, 0, t("histogram_x_log"), "name", (0, -38), xycoords="axes fraction", ha="center")
    low, high = axes.get_xlim()
    values = (("mean", evaluation.loss), ("guess", guess))
    rules = [(value, kind, t(kind, value=decimal(value, 3))) for kind, value in values if low <= value <= high]
    pixels = (WIDTH - 66) / math.log(high / low)
    leftward = any(math.log(high / value) * pixels < 6 + width(text) * COLUMN for value, _, text in rules)
    # In this order no line crosses the name of another.
    for row, (value, kind, text) in enumerate(sorted(rules, reverse=leftward)):
        above = 1.15 - 0.085 * row
        (line,) = axes.plot([value, value], [0, (above + 0.03) * density.max()])
        drawing.mark(line, f"rule {kind}")
        at, ha = ((-6, 0), "right") if leftward else ((6, 0), "left")
        drawing.text(value, above * density.max(), text, f"halo {kind}", at, ha=ha)
    return Plot(message, drawing.svg(), widest=WIDTH + 100)


def reliability_plot(calibration: Calibration, title: str, t: Words) -> Plot:
    """Draw what came true over the confidence, the gap to the diagonal, and below it where the rows lie."""
    total = calibration.counts.sum().item()
    if not total:
        return Plot(t("reliability_empty"), title=title)
    shares = calibration.counts / total
    used = np.flatnonzero(calibration.counts)
    confidence, accuracy = calibration.confidence[used], calibration.accuracy[used]
    message = t(
        "reliability_message",
        confidence=percent(float(shares[used] @ confidence)),
        accuracy=percent(float(shares[used] @ accuracy)),
        error=percent(calibration.error),
    )
    drawing = Drawing(WIDTH - 62, 250, top=30, right=16, bottom=94, left=46)
    axes, below = drawing.axes, drawing.add_axes(46, 12, WIDTH - 62, 34)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    below.set(xlim=(0, 1), ylim=(0, shares.max()), xticks=[], yticks=[])
    axes.grid(axis="y")
    drawing.mark(axes.plot([0, 1], [0, 1])[0], "ideal")
    for x, y in zip(confidence, accuracy, strict=True):
        drawing.mark(axes.plot([x, x], [x, y])[0], "gap")
    for ends in pairwise(zip(confidence, accuracy, strict=True)):
        drawing.mark(axes.plot(*zip(*ends, strict=True))[0], "curve")
    for i, x, y in zip(used, confidence, accuracy, strict=True):
        tip = t(
            "reliability_tip", confidence=percent(x), accuracy=percent(y), count=t.count(calibration.counts[i].item())
        )
        drawing.mark(axes.plot([x], [y], "o")[0], "dot", tip)
        low, high = calibration.edges[i : i + 2]
        bar = Rectangle((low, 0), high - low, max(shares[i], 0.04 * shares.max()))
        drawing.mark(below.add_artist(bar), "bar quiet", tip)
    drawing.label(-38, 262, t("reliability_y"))
    drawing.label(0, -40, t("reliability_x"), "right")
    return Plot(message, drawing.svg(), title, widest=WIDTH + 60)


def per_class_plot(order: Sequence[int], t: Words) -> Plot:
    """Draw the mean loss of the first of these classes, the largest first; an infinite loss fills the width."""
    evaluation, each = t.evaluation, t.evaluation.per_class
    known = sorted((i for i in order if not math.isnan(each.loss[i])), key=lambda i: -each.loss[i])
    if not known:
        return Plot(t("per_class_figure_none"))
    worst, best = (t.spoken(int(each.classes[i])) for i in (known[0], known[-1]))
    message = t(
        "per_class_figure_message" if len(known) > 1 else "per_class_figure_one",
        worst=worst,
        high=decimal(each.loss[known[0]]),
        best=best,
        low=decimal(each.loss[known[-1]]),
    )
    first = set([i for i in order if not math.isnan(each.loss[i])][:BARS])
    chosen = [i for i in known if i in first]
    names = [short(evaluation.name_of(int(each.classes[i])), NAME_COLUMNS) for i in chosen]
    left = 14 + max(map(width, names)) * COLUMN
    pitch, thick = (34, 0.62) if len(chosen) <= 12 else (26, 0.66)
    drawing = Drawing(WIDTH - left - 58, pitch * len(chosen), top=30, right=58, bottom=6, left=left)
    axes = drawing.axes
    most = float(max((each.loss[i] for i in chosen if math.isfinite(each.loss[i])), default=0.0)) or 1.0
    axes.set(xlim=(0, most), ylim=(len(chosen) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(chosen)), names)
    drawing.mark(axes.spines["left"], "axis")
    drawing.mark(axes.spines["bottom"], "none")
    if math.isfinite(evaluation.loss) and evaluation.loss <= most:
        drawing.mark(axes.plot([evaluation.loss] * 2, [-0.6, len(chosen) - 0.5])[0], "rule mean")
        ha = "right" if evaluation.loss > 0.6 * most else "left" if evaluation.loss < 0.2 * most else "center"
        text = t("mean", value=decimal(evaluation.loss, 3))
        drawing.text(evaluation.loss, -0.5, text, "mean", (0, 12), ha=ha)
    for row, i in enumerate(chosen):
        loss, support = float(each.loss[i]), each.support[i].item()
        end = min(loss, most)
        count = t.rows(support) if evaluation.exclusive else t("yes_count", n=whole(support))
        name = t.spoken(int(each.classes[i]))
        tip = t("per_class_tip", name=name, loss=decimal(loss), count=count)
        bar = Rectangle((0, row - thick / 2), max(end, 0.002 * most), thick)
        drawing.mark(axes.add_artist(bar), "bar", tip)
        drawing.text(end, row, decimal(loss, 3), "halo", (6, -4))
    return Plot(message, drawing.svg(), widest=WIDTH + 100)


def confusion_plot(confusion: Confusion, t: Words) -> tuple[Plot, str, str]:
    """Draw a heat map of shares of the true class; return what the deepest colours of right and wrong mean too."""
    kept = most_confused(confusion)
    matrix, classes = confusion.matrix[np.ix_(kept, kept)], confusion.classes[kept]
    rows = _rows_of(t.evaluation, confusion)[kept]
    shares = matrix / np.where(rows > 0, rows, 1)[:, None]
    message = _confusion_message(confusion, matrix, rows.sum().item(), t)
    if not matrix.any():
        return Plot(message), percent(0), percent(0)
    names = [t.spoken(int(index)) for index in classes]
    shown = [short(t.evaluation.name_of(int(index)), NAME_COLUMNS) for index in classes]
    many, longest = len(kept), max(map(width, shown))
    cell = 56 if many <= 4 else 36 if many <= 12 else 24
    upright = longest <= 3
    drawing = Drawing(
        cell * many,
        cell * many,
        top=46 if upright else 34 + longest * COLUMN * 0.72,
        right=8 if upright else 8 + max(0, width(shown[-1]) * COLUMN * 0.72 - 20),
        bottom=6,
        left=max(62, 14 + longest * COLUMN),
    )
    axes = drawing.axes
    axes.set(xlim=(0, many), ylim=(many, 0), xticks=[])
    axes.set_yticks(np.arange(many) + 0.5, shown)
    drawing.mark(axes.spines["bottom"], "none")
    right = np.eye(many, dtype=bool)
    scales = {True: float(shares[right].max(initial=0)), False: float(shares[~right].max(initial=0))}
    for i, j in np.ndindex(matrix.shape):
        count, share = matrix[i, j].item(), float(shares[i, j])
        square = axes.add_artist(Rectangle((j, i), 1, 1))
        if not count:
            drawing.mark(square, "cell")
            continue
        # The letters of a cell stay readable on the deepest colour, which is therefore not the full one.
        depth = 0.08 + 0.62 * share / scales[i == j]
        text = "confusion_tip_right" if i == j else "confusion_tip"
        tip = t(text, label=names[i], predicted=names[j], count=t.rows(count), share=percent(share))
        kind = "cell right" if i == j else "cell wrong"
        drawing.mark(square, kind, tip, **{"fill-opacity": f"{depth:.2f}"})
        if many <= 12:
            drawing.text(j + 0.5, i + 0.5, compact(count), "value", (0, -4), ha="center")
    for j, name in enumerate(shown):
        turned = {"ha": "center"} if upright else {"rotation": 45, "rotation_mode": "anchor"}
        drawing.text(j + 0.5, 0, name, "tick", (0 if upright else 4, 8), **turned)
    drawing.label(0, drawing.height - 20, t("confusion_predicted"))
    drawing.text(0, 0, t("confusion_true"), "name", (-8, 8), ha="right")
    widest, narrowest = round(1.2 * drawing.width), round(0.8 * drawing.width)
    plot = Plot(message, drawing.svg(), widest=widest, narrowest=narrowest)
    return plot, percent(scales[True]), percent(scales[False])


def most_confused(confusion: Confusion) -> Counts:
    """Return the places of at most `CELLS` classes, those with most confusions, in the order of their numbers."""
    wrong = confusion.matrix - np.diag(np.diag(confusion.matrix))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(order[:CELLS]).astype(np.int64)


def _rows_of(evaluation: Evaluation, confusion: Confusion) -> Counts | Floats:
    """Return how many rows each class of the matrix has, with those taken for a class outside of it."""
    known = dict(zip(evaluation.per_class.classes.tolist(), evaluation.per_class.support.tolist(), strict=True))
    inside = confusion.matrix.sum(axis=1).tolist()
    pairs = zip(confusion.classes.tolist(), inside, strict=True)
    return np.array([max(known.get(number, 0), at_least) for number, at_least in pairs])


def _confusion_message(confusion: Confusion, matrix: Counts | Floats, rows: float, t: Words) -> str:
    if not rows:
        return t("confusion_empty")
    right = percent(float(np.trace(matrix)) / rows)
    if not confusion.common:
        return t("confusion_message_none", right=right)
    label, predicted, count = confusion.common[0]
    return t(
        "confusion_message",
        right=right,
        label=t.spoken(label),
        predicted=t.spoken(predicted),
        count=t.rows(count),
    )
