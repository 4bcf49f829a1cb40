"""How labels and weights fit logits, decided by shapes alone: for the losses, the guide and the evaluation.

The first functions say how two shapes relate; those below decide what a loss takes, and raise for the rest.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from withlogits import errors
from withlogits.errors import Shape
from withlogits.options import SoftmaxOptions, changed


def rows(shape: Shape, axis: int) -> Shape:
    """The shape without one axis: that of the rows of logits with classes there."""
    return shape[:axis] + shape[axis + 1 :]


def rows_kept(shape: Shape, axis: int) -> Shape:
    """The shape of the rows with the class axis kept, of length 1."""
    return (*shape[:axis], 1, *shape[axis + 1 :])


def other_class_axis(labels: Shape, logits: Shape) -> int | None:
    """The first axis of the logits without which they have the labels' shape."""
    return next((axis for axis in range(len(logits)) if labels == rows(logits, axis)), None)


def moved_class_axis(labels: Shape, logits: Shape, axis: int) -> int | None:
    """The axis of dense labels on which the classes lie, where it is another than that of the logits."""
    if len(labels) != len(logits):
        return None
    for other in range(len(labels)):
        if other != axis and labels[other] == logits[axis] and rows(labels, other) == rows(logits, axis):
            return other
    return None


def is_transposed(labels: Shape, logits: Shape) -> bool:
    """Whether the labels have the axes of the logits in reverse order."""
    return labels == logits[::-1] and labels != logits


def longer_by_one(labels: Shape, logits: Shape) -> str | None:
    """Which of the two has one axis more, at the end and of length 1: "labels", "logits" or neither."""
    if labels == (*logits, 1):
        return "labels"
    return "logits" if logits == (*labels, 1) else None


def missing_axis(labels: Shape, logits: Shape) -> int | None:
    """The axis of length 1 that the labels lack, where the logits have it before their last axis."""
    return next((i for i in range(len(logits) - 1) if logits[i] == 1 and labels == rows(logits, i)), None)


def turned_axes(labels: Shape, logits: Shape) -> tuple[int, int] | None:
    """Two axes that make the labels' shape that of the logits once they are swapped."""
    if len(labels) != len(logits):
        return None
    differ = [i for i, (a, b) in enumerate(zip(labels, logits, strict=True)) if a != b]
    if len(differ) == 2 and labels[differ[0]] == logits[differ[1]] and labels[differ[1]] == logits[differ[0]]:
        return differ[0], differ[1]
    return None


def is_one_row(labels: Shape, logits: Shape, axis: int) -> bool:
    """Whether the labels are one row for all rows of the logits: (C,) or, for classes elsewhere, (1, C, 1)."""
    if labels == (logits[axis],) and axis == len(logits) - 1:
        return True
    return labels == tuple(n if i == axis else 1 for i, n in enumerate(logits))


def broadcasts(shape: Shape, target: Shape) -> bool:
    """Whether an array of this shape can stand for one of the target's shape."""
    return len(shape) <= len(target) and all(
        mine in (1, theirs) for mine, theirs in zip(shape, target[len(target) - len(shape) :], strict=True)
    )


# ------------------------------------------------------------------------------------------------ what a loss takes


def class_axis(axis: Any, shape: Shape, name: str = "logits") -> int:
    """The axis of the classes, counted from the front."""
    try:
        position = operator.index(axis)
    except TypeError:
        raise errors.integer("axis", axis) from None
    if not shape:
        raise errors.no_classes(name)
    if not -len(shape) <= position < len(shape):
        raise errors.axis_out_of_range(name, position, shape)
    position %= len(shape)
    if shape[position] == 0:
        raise errors.empty_classes(name, position, shape)
    return position


def reduced_axes(axis: Any, shape: Shape, name: str = "x") -> tuple[int, ...]:
    """Return the axes that `axis` stands for (None for all, an integer or a tuple), counted from the front."""
    given: tuple[Any, ...] = tuple(range(len(shape))) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple([class_axis(each, shape, name) for each in given])
    if len(set(axes)) < len(axes):
        raise errors.repeated_axis(given)
    return axes


def index_labels_misfit(labels: Shape, logits: Shape, axis: object, dtype: str, words: errors.Words) -> Exception:
    """What is wrong with labels of the sparse loss that are no integers: one-hot rows are told from indices."""
    if labels and labels == logits:
        return errors.one_hot_labels(labels, logits, class_axis(axis, logits), words)
    return errors.index_dtype(dtype, words)


def index_labels_keep_axis(labels: Shape, logits: Shape, axis: int, words: errors.Words = errors.NUMPY) -> bool:
    """Whether index labels keep the class axis with length 1, as (N, 1) for logits (N, C)."""
    if labels == rows(logits, axis):
        return False
    if labels == rows_kept(logits, axis):
        return True
    if labels == logits:
        raise errors.one_hot_labels(labels, logits, axis, words)
    other = other_class_axis(labels, logits)
    if other is not None:
        raise errors.classes_elsewhere(labels, logits, axis, other)
    turned = turned_axes(labels, rows(logits, axis)) or turned_axes(labels, rows_kept(logits, axis))
    if turned:
        raise errors.turned_axes(labels, logits, turned, axis)
    raise errors.index_shape(labels, logits, axis, rows(logits, axis), rows_kept(logits, axis))


def dense_labels_are_one_row(labels: Shape, logits: Shape, axis: int, integers: bool) -> bool:
    """Whether dense labels are one row for all; they may be integers, and are then not taken for a row if in doubt."""
    if labels == logits:
        return False
    # integers (C,) for logits (C, C) may be indices as well as one row of labels
    if labels in (rows(logits, axis), rows_kept(logits, axis)) and (integers or labels != (logits[axis],)):
        raise errors.index_labels(labels, logits, axis)
    if is_one_row(labels, logits, axis):
        return True
    if is_transposed(labels, logits):
        raise errors.transposed(labels, logits, axis)
    turned = turned_axes(labels, logits)
    if turned:
        raise errors.turned_axes(labels, logits, turned, axis)
    raise errors.label_shape(labels, logits, axis)


class SoftmaxFit(NamedTuple):
    """How the labels of a softmax loss fit its logits."""

    options: SoftmaxOptions  # with the axis counted from the front, and an index to ignore in 64 signed bits
    axis: int
    loss_shape: Shape
    keeps_axis: bool  # index labels have the class axis, with length 1
    one_row: bool  # one row of dense labels is for all rows of the logits
    ignore_index: int | None  # as it stands among the labels; None if none of them can be it


def softmax_fit(
    options: SoftmaxOptions, labels: Shape, logits: Shape, label_dtype: str, words: errors.Words = errors.NUMPY
) -> SoftmaxFit:
    """How labels fit logits; raises if they do not."""
    axis = class_axis(options.axis, logits)
    loss_shape, ignored, keeps_axis, one_row = rows(logits, axis), options.ignore_index, False, False
    if options.sparse:
        keeps_axis = index_labels_keep_axis(labels, logits, axis, words)
        loss_shape = labels if keeps_axis else loss_shape
        if ignored is not None and not index_range(label_dtype)[0] <= ignored < index_range(label_dtype)[1]:
            ignored = None
    else:
        one_row = dense_labels_are_one_row(labels, logits, axis, label_dtype.startswith(("int", "uint")))
    signed = ignored if ignored is None or ignored < 2**63 else ignored - 2**64
    resolved = changed(options, axis=axis, ignore_index=signed)
    return SoftmaxFit(resolved, axis, loss_shape, keeps_axis, one_row, ignored)


def index_range(dtype: str) -> tuple[int, int]:
    """The integers that labels of this dtype are compared with: 64 bits, signed but for uint64."""
    return (0, 2**64) if dtype == "uint64" else (-(2**63), 2**63)


def check_sigmoid_labels(labels: Shape, logits: Shape) -> None:
    """Labels of independent classes have the logits' shape exactly."""
    if labels != logits:
        raise sigmoid_misfit(labels, logits)


def sigmoid_misfit(labels: Shape, logits: Shape) -> ValueError:
    """What is wrong with labels of independent classes in another shape than the logits'."""
    longer = longer_by_one(labels, logits)
    if longer:
        return errors.trailing_one(labels, logits, longer)
    missing = missing_axis(labels, logits)
    if missing is not None:
        return errors.missing_axis(labels, logits, missing)
    if len(logits) > 1 and labels == logits[:-1]:
        return errors.index_labels_for_sigmoid(labels, logits)
    turned = turned_axes(labels, logits) if len(logits) > 2 else None
    if turned:
        return errors.turned_axes(labels, logits, turned)
    if is_transposed(labels, logits):
        return errors.transposed(labels, logits)
    for axis in (i for i in range(len(logits) - 1) if logits[i] == 1):
        turned = turned_axes(labels, rows(logits, axis))
        if turned:
            return errors.turned_axes(labels, logits, turned, missing=axis)
    return errors.label_shape(labels, logits)


def check_weight(name: str, shape: Shape, logits: Shape, fit: SoftmaxFit | None) -> None:
    """Weights of classes are (C,); those of losses and elements broadcast. `fit` is None for the sigmoid family."""
    if fit is not None and name in SoftmaxOptions.PER_CLASS:
        if shape != (logits[fit.axis],):
            raise errors.class_weight_shape(name, shape, logits[fit.axis])
        return
    target, of = (logits, "logits") if name == "pos_weight" else (logits if fit is None else fit.loss_shape, "loss")
    if not broadcasts(shape, target):
        raise errors.weight_shape(name, shape, target, of)
    # Sequences, (N, T, C), are let be: their length may be C by chance, and their last axis is that of the classes.
    if name == "pos_weight" and len(shape) == 1 and len(logits) > 3 and 1 < shape[0] == logits[1] == logits[-1]:
        raise errors.ambiguous_pos_weight(shape, logits)
