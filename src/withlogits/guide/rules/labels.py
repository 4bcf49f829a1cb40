"""What the labels are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.findings import Finding
from withlogits.guide.fit import call, finding
from withlogits.guide.rules.common import FEW_ROWS, options_of, share
from withlogits.statistics.summary import Summary

Array = NDArray[Any]

PADDINGS = (-1, -100, 255)
IMBALANCE = 50.0


def label_rows(summary: Summary, axis: int) -> Iterator[Finding]:
    z, x = summary.labels, summary.logits
    if not z.rows:
        return
    sums = {k: n for k, n in enumerate((z.none, z.one, z.two, z.several - z.two)) if n}
    shown = ", ".join(f"{n:,} rows with {'3 or more' if k == 3 else k} true" for k, n in sums.items())
    if z.odd:
        yield finding(
            "WL205",
            "error",
            f"{z.odd:,} labels are NaN or infinite",
            "# find out where the labels come from",
            "labels that are no numbers",
        )
        return
    if z.low < 0.0 or z.top > 1.0:
        rescaled = rescaling(z.low, z.top, z.values)
        if rescaled is not None:
            values, fix = rescaled
            yield finding("WL209", "error", f"labels are {values}, where 0 to 1 is expected", fix)
        elif summary.kind == "sigmoid":
            yield finding(
                "WL209",
                "error",
                f"labels reach from {z.low:g} to {z.top:g}, where 0 to 1 is expected",
                f"labels = (labels - {z.low:g}) / {z.top - z.low:g}  # if that is what they mean",
            )
        else:
            yield _no_distribution(summary)
        return
    if summary.kind == "softmax":
        if z.binary == z.rows and z.several:
            yield finding(
                "WL203",
                "error",
                f"all labels are 0 or 1, {shown}: the classes are independent, and softmax makes them share",
                call("sigmoid"),
            )
        elif z.distributions < z.rows:
            yield _no_distribution(summary)
    elif x.classes > 1 and z.one == z.rows and z.rows >= FEW_ROWS:
        yield finding(
            "WL204",
            "warning",
            f"exactly one class is true in each of {z.rows:,} rows: the classes exclude one another",
            call("softmax", **({} if axis == -1 else {"axis": axis})),
        )
    yield from _counts_of_rows(summary, axis)


def _no_distribution(summary: Summary) -> Finding:
    z = summary.labels
    off = z.rows - z.distributions
    negative = f", {z.negative:,} with negative entries" if z.negative else ""
    serious = z.negative > 0 or z.highest_sum > 1.5 or z.lowest_sum < 0.5
    return finding(
        "WL205",
        "error" if z.negative else "warning",
        f"{share(off, z.rows)} label rows are no distribution: sums from {z.lowest_sum:.6g} to {z.highest_sum:.6g}"
        f"{negative}",
        ("labels = labels.clip(0, None); " if z.negative else "")
        + f"labels = labels / labels.sum({summary.axis}, keepdims=True)"
        + ("  # rows of 0 stand for nothing: leave them out" if z.lowest_sum == 0.0 and serious else ""),
    )


def rescaling(low: float, top: float, values: set[float]) -> tuple[str, str] | None:
    """What labels beyond [0, 1] look like, and the line that brings them back."""
    if values <= {-1.0, 1.0} and low < 0.0:
        return "-1 and +1", "labels = (labels + 1) / 2"
    if values <= {-1.0, 0.0, 1.0} and low < 0.0:
        return None
    if low >= 0.0 and values <= {0.0, 255.0}:
        return "0 and 255", "labels = labels / 255"
    if low >= 0.0 and values <= {0.0, 100.0}:
        return "0 and 100", "labels = labels / 100"
    if low >= 0.0 and 10.0 < top <= 100.0:
        return f"from {low:g} to {top:g}, as per cent are", "labels = labels / 100"
    if low >= 0.0 and 100.0 < top <= 255.0:
        return f"from {low:g} to {top:g}, as bytes are", "labels = labels / 255"
    return None


def indices(summary: Summary, axis: int) -> Iterator[Finding]:
    y, x = summary.labels, summary.logits
    classes = x.classes
    live = y.rows - y.ignored
    if classes == 1:
        return
    if y.outside_rows and y.first_outside is not None:
        where, value = y.first_outside
        values = sorted(y.outside)
        shown = ", ".join(f"{v} ({y.outside[v]:,} times)" for v in values[:4]) + (", …" if len(values) > 4 else "")
        at = f"labels[{', '.join(map(str, where))}] = {value}" if where else f"the label {value}"
        evidence = (
            f"{share(y.outside_rows, live)} labels are outside [0, {classes}) for {classes} classes: {shown}; the "
            f"first is {at}"
        )
        below = y.counts is not None and bool(y.counts[0])
        if values == [classes] and not below and y.low >= 1:
            yield finding(
                "WL206",
                "error",
                f"{evidence}; 0 never occurs and {classes} does: they count from 1",
                "labels = labels - 1",
            )
        elif len(values) == 1 and (value in PADDINGS or value == classes or value < 0) and y.outside_rows < live:
            yield finding(
                "WL207",
                "error",
                f"{evidence}: it looks like padding",
                call("sparse", **options_of(summary, axis, ignore_index=value)),
            )
        else:
            yield finding(
                "WL206",
                "error",
                evidence,
                f"# the model needs {int(y.top) + 1} outputs, or the labels another numbering"
                if y.low >= 0
                else "# find out what these values stand for; padding is passed as ignore_index",
            )
        return
    if not live and y.rows >= FEW_ROWS:
        yield finding(
            "WL213",
            "warning",
            f"all {y.rows:,} labels are the ignored {summary.ignore_index}: nothing counts, and the loss is 0",
            "# leave such batches out, or look at how the padding is made",
            "everything is ignored",
        )
        return
    if y.counts is None or live < FEW_ROWS:
        return
    present = np.flatnonzero(y.counts)
    if len(present) == 1:
        yield finding(
            "WL213",
            "warning",
            f"all {live:,} labels that count are class {present[0]}: there is nothing to tell apart",
            "# shuffle the data before it is cut into batches, or look at how labels are read",
            "only one class occurs",
        )
        return
    often = y.counts[present]
    ratio = float(often.max() / often.min())
    if ratio >= IMBALANCE and often.max() >= 100 and "class_weight" not in summary.options:
        most, least = int(present[np.argmax(often)]), int(present[np.argmin(often)])
        weights = _class_weights(y.counts)
        yield finding(
            "WL214",
            "note",
            f"class {most} occurs {often.max():,} times and class {least} {often.min():,} times",
            call("sparse", **options_of(summary, axis, class_weight=weights)),
        )


def _class_weights(counts: Array, dense_on: int | None = None) -> str:
    if len(counts) > 20:
        often = f"numpy.bincount(labels.ravel(), minlength={len(counts)})"
        if dense_on is not None:
            often = (
                f"labels.reshape(-1, {len(counts)}).sum(0)"
                if dense_on == -1
                else f"numpy.moveaxis(labels, {dense_on}, 0).reshape({len(counts)}, -1).sum(1)"
            )
        return f"{often}.max() / numpy.maximum({often}, 1)"
    balanced = counts.max() / np.maximum(counts, 1)
    return "[" + ", ".join(f"{w:.4g}" for w in balanced.tolist()) + "]"


def _counts_of_rows(summary: Summary, axis: int) -> Iterator[Finding]:
    """WL213 and WL214 of labels in the logits' shape."""
    z, elements = summary.labels, summary.logits.elements
    if z.rows < FEW_ROWS or z.binary < z.rows:
        return
    yes = z.positive
    if summary.kind == "sigmoid":
        if yes in (0.0, float(elements)):
            yield finding(
                "WL213",
                "warning",
                f"all {elements:,} labels are {'0' if not yes else '1'}: there is nothing to tell apart",
                "# shuffle the data before it is cut into batches, or look at how labels are read",
                "only one answer occurs",
            )
        elif elements / yes - 1.0 >= IMBALANCE and elements >= 100 and "pos_weight" not in summary.options:
            yield finding(
                "WL214",
                "note",
                f"{share(yes, elements)} labels are true, one in {elements / yes:.3g}",
                call("sigmoid", **options_of(summary, axis, pos_weight=f"{(elements - yes) / yes:.4g}")),
            )
        return
    totals = z.class_totals
    if totals is None or z.distributions < z.rows:
        return
    present = np.flatnonzero(totals)
    if len(present) == 1 and len(totals) > 1:
        yield finding(
            "WL213",
            "warning",
            f"all {z.rows:,} label rows are class {present[0]}: there is nothing to tell apart",
            "# shuffle the data before it is cut into batches, or look at how labels are read",
            "only one class occurs",
        )
    elif "class_weight" in summary.options:
        return
    elif len(present) > 1 and totals.max() / totals[present].min() >= IMBALANCE and totals.max() >= 100:
        most, least = int(np.argmax(totals)), int(present[np.argmin(totals[present])])
        yield finding(
            "WL214",
            "note",
            f"class {most} occurs {totals[most]:,.0f} times and class {least} {totals[least]:,.0f} times",
            call("softmax", **options_of(summary, axis, class_weight=_class_weights(totals, axis))),
        )
