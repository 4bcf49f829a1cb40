"""Which loss fits labels, from the labels alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from withlogits.guide.arrays import Given, given, is_whole, silent
from withlogits.guide.findings import Recommendation, call
from withlogits.guide.lines import LINES
from withlogits.guide.rules.labels import rescaling
from withlogits.statistics.accumulated import LabelStatistics, closeness
from withlogits.statistics.rows import label_counts
from withlogits.statistics.summary import Summary

ONE_NUMBER = "exactly one class is true of each example, and its number is given"


@silent
def recommend(labels: Any, *, num_classes: int | None = None) -> Recommendation:
    """The loss that fits these labels, and why.

    The question is whether several classes may be true of one example at once. If so, they are independent yes/no
    questions: sigmoid. If exactly one is true: sparse softmax for its number, softmax for a distribution.

    Parameters
    ----------
    labels : array
        Of NumPy or PyTorch, or what converts to an array: class numbers, or rows with an entry for each class.
    num_classes : int, optional
        How many logits the model gives for each example, where the labels leave it open: labels (N,) of 0 and 1 suit
        one logit and sigmoid as well as two logits and sparse softmax.

    Returns
    -------
    Recommendation
        The loss, the reason with counts, the labels' form, the call to write, what to transform first.

    Raises
    ------
    TypeError
        For what is no array of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> print(withlogits.recommend(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]])))
    sigmoid: several classes may be true at once: of 3 rows 1 have none and 2 have two or more
      labels  (3, 3) int64, rows of 0 and 1
      write   loss = withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    """
    z = given("labels", labels)
    array = z.array
    if array.ndim > 1 and num_classes is not None and z.shape[-1] == num_classes:
        return _for_rows(z)
    if array.ndim > 1 and z.shape[-1] > 1 and array.size and not (is_whole(array) and array.max() > 1):
        return _for_rows(z)
    return _for_numbers(z, num_classes)


def for_pair(summary: Summary, labels: Given) -> Recommendation:
    """Of labels that have been seen with their logits."""
    if summary.kind == "sparse":
        return _for_numbers(labels, summary.logits.classes)
    return _for_counts(summary.labels, labels.shape, -1 if summary.axis == labels.array.ndim - 1 else summary.axis)


def for_summary(summary: Summary) -> Recommendation:
    """Of labels that have been seen block by block, by what was counted."""
    labels, classes = summary.labels, summary.logits.classes
    if summary.kind != "sparse":
        return _for_counts(labels, (labels.rows, labels.classes), -1)
    why = f"{ONE_NUMBER}: {classes:,} classes, {labels.rows:,} labels"
    form = f"({labels.rows},) {labels.dtype}, class numbers"
    return Recommendation("sparse", why, form, call("sparse", ignore_index=summary.ignore_index))


def _for_numbers(z: Given, classes: int | None) -> Recommendation:
    """One number for each example: the number of a class, or one yes or no."""
    form, sigmoid, array = f"{z.shape} {z.dtype}", call("sigmoid"), z.array
    if not z.integral and array.dtype.kind != "b":
        array = array[np.isfinite(array)]  # what is NaN or infinite says nothing about the others
    if not array.size:
        loss = "sigmoid" if array.dtype.kind in "bf" else "sparse"
        return Recommendation(loss, "there are no labels to go by but their dtype", form, call(loss))
    low, high = float(array.min()), float(array.max())
    if classes in (None, 1) and low < 0.0 and ((array == -1) | (array == 1)).all():
        why = "each example is a yes or a no, written as +1 and -1"
        return Recommendation("sigmoid", why, form, sigmoid, "labels = (labels + 1) / 2")
    if classes in (None, 1) and low >= 0.0 and high <= 1.0:
        yes = float(array.astype(np.float64).sum())
        why = f"each example is one yes or no: {yes:,.4g} of {array.size:,} are yes; the model gives one logit"
        return Recommendation("sigmoid", why, f"{form}, between 0 and 1", sigmoid)
    if not is_whole(array):
        why = f"labels from {low:g} to {high:g} are neither class numbers nor within 0 and 1"
        return Recommendation("sigmoid", why, form, sigmoid, f"labels = (labels - {low:g}) / {high - low:g}")
    why = f"{ONE_NUMBER}: {max(0, int(array.max()) + 1):,} classes in {array.size:,} labels"
    ignored = None
    if low < 0:
        negative = array[array < 0]
        why += f"; {negative.size:,} negative ones look like padding"
        ignored = int(negative[0]) if (negative == negative[0]).all() else None
    transform = "" if z.integral else LINES[z.library].as_integers
    return Recommendation("sparse", why, f"{form}, class numbers", call("sparse", ignore_index=ignored), transform)


def _for_rows(z: Given) -> Recommendation:
    """A row with an entry for each class."""
    statistics, axis = LabelStatistics(z.dtype, False, z.shape[-1]), z.array.ndim - 1
    if z.array.size:
        close = closeness(z.dtype, statistics.classes)
        statistics.add_rows(z.array, axis, label_counts(z.array, axis, close))
    return _for_counts(statistics, z.shape, -1)


def _for_counts(z: LabelStatistics, shape: tuple[int, ...], axis: int) -> Recommendation:
    """From what has been seen of dense labels, however it was seen."""
    form, rows = f"{shape} {z.dtype}", f"{z.rows:,}"
    sigmoid, softmax = call("sigmoid"), call("softmax", axis=None if axis == -1 else axis)
    if z.classes == 1:
        return Recommendation("sigmoid", "there is one class: one yes or no for each example", form, sigmoid)
    if not z.rows:
        return Recommendation("softmax", "there are no labels to go by but their shape", form, softmax)
    if z.binary == z.one == z.rows:
        why = f"exactly one class is true in each of {rows} rows: the classes exclude one another"
        return Recommendation("softmax", why, f"{form}, one-hot", softmax)
    if z.binary == z.rows:
        none, more = z.none, z.several
        why = f"several classes may be true at once: of {rows} rows {none:,} have none and {more:,} have two or more"
        return Recommendation("sigmoid", why, f"{form}, rows of 0 and 1", sigmoid)
    in_unit = z.low >= 0.0 and z.top <= 1.0
    if in_unit and z.distributions == z.rows:
        why = f"each of {rows} rows sums to 1: distributions over classes that exclude one another"
        return Recommendation("softmax", why, f"{form}, distributions", softmax)
    if in_unit and z.distributions < 0.5 * z.rows:
        why = f"{z.rows - z.distributions:,} of {rows} rows do not sum to 1: probabilities of independent classes"
        return Recommendation("sigmoid", why, f"{form}, between 0 and 1", sigmoid)
    rescaled = None if in_unit else rescaling(z.low, z.top, z.values)
    if rescaled is not None:
        values, fix = rescaled
        return Recommendation("sigmoid", f"labels are {values}", form, sigmoid, fix)
    sums = f"from {z.lowest_sum:.4g} to {z.highest_sum:.4g}"
    why, fix = f"{z.distributions:,} of {rows} rows sum to 1, {sums}", "labels = labels / labels.sum(-1, keepdims=True)"
    return Recommendation("softmax", why, form, softmax, fix)
