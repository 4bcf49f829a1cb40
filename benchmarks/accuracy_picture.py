"""accuracy.png: the error of a confident row's loss as it grows more certain, and of the gradient on hard rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .accuracy_report import KINDS, NAMES
from .speed_picture import LOOK, OURS

STYLE = {
    "withlogits": (OURS, "*"),
    "numpy.softmax": ("#56B4E9", "<"),
    "numpy.logsumexp": ("#B8A000", ">"),
    **LOOK,
}
# What a float32 result of 0 costs where the truth is not 0; every error at or beyond it is drawn here.
LOST, FLOOR = 2.0**24, 0.05


def draw(result: dict[str, Any], path: Path) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.6), sharey=True, layout="constrained", width_ratios=(1.0, 1.15)
    )
    _margins(left, result["margins"])
    _kinds(right, result["errors"])
    left.set_ylabel("error of the float32 result, ulp", fontsize=9)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(
        handles, labels, ncols=len(labels), loc="outside upper center", frameon=False, fontsize=8.5, handletextpad=0.2
    )
    described = result["machine"]
    versions = ", ".join(
        f"{name} {described['versions'][name]}"
        for name in ("numpy", "scipy", "torch", "tensorflow", "tensorflow-cpu", "jax", "optax", "scikit-learn")
        if name in described["versions"]
    )
    figure.text(
        0.005, -0.005, f"Truth: mpmath. {versions}. {described['date']}.", fontsize=7.5, color="#555555", va="top"
    )
    figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def _margins(axes: Axes, margins: dict[str, Any]) -> None:
    axes.set_title("loss of logits [d, 0, 0], label 0", loc="left", fontsize=10, fontweight="bold")
    _axes(axes)
    for i, (name, errors) in enumerate(margins["ulp"].items()):
        colour, marker = STYLE[name]
        values = [_drawn(error) for error in errors]
        ours = name == "withlogits"
        # The libraries coincide for the most part: staggered markers show that there is more than one.
        axes.plot(
            margins["margin"],
            values,
            color=colour,
            marker=marker,
            markevery=(i, len(margins["ulp"])),
            markersize=8 if ours else 5.5,
            linewidth=2.2 if ours else 1.2,
            zorder=4 if ours else 3,
        )
    axes.set_xlabel("d: how far the right logit is above the others", fontsize=9)
    axes.text(31, LOST / 5, "0 instead of the loss:\nno digit is left", fontsize=8.5, color="#555555", va="top")


def _kinds(axes: Axes, errors: list[dict[str, Any]]) -> None:
    axes.set_title("largest error of loss or gradient, sparse softmax", loc="left", fontsize=10, fontweight="bold")
    _axes(axes)
    chosen = [error for error in errors if error["dtype"] == "float32" and error["what"] == "sparse"]
    kinds = [kind for kind in KINDS if any(error["kind"] == kind for error in chosen)]
    names = [name for name in STYLE if any(error["name"] == name for error in chosen)]
    for i, name in enumerate(names):
        worst = [
            max(_drawn(error["ulp"]) for error in chosen if error["kind"] == kind and error["name"] == name)
            for kind in kinds
        ]
        colour, marker = STYLE[name]
        aside = 0.0 if name == "withlogits" else (i - (len(names) - 1) / 2) * 0.09
        axes.plot(
            np.arange(len(kinds)) + aside,
            worst,
            linestyle="",
            color=colour,
            marker=marker,
            markersize=11 if name == "withlogits" else 6.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=NAMES.get(name, name),
            zorder=4 if name == "withlogits" else 3,
        )
    axes.set_xticks(range(len(kinds)), kinds, fontsize=8.5)
    axes.set_xlabel("kind of logits", fontsize=9)


def _drawn(error: float | None) -> float:
    """NaN and what lies beyond the picture stand on its edges."""
    return LOST if error is None else min(max(error, FLOOR), LOST)


def _axes(axes: Axes) -> None:
    axes.set_yscale("log", base=10)
    axes.set_ylim(FLOOR / 1.6, LOST * 4)
    axes.axhspan(FLOOR / 2, 1.0, color="#E8F1EC", zorder=0)
    axes.grid(axis="y", color="#EBEBEB", linewidth=0.7, zorder=0)
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
