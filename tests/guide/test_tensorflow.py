"""The guide, `checked`, `evaluate` and `Meter` take TensorFlow's tensors as they take arrays."""

from __future__ import annotations

import re

import numpy as np
import pytest

import withlogits
from frameworks.tensorflow_cases import tf

RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 2.0, (200, 5)).astype(np.float32)
Y = RNG.integers(0, 5, 200)
P = np.exp(X) / np.exp(X).sum(1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_findings_are_those_of_arrays(dtype: str) -> None:
    x = tf.cast(P, dtype)
    found, right = withlogits.diagnose(tf.constant(Y), x), withlogits.diagnose(Y, x.numpy())
    assert found.codes == right.codes
    assert "WL101" in found.codes
    assert any("tf.math.log(logits)" in each.fix for each in found)


def test_fixes_are_written_for_tensorflow() -> None:
    assert "labels = tf.cast(labels, tf.int64)" in str(withlogits.diagnose(tf.cast(Y, tf.float32), tf.constant(X)))
    moved = withlogits.diagnose(tf.zeros((2, 3, 4)), tf.zeros((2, 4, 3)), loss="softmax", axis=-1)
    assert "tf.experimental.numpy.moveaxis(labels" in str(moved) or "WL211" not in moved.codes


def test_variables_and_recommend() -> None:
    assert withlogits.diagnose(tf.constant(Y), tf.Variable(X)).codes == withlogits.diagnose(Y, X).codes
    assert withlogits.recommend(tf.constant(Y)).loss == withlogits.recommend(Y).loss


def test_evaluate_and_meter() -> None:
    right = withlogits.evaluate(Y, X).to_dict()
    assert withlogits.evaluate(tf.constant(Y), tf.constant(X)).to_dict() == right
    meters = withlogits.Meter(), withlogits.Meter()
    meters[0].update(labels=tf.constant(Y), logits=tf.constant(X))
    meters[1].update(labels=Y, logits=X)
    assert meters[0].compute().to_dict() == meters[1].compute().to_dict()


def test_checked() -> None:
    loss = withlogits.checked(withlogits.sparse_softmax_cross_entropy_with_logits)
    right = withlogits.sparse_softmax_cross_entropy_with_logits(labels=Y, logits=X)

    @tf.function
    def traced(x: object) -> object:  # where there is nothing to look at
        return loss(labels=Y, logits=x)

    np.testing.assert_array_equal(traced(tf.constant(X)), right)
    with pytest.raises(withlogits.DiagnosisError, match=r"WL101, .*tf.math.log\(logits\)"):
        loss(labels=tf.constant(Y), logits=tf.constant(P))
    np.testing.assert_array_equal(loss(labels=tf.constant(Y), logits=tf.constant(X)), right)


def test_what_has_no_values() -> None:
    with pytest.raises(TypeError, match="labels are a RaggedTensor, where a dense one is expected"):
        withlogits.diagnose(tf.ragged.constant([[0], [1, 2]]), tf.constant(X))
    text = (
        "logits are traced by TensorFlow, and have no values to look at: call this outside of tf.function, or wrap the "
        "loss with withlogits.checked, which leaves traced calls out"
    )
    with pytest.raises(TypeError, match=re.escape(text)):
        tf.function(lambda x: withlogits.diagnose(Y, x).codes, autograph=False)(tf.constant(X))
