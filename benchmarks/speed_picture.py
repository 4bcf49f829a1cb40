"""speed.png: each library's time over ours, for every size, the loss alone and with its gradient, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

ROWS = {"sparse": "sparse softmax", "softmax": "softmax, dense labels", "sigmoid": "sigmoid"}
COLUMNS = {"loss": "loss alone", "loss+gradient": "loss and gradient"}

# Colours of Okabe and Ito, told apart by the colour-blind, and a shape each for those who print in black.
LOOK = {
    "torch": ("#D55E00", "o"),
    "torch.compile": ("#E69F00", "D"),
    "tensorflow": ("#0072B2", "^"),
    "jax": ("#009E73", "s"),
    "scikit-learn": ("#CC79A7", "v"),
    "scipy": ("#7A7A7A", "X"),
}
OURS, SLOWER = "#222222", "#F3E3DC"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what there is; a run of part of the cases gives part of the panels."""
    cases = [case for case in result["cases"] if case["dtype"] == "float32" and case["mode"] in COLUMNS]
    names = [name for name in LOOK if any("ratio" in case["peers"].get(name, {}) for case in cases)]
    rows = [what for what in ROWS if any(case["what"] == what for case in cases)]
    columns = [mode for mode in COLUMNS if any(case["mode"] == mode for case in cases)]
    if not rows:
        return
    sizes = max(
        sum(case["what"] == what and case["mode"] == mode for case in cases) for what in rows for mode in columns
    )
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(0.6 + 5.2 * len(columns), 1.5 + (0.55 + 0.3 * sizes) * len(rows)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    ratios = [times["ratio"] for case in cases for times in case["peers"].values() if "ratio" in times]
    limits = (min(0.75, min(ratios) / 1.3), max(ratios) * 1.3)
    for i, what in enumerate(rows):
        for j, mode in enumerate(columns):
            chosen = [case for case in cases if case["what"] == what and case["mode"] == mode]
            if not chosen:
                grid[i][j].set_axis_off()
                continue
            _panel(grid[i][j], chosen, names, limits)
            grid[i][j].set_title(f"{ROWS[what]}, {COLUMNS[mode]}", loc="left", fontsize=10, fontweight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("time of the other library ÷ time of withlogits (log scale)", fontsize=9)
    line = Line2D([], [], color=OURS, linewidth=1.6, label="withlogits")
    handles = [line, *(_handle(name) for name in names)]
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center", frameon=False)
    described = result["machine"]
    figure.text(
        0.005,
        -0.005,
        f"float32 logits N × C, our median beside them. {described['threads']} threads, {described['cpu']}, "
        f"{described['date']}. Right of the line withlogits is faster.",
        fontsize=7.5,
        color="#555555",
        va="top",
    )
    figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def _panel(axes: Axes, cases: list[dict[str, Any]], names: list[str], limits: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.axvspan(limits[0], 1.0, color=SLOWER, zorder=0)
    axes.axvline(1.0, color=OURS, linewidth=1.6, zorder=2)
    for y, case in enumerate(cases):
        found = {name: case["peers"][name]["ratio"] for name in names if "ratio" in case["peers"].get(name, {})}
        if not found:
            continue
        axes.plot([min(1.0, *found.values()), max(found.values())], [y, y], color="#D0D0D0", linewidth=1.0, zorder=1)
        for name, ratio in found.items():
            colour, marker = LOOK[name]
            axes.plot(
                ratio, y, marker, color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=0.6, zorder=3
            )
    axes.set_yticks(range(len(cases)), [_label(case) for case in cases], fontsize=8.5)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color="#EBEBEB", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _tick(ratio: float, _: int) -> str:
    """Beyond 10 only the powers are written: the others would touch."""
    return f"{ratio:g}×" if ratio <= 10 or f"{ratio:g}".startswith("1") else ""


def _label(case: dict[str, Any]) -> str:
    milliseconds = case["ours"].get("median_ms")
    size = "{:,} × {:,}".format(*case["shape"])
    return size if milliseconds is None else f"{size}   {_time(milliseconds)}"


def _time(milliseconds: float) -> str:
    if milliseconds < 0.995:
        return f"{milliseconds * 1e3:.0f} µs"
    return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"


def _handle(name: str) -> Line2D:
    colour, marker = LOOK[name]
    return Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7, label=name)
