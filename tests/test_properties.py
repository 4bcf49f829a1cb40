"""Properties that hold for any layout, dtype and magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import oracle
import withlogits
from oracle import some_labels

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

FLOATS = list(oracle.DTYPES)

property_test = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9)


@st.composite
def logits_and_view(draw: Any) -> Any:
    """Logits of any dtype and magnitude, seen through any strides."""
    dtype = oracle.DTYPES[draw(st.sampled_from(FLOATS))]
    shape = draw(SHAPES)
    largest = min(oracle.FORMATS[dtype.name][2] / 2, 1e38)
    magnitude = draw(st.sampled_from([1e-30, 1e-3, 1.0, 20.0, 1e4, largest]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-1, 1, shape) * min(magnitude, largest)).astype(np.float32).astype(dtype)
    steps = draw(st.tuples(*[st.sampled_from([1, 2, -1, -3]) for _ in shape]))
    base = np.zeros(tuple(n * abs(s) for n, s in zip(shape, steps, strict=True)), dtype)
    view = base[tuple(slice(None, None, s) for s in steps)]
    view = view[tuple(slice(0, n) for n in shape)]
    view[...] = x
    order = draw(st.permutations(range(len(shape))))
    return np.moveaxis(view, range(len(shape)), order), draw(st.integers(-len(shape), len(shape) - 1)), seed


@property_test
@given(case=logits_and_view())
def test_any_layout_gives_the_loss_of_its_values(engine: Any, case: Any) -> None:
    x, axis, seed = case
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    labels = np.random.default_rng(seed).integers(0, moved.shape[-1], moved.shape[:-1])
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=x, axis=axis)
    expected, plain = value_and_grad(sparse_loss)(labels=labels, logits=moved)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, np.moveaxis(plain, -1, axis))
    assert (np.asarray(value) >= 0).all()
    row = moved.reshape(-1, moved.shape[-1])[0]
    truth = oracle.softmax(row, label=int(labels.ravel()[0]))
    wide = np.float64 if x.dtype == np.float64 else np.float32
    assert oracle.ulp_error(np.ravel(value)[0], truth.loss, wide) <= (2 if wide is np.float64 else 1)


@property_test
@given(case=logits_and_view())
def test_sigmoid_of_any_layout(engine: Any, case: Any) -> None:
    x, _, seed = case
    labels = np.random.default_rng(seed).random(x.shape).astype(np.float32)
    value, gradient = value_and_grad(sigmoid_loss)(labels=labels, logits=x)
    expected, plain = value_and_grad(sigmoid_loss)(labels=labels.copy(), logits=x.copy(order="C"))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, plain)
    assert (np.asarray(value) >= 0).all()


@property_test
@given(
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, 64.0, -1024.0]),
    classes=st.integers(1, 40),
)
def test_a_shift_of_all_logits_changes_nothing(engine: Any, seed: int, shift: float, classes: int) -> None:
    x = np.random.default_rng(seed).integers(-(2**20), 2**20, (3, classes)) / 2.0**16  # the shift is exact
    labels = some_labels((3,), classes, seed=seed % 1000)
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=x)
    shifted, its_gradient = value_and_grad(sparse_loss)(labels=labels, logits=x + shift)
    np.testing.assert_array_equal(value, shifted)
    np.testing.assert_array_equal(gradient, its_gradient)
