"""The figures: what is drawn where, and what each of them shows in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from withlogits.evaluation.report.canvas import COLUMN, NAME_COLUMNS, Linear, Logarithmic, Plot, tick_text
from withlogits.evaluation.report.texts import Texts
from withlogits.evaluation.report.words import (
    count_text,
    decimal,
    kind_of,
    percent,
    rows_text,
    short,
    spoken,
    unit_of,
    whole,
    width,
)
from withlogits.evaluation.results import Calibration, Counts, Evaluation, Floats, Histogram

BARS = 20


def quantile(histogram: Histogram, share: float) -> float:
    """The loss below which this share of the losses in the histogram lies; even within a bin. NaN without any."""
    total = int(histogram.counts.sum())
    if not total:
        return math.nan
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    return float(np.interp(share * total, below, histogram.edges))


def histogram_plot(evaluation: Evaluation, guess: float, t: Texts) -> Plot:
    """Bars of counts over the loss, with the mean and the loss of guessing as lines.

    Bins of different widths are drawn of one width, as those of a logarithmic scale are meant to be.
    """
    histogram, unit = evaluation.histogram, t[unit_of(evaluation)]
    plot = Plot(height=200, top=62, right=16, bottom=44, left=58)
    total = int(histogram.counts.sum())
    if total:
        plot.message = t["histogram_message"].format(
            unit=unit,
            median=decimal(quantile(histogram, 0.5), 2),
            high=decimal(quantile(histogram, 0.9), 2),
            mean=decimal(evaluation.loss),
            guess=decimal(guess),
        )
    else:
        plot.message = t["histogram_empty"]
    if evaluation.count > total:
        left_out = count_text(evaluation, evaluation.count - total, t)
        plot.message += t["space"] + t["histogram_left_out"].format(count=left_out)
    if not total:
        return plot
    even = _even(histogram.edges)
    edges, counts = (histogram.edges, histogram.counts) if even else _inhabited(histogram)
    # Most losses of a good model lie in the first of even bins. The few that are large are what one looks for.
    most = int(counts.max())
    steep = even and most > 30 * float(np.median(counts[counts > 0]))
    heights: Linear | Logarithmic = Logarithmic(most) if steep else Linear(0, most)
    plot.down_ticks(heights)
    place = _places(edges)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            tall = max(2.0, plot.height * heights(float(count)))  # what is there is seen
            tip = t["histogram_tip"].format(
                low=decimal(low, 3),
                high=decimal(high, 3),
                count=count_text(evaluation, int(count), t),
                share=percent(count / total),
            )
            left = place(low)
            plot.rect(left, plot.height - tall, place(high) - left, tall, "bar", tip)
    plot.line(0, plot.height, 1, plot.height, "axis")
    if even:
        plot.across_ticks(Linear(float(edges[0]), float(edges[-1])), plot.height)
    else:
        for edge in _round_edges(edges):
            plot.letters(place(edge), plot.height + 18, tick_text(edge), "tick middle")
    plot.letters(0.5, plot.height + 38, t["histogram_x" if even else "histogram_x_log"], "name middle")
    plot.letters(0, -50, t["histogram_y_log" if steep else "histogram_y"].format(unit=unit), "name start", dx="-50")
    rules = [
        (place(value), -30 + 17 * row, t[kind].format(value=decimal(value, 3)), kind)
        for row, (kind, value) in enumerate((("mean", evaluation.loss), ("guess", guess)))
        if edges[0] <= value <= edges[-1]
    ]
    for x, y, _, kind in rules:
        plot.line(x, y - 9, x, plot.height, f"rule {kind}")
    for x, y, text, kind in rules:
        side, gap = ("end", "-6") if x > 0.6 else ("start", "6")
        plot.letters(x, y, text, f"halo {side} {kind}", dx=gap)
    return plot


def _even(edges: Floats) -> bool:
    steps = np.diff(edges)
    return bool(np.allclose(steps, steps[0], rtol=1e-3))


def _inhabited(histogram: Histogram) -> tuple[Floats, Counts]:
    """The bins from the first to the last that is not empty, and one more at each side."""
    used = np.flatnonzero(histogram.counts)
    first, last = max(0, used[0] - 1), min(len(histogram.counts), used[-1] + 2)
    return histogram.edges[first : last + 1], histogram.counts[first:last]


def _round_edges(edges: Floats) -> list[float]:
    """Zero and the powers of ten among them, or a few where there are too many; some of any others."""
    round_ones = [float(x) for x in edges if x == 0 or abs(math.log10(x) - round(math.log10(x))) < 1e-6]
    if len(round_ones) < 2:
        round_ones = [float(f"{x:.2g}") for x in edges[:: max(1, len(edges) // 5)]]
    return round_ones[:: 1 + (len(round_ones) - 1) // 6]


def _places(edges: Floats) -> Any:
    """Where a loss stands, from 0 to 1."""
    if _even(edges):
        return Linear(float(edges[0]), float(edges[-1]))
    shares = np.linspace(0, 1, len(edges))
    return lambda value: float(np.interp(value, edges, shares))


def reliability_plot(evaluation: Evaluation, calibration: Calibration, title: str, t: Texts) -> Plot:
    """What came true over what was claimed, the gap to the diagonal, and below it where the rows lie."""
    kind = kind_of(evaluation)
    plot = Plot(height=240, top=30, right=16, bottom=92, left=46, title=title)
    total = int(calibration.counts.sum())
    if not total:
        plot.message = t["reliability_empty"]
        return plot
    shares = calibration.counts / total
    used = np.flatnonzero(calibration.counts)
    confidence = float((shares * calibration.confidence)[used].sum())
    accuracy = float((shares * calibration.accuracy)[used].sum())
    plot.message = t["reliability_message_" + kind].format(
        confidence=percent(confidence), accuracy=percent(accuracy), error=percent(calibration.error)
    )
    scale = Linear(0, 1)
    plot.down_ticks(scale)
    plot.line(0, plot.height, 1, 0, "ideal")
    places = [
        (float(calibration.confidence[i]), plot.height * (1 - float(calibration.accuracy[i])), int(i)) for i in used
    ]
    for x, y, _ in places:
        plot.line(x, plot.height * (1 - x), x, y, "gap")
    for (x1, y1, _), (x2, y2, _) in pairwise(places):
        plot.line(x1, y1, x2, y2, "curve")
    strip, base = 34, plot.height + 46
    top = float(shares.max())
    for x, y, i in places:
        tip = t["reliability_tip"].format(
            confidence=percent(calibration.confidence[i]),
            accuracy=percent(calibration.accuracy[i]),
            count=count_text(evaluation, int(calibration.counts[i]), t),
        )
        plot.circle(x, y, 4.5, "dot", tip)
        low, high = float(calibration.edges[i]), float(calibration.edges[i + 1])
        tall = max(1.5, strip * shares[i] / top)
        plot.rect(low, base + strip - tall, high - low, tall, "bar quiet", tip)
    plot.line(0, plot.height, 1, plot.height, "axis")
    plot.across_ticks(scale, plot.height)
    plot.line(0, base + strip, 1, base + strip, "axis")
    plot.letters(0, -14, t["reliability_y_" + kind], "name start", dx="-38")
    plot.letters(1, plot.height + 38, t["reliability_x"], "name end")
    return plot


def per_class_plot(evaluation: Evaluation, order: Sequence[int], t: Texts) -> Plot:
    """Bars of the mean loss of the first of these classes, the largest first; an infinite loss fills the width."""
    losses = evaluation.per_class.loss
    chosen = sorted([i for i in order if not math.isnan(losses[i])][:BARS], key=lambda i: -losses[i])
    if not chosen:
        return Plot(height=0, top=0, right=0, bottom=0, left=0, message=t["per_class_figure_none"])
    numbers = [int(evaluation.per_class.classes[i]) for i in chosen]
    names = [spoken(evaluation, number, t) for number in numbers]
    shown = [short(evaluation.name_of(number), NAME_COLUMNS) for number in numbers]
    longest = max(width(name) for name in shown)
    pitch, thick = (36, 22) if len(chosen) <= 12 else (28, 18)
    plot = Plot(height=pitch * len(chosen), top=30, right=64, bottom=6, left=14 + int(longest * COLUMN), narrow=760)
    finite = [float(losses[i]) for i in chosen if math.isfinite(losses[i])]
    scale = Linear(0, max([*finite, 0.0]) or 1.0)
    ends = []
    for row, (i, name) in enumerate(zip(chosen, names, strict=True)):
        loss, middle = float(losses[i]), pitch * (row + 0.5)
        ends.append(scale(loss) if math.isfinite(loss) else 1.0)
        support = int(evaluation.per_class.support[i])
        count = rows_text(support, t) if evaluation.exclusive else t["yes_count"].format(n=whole(support))
        tip = t["per_class_tip"].format(name=name, loss=decimal(loss), count=count)
        plot.letters(0, middle + 4, shown[row], "tick end", dx="-8")
        plot.rect(0, middle - thick / 2, max(ends[-1], 0.002), thick, "bar", tip)
    plot.line(0, 0, 0, plot.height, "axis")
    if math.isfinite(evaluation.loss) and evaluation.loss <= scale.high:
        x = scale(evaluation.loss)
        plot.line(x, -6, x, plot.height, "rule mean")
        side = "end" if x > 0.6 else "start" if x < 0.2 else "middle"
        plot.letters(x, -12, t["mean"].format(value=decimal(evaluation.loss, 3)), f"note {side} mean")
    for row, (i, end) in enumerate(zip(chosen, ends, strict=True)):
        plot.letters(end, pitch * (row + 0.5) + 4, decimal(losses[i], 3), "halo start", dx="6")
    if len(chosen) > 1:
        plot.message = t["per_class_figure_message"].format(
            worst=names[0], high=decimal(losses[chosen[0]]), best=names[-1], low=decimal(losses[chosen[-1]])
        )
    else:
        plot.message = t["per_class_figure_one"].format(worst=names[0], high=decimal(losses[chosen[0]]))
    return plot
