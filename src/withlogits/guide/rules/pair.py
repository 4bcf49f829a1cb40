"""How labels and logits go together."""

from __future__ import annotations

import math

import numpy as np

from withlogits.guide.findings import FEW_ROWS, Finding, finding
from withlogits.guide.lines import LINES
from withlogits.guide.rules.assignment import permutation
from withlogits.guide.rules.common import call_again
from withlogits.guide.rules.performance import class_shares, guessing_loss
from withlogits.statistics.summary import Summary

SURE = 4.0  # standard errors
SURE_ENOUGH = 3.0  # for a note
MANY_ROWS = 256
MANY_CLASSES = 1 << 8
NEGLIGIBLE = 2.0**-24  # of such a mean loss, the probabilities are 1 to the last bit of a float32
MISCALIBRATED = 0.05  # share of the loss that the temperature takes away
SURE_AND_WRONG = 1.3  # of the loss of guessing, an untrained model has less
INFORMED = 0.8  # of the loss of guessing, logits with less have learned something
LEARNED = 0.97  # of the loss of guessing, logits with more have learned nothing


def agreement(summary: Summary, axis: int, library: str) -> list[Finding]:
    """The first of WL301, WL302, WL303, WL305 and WL304 that there is."""
    if summary.logits.alike or not summary.pair.counted:
        return []
    if summary.kind == "sigmoid":
        found = _inverted(summary)
    else:
        guessing = _guessing(summary)
        found = _permuted(summary, axis, library, guessing) or _stepped(summary, axis)
        found = found or _inverted_scores(summary, guessing) or _shuffled(summary, guessing)
    found = found or _miscalibrated(summary, axis)
    return [] if found is None else [found]


def _inverted(summary: Summary) -> Finding | None:
    """WL303 of independent classes: logits and labels disagree, and the flipped logits cost far less."""
    pair, n = summary.pair, summary.pair.counted
    if n < FEW_ROWS or pair.nan + pair.infinite or summary.options.get("label_smoothing") or pair.sample.x is None:
        return None
    rate, loss = pair.z / n, pair.loss / n
    spread = (rate - rate**2) * float(pair.sample.x.var(dtype=np.float64))
    if not spread > 0.0:
        return None
    correlation = (pair.zx / n - rate * pair.x / n) / math.sqrt(spread)
    flipped = loss + (2.0 * pair.zx - pair.x) / n  # the loss of −x is the loss of x plus (2z − 1)x
    entropy = guessing_loss(np.array([[1.0 - rate], [rate]]), {}) or 0.0
    # an untrained network may be inverted by chance, and is then not sure: its loss stays near that of a constant, or
    # its logits go but loosely with the labels
    sure = 2.0 if correlation < -0.8 else 3.5
    if correlation > -0.3 or correlation * math.sqrt(n) > -SURE or not flipped < 0.5 * loss or loss < sure * entropy:
        return None
    costs = f"the loss is {loss:.4g}, and {flipped:.4g} with the sign flipped"
    evidence = f"logits and labels go against one another (correlation {correlation:.2f}): {costs}"
    return finding("WL303", evidence, "logits = -logits  # or labels = 1 - labels")


def _inverted_scores(summary: Summary, guessing: float) -> Finding | None:
    """WL303 of exclusive classes: the negated logits are far better than guessing, and these are worse."""
    pair = summary.pair
    loss, odd = pair.loss / pair.counted, pair.nan + pair.infinite + summary.logits.minus_inf
    if pair.counted < FEW_ROWS or odd or not loss > SURE_AND_WRONG * guessing > 0.0:
        return None
    negated = pair.sample.inverted_loss()
    if not negated < INFORMED * guessing:
        return None
    evidence = (
        f"the loss is {loss:.4g}, and {negated:.4g} with the sign of the logits flipped, where guessing would cost "
        f"{guessing:.4g}"
    )
    return finding("WL303", evidence, "logits = -logits  # they look like distances, or losses")


def _permuted(summary: Summary, axis: int, library: str, guessing: float) -> Finding | None:
    """WL301, and WL303 of two classes: some classes are systematically taken for one another."""
    sure = summary.pair.loss > SURE_AND_WRONG * guessing * summary.pair.counted
    found = permutation(summary.pair, summary.logits.classes, sure)
    if found is None:
        return None
    moved, now, then, total = found
    classes, evidence = summary.logits.classes, f"{now / total:.1%} of {total:,} rows are right, and {then / total:.1%}"
    if classes == 2:
        return finding("WL303", f"{evidence} if the two classes change places", "labels = 1 - labels")
    steps = {new - old for old, new in moved.items()}
    names = ", ".join(f"{t} → {m}" for t, m in list(moved.items())[:12]) + (", …" if len(moved) > 12 else "")
    evidence += f" if labels are renumbered {names}"
    occurring = {t for t in range(classes) if summary.labels.counts is None or summary.labels.counts[t]}
    fix = "# compare the two lists of class names"
    mapping = [moved.get(c, c) for c in range(classes)]
    if summary.kind == "sparse" and len(steps) == 1 and occurring <= set(moved):
        fix = f"labels = labels {'+' if max(steps) > 0 else '-'} {abs(max(steps))}"
        if summary.labels.ignored and summary.ignore_index is not None:
            fix = f"labels = {library}.where(labels == {summary.ignore_index}, labels, {fix.removeprefix('labels = ')})"
    elif sorted(mapping) == list(range(classes)) and classes <= 64:
        if summary.kind == "sparse":
            fix = LINES[library].permuted.format(mapping=mapping)
        elif axis == -1:
            fix = LINES[library].reordered.format(order=[mapping.index(c) for c in range(classes)])
    return finding("WL301", evidence, fix)


def _stepped(summary: Summary, axis: int) -> Finding | None:
    """WL302."""
    pair, n = summary.pair, summary.pair.neighbours
    if n < FEW_ROWS or pair.changes < n // 20:
        return None  # where labels hardly change, a step makes no difference
    here = pair.in_place / n
    # the cut is along the last axis of the rows: for logits (N, T, C) that is axis 1, for (N, C, T) axis 2
    deep = ", :" if axis == -1 and summary.axis > 0 else ""
    label_deep = "" if summary.kind == "sparse" else deep
    for name, count, cut, label_cut in (
        ("the next", pair.ahead, ":-1", "1:"),
        ("the previous", pair.behind, "1:", ":-1"),
    ):
        there = count / n
        error = math.sqrt(max(here * (1 - here), there * (1 - there), 1e-4) / n)
        if there - here > max(0.2, SURE * error) and there - _by_chance(summary) > 0.2:
            own = f"and with {here:.1%} at their own"
            evidence = f"predictions agree with {there:.1%} of the labels at {name} step, {own}"
            fix = f"logits, labels = logits[..., {cut}{deep}], labels[..., {label_cut}{label_deep}]"
            return finding("WL302", evidence, fix)
    return None


def _by_chance(summary: Summary) -> float:
    """How often predictions and labels would agree if neither knew of the other, or at most, if labels are counted."""
    matrix, counts = summary.pair.matrix, summary.labels.counts
    if matrix is not None and matrix.sum():
        total = float(matrix.sum())
        return float((matrix.sum(axis=0) / total) @ (matrix.sum(axis=1) / total))
    if counts is not None and counts.sum():
        return float(counts.max() / counts.sum())
    return 0.0


def _guessing(summary: Summary) -> float:
    """The loss of guessing by how often each class, or yes, occurs; 0 if that was not counted."""
    shares = class_shares(summary)
    return 0.0 if shares is None else guessing_loss(shares, {}) or 0.0


def _shuffled(summary: Summary, guessing: float) -> Finding | None:
    """WL305: right by chance alone, and yet sure, and with each class predicted as often as it occurs.

    An untrained model is right by chance too, but it does not know how often each class occurs.
    """
    matrix, pair = summary.pair.matrix, summary.pair
    if matrix is None or matrix.sum() < MANY_ROWS or pair.nan + pair.infinite:
        return None
    total = int(matrix.sum())
    occurs, said = matrix.sum(axis=1) / total, matrix.sum(axis=0) / total
    right, chance = float(np.trace(matrix) / total), float(occurs @ said)
    loss = pair.loss / pair.counted
    error = math.sqrt(max(chance * (1.0 - chance), 1e-6) / total)
    differs = 0.5 * float(np.abs(occurs - said).sum())
    if abs(right - chance) > SURE_ENOUGH * error or differs > 0.1 or loss < SURE_AND_WRONG * guessing or not guessing:
        return None
    evidence = (
        f"{right:.1%} of {total:,} rows are right, as many as by chance ({chance:.1%}), and yet each class is "
        f"predicted about as often as it occurs, and the loss is {loss:.4g}, where guessing would cost {guessing:.4g}"
    )
    fix = "# bring labels and logits into the same order: one of the two was sorted or shuffled by itself"
    return finding("WL305", evidence, fix)


def _miscalibrated(summary: Summary, axis: int) -> Finding | None:
    """WL304."""
    if summary.options.get("label_smoothing") or summary.options.get("temperature", 1.0) != 1.0:
        return None
    wide = np.float32 if summary.logits.classes > MANY_CLASSES else np.float64
    fit = summary.pair.sample.fit(30, MISCALIBRATED / 5, wide, 1e-2)
    if fit is None or fit.loss < NEGLIGIBLE:
        return None
    shares, guessing = class_shares(summary), _guessing(summary)
    if shares is not None and not guessing:
        return None  # only one answer occurs: the surer, the better
    if guessing and fit.loss_at_temperature > LEARNED * guessing:
        evidence = (
            f"the loss is {fit.loss:.4g}, and {fit.loss_at_temperature:.4g} at the best temperature, where guessing by "
            f"how often each answer occurs costs {guessing:.4g}"
        )
        fix = "# look whether labels and logits are in the same order, and whether the model has learned anything"
        return finding("WL304", evidence, fix, title="no better than guessing")
    gain = fit.loss - fit.loss_at_temperature
    if gain < MISCALIBRATED * fit.loss or gain < SURE_ENOUGH * fit.gain_error or not math.isfinite(gain):
        return None
    if not 1e-3 < fit.temperature < 1e3:
        return None  # the sample can be told apart without a mistake: no temperature is best
    way = "too sure" if fit.temperature > 1.0 else "not sure enough"
    value, independent = f"{fit.temperature:.3g}", summary.kind == "sigmoid"
    falls = f"the loss falls from {fit.loss:.4g} to {fit.loss_at_temperature:.4g} ({gain / fit.loss:.0%}"
    evidence = f"the logits are {way}: at temperature {value} {falls}, on {fit.rows:,} "
    evidence += "elements)" if independent else "rows)"
    fix = f"logits = logits / {value}" if independent else call_again(summary, axis, temperature=value)
    return finding("WL304", evidence, fix)
