"""Which loss fits labels, from the labels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.guide.arrays import Given, given, silent
from withlogits.guide.findings import Recommendation
from withlogits.guide.fit import call
from withlogits.guide.rules.labels import rescaling
from withlogits.statistics.accumulated import LabelStatistics, closeness
from withlogits.statistics.rows import label_counts

Array = NDArray[Any]

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
    if num_classes is not None and z.shape and z.shape[-1] == num_classes and z.array.ndim > 1:
        return for_rows(z, z.array, z.array.ndim - 1)
    integral = _whole(z.array)
    if z.array.ndim >= 2 and z.shape[-1] > 1 and z.array.size and not (integral and z.array.max() > 1):
        return for_rows(z, z.array, z.array.ndim - 1)
    return for_numbers(z, z.array, num_classes)


def for_numbers(z: Given, array: Array, classes: int | None) -> Recommendation:
    """One number for each example: the number of a class, or one yes or no."""
    form = f"{z.shape} {z.dtype}"
    if array.dtype.kind not in "iub":
        array = array[np.isfinite(array)]  # what is NaN or infinite says nothing about the others
    if not array.size:
        loss = "sigmoid" if array.dtype.kind in "bf" else "sparse"
        return Recommendation(loss, "there are no labels to go by but their dtype", form, call(loss))
    values = np.unique(array.astype(np.float64)) if array.dtype.kind not in "iu" else _some(array)
    low, high = float(array.min()), float(array.max())
    if classes in (None, 1) and set(values.tolist()) <= {-1.0, 1.0} and low < 0:
        return Recommendation(
            "sigmoid", "each example is a yes or a no, written as +1 and -1", form, call("sigmoid"),
            "labels = (labels + 1) / 2",
        )  # fmt: skip
    yes_no = low >= 0.0 and high <= 1.0
    if yes_no and classes in (None, 1) and (array.dtype.kind not in "iu" or set(values.tolist()) <= {0.0, 1.0}):
        yes = float(array.astype(np.float64).sum())
        why = f"each example is one yes or no: {yes:,.4g} of {array.size:,} are yes; the model gives one logit"
        return Recommendation("sigmoid", why, f"{form}, between 0 and 1", call("sigmoid"))
    negative = int(np.count_nonzero(array < 0)) if low < 0 else 0
    inside = array[array >= 0] if negative else array
    found = int(inside.max()) + 1 if inside.size else 0
    why = f"{ONE_NUMBER}: {found:,} classes in {array.size:,} labels"
    options: dict[str, Any] = {}
    if negative:
        marks = np.unique(array[array < 0])
        why += f"; {negative:,} negative ones look like padding"
        options["ignore_index"] = int(marks[0]) if len(marks) == 1 else None
    transform = ""
    if not _whole(array):
        return Recommendation(
            "sigmoid", f"labels from {low:g} to {high:g} are neither class numbers nor within 0 and 1", form,
            call("sigmoid"), f"labels = (labels - {low:g}) / {high - low:g}",
        )  # fmt: skip
    if array.dtype.kind not in "iu":
        transform = "labels = labels.astype(numpy.int64)" if z.tensor is None else "labels = labels.long()"
    return Recommendation("sparse", why, f"{form}, class numbers", call("sparse", **options), transform)


def for_rows(z: Given, array: Array, axis: int) -> Recommendation:
    """A row with an entry for each class."""
    statistics = LabelStatistics(z.dtype, False, array.shape[axis])
    if array.size:
        close = closeness(z.dtype, statistics.classes)
        statistics.add_rows(array, axis, label_counts(array, axis, close))
    return of_statistics(statistics, z.shape, axis if axis != array.ndim - 1 else -1)


def of_statistics(z: LabelStatistics, shape: tuple[int, ...], axis: int = -1) -> Recommendation:
    """From what has been seen of dense labels, however it was seen."""
    form = f"{shape} {z.dtype}"
    shown: dict[str, Any] = {} if axis == -1 else {"axis": axis}
    if z.classes == 1:
        return Recommendation("sigmoid", "there is one class: one yes or no for each example", form, call("sigmoid"))
    if not z.rows:
        return Recommendation("softmax", "there are no labels to go by but their shape", form, call("softmax", **shown))
    rows = f"{z.rows:,}"
    if z.binary == z.rows:
        none, one, more = z.none, z.one, z.several
        if one == z.rows:
            return Recommendation(
                "softmax", f"exactly one class is true in each of {rows} rows: the classes exclude one another",
                f"{form}, one-hot", call("softmax", **shown),
            )  # fmt: skip
        why = f"several classes may be true at once: of {rows} rows {none:,} have none and {more:,} have two or more"
        return Recommendation("sigmoid", why, f"{form}, rows of 0 and 1", call("sigmoid"))
    if z.low >= 0.0 and z.top <= 1.0:
        if z.distributions == z.rows:
            return Recommendation(
                "softmax", f"each of {rows} rows sums to 1: distributions over classes that exclude one another",
                f"{form}, distributions", call("softmax", **shown),
            )  # fmt: skip
        if z.distributions < 0.5 * z.rows:
            off = z.rows - z.distributions
            why = f"{off:,} of {rows} rows do not sum to 1: probabilities of independent classes"
            return Recommendation("sigmoid", why, f"{form}, between 0 and 1", call("sigmoid"))
    rescaled = rescaling(z.low, z.top, z.values) if z.low < 0 or z.top > 1 else None
    if rescaled is not None:
        values, fix = rescaled
        return Recommendation("sigmoid", f"labels are {values}", form, call("sigmoid"), fix)
    return Recommendation(
        "softmax", f"{z.distributions:,} of {rows} rows sum to 1, from {z.lowest_sum:.4g} to "
        f"{z.highest_sum:.4g}", form, call("softmax", **shown), "labels = labels / labels.sum(-1, keepdims=True)",
    )  # fmt: skip


def _whole(array: Array) -> bool:
    if array.dtype.kind in "iub":
        return True
    wide = array.astype(np.float64)
    return bool((wide == np.floor(wide)).all())


def _some(array: Array) -> Array:
    """Some of the distinct values: enough to tell two values from many."""
    low, high = array.min(), array.max()
    return np.unique(array) if int(high) - int(low) <= 2 else np.array([low, high, low + 1])
