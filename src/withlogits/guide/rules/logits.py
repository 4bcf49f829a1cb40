"""What the logits are, by themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from withlogits.guide.findings import Finding, call, finding, many
from withlogits.guide.lines import LINES
from withlogits.guide.rules.common import share
from withlogits.statistics.accumulated import DECIMALS, closeness
from withlogits.statistics.summary import Summary

# By chance a handful of logits may all lie in [0, 1].
FEW_ELEMENTS, MANY_ELEMENTS = 16, 64
SEVERAL_ROWS = 8  # the sums of so many do not come near 1 by chance
RELU = 0.02  # of a ReLU's outputs, more are exactly 0
AS_IF = "they look as if they went through"
ABSURD_SPREAD = 100.0  # between the largest and the smallest logit of a row: e^100


def probabilities(summary: Summary, library: str) -> Iterator[Finding]:
    """WL101, WL102, WL103 and WL105."""
    x, independent = summary.logits, summary.kind == "sigmoid"
    better = "  # better: take {} off the model"
    several = x.rows and x.classes > 1
    if not independent and x.classes == 1:
        evidence = f"the probability is always 1, and the loss of {many(x.rows, 'row', 'rows')} is 0"
        fix = call("sigmoid").replace("labels=labels", f"labels={LINES[library].as_logits}")
        yield finding("WL105", f"the class axis has length 1: {evidence}", fix)
    elif several and x.in_unit and _looks_like_softmax(summary):
        rows = many(x.rows - x.nothing, "row", "rows")
        evidence = f"all {x.elements:,} logits lie in [0, 1] and each of {rows} sums to 1"
        if x.nothing:
            evidence += f" ({many(x.nothing, 'row is', 'rows are')} nothing but 0)"
        if x.decimals <= DECIMALS:
            evidence += f", rounded to {many(x.decimals, 'decimal', 'decimals')}"
        from_softmax = LINES[library].from_softmax if x.zeros else LINES[library].logarithm
        yield finding("WL101", f"{evidence}: {AS_IF} a softmax", from_softmax + better.format("the softmax"))
    elif x.in_unit and x.top > x.low and _looks_like_sigmoid(summary):
        evidence = f"all {x.elements:,} logits lie in [0, 1], {share(x.near_ends, x.elements)} near the ends"
        fix = LINES[library].from_sigmoid + better.format("the sigmoid")
        yield finding("WL102", f"{evidence}: {AS_IF} a sigmoid", fix)
    elif several and x.normalized == x.rows and x.top <= closeness(x.dtype, x.classes):
        evidence = f"no logit is above 0 and the logsumexp of each of {many(x.rows, 'row', 'rows')} is 0"
        evidence += f": {AS_IF} a log-softmax, "
        if independent:
            fix = LINES[library].from_logarithm + better.format("log_softmax")
            yield finding("WL103", evidence + "and are no log-odds of each class by itself", fix)
        else:
            fix = "# take log_softmax off the model: the loss does it, once and more exactly"
            yield finding("WL103", evidence + "which a softmax loss does not mind", fix, severity="note")
    elif independent and _looks_like_log_sigmoid(summary):
        true = f"{summary.labels.positive / x.elements:.0%} of the labels are true"
        evidence = f"none of {x.elements:,} logits is above 0, where {true}, and the largest is {x.top:.2g}"
        fix = LINES[library].from_logarithm + better.format("logsigmoid")
        yield finding("WL103", f"{evidence}: {AS_IF} a log-sigmoid", fix)


def _looks_like_log_sigmoid(summary: Summary) -> bool:
    """No honest classifier says "no" to everything, and comes as near to 0 as a sure "yes" does in logarithms."""
    x = summary.logits
    yes = summary.labels.positive
    return x.elements >= MANY_ELEMENTS and -1e-3 < x.top <= 0.0 and yes >= 0.05 * x.elements and x.low < x.top


def _looks_like_softmax(summary: Summary) -> bool:
    """Rows that sum to 1, some of them perhaps 0 throughout; with many rows, only but for a rounding."""
    x = summary.logits
    ones = max(x.sums_to_one, x.nearly_one if x.rows >= SEVERAL_ROWS else 0)
    return ones + x.nothing == x.rows and 2 * ones >= x.rows


def _looks_like_sigmoid(summary: Summary) -> bool:
    """Nothing says otherwise: no temperature, and no zeros as of a ReLU, which gives no 1 and no rounded number."""
    x = summary.logits
    if summary.options.get("temperature", 1.0) != 1.0:
        return False
    if x.zeros > RELU * x.elements and not x.ones and x.decimals > DECIMALS:
        return False
    return x.elements >= MANY_ELEMENTS or (x.elements >= FEW_ELEMENTS and x.near_ends >= x.elements // 4)


def values(summary: Summary) -> Iterator[Finding]:
    """WL106, WL107 and WL108."""
    x, pair = summary.logits, summary.pair
    if x.nan + x.plus_inf:
        yield _odd(summary)
        return
    if x.dead_rows and summary.kind != "sigmoid":
        evidence = f"{share(x.dead_rows, x.rows)} rows are nothing but -inf: every class is masked, and the loss is NaN"
        fix = "# leave at least one class of each row unmasked, or give the row sample_weight 0"
        yield finding("WL106", evidence, fix)
    elif pair.infinite:
        evidence = many(pair.infinite, "loss is infinite", "losses are infinite")
        evidence += ": a logit of -inf rules out a class that the label wants"
        yield finding("WL106", evidence, "# unmask the classes that the labels name, or ignore those rows")
    if x.rows >= 4 and x.alike and summary.labels.rows:
        evidence = f"all {x.rows:,} rows of logits are the same to the last bit: the model does not see its input"
        fix = "# look for an input that is constant, weights that are 0, or activations that have died"
        yield finding("WL107", evidence, fix)
    rows = x.rows if summary.kind != "sparse" else pair.counted
    spread = x.spread / x.rows if x.rows else 0.0
    if summary.kind == "sigmoid":
        spread = max(abs(x.top), abs(x.low)) if math.isfinite(x.top - x.low) else 0.0
    if rows >= 4 and x.saturated >= 0.99 * rows and spread > ABSURD_SPREAD:
        certain = f"in {share(x.saturated, rows)} rows the probability is 0 or 1 to the last bit"
        evidence = f"{certain}, and logits reach from {x.low:.4g} to {x.top:.4g}: nothing is left to learn from"
        fix = f"logits = logits / {spread / 10.0:.3g}  # better: find out why the model's outputs are so large"
        yield finding("WL108", evidence, fix)


def _odd(summary: Summary) -> Finding:
    """WL106 of NaN and +inf."""
    x = summary.logits
    often = ((x.nan, "NaN"), (x.plus_inf, "inf"), (x.minus_inf, "-inf"))
    shown = ", ".join(f"{many(n, 'is', 'are')} {name}" for n, name in often if n)
    evidence = f"of {x.elements:,} logits {shown}, the first at logits[{', '.join(map(str, x.first_odd or ()))}]"
    if x.dtype == "float16" and not x.nan:
        evidence += "; float16 ends at 65504: the model's output has overflowed"
        fix = "# compute the model's last layer in float32 or bfloat16, which do not end at 65504"
        return finding("WL106", evidence, fix, title="float16 logits that have overflowed")
    fix = "# find the step that made them: a logarithm of 0, a division by 0, a learning rate too high"
    return finding("WL106", evidence, fix)
