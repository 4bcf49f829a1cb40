"""The picture at the end of the demo: one column, large letters, colours safe for colour-blind readers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from withlogits.demo.tail import compare
from withlogits.evaluation.output import open_output

if TYPE_CHECKING:
    from withlogits.demo.results import Exclusive, NotExclusive, Story
    from withlogits.demo.speed import Timing

# Okabe & Ito, "Color universal design", 2008.
OURS = "#0072B2"
OTHER = "#D55E00"
THIRD = "#E69F00"
INK = "#222222"

SHOWN = {0: 1, 1: 1, 2: 3, 3: 3}  # pictures by their number of digits

STYLE: Any = {
    "font.size": 15,
    "axes.titlesize": 18,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.color": INK,
    "lines.linewidth": 2.5,
    "figure.facecolor": "white",
}


def draw(story: Story, output: Path) -> None:
    """Write the picture as a PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 23), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        FigureCanvasAgg(figure)
        parts: Any = figure.subfigures(5, 1, height_ratios=[1, 1.05, 1.8, 1.1, 1.4])
        exclusive(parts[0].subplots(), story.exclusive)
        not_exclusive(parts[1].subplots(), story.not_exclusive)
        samples(parts[2], story.not_exclusive)
        tail(parts[3].subplots())
        speed(parts[4].subplots(), story.timings)
        with open_output(output) as stream:
            figure.savefig(stream, dpi=120, format="png", metadata={"Software": "withlogits"})


def exclusive(axes: Any, part: Exclusive) -> None:
    steps = np.arange(1, len(part.sparse) + 1)
    axes.plot(steps, part.softmax, color=THIRD, linewidth=6, label="softmax, one-hot labels")
    axes.plot(steps, part.sparse, color=OURS, linewidth=1.5, label="sparse softmax, labels 0 to 9")
    axes.set_yscale("log")
    axes.set(xlabel="batch", ylabel="loss (nats)")
    same = "the same loss to the last bit" if part.same else "NOT the same loss"
    axes.set_title(f"1  One digit: {same}")
    axes.legend(title=f"{part.accuracy:.1%} of held-out digits right")


def not_exclusive(axes: Any, part: NotExclusive) -> None:
    for asked, colour, marker in ((part.sigmoid, OURS, "o"), (part.softmax, OTHER, "s")):
        axes.plot(asked.steps, [100 * share for share in asked.exact], color=colour, marker=marker, label=asked.loss)
        text = f"{asked.loss} {asked.scores.exact:.1%}"
        axes.annotate(
            text, (asked.steps[-1], 100 * asked.exact[-1]), xytext=(0, -24 if asked is part.softmax else 10),
            textcoords="offset points", ha="right", color=colour, fontweight="bold",
        )  # fmt: skip
    axes.set(xlabel="batch", ylabel="sets exactly right (%)", ylim=(0, 100))
    axes.set_title("2  None to three digits: held-out pictures")
    axes.text(0.98, 0.05, gains(part), transform=axes.transAxes, ha="right", va="bottom", fontsize=13)


def gains(part: NotExclusive) -> str:
    a, b = part.sigmoid, part.softmax
    lines = [
        f"F1: sigmoid {a.scores.f1:.1%}, softmax {b.scores.f1:.1%}",
        f"mean average precision: {a.scores.mean_average_precision:.1%}, {b.scores.mean_average_precision:.1%}",
        "thresholds tuned on training pictures;",
        f"left at 1/2, sets right: {a.at_half.exact:.1%}, {b.at_half.exact:.1%}",
    ]
    return "\n".join(lines)


def samples(part: Any, story: NotExclusive) -> None:
    part.suptitle("Which digits are here?", x=0.02, ha="left", fontsize=18, fontweight="bold")
    for axes, n in zip(part.subplots(2, 4).flat, chosen(story), strict=True):
        axes.imshow(story.held_out.images[n], cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)
        true = story.held_out.present[n] > 0
        axes.set_title(f"true: {digits_of(true)}", fontsize=15, loc="center", fontweight="normal")
        for line, (asked, colour) in enumerate(((story.sigmoid, OURS), (story.softmax, OTHER))):
            said = asked.probabilities[n] > asked.threshold
            verdict = "✓" if (said == true).all() else "✗"
            axes.text(
                0.5, -0.08 - 0.15 * line, f"{asked.loss}: {digits_of(said)} {verdict}",
                transform=axes.transAxes, ha="center", va="top", color=colour, fontweight="bold",
            )  # fmt: skip


def digits_of(present: Any) -> str:
    return " ".join(map(str, np.flatnonzero(present))) or "none"


def chosen(story: NotExclusive) -> list[int]:
    """Return the first held-out pictures with so many digits, whatever was predicted for them."""
    many = story.held_out.present.sum(axis=1)
    return [n for digits, count in SHOWN.items() for n in np.flatnonzero(many == digits)[:count].tolist()]


def tail(axes: Any) -> None:
    margins = np.arange(121, dtype=np.float32) / 4
    rows = compare([((margin, 0.0, 0.0), 0) for margin in margins])
    usual = np.array([row.shifted for row in rows])
    axes.plot(margins, [row.truth for row in rows], color=INK, linewidth=7, alpha=0.25, label="truth")
    axes.plot(margins, [row.ours for row in rows], color=OURS, label="withlogits")
    axes.plot(margins, np.where(usual > 0, usual, np.nan), color=OTHER, linestyle="--", label="logsumexp − x")
    zero = margins[np.flatnonzero(usual <= 0)[0]]
    axes.axvspan(zero, margins[-1], color=OTHER, alpha=0.1, linewidth=0)
    axes.text(
        margins[-1] - 0.3, 0.3, f"usual formula: exactly 0\nfrom {zero:.3g} on", color=OTHER, ha="right", va="center"
    )
    axes.set_yscale("log")
    axes.set(xlabel="x in logits [x, 0, 0], label 0, float32", ylabel="loss (nats)", xlim=(0, margins[-1]))
    axes.set_title("3  The tail: what a sure network still has to learn")
    axes.legend(loc="lower left")


def speed(axes: Any, timings: list[Timing]) -> None:
    timings = timings[::-1]
    places = np.arange(len(timings))
    for place, timing in zip(places, timings, strict=True):
        for offset, seconds, colour, text in (
            (0.2, timing.usual, OTHER, f"usual NumPy {1000 * timing.usual:.3g} ms"),
            (-0.2, timing.ours, OURS, f"withlogits {1000 * timing.ours:.3g} ms: {timing.ratio:.1f} × as fast"),
        ):
            axes.barh(place + offset, 1000 * seconds, 0.38, color=colour)
            axes.text(1000 * seconds, place + offset, f" {text}", va="center", color=colour, fontweight="bold")
    longest = 1000 * max(max(timing.usual, timing.ours) for timing in timings)
    axes.set_yticks(places, [timing.task for timing in timings])
    axes.grid(False, axis="y")
    rows, classes = timings[0].shape
    axes.set(xlabel=f"milliseconds for {rows} × {classes} float32 logits, best round", xlim=(0, 1.6 * longest))
    axes.set_title("4  The speed on this machine")
