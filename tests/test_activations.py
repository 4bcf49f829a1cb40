"""The activations against mpmath, at every magnitude, and what they make of shapes, types and infinities."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import withlogits

# The largest error in ulp, by function and dtype. float32 results are float64 ones, rounded: 0.5 and a trace.
ULP = {"float32": 0.51, "float64": 2.0}
MAPS = ("softmax", "log_softmax", "logsumexp")


@functools.cache
def elementwise_cases(name: str, dtype: str) -> tuple[Any, list[mpf]]:
    rng = np.random.default_rng(0)
    kind = oracle.DTYPES[dtype]
    if name == "logit":
        near = 10.0 ** rng.uniform(-45, -1, 200)
        x = np.concatenate(
            [near, 1 - near, 0.5 + near, 0.5 - near, rng.random(300), [0, 0.25, 0.5, 0.75, 1, 1 - 2**-24]]
        )
        x = x[(x >= 0) & (x <= 1)]
    else:
        size = np.concatenate([10.0 ** rng.uniform(-45, 38, 300), rng.uniform(0, 110, 300), [36.7, 87.4, 709.0, 745.0]])
        x = np.concatenate([size, -size, [0.0]])
    with np.errstate(over="ignore"):
        x = x.astype(kind)
    x = x[np.isfinite(x)]
    return x, [oracle.ELEMENTWISE[name](v) for v in x]


@pytest.mark.parametrize("name", oracle.ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementwise(engine: Any, name: str, dtype: str) -> None:
    x, truth = elementwise_cases(name, dtype)
    got = getattr(withlogits, name)(x)
    assert got.dtype == x.dtype
    for v, result, true in zip(x, got, truth, strict=True):
        assert oracle.ulp_error(result, true, dtype) <= ULP[dtype], (v, result)


@pytest.mark.parametrize("name", oracle.ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_float32_result_rounded_once(engine: Any, name: str, dtype: str) -> None:
    x, truth = elementwise_cases(name, dtype)
    function = getattr(withlogits, name)
    got = function(x)
    assert got.dtype == x.dtype
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, function(x.astype(np.float32)).astype(x.dtype))
    assert oracle.worst(got, truth, x.dtype) <= 0.5001


@pytest.mark.parametrize("classes", [1, 2, 10, 67, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maps(engine: Any, dtype: str, classes: int) -> None:
    rows = [x for _, x in oracle.rows(classes, dtype, 5)]
    x = np.stack(rows)
    p, log_p, total = withlogits.softmax(x), withlogits.log_softmax(x), withlogits.logsumexp(x)
    assert total.shape == (len(rows),)
    for i, row in enumerate(rows):
        truth = oracle.softmax(row)
        for j in range(classes):
            limit = 4 if dtype == "float64" else 1
            if truth.p[j] > 1e-30:
                assert oracle.ulp_error(p[i, j], truth.p[j], dtype) <= limit, (row, j)
            assert oracle.ulp_error(log_p[i, j], -truth.label_gradient[j], dtype) <= limit / 2 + 0.1, (row, j)
        scale = max(abs(truth.m), truth.r) if dtype == "float64" else mpf(0)
        assert oracle.ulp_error(total[i], truth.logsumexp, dtype, scale) <= limit / 2, row


def test_a_logsumexp_that_cancels(engine: Any) -> None:
    """m = −log 2 and r = log 2: what is left is what rounding m had left, which float32 sees whole."""
    x = np.full((1, 2), -np.log(2.0)).astype(np.float32)
    truth = oracle.softmax(x[0]).logsumexp
    assert abs(truth) < 1e-7
    assert oracle.ulp_error(withlogits.logsumexp(x)[0], truth, np.float32) <= 1


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
@pytest.mark.parametrize("name", MAPS)
def test_any_axis(engine: Any, name: str, axis: int) -> None:
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4)).astype(np.float32)
    function = getattr(withlogits, name)
    got, moved = function(x, axis=axis), function(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
    np.testing.assert_array_equal(got if name == "logsumexp" else np.moveaxis(got, axis, -1), moved)
    strided = np.zeros((4, 6, 8), np.float32)[::2, ::-2, ::2]
    strided[...] = x
    np.testing.assert_array_equal(function(strided, axis=axis), got)


@pytest.mark.parametrize("name", [*oracle.ELEMENTWISE, *MAPS])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_types_and_shapes(engine: Any, name: str, dtype: str) -> None:
    function, kind = getattr(withlogits, name), oracle.DTYPES[dtype]
    x = np.full((3, 2), 0.25, kind)
    assert function(x).dtype == kind
    assert function(x).shape == ((3,) if name == "logsumexp" else (3, 2))
    assert function(x[:0]).shape == ((0,) if name == "logsumexp" else (0, 2))
    np.testing.assert_array_equal(function(x.astype(kind.newbyteorder("S"))), function(x))
    before = x.copy()
    function(x)
    np.testing.assert_array_equal(x, before)


def test_numbers_and_lists(engine: Any) -> None:
    assert type(withlogits.sigmoid(0.0)) is np.float64
    assert type(withlogits.logit(np.float32(0.5))) is np.float32
    assert type(withlogits.logsumexp([0.0, 0.0])) is np.float64
    assert withlogits.softmax([0.0, 0.0]).tolist() == [0.5, 0.5]
    assert withlogits.sigmoid([[0.0]]).shape == (1, 1)


OVER = [None, (0, 1), (1, -1), (3, 0), (2,), (), (0, 1, 2, 3), 1]


def flattened(x: Any, axis: Any) -> tuple[Any, tuple[int, ...]]:
    """The array with the axes that are summed over as one, the last, and where they were."""
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(i % x.ndim for i in axes)
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    return moved.reshape((*moved.shape[: x.ndim - len(axes)], -1)), axes


@pytest.mark.parametrize("axis", OVER)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_axes_are_one_axis_of_their_elements(engine: Any, dtype: str, axis: Any) -> None:
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 5)).astype(dtype)
    flat, axes = flattened(x, axis)
    for name in ("softmax", "log_softmax"):
        got = getattr(withlogits, name)(x, axis=axis)
        assert got.dtype == dtype
        np.testing.assert_array_equal(flattened(got, axes)[0], getattr(withlogits, name)(flat))
    expected = withlogits.logsumexp(flat)
    got = withlogits.logsumexp(x, axis=axis)
    assert type(got) is type(expected)
    np.testing.assert_array_equal(got, expected)
    kept = withlogits.logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    np.testing.assert_array_equal(kept.reshape(np.shape(expected)), expected)


def test_a_number_has_no_axis_and_is_its_own_logsumexp(engine: Any) -> None:
    assert withlogits.logsumexp(3.0, axis=None) == 3.0
    assert withlogits.softmax(3.0, axis=None) == 1.0
    assert type(withlogits.log_softmax(3.0, axis=())) is np.float64
    assert withlogits.logsumexp([[0.0, 0.0]], axis=None, keepdims=True).tolist() == [[np.log(2.0)]]


WRONG_AXES: dict[str, tuple[Any, type[Exception], str]] = {
    "a float": (1.5, TypeError, "axis is 1.5, where an integer is expected"),
    "a list": ([0], TypeError, "axis is an object of type list, where an integer is expected"),
    "None among others": ((0, None), TypeError, "axis is None, where an integer is expected"),
    "one twice": ((0, -2), ValueError, "axis=(0, -2) names an axis twice: pass each once"),
    "one too large": ((0, 2), ValueError, "axis 2 is outside [-2, 2) for x of shape (3, 4)"),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("case", WRONG_AXES)
def test_axes_that_are_none(engine: Any, name: str, case: str) -> None:
    axis, kind, text = WRONG_AXES[case]
    with pytest.raises(kind) as caught:
        getattr(withlogits, name)(np.zeros((3, 4)), axis=axis)
    assert str(caught.value) == text


def test_nothing_to_sum_over(engine: Any) -> None:
    for axis in (None, 0, (1, 0)):
        with pytest.raises(ValueError, match=r"^x of shape \(0, 3\) without a class: axis 0 has length 0$"):
            withlogits.logsumexp(np.zeros((0, 3)), axis=axis)
    assert withlogits.logsumexp(np.zeros((0, 3)), axis=(1,)).shape == (0,)
    assert withlogits.softmax(np.zeros((0, 3, 2)), axis=(1, 2)).shape == (0, 3, 2)


INF = float("inf")
NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sigmoid", [-INF, INF, NAN, 0.0, -0.0], [0.0, 1.0, NAN, 0.5, 0.5]),
        ("log_sigmoid", [-INF, INF, NAN], [-INF, 0.0, NAN]),
        ("softplus", [-INF, INF, NAN], [0.0, INF, NAN]),
        ("logit", [0.0, -0.0, 1.0, 0.5, NAN, -1e-300, 1.5, INF, -INF], [-INF, -INF, INF, 0.0, NAN, NAN, NAN, NAN, NAN]),
        ("softmax", [[0.0, -INF], [INF, 0.0], [-INF, -INF], [NAN, 0.0]], [[1.0, 0.0], [NAN] * 2, [NAN] * 2, [NAN] * 2]),
        ("log_softmax", [[0.0, -INF], [INF, 0.0], [-INF, -INF]], [[0.0, -INF], [NAN] * 2, [NAN] * 2]),
        (
            "logsumexp",
            [[1.0, -INF], [INF, 0.0], [-INF, -INF], [NAN, 1.0], [INF, INF], [INF, NAN], [-INF, NAN], [INF, -INF]],
            [1.0, INF, -INF, NAN, INF, NAN, NAN, INF],
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite(engine: Any, dtype: str, name: str, x: Any, expected: Any) -> None:
    if dtype == "float32" and name == "logit":
        x = [v if v != -1e-300 else -1e-30 for v in x]
    np.testing.assert_array_equal(getattr(withlogits, name)(np.array(x, dtype)), np.array(expected, dtype))


def test_logit_undoes_sigmoid(engine: Any) -> None:
    x = np.linspace(-30.0, 0.0, 301)
    np.testing.assert_allclose(withlogits.logit(withlogits.sigmoid(x)), x, rtol=1e-14, atol=1e-15)


def test_probabilities_sum_to_one(engine: Any) -> None:
    x = np.random.default_rng(0).normal(0, 5, (50, 1000))
    np.testing.assert_allclose(withlogits.softmax(x).sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.exp(withlogits.log_softmax(x)).sum(axis=1), 1.0, rtol=1e-13)


def test_the_identities_between_them(engine: Any) -> None:
    x = np.random.default_rng(0).normal(0, 20, 1000).astype(np.float32)
    np.testing.assert_array_equal(withlogits.log_sigmoid(x), -withlogits.softplus(-x))
    two = np.stack([x, np.zeros_like(x)], axis=1)
    truth = [1 / (1 + mp.exp(-oracle.exact(v))) for v in x]
    assert oracle.worst(withlogits.softmax(two)[:, 0], truth, np.float32) <= 1
