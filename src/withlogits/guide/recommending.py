"""Which loss fits labels, from the labels alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.arrays import MISSING_MARKS, Given, is_binary, is_whole, silent
from withlogits.guide.findings import Recommendation, call, many
from withlogits.guide.fit import sums_to_one
from withlogits.guide.lines import LINES
from withlogits.guide.reading import read
from withlogits.guide.rules.labels import mark, missing_mark, named, rescaling
from withlogits.options import number_of
from withlogits.statistics.accumulated import VALUES, LabelStatistics, closeness
from withlogits.statistics.rows import label_counts
from withlogits.statistics.summary import Summary

Array = NDArray[Any]

FEW_SUMS = 8  # so many rows of class numbers do not have the same sum by chance
MEASURED = 8  # numbers of more values than that, which are no probabilities, are measurements
ONE_NUMBER = "exactly one class is true of each example, and its number is given"


@silent
def recommend(labels: Any, *, num_classes: int | None = None) -> Recommendation:
    """The loss that fits these labels, and why.

    The question is whether several classes may be true of one example at once. If so, they are independent yes/no
    questions: sigmoid. If exactly one is true: sparse softmax for its number, softmax for a distribution.

    Parameters
    ----------
    labels : array
        Of NumPy, PyTorch, JAX or TensorFlow, or what converts to an array: class numbers, or rows with an entry for
        each class. Names, lists of tags, columns and categories of pandas, and sparse matrices of SciPy get the line
        that makes an array of them first.
    num_classes : int, optional
        How many logits the model gives for each example, where the labels leave it open: labels (N,) of 0 and 1 suit
        one logit and sigmoid as well as two logits and sparse softmax, and 255 may be a class or padding.

    Returns
    -------
    Recommendation
        The loss, the reason with counts, the labels' form, the call to write, what to transform first.

    Raises
    ------
    TypeError
        For what is no array of real numbers, and for a `num_classes` that is no integer.
    ValueError
        For a `num_classes` below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> print(withlogits.recommend(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]])))
    sigmoid: several classes may be true at once: of 3 rows 1 have none and 2 have two or more
      labels  (3, 3) int64, rows of 0 and 1
      write   loss = withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    """
    if num_classes is not None:
        num_classes = number_of("num_classes", num_classes)
    found, line, named = read(labels)
    advice = _recommended(found, num_classes or named)
    transform = "; ".join(filter(None, (line, advice.transform)))
    return replace(advice, transform=transform)


def _recommended(z: Given, classes: int | None) -> Recommendation:
    axis = _class_axis(z.array, classes)
    return _for_numbers(z, classes) if axis is None else _for_rows(z, axis)


def _class_axis(z: Array, classes: int | None) -> int | None:
    """The axis along which labels have an entry for each class; None if they are numbers of classes."""
    if z.ndim < 2 or not z.size:
        return z.ndim - 1 if z.ndim > 1 and z.shape[-1] == classes else None
    last = z.ndim - 1
    likely = [last, *range(1, last)] if z.ndim > 2 else [last]
    if classes is not None:
        likely = [axis for axis in likely if z.shape[axis] == classes] or ([last] if z.shape[last] == 1 else [])
    likely = [axis for axis in likely if z.shape[axis] > 1 or z.shape[axis] == classes]
    # one number for each example has whole numbers beyond 1 in rows of any sum
    rows = [axis for axis in likely if _are_rows(z, axis)]
    return next((axis for axis in rows if sums_to_one(z, axis)), rows[0] if rows else None)


def _are_rows(z: Array, axis: int) -> bool:
    """Whether these are entries for each class, by their values or as counts with one sum, and not class numbers."""
    known = z[np.isfinite(z)] if z.dtype.kind not in "biu" else z
    if not is_whole(known) or not known.size or known.max() <= 1:
        return True
    if known.max() in (100, 255) and is_binary(known / known.max()):
        return True
    sums = z.sum(axis=axis, dtype=np.float64)
    return sums.size >= FEW_SUMS and bool((sums == sums.flat[0]).all()) and known.min() >= 0


def for_pair(summary: Summary, labels: Given) -> Recommendation:
    """Of labels that have been seen with their logits."""
    if summary.kind == "sparse":
        return for_summary(summary, labels.shape)
    axis = -1 if summary.axis == labels.array.ndim - 1 else summary.axis
    return _for_counts(summary.labels, labels.shape, axis, labels.library, summary.ignore_index)


def for_summary(summary: Summary, shape: tuple[int, ...]) -> Recommendation:
    """Of labels of this shape that have been seen block by block, by what was counted."""
    labels, classes = summary.labels, summary.logits.classes
    if summary.kind != "sparse":
        return _for_counts(labels, shape, -1, ignored=summary.ignore_index)
    why = f"{ONE_NUMBER}: {many(classes, 'class', 'classes')}, {many(labels.rows, 'label', 'labels')}"
    return Recommendation(
        "sparse", why, f"{shape} {labels.dtype}, class numbers", call("sparse", ignore_index=summary.ignore_index)
    )


def _for_numbers(z: Given, classes: int | None) -> Recommendation:
    """One number for each example: the number of a class, or one yes or no."""
    form, array, nan = f"{z.shape} {z.dtype}", z.array, 0
    if not z.integral and array.dtype.kind != "b":
        nan = int(np.count_nonzero(np.isnan(array)))
        array = array[np.isfinite(array)]  # what is NaN or infinite says nothing about the others
    if not array.size:
        loss = "sigmoid" if array.dtype.kind in "bf" else "sparse"
        return Recommendation(loss, "there are no labels to go by but their dtype", form, call(loss))
    yes_or_no = None if classes not in (None, 1, 2) else _yes_or_no(z, array, nan, classes == 2)
    if yes_or_no is not None:
        return yes_or_no
    if not is_whole(array):
        why = f"labels from {array.min():g} to {array.max():g} are neither class numbers nor within 0 and 1"
        if np.unique(array).size > MEASURED:
            why += ": they look like measurements, which a regression predicts, with the squared error for instance"
            return Recommendation("none", why, form, "# none of these losses")
        return Recommendation("none", why, form, "# find out what these numbers stand for")
    return _class_numbers(z, array, nan, classes)


def _yes_or_no(z: Given, array: Array, nan: int, two_logits: bool) -> Recommendation | None:
    """Labels of two values, as they are or as they are written: 0 and 1, -1 and 1, 0 and 255; some may be missing."""
    values = np.unique(array.reshape(-1)[:VALUES]).astype(np.float64).tolist()
    if len(values) > 3 and values[0] >= 0.0 and values[-1] > 1.0:
        return None
    low, high = float(array.min()), float(array.max())
    values = np.unique(array).astype(np.float64).tolist() if high > 1.0 or low < 0.0 else [0.0, 1.0]
    ignored = math.nan if nan else None
    why, form = "each example is a yes or a no", f"{z.shape} {z.dtype}"
    loss, transform = "sparse" if two_logits else "sigmoid", ""
    missing = next((m for m in MISSING_MARKS if set(values) == {0.0, 1.0, m}), None)
    if missing is not None:
        ignored = mark(missing)
        why += f"; {many(int(np.count_nonzero(array == missing)), 'is', 'are')} {missing:g}, which stands for missing"
    elif low >= 0.0 and high <= 1.0:
        if two_logits:
            return None
        yes = float(array.astype(np.float64).sum())
        why = f"each example is one yes or no: {yes:,.4g} of {array.size:,} are yes"
        form += ", between 0 and 1"
    elif (found := rescaling(low, high, set(values))) is not None and len(values) <= 2:
        why += f", written as {found[0].replace('-1 and +1', '+1 and -1')}"
        transform = found[1].replace("/", "//") if two_logits else found[1]
    else:
        return None
    if not two_logits:
        why += "; the model gives one logit"
    elif not z.integral:
        transform, filled = _as_integers(z, nan, transform)
        ignored = filled if missing is None else ignored
    if nan:
        why += f"; {many(nan, 'is', 'are')} NaN, which stands for missing"
    return Recommendation(loss, why, form, call(loss, ignore_index=ignored), transform)


def _class_numbers(z: Given, array: Array, nan: int, classes: int | None) -> Recommendation:
    """The number of a class for each example, and perhaps of what is no class."""
    low, high = int(array.min()), int(array.max())
    outside = (array < 0) | (array >= classes) if classes is not None else array < 0
    inside, others = array[~outside], np.unique(array[outside]).astype(np.int64).tolist()
    transform, ignored, more = "", None, ""
    if classes is not None and low == 1 and high == classes and others == [classes]:
        transform, more, inside = "labels = labels - 1", "; they count from 1", array - 1
    elif len(others) == 1:
        ignored = others[0]
        of = "negative ones" if ignored < 0 else f"of {ignored}"
        more = f"; {int(np.count_nonzero(outside)):,} {of} look like padding"
    elif others:
        shown = ", ".join(map(str, others[:4])) + (", …" if len(others) > 4 else "")
        more = f"; {int(np.count_nonzero(outside)):,} are no class: {shown}"
    if not z.integral:
        transform, filled = _as_integers(z, nan, transform)
        ignored = filled if ignored is None else ignored
        more += f"; {nan:,} NaN look like padding" if nan else ""
    number = classes or (int(inside.max()) + 1 if inside.size else 0)
    why = f"{ONE_NUMBER}: {many(number, 'class', 'classes')} in {many(array.size, 'label', 'labels')}{more}"
    form = f"{z.shape} {z.dtype}, class numbers"
    return Recommendation("sparse", why, form, call("sparse", ignore_index=ignored), transform)


def _as_integers(z: Given, nan: int, transform: str) -> tuple[str, int | None]:
    """The line that makes class numbers of labels that are no integers, and what it writes for NaN."""
    lines = LINES[z.library]
    line = lines.known_as_integers if nan else lines.as_integers
    return "; ".join(filter(None, (transform, line))), -1 if nan else None


def _for_rows(z: Given, axis: int) -> Recommendation:
    """A row with an entry for each class."""
    statistics = LabelStatistics(z.dtype, False, z.shape[axis])
    if z.array.size:
        close = closeness(z.dtype, statistics.classes)
        statistics.add_rows(z.array, axis, label_counts(z.array, axis, close))
    return _for_counts(statistics, z.shape, -1 if axis == z.array.ndim - 1 else axis, z.library)


def _for_counts(
    z: LabelStatistics, shape: tuple[int, ...], axis: int, library: str = "numpy", ignored: float | None = None
) -> Recommendation:
    """From what has been seen of dense labels, however it was seen; a label that is ignored is one of sigmoid's."""
    form, rows = f"{shape} {z.dtype}", many(z.rows, "row", "rows")
    sigmoid = call("sigmoid", ignore_index=None if ignored is None else mark(ignored))
    softmax = call("softmax", axis=None if axis == -1 else axis)
    if z.classes == 1:
        return Recommendation("sigmoid", "there is one class: one yes or no for each example", form, sigmoid)
    if not z.rows:
        loss, line = ("softmax", softmax) if ignored is None else ("sigmoid", sigmoid)
        return Recommendation(loss, "there are no labels to go by but their shape", form, line)
    if (missing := missing_mark(z)) is not None:
        why = f"several classes may be true at once, and {named(missing)} stands for a missing answer"
        return Recommendation("sigmoid", why, form, call("sigmoid", ignore_index=mark(missing)))
    if z.binary == z.one == z.rows:
        why = f"exactly one class is true in each of {rows}: the classes exclude one another"
        return Recommendation("softmax", why, f"{form}, one-hot", softmax)
    if z.binary == z.rows:
        none, more = z.none, z.several
        why = f"several classes may be true at once: of {rows} {none:,} have none and {more:,} have two or more"
        return Recommendation("sigmoid", why, f"{form}, rows of 0 and 1", sigmoid)
    in_unit = z.low >= 0.0 and z.top <= 1.0
    if in_unit and z.distributions == z.rows:
        why = f"each of {rows} sums to 1: distributions over classes that exclude one another"
        return Recommendation("softmax", why, f"{form}, distributions", softmax)
    if in_unit and z.distributions < 0.5 * z.rows:
        why = f"{z.rows - z.distributions:,} of {rows} do not sum to 1: probabilities of independent classes"
        return Recommendation("sigmoid", why, f"{form}, between 0 and 1", sigmoid)
    sums = f"from {z.lowest_sum:.4g} to {z.highest_sum:.4g}"
    divide = LINES[library].normalized.format(axis=axis)
    if z.low >= 0.0 and z.highest_sum > 1.5 and z.highest_sum - z.lowest_sum <= 1e-3 * z.highest_sum:
        what = "per cent" if abs(z.highest_sum - 100.0) < 0.5 else "counts"
        why = f"each of {rows} sums to {z.highest_sum:.4g}: {what} of classes that exclude one another"
        return Recommendation("softmax", why, form, softmax, divide)
    if z.negative >= z.rows / 2 and not z.values <= {-1.0, 0.0, 1.0}:
        why = f"{z.negative:,} of {rows} have negative entries: they look like logits of another model"
        return Recommendation("softmax", why, form, softmax, f"labels = withlogits.softmax(labels, axis={axis})")
    rescaled = None if in_unit else rescaling(z.low, z.top, z.values)
    if rescaled is not None:
        values, fix = rescaled
        return Recommendation("sigmoid", f"labels are {values}", form, sigmoid, fix)
    return Recommendation("softmax", f"{z.distributions:,} of {rows} sum to 1, {sums}", form, softmax, divide)
