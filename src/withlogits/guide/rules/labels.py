"""What the labels are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.arrays import MISSING_MARKS
from withlogits.guide.findings import FEW_ROWS, Finding, call, finding, many
from withlogits.guide.lines import LINES
from withlogits.guide.rules.assignment import confusions
from withlogits.guide.rules.common import are, call_again, share
from withlogits.statistics.accumulated import LabelStatistics
from withlogits.statistics.summary import Summary

Array = NDArray[Any]

IMBALANCE = 50.0
CLEARLY = 0.2  # of the rows
EXPECTED = math.log(20.0)  # the logits themselves give a batch of one class, of which all losses sum to less, 1 in 20
SHUFFLE = "# shuffle the data before it is cut into batches, or look at how labels are read"


def label_rows(summary: Summary, axis: int, library: str) -> Iterator[Finding]:
    """WL203, WL204, WL205 and WL209, or how often each class occurs."""
    z, x = summary.labels, summary.logits
    if not z.rows:
        return
    missing = missing_mark(z)
    if missing is not None and summary.kind == "sigmoid":
        answers = "0 and 1" if z.values <= {0.0, 1.0, missing} else "0 to 1"
        evidence = (
            f"labels are {answers}, and {named(missing)}, which stands for a missing answer and counts as a number"
        )
        yield finding("WL205", evidence, call_again(summary, axis, ignore_index=mark(missing)), title="missing labels")
        return
    if z.odd:
        evidence = f"{many(z.odd, 'label is', 'labels are')} NaN or infinite"
        fix = "# find out where the labels come from; a row without labels gets sample_weight 0"
        yield finding("WL205", evidence, fix, title="labels that are no numbers")
        return
    if z.low < 0.0 or z.top > 1.0:
        yield _scale(summary, library)
        return
    if summary.kind == "softmax" and z.binary == z.rows and z.several:
        sums = {0: z.none, 1: z.one, 2: z.two, "3 or more": z.several - z.two}
        shown = ", ".join(f"{many(n, 'row', 'rows')} with {k} true" for k, n in sums.items() if n)
        evidence = f"all labels are 0 or 1, {shown}: the classes are independent, and softmax makes them share"
        yield finding("WL203", evidence, call("sigmoid"))
    elif summary.kind == "softmax" and z.distributions < z.rows:
        yield _no_distribution(summary, library)
    elif summary.kind == "sigmoid" and x.classes > 1 and z.one == z.rows and z.rows >= FEW_ROWS:
        evidence = f"exactly one class is true in each of {z.rows:,} rows: the classes exclude one another"
        yield finding("WL204", evidence, call("softmax", axis=None if axis == -1 else axis))
    if z.rows < FEW_ROWS or z.binary < z.rows or not x.elements:
        return
    if summary.kind == "sigmoid":
        yield from _balance_of_answers(summary, axis)
    elif z.class_totals is not None and z.distributions == z.rows and x.classes > 1:
        yield from _balance(summary, axis, z.class_totals, f"{z.rows:,} label rows")


def _scale(summary: Summary, library: str) -> Finding:
    """WL209, or WL205 where no other scale is known."""
    z = summary.labels
    if summary.kind == "softmax" and z.low >= 0.0 and z.lowest_sum == z.highest_sum not in (100.0, 255.0):
        fix = LINES[library].normalized.format(axis=summary.axis)
        return finding("WL209", f"every row of labels sums to {z.highest_sum:g}, where 1 is expected: counts", fix)
    rescaled = rescaling(z.low, z.top, z.values)
    if rescaled is not None:
        found, fix = rescaled
        return finding("WL209", f"labels are {found}, where 0 to 1 is expected", fix)
    if summary.kind == "softmax":
        return _no_distribution(summary, library)
    if z.low == z.top:
        evidence = f"all labels are {z.low:g}, where 0 to 1 is expected"
        return finding("WL209", evidence, "# find out what this number stands for")
    evidence = f"labels reach from {z.low:g} to {z.top:g}, where 0 to 1 is expected"
    fix = f"labels = (labels - {z.low:g}) / {z.top - z.low:g}  # if that is what they mean"
    return finding("WL209", evidence, fix)


def missing_mark(z: LabelStatistics) -> float | None:
    """What stands among 0 and 1 for a missing answer: -1, -100, 255, or NaN among numbers from 0 to 1."""
    if z.odd:
        return math.nan if z.odd == z.missing and z.low >= 0.0 and z.top <= 1.0 else None
    if len(z.values) == 3 and z.values > {0.0, 1.0}:
        (other,) = z.values - {0.0, 1.0}
        return other if other in MISSING_MARKS else None
    return None


def mark(missing: float) -> float:
    """The same as an option is written: a whole number, or NaN."""
    return missing if math.isnan(missing) else int(missing)


def named(missing: float) -> str:
    """The same in a text."""
    return "NaN" if math.isnan(missing) else f"{missing:g}"


def rescaling(low: float, top: float, values: set[float]) -> tuple[str, str] | None:
    """What labels beyond [0, 1] look like, and the line that brings them back."""
    if low < 0.0:
        return ("-1 and +1", "labels = (labels + 1) / 2") if values <= {-1.0, 1.0} else None
    for most, least, name in ((255, 100, "bytes"), (100, 10, "per cent")):
        if values <= {0.0, most}:
            return f"0 and {most}", f"labels = labels / {most}"
        if least < top <= most:
            return f"from {low:g} to {top:g}, as {name} are", f"labels = labels / {most}"
    return None


def _no_distribution(summary: Summary, library: str) -> Finding:
    """WL205."""
    z = summary.labels
    if z.negative >= z.rows / 2:  # some negative entries are noise; so many belong to another model's output
        evidence = f"{share(z.negative, z.rows)} label rows have negative entries, down to {z.low:.4g}"
        if z.top <= 0.0:
            evidence += ", and no entry is above 0: they look like logarithms of probabilities"
            return finding("WL205", evidence, f"labels = {library}.exp(labels)")
        evidence += ": they look like logits"
        return finding("WL205", evidence, f"labels = withlogits.softmax(labels, axis={summary.axis})")
    sums = f"sums from {z.lowest_sum:.6g} to {z.highest_sum:.6g}"
    bad = z.rows - z.distributions
    evidence = f"{share(bad, z.rows)} label rows {are(bad)} no distribution: {sums}"
    fix = LINES[library].normalized.format(axis=summary.axis)
    if z.negative:
        evidence += f", {z.negative:,} with negative entries"
        fix = f"{LINES[library].not_negative}; {fix}"
    if z.lowest_sum == 0.0:
        fix += "  # rows of 0 stand for nothing: leave them out"
    return finding("WL205", evidence, fix, severity="error" if z.negative else "warning")


def indices(summary: Summary, axis: int, library: str) -> Iterator[Finding]:
    """WL206 and WL207, or how often each class occurs."""
    y, live = summary.labels, summary.labels.rows - summary.labels.ignored
    if summary.logits.classes == 1:
        return
    if y.first_outside is not None:
        yield _outside(summary, axis, live, library)
    elif not live and y.rows >= FEW_ROWS:
        of = "have sample_weight 0" if summary.ignore_index is None else f"are the ignored {summary.ignore_index}"
        evidence = f"all {y.rows:,} labels {of}: nothing counts, and the loss is 0"
        fix = "# leave such batches out, or look at how the padding is made"
        yield finding("WL213", evidence, fix, title="everything is ignored")
    elif y.counts is not None and live >= FEW_ROWS:
        yield from _balance(summary, axis, y.counts, f"{live:,} labels that count")


def _outside(summary: Summary, axis: int, live: int, library: str) -> Finding:
    """WL206, WL207 and WL209."""
    y, classes, ignored = summary.labels, summary.logits.classes, summary.ignore_index
    where, value = y.first_outside or ((), 0)
    values = sorted(y.outside)
    shown = ", ".join(f"{v} ({many(y.outside[v], 'time', 'times')})" for v in values[:4])
    shown += ", …" if len(values) > 4 else ""
    at = f"labels[{', '.join(map(str, where))}] = {value}" if where else f"the label {value}"
    outside = f"{share(y.outside_rows, live)} labels {are(y.outside_rows)} outside [0, {classes}) for "
    outside += many(classes, "class", "classes")
    evidence = f"{outside}: {shown}; the first is {at}"
    if values == [classes] and y.low >= 1 and not _fits_as_it_is(summary):
        evidence += f"; 0 never occurs and {classes} does: they count from 1"
        moved = f"{library}.where(labels == {ignored}, labels, labels - 1)" if y.ignored else "labels - 1"
        return finding("WL206", evidence, f"labels = {moved}")
    if values == [255] and classes == 2 and y.low == 0 and y.counts is not None and not y.counts[1]:
        evidence = f"{share(y.outside_rows, live)} labels are 255 and the others are 0, for 2 classes: a mask of bytes"
        return finding("WL209", evidence, "labels = labels // 255")
    if len(values) == 1 and (value < 0 or value in (255, classes)) and y.outside_rows < live:
        return finding("WL207", f"{evidence}: it looks like padding", call_again(summary, axis, ignore_index=value))
    fix = "# find out what these values stand for; padding is passed as ignore_index"
    if y.low >= 0:
        fix = f"# the model needs {int(y.top) + 1} outputs, or the labels another numbering"
    return finding("WL206", evidence, fix)


def _fits_as_it_is(summary: Summary) -> bool:
    """Whether the predictions agree with the labels clearly more often than with the labels less 1."""
    true, said, often = confusions(summary.pair)
    here, below = int(often[said == true].sum()), int(often[said == true - 1].sum())
    return bool(here - below > CLEARLY * often.sum())


def _is_expected(summary: Summary) -> bool:
    """Whether the logits themselves expect that only this answer occurs, as in a small batch of a rare class."""
    pair = summary.pair
    return not pair.nan + pair.infinite and pair.loss < EXPECTED


def _balance(summary: Summary, axis: int, counts: Array, what: str) -> Iterator[Finding]:
    """WL213 and WL214 of classes that exclude one another, by how often each occurs."""
    present = np.flatnonzero(counts)
    if len(present) == 1:
        if _is_expected(summary):
            return
        evidence = f"all {what} are class {present[0]}: there is nothing to tell apart"
        yield finding("WL213", evidence, SHUFFLE, title="only one class occurs")
        return
    often = counts[present]
    if often.max() < 100 or often.max() / often.min() < IMBALANCE or "class_weight" in summary.options:
        return
    most, least = present[np.argmax(often)], present[np.argmin(often)]
    evidence = f"class {most} occurs {often.max():,.0f} times and class {least} {often.min():,.0f} times"
    weights = _class_weights(counts, None if summary.kind == "sparse" else axis)
    yield finding("WL214", evidence, call_again(summary, axis, class_weight=weights))


def _class_weights(counts: Array, dense_on: int | None) -> str:
    if len(counts) <= 20:
        balanced = counts.max() / np.maximum(counts, 1)
        return "[" + ", ".join(f"{w:.4g}" for w in balanced.tolist()) + "]"
    if dense_on is None:
        often = f"numpy.bincount(labels.ravel(), minlength={len(counts)})"
    elif dense_on == -1:
        often = f"labels.reshape(-1, {len(counts)}).sum(0)"
    else:
        often = f"numpy.moveaxis(labels, {dense_on}, 0).reshape({len(counts)}, -1).sum(1)"
    return f"{often}.max() / numpy.maximum({often}, 1)"


def _balance_of_answers(summary: Summary, axis: int) -> Iterator[Finding]:
    """WL213 and WL214 of independent classes."""
    yes, elements = summary.labels.positive, summary.logits.elements
    if yes in (0.0, float(elements)):
        if _is_expected(summary):
            return
        evidence = f"all {elements:,} labels are {'1' if yes else '0'}: there is nothing to tell apart"
        yield finding("WL213", evidence, SHUFFLE, title="only one answer occurs")
    elif elements / yes - 1.0 >= IMBALANCE and elements >= 100 and "pos_weight" not in summary.options:
        evidence = f"{share(yes, elements)} labels are true, one in {elements / yes:.3g}"
        yield finding("WL214", evidence, call_again(summary, axis, pos_weight=f"{(elements - yes) / yes:.4g}"))
