"""What the rules share: how many is few, and what a fix repeats of the call."""

from __future__ import annotations

from typing import Any

from withlogits.guide.findings import call
from withlogits.statistics.summary import Summary


def call_again(summary: Summary, axis: int, **more: Any) -> str:
    """The call with its options, as far as a line can show them, and more."""
    options: dict[str, Any] = {} if axis == -1 or summary.kind == "sigmoid" else {"axis": axis}
    if summary.ignore_index is not None:
        options["ignore_index"] = summary.ignore_index
    options |= {name: value for name, value in summary.options.items() if isinstance(value, (int, float))}
    return call(summary.kind, **(options | more))


def share(part: float, whole: float) -> str:
    return f"{part:,.0f} of {whole:,.0f}"


def are(n: float) -> str:
    return "is" if n == 1 else "are"
