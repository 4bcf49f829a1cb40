"""The picture at the end of the demo: one column, large letters, colours that everybody can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from withlogits.demo.story import Exclusive, NotExclusive, Story

# Okabe & Ito, "Color universal design", 2008.
OURS = "#0072B2"
OTHER = "#D55E00"
THIRD = "#E69F00"
INK = "#222222"

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
        figure = Figure(figsize=(9, 25), layout="constrained")
        FigureCanvasAgg(figure)
        parts: Any = figure.subfigures(5, 1, height_ratios=[1, 1.05, 1.75, 1.1, 1.25], hspace=0.03)
        exclusive(parts[0].subplots(), story.exclusive)
        not_exclusive(parts[1].subplots(), story.not_exclusive)
        samples(parts[2], story.not_exclusive)
        tail(parts[3].subplots(), story)
        speed(parts[4].subplots(), story)
        figure.savefig(output, dpi=100, format="png", metadata={"Software": "withlogits"})


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
    lines = []
    for name, field in (("F1", "f1"), ("mean average precision", "mean_average_precision")):
        a, b = getattr(part.sigmoid.scores, field), getattr(part.softmax.scores, field)
        lines.append(f"{name}: sigmoid {a:.1%}, softmax {b:.1%}")
    return "\n".join([*lines, "thresholds tuned on training pictures"])


def samples(part: Any, story: NotExclusive) -> None:
    part.suptitle("Which digits are here?", x=0.02, ha="left", fontsize=18, fontweight="bold")
    grid = part.subplots(2, 4)
    for axes, n in zip(grid.flat, chosen(story, grid.size), strict=True):
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


def chosen(story: NotExclusive, count: int) -> list[int]:
    """Held-out pictures as they come, two for each number of digits, so that none was picked for its answer."""
    many = story.held_out.present.sum(axis=1).astype(int)
    first = [n for k in range(4) for n in np.flatnonzero(many == k)[: count // 4].tolist()]
    return sorted(first, key=lambda n: (first.index(n) % 2, many[n]))


def tail(axes: Any, story: Story) -> None:
    from withlogits.demo.tail import compare

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


def speed(axes: Any, story: Story) -> None:
    timings = story.timings[::-1]
    places = np.arange(len(timings))
    for offset, field, colour, label in ((0.2, "usual", OTHER, "usual NumPy"), (-0.2, "ours", OURS, "withlogits")):
        axes.barh(places + offset, [1000 * getattr(t, field) for t in timings], 0.38, color=colour, label=label)
    for place, timing in zip(places, timings, strict=True):
        text = f"  {timing.ratio:.0f} × faster"
        axes.text(1000 * timing.ours, place - 0.2, text, va="center", color=OURS, fontweight="bold")
    axes.set_yticks(places, [timing.task for timing in timings])
    axes.grid(False, axis="y")
    rows, classes = timings[0].shape
    axes.set(xlabel=f"milliseconds for {rows} × {classes} float32 logits, best round")
    axes.set_title("4  The speed on this machine")
    axes.legend(loc="lower right")
