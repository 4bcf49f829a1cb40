"""The cases in which other libraries return a wrong number, each with what they return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import mp

import oracle
import withlogits

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
weighted_loss = withlogits.weighted_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad


@pytest.mark.parametrize(("dtype", "top"), [("float32", 20.0), ("float64", 40.0)])
def test_the_tail_of_a_confident_row(engine: Any, dtype: str, top: float) -> None:
    """TensorFlow, torch, optax and scikit-learn: exactly 0, and so the label's gradient."""
    logits = np.array([[top, 0.0]], dtype)
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0]), logits=logits)
    truth = oracle.softmax(logits[0], label=0)
    assert oracle.ulp_error(value[0], truth.loss, dtype) <= 1
    assert oracle.worst(gradient[0], truth.gradient, dtype) <= 2
    # the same in binary form (torch: 0 in the tail, and gradient 0 for z = 1, x = 20)
    value, gradient = value_and_grad(sigmoid_loss)(labels=np.array([0.0, 1.0]), logits=np.array([-top, top], dtype))
    assert oracle.ulp_error(value[0], truth.loss, dtype) <= 1
    assert value[1] == value[0]
    assert gradient[0] == -gradient[1] > 0


def test_the_example_of_three_classes(engine: Any) -> None:
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0]), logits=np.array([[20.0, 0.0, 0.0]], np.float32))
    assert value[0] == np.float32(4.122307244877116e-09)
    assert gradient[0, 0] == np.float32(-4.122307236379708e-09)


def test_large_equal_logits(engine: Any) -> None:
    """Optax's integer labels: 0."""
    assert sparse_loss(labels=np.array([0]), logits=np.array([[1e8, 1e8]], np.float32))[0] == np.float32(np.log(2.0))


def test_many_equal_halves(engine: Any) -> None:
    """torch and optax: inf for float16 over 131,072 classes; 0.04 to 0.10 off for bfloat16 over 50,000."""
    loss = sparse_loss(labels=np.array([7]), logits=np.zeros((1, 131_072), np.float16))
    assert loss[0] == np.float32(np.log(131_072))
    x = np.random.default_rng(0).normal(0, 1, (1, 50_000)).astype(oracle.BFLOAT16)
    truth = mp.log(mp.fsum(mp.exp(float(v)) for v in x[0])) - float(x[0, 3])
    assert oracle.ulp_error(sparse_loss(labels=np.array([3]), logits=x)[0], truth, np.float32) <= 1


def test_the_weighted_gradient_at_zero(engine: Any) -> None:
    """TensorFlow: 1 for z = 0 at exactly x = 0."""
    _, gradient = value_and_grad(weighted_loss)(labels=np.array([0.0, 1.0]), logits=np.zeros(2), pos_weight=3.0)
    np.testing.assert_array_equal(gradient, [0.5, -1.5])


def test_the_mixed_second_derivative(engine: Any) -> None:
    """TensorFlow: a silent 0 (tensorflow#26495). By differences, exact since the gradient is linear in the labels."""
    logits, labels = np.array([[1.0, 2.0, 0.5]]), np.array([[0.5, 0.25, 0.25]])
    gradient = value_and_grad(softmax_loss)
    step = np.array([[1.0, 0.0, 0.0]])
    change = gradient(labels=labels + step, logits=logits)[1] - gradient(labels=labels, logits=logits)[1]
    np.testing.assert_allclose(change, withlogits.softmax(logits) - step, rtol=1e-14)
    change = value_and_grad(sigmoid_loss)(labels=np.array([1.0]), logits=np.array([0.3]))[1]
    change = change - value_and_grad(sigmoid_loss)(labels=np.array([0.0]), logits=np.array([0.3]))[1]
    np.testing.assert_allclose(change, [-1.0], rtol=1e-15)


def test_large_logits_are_not_clipped(engine: Any) -> None:
    """Keras on NumPy clips: 16."""
    assert sigmoid_loss(labels=np.array([0.0]), logits=np.array([100.0], np.float32))[0] == 100.0


def test_a_subnormal_loss(engine: Any) -> None:
    value = sparse_loss(labels=np.array([0, 0]), logits=np.array([[100.0, 0.0], [103.0, 0.0]], np.float32))
    np.testing.assert_array_equal(value, np.exp(np.float64([-100.0, -103.0])).astype(np.float32))


def test_a_small_smoothing_keeps_its_digits(engine: Any) -> None:
    """1 − ((1 − ε) z + ε/2) would lose them."""
    for eps in (1e-10, 1e-14):
        value = sigmoid_loss(labels=np.array([1.0]), logits=np.array([30.0]), label_smoothing=eps)
        truth = oracle.sigmoid_loss(30.0, 1.0, label_smoothing=eps)
        assert oracle.ulp_error(value[0], truth.loss, np.float64) <= 3


def test_small_labels_beside_a_large_one(engine: Any) -> None:
    """T − t_j is the sum of the others, which T rounded has lost."""
    for dtype, limit in (("float32", 1), ("float64", 4)):
        logits, labels = np.array([[100.0, 0.0]], dtype), np.array([[1.0, 1e-20]], dtype)
        _, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits)
        truth = oracle.softmax(logits[0], labels=labels[0])
        assert oracle.worst(gradient[0], truth.gradient, dtype) <= limit
