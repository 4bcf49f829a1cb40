"""Do labels and logits fit together at all: what shapes and dtypes say, and how to go on as if it were mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.guide.arrays import Given, from_voids
from withlogits.guide.findings import CODES, Finding, Severity
from withlogits.statistics.accumulated import closeness

Array = NDArray[Any]

FUNCTIONS = {"sigmoid": errors.SIGMOID, "softmax": errors.DENSE, "sparse": errors.SPARSE}
LOSSES = {function: loss for loss, function in FUNCTIONS.items()} | {"weighted_cross_entropy_with_logits": "sigmoid"}


def finding(code: str, severity: Severity, evidence: str, fix: str, title: str | None = None) -> Finding:
    return Finding(code, severity, title or CODES[code], evidence, fix)


def call(loss: str, **options: Any) -> str:
    """The line that computes this loss."""
    shown = "".join(f", {name}={value}" for name, value in options.items() if value is not None)
    return f"loss = withlogits.{FUNCTIONS[loss]}(labels=labels, logits=logits{shown})"


@dataclass
class Pair:
    """Labels and logits on their way to fit together; what stands in the way is in `findings`."""

    labels: Given
    logits: Given
    loss: str | None  # as asked for
    axis: int  # as asked for
    findings: list[Finding]
    hopeless: bool = False  # nothing can be computed
    recipe: list[tuple[str, Callable[[Array], Array]]] = field(default_factory=list)  # what mended the arrays

    @property
    def kind(self) -> str:
        """The loss that is looked at: the one asked for, or the one that fits the labels."""
        return self.loss or "sparse"

    def mend(self, code: str, severity: Severity, evidence: str, fix: str) -> None:
        self.findings.append(finding(code, severity, evidence, fix))

    def turn(self, name: str, into: Callable[[Array], Array]) -> Given:
        """Go on with what this makes of the labels or the logits."""
        self.recipe.append((name, into))
        turned: Given = getattr(self, name)
        turned = turned.seen_as(into(turned.array))
        setattr(self, name, turned)
        return turned

    def give_up(self) -> Pair:
        self.hopeless = True
        return self


def fitted(labels: Given, logits: Given, loss: str | None, axis: int, options: dict[str, Any]) -> Pair:
    """Go through what can be wrong with shapes and dtypes, and mend it for the rest of the diagnosis."""
    pair = Pair(labels, logits, loss, axis, [])
    for name in ("labels", "logits"):
        _mend_voids(pair, name)
    if pair.hopeless or _mend_swapped(pair):
        return pair
    if not pair.logits.floating:
        return _integers_as_logits(pair)
    if not pair.logits.shape:
        if loss not in (None, "sigmoid"):
            shapes.class_axis(axis, ())
        pair.loss = pair.loss or "sigmoid"
        return pair if not pair.labels.shape else _unfit(pair)
    _mend_trailing_one(pair)
    x, z = pair.logits, pair.labels
    if loss == "sigmoid" or (x.array.ndim == 1 and z.shape == x.shape and loss is None):
        pair.loss = "sigmoid"
        return _sigmoid(pair)
    axis = shapes.class_axis(axis, x.shape)
    pair.axis = axis
    if z.shape == x.shape:
        return _same_shape(pair)
    if z.shape == shapes.rows_kept(x.shape, axis):
        z = pair.turn("labels", partial(np.squeeze, axis=axis))
    if z.shape == shapes.rows(x.shape, axis):
        return _indices(pair, options)
    other = shapes.other_class_axis(z.shape, x.shape)
    if other is not None:
        pair.mend(
            "WL211",
            "error",
            f"labels {z.shape} are the logits' shape {x.shape} without axis {other}, not {axis}",
            call("sparse", axis=other, **options),
        )
        pair.axis, pair.loss = other, "sparse"
        return _indices(pair, options)
    if z.array.ndim == 2 and shapes.is_transposed(z.shape, x.shape):
        pair.mend(
            "WL212",
            "error",
            f"labels {z.shape} are the logits' shape {x.shape} turned round",
            "labels = labels.T",
        )
        pair.turn("labels", np.transpose)
        return _same_shape(pair)
    moved = shapes.moved_class_axis(z.shape, x.shape, axis)
    if moved is not None:
        pair.mend(
            "WL211",
            "error",
            f"labels {z.shape} have their classes on axis {moved}, logits {x.shape} on axis {axis}",
            f"labels = {'numpy.moveaxis' if z.tensor is None else 'torch.movedim'}(labels, {moved}, {axis})",
        )
        pair.turn("labels", partial(np.moveaxis, source=moved, destination=axis))
        return _same_shape(pair)
    if loss != "sparse" and z.shape == (x.shape[axis],) and axis == x.array.ndim - 1:
        pair.loss = "softmax"  # one row of labels for all, as the loss allows
        pair.turn("labels", partial(_for_all, like=x.shape))
        return pair
    return _unfit(pair)


def _unfit(pair: Pair) -> Pair:
    """Shapes of which nothing can be made: the loss itself says what it wants."""
    x, z = pair.logits, pair.labels
    try:
        if pair.loss == "sigmoid" or not x.shape:
            raise shapes.sigmoid_misfit(z.shape, x.shape)
        if pair.loss == "sparse" or z.array.ndim < x.array.ndim:
            shapes.index_labels_keep_axis(z.shape, x.shape, shapes.class_axis(pair.axis, x.shape))
        shapes.dense_labels_are_one_row(z.shape, x.shape, shapes.class_axis(pair.axis, x.shape), z.integral)
    except ValueError as error:
        raise ValueError(str(error)) from None
    raise shapes.sigmoid_misfit(z.shape, x.shape)


def _mend_voids(pair: Pair, name: str) -> None:
    """WL109."""
    given: Given = getattr(pair, name)
    if given.array.dtype.kind != "V" or given.floating:
        return
    if given.array.dtype != np.dtype("V2"):
        raise errors.logits_dtype(name, given.dtype)
    pair.mend(
        "WL109",
        "error",
        f"{name} {given.shape} are 2-byte voids (|V2), which is how numpy.save stores bfloat16",
        f'import ml_dtypes; {name} = {name}.view("uint16").view(ml_dtypes.bfloat16)',
    )
    setattr(pair, name, replace(pair.turn(name, from_voids), dtype="bfloat16"))


def _mend_swapped(pair: Pair) -> bool:
    """WL104: is it so; then nothing more can be said."""
    labels, logits = pair.labels, pair.logits
    if not labels.floating or not labels.array.size or not logits.array.size:
        return False
    x = logits.array
    if logits.floating and not _whole(x[(0,) * (x.ndim - 1)] if x.ndim else x):
        return False  # a row of real numbers: no look at all the others
    with np.errstate(invalid="ignore"):
        real = bool((labels.array < 0.0).any()) and not bool(
            (labels.array == np.floor(labels.array.astype(np.float64))).all()
        )
    if not real:
        return False
    if logits.floating and x.ndim >= labels.array.ndim - 1:
        whole = bool(((x == 0.0) | (x == 1.0)).all())
        if not whole and not (x.ndim == labels.array.ndim - 1 and _whole(x)):
            return False
        shown = "nothing but 0 and 1" if whole else "whole numbers"
    elif logits.floating:
        return False
    else:
        shown = f"{logits.dtype}"
    low = float(np.nanmin(labels.array.astype(np.float64)))
    pair.mend(
        "WL104",
        "error",
        f"labels {labels.shape} are real numbers down to {low:.4g}, and logits {logits.shape} are {shown}",
        "labels, logits = logits, labels",
    )
    pair.hopeless = True
    return True


def _whole(x: Array) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((x == np.floor(x.astype(np.float64))).all())


def _integers_as_logits(pair: Pair) -> Pair:
    """WL402: what argmax gives, where logits are expected."""
    x = pair.logits
    pair.mend(
        "WL402",
        "error",
        f"logits {x.shape} are {x.dtype}: whole numbers, as argmax or rounding leaves them, carry no gradient",
        "# pass the model's output itself, before argmax, rounding or a threshold",
    )
    return pair.give_up()


def _mend_trailing_one(pair: Pair) -> None:
    """WL210."""
    x, z = pair.logits, pair.labels
    if pair.loss not in (None, "sigmoid"):
        return
    longer = shapes.longer_by_one(z.shape, x.shape)
    if longer is None:
        return
    evidence = f"labels {z.shape} and logits {x.shape} differ by an axis of length 1"
    if max(len(z.shape), len(x.shape)) == 2:
        evidence += f", and would broadcast to {np.broadcast_shapes(z.shape, x.shape)}"
    pair.mend("WL210", "error", evidence, f"{longer} = {longer}[..., 0]")
    pair.turn(longer, _without_trailing_one)
    pair.loss = "sigmoid"


def _sigmoid(pair: Pair) -> Pair:
    x, z = pair.logits, pair.labels
    if z.shape == x.shape:
        return pair
    if x.array.ndim > 1 and z.shape == x.shape[:-1] and z.array.dtype.kind != "b":
        pair.mend(
            "WL202",
            "error",
            f"labels {z.shape} {z.dtype} for logits {x.shape}: class numbers, where the sigmoid loss takes one yes or "
            "no for each logit",
            call("sparse"),
        )
        pair.loss, pair.axis = "sparse", x.array.ndim - 1
        return _indices(pair, {})
    if z.array.ndim == 2 and z.shape == x.shape[::-1]:
        pair.mend(
            "WL212", "error", f"labels {z.shape} are the logits' shape {x.shape} turned round", "labels = labels.T"
        )
        pair.turn("labels", np.transpose)
        return pair
    return _unfit(pair)


def _same_shape(pair: Pair) -> Pair:
    """Labels in the logits' shape: dense, whatever was asked for."""
    x, z, axis = pair.logits, pair.labels, pair.axis
    if pair.loss == "sparse":
        if x.shape[axis] == 1 and z.integral:
            pair.turn("labels", partial(np.squeeze, axis=axis))  # (N, 1) indices of one class
            return pair
        hot = is_one_hot(z.array, axis)
        if hot:
            fix = f"labels = labels.argmax({axis if axis < x.array.ndim - 1 else -1})"
        else:
            fix = call("softmax" if sums_to_one(z.array, axis) else "sigmoid")
        what = "exactly one 1 in every row" if hot else "more than class numbers would need"
        pair.mend(
            "WL201",
            "error",
            f"labels {z.shape} have the logits' shape, with {what}; the sparse loss takes class numbers of shape "
            f"{shapes.rows(x.shape, axis)}",
            fix,
        )
        if hot:
            pair.turn("labels", partial(_largest, axis=axis))
        else:
            pair.loss = "softmax" if sums_to_one(z.array, axis) else "sigmoid"
        return pair
    if pair.loss is None:
        pair.loss = "softmax" if x.shape[axis] > 1 and sums_to_one(z.array, axis) else "sigmoid"
    return pair


def _indices(pair: Pair, options: dict[str, Any]) -> Pair:
    """Labels in the shape of the rows."""
    x, z = pair.logits, pair.labels
    shown = {"axis": pair.axis} if pair.axis != x.array.ndim - 1 else {}
    if z.array.dtype.kind == "b" and x.shape[pair.axis] <= 2:
        z = pair.turn("labels", _whole_numbers)
    elif z.floating or z.array.dtype.kind == "b":
        values = z.array.astype(np.float64)
        if not bool((values == np.floor(values)).all()):
            return _unfit(replace(pair, loss="sparse"))
        limit = errors.EXACT_INDICES.get(z.dtype)
        extra = ""
        if limit is not None and x.shape[pair.axis] > limit:
            extra = f"; {z.dtype} holds no odd number above {limit} exactly, and there are {x.shape[pair.axis]} classes"
        pair.mend(
            "WL208",
            "error",
            f"labels {z.shape} are whole numbers from {values.min():g} to {values.max():g} in {z.dtype}{extra}"
            if z.array.size
            else f"labels {z.shape} are {z.dtype}",
            "labels = labels.astype(numpy.int64)" if z.tensor is None else "labels = labels.long()",
        )
        z = pair.turn("labels", _whole_numbers)
    elif pair.loss == "softmax":
        pair.mend(
            "WL202",
            "error",
            f"labels {z.shape} {z.dtype} for logits {x.shape}: class numbers, where the softmax loss takes rows of the "
            "logits' shape that sum to 1",
            call("sparse", **(shown | options)),
        )
    pair.loss = "sparse"
    return pair


def is_one_hot(z: Array, axis: int) -> bool:
    """Is every row a single 1 among 0s."""
    return bool(((z == 0) | (z == 1)).all()) and bool((z.sum(axis=axis, dtype=np.float64) == 1.0).all())


def sums_to_one(z: Array, axis: int) -> bool:
    """Does the first part of the rows, at least, sum to 1: enough to choose a loss, of which the survey then judges."""
    sums = z.sum(axis=axis, dtype=np.float64)
    close = np.abs(sums - 1.0) <= closeness(z.dtype.name, z.shape[axis])
    if not z.size:
        return True
    if z.dtype.kind in "biu":
        return bool(close.all())
    # a soft row or two that miss 1 are a mistake of the labels, not another kind of labels
    binary = bool(((z == 0) | (z == 1)).all())
    return bool(close.all()) if binary else float(close.mean()) >= 0.5 or bool((z < 0).any())


# What mends arrays, as functions that can be pickled with a meter.


def _for_all(row: Array, like: tuple[int, ...]) -> Array:
    return np.broadcast_to(row, like)


def _without_trailing_one(a: Array) -> Array:
    last: Array = a[..., 0]
    return last


def _largest(a: Array, axis: int) -> Array:
    places: Array = a.argmax(axis)
    return places


def _whole_numbers(a: Array) -> Array:
    return a.astype(np.float64).astype(np.int64) if a.dtype.kind not in "iub" else a.astype(np.int64)
