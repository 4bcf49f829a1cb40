"""The tables of accuracy.json: Markdown for the docs, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import machine

# The columns; and the names of those that are no library's.
ORDER = ("withlogits", "numpy.softmax", "numpy.logsumexp", "scipy", "torch", "tensorflow", "jax", "scikit-learn")
NAMES = {"numpy.softmax": "NumPy, log(softmax)", "numpy.logsumexp": "NumPy, x − logsumexp"}
LOSSES = {
    "sparse": "sparse softmax",
    "softmax": "softmax, dense labels",
    "sigmoid": "sigmoid",
    "weighted": "sigmoid, `pos_weight`",
}
KINDS = {
    "confident": "one logit far above the others (10 to 700)",
    "uniform": "between −5 and 5",
    "tied": "three different values, each many times",
    "masked": "half of the logits −inf",
    "adversarial": "differences that do not fit the format; where exp leaves the normal numbers",
    "huge": "±1e2 to ±1e38",
    "tiny": "±1e-45 to ±1e-3, and zeros",
    "random": "normal, standard deviation 3",
}

# Rows of this kind have tables of their own: one NaN would hide whatever else a library gets right or wrong.
APART = "masked"

HEAD = """\
The largest error over all rows, in ulp of the true result in the format of the logits. Half an ulp is correct rounding.
1.7e7 = 2²⁴ in float32, or 9.0e15 = 2⁵³ in float64, is 0 where the truth is not 0. "NaN" stands for a NaN, and for an
infinity where the truth is a number. The gradient is looked at wherever the probability is at least 1e-6, and at the
label always.
"""


def markdown(result: dict[str, Any]) -> str:
    """accuracy.md. The pages of the docs include it below a heading of their own: there is no title here."""
    classes = ", ".join(f"{number:,}" for number in result["classes"])
    names = _names(result)
    parts = [
        HEAD,
        f"Softmax rows have {classes} classes. {machine.as_markdown(result['machine'])}\n",
        *_by_loss(result, names),
        "### Sparse softmax in float32, by the kind of row\n",
        *_by_kind(result, names),
        "### The tail\n",
        "What comes back for rows that are nearly certain: the loss, and the gradient by the first logit.\n",
        *_tails(result, names),
        *_absences(result),
    ]
    return "\n".join(parts) + "\n"


def summary(result: dict[str, Any]) -> str:
    """Our own largest errors, for the terminal."""
    worst = _worst(result["errors"], ("dtype", "what", "part"))
    lines = [
        f"{dtype:9} {what:9} {part:9} {_number(error)} ulp"
        for (dtype, what, part, name), error in worst.items()
        if name == "withlogits"
    ]
    return "\n".join(lines)


def _names(result: dict[str, Any]) -> list[str]:
    found = {error["name"] for error in result["errors"]}
    return [name for name in ORDER if name in found]


def _worst(errors: list[dict[str, Any]], by: tuple[str, ...]) -> dict[tuple[str, ...], float | None]:
    """The largest error of each group and library; None (NaN) is larger than any number."""
    found: dict[tuple[str, ...], float | None] = {}
    for error in errors:
        key = (*(error[field] for field in by), error["name"])
        before, now = found.get(key, 0.0), error["ulp"]
        found[key] = None if before is None or now is None else max(before, now)
    return found


def _by_loss(result: dict[str, Any], names: list[str]) -> Iterator[str]:
    apart = [error for error in result["errors"] if error["kind"] == APART]
    others = [error for error in result["errors"] if error["kind"] != APART]
    for dtype in dict.fromkeys(error["dtype"] for error in result["errors"]):
        yield f"### {dtype}\n"
        yield from _table(others, dtype, names)
        yield "With a logit of −inf in every second place (masked classes):\n"
        yield from _table(apart, dtype, names)


def _table(errors: list[dict[str, Any]], dtype: str, names: list[str]) -> Iterator[str]:
    worst = _worst(errors, ("dtype", "what", "part"))
    rows = dict.fromkeys((error["what"], error["part"]) for error in errors if error["dtype"] == dtype)
    yield from _head("", names)
    for what, part in rows:
        title = f"{LOSSES[what]}: {part}" if what in LOSSES else f"`{what}`"
        yield f"| {title} | {' | '.join(_cell(worst, (dtype, what, part, name)) for name in names)} |"
    yield ""


def _by_kind(result: dict[str, Any], names: list[str]) -> Iterator[str]:
    worst = _worst(result["errors"], ("dtype", "what", "kind", "part"))
    yield from _head("logits", names)
    for kind in KINDS:
        for part in ("loss", "gradient"):
            cells = [_cell(worst, ("float32", "sparse", kind, part, name)) for name in names]
            yield f"| {kind}: {part} | {' | '.join(cells)} |"
    yield ""
    yield from (f"- {kind}: {words}" for kind, words in KINDS.items())
    yield ""


def _tails(result: dict[str, Any], names: list[str]) -> Iterator[str]:
    yield from _head("logits, label", ["truth", *names])
    for tail in result["tails"]:
        row, label = tail["logits"][0], tail["labels"][0]
        shown = [f"{value:g}" for value in row]
        title = f"{LOSSES[tail['what']]}, {tail['dtype']}: [{', '.join(shown)}], {label if label != [1.0] else 1}"
        title = title.replace("[0.0]", "0")
        cells = [_pair(tail["truth"]), *(_pair(tail["got"][name]) if name in tail["got"] else "" for name in names)]
        yield f"| {title} | {' | '.join(cells)} |"
    yield ""


def _pair(values: list[float | None]) -> str:
    return ", ".join("NaN" if value is None else f"{value + 0.0:.3g}" for value in values).replace("-", "−")


def _head(first: str, names: list[str]) -> Iterator[str]:
    yield f"| {first} | {' | '.join(NAMES.get(name, name) for name in names)} |"
    yield "|---|" + "---:|" * len(names)


def _cell(worst: dict[tuple[str, ...], float | None], key: tuple[str, ...]) -> str:
    if key not in worst:
        return "–"
    text = _number(worst[key])
    return f"**{text}**" if key[-1] == "withlogits" else text


def _number(error: float | None) -> str:
    if error is None:
        return "NaN"
    if error < 10:
        return f"{error:.2f}"
    return f"{error:,.0f}" if error < 1e5 else f"{error:.1e}".replace("e+0", "e").replace("e+", "e")


def _absences(result: dict[str, Any]) -> Iterator[str]:
    """Who could not do what, one line for each reason; a library that is not installed comes first."""
    reasons: dict[tuple[str, str], set[str]] = {(name, why): {"everywhere"} for name, why in result["missing"].items()}
    for absence in result["absent"]:
        what = LOSSES.get(absence["what"], f"`{absence['what']}`")
        if absence["what"] == "sparse":
            what += f" with C = {absence['classes']:,}"
        reasons.setdefault((absence["name"], absence["why"]), set()).add(f"{what} in {absence['dtype']}")
    if reasons:
        yield "### Absent (–)\n"
    for (name, why), places in reasons.items():
        formats = {place.rsplit(" in ", 1)[-1] for place in places}
        where = "; ".join(sorted(places)) if len(places) <= 4 else f"{len(places)} rows in {', '.join(sorted(formats))}"
        yield f"- **{NAMES.get(name, name)}**, {where}: {why}."
