"""Do labels and logits fit together at all: what shapes and dtypes say, and how to go on as if it were mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter, methodcaller
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.guide.arrays import MISSING_MARKS, Given, bfloat16, is_binary, is_whole
from withlogits.guide.findings import Finding, call, finding
from withlogits.guide.lines import LINES
from withlogits.statistics.accumulated import closeness
from withlogits.statistics.summary import is_known

Array = NDArray[Any]


@dataclass
class Pair:
    """Labels and logits on their way to fit together; what stands in the way is in `findings`."""

    labels: Given
    logits: Given
    loss: str | None  # as asked for
    axis: int  # as asked for
    options: dict[str, Any]  # that a call for index labels repeats
    findings: list[Finding] = field(default_factory=list)
    hopeless: bool = False  # nothing can be computed
    recipe: list[tuple[str, Callable[[Array], Array]]] = field(default_factory=list)  # what mended the arrays

    @property
    def kind(self) -> str:
        """The loss that is looked at: the one asked for, or the one that fits the labels."""
        return self.loss or "sparse"

    def report(self, code: str, evidence: str, fix: str, **kind: Any) -> None:
        self.findings.append(finding(code, evidence, fix, **kind))

    def turn(self, name: str, into: Callable[[Array], Array], **known: Any) -> None:
        """Go on with what this makes of the labels or the logits; it can be pickled with a meter."""
        self.recipe.append((name, into))
        given: Given = getattr(self, name)
        setattr(self, name, replace(given, array=into(given.array), **known))


def fitted(labels: Given, logits: Given, loss: str | None, axis: int, options: dict[str, Any]) -> Pair:
    """Go through what can be wrong with shapes and dtypes, and mend it for the rest of the diagnosis."""
    pair = Pair(labels, logits, loss, axis, options)
    _mend_voids(pair, "labels")
    _mend_voids(pair, "logits")
    pair.hopeless = _is_swapped(pair) or _is_rounded(pair)
    if pair.hopeless:
        return pair
    if not pair.logits.shape:
        if loss not in (None, "sigmoid"):
            shapes.class_axis(axis, ())
        pair.loss = "sigmoid"
        if pair.labels.shape:
            _refuse(pair)
        return pair
    _mend_trailing_one(pair)
    x, z = pair.logits, pair.labels
    if loss == "sigmoid" or (x.array.ndim == 1 and z.shape == x.shape and loss is None):
        pair.loss = "sigmoid"
        _fit_sigmoid(pair)
    else:
        pair.axis = shapes.class_axis(axis, x.shape)
        _fit_softmax(pair)
    return pair


def _fit_sigmoid(pair: Pair) -> None:
    x, z = pair.logits, pair.labels
    if z.shape == x.shape:
        return
    if x.array.ndim > 1 and z.shape == x.shape[:-1] and z.array.dtype.kind != "b":
        where = "class numbers, where the sigmoid loss takes one yes or no for each logit"
        pair.report("WL202", f"labels {z.shape} {z.dtype} for logits {x.shape}: {where}", call("sparse"))
        pair.loss, pair.axis, pair.options = "sparse", x.array.ndim - 1, {}
        _fit_indices(pair)
    elif not _mend_transposed(pair):
        _refuse(pair)


def _fit_softmax(pair: Pair) -> None:
    x, z, axis = pair.logits, pair.labels, pair.axis
    if z.shape == x.shape:
        _fit_dense(pair)
        return
    if z.shape == shapes.rows_kept(x.shape, axis):
        pair.turn("labels", partial(np.squeeze, axis=axis))
        z = pair.labels
    other = axis if z.shape == shapes.rows(x.shape, axis) else shapes.other_class_axis(z.shape, x.shape)
    if other is not None:
        if other != axis:
            evidence = f"labels {z.shape} are the logits' shape {x.shape} without axis {other}, not {axis}"
            pair.report("WL211", evidence, call("sparse", axis=other, **pair.options))
            pair.axis, pair.loss = other, "sparse"
        _fit_indices(pair)
    elif _mend_transposed(pair):
        _fit_dense(pair)
    elif (elsewhere := _classes_of_logits(z.array, x.shape, axis)) is not None:
        evidence = f"labels {z.shape} have their classes on axis {axis}, and so logits {x.shape} on axis {elsewhere}"
        pair.report("WL211", evidence, f"logits = {LINES[x.library].moveaxis}(logits, {elsewhere}, {axis})")
        pair.turn("logits", partial(np.moveaxis, source=elsewhere, destination=axis))
        _fit_dense(pair)
    elif (moved := shapes.moved_class_axis(z.shape, x.shape, axis)) is not None:
        evidence = f"labels {z.shape} have their classes on axis {moved}, logits {x.shape} on axis {axis}"
        pair.report("WL211", evidence, f"labels = {LINES[z.library].moveaxis}(labels, {moved}, {axis})")
        pair.turn("labels", partial(np.moveaxis, source=moved, destination=axis))
        _fit_dense(pair)
    elif pair.loss != "sparse" and z.shape == (x.shape[axis],) and axis == x.array.ndim - 1:
        pair.loss = "softmax"  # one row of labels for all, as the loss allows
        pair.turn("labels", partial(np.broadcast_to, shape=x.shape))
    else:
        _refuse(pair)


def _fit_dense(pair: Pair) -> None:
    """Labels in the logits' shape: dense, whatever was asked for."""
    x, z, axis = pair.logits, pair.labels, pair.axis
    if pair.loss == "sparse" and x.shape[axis] == 1 and z.integral:
        pair.turn("labels", partial(np.squeeze, axis=axis))  # (N, 1) indices of one class
    elif pair.loss == "sparse":
        dense = "softmax" if sums_to_one(z.array, axis) else "sigmoid"
        what, fix = "more than class numbers would need", call(dense)
        if is_one_hot(z.array, axis):
            what = "exactly one 1 in every row"
            fix = LINES[z.library].indices.format(axis=axis if axis < x.array.ndim - 1 else -1)
            pair.turn("labels", methodcaller("argmax", axis))
        else:
            pair.loss = dense
        takes = f"the sparse loss takes class numbers of shape {shapes.rows(x.shape, axis)}"
        pair.report("WL201", f"labels {z.shape} have the logits' shape, with {what}; {takes}", fix)
        return
    if pair.loss is None:
        several = has_missing(z.array, pair.options.get("ignore_index")) or x.shape[axis] == 1
        pair.loss = "softmax" if not several and sums_to_one(z.array, axis) else "sigmoid"
    if z.array.ndim > 2 and z.array.size and not is_one_hot(z.array, axis):
        _mend_turned(pair)


def _mend_turned(pair: Pair) -> None:
    """WL211: are rows one-hot along another axis, of labels alone or of both arrays."""
    x, z, axis = pair.logits, pair.labels, pair.axis
    others = [i for i in range(z.array.ndim) if i != axis and z.shape[i] > 1 and is_one_hot(z.array, i)]
    if len(others) != 1:
        return
    (other,) = others
    moved = np.moveaxis(z.array, other, axis)
    evidence = f"labels {z.shape} are one-hot along axis {other}, and not along axis {axis}"
    if moved.shape == x.shape and _agreement(x.array, moved, axis) > _agreement(x.array, z.array, other):
        pair.report("WL211", evidence, f"labels = {LINES[z.library].moveaxis}(labels, {other}, {axis})")
        pair.turn("labels", partial(np.moveaxis, source=other, destination=axis))
    else:
        pair.report("WL211", evidence, call("softmax", axis=other))
        pair.axis = other
    pair.loss = "softmax"


def _agreement(x: Array, z: Array, axis: int) -> float:
    """How often the largest logit is that of the class."""
    return float(np.mean(x.argmax(axis) == z.argmax(axis)))


def _classes_of_logits(z: Array, logits: tuple[int, ...], axis: int) -> int | None:
    """The axis of the logits that is to be moved, as for distributions (N, T, C) and logits (N, C, T)."""
    if z.ndim != len(logits) or z.ndim < 3 or not z.size:
        return None
    for of_logits in range(z.ndim):
        fits = z.shape[axis] == logits[of_logits] and shapes.rows(z.shape, axis) == shapes.rows(logits, of_logits)
        if of_logits != axis and fits and sums_to_one(z, axis):
            return of_logits
    return None


def _fit_indices(pair: Pair) -> None:
    """Labels in the shape of the rows."""
    x, z = pair.logits, pair.labels
    classes = x.shape[pair.axis]
    if not z.integral:
        if not is_whole(z.array):
            pair.loss = "sparse"
            _refuse(pair)
        evidence = f"labels {z.shape} are {z.dtype}"
        if z.array.size and z.array.dtype.kind != "b":
            low, top = float(z.array.min()), float(z.array.max())
            evidence = f"labels {z.shape} are whole numbers from {low:g} to {top:g} in {z.dtype}"
        limit = errors.EXACT_INDICES.get(z.dtype)
        if z.array.size and limit is not None and classes > limit:
            evidence += f"; {z.dtype} holds no odd number above {limit} exactly, and there are {classes} classes"
        pair.report("WL208", evidence, LINES[z.library].as_integers)
        pair.turn("labels", methodcaller("astype", np.int64))
        pair.loss = "sparse"
        return
    most = np.iinfo(z.array.dtype).max
    if most < classes - 1 and z.array.size and (z.array.max() > 0.75 * most or z.array.min() < 0):
        evidence = f"labels {z.shape} are {z.dtype}, which ends at {most}, and there are {classes:,} classes"
        fix = "# write the labels as int64 where they are made: a number that was wrapped cannot be brought back"
        pair.report("WL208", evidence, fix, severity="warning", title="a dtype that cannot hold the class numbers")
    if pair.loss == "softmax":
        shown = {} if pair.axis == x.array.ndim - 1 else {"axis": pair.axis}
        where = "class numbers, where the softmax loss takes rows of the logits' shape that sum to 1"
        fix = call("sparse", **(shown | pair.options))
        pair.report("WL202", f"labels {z.shape} {z.dtype} for logits {x.shape}: {where}", fix)
    pair.loss = "sparse"


def _refuse(pair: Pair) -> NoReturn:
    """Raise for shapes of which nothing can be made: the loss itself says what it wants."""
    x, z = pair.logits, pair.labels
    if pair.loss != "sigmoid" and x.shape:
        if pair.loss == "sparse" or z.array.ndim < x.array.ndim:
            shapes.index_labels_keep_axis(z.shape, x.shape, pair.axis)
        shapes.dense_labels_are_one_row(z.shape, x.shape, pair.axis, z.integral)
    raise shapes.sigmoid_misfit(z.shape, x.shape)


def _mend_voids(pair: Pair, name: str) -> None:
    """WL109."""
    given: Given = getattr(pair, name)
    if given.array.dtype.kind != "V" or given.floating:
        return
    if given.array.dtype != np.dtype("V2"):
        raise errors.logits_dtype(name, given.dtype)
    evidence = f"{name} {given.shape} are 2-byte voids (|V2), which is how numpy.save stores bfloat16"
    pair.report("WL109", evidence, f'import ml_dtypes; {name} = {name}.view("uint16").view(ml_dtypes.bfloat16)')
    pair.turn(name, bfloat16, dtype="bfloat16")


def _is_swapped(pair: Pair) -> bool:
    """WL104: then nothing more can be said."""
    labels, logits = pair.labels, pair.logits
    z, x = labels.array, logits.array
    if not labels.floating or not z.size or not x.size:
        return False
    if logits.floating and not is_whole(x[(0,) * (x.ndim - 1)] if x.ndim else x):
        return False  # a row of real numbers: no look at all the others
    indices = not logits.floating and x.shape == z.shape[:-1]  # then the labels may be softmax outputs, too
    if not (z < (np.inf if indices else 0.0)).any() or is_whole(z):
        return False
    if not logits.floating:
        shown = logits.dtype
    elif x.ndim >= z.ndim - 1 and is_binary(x):
        shown = "nothing but 0 and 1"
    elif x.ndim == z.ndim - 1 and is_whole(x):
        shown = "whole numbers"
    else:
        return False
    low = float(np.nanmin(z.astype(np.float64)))
    evidence = f"labels {z.shape} are real numbers down to {low:.4g}, and logits {x.shape} are {shown}"
    pair.report("WL104", evidence, "labels, logits = logits, labels")
    return True


def _is_rounded(pair: Pair) -> bool:
    """WL402: what argmax gives, where logits are expected."""
    x = pair.logits
    if x.floating:
        return False
    evidence = f"logits {x.shape} are {x.dtype}: whole numbers, as argmax or rounding leaves them, carry no gradient"
    pair.report("WL402", evidence, "# pass the model's output itself, before argmax, rounding or a threshold")
    return True


def _mend_trailing_one(pair: Pair) -> None:
    """WL210."""
    x, z = pair.logits, pair.labels
    longer = shapes.longer_by_one(z.shape, x.shape)
    if longer is None or pair.loss not in (None, "sigmoid"):
        return
    evidence = f"labels {z.shape} and logits {x.shape} differ by an axis of length 1"
    if max(len(z.shape), len(x.shape)) == 2:
        evidence += f", and would broadcast to {np.broadcast_shapes(z.shape, x.shape)}"
    pair.report("WL210", evidence, f"{longer} = {longer}[..., 0]")
    pair.turn(longer, itemgetter((..., 0)))
    pair.loss = "sigmoid"


def _mend_transposed(pair: Pair) -> bool:
    """WL212: is it so."""
    x, z = pair.logits, pair.labels
    if z.array.ndim != 2 or not shapes.is_transposed(z.shape, x.shape):
        return False
    evidence = f"labels {z.shape} are the logits' shape {x.shape} turned round"
    pair.report("WL212", evidence, LINES[z.library].transposed)
    pair.turn("labels", np.transpose)
    return True


def is_one_hot(z: Array, axis: int) -> bool:
    """Is every row a single 1 among 0s."""
    return is_binary(z) and bool((z.sum(axis=axis, dtype=np.float64) == 1.0).all())


def sums_to_one(z: Array, axis: int) -> bool:
    """Does the first part of the rows, at least, sum to 1: enough to choose a loss, of which the survey then judges."""
    if not z.size:
        return True
    close = np.abs(z.sum(axis=axis, dtype=np.float64) - 1.0) <= closeness(z.dtype.name, z.shape[axis])
    if z.dtype.kind in "biu" or is_binary(z):
        return bool(close.all())
    # a soft row or two that miss 1 are a mistake of the labels, not another kind of labels
    return float(close.mean()) >= 0.5 or (bool((z < 0).any()) and not has_missing(z, None))


def has_missing(z: Array, ignored: float | None) -> bool:
    """Are all numbers 0 or 1 but for a mark of what is missing: the ignored one, or those of `MISSING_MARKS`."""
    if ignored is not None and ignored not in (0, 1):
        return not bool(is_known(z, ignored).all())
    marked = np.isin(z, MISSING_MARKS)
    known = (z == 0) | (z == 1) | marked | (z != z)
    return bool(marked.any() and (z == 1).any() and known.all())
