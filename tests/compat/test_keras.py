"""Keras's signatures on our losses: Keras's rules, and where the two differ, both answers.

The tests run on the backend that KERAS_BACKEND names; `test_keras_backends.py` runs them on the others.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

keras = pytest.importorskip("keras", reason="Keras is not installed")

import processes  # noqa: E402
import withlogits.compat.keras as ours  # noqa: E402
from withlogits.compat.keras import tensors  # noqa: E402

ops, theirs = keras.ops, keras.losses
BACKEND = keras.backend.backend()
# Both are Keras's own: where it turns torch's tensors into NumPy's, and divides NumPy's 0 by 0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning:keras"),
]
trains = pytest.mark.skipif(BACKEND == "numpy", reason="Keras's NumPy backend has no gradients and no fit")

NAMES = (
    "SparseCategoricalCrossentropy",
    "CategoricalCrossentropy",
    "BinaryCrossentropy",
    "CategoricalFocalCrossentropy",
    "BinaryFocalCrossentropy",
)
FUNCTIONS = {name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in NAMES}
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)

# Keras's focal losses, and its NumPy backend, form probabilities, with an error of 2⁻²⁴. With |x| ≤ 2 and 4 classes
# they are 0.006 or more, so that their logarithms are off by 2⁻²⁴ / 0.006 = 1e-5.
CLOSE: dict[str, float] = {"rtol": 2e-5, "atol": 2e-6}
RNG = np.random.default_rng(0)
X = RNG.uniform(-2.0, 2.0, (6, 4)).astype("float32")
Y = np.array([0, 3, 1, 2, 2, 0])
Z = np.eye(4, dtype="float32")[Y]
SOFT = RNG.dirichlet(np.ones(4), 6).astype("float32")
W = RNG.uniform(0.5, 2.0, 6).astype("float32")
MASK = np.array([True, False, True, True, False, True])


def labels_of(name: str) -> Any:
    return Y if name.startswith("Sparse") else Z


def both(name: str, **options: Any) -> tuple[Any, Any]:
    """Keras's loss and ours."""
    return getattr(theirs, name)(from_logits=True, **options), getattr(ours, name)(**options)


def array(x: Any) -> Any:
    """A tensor as a NumPy array, floats in float64."""
    kind = tensors.dtype_of(x)
    x = ops.cast(x, "float32") if kind == "bfloat16" else x
    found = x.detach().cpu().numpy() if BACKEND == "torch" else np.asarray(ops.convert_to_numpy(x))
    return found.astype("float64") if "float" in kind else found


def number(x: Any) -> float:
    return float(array(x))


def gradient(loss: Any, y: Any, x: Any, *weights: Any) -> Any:
    """The gradient of a loss for the logits."""
    if BACKEND == "torch":
        x = ops.convert_to_tensor(x).detach().clone().requires_grad_()
        ops.sum(loss(y, x, *weights)).backward()
        found = x.grad
    elif BACKEND == "jax":
        import jax

        found = jax.jit(jax.grad(lambda x: ops.sum(loss(y, x, *weights))))(ops.convert_to_tensor(x))
    else:
        import tensorflow as tf

        x = ops.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = ops.sum(loss(y, x, *weights))
        found = tape.gradient(value, x)
    return array(found)


def masked(x: Any, mask: Any) -> Any:
    """Logits with a mask, as a model hands them to its loss."""
    from keras.src.backend import set_keras_mask

    x = ops.copy(ops.convert_to_tensor(x))
    set_keras_mask(x, ops.convert_to_tensor(mask))
    return x


# ----------------------------------------------------------------------------------------------------- Keras's rules


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_values_are_keras_s(name: str, reduction: str | None) -> None:
    loss, mine = both(name, reduction=reduction)
    for weights in (None, W, -W, W - 1.0, W.astype("float64"), (W > 1.0), [1, 0, 2, 3, 0, 1]):
        np.testing.assert_allclose(
            array(mine(labels_of(name), X, weights)), array(loss(labels_of(name), X, weights)), **CLOSE
        )
    if reduction not in (None, "none"):
        np.testing.assert_allclose(
            array(mine(labels_of(name), X, W[:, None])), array(loss(labels_of(name), X, W[:, None])), **CLOSE
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_mask_counts_as_in_keras(name: str, reduction: str | None) -> None:
    loss, mine = both(name, reduction=reduction)
    for weights in (None, W, -W):
        answers = [array(side(labels_of(name), masked(X, MASK), weights)) for side in (mine, loss)]
        if reduction in (None, "none") and weights is None:
            assert not answers[0][~MASK].any()
        np.testing.assert_allclose(*answers, **CLOSE)


@trains
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_are_keras_s(name: str, reduction: str | None) -> None:
    loss, mine = both(name, reduction=reduction)
    for weights in ((), (W,), (-W,)):
        answers = [gradient(side, labels_of(name), X, *weights) for side in (mine, loss)]
        np.testing.assert_allclose(*answers, **CLOSE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "bool"])
def test_class_numbers_of_any_kind(dtype: str, reduction: str | None) -> None:
    loss, mine = both(NAMES[0], reduction=reduction)
    y = (Y % 2 if dtype == "bool" else Y).astype(dtype)
    for labels in (y, y[:, None], y.tolist()):
        np.testing.assert_allclose(array(mine(labels, X)), array(loss(np.array(labels), X)), **CLOSE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weights", [None, W, -W], ids=["unweighted", "weighted", "negative"])
@pytest.mark.parametrize("ignored", [3, 255, -1])
def test_a_class_to_ignore(ignored: int, weights: Any, reduction: str | None) -> None:
    loss, mine = both(NAMES[0], ignore_class=ignored, reduction=reduction)
    y = np.where(Y == 3, ignored, Y)
    y[4] = ignored
    np.testing.assert_allclose(array(mine(y, X, weights)), array(loss(y, X, weights)), **CLOSE)
    np.testing.assert_allclose(
        array(mine(y, masked(X, MASK), weights)), array(loss(y, masked(X, MASK), weights)), **CLOSE
    )
    if ignored == -1 and weights is not None:  # no label of the dtype is it
        np.testing.assert_allclose(
            array(mine(Y.astype("uint8"), X, weights)), array(both(NAMES[0], reduction=reduction)[1](Y, X, weights))
        )


@pytest.mark.parametrize(
    "labels", [Z, SOFT, Z.astype("int64"), Z > 0.5, SOFT.tolist()], ids=["hard", "soft", "integers", "booleans", "list"]
)
@pytest.mark.parametrize("name", NAMES[1:])
def test_dense_labels_of_any_kind(name: str, labels: Any) -> None:
    for options in ({}, {"label_smoothing": 0.2}, {"label_smoothing": 1}):
        loss, mine = both(name, **options)
        np.testing.assert_allclose(array(mine(labels, X)), array(loss(np.array(labels), X)), **CLOSE)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2.5])
def test_the_options_of_the_focal_losses(gamma: float) -> None:
    for name, options in (
        (NAMES[3], {"alpha": 0.7}),
        (NAMES[3], {"alpha": [0.1, 0.2, 0.3, 0.4]}),
        (NAMES[4], {"alpha": 0.7}),
        (NAMES[4], {"alpha": 0.7, "apply_class_balancing": True, "label_smoothing": 0.1}),
    ):
        loss, mine = both(name, gamma=gamma, **options)
        for labels in (Z, SOFT):
            np.testing.assert_allclose(array(mine(labels, X)), array(loss(labels, X)), **CLOSE)


@pytest.mark.parametrize(("y", "x"), [((6,), (6, 1)), ((6, 1), (6,)), ((2, 3), (2, 3, 1)), ((2, 3, 1), (2, 3))])
@pytest.mark.parametrize("name", ["BinaryCrossentropy", "BinaryFocalCrossentropy"])
def test_a_last_axis_of_length_one(name: str, y: Any, x: Any) -> None:
    loss, mine = both(name)
    labels, logits = Z[:, 0].reshape(y), X[:, 0].reshape(x)
    np.testing.assert_allclose(array(mine(labels, logits)), array(loss(labels, logits)), **CLOSE)


DEEP = RNG.uniform(-2.0, 2.0, (2, 3, 4, 5)).astype("float32")
DEEP_Y = RNG.integers(0, 5, (2, 3, 4))


@pytest.mark.parametrize("name", NAMES)
def test_losses_with_several_axes(name: str) -> None:
    labels = DEEP_Y if name.startswith("Sparse") else np.eye(5, dtype="float32")[DEEP_Y]
    weights = RNG.uniform(0.5, 2.0, (2, 3, 4)).astype("float32")
    for reduction, w in itertools.product(REDUCTIONS, (None, weights, weights[..., None])):
        if reduction in (None, "none") and w is not None and w.ndim == 4:
            continue
        loss, mine = both(name, reduction=reduction)
        np.testing.assert_allclose(array(mine(labels, DEEP, w)), array(loss(labels, DEEP, w)), **CLOSE)


@pytest.mark.parametrize("axis", [1, -2, 0])
@pytest.mark.parametrize("name", NAMES)
def test_any_axis(name: str, axis: int) -> None:
    """Against our own loss with the classes last, which the other tests compare to Keras's."""
    dense = np.eye(5, dtype="float32")[DEEP_Y]
    moved = np.moveaxis(DEEP, -1, axis)
    labels = (DEEP_Y, DEEP_Y) if name.startswith("Sparse") else (dense, np.moveaxis(dense, -1, axis))
    weights = RNG.uniform(0.5, 2.0, (2, 3, 4)).astype("float32")
    options = {} if name.startswith("Sparse") else {"label_smoothing": 0.1}
    if name == "CategoricalFocalCrossentropy":
        options["alpha"] = [0.1, 0.2, 0.3, 0.4, 0.5]
    for reduction in REDUCTIONS:
        for w in ((), (weights,)):
            last = getattr(ours, name)(reduction=reduction, **options)(labels[0], DEEP, *w)
            mine = getattr(ours, name)(reduction=reduction, axis=axis, **options)(labels[1], moved, *w)
            np.testing.assert_allclose(array(mine), array(last), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_functions_are_the_losses_of_rows(name: str) -> None:
    options = {} if name.startswith("Sparse") else {"label_smoothing": 0.1}
    found = getattr(ours, FUNCTIONS[name])(labels_of(name), X, **options)
    mine = getattr(ours, name)(reduction="none", **options)
    np.testing.assert_array_equal(array(found), array(mine(labels_of(name), X)))
    np.testing.assert_array_equal(array(found), array(mine.call(labels_of(name), X)))
    np.testing.assert_allclose(
        array(found), array(getattr(theirs, FUNCTIONS[name])(labels_of(name), X, from_logits=True, **options)), **CLOSE
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_signatures_are_keras_s(name: str) -> None:
    import inspect

    for left, right in (
        (getattr(theirs, name), getattr(ours, name)),
        (getattr(theirs, FUNCTIONS[name]), getattr(ours, FUNCTIONS[name])),
    ):
        defaults = [{p.name: p.default for p in inspect.signature(side).parameters.values()} for side in (left, right)]
        assert list(defaults[0]) == list(defaults[1])
        assert defaults[0] == {**defaults[1], "from_logits": False}
        assert defaults[1]["from_logits"] is True


# ------------------------------------------------------------------------------- where Keras is wrong, both answers


def confident(name: str, x: float) -> tuple[Any, Any]:
    """A right answer with logit x: labels and logits."""
    if name.startswith("Binary"):
        return np.array([[1.0]], "float32"), np.array([[x]], "float32")
    labels = np.array([0]) if name.startswith("Sparse") else np.array([[1.0, 0.0]], "float32")
    return labels, np.array([[x, 0.0]], "float32")


def truth(name: str, x: float, gamma: float = 0.0) -> tuple[Any, Any]:
    """The loss of a confident answer, and its derivative by the logit x."""
    with mp.workprec(300):
        loss = mp.log1p(mp.exp(-mpf(x)))
        miss = -mp.expm1(-loss)
        slope = miss**gamma + gamma * loss * miss ** (gamma - 1) * (1 - miss)
        return miss**gamma * loss, -slope * miss


@pytest.mark.parametrize("x", [20.0, 30.0])
@pytest.mark.parametrize("name", NAMES[:3])
def test_a_confident_loss_keeps_its_digits(name: str, x: float) -> None:
    loss, mine = both(name)
    true, slope = truth(name, x)
    keras_s = number(loss(*confident(name, x)))
    assert abs(keras_s - true) > 0.1 * true or name.startswith("Binary")
    assert number(mine(*confident(name, x))) == pytest.approx(float(true), rel=2.0**-23)
    if BACKEND != "numpy":
        np.testing.assert_allclose(gradient(mine, *confident(name, x))[0, 0], float(slope), rtol=2.0**-23)
        assert gradient(loss, *confident(name, x))[0, 0] == 0.0 or name.startswith("Binary")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("x", [-90.0, -5.0, 0.0, 3.0, 20.0, 30.0])
@pytest.mark.parametrize("name", NAMES[3:])
def test_focal_losses_keep_their_digits(name: str, x: float, gamma: float) -> None:
    """The cross-entropy and 1 − p are off by 1 ulp of float32 each, and the power multiplies that by γ."""
    options = {"alpha": 1.0} if name.startswith("Categorical") else {}
    _, mine = both(name, gamma=gamma, **options)
    true, slope = truth(name, x, gamma)
    error = (2.0 + gamma) * 2.0**-23
    assert number(mine(*confident(name, x))) == pytest.approx(float(true), rel=error, abs=1e-37)
    if BACKEND != "numpy":
        found = gradient(mine, *confident(name, x))[0]
        assert found[0] == pytest.approx(float(slope), rel=error + 2.0**-22, abs=1e-37)
        if len(found) == 2:
            assert found[1] == pytest.approx(-float(slope), rel=error + 2.0**-22, abs=1e-37)


@pytest.mark.parametrize("name", NAMES[3:])
def test_keras_s_focal_losses_lose_theirs(name: str) -> None:
    options: dict[str, Any] = {"gamma": 0.5, **({"alpha": 1.0} if name.startswith("Categorical") else {})}
    loss, mine = both(name, **options)
    true, slope = truth(name, 20.0, 0.5)
    assert abs(number(loss(*confident(name, 20.0))) - true) > 0.9 * true
    assert number(mine(*confident(name, 20.0))) == pytest.approx(float(true), rel=1e-6)
    if BACKEND != "numpy":
        keras_s = gradient(loss, *confident(name, 20.0))[0, 0]
        assert math.isnan(keras_s) or abs(keras_s - slope) > 0.9 * abs(slope)


@trains
def test_focal_losses_of_equal_logits() -> None:
    x = np.array([[1.0, 1.0, 0.5, -2.0], [0.0, 0.0, 0.0, 0.0]], "float32")
    for labels in (Z[:2], Z[1:3], SOFT[:2]):
        loss, mine = both(NAMES[3], gamma=1.5, reduction="sum")
        np.testing.assert_allclose(number(mine(labels, x)), number(loss(labels, x)), **CLOSE)
        np.testing.assert_allclose(gradient(mine, labels, x), gradient(loss, labels, x), **CLOSE)


@trains
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("name", NAMES[3:])
def test_focal_gradients_are_finite_where_nothing_is_missed(name: str, gamma: float) -> None:
    _, mine = both(name, gamma=gamma, label_smoothing=0.0)
    for x in (200.0, 1e4, 1e30):
        assert not gradient(mine, *confident(name, x)).any()


@trains
def test_a_class_that_cannot_occur_is_free_to_the_focal_loss() -> None:
    _, mine = both(NAMES[3])
    labels, logits = np.array([[1.0, 0.0, 0.0]], "float32"), np.array([[1.0, 0.5, -np.inf]], "float32")
    short = number(mine(labels[:, :2], logits[:, :2]))
    assert number(mine(labels, logits)) == short
    slope = gradient(mine, labels, logits)
    np.testing.assert_allclose(slope[0, :2], gradient(mine, labels[:, :2], logits[:, :2])[0])
    assert slope[0, 2] == 0.0
    assert math.isinf(number(mine(labels[:, ::-1].copy(), logits)))


def test_labels_are_not_rounded_to_the_loss_s_dtype() -> None:
    """In bfloat16 there is no 257."""
    x = np.zeros((1, 300), "float32")
    x[0, 257] = 20.0
    loss, mine = both(NAMES[0], dtype="bfloat16")
    logits = ops.cast(x, "bfloat16")
    true = math.log1p(299 * math.exp(-20.0))
    assert number(loss(np.array([257]), logits)) > 10.0
    assert number(mine(np.array([257]), logits)) == pytest.approx(true, rel=2.0**-8)
    assert tensors.dtype_of(mine(np.array([257]), logits)) == "bfloat16"


def test_bfloat16_is_rounded_once() -> None:
    x = RNG.normal(size=(8, 5000)).astype("float32")
    logits = ops.cast(x, "bfloat16")
    wide = array(ours.sparse_categorical_crossentropy(np.arange(8), array(logits)))
    loss, mine = both(NAMES[0], dtype="bfloat16", reduction="none")
    errors = [np.abs(array(side(np.arange(8), logits)) - wide).max() for side in (loss, mine)]
    assert errors[1] <= 2.0**-8 * wide.max()
    assert errors[1] <= errors[0]


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_is_an_error(label: int) -> None:
    y = np.array([0, label, 1, 2, 2, 0])
    loss, mine = both(NAMES[0])
    if BACKEND == "numpy" and label == -1:  # there the row costs nothing
        assert number(loss(y, X)) == pytest.approx(number(loss(Y, X, Y != 3)), rel=1e-6)
    with pytest.raises(ValueError, match=rf"labels\[1\] = {label} is outside \[0, 4\)"):
        mine(y, X)
    with pytest.raises(ValueError, match=rf"labels\[1\] = {label} is outside \[0, 4\)"):
        mine(y, X, -W)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_weighs_nothing_may_hold_nan(name: str, reduction: str | None) -> None:
    x, weights = X.copy(), W.copy()
    x[1], weights[1] = np.nan, 0.0
    loss, mine = both(name, reduction=reduction)
    if not (BACKEND == "torch" and name.startswith("BinaryFocal")):  # whose NaN is an error of torch
        assert np.isnan(array(loss(labels_of(name), x, weights))).any()
    clean = np.where(np.isnan(x), 0.0, x)
    for w in (weights, -weights):
        np.testing.assert_allclose(array(mine(labels_of(name), x, w)), array(mine(labels_of(name), clean, w)))
        if BACKEND != "numpy":
            found = gradient(mine, labels_of(name), x, w)
            assert not found[1].any()
            np.testing.assert_allclose(found, gradient(mine, labels_of(name), clean, w))
    keep = weights != 0.0
    np.testing.assert_allclose(
        array(mine(labels_of(name), masked(x, keep))), array(mine(labels_of(name), masked(clean, keep)))
    )


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_samples_are_not_taken_for_those_of_time_steps(name: str) -> None:
    """Two sequences of two steps, of which the second has weight 0."""
    x = X[:4].reshape(2, 2, 4)
    y = labels_of(name)[:4].reshape(2, 2, *labels_of(name).shape[1:])
    loss, mine = both(name, reduction="none")
    rows = array(mine(y, x))
    weights = np.array([1.0, 0.0], "float32")
    np.testing.assert_allclose(array(loss(y, x, weights)), rows * weights, **CLOSE)
    np.testing.assert_allclose(array(mine(y, x, weights)), rows * weights[:, None])
    longer = np.concatenate([x, x], 1), np.concatenate([y, y], 1)  # four steps: weights of steps as in Keras
    steps = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    np.testing.assert_allclose(array(mine(longer[1], longer[0], steps)), np.concatenate([rows, rows], 1) * steps)


@pytest.mark.parametrize("name", ["BinaryCrossentropy", "BinaryFocalCrossentropy"])
def test_binary_losses_take_weights_of_elements(name: str) -> None:
    """keras#17766: there the loss has lost the axis that the weights have."""
    weights = RNG.uniform(0.5, 2.0, X.shape).astype("float32")
    weights[0, 1] = 0.0
    loss, mine = both(name, reduction="sum_over_batch_size")
    with pytest.raises(Exception, match=r"(?i)shape|broadcast|size"):
        array(loss(Z, X, weights))
    each = array(getattr(ours, name)(reduction="none")(Z[..., None], X[..., None]))
    assert number(mine(Z, X, weights)) == pytest.approx((weights * each).mean(), rel=1e-6)
    rows = getattr(ours, name)(reduction="none")(Z, X, weights)
    np.testing.assert_allclose(array(rows), (weights * each).mean(1), rtol=1e-6)
    by_weight = getattr(ours, name)(reduction="mean_with_sample_weight")
    assert number(by_weight(Z, X, weights)) == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-6)


def test_a_mean_by_weights_counts_broadcast_weights() -> None:
    weights = np.array([[1.0], [3.0]], "float32")
    x, y = X.reshape(2, 3, 4), Y.reshape(2, 3)
    rows = array(ours.sparse_categorical_crossentropy(y, x))
    loss, mine = both(NAMES[0], reduction="mean_with_sample_weight")
    assert number(mine(y, x, weights)) == pytest.approx((rows * weights).sum() / (3 * weights.sum()), rel=1e-6)
    assert number(loss(y, x, weights)) == pytest.approx((rows * weights).sum() / weights.sum(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_of_losses_does_not_hang_on_the_weights(name: str) -> None:
    loss, mine = both(name, reduction="none")
    assert tuple(loss(labels_of(name), X, W[:, None]).shape) == (6, 1)
    assert tuple(mine(labels_of(name), X, W[:, None]).shape) == (6,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_the_loss_of_no_rows_is_zero(name: str, reduction: str) -> None:
    loss, mine = both(name, reduction=reduction)
    assert tuple(loss(labels_of(name)[:0], X[:0]).shape) == (0,)
    for weights in (None, W[:0]):
        assert number(mine(labels_of(name)[:0], X[:0], weights)) == 0.0
    nothing = masked(X, np.zeros(6, bool))
    for weights in (None, W, -W):
        assert number(mine(labels_of(name), nothing, weights)) == 0.0


def test_smoothing_counts_the_classes_on_their_axis() -> None:
    """keras#23451: there the last axis is counted."""
    labels, logits = Z[:3].T.copy(), X[:3].T.copy()  # 4 classes on axis 0, 3 rows
    loss, mine = both(NAMES[1], axis=0, label_smoothing=0.3, reduction="sum")
    true = number(ours.CategoricalCrossentropy(label_smoothing=0.3, reduction="sum")(Z[:3], X[:3]))
    assert number(mine(labels, logits)) == pytest.approx(true, rel=1e-6)
    assert abs(number(loss(labels, logits)) - true) > 0.01


def test_a_binary_loss_is_not_clipped() -> None:
    labels, logits = np.zeros((1, 1), "float32"), np.full((1, 1), 100.0, "float32")
    loss, mine = both("BinaryCrossentropy")
    assert number(mine(labels, logits)) == 100.0
    if BACKEND == "numpy":
        assert number(loss(labels, logits)) < 20.0
    focal, mine = both("BinaryFocalCrossentropy")
    assert number(mine(labels, logits)) == 100.0
    if BACKEND != "tensorflow":  # where Keras finds the logits in the graph
        assert number(focal(labels, logits)) < 20.0


def test_the_axis_is_part_of_the_config() -> None:
    loss, mine = both(NAMES[0], axis=1)
    assert "axis" not in loss.get_config()
    assert mine.get_config()["axis"] == 1


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_refused(name: str) -> None:
    activation = "sigmoid" if name.startswith("Binary") else "softmax"
    text = (
        f"{name} got from_logits=False, and withlogits computes from logits, since probabilities have lost what a "
        f"confident loss is made of: pass from_logits=True, leave the {activation} out of the model's last layer, and "
        f"for probabilities take {activation}(logits)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        getattr(ours, name)(from_logits=False)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        getattr(ours, FUNCTIONS[name])(labels_of(name), X, from_logits=False)


def test_options_out_of_range() -> None:
    for name in NAMES[1:]:
        with pytest.raises(ValueError, match=r"label_smoothing is 1\.5, where a number from 0 to 1 is expected"):
            getattr(ours, name)(label_smoothing=1.5)
    for name in NAMES[3:]:
        with pytest.raises(ValueError, match=r"gamma is -1\.0, where a finite number of 0 or more is expected"):
            getattr(ours, name)(gamma=-1)
    with pytest.raises(TypeError, match="'void', where an integer or None is expected"):
        ours.SparseCategoricalCrossentropy(ignore_class="void")
    with pytest.raises(ValueError, match="reduction"):
        ours.SparseCategoricalCrossentropy(reduction="average")


@pytest.mark.parametrize("weights", [None, W, -W], ids=["unweighted", "weighted", "negative"])
def test_shapes_that_do_not_fit(weights: Any) -> None:
    with pytest.raises(ValueError, match="one-hot or soft labels belong to softmax"):
        ours.SparseCategoricalCrossentropy()(Z, X, weights)
    with pytest.raises(ValueError, match=r"labels have shape \(6,\) and logits \(6, 4\)"):
        ours.CategoricalCrossentropy()(Y, X, weights)
    with pytest.raises(ValueError, match=r"labels have shape \(6, 3\) and logits \(6, 4\)"):
        ours.BinaryCrossentropy()(Z[:, :3], X, weights)
    with pytest.raises(ValueError, match="axis 3 is outside"):
        ours.CategoricalCrossentropy(axis=3)(Z, X, weights)


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\), which does not broadcast to \(6,\)"):
        ours.SparseCategoricalCrossentropy()(Y, X, W[:3])


# ------------------------------------------------------------------------------------------- dtypes and serialisation


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float32", "mixed_bfloat16"])
def test_the_dtype_of_the_result(name: str, dtype: str | None) -> None:
    policy = keras.DTypePolicy(dtype) if dtype == "mixed_bfloat16" else dtype
    for reduction in ("mean", "none"):
        loss, mine = both(name, dtype=policy, reduction=reduction)
        for logits in (X, ops.cast(X, "bfloat16"), ops.cast(X, "float16")):
            found = mine(labels_of(name), logits, W)
            assert tensors.dtype_of(found) == tensors.dtype_of(loss(labels_of(name), logits, W))
            np.testing.assert_allclose(array(found), array(loss(labels_of(name), logits, W)), rtol=0.03, atol=0.03)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is told to")
@pytest.mark.parametrize("name", NAMES)
def test_float64_logits_are_taken_at_their_word(name: str) -> None:
    rows = getattr(ours, FUNCTIONS[name])(labels_of(name), X.astype("float64"))
    assert tensors.dtype_of(rows) == "float64"
    np.testing.assert_allclose(
        array(getattr(ours, name)(dtype="float64")(labels_of(name), X.astype("float64"))),
        array(rows).mean(),
        rtol=1e-15,
    )
    assert tensors.dtype_of(getattr(ours, name)()(labels_of(name), X.astype("float64"))) == "float32"


def test_integers_are_logits_too() -> None:
    assert number(ours.SparseCategoricalCrossentropy()([0], [[2, 1]])) == pytest.approx(math.log1p(math.exp(-1.0)))


OPTIONS: dict[str, dict[str, Any]] = {
    NAMES[0]: {"ignore_class": 255, "axis": 1, "reduction": "sum", "name": "mine", "dtype": "bfloat16"},
    NAMES[1]: {"label_smoothing": 0.1, "axis": 1, "reduction": None},
    NAMES[2]: {"label_smoothing": 0.1, "axis": 1},
    NAMES[3]: {"alpha": [0.1, 0.2], "gamma": 1.5, "label_smoothing": 0.1, "axis": 1},
    NAMES[4]: {"apply_class_balancing": True, "alpha": 0.4, "gamma": 1.5, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("name", NAMES)
def test_serialisation_keeps_everything(name: str) -> None:
    for options in ({}, OPTIONS[name]):
        mine = getattr(ours, name)(**options)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mine))
        assert type(again) is type(mine)
        assert again.get_config() == mine.get_config()
        assert {**again.get_config(), **options} == again.get_config()
        assert again.get_config()["from_logits"] is True
        assert keras.losses.deserialize(keras.losses.serialize(mine)).get_config() == mine.get_config()
    function = getattr(ours, FUNCTIONS[name])
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(function)) is function


def test_the_repr_shows_the_options() -> None:
    assert repr(ours.BinaryCrossentropy(label_smoothing=0.1)) == (
        "BinaryCrossentropy(name='binary_crossentropy', reduction='sum_over_batch_size', dtype='float32', "
        "from_logits=True, label_smoothing=0.1, axis=-1)"
    )


# ------------------------------------------------------------------------------------------------------------- models


def model(mask: bool = False) -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_inside_a_functional_model(name: str, tmp_path: Path) -> None:
    """Keras's tensors without values."""
    sparse = name.startswith("Sparse")
    y_true = keras.Input((), dtype="int32") if sparse else keras.Input((4,))
    x, weights = keras.Input((4,)), keras.Input(())
    for reduction, shape in (("sum_over_batch_size", ()), ("none", (None,))):
        mine = getattr(ours, name)(reduction=reduction)
        outputs = [mine(y_true, x), mine(y_true, x, weights), getattr(ours, FUNCTIONS[name])(y_true, x)]
        assert [tuple(out.shape) for out in outputs] == [shape, shape, (None,)]
        whole = keras.Model([y_true, x, weights], outputs)
        given = [labels_of(name).astype("int32") if sparse else Z, X, W]
        expected = [mine(given[0], X), mine(given[0], X, W), getattr(ours, FUNCTIONS[name])(given[0], X)]
        whole.save(tmp_path / "whole.keras")
        for each in (whole, keras.saving.load_model(tmp_path / "whole.keras")):
            for found, right in zip(each(given), expected, strict=True):
                np.testing.assert_allclose(array(found), array(right), rtol=1e-6)


@trains
@pytest.mark.parametrize("name", NAMES[:1] if BACKEND == "jax" else NAMES)  # there each fit takes seconds to compile
def test_training_follows_keras_s(name: str, tmp_path: Path) -> None:
    x = RNG.normal(size=(96, 4)).astype("float32")
    y = x.argmax(1)
    labels = y if name.startswith("Sparse") else np.eye(4, dtype="float32")[y]
    weights = RNG.uniform(0.5, 2.0, 96).astype("float32")
    for given in ({}, {"sample_weight": weights}, {"class_weight": {i: 1.0 + i for i in range(4)}}):
        if "class_weight" in given and not name.startswith("Sparse"):
            continue
        histories = []
        for loss in both(name):
            each = model()
            each.compile("sgd", loss, metrics=["accuracy"])
            histories.append(
                each.fit(x, labels, batch_size=32, epochs=2, verbose=0, validation_split=0.25, **given).history
            )
        assert histories[0].keys() == histories[1].keys()
        for key in histories[0]:
            np.testing.assert_allclose(histories[1][key], histories[0][key], rtol=1e-5)
    each.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.loss) is getattr(ours, name)
    assert again.evaluate(x, labels, verbose=0) == each.evaluate(x, labels, verbose=0)


@trains
def test_training_in_mixed_precision_and_by_hand() -> None:
    """In bfloat16 a gradient that is rounded another way moves logits by some of their steps of 2^-8."""
    x = RNG.normal(size=(64, 4)).astype("float32")
    y = x.argmax(1)
    for policy, options, most in (("mixed_bfloat16", {}, 2.0**-8), ("float32", {"run_eagerly": True}, 1e-5)):
        losses = []
        for loss in both(NAMES[0]):
            keras.config.set_dtype_policy(policy)
            try:
                each = model()
            finally:
                keras.config.set_dtype_policy("float32")
            each.compile("sgd", loss, **options)
            losses.append(each.fit(x, y, batch_size=32, epochs=2, verbose=0).history["loss"][-1])
        assert losses[1] == pytest.approx(losses[0], rel=most)


@trains
def test_a_function_as_the_loss_of_a_model() -> None:
    each = model()
    each.compile("sgd", ours.sparse_categorical_crossentropy, metrics=[ours.metrics.SparseCategoricalCrossentropy()])
    history = each.fit(X, Y, batch_size=3, epochs=2, verbose=0, shuffle=False).history
    assert history["sparse_categorical_crossentropy"] == pytest.approx(history["loss"], rel=1e-6)


@trains
def test_the_mask_of_a_model_reaches_the_loss() -> None:
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
    y = np.array([[1, 2, 0, 0], [0, 1, 2, 0]])
    values = []
    for loss in both(NAMES[0]):
        keras.utils.set_random_seed(1)
        each = keras.Sequential([keras.layers.Embedding(4, 3, mask_zero=True), keras.layers.Dense(3)])
        each.compile("sgd", loss)
        values.append(each.evaluate(tokens, y, verbose=0))
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    rows = array(ours.sparse_categorical_crossentropy(y, each(tokens)))
    assert values[1] == pytest.approx(rows[tokens != 0].mean(), rel=1e-6)


@trains
def test_the_second_derivative_of_the_focal_losses() -> None:
    """By differences of the gradient: their error is h², and that of rounding 2⁻²⁴/h."""
    h = 2.0**-7
    for name, labels in ((NAMES[3], SOFT[:1]), (NAMES[4], SOFT[:1])):
        _, mine = both(name, gamma=1.5, reduction="sum")
        for direction in np.eye(4, dtype="float32"):
            numeric = (
                gradient(mine, labels, X[:1] + h * direction) - gradient(mine, labels, X[:1] - h * direction)
            ) / (2 * h)
            exact = gradient_along(mine, labels, X[:1], direction)
            np.testing.assert_allclose(exact, numeric, atol=5e-4)


def gradient_along(loss: Any, y: Any, x: Any, direction: Any) -> Any:
    """The Hessian times a direction."""
    if BACKEND == "torch":
        import torch

        x = torch.tensor(x, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(y, x), x, create_graph=True)
        return array(torch.autograd.grad((slope * torch.tensor(direction)).sum(), x)[0])
    if BACKEND == "jax":
        import jax

        along = jax.jit(lambda x, direction: jax.jvp(jax.grad(lambda x: loss(y, x)), (x,), (direction,))[1])
        return array(along(ops.convert_to_tensor(x), np.broadcast_to(direction, x.shape)))
    import tensorflow as tf

    x = ops.convert_to_tensor(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        slope = tf.reduce_sum(tape.gradient(value, x) * direction)
    return array(outer.gradient(slope, x))


# ------------------------------------------------------------------------------------------------------------ metrics

METRICS = NAMES[:3]


@pytest.mark.parametrize("name", METRICS)
def test_the_metrics_are_keras_s(name: str) -> None:
    options = {} if name.startswith("Sparse") else {"label_smoothing": 0.2}
    for weights in (None, W, -W, W[:, None]):
        mine, keras_s = (
            getattr(ours.metrics, name)(**options),
            getattr(keras.metrics, name)(from_logits=True, **options),
        )
        for side in (mine, keras_s):
            side.update_state(labels_of(name), X, weights)
            side.update_state(labels_of(name)[:2], X[:2])
        assert number(mine.result()) == pytest.approx(number(keras_s.result()), rel=2e-5)
    assert mine.name == keras_s.name
    mine.reset_state()
    assert number(mine.result()) == 0.0


def test_metrics_of_sequences_are_keras_s() -> None:
    for weights in (None, RNG.uniform(0.5, 2.0, (2, 3)).astype("float32"), W[:2]):
        mine, keras_s = (
            ours.metrics.SparseCategoricalCrossentropy(),
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
        )
        for side in (mine, keras_s):
            side.update_state(Y.reshape(2, 3), X.reshape(2, 3, 4), weights)
        assert number(mine.result()) == pytest.approx(number(keras_s.result()), rel=2e-5)


def test_an_ignored_row_does_not_count_in_a_metric() -> None:
    y = np.where(Y == 3, 255, Y)
    mine = ours.metrics.SparseCategoricalCrossentropy(ignore_class=255)
    keras_s = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    for side in (mine, keras_s):
        side.update_state(y, X)
    true = array(ours.sparse_categorical_crossentropy(y, X, ignore_class=255)).sum() / (y != 255).sum()
    assert number(mine.result()) == pytest.approx(true, rel=1e-6)
    assert number(keras_s.result()) == pytest.approx(true * 5 / 6, rel=1e-5)  # the row counts there


def test_the_mask_of_a_model_reaches_a_metric() -> None:
    mine = ours.metrics.SparseCategoricalCrossentropy()
    mine.update_state(Y, masked(X, MASK))
    assert number(mine.result()) == pytest.approx(
        array(ours.sparse_categorical_crossentropy(Y, X))[MASK].mean(), rel=1e-6
    )


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_serialised(name: str) -> None:
    options: dict[str, Any] = {"ignore_class": 3, "axis": 1} if name.startswith("Sparse") else {"label_smoothing": 0.2}
    mine = getattr(ours.metrics, name)(name="mine", dtype="float32", **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mine))
    assert type(again) is type(mine)
    assert again.get_config() == mine.get_config()
    assert {**mine.get_config(), **options, "name": "mine"} == mine.get_config()
    with pytest.raises(ValueError, match="got from_logits=False"):
        getattr(ours.metrics, name)(from_logits=False)


# ------------------------------------------------------------------------------------------------------ private parts


def test_a_mask_is_found_without_keras_s_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "keras.src.backend", SimpleNamespace())
    assert tensors.mask_of(SimpleNamespace(_keras_mask=1)) == 1
    assert tensors.mask_of(X) is None


REPLICAS = """
import numpy as np, tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, withlogits.compat.keras as ours
y, x = np.array([0, 1]), np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for loss in (keras.losses.SparseCategoricalCrossentropy(from_logits=True), ours.SparseCategoricalCrossentropy()):
    print(*(float(share) for share in strategy.run(lambda: loss(y, x)).values))
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute belongs to Keras's TensorFlow backend")
def test_a_replica_contributes_its_share() -> None:
    env = processes.environment(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    with processes.start(REPLICAS, env=env) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    theirs, mine = ([float(share) for share in line.split()] for line in out.splitlines())
    assert mine == pytest.approx(theirs, rel=1e-6)
    assert sum(mine) == pytest.approx(math.log1p(math.e) - 0.5, rel=1e-6)  # the mean of the losses
