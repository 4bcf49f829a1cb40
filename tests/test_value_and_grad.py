"""Gradients: what comes back, by differences, and where `out` may lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import withlogits
from kernels.engines import Functions

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
weighted_loss = withlogits.weighted_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 2.0, (4, 3))
Y = np.array([0, 2, 1, 1])
Z = RNG.dirichlet(np.ones(3), 4)

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean": {"reduction": "mean"},
    "smoothed": {"label_smoothing": 0.2, "reduction": "sum"},
    "class weights": {"class_weight": [0.5, 2.0, 0.0]},
    "class-weighted mean": {"class_weight": [0.5, 2.0, 1.5], "reduction": "mean"},
    "sample-weighted mean": {"sample_weight": [1.0, 0.5, 0.0, 3.0], "reduction": "mean"},
    "temperature": {"temperature": 0.6},
    "softcap": {"softcap": 2.5},
    "z-loss": {"z_loss": 0.3},
    "all": {
        "class_weight": [0.5, 2.0, 1.5],
        "sample_weight": [1.0, 0.5, 0.0, 3.0],
        "label_smoothing": 0.2,
        "temperature": 1.7,
        "softcap": 4.0,
        "z_loss": 0.1,
        "reduction": "mean",
    },
}


def differences(function: Any, at: np.ndarray) -> np.ndarray:
    """The gradient of a function of an array, by central differences of fourth order."""
    gradient, step = np.empty_like(at), 1e-3
    for i in np.ndindex(at.shape):
        unit = np.zeros_like(at)
        unit[i] = step
        near = function(at + unit) - function(at - unit)
        far = function(at + 2 * unit) - function(at - 2 * unit)
        gradient[i] = (8 * near - far) / (12 * step)
    return gradient


@pytest.mark.parametrize("name", OPTIONS)
def test_softmax_by_differences(engine: Any, name: str) -> None:
    options = OPTIONS[name]
    _, (by_logits, by_labels) = value_and_grad(softmax_loss, ("logits", "labels"))(labels=Z, logits=X, **options)
    expected = differences(lambda x: softmax_loss(labels=Z, logits=x, **options).sum(), X)
    np.testing.assert_allclose(by_logits, expected, rtol=1e-8, atol=1e-10)
    expected = differences(lambda z: softmax_loss(labels=z, logits=X, **options).sum(), Z)
    np.testing.assert_allclose(by_labels, expected, rtol=1e-8, atol=1e-10)
    _, by_logits = value_and_grad(sparse_loss)(labels=Y, logits=X, ignore_index=2, **options)
    expected = differences(lambda x: sparse_loss(labels=Y, logits=x, ignore_index=2, **options).sum(), X)
    np.testing.assert_allclose(by_logits, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("weight", [None, 3.0, [0.5, 1.0, 4.0], 0.0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.3},
        {"reduction": "mean", "sample_weight": np.array([[1.0], [0.0], [2.0], [0.5]]), "label_smoothing": 0.1},
    ],
)
def test_sigmoid_by_differences(engine: Any, options: Any, weight: Any) -> None:
    options = {**options, "pos_weight": weight}
    _, (by_labels, by_logits) = value_and_grad(sigmoid_loss, ("labels", "logits"))(labels=Z, logits=X, **options)
    expected = differences(lambda x: sigmoid_loss(labels=Z, logits=x, **options).sum(), X)
    np.testing.assert_allclose(by_logits, expected, rtol=1e-8, atol=1e-10)
    expected = differences(lambda z: sigmoid_loss(labels=z, logits=X, **options).sum(), Z)
    np.testing.assert_allclose(by_labels, expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 20),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    temperature=st.sampled_from([1.0, 0.3, 5.0]),
    softcap=st.sampled_from([None, 1.0, 30.0]),
    z_loss=st.sampled_from([0.0, 0.1]),
    weighted=st.booleans(),
    reduction=st.sampled_from(["none", "sum", "mean"]),
)
def test_the_engines_agree(engine: Any, seed: int, classes: int, weighted: bool, **options: Any) -> None:
    """In any combination of options, to within the rounding of the transformed logits."""
    from withlogits import reference

    rng = np.random.default_rng(seed)
    x = rng.normal(0, 10, (5, classes))
    z = rng.dirichlet(np.ones(classes), 5)
    options["label_smoothing"] = options.pop("smoothing")
    if weighted:
        options["class_weight"] = rng.choice([0.0, 0.5, 2.0], classes)
        options["sample_weight"] = rng.choice([0.0, 1.0, 3.0], 5)
    both = ("logits", "labels")
    value, gradients = Functions(engine).softmax_loss(x, z, axis=1, sparse=False, wrt=both, **options)
    expected, theirs = Functions(reference).softmax_loss(x, z, axis=1, sparse=False, wrt=both, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-300)
    for got, want in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------------------------------------------- what comes back


def test_one_gradient_or_a_tuple(engine: Any) -> None:
    value, alone = value_and_grad(softmax_loss, "labels")(labels=Z, logits=X)
    again, (first, second) = value_and_grad(softmax_loss, ("labels", "logits"))(labels=Z, logits=X)
    np.testing.assert_array_equal(value, again)
    np.testing.assert_array_equal(alone, first)
    third = value_and_grad(softmax_loss)(labels=Z, logits=X)[1]
    np.testing.assert_array_equal(second, third)
    (in_a_tuple,) = value_and_grad(softmax_loss, ("logits",))(labels=Z, logits=X)[1]
    np.testing.assert_array_equal(in_a_tuple, third)


def test_the_value_is_that_of_the_loss(engine: Any) -> None:
    for loss, labels in ((sigmoid_loss, Z), (softmax_loss, Z), (sparse_loss, Y)):
        for reduction in ("none", "sum", "mean"):
            value = value_and_grad(loss)(labels=labels, logits=X, reduction=reduction)[0]
            np.testing.assert_allclose(value, loss(labels=labels, logits=X, reduction=reduction), rtol=1e-15)
    value = value_and_grad(weighted_loss)(labels=Z, logits=X, pos_weight=2.0, name="loss")[0]
    np.testing.assert_allclose(value, weighted_loss(labels=Z, logits=X, pos_weight=2.0), rtol=1e-15)


def test_gradients_have_the_dtypes_of_their_arrays(engine: Any) -> None:
    both = value_and_grad(softmax_loss, ("logits", "labels"))
    half, brain, single, double = (oracle.DTYPES[name] for name in ("float16", "bfloat16", "float32", "float64"))
    for logits, labels, wide in (
        (half, brain, brain),
        (brain, half, half),
        (single, double, double),
        (double, single, single),
        (half, np.dtype(np.bool_), single),
        (double, np.dtype(np.int32), double),
    ):
        _, (by_logits, by_labels) = both(labels=np.eye(3).astype(labels), logits=X[:3].astype(logits))
        assert (by_logits.dtype, by_labels.dtype) == (logits, wide)


def test_the_gradient_of_one_row_of_labels_in_half_precision_is_rounded_once(engine: Any) -> None:
    x = RNG.normal(0, 1, (300, 3)).astype(np.float32)
    row = np.array([0.5, 0.25, 0.25])
    both = value_and_grad(softmax_loss, "labels")
    exact = both(labels=row, logits=x)[1]
    half = both(labels=row.astype(np.float16), logits=x)[1]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, exact.astype(np.float16))


def test_gradients_of_a_single_number(engine: Any) -> None:
    value, gradient = value_and_grad(sigmoid_loss)(labels=1.0, logits=0.0)
    assert (type(value), type(gradient)) == (np.float64, np.float64)
    assert gradient == -0.5
    out = np.empty(())
    assert value_and_grad(sigmoid_loss)(labels=1.0, logits=0.0, out=out)[1] is out


def test_it_says_what_it_is() -> None:
    function = value_and_grad(sparse_loss)
    assert function.__name__ == "value_and_grad(sparse_softmax_cross_entropy_with_logits)"


def test_results_do_not_share_memory(engine: Any) -> None:
    both = value_and_grad(softmax_loss, ("logits", "labels"))
    value, gradients = both(labels=Z, logits=X)
    kept = [value.copy(), *(g.copy() for g in gradients)]
    both(labels=Z[::-1], logits=X[::-1])
    for array, copy in zip((value, *gradients), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not np.shares_memory(array, X)


# ------------------------------------------------------------------------------------------------------------------ out


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("loss", [sigmoid_loss, softmax_loss, sparse_loss])
def test_out_takes_the_gradient(engine: Any, loss: Any, dtype: str) -> None:
    logits = X.astype(oracle.DTYPES[dtype])
    labels = Y if loss is sparse_loss else Z
    expected, gradient = value_and_grad(loss)(labels=labels, logits=logits, reduction="mean")
    places = [
        np.full((4, 3), 7.0, logits.dtype),
        np.full((3, 4), 7.0, logits.dtype).T,
        np.full((8, 6), 7.0, logits.dtype)[::2, ::-2],
    ]
    # in another layout the sum over the rows may take another order
    for out in places:
        value, got = value_and_grad(loss)(labels=labels, logits=logits, reduction="mean", out=out)
        assert got is out
        np.testing.assert_allclose(value, expected, rtol=1e-15 if dtype == "float64" else 0)
        np.testing.assert_array_equal(out, gradient)
    np.testing.assert_array_equal(logits, X.astype(logits.dtype))


@pytest.mark.parametrize("shape", [(4, 3), (5, 100), (3, 1), (200, 10)])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("loss", [sigmoid_loss, softmax_loss, sparse_loss])
def test_out_may_be_the_logits(engine: Any, loss: Any, dtype: str, shape: Any) -> None:
    """Overwritten only after they were read: the label gradient, which comes with it, is that of the logits too."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, shape).astype(oracle.DTYPES[dtype])
    labels = rng.integers(0, shape[1], shape[0]) if loss is sparse_loss else rng.random(shape)
    wrt = ("logits",) if loss is sparse_loss else ("logits", "labels")
    options = {} if loss is sigmoid_loss else {"class_weight": rng.random(shape[1]) + 0.5}
    expected, gradients = value_and_grad(loss, wrt)(labels=labels, logits=logits, reduction="mean", **options)
    for again, rtol in ((logits.copy(), 0), (np.asfortranarray(logits), 1e-11)):
        value, got = value_and_grad(loss, wrt)(labels=labels, logits=again, reduction="mean", out=again[:], **options)
        np.testing.assert_allclose(value, expected, rtol=rtol)
        for one, other in zip(got, gradients, strict=True):
            np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), rtol=rtol)
        assert np.shares_memory(again, got[0])


def test_out_for_an_axis_in_the_middle(engine: Any) -> None:
    logits = RNG.normal(0, 2, (2, 3, 4))
    labels = RNG.integers(0, 3, (2, 4))
    out = np.empty_like(logits)
    gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, axis=1)[1]
    value_and_grad(sparse_loss)(labels=labels, logits=logits, axis=1, out=out)
    np.testing.assert_array_equal(out, gradient)


def test_out_of_ignored_rows_is_zero(engine: Any) -> None:
    out = np.full((4, 3), np.nan)
    value_and_grad(sparse_loss)(labels=np.full(4, -1), logits=X, ignore_index=-1, out=out, reduction="mean")
    assert (out == 0).all()


def test_an_empty_out(engine: Any) -> None:
    out = np.empty((0, 3))
    assert value_and_grad(sparse_loss)(labels=[], logits=np.empty((0, 3)), out=out)[1] is out
