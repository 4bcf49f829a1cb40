"""Every error: its type and its whole text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
from withlogits import errors

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
weighted_loss = withlogits.weighted_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

X = np.zeros((4, 3))
Y = np.zeros(4, np.int64)
Z = np.eye(3)[[0, 1, 2, 0]]
DENSE, SPARSE, SIGMOID = errors.DENSE, errors.SPARSE, errors.SIGMOID
EXPECTED_FLOATS = "where float16, bfloat16, float32 or float64 is expected"


def sparse(**given: Any) -> Callable[[], Any]:
    return lambda: sparse_loss(**{"labels": Y, "logits": X, **given})


def dense(**given: Any) -> Callable[[], Any]:
    return lambda: softmax_loss(**{"labels": Z, "logits": X, **given})


def binary(**given: Any) -> Callable[[], Any]:
    return lambda: sigmoid_loss(**{"labels": Z, "logits": X, **given})


def both(loss: Any, wrt: Any = "logits", **given: Any) -> Callable[[], Any]:
    labels = Y if loss is sparse_loss else Z
    return lambda: value_and_grad(loss, wrt)(**{"labels": labels, "logits": X, **given})


CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "two positional arguments": (
        lambda: softmax_loss(Z, X),
        (
            f"{DENSE} takes its arguments by keyword, since labels and logits are easily swapped: "
            f"{DENSE}(labels=..., logits=...)"
        ),
    ),
    "a positional argument beside keywords": (
        lambda: sparse_loss(Y, logits=X, reduction="mean"),
        (
            f"{SPARSE} takes its arguments by keyword, since labels and logits are easily swapped: "
            f"{SPARSE}(labels=..., logits=..., reduction=...)"
        ),
    ),
    "positional, where more is required": (
        lambda: weighted_loss(Z, X, 2.0),
        (
            "weighted_cross_entropy_with_logits takes its arguments by keyword, "
            "since labels and logits are easily swapped: "
            "weighted_cross_entropy_with_logits(labels=..., logits=..., pos_weight=...)"
        ),
    ),
    "positional, sigmoid": (
        lambda: sigmoid_loss(Z, X),
        (
            f"{SIGMOID} takes its arguments by keyword, since labels and logits are easily swapped: "
            f"{SIGMOID}(labels=..., logits=...)"
        ),
    ),
    "positional, with a gradient": (
        lambda: value_and_grad(sparse_loss)(Y, X),
        (
            f"value_and_grad({SPARSE}) takes its arguments by keyword, since labels and logits are easily swapped: "
            f"value_and_grad({SPARSE})(labels=..., logits=...)"
        ),
    ),
    "an unknown argument": (
        both(weighted_loss, pos_weight=1.0, reduction="mean"),
        (
            "value_and_grad(weighted_cross_entropy_with_logits) has no argument 'reduction'; its arguments are "
            "labels, logits, pos_weight, name, ignore_index, out"
        ),
    ),
    "torch's name of an argument": (
        sparse(weight=[1.0, 2.0, 3.0], reduction="mean"),
        (
            f"{SPARSE} has no argument 'weight', which is called class_weight here; its arguments are labels, logits, "
            "axis, name, class_weight, class_offset, label_smoothing, ignore_index, temperature, softcap, z_loss, "
            "sample_weight, reduction"
        ),
    ),
    "Keras's name of an argument": (
        lambda: sigmoid_loss(y_true=Z, logits=X),
        (
            f"{SIGMOID} has no argument 'y_true', which is called labels here; its arguments are labels, logits, name, "
            "pos_weight, label_smoothing, ignore_index, sample_weight, reduction"
        ),
    ),
    "a name that nobody has": (
        lambda: weighted_loss(labels=Z, logits=X, pos_weight=1.0, wait=True),
        (
            "weighted_cross_entropy_with_logits has no argument 'wait'; its arguments are labels, logits, pos_weight, "
            "name, ignore_index"
        ),
    ),
    "an older name that the sparse loss never had": (
        sparse(dim=1),
        (
            f"{SPARSE} has no argument 'dim', which is called axis here; its arguments are labels, logits, axis, name, "
            "class_weight, class_offset, label_smoothing, ignore_index, temperature, softcap, z_loss, sample_weight, "
            "reduction"
        ),
    ),
    "positional, checked": (
        lambda: withlogits.checked(sparse_loss)(Y, X),
        (
            f"{SPARSE} takes its arguments by keyword, since labels and logits are easily swapped: "
            f"{SPARSE}(labels=..., logits=...)"
        ),
    ),
    "an argument left out": (
        lambda: value_and_grad(weighted_loss)(labels=Z, logits=X),
        (
            "value_and_grad(weighted_cross_entropy_with_logits) lacks pos_weight: "
            "value_and_grad(weighted_cross_entropy_with_logits)(labels=..., logits=..., pos_weight=...)"
        ),
    ),
    "another function": (
        lambda: value_and_grad(withlogits.softmax),
        (
            "value_and_grad differentiates the losses of withlogits, and got softmax: pass one of "
            f"{SIGMOID}, weighted_cross_entropy_with_logits, {DENSE}, {SPARSE}, "
            "and its options to the function that comes back"
        ),
    ),
    "no function": (
        lambda: value_and_grad([1]),
        (
            "value_and_grad differentiates the losses of withlogits, and got an object of type list: pass one of "
            f"{SIGMOID}, weighted_cross_entropy_with_logits, {DENSE}, {SPARSE}, "
            "and its options to the function that comes back"
        ),
    ),
    "smoothing that is no number": (
        sparse(label_smoothing="0.1"),
        "label_smoothing is '0.1', where a number is expected",
    ),
    "smoothing that is an array": (
        sparse(label_smoothing=np.array([0.1])),
        "label_smoothing is an object of type ndarray, where a number is expected",
    ),
    "temperature that is None": (dense(temperature=None), "temperature is None, where a number is expected"),
    "softcap that is complex": (
        dense(softcap=1j),
        "softcap is an object of type complex, where a number is expected",
    ),
    "ignore_index that is no integer": (
        sparse(ignore_index=1.0),
        "ignore_index is 1.0, where an integer or None is expected",
    ),
    "axis that is no integer": (sparse(axis=None), "axis is None, where an integer is expected"),
    "axis that is a tuple": (dense(axis=(0, 1)), "axis is an object of type tuple, where an integer is expected"),
    "integer logits": (
        sparse(logits=X.astype(np.int32)),
        (
            f"logits have dtype int32, {EXPECTED_FLOATS}; "
            "if labels and logits were not swapped, pass numpy.asarray(logits, numpy.float32)"
        ),
    ),
    "a list of integers as logits": (
        binary(logits=[[1, 2, 3]] * 4),
        (
            f"logits have dtype int64, {EXPECTED_FLOATS}; "
            "if labels and logits were not swapped, pass numpy.asarray(logits, numpy.float32)"
        ),
    ),
    "boolean logits": (
        dense(logits=X > 0),
        (
            f"logits have dtype bool, {EXPECTED_FLOATS}; "
            "if labels and logits were not swapped, pass numpy.asarray(logits, numpy.float32)"
        ),
    ),
    "complex logits": (
        sparse(logits=X + 0j),
        (
            f"logits have dtype complex128, {EXPECTED_FLOATS}; "
            "a loss of complex numbers is not defined: pass logits.real if that is meant"
        ),
    ),
    "extended precision": (
        dense(logits=X.astype(np.longdouble)),
        (
            f"logits have dtype {np.dtype(np.longdouble).name}, {EXPECTED_FLOATS}; "
            "pass numpy.asarray(logits, numpy.float64)"
        ),
    ),
    "objects": (
        dense(logits=X.astype(object)),
        f"logits have dtype object, {EXPECTED_FLOATS}; pass numpy.asarray(logits, numpy.float32)",
    ),
    "bfloat16 that NumPy reloaded": (
        dense(logits=np.zeros((4, 3), oracle.BFLOAT16).view("V2")),
        (
            f"logits have dtype void16, {EXPECTED_FLOATS}; "
            "NumPy reloads a saved bfloat16 like this: pass logits.view(ml_dtypes.bfloat16)"
        ),
    ),
    "a ragged list": (
        binary(logits=[[1.0], [1.0, 2.0]]),
        (
            "logits cannot be made an array: setting an array element with a sequence. The requested array has an "
            "inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part."
        ),
    ),
    "a masked array": (
        dense(logits=np.ma.masked_less(X, 0.0)),
        (
            "logits are a masked array, whose mask the loss would not see: "
            "pass logits.data, and sample_weight=0 for what is masked"
        ),
    ),
    "integers to softmax": (
        lambda: withlogits.softmax(np.arange(3)),
        f"x has dtype int64, {EXPECTED_FLOATS}; pass numpy.asarray(x, numpy.float32)",
    ),
    "integers to logit": (
        lambda: withlogits.logit(1),
        f"p has dtype int64, {EXPECTED_FLOATS}; pass numpy.asarray(p, numpy.float32)",
    ),
    "index labels stored as floats": (
        sparse(labels=Y.astype(np.float32)),
        (
            f"labels have dtype float32, and {SPARSE} takes class indices, which are integers: "
            "pass labels.astype(numpy.int64) if they are indices stored as floats (WL208), or give "
            f"probabilities to {DENSE}"
        ),
    ),
    "index labels stored as bfloat16": (
        sparse(labels=Y.astype(oracle.BFLOAT16)),
        (
            f"labels have dtype bfloat16, and {SPARSE} takes class indices, which are integers: "
            f"pass labels.astype(numpy.int64) if they are indices stored as floats (WL208), or give "
            f"probabilities to {DENSE} "
            "(bfloat16 cannot hold every index above 256)"
        ),
    ),
    "index labels stored as float16": (
        sparse(labels=Y.astype(np.float16)),
        (
            f"labels have dtype float16, and {SPARSE} takes class indices, which are integers: "
            f"pass labels.astype(numpy.int64) if they are indices stored as floats (WL208), or give "
            f"probabilities to {DENSE} "
            "(float16 cannot hold every index above 2048)"
        ),
    ),
    "boolean index labels": (
        sparse(labels=Y > 0),
        (
            f"labels have dtype bool, and {SPARSE} takes class indices, which are integers: "
            "pass labels.astype(numpy.int64), with False as class 0 and True as class 1"
        ),
    ),
    "index labels as objects": (
        sparse(labels=Y.astype(object)),
        (
            f"labels have dtype object, and {SPARSE} takes class indices, which are integers: "
            "pass labels.astype(numpy.int64)"
        ),
    ),
    "complex labels": (
        dense(labels=Z + 0j),
        "labels have dtype complex128, where booleans, integers or real floating-point numbers are expected",
    ),
    "labels that are text": (
        binary(labels=[["a", "b", "c"]] * 4),
        "labels have dtype str32, where booleans, integers or real floating-point numbers are expected",
    ),
    "complex weights": (
        dense(class_weight=[1j, 1, 1]),
        "class_weight has dtype complex128, where real numbers are expected",
    ),
    "a masked weight": (
        dense(sample_weight=np.ma.ones(4)),
        (
            "sample_weight is a masked array, whose mask the loss would not see: "
            "pass sample_weight.data, and sample_weight=0 for what is masked"
        ),
    ),
}

VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "wrong wrt": (
        lambda: value_and_grad(softmax_loss, "x"),
        "wrt is 'x', where 'logits', 'labels' or ('logits', 'labels') is expected",
    ),
    "wrt as a list": (
        lambda: value_and_grad(softmax_loss, ["logits"]),
        "wrt is ['logits'], where 'logits', 'labels' or ('logits', 'labels') is expected",
    ),
    "wrt twice the same": (
        lambda: value_and_grad(softmax_loss, ("logits", "logits")),
        "wrt is ('logits', 'logits'), where 'logits', 'labels' or ('logits', 'labels') is expected",
    ),
    "an empty wrt": (
        lambda: value_and_grad(softmax_loss, ()),
        "wrt is (), where 'logits', 'labels' or ('logits', 'labels') is expected",
    ),
    "the gradient of indices": (
        lambda: value_and_grad(sparse_loss, ("logits", "labels")),
        (
            f"the labels of {SPARSE} are class indices, which have no gradient: pass wrt='logits', "
            f"or distributions as labels to {DENSE}"
        ),
    ),
    "a reduction that is none": (
        sparse(reduction="average"),
        "reduction is 'average', where 'none', 'sum' or 'mean' is expected",
    ),
    "reduction None": (binary(reduction=None), "reduction is None, where 'none', 'sum' or 'mean' is expected"),
    "smoothing above 1": (
        binary(label_smoothing=1.5),
        "label_smoothing is 1.5, where a number from 0 to 1 is expected",
    ),
    "smoothing below 0": (
        sparse(label_smoothing=-0.1),
        "label_smoothing is -0.1, where a number from 0 to 1 is expected",
    ),
    "smoothing NaN": (
        dense(label_smoothing=float("nan")),
        "label_smoothing is nan, where a number from 0 to 1 is expected",
    ),
    "temperature 0": (dense(temperature=0), "temperature is 0.0, where a finite number above 0 is expected"),
    "temperature inf": (
        dense(temperature=float("inf")),
        "temperature is inf, where a finite number above 0 is expected",
    ),
    "softcap 0": (sparse(softcap=0.0), "softcap is 0.0, where a finite number above 0 is expected"),
    "a negative z-loss": (sparse(z_loss=-1e-4), "z_loss is -0.0001, where a finite number of 0 or more is expected"),
    "axis and dim": (
        dense(axis=0, dim=1),
        "axis=0 and dim=1 were both given; dim is an older name of axis: pass axis alone",
    ),
    "an axis too far": (dense(axis=2), "axis 2 is outside [-2, 2) for logits of shape (4, 3)"),
    "a negative axis too far": (sparse(axis=-3), "axis -3 is outside [-2, 2) for logits of shape (4, 3)"),
    "a single number": (
        sparse(logits=1.0, labels=0),
        "logits are a single number, where an axis of classes is needed: shape (C,) or more",
    ),
    "softmax of a single number": (
        lambda: withlogits.softmax(1.0),
        "x is a single number, where an axis of classes is needed: shape (C,) or more",
    ),
    "an axis too far for x": (
        lambda: withlogits.logsumexp(X, axis=5),
        "axis 5 is outside [-2, 2) for x of shape (4, 3)",
    ),
    "no classes": (
        sparse(logits=np.zeros((4, 0))),
        "logits of shape (4, 0) without a class: axis 1 has length 0",
    ),
    "no classes in x": (
        lambda: withlogits.log_softmax(np.zeros((0, 4)), axis=0),
        "x of shape (0, 4) without a class: axis 0 has length 0",
    ),
    "one-hot labels for the sparse loss, stored as floats": (
        sparse(labels=Z),
        (
            f"labels have shape (4, 3) and logits (4, 3), classes on axis 1: one-hot or soft labels belong to {DENSE}, "
            f"yes/no labels to {SIGMOID}; {SPARSE} takes class indices: pass labels.argmax(axis=1) if they are "
            "one-hot (WL201)"
        ),
    ),
    "one-hot labels for the sparse loss": (
        sparse(labels=Z.astype(np.int64)),
        (
            f"labels have shape (4, 3) and logits (4, 3), classes on axis 1: one-hot or soft labels belong to {DENSE}, "
            f"yes/no labels to {SIGMOID}; {SPARSE} takes class indices: pass labels.argmax(axis=1) if they are "
            "one-hot (WL201)"
        ),
    ),
    "classes on another axis": (
        sparse(labels=np.zeros((2, 5), np.int64), logits=np.zeros((2, 3, 5))),
        (
            "labels have shape (2, 5) and logits (2, 3, 5), classes on axis 2: the labels fit classes on another axis: "
            "pass axis=1 (WL211)"
        ),
    ),
    "indices that fit nowhere": (
        sparse(labels=np.zeros(5, np.int64)),
        (
            "labels have shape (5,) and logits (4, 3), classes on axis 1: "
            "class indices of shape (4,) or (4, 1) are expected"
        ),
    ),
    "indices for the dense loss": (
        dense(labels=Y),
        (
            f"labels have shape (4,) and logits (4, 3), classes on axis 1: class indices belong to {SPARSE}; "
            f"{DENSE} takes labels of the logits' shape, whose rows sum to 1 (WL202)"
        ),
    ),
    "indices as a column for the dense loss": (
        dense(labels=Y[:, None]),
        (
            f"labels have shape (4, 1) and logits (4, 3), classes on axis 1: class indices belong to {SPARSE}; "
            f"{DENSE} takes labels of the logits' shape, whose rows sum to 1 (WL202)"
        ),
    ),
    "indices that might be one row of labels": (
        dense(labels=np.array([0, 1, 0]), logits=np.zeros((3, 3))),
        (
            f"labels have shape (3,) and logits (3, 3), classes on axis 1: class indices belong to {SPARSE}; "
            f"{DENSE} takes labels of the logits' shape, whose rows sum to 1 (WL202)"
        ),
    ),
    "transposed labels": (
        dense(labels=Z.T),
        (
            "labels have shape (3, 4) and logits (4, 3), classes on axis 1: the labels are transposed: "
            "pass labels.T (WL212)"
        ),
    ),
    "labels that fit nowhere": (
        dense(labels=np.zeros((2, 3))),
        (
            "labels have shape (2, 3) and logits (4, 3), classes on axis 1: labels of the logits' shape are expected, "
            "or one row for all, (3,)"
        ),
    ),
    "one row of labels on another axis": (
        dense(labels=np.ones(4) / 4, axis=0),
        (
            "labels have shape (4,) and logits (4, 3), classes on axis 0: labels of the logits' shape are expected, "
            "or one row for all, (4,)"
        ),
    ),
    "(N, 1) labels for (N,) logits": (
        binary(labels=np.zeros((4, 1)), logits=np.zeros(4)),
        "labels have shape (4, 1) and logits (4,): broadcast, they would be (4, 4); pass labels[..., 0] (WL210)",
    ),
    "(N,) labels for (N, 1) logits": (
        binary(labels=np.zeros(4), logits=np.zeros((4, 1))),
        "labels have shape (4,) and logits (4, 1): broadcast, they would be (4, 4); pass logits[..., 0] (WL210)",
    ),
    "indices for the sigmoid loss": (
        binary(labels=Y),
        (
            f"labels have shape (4,) and logits (4, 3): class indices belong to {SPARSE}; "
            f"{SIGMOID} takes one label for each logit, in the logits' shape (WL202)"
        ),
    ),
    "transposed sigmoid labels": (
        binary(labels=Z.T),
        "labels have shape (3, 4) and logits (4, 3): the labels are transposed: pass labels.T (WL212)",
    ),
    "sigmoid labels that fit nowhere": (
        binary(labels=1.0),
        "labels have shape () and logits (4, 3): labels of the logits' shape are expected",
    ),
    "class weights of another length": (
        sparse(class_weight=np.ones(4)),
        "class_weight has shape (4,), where (3,) is expected: one weight for each class",
    ),
    "a class weight for all": (
        dense(class_weight=2.0),
        "class_weight has shape (), where (3,) is expected: one weight for each class",
    ),
    "sample weights as a column": (
        sparse(sample_weight=np.ones((4, 1))),
        (
            "sample_weight has shape (4, 1), which does not broadcast to (4,), the shape of the loss: "
            "pass sample_weight[..., 0]"
        ),
    ),
    "sample weights without their column": (
        sparse(labels=Y[:, None], sample_weight=np.ones(4)),
        (
            "sample_weight has shape (4,), which does not broadcast to (4, 1), the shape of the loss: "
            "pass sample_weight[..., None]"
        ),
    ),
    "sample weights that fit nowhere": (
        binary(sample_weight=np.ones(4)),
        "sample_weight has shape (4,), which does not broadcast to (4, 3), the shape of the loss",
    ),
    "pos_weight that fits nowhere": (
        binary(pos_weight=np.ones(4)),
        "pos_weight has shape (4,), which does not broadcast to (4, 3), the shape of the logits",
    ),
    "a negative class weight": (
        sparse(class_weight=[1.0, -2.0, 1.0]),
        "class_weight[1] is -2.0, where a finite weight of 0 or more is expected",
    ),
    "an infinite sample weight": (
        binary(sample_weight=np.array([[1.0], [1.0], [np.inf], [1.0]])),
        "sample_weight[2, 0] is inf, where a finite weight of 0 or more is expected",
    ),
    "NaN as a sample weight": (
        sparse(sample_weight=np.array([1.0, np.nan, 1.0, -1.0], np.float32)),
        "sample_weight[1] is nan, where a finite weight of 0 or more is expected",
    ),
    "a negative pos_weight": (
        binary(pos_weight=-1.0),
        "pos_weight is -1.0, where a finite weight of 0 or more is expected",
    ),
    "out without the logits' gradient": (
        both(softmax_loss, "labels", out=np.empty((4, 3))),
        "out takes the gradient of the logits, which wrt does not name: add it there, or pass no out",
    ),
    "out that is a list": (
        both(softmax_loss, out=[]),
        "out must be a numpy.ndarray, and is a list",
    ),
    "out of another shape": (
        both(sparse_loss, out=np.empty((3, 4))),
        "out must be of shape (4, 3) and dtype float64, and is of shape (3, 4) and dtype float64",
    ),
    "out of another dtype": (
        both(sigmoid_loss, out=np.empty((4, 3), np.float32)),
        "out must be of shape (4, 3) and dtype float64, and is of shape (4, 3) and dtype float32",
    ),
    "out that swaps bytes": (
        both(sigmoid_loss, out=np.empty((4, 3), np.dtype(np.float64).newbyteorder("S"))),
        "out must be of shape (4, 3) and dtype float64, and is of shape (4, 3) and dtype "
        + str(np.dtype(np.float64).newbyteorder("S")),
    ),
    "out that is read-only": (
        both(sparse_loss, out=np.broadcast_to(1.0, (4, 3))),
        "out must be writable and aligned, and is read-only",
    ),
    "out that is not aligned": (
        both(sparse_loss, out=np.zeros(97, np.uint8)[1:].view(np.float64).reshape(4, 3)),
        "out must be writable and aligned, and is not aligned",
    ),
    "out that overlaps itself": (
        both(sparse_loss, out=np.lib.stride_tricks.as_strided(np.zeros(6), (4, 3), (8, 8))),
        "out must be without overlap in its own memory, and is a view with strides (8, 8)",
    ),
    "an array of numbers that cannot be": (
        sparse(labels=np.array([0, 1, 12, 13])),
        (
            "labels[2] = 12 is outside [0, 3) for logits with 3 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=12 (WL207)"
        ),
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_type_errors(case: str) -> None:
    call, text = CALLS[case]
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        call()


@pytest.mark.parametrize("case", VALUES)
def test_value_errors(case: str) -> None:
    call, text = VALUES[case]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


LABELS: dict[str, tuple[Any, Any, str]] = {
    "the first of two": (
        np.array([1, 9, 2, 12]),
        np.zeros((4, 9)),
        (
            "labels[1] = 9 is outside [0, 9) for logits with 9 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=9 (WL207)"
        ),
    ),
    "negative": (
        np.array([[0, 1], [-1, 0]]),
        np.zeros((2, 2, 5)),
        "labels[1, 0] = -1 is outside [0, 5) for logits with 5 classes; to skip padding pass ignore_index=-1 (WL207)",
    ),
    "counted from 1": (
        np.array([1, 3, 2]),
        np.zeros((3, 3)),
        (
            "labels[1] = 3 is outside [0, 3) for logits with 3 classes; "
            "labels that count from 1 are indices after labels - 1 (WL206)"
        ),
    ),
    "unsigned and huge": (
        np.array([0, 2**64 - 1], np.uint64),
        np.zeros((2, 3)),
        (
            "labels[1] = 18446744073709551615 is outside [0, 3) for logits with 3 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=18446744073709551615 (WL207)"
        ),
    ),
    "with a kept axis": (
        np.array([[0], [5]]),
        np.zeros((2, 3)),
        (
            "labels[1, 0] = 5 is outside [0, 3) for logits with 3 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=5 (WL207)"
        ),
    ),
    "a single one": (
        7,
        np.zeros(3),
        (
            "labels = 7 is outside [0, 3) for logits with 3 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=7 (WL207)"
        ),
    ),
    "one class": (
        np.array([0, 1]),
        np.zeros((2, 1)),
        (
            "labels[1] = 1 is outside [0, 1) for logits with 1 class; a single logit for each example is for "
            "sigmoid_cross_entropy_with_logits (WL105)"
        ),
    ),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_labels_out_of_range(engine: Any, dtype: str, case: str) -> None:
    """optax wraps −1 around and gives a finite, wrong gradient for labels ≥ C; Keras's loss for −1 is 0."""
    labels, logits, text = LABELS[case]
    logits = logits.astype(oracle.DTYPES[dtype])
    out = np.full(logits.shape, 7.0, logits.dtype)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        sparse_loss(labels=labels, logits=logits)
    for options in ({"out": out}, {"out": out, "label_smoothing": 0.1}, {"reduction": "mean"}):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    assert (out == 7.0).all(), "nothing is written before the labels are known to be good"


def test_a_bad_label_among_ignored_and_weightless_ones(engine: Any) -> None:
    labels, logits = np.array([-1, 50, 0, 60, 70]), np.zeros((5, 3))
    weight = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"^labels\[3\] = 60 is outside"):
        sparse_loss(labels=labels, logits=logits, ignore_index=-1, sample_weight=weight)
    with pytest.raises(ValueError, match=r"^labels\[3, 0\] = 60 is outside"):
        sparse_loss(labels=labels[:, None], logits=logits, ignore_index=-1, sample_weight=weight[:, None])


def test_out_must_not_overlap_in_part() -> None:
    memory = np.zeros(40)
    logits, shifted = memory[:12].reshape(4, 3), memory[1:13].reshape(4, 3)
    text = "out shares memory with logits: pass an array of its own, or the logits themselves to have them overwritten"
    for out in (shifted, logits[::-1], logits[:, ::-1]):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            value_and_grad(sparse_loss)(labels=Y, logits=logits, out=out)
    labels = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"^out shares memory with labels: pass an array of its own$"):
        value_and_grad(softmax_loss)(labels=labels, logits=X, out=labels)
    weight = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"^out shares memory with sample_weight: pass an array of its own$"):
        value_and_grad(sigmoid_loss)(labels=Z, logits=X, out=weight, sample_weight=weight)
    with pytest.raises(ValueError, match=r"^out shares memory with pos_weight: pass an array of its own$"):
        value_and_grad(sigmoid_loss)(labels=Z, logits=X, out=weight, pos_weight=weight)
    with pytest.raises(ValueError, match=r"^out shares memory with class_weight: pass an array of its own$"):
        value_and_grad(softmax_loss)(labels=Z, logits=X, out=weight, class_weight=weight[1])
    interleaved = np.zeros((4, 6))
    value_and_grad(sparse_loss)(labels=Y, logits=interleaved[:, ::2], out=interleaved[:, 1::2])


@pytest.mark.parametrize("place", ["labels", "logits", "sample_weight", "class_weight"])
def test_arrays_of_keras(place: str) -> None:
    """Known by the home of their type or of its bases, without an import."""
    theirs = type("Tensor", (), {"__module__": "keras.src.backend", "__array__": lambda self: Z})
    mine = type("MyTensor", (theirs,), {"__module__": "elsewhere"})
    for kind in (theirs, mine):
        with pytest.raises(TypeError) as caught:
            dense(**{place: kind()})()
        verb = "is" if place.endswith("weight") else "are"
        assert str(caught.value) == (
            f"{place} {verb} of Keras, and tensors of its backends are expected: pass the value of a variable; for a "
            "model that is being built take a loss of withlogits.compat.keras"
        )


@pytest.mark.parametrize(
    ("package", "framework"),
    [("torch", "PyTorch"), ("jax", "JAX"), ("jaxlib._jax", "JAX"), ("tensorflow.python.ops", "TensorFlow")],
)
@pytest.mark.parametrize("place", ["labels", "sample_weight", "class_weight"])
def test_arrays_of_a_served_framework_beside_numpy_logits(place: str, package: str, framework: str) -> None:
    theirs = type("Tensor", (), {"__module__": package, "__array__": lambda self: Z})
    with pytest.raises(TypeError) as caught:
        dense(**{place: theirs()})()
    verb = "labels are" if place == "labels" else f"{place} is"
    assert str(caught.value) == (
        f"{verb} an array of {framework}, where the logits are of NumPy: pass both as arrays of one library"
    )


def test_what_is_no_tensor_of_a_served_framework() -> None:
    size = type("Size", (), {"__module__": "torch"})
    with pytest.raises(TypeError) as caught:
        dense(logits=size())()
    assert str(caught.value) == "logits are an object of type Size of PyTorch, where an array is expected"


@pytest.mark.parametrize("loss", [sigmoid_loss, weighted_loss, softmax_loss, sparse_loss])
def test_a_missing_argument_is_named(loss: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{loss.__name__} lacks labels: {loss.__name__}\(labels=..., logits=...[,)]"):
        loss(logits=X, **({"pos_weight": 1.0} if loss is weighted_loss else {}))


def test_the_signatures_are_the_announced_ones() -> None:
    assert str(inspect.signature(sigmoid_loss)).startswith(
        "(*, labels: 'Any', logits: 'Any', name: 'str | None' = None, pos_weight: 'Any' = None, "
        "label_smoothing: 'float' = 0.0, ignore_index: 'float | None' = None, sample_weight: 'Any' = None, "
        "reduction: 'Reduction' = 'none')"
    )
    names = {loss: list(inspect.signature(loss).parameters) for loss in (weighted_loss, softmax_loss, sparse_loss)}
    assert names[weighted_loss] == ["labels", "logits", "pos_weight", "name", "ignore_index"]
    common = [
        "class_weight",
        "class_offset",
        "label_smoothing",
        "temperature",
        "softcap",
        "z_loss",
        "sample_weight",
        "reduction",
    ]
    assert names[softmax_loss] == ["labels", "logits", "axis", "dim", "name", *common]
    assert names[sparse_loss] == ["labels", "logits", "axis", "name", *common[:3], "ignore_index", *common[3:]]


def test_numbers_may_be_of_any_real_type() -> None:
    expected = sparse_loss(labels=Y, logits=X, label_smoothing=0.5, temperature=2.0, softcap=4.0, z_loss=1.0)
    for number in (np.float32, np.float64, np.array, float):
        options = {"label_smoothing": number(0.5), "temperature": number(2), "softcap": number(4), "z_loss": number(1)}
        np.testing.assert_array_equal(sparse_loss(labels=Y, logits=X, **options), expected)
    for index in (np.int8(2), 2, True):
        assert sparse_loss(labels=Y + 1, logits=X, ignore_index=index).shape == (4,)


def test_a_pos_weight_that_fits_two_axes_is_refused() -> None:
    import withlogits

    logits = np.zeros((2, 4, 3, 4))
    text = (
        "pos_weight has shape (4,), which fits axis 1 and the last axis of logits of shape (2, 4, 3, 4): pass "
        "pos_weight.reshape(4, 1, 1) for classes on axis 1, or pos_weight[None] for the last axis"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        withlogits.sigmoid_cross_entropy_with_logits(labels=logits, logits=logits, pos_weight=np.ones(4))
    for shape in ((4, 1, 1), (1, 4), (1,), ()):
        withlogits.sigmoid_cross_entropy_with_logits(labels=logits, logits=logits, pos_weight=np.ones(shape))
    sequences = np.zeros((2, 4, 4))
    withlogits.sigmoid_cross_entropy_with_logits(labels=sequences, logits=sequences, pos_weight=np.ones(4))
