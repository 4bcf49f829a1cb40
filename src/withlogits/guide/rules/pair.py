"""How labels and logits go together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from withlogits.guide.findings import Finding
from withlogits.guide.fit import call, finding
from withlogits.guide.rules.common import FEW_ROWS, options_of
from withlogits.statistics.summary import Summary

SURE = 4.0  # standard errors
SURE_ENOUGH = 3.0  # for a note
MANY_ROWS = 256
MANY_CLASSES = 1 << 8
NEGLIGIBLE = 2.0**-24  # of such a mean loss, the probabilities are 1 to the last bit of a float32
MISCALIBRATED = 0.05  # share of the loss that the temperature takes away


def agreement(summary: Summary, axis: int, library: str) -> Iterator[Finding]:
    x, pair = summary.logits, summary.pair
    if x.alike or not pair.counted:
        return
    if summary.kind == "sigmoid":
        inverted = _is_inverted(summary)
        if inverted is not None:
            yield finding("WL303", "warning", inverted, "logits = -logits  # or labels = 1 - labels")
            return
    else:
        permuted = list(_permuted(summary, axis, library))
        yield from permuted
        if permuted:
            return
        stepped = list(_stepped(summary, axis))
        yield from stepped
        if stepped:
            return
        shuffled = list(_shuffled(summary))
        yield from shuffled
        if shuffled:
            return
    yield from _miscalibrated(summary, axis)


def _is_inverted(summary: Summary) -> str | None:
    """Binary: logits and labels go against one another, and the flipped logits cost far less."""
    pair, n = summary.pair, summary.pair.counted
    if n < FEW_ROWS or pair.nan + pair.infinite or summary.options.get("label_smoothing"):
        return None
    if pair.sample.x is None:
        return None
    spread_z, spread_x = pair.z / n - (pair.z / n) ** 2, float(pair.sample.x.var(dtype=np.float64))
    if spread_z <= 0.0 or not spread_x > 0.0:
        return None
    correlation = (pair.zx / n - pair.z / n * pair.x / n) / math.sqrt(spread_z * spread_x)
    # the loss of −x is the loss of x plus (2z − 1)x
    loss = pair.loss / n
    flipped = loss + (2.0 * pair.zx - pair.x) / n
    rate = min(1.0 - 1e-12, max(1e-12, pair.z / n))
    entropy = -rate * math.log(rate) - (1.0 - rate) * math.log(1.0 - rate)
    # an untrained network may be inverted by chance, and is then not sure: its loss stays near that of a constant
    if correlation > -0.3 or correlation * math.sqrt(n) > -SURE or not flipped < 0.7 * loss or loss < 3.5 * entropy:
        return None
    return (
        f"logits and labels go against one another (correlation {correlation:.2f}): the loss is {loss:.4g}, and "
        f"{flipped:.4g} with the sign flipped"
    )


def _permuted(summary: Summary, axis: int, library: str) -> Iterator[Finding]:
    """WL301, and WL303 of two classes: some classes are systematically taken for one another."""
    matrix = summary.pair.matrix
    if matrix is None:
        return
    classes = len(matrix)
    support = matrix.sum(axis=1)
    moved: dict[int, int] = {}
    for true in range(classes):
        row = matrix[true]
        taken = int(np.argmax(row))
        # by chance the largest of a few rows is no evidence: enough rows, most of them on one wrong class, hardly
        # any on its own
        if (
            taken != true
            and support[true] >= 8
            and row[taken] >= 0.6 * support[true]
            and row[true] <= 0.2 * support[true]
        ):
            moved[true] = taken
    # a class that all others are taken for is a majority, not a permutation
    cycles = {t: m for t, m in moved.items() if sum(other == m for other in moved.values()) == 1}
    while True:
        kept = {t: m for t, m in cycles.items() if m in cycles and t in cycles.values()}
        if len(kept) == len(cycles):
            break
        cycles = kept
    if len(cycles) < 2:
        return
    mapping = [cycles.get(c, c) for c in range(classes)]
    total = int(support.sum())
    now = int(np.trace(matrix))
    then = int(matrix[np.arange(classes), mapping].sum())
    share_now, share_then = now / total, then / total
    if share_then < share_now + 0.1:
        return
    evidence = f"{share_now:.1%} of {total:,} rows are right, and {share_then:.1%} if "
    dense = summary.kind == "softmax"
    if classes == 2:
        turn = "labels = 1 - labels"
        yield finding("WL303", "warning", evidence + "the two classes change places", turn)
        return
    names = ", ".join(f"{t} → {m}" for t, m in list(cycles.items())[:12]) + (", …" if len(cycles) > 12 else "")
    if dense and axis != -1:
        fix = "# compare the two lists of class names"
    elif dense:
        inverse = [mapping.index(c) for c in range(classes)]
        fix = f"labels = labels[..., {inverse}]"
    elif library == "torch":
        fix = f"labels = torch.tensor({mapping})[labels]"
    else:
        fix = f"labels = numpy.array({mapping})[labels]"
    yield finding(
        "WL301",
        "warning",
        evidence + f"labels are renumbered {names}",
        fix if classes <= 64 else "# compare the two lists of class names",
    )


def _stepped(summary: Summary, axis: int) -> Iterator[Finding]:
    """WL302."""
    pair = summary.pair
    n = pair.neighbours
    if n < FEW_ROWS or pair.changes < n // 20:
        return  # where labels hardly change, a step makes no difference
    here = pair.in_place / n
    # the cut is along the last axis of the rows: for logits (N, T, C) that is axis 1, for (N, C, T) axis 2
    deep = ", :" if axis == -1 and summary.axis > 0 else ""
    before, behind = (f"[..., {cut}{deep}]" for cut in (":-1", "1:"))
    if summary.kind == "sparse":
        deep = ""
    first, last = (f"[..., {cut}{deep}]" for cut in (":-1", "1:"))
    for name, count, fix in (
        ("the next", pair.ahead, f"logits, labels = logits{before}, labels{last}"),
        ("the previous", pair.behind, f"logits, labels = logits{behind}, labels{first}"),
    ):
        there = count / n
        error = math.sqrt(max(here * (1 - here), there * (1 - there), 1e-4) / n)
        if there - _by_chance(summary) > 0.2 and there - here > max(0.2, SURE * error):
            yield finding(
                "WL302",
                "warning",
                f"predictions agree with {there:.1%} of the labels at {name} step, and with {here:.1%} at their own",
                fix,
            )
            return


def _by_chance(summary: Summary) -> float:
    """How often predictions and labels would agree if neither knew of the other, or at most, if labels are counted."""
    matrix, counts = summary.pair.matrix, summary.labels.counts
    if matrix is not None and matrix.sum():
        total = float(matrix.sum())
        return float((matrix.sum(axis=0) / total) @ (matrix.sum(axis=1) / total))
    if counts is not None and counts.sum():
        return float(counts.max() / counts.sum())
    return 0.0


def _shuffled(summary: Summary) -> Iterator[Finding]:
    """WL305: right by chance alone, and yet sure, and with each class predicted as often as it occurs.

    An untrained model is right by chance too, but it does not know how often each class occurs.
    """
    matrix = summary.pair.matrix
    if matrix is None or matrix.sum() < MANY_ROWS or summary.pair.nan + summary.pair.infinite:
        return
    total = int(matrix.sum())
    occurs, said = matrix.sum(axis=1) / total, matrix.sum(axis=0) / total
    right, chance = float(np.trace(matrix) / total), float(occurs @ said)
    known = occurs[occurs > 0.0]
    guessing = -float((known * np.log(known)).sum())
    loss = summary.pair.loss / summary.pair.counted
    error = math.sqrt(max(chance * (1.0 - chance), 1e-6) / total)
    differs = 0.5 * float(np.abs(occurs - said).sum())
    if abs(right - chance) > SURE_ENOUGH * error or differs > 0.1 or loss < 1.3 * guessing or len(known) < 2:
        return
    yield finding(
        "WL305",
        "warning",
        f"{right:.1%} of {total:,} rows are right, as many as by chance ({chance:.1%}), and yet each class is "
        f"predicted about as often as it occurs, and the loss is {loss:.4g}, where guessing would cost {guessing:.4g}",
        "# bring labels and logits into the same order: one of the two was sorted or shuffled by itself",
    )


def _miscalibrated(summary: Summary, axis: int) -> Iterator[Finding]:
    """WL304."""
    if summary.options.get("label_smoothing") or summary.options.get("temperature", 1.0) != 1.0:
        return
    # one step of Newton's method where more would take longer than the loss of everything: it finds most of the gain
    long = summary.logits.classes > MANY_CLASSES
    fit = summary.pair.sample.fit(1 if long else 8, MISCALIBRATED / 5, np.float32 if long else np.float64, 1e-2)
    if fit is None:
        return
    if fit.loss < NEGLIGIBLE:
        return
    gain = fit.loss - fit.loss_at_temperature
    if gain < MISCALIBRATED * fit.loss or gain < SURE_ENOUGH * fit.gain_error or not math.isfinite(gain):
        return
    if not 1e-3 < fit.temperature < 1e3:
        return  # the sample can be told apart without a mistake, or not at all: no temperature is best
    way = "too sure" if fit.temperature > 1.0 else "not sure enough"
    value = f"{fit.temperature:.3g}"
    yield finding(
        "WL304",
        "note",
        f"the logits are {way}: at temperature {value} the loss falls from {fit.loss:.4g} to "
        f"{fit.loss_at_temperature:.4g} ({gain / fit.loss:.0%}, on {fit.rows:,} "
        + ("elements" if summary.kind == "sigmoid" else "rows")
        + ")",
        f"logits = logits / {value}"
        if summary.kind == "sigmoid"
        else call(summary.kind, **options_of(summary, axis, temperature=value)),
    )
