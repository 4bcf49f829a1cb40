"""The tables of speed.json: Markdown for the docs, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from . import machine
from .quiet import DISTURBED

TITLES = {
    "sparse": "Sparse softmax",
    "softmax": "Softmax, dense labels",
    "sigmoid": "Sigmoid",
    "weighted": "Sigmoid with `pos_weight`",
}
MODES = {"loss": "loss alone", "loss+gradient": "loss and gradient", "activation": "activation"}
SLOWER = "▼"

# The pages of the docs include these tables below a heading of their own, so there is no title here.
HEAD = """\
Median times of calls made in turns, in one process, until the result was ready. A ratio is the time of the other
library over that of withlogits: above 1, withlogits is faster.
"""

NOTES = """\
### Notes

- A turn is about 20 ms of calls, or one call that takes longer; the order of the turns is shuffled each round. The
  threads of the library before get a pause to fall asleep, and the first of several short calls is not timed.
- Each result was compared with a float64 truth before anything was timed.
- Everyone has the same number of threads; SciPy uses one.
- The inputs lie in each library's own arrays beforehand: normal logits of standard deviation 3; random class indices,
  distributions, or zeros and ones. The loss alone is one value a row (or element). With the gradient it is the mean,
  and the gradient of the mean.
- withlogits is called plainly, with a fresh result each time, and with a buffer for the gradient (`out=`). The ratios
  are those of the plain call.
- "Bandwidth" relates the bytes that must be read and written once to the bandwidth measured in the same run: that of
  reading where only a number a row is written, that of copying otherwise. Arrays of less than some 100 MB lie in
  caches, so that this says little for them, and may pass 100 %.
- In bfloat16 the others return a bfloat16 loss, of two or three digits. withlogits returns float32.
"""


def markdown(result: dict[str, Any]) -> str:
    """speed.md."""
    rates = result["bandwidth_gb_s"]
    memory = (
        f"Memory: reading {rates['read']:.1f} GB/s, copying {rates['copy']:.1f} GB/s (read and written; "
        f"{rates['copyto']:.1f} by `numpy.copyto`)."
    )
    parts = [
        HEAD,
        machine.as_markdown(result["machine"]) + "\n",
        memory + "\n",
        *_disturbed(result),
        "### Against the fastest\n",
        *_overview(result),
        *_slower(result),
        "### Every ratio\n",
        *_details(result),
        NOTES,
        "### How each is called\n",
        *(f"- **{name}** ({peer['version']}): {peer['called']}." for name, peer in result["peers"].items()),
        "\n### Absent\n",
        *_absences(result),
    ]
    return "\n".join(parts) + "\n"


def show(result: dict[str, Any], console: Console) -> None:
    """The ratios to the fastest peer, on the terminal."""
    sizes, rows = _fastest(result)
    table = Table(title="withlogits against the fastest of the others (× faster)", title_justify="left")
    table.add_column("")
    for size in sizes:
        table.add_column(size, justify="right")
    for name, cells in rows:
        table.add_row(name.replace("`", ""), *(_in_colour(cells.get(size)) for size in sizes))
    console.print(table)
    rates = result["bandwidth_gb_s"]
    for line in _disturbed(result):
        console.print(line.replace("**", ""))
    console.print(f"read {rates['read']:.1f} GB/s, copy {rates['copy']:.1f} GB/s, {result['seconds']} s in all")


def _in_colour(cell: tuple[float, str] | None) -> str:
    if cell is None:
        return ""
    ratio, peer = cell
    colour = "red" if ratio < 1 else "yellow" if ratio < 1.1 else "green"
    return f"[{colour}]{_ratio(ratio)}[/] {peer}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 20 else f"{ratio:.1f}×" if ratio >= 1.995 else f"{ratio:.2f}×"


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.4f}"


def _label(case: dict[str, Any]) -> str:
    if case["mode"] == "activation":
        return f"`{case['what']}(x)`, {case['dtype']}"
    return f"{TITLES[case['what']]}, {MODES[case['mode']]}, {case['dtype']}"


def _size(case: dict[str, Any]) -> str:
    return "{:,} × {:,}".format(*case["shape"])


def _fastest(result: dict[str, Any]) -> tuple[list[str], list[tuple[str, dict[str, tuple[float, str]]]]]:
    """The sizes, and for each loss, mode and format the smallest ratio at each of them with the peer whose it is."""
    sizes = list(dict.fromkeys(_size(case) for case in result["cases"]))
    rows: dict[str, dict[str, tuple[float, str]]] = {}
    for case in sorted(result["cases"], key=_order):
        ratios = [(times["ratio"], name) for name, times in case["peers"].items() if "ratio" in times]
        rows.setdefault(_label(case), {})
        if ratios:
            rows[_label(case)][_size(case)] = min(ratios)
    return sizes, list(rows.items())


def _order(case: dict[str, Any]) -> tuple[Any, ...]:
    """Losses before activations; float32 before bfloat16; then as they came (the sort is stable)."""
    names = list(TITLES)
    loss = names.index(case["what"]) if case["mode"] != "activation" else len(names)
    return (
        case["mode"] == "activation",
        case["dtype"] != "float32",
        loss,
        case["mode"],
        case["what"] if loss > 3 else "",
    )


def _disturbed(result: dict[str, Any]) -> Iterator[str]:
    cases = [case for case in result["cases"] if (case.get("others") or 0.0) > DISTURBED]
    if cases:
        worst, names = max(case["others"] for case in cases), [case["key"] for case in cases]
        yield (
            f"**Not to be trusted**: other processes took more than {DISTURBED:.0%} of the cores (up to {worst:.0%}) "
            f"while {len(names)} of the {len(result['cases'])} rows were timed: "
            f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''}.\n"
        )


def _overview(result: dict[str, Any]) -> Iterator[str]:
    sizes, rows = _fastest(result)
    yield "The smallest of the ratios, and whose it is:\n"
    yield f"| | {' | '.join(sizes)} |"
    yield "|---|" + "---:|" * len(sizes)
    for name, cells in rows:
        texts = [_marked(*cells[size]) if size in cells else "" for size in sizes]
        yield f"| {name} | {' | '.join(texts)} |"
    yield ""


def _marked(ratio: float, peer: str) -> str:
    return f"{_ratio(ratio)} {peer}" if ratio >= 1 else f"**{_ratio(ratio)} {SLOWER}** {peer}"


def _slower(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        f"- {_label(case)}, {_size(case)}: {_ratio(times['ratio'])} {name} (minima: {_ratio(times['ratio_of_minima'])})"
        for case in sorted(result["cases"], key=_order)
        for name, times in case["peers"].items()
        if times.get("ratio", 1.0) < 1.0
    ]
    if not rows:
        yield "No ratio is below 1.\n"
        return
    yield f"Where withlogits is slower ({SLOWER} in the tables):\n"
    yield from rows
    yield ""


def _details(result: dict[str, Any]) -> Iterator[str]:
    yield "In brackets: median and minimum in milliseconds.\n"
    for label, group in groupby(sorted(result["cases"], key=_order), key=_label):
        cases = list(group)
        # A peer that is absent from every row of the table has its reason in the list below.
        names = [
            name
            for name in result["peers"]
            if any("absent" not in case["peers"].get(name, {"absent": ""}) for case in cases)
        ]
        reused = any(case["reused"] for case in cases)
        heads = ["N × C", "withlogits, ms", *(["with `out=`, ms"] if reused else []), "bandwidth", *names]
        yield f"#### {label}\n"
        yield f"| {' | '.join(heads)} |"
        yield "|---|" + "---:|" * (len(heads) - 1)
        for case in cases:
            cells = [_size(case), _ours(case["ours"]), *([_ours(case["reused"])] if reused else []), _share(case)]
            cells += [_theirs(case["peers"].get(name, {})) for name in names]
            yield f"| {' | '.join(cells)} |"
        yield ""


def _ours(times: dict[str, Any]) -> str:
    if "median_ms" not in times:
        return "WRONG: " + times["wrong"] if "wrong" in times else times.get("absent", "")
    return f"{_milliseconds(times['median_ms'])} ({_milliseconds(times['minimum_ms'])})"


def _share(case: dict[str, Any]) -> str:
    """The share of the plain call, and of the one with `out=` where there is one."""
    shares = [times["share"] for times in (case["ours"], case["reused"]) if "share" in times]
    return f"{' / '.join(f'{share:.0%}' for share in shares)} of {case['share_of']}" if shares else ""


def _theirs(times: dict[str, Any]) -> str:
    if "wrong" in times:
        return "wrong"
    if "ratio" not in times:
        return "absent" if "absent" in times else ""
    ratio = _ratio(times["ratio"])
    ratio = f"**{ratio} {SLOWER}**" if times["ratio"] < 1 else f"**{ratio}**"
    return f"{ratio} ({_milliseconds(times['median_ms'])}, {_milliseconds(times['minimum_ms'])})"


def _absences(result: dict[str, Any]) -> Iterator[str]:
    """Who is missing where and why, one line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {(name, why): ["everywhere"] for name, why in result["absent"].items()}
    for case in result["cases"]:
        for name, times in case["peers"].items():
            why = times.get("absent") or (f"wrong: {times['wrong']}" if "wrong" in times else "")
            if why and name not in result["absent"]:
                where = _label(case) if "absent" in times else f"{_label(case)}, {_size(case)}"
                places = reasons.setdefault((name, why), [])
                if where not in places:
                    places.append(where)
    for (name, why), places in reasons.items():
        yield f"- **{name}**, {_shortened(places)}: {why}."
    if not reasons:
        yield "Nobody."


def _shortened(places: list[str]) -> str:
    if len(places) <= 4:
        return "; ".join(places)
    formats = {place.rsplit(", ", 1)[-1] for place in places}
    return f"in {len(places)} tables" + (f", all of {formats.pop()}" if len(formats) == 1 else "")
