"""TensorFlow's signatures on withlogits: its values up to rounding, its faults beside ours, and the patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frameworks.tensorflow_cases import tf

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow-cpu")

import withlogits.compat.tf as ours

RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 3.0, (64, 10)).astype(np.float32)
Z = RNG.dirichlet(np.ones(10), 64)
Y = RNG.integers(0, 10, 64)
Z32 = Z.astype(np.float32)
CALLS: dict[str, dict[str, Any]] = {
    "sigmoid_cross_entropy_with_logits": {"labels": Z},
    "weighted_cross_entropy_with_logits": {"labels": Z, "pos_weight": 3.0},
    "softmax_cross_entropy_with_logits": {"labels": Z},
    "sparse_softmax_cross_entropy_with_logits": {"labels": Y},
}
THEIRS = {name: getattr(tf.nn, name) for name in CALLS}


def differentiated(function: Any, x: Any, **given: Any) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(logits=x, **given)
    return value, tape.gradient(value, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_theirs_up_to_rounding(name: str, dtype: str) -> None:
    """Theirs are computed in the logits' dtype: some roundings of the largest, which are near 20."""
    digits = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
    x, tolerance = tf.cast(X, dtype), 64 * 2.0 ** -digits[dtype]
    given = {key: tf.cast(v, dtype) if key == "labels" and v is Z else v for key, v in CALLS[name].items()}
    for mine, theirs in zip(
        differentiated(getattr(ours, name), x, **given), differentiated(THEIRS[name], x, **given), strict=True
    ):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(
            tf.cast(mine, tf.float64), tf.cast(theirs, tf.float64), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", vars(ours.v1))
def test_tensorflow_1(name: str) -> None:
    function, theirs = getattr(ours.v1, name), getattr(tf.compat.v1.nn, name)
    given = {key: Z32 if value is Z else value for key, value in CALLS[name.removesuffix("_v2")].items()}
    np.testing.assert_allclose(function(logits=X, **given), theirs(logits=X, **given), rtol=1e-5, atol=1e-6)
    if name.startswith("softmax"):
        np.testing.assert_allclose(
            function(labels=Z32, logits=X, dim=0), theirs(labels=Z32, logits=X, dim=0), rtol=1e-5
        )
        with tf.GradientTape() as tape:
            z = tf.constant(Z32)
            tape.watch(z)
            value = function(labels=z, logits=X)
        assert (tape.gradient(value, z) is None) == (name == "softmax_cross_entropy_with_logits")
    if name.startswith("weighted"):
        again = function(targets=Z32, logits=X, pos_weight=3.0)
        np.testing.assert_array_equal(again, function(labels=Z32, logits=X, pos_weight=3.0))


# ------------------------------------------------------------------------------------------------------ known faults


def test_confident_rows() -> None:
    """Theirs: exactly 0, and no gradient for the label. The truth is 2 exp(−20)."""
    x, y = tf.constant([[20.0, 0.0, 0.0]]), [0]
    (mine, by), (theirs, their_by) = (
        differentiated(f, x, labels=y)
        for f in (ours.sparse_softmax_cross_entropy_with_logits, THEIRS["sparse_softmax_cross_entropy_with_logits"])
    )
    assert float(mine[0]) == pytest.approx(2 * np.exp(-20.0))
    assert float(by[0, 0]) == pytest.approx(-2 * np.exp(-20.0))
    assert theirs[0] == 0.0
    assert their_by[0, 0] == 0.0


def test_a_class_that_cannot_occur() -> None:
    """Theirs: NaN for a logit of −inf whose label is 0."""
    x, z = tf.constant([[0.0, -np.inf]]), tf.constant([[1.0, 0.0]])
    assert ours.softmax_cross_entropy_with_logits(z, x)[0] == 0.0
    assert np.isnan(THEIRS["softmax_cross_entropy_with_logits"](z, x)[0])


def test_labels_that_do_not_sum_to_one() -> None:
    """Theirs: the gradient is p − z, whatever Σ z is."""
    x, z = tf.constant([[1.0, 2.0]]), tf.constant([[2.0, 1.0]])
    p = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    name = "softmax_cross_entropy_with_logits"
    np.testing.assert_allclose(differentiated(getattr(ours, name), x, labels=z)[1][0], 3.0 * p - z[0], rtol=1e-6)
    np.testing.assert_allclose(differentiated(THEIRS[name], x, labels=z)[1][0], p - z[0], rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- patch


def test_the_patch_and_its_end() -> None:
    before = [tf.nn.sparse_softmax_cross_entropy_with_logits, tf.compat.v1.nn.softmax_cross_entropy_with_logits]
    with ours.patch() as undo:
        assert tf.nn.sparse_softmax_cross_entropy_with_logits is ours.sparse_softmax_cross_entropy_with_logits
        assert tf.compat.v1.nn.softmax_cross_entropy_with_logits is ours.v1.softmax_cross_entropy_with_logits
        assert tf.nn.sparse_softmax_cross_entropy_with_logits([0], [[20.0, 0.0]])[0] > 0.0
        other = ours.patch()
        undo()
        undo()
        assert tf.nn.sparse_softmax_cross_entropy_with_logits is ours.sparse_softmax_cross_entropy_with_logits
        other()
    assert before == [tf.nn.sparse_softmax_cross_entropy_with_logits, tf.compat.v1.nn.softmax_cross_entropy_with_logits]


def test_keras_computes_by_ours_under_the_patch() -> None:
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend than TensorFlow")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with ours.patch():
        assert loss(np.array([0]), tf.constant([[20.0, 0.0]])) > 0.0
    assert loss(np.array([0]), tf.constant([[20.0, 0.0]])) == 0.0
