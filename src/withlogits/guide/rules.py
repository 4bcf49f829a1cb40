"""From what a survey has seen to findings: one function a group of codes, and the thresholds with their reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.findings import Finding
from withlogits.guide.fit import call, finding
from withlogits.guide.survey import Survey, closeness

Array = NDArray[Any]

# By chance a handful of logits may all lie in [0, 1], a batch may hold one class, a few rows may be alike.
FEW_ELEMENTS, MANY_ELEMENTS = 16, 64
FEW_ROWS = 16
PADDINGS = (-1, -100, 255)
ABSURD_SPREAD = 100.0  # between the largest and the smallest logit of a row: e^100
IMBALANCE = 50.0
SURE = 4.0  # standard errors
SURE_ENOUGH = 3.0  # for a note
MANY_ROWS = 256
MANY_CLASSES = 1 << 8
MISCALIBRATED = 0.05  # share of the loss that the temperature takes away


def findings_of(survey: Survey, axis: int, library: str) -> list[Finding]:
    """Everything that the figures say; `axis` as the caller would write it, `library` "numpy" or "torch"."""
    found = list(_probabilities(survey, library))
    found += _values(survey)
    found += _label_rows(survey, axis) if survey.kind != "sparse" else _indices(survey, axis)
    if not any(f.severity == "error" for f in found):
        found += _agreement(survey, axis, library)
    return found


def _options(survey: Survey, axis: int, **more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {} if axis == -1 or survey.kind == "sigmoid" else {"axis": axis}
    if survey.ignore_index is not None:
        options["ignore_index"] = survey.ignore_index
    return options | {k: v for k, v in survey.options.items() if isinstance(v, (int, float))} | more


def share(part: float, whole: float) -> str:
    return f"{part:,.0f} of {whole:,.0f}"


# --------------------------------------------------------------------------------- what the logits are, by themselves


def _probabilities(survey: Survey, library: str) -> Iterator[Finding]:
    x = survey.logits
    if survey.kind != "sigmoid" and x.classes == 1:
        yield finding(
            "WL105",
            "error",
            f"the class axis has length 1: the probability is always 1, and the loss of all {x.rows:,} rows is 0",
            "loss = withlogits.sigmoid_cross_entropy_with_logits(labels=labels.reshape(logits.shape), logits=logits)",
        )
        return
    log = "numpy.log(logits)" if library == "numpy" else "torch.log(logits)"
    if x.in_unit and x.classes > 1 and x.sums_to_one == x.rows and x.rows:
        yield finding(
            "WL101",
            "error",
            f"all {x.elements:,} logits lie in [0, 1] and each of {x.rows:,} rows sums to 1: they went through a "
            "softmax",
            f"logits = {log}  # better: take the softmax off the model",
        )
    elif x.in_unit and x.top > x.low and _looks_like_sigmoid(survey):
        inverse = (  # a probability that has been rounded to 0 or 1 has no finite logit
            "numpy.asarray(logits, numpy.float32).clip(1e-7, 1 - 1e-7); "
            "logits = numpy.log(logits) - numpy.log1p(-logits)"
            if library == "numpy"
            else "torch.logit(logits.float(), eps=1e-7)"
        )
        yield finding(
            "WL102",
            "error",
            f"all {x.elements:,} logits lie in [0, 1], {share(x.near_ends, x.elements)} near the ends: they went "
            "through a sigmoid",
            f"logits = {inverse}  # better: take the sigmoid off the model",
        )
    elif x.classes > 1 and x.rows and x.normalized == x.rows and x.top <= closeness(x.dtype, x.classes):
        harmless = survey.kind != "sigmoid"
        yield finding(
            "WL103",
            "note" if harmless else "error",
            f"no logit is above 0 and the logsumexp of each of {x.rows:,} rows is 0: they went through a log-softmax, "
            + ("which a softmax loss does not mind" if harmless else "and are no log-odds of each class by itself"),
            "# take log_softmax off the model: the loss does it, once and more exactly"
            if harmless
            else _odds_of_logarithms(library, "log_softmax"),
        )
    elif survey.kind == "sigmoid" and _looks_like_log_sigmoid(survey):
        yield finding(
            "WL103",
            "error",
            f"none of {x.elements:,} logits is above 0, where {survey.labels.positive / x.elements:.0%} of the labels "
            f"are true, and the largest is {x.top:.2g}: they went through a log-sigmoid",
            _odds_of_logarithms(library, "logsigmoid"),
        )


def _odds_of_logarithms(library: str, activation: str) -> str:
    """The line that makes log-odds of log-probabilities; one that has been rounded to 0 has no finite log-odds."""
    if library == "numpy":
        line = "logits = numpy.minimum(logits, -1e-7); logits = logits - numpy.log(-numpy.expm1(logits))"
    else:
        line = "logits = logits.clamp(max=-1e-7); logits = logits - torch.log(-torch.expm1(logits))"
    return f"{line}  # better: take {activation} off the model"


def _looks_like_log_sigmoid(survey: Survey) -> bool:
    """No honest classifier says "no" to everything, and comes as near to 0 as a sure "yes" does in logarithms."""
    x = survey.logits
    yes = survey.labels.positive
    return x.elements >= MANY_ELEMENTS and -1e-3 < x.top <= 0.0 and yes >= 0.05 * x.elements and x.low < x.top


def _looks_like_sigmoid(survey: Survey) -> bool:
    x = survey.logits
    if x.elements < FEW_ELEMENTS:
        return False
    return x.elements >= MANY_ELEMENTS or x.near_ends >= x.elements // 4


def _values(survey: Survey) -> Iterator[Finding]:
    x, pair = survey.logits, survey.pair
    bad = x.nan + x.plus_inf
    if bad:
        where = f"logits[{', '.join(map(str, x.first_odd or ()))}]"
        overflow = x.plus_inf and not x.nan and x.dtype == "float16"
        parts = [f"{n:,} are {name}" for n, name in ((x.nan, "NaN"), (x.plus_inf, "inf"), (x.minus_inf, "-inf")) if n]
        text = f"of {x.elements:,} logits {', '.join(parts)}, the first at {where}"
        if overflow:
            text += "; float16 ends at 65504: the model's output has overflowed"
        yield finding(
            "WL106",
            "error",
            text,
            "# compute the model's last layer in float32 or bfloat16, which do not end at 65504"
            if overflow
            else "# find the step that made them: a logarithm of 0, a division by 0, a learning rate too high",
            "float16 logits that have overflowed" if overflow else None,
        )
    elif x.dead_rows and survey.kind != "sigmoid":
        yield finding(
            "WL106",
            "error",
            f"{share(x.dead_rows, x.rows)} rows are nothing but -inf: every class is masked, and the loss is NaN",
            "# leave at least one class of each row unmasked, or give the row sample_weight 0",
        )
    elif pair.infinite:
        yield finding(
            "WL106",
            "error",
            f"{pair.infinite:,} losses are infinite: a logit of -inf rules out a class that the label wants",
            "# unmask the classes that the labels name, or ignore those rows",
        )
    if bad:
        return
    if x.rows >= 4 and x.alike and survey.labels.rows:
        yield finding(
            "WL107",
            "warning",
            f"all {x.rows:,} rows of logits are the same to the last bit: the model does not see its input",
            "# look for an input that is constant, weights that are 0, or activations that have died",
        )
    rows = x.rows if survey.kind != "sparse" else pair.counted
    spread = x.spread / x.rows if x.rows else 0.0
    if survey.kind == "sigmoid":
        spread = max(abs(x.top), abs(x.low)) if math.isfinite(x.top - x.low) else 0.0
    if rows >= 4 and x.saturated >= 0.99 * rows and spread > ABSURD_SPREAD:
        scale = spread / 10.0
        yield finding(
            "WL108",
            "warning",
            f"in {share(x.saturated, rows)} rows the probability is 0 or 1 to the last bit, and logits reach from "
            f"{x.low:.4g} to {x.top:.4g}: nothing is left to learn from",
            f"logits = logits / {scale:.3g}  # better: find out why the model's outputs are so large",
        )


# ------------------------------------------------------------------------------------- what the labels are


def _label_rows(survey: Survey, axis: int) -> Iterator[Finding]:
    z, x = survey.labels, survey.logits
    if not z.rows:
        return
    sums = {k: int(n) for k, n in enumerate(z.of_sum.tolist()) if n}
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
        rescaled = _rescaling(z.low, z.top, z.values)
        if rescaled is not None:
            values, fix = rescaled
            yield finding("WL209", "error", f"labels are {values}, where 0 to 1 is expected", fix)
        elif survey.kind == "sigmoid":
            yield finding(
                "WL209",
                "error",
                f"labels reach from {z.low:g} to {z.top:g}, where 0 to 1 is expected",
                f"labels = (labels - {z.low:g}) / {z.top - z.low:g}  # if that is what they mean",
            )
        else:
            yield _no_distribution(survey)
        return
    if survey.kind == "softmax":
        if z.binary_rows == z.rows and z.of_sum[2:].sum():
            yield finding(
                "WL203",
                "error",
                f"all labels are 0 or 1, {shown}: the classes are independent, and softmax makes them share",
                call("sigmoid"),
            )
        elif z.distributions < z.rows:
            yield _no_distribution(survey)
    elif x.classes > 1 and z.binary_rows == z.rows and z.of_sum[1] == z.rows and z.rows >= FEW_ROWS:
        yield finding(
            "WL204",
            "warning",
            f"exactly one class is true in each of {z.rows:,} rows: the classes exclude one another",
            call("softmax", **({} if axis == -1 else {"axis": axis})),
        )
    yield from _counts_of_rows(survey, axis)


def _no_distribution(survey: Survey) -> Finding:
    z = survey.labels
    off = z.rows - z.distributions
    negative = f", {z.negative_rows:,} with negative entries" if z.negative_rows else ""
    serious = z.negative_rows > 0 or z.highest_sum > 1.5 or z.lowest_sum < 0.5
    return finding(
        "WL205",
        "error" if z.negative_rows else "warning",
        f"{share(off, z.rows)} label rows are no distribution: sums from {z.lowest_sum:.6g} to {z.highest_sum:.6g}"
        f"{negative}",
        ("labels = labels.clip(0, None); " if z.negative_rows else "")
        + f"labels = labels / labels.sum({survey.axis}, keepdims=True)"
        + ("  # rows of 0 stand for nothing: leave them out" if z.lowest_sum == 0.0 and serious else ""),
    )


def _rescaling(low: float, top: float, values: set[float]) -> tuple[str, str] | None:
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


def _indices(survey: Survey, axis: int) -> Iterator[Finding]:
    y, x = survey.labels, survey.logits
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
                call("sparse", **_options(survey, axis, ignore_index=value)),
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
            f"all {y.rows:,} labels are the ignored {survey.ignore_index}: nothing counts, and the loss is 0",
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
    if ratio >= IMBALANCE and often.max() >= 100 and "class_weight" not in survey.options:
        most, least = int(present[np.argmax(often)]), int(present[np.argmin(often)])
        weights = _class_weights(y.counts)
        yield finding(
            "WL214",
            "note",
            f"class {most} occurs {often.max():,} times and class {least} {often.min():,} times",
            call("sparse", **_options(survey, axis, class_weight=weights)),
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


def _counts_of_rows(survey: Survey, axis: int) -> Iterator[Finding]:
    """WL213 and WL214 of labels in the logits' shape."""
    z, elements = survey.labels, survey.logits.elements
    if z.rows < FEW_ROWS or z.binary_rows < z.rows:
        return
    yes = z.positive
    if survey.kind == "sigmoid":
        if yes in (0.0, float(elements)):
            yield finding(
                "WL213",
                "warning",
                f"all {elements:,} labels are {'0' if not yes else '1'}: there is nothing to tell apart",
                "# shuffle the data before it is cut into batches, or look at how labels are read",
                "only one answer occurs",
            )
        elif elements / yes - 1.0 >= IMBALANCE and elements >= 100 and "pos_weight" not in survey.options:
            yield finding(
                "WL214",
                "note",
                f"{share(yes, elements)} labels are true, one in {elements / yes:.3g}",
                call("sigmoid", **_options(survey, axis, pos_weight=f"{(elements - yes) / yes:.4g}")),
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
    elif "class_weight" in survey.options:
        return
    elif len(present) > 1 and totals.max() / totals[present].min() >= IMBALANCE and totals.max() >= 100:
        most, least = int(np.argmax(totals)), int(present[np.argmin(totals[present])])
        yield finding(
            "WL214",
            "note",
            f"class {most} occurs {totals[most]:,.0f} times and class {least} {totals[least]:,.0f} times",
            call("softmax", **_options(survey, axis, class_weight=_class_weights(totals, axis))),
        )


# ------------------------------------------------------------------------------------- how the two go together


def _agreement(survey: Survey, axis: int, library: str) -> Iterator[Finding]:
    x, pair = survey.logits, survey.pair
    if x.alike or not pair.counted:
        return
    if survey.kind == "sigmoid":
        inverted = _is_inverted(survey)
        if inverted is not None:
            yield finding("WL303", "warning", inverted, "logits = -logits  # or labels = 1 - labels")
            return
    else:
        permuted = list(_permuted(survey, axis, library))
        yield from permuted
        if permuted:
            return
        stepped = list(_stepped(survey, axis))
        yield from stepped
        if stepped:
            return
        shuffled = list(_shuffled(survey))
        yield from shuffled
        if shuffled:
            return
    yield from _miscalibrated(survey, axis)


def _is_inverted(survey: Survey) -> str | None:
    """Binary: logits and labels go against one another, and the flipped logits cost far less."""
    pair, n = survey.pair, survey.pair.counted
    if n < FEW_ROWS or pair.nan + pair.infinite or survey.options.get("label_smoothing"):
        return None
    if pair.sample.x is None:
        return None
    spread_z, spread_x = pair.z / n - (pair.z / n) ** 2, float(pair.sample.rows()[0].var())
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


def _permuted(survey: Survey, axis: int, library: str) -> Iterator[Finding]:
    """WL301, and WL303 of two classes: some classes are systematically taken for one another."""
    matrix = survey.pair.matrix
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
    dense = survey.kind == "softmax"
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


def _stepped(survey: Survey, axis: int) -> Iterator[Finding]:
    """WL302."""
    pair = survey.pair
    n = pair.neighbours
    if n < FEW_ROWS or pair.changes < n // 20:
        return  # where labels hardly change, a step makes no difference
    here = pair.in_place / n
    # the cut is along the last axis of the rows: for logits (N, T, C) that is axis 1, for (N, C, T) axis 2
    deep = ", :" if axis == -1 and survey.axis > 0 else ""
    before, behind = (f"[..., {cut}{deep}]" for cut in (":-1", "1:"))
    if survey.kind == "sparse":
        deep = ""
    first, last = (f"[..., {cut}{deep}]" for cut in (":-1", "1:"))
    for name, count, fix in (
        ("the next", pair.ahead, f"logits, labels = logits{before}, labels{last}"),
        ("the previous", pair.behind, f"logits, labels = logits{behind}, labels{first}"),
    ):
        there = count / n
        error = math.sqrt(max(here * (1 - here), there * (1 - there), 1e-4) / n)
        if there - _by_chance(survey) > 0.2 and there - here > max(0.2, SURE * error):
            yield finding(
                "WL302",
                "warning",
                f"predictions agree with {there:.1%} of the labels at {name} step, and with {here:.1%} at their own",
                fix,
            )
            return


def _by_chance(survey: Survey) -> float:
    """How often predictions and labels would agree if neither knew of the other, or at most, if labels are counted."""
    matrix, counts = survey.pair.matrix, survey.labels.counts
    if matrix is not None and matrix.sum():
        total = float(matrix.sum())
        return float((matrix.sum(axis=0) / total) @ (matrix.sum(axis=1) / total))
    if counts is not None and counts.sum():
        return float(counts.max() / counts.sum())
    return 0.0


def _shuffled(survey: Survey) -> Iterator[Finding]:
    """WL305: right by chance alone, and yet sure, and with each class predicted as often as it occurs.

    An untrained model is right by chance too, but it does not know how often each class occurs.
    """
    matrix = survey.pair.matrix
    if matrix is None or matrix.sum() < MANY_ROWS or survey.pair.nan + survey.pair.infinite:
        return
    total = int(matrix.sum())
    occurs, said = matrix.sum(axis=1) / total, matrix.sum(axis=0) / total
    right, chance = float(np.trace(matrix) / total), float(occurs @ said)
    known = occurs[occurs > 0.0]
    guessing = -float((known * np.log(known)).sum())
    loss = survey.pair.loss / survey.pair.counted
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


def _miscalibrated(survey: Survey, axis: int) -> Iterator[Finding]:
    """WL304."""
    if survey.options.get("label_smoothing") or survey.options.get("temperature", 1.0) != 1.0:
        return
    # one step of Newton's method where more would take longer than the loss of everything: it finds most of the gain
    long = survey.logits.classes > MANY_CLASSES
    fit = survey.pair.sample.fit(1 if long else 8, MISCALIBRATED / 5, np.float32 if long else np.float64, 1e-2)
    if fit is None:
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
        + ("elements" if survey.kind == "sigmoid" else "rows")
        + ")",
        f"logits = logits / {value}"
        if survey.kind == "sigmoid"
        else call(survey.kind, **_options(survey, axis, temperature=value)),
    )
