"""What counts and what does not: ignored rows, weights of 0, masked classes, NaN and infinities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
from oracle import one_hot, some, some_labels

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad


def test_an_ignored_row_is_nothing_whatever_it_holds(engine: Any) -> None:
    """torch gives NaN gradients for NaN in an ignored row."""
    logits = some((5, 3))
    logits[1], logits[3, 0] = np.nan, np.inf
    labels = np.array([2, -100, 0, 1, 1])
    sample = np.array([1.0, 1.0, 1.0, 0.0, 2.0], np.float32)
    options = {"ignore_index": -100, "sample_weight": sample, "z_loss": 0.1, "label_smoothing": 0.1}
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    assert (value[[1, 3]] == 0).all()
    assert (gradient[[1, 3]] == 0).all()
    kept = [0, 2, 4]
    fewer = {**options, "sample_weight": sample[kept]}
    expected, expected_gradient = value_and_grad(sparse_loss)(labels=labels[kept], logits=logits[kept], **fewer)
    np.testing.assert_array_equal(value[kept], expected)
    np.testing.assert_array_equal(gradient[kept], expected_gradient)
    mean, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, reduction="mean", **options)
    fewer_mean, expected = value_and_grad(sparse_loss)(
        labels=labels[kept], logits=logits[kept], reduction="mean", **fewer
    )
    assert mean == fewer_mean
    np.testing.assert_array_equal(gradient[kept], expected)


def test_a_real_class_may_be_ignored(engine: Any) -> None:
    logits, labels = some((4, 3)), np.array([0, 1, 2, 1], np.uint8)
    mean = sparse_loss(labels=labels, logits=logits, ignore_index=1, reduction="mean")
    assert mean == sparse_loss(labels=labels[[0, 2]], logits=logits[[0, 2]], reduction="mean")
    # a value that the labels' dtype cannot hold is never met
    np.testing.assert_array_equal(
        sparse_loss(labels=labels, logits=logits, ignore_index=-100), sparse_loss(labels=labels, logits=logits)
    )


@pytest.mark.parametrize("index", [2**64 - 1, 2**63, -(2**63), 2**70])
def test_any_integer_may_be_ignored(engine: Any, index: int) -> None:
    dtype = np.int64 if index < 0 else np.uint64
    labels = np.array([0, index if index < 2**64 else 1, 2], dtype)
    loss = sparse_loss(labels=labels, logits=np.zeros((3, 3)), ignore_index=index)
    np.testing.assert_allclose(loss, np.log(3) * np.isin(labels, [0, 1, 2]))


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_sample_weight_zero_hides_everything(engine: Any, loss: Any) -> None:
    logits, labels = some((3, 4)), one_hot(some_labels((3,), 4), 4)
    logits[1], labels[1] = np.nan, np.inf
    weight = np.array([1.0, 0.0, 1.0])
    both = value_and_grad(loss, ("logits", "labels"))
    shaped = weight if loss is softmax_loss else weight[:, None]
    value, (gradient, by_label) = both(labels=labels, logits=logits, sample_weight=shaped)
    assert (value[1] == 0).all()
    assert (gradient[1] == 0).all()
    assert (by_label[1] == 0).all()
    assert np.isfinite(both(labels=labels, logits=logits, sample_weight=shaped, reduction="mean")[0])
    if loss is softmax_loss:  # the labels of a hidden row do not enter what a class-weighted mean divides by
        options = {"class_weight": [1.0, 2.0, 3.0, 0.5], "reduction": "mean"}
        kept = loss(labels=labels[[0, 2]], logits=logits[[0, 2]], **options)
        np.testing.assert_allclose(loss(labels=labels, logits=logits, sample_weight=weight, **options), kept, rtol=1e-6)


def test_a_label_out_of_range_is_hidden_by_sample_weight_zero(engine: Any) -> None:
    loss = sparse_loss(labels=np.array([0, 99]), logits=np.zeros((2, 3)), sample_weight=np.array([1.0, 0.0]))
    np.testing.assert_allclose(loss, [np.log(3), 0.0])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_nothing_counts(engine: Any, reduction: str) -> None:
    """torch: NaN (torch#70348, torch#116349)."""
    logits = some((3, 4))
    logits[0] = np.nan
    value, gradient = value_and_grad(sparse_loss)(
        labels=np.full(3, -1), logits=logits, ignore_index=-1, reduction=reduction
    )
    assert value == 0.0
    assert (gradient == 0).all()
    value, gradient = value_and_grad(sigmoid_loss)(
        labels=logits, logits=logits, sample_weight=np.zeros((3, 1)), reduction=reduction
    )
    assert value == 0.0
    assert (gradient == 0).all()


def test_a_mean_over_classes_that_weigh_nothing_is_nothing(engine: Any) -> None:
    value, (gradient, by_label) = value_and_grad(softmax_loss, ("logits", "labels"))(
        labels=np.eye(3)[[0, 0]], logits=some((2, 3)), class_weight=[0, 1, 1], label_smoothing=0.1, reduction="mean"
    )
    assert value == 0.0
    assert (gradient == 0).all()
    assert (by_label == 0).all()


@pytest.mark.parametrize("bad", [[np.nan, 0.0, 1.0], [np.inf, 0.0, 1.0], [-np.inf] * 3, [np.inf, -np.inf, np.nan]])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_rows_without_a_loss_are_nan_and_stay_alone(engine: Any, bad: Any, softcap: Any) -> None:
    logits = np.array([[1.0, 2.0, 3.0], bad, [3.0, 1.0, 2.0]], np.float32)
    labels = np.array([0, 1, 2])
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, softcap=softcap)
    np.testing.assert_array_equal(np.isnan(value), [False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient), [[False] * 3, [True] * 3, [False] * 3])
    dense = value_and_grad(softmax_loss)(labels=one_hot(labels, 3), logits=logits, softcap=softcap)
    np.testing.assert_array_equal(dense[0], value)
    np.testing.assert_array_equal(dense[1], gradient)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_masked_class_costs_nothing_unless_it_is_wanted(engine: Any, softcap: Any) -> None:
    """TensorFlow and torch: NaN or inf for a −inf logit with soft label 0, or under label smoothing."""
    logits = np.array([[1.0, -np.inf, 2.0]] * 3, np.float32)
    labels = np.array([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.5, 1e-30, 0.5]], np.float32)
    value, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits, softcap=softcap)
    fewer = softmax_loss(labels=labels[:1, [0, 2]], logits=logits[:1, [0, 2]], softcap=softcap)
    assert value[0] == fewer[0]
    assert gradient[0, 1] == 0
    assert (value[1:] == np.inf).all()
    assert np.isfinite(gradient).all()
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0, 1, 2]), logits=logits, softcap=softcap)
    np.testing.assert_array_equal(np.isinf(value), [False, True, False])
    assert np.isfinite(gradient).all()


def test_a_masked_class_under_smoothing_is_wanted_unless_it_weighs_nothing(engine: Any) -> None:
    logits, labels = np.array([[1.0, -np.inf, 2.0]], np.float32), np.array([0])
    assert sparse_loss(labels=labels, logits=logits, label_smoothing=0.1)[0] == np.inf
    options = {"label_smoothing": 0.1, "class_weight": [1.0, 0.0, 1.0]}
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    truth = oracle.softmax(logits[0], label=0, **options)
    assert oracle.ulp_error(value[0], truth.loss, np.float32) <= 1
    assert oracle.worst(gradient[0], truth.gradient, np.float32) <= 4


def test_the_label_gradient_of_a_masked_class(engine: Any) -> None:
    both = value_and_grad(softmax_loss, "labels")
    logits, labels = np.array([[1.0, -np.inf]]), np.array([[1.0, 0.0]])
    assert both(labels=labels, logits=logits)[1][0, 1] == np.inf
    assert both(labels=labels, logits=logits, class_weight=[1.0, 0.0])[1][0, 1] == 0
    assert both(labels=labels, logits=logits, label_smoothing=1.0, class_weight=[1.0, 0.0])[1][0, 0] == 0


@pytest.mark.parametrize(
    ("x", "z", "loss", "gradient"),
    [
        (np.inf, 1.0, 0.0, 0.0),
        (-np.inf, 0.0, 0.0, 0.0),
        (np.inf, 0.0, np.inf, 1.0),
        (-np.inf, 1.0, np.inf, -1.0),
        (np.inf, 0.25, np.inf, 0.75),
        (np.nan, 0.0, np.nan, np.nan),
        (np.nan, 1.0, np.nan, np.nan),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_of_what_is_not_finite(engine: Any, dtype: str, x: Any, z: Any, loss: Any, gradient: Any) -> None:
    value, got = value_and_grad(sigmoid_loss)(labels=np.array([z], dtype), logits=np.array([x], dtype))
    np.testing.assert_array_equal(value, [loss])
    np.testing.assert_array_equal(got, [gradient])


def test_one_class_costs_nothing(engine: Any) -> None:
    value, gradient = value_and_grad(sparse_loss)(labels=np.zeros(3, np.int64), logits=some((3, 1)))
    assert (value == 0).all()
    assert (gradient == 0).all()


def test_labels_that_are_no_distribution_are_taken_as_they_are(engine: Any) -> None:
    """TensorFlow's gradient is p − z whatever Σ z is; the truth is (Σ z) p − z."""
    logits, labels = some((2, 3), np.float64), np.array([[2.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    value, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits)
    p = withlogits.softmax(logits)
    np.testing.assert_allclose(gradient, labels.sum(axis=1, keepdims=True) * p - labels, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(value, -(labels * np.log(p)).sum(axis=1), rtol=1e-14)
    assert value[1] == 0
    assert (gradient[1] == 0).all()
