"""The tables of gpu.json: Markdown for the docs, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import machine, speed_report

# The page of the docs includes these tables below a heading of its own, so there is no title here.
HEAD = """\
Median times of calls made in turns, in one process, until the GPU had the result. A ratio is the time of the other
library over that of withlogits: above 1, withlogits is faster.
"""

NOTES = """\
### Notes

- The loss alone is one value a row. With the gradient it is the mean, and the gradient of the mean.
- Each result was compared with a float64 truth before anything was timed.
- The logits are normal, of standard deviation 3; the labels are random.
- "Bandwidth" relates the bytes that must be read and written once to the bandwidth of a copy of 1 GiB, measured in the
  same run. Loss and gradient read the logits twice, since the upstream gradient is not known before, so their share can
  be two thirds at most.
- Memory is the largest amount of GPU memory that a call took beside its inputs, results included.
"""


def markdown(result: dict[str, Any]) -> str:
    """gpu.md."""
    parts = [
        HEAD,
        f"{result['machine']['card']}; {machine.as_markdown(result['machine'])}\n",
        f"Memory: copying {result['bandwidth_gb_s']['copy']:.0f} GB/s (read and written).\n",
        "### Against the fastest\n",
        *speed_report._overview(result),
        *speed_report._slower(result),
        "### Every ratio\n",
        *speed_report._details(result),
        "### Memory\n",
        *_memory(result),
        NOTES,
        "### How each is called\n",
        *(f"- **{name}** ({peer['version']}): {peer['called']}." for name, peer in result["peers"].items()),
        "\n### Absent\n",
        *speed_report._absences(result),
    ]
    return "\n".join(parts) + "\n"


def summary(result: dict[str, Any]) -> Iterator[str]:
    """For the terminal."""
    rate = result["bandwidth_gb_s"]["copy"]
    yield f"{result['machine']['card']}, copying {rate:.0f} GB/s, {result['seconds']} s in all"
    yield from speed_report._overview(result)


def _memory(result: dict[str, Any]) -> Iterator[str]:
    names = [name for name in result["peers"] if any(name in case["memory_mb"] for case in result["cases"])]
    yield "In MB (1e6 bytes):\n"
    yield f"| | logits | {' | '.join(names)} |"
    yield "|---|" + "---:|" * (len(names) + 1)
    for case in result["cases"]:
        logits = case["shape"][0] * case["shape"][1] * (4 if case["dtype"] == "float32" else 2) / 1e6
        cells = [f"{case['memory_mb'][name]:,.0f}" if name in case["memory_mb"] else "" for name in names]
        yield f"| `{case['key']}` | {logits:,.0f} | {' | '.join(cells)} |"
    yield ""
