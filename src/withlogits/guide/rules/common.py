"""What the rules share: how many is few, and what a fix repeats of the call."""

from __future__ import annotations

from typing import Any

from withlogits.statistics.summary import Summary

FEW_ROWS = 16  # by chance, a batch of so few may hold one class, or rows that are alike


def options_of(summary: Summary, axis: int, **more: Any) -> dict[str, Any]:
    """Those of the call, as far as a line can show them, and more."""
    options: dict[str, Any] = {} if axis == -1 or summary.kind == "sigmoid" else {"axis": axis}
    if summary.ignore_index is not None:
        options["ignore_index"] = summary.ignore_index
    return options | {k: v for k, v in summary.options.items() if isinstance(v, (int, float))} | more


def share(part: float, whole: float) -> str:
    return f"{part:,.0f} of {whole:,.0f}"
