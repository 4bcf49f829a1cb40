"""What the logits are, by themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from withlogits.guide.findings import Finding
from withlogits.guide.fit import finding
from withlogits.guide.rules.common import share
from withlogits.statistics.accumulated import closeness
from withlogits.statistics.summary import Summary

# By chance a handful of logits may all lie in [0, 1].
FEW_ELEMENTS, MANY_ELEMENTS = 16, 64
ABSURD_SPREAD = 100.0  # between the largest and the smallest logit of a row: e^100


def probabilities(summary: Summary, library: str) -> Iterator[Finding]:
    x = summary.logits
    if summary.kind != "sigmoid" and x.classes == 1:
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
    elif x.in_unit and x.top > x.low and _looks_like_sigmoid(summary):
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
        harmless = summary.kind != "sigmoid"
        yield finding(
            "WL103",
            "note" if harmless else "error",
            f"no logit is above 0 and the logsumexp of each of {x.rows:,} rows is 0: they went through a log-softmax, "
            + ("which a softmax loss does not mind" if harmless else "and are no log-odds of each class by itself"),
            "# take log_softmax off the model: the loss does it, once and more exactly"
            if harmless
            else _odds_of_logarithms(library, "log_softmax"),
        )
    elif summary.kind == "sigmoid" and _looks_like_log_sigmoid(summary):
        yield finding(
            "WL103",
            "error",
            f"none of {x.elements:,} logits is above 0, where {summary.labels.positive / x.elements:.0%} of the labels "
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


def _looks_like_log_sigmoid(summary: Summary) -> bool:
    """No honest classifier says "no" to everything, and comes as near to 0 as a sure "yes" does in logarithms."""
    x = summary.logits
    yes = summary.labels.positive
    return x.elements >= MANY_ELEMENTS and -1e-3 < x.top <= 0.0 and yes >= 0.05 * x.elements and x.low < x.top


def _looks_like_sigmoid(summary: Summary) -> bool:
    x = summary.logits
    if x.elements < FEW_ELEMENTS:
        return False
    return x.elements >= MANY_ELEMENTS or x.near_ends >= x.elements // 4


def values(summary: Summary) -> Iterator[Finding]:
    x, pair = summary.logits, summary.pair
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
    elif x.dead_rows and summary.kind != "sigmoid":
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
    if x.rows >= 4 and x.alike and summary.labels.rows:
        yield finding(
            "WL107",
            "warning",
            f"all {x.rows:,} rows of logits are the same to the last bit: the model does not see its input",
            "# look for an input that is constant, weights that are 0, or activations that have died",
        )
    rows = x.rows if summary.kind != "sparse" else pair.counted
    spread = x.spread / x.rows if x.rows else 0.0
    if summary.kind == "sigmoid":
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
