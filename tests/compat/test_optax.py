"""optax's signatures on our losses: the same values where optax is right, and where it is not, both answers."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
optax = pytest.importorskip("optax", reason="optax is not installed: pip install optax")

import jax.numpy as jnp  # noqa: E402

import withlogits.compat.optax as ours  # noqa: E402
from frameworks.jax_cases import derivatives  # noqa: E402

theirs = optax.losses
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
Y = jnp.array([0, 2, 1, 1])
Z = jnp.asarray(RNG.dirichlet(np.ones(3), 4), jnp.float32)
W = jnp.array([[True, True, True], [True, False, True], [False, True, False], [True, True, False]])
DEEP = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)), jnp.float32)
DEEP_Z = jnp.asarray(RNG.random((2, 3, 4, 5)), jnp.float32)
DEEP_W = jnp.asarray(RNG.random((2, 3, 4, 5)) < 0.7)

SOFTMAX = ("softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels", "poly_loss_cross_entropy")
SIGMOID = ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss")
INTEGER = "softmax_cross_entropy_with_integer_labels"


def with_gradient(function: Callable[..., Any], x: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
    """The loss, and the gradient of its sum for the logits; one program is compiled faster than many operations."""

    def total(x: Any) -> Any:
        loss = function(x, *args, **options)
        return loss.sum(), loss

    slope, loss = jax.jit(jax.grad(total, has_aux=True))(x)
    return loss, slope


def both(name: str, *args: Any, **options: Any) -> Any:
    """(loss, gradient) of optax and of ours."""
    return tuple(with_gradient(getattr(side, name), *args, **options) for side in (theirs, ours))


def assert_same(name: str, *args: Any, **options: Any) -> None:
    for their, mine in zip(*both(name, *args, **options), strict=True):
        assert their.shape == mine.shape
        # Both are float32 sums of at most 60 numbers below 10.
        np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- where optax is wrong, both answers beside


def test_a_confident_loss_keeps_its_digits() -> None:
    (their, their_slope), (mine, slope) = both(INTEGER, jnp.array([[20.0, 0.0, 0.0]]), jnp.array([0]))
    assert their == 0.0
    assert their_slope[0, 0] == 0.0
    np.testing.assert_allclose(mine, [4.1223072e-9], rtol=1e-6)
    np.testing.assert_allclose(slope, [[-4.1223072e-9, 2.0611536e-9, 2.0611536e-9]], rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "safe_softmax_cross_entropy", "poly_loss_cross_entropy"])
def test_a_confident_distribution_keeps_its_digits(name: str) -> None:
    (their, their_slope), (mine, slope) = both(name, jnp.array([20.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 0.0]))
    factor = 3.0 if name == "poly_loss_cross_entropy" else 1.0  # 1 + ε
    assert their == 0.0
    assert their_slope[0] == 0.0
    np.testing.assert_allclose(mine, factor * 4.1223072e-9, rtol=1e-6)
    np.testing.assert_allclose(slope, factor * np.array([-4.1223072e-9, 2.0611536e-9, 2.0611536e-9]), rtol=1e-6)


def test_minus_one_is_no_class() -> None:
    last, wrong = (theirs.softmax_cross_entropy_with_integer_labels(X[:1], jnp.array([label])) for label in (2, -1))
    np.testing.assert_array_equal(wrong, last)
    with pytest.raises(ValueError, match=re.escape("labels[0] = -1 is outside [0, 3)")):
        ours.softmax_cross_entropy_with_integer_labels(X[:1], jnp.array([-1]))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_gives_no_gradient_under_jit(label: int) -> None:
    labels = jnp.array([label, 1])

    def step(side: Any) -> Any:
        def loss(x: Any, labels: Any) -> Any:
            each = side.softmax_cross_entropy_with_integer_labels(x, labels)
            return each.sum(), each

        slope, each = jax.jit(jax.grad(loss, has_aux=True))(X[:2], labels)
        return each, slope

    (their, their_slope), (mine, slope) = step(theirs), step(ours)
    assert bool(jnp.isnan(their[0])) == (label == 3)
    assert bool(jnp.isfinite(their_slope[0]).all())
    assert bool(jnp.any(their_slope[0] != 0.0))
    assert bool(jnp.isnan(mine[0]))
    assert not slope[0].any()
    np.testing.assert_allclose(mine[1], their[1], rtol=1e-6)
    np.testing.assert_allclose(slope[1], their_slope[1], rtol=1e-5)


@pytest.mark.parametrize("name", [INTEGER, "softmax_cross_entropy"])
def test_bfloat16_of_many_classes(name: str) -> None:
    x = jnp.asarray(RNG.normal(size=(64, 32_000)), jnp.bfloat16)
    y = jnp.arange(64)
    exact = np.asarray(x, np.float64)
    truth = np.log(np.exp(exact).sum(1)) - exact[np.arange(64), y]
    labels = y if name == INTEGER else jax.nn.one_hot(y, 32_000, dtype=jnp.bfloat16)
    their, mine = (getattr(side, name)(x, labels) for side in (theirs, ours))
    assert mine.dtype == jnp.float32
    assert np.abs(np.asarray(their, np.float64) - truth).max() > 0.03
    np.testing.assert_allclose(mine, truth, rtol=2.0**-23)


def test_sigmoid_of_bfloat16() -> None:
    x, z = jnp.asarray(X, jnp.bfloat16), jnp.asarray(Z, jnp.bfloat16)
    for name in SIGMOID:
        their, mine = (getattr(side, name)(x, z) for side in (theirs, ours))
        assert their.dtype == jnp.bfloat16
        assert mine.dtype == jnp.float32
        wide = getattr(ours, name)(x.astype(jnp.float32), z.astype(jnp.float32))
        np.testing.assert_allclose(mine, wide, rtol=1e-6)
        assert jax.grad(lambda x, name=name: getattr(ours, name)(x, z).sum())(x).dtype == jnp.bfloat16


MASKED = jnp.array([[1.0, -jnp.inf, 3.0]])


def test_a_class_that_cannot_occur_and_is_not_expected_costs_nothing() -> None:
    z = jnp.array([[0.5, 0.0, 0.5]])
    (their, _), (mine, slope) = both("softmax_cross_entropy", MASKED, z)
    assert bool(jnp.isnan(their[0]))
    safe, safe_slope = with_gradient(theirs.safe_softmax_cross_entropy, MASKED, z)
    for found in (mine, ours.safe_softmax_cross_entropy(MASKED, z)):
        np.testing.assert_allclose(found, safe, rtol=1e-6)
    np.testing.assert_allclose(slope, safe_slope, rtol=1e-6)
    (their, _), (mine, slope) = both("poly_loss_cross_entropy", MASKED, z)
    assert bool(jnp.isnan(their[0]))
    p = 1.0 / (1.0 + math.exp(-2.0))
    np.testing.assert_allclose(mine, safe + 2.0 * (0.5 * (1.0 - p) + 0.5 * p), rtol=1e-6)
    assert bool(jnp.isfinite(slope).all())


def test_infinite_logits_of_the_sigmoid_losses() -> None:
    for name in SIGMOID:
        (their, their_slope), (mine, slope) = both(name, jnp.array([jnp.inf, -jnp.inf]), jnp.array([1.0, 0.0]))
        assert bool(jnp.isnan(their).all())
        if name == "sigmoid_focal_loss":
            assert bool(jnp.isnan(their_slope).all())
        np.testing.assert_array_equal(mine, [0.0, 0.0])
        np.testing.assert_array_equal(slope, [0.0, 0.0])
        wrong, slope = with_gradient(getattr(ours, name), jnp.array([jnp.inf, -jnp.inf]), jnp.array([0.0, 1.0]))
        np.testing.assert_array_equal(wrong, [jnp.inf, jnp.inf])
        np.testing.assert_array_equal(slope, [1.0, -1.0])


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_a_focal_loss_has_a_gradient_everywhere(gamma: float) -> None:
    x = jnp.array([0.0, 5.0, 20.0, 60.0, 88.0, 90.0, 104.0, 1e4, 1e38])
    x = jnp.concatenate([x, -x])
    for z in (0.0, 1.0, 0.3):
        loss, slope = with_gradient(ours.sigmoid_focal_loss, x, jnp.full_like(x, z), gamma=gamma)
        assert bool(jnp.isfinite(loss).all())
        assert bool(jnp.isfinite(slope).all())
        assert bool((loss >= 0.0).all())


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_focal_loss_keeps_its_digits(gamma: float) -> None:
    x = jnp.array([-15.0, -3.0, 0.0, 0.25, 4.0, 20.0, 25.0])
    loss, slope = with_gradient(ours.sigmoid_focal_loss, x, jnp.ones_like(x), gamma=gamma)

    def exact(x: Any) -> Any:
        cost = mpmath.log1p(mpmath.exp(-x))
        return (-mpmath.expm1(-cost)) ** gamma * cost

    with mpmath.workdps(50):
        truth = [float(exact(mpmath.mpf(float(each)))) for each in x]
        slopes = [float(mpmath.diff(exact, mpmath.mpf(float(each)))) for each in x]
    # A power of γ and six more roundings, each of at most 2 ulp.
    np.testing.assert_allclose(loss, truth, rtol=16 * 2.0**-24)
    np.testing.assert_allclose(slope, slopes, rtol=32 * 2.0**-24)
    lost = np.abs(np.asarray(theirs.sigmoid_focal_loss(x, jnp.ones_like(x), gamma=gamma)) / truth - 1.0)
    assert np.abs(np.asarray(loss) / truth - 1.0).max() <= lost.max()


def test_a_class_that_where_leaves_out_costs_infinity() -> None:
    (their, _), (mine, slope) = both(
        INTEGER, jnp.array([[1.0, 5.0, 3.0]]), jnp.array([1]), where=jnp.array([[True, False, True]])
    )
    assert bool(jnp.isfinite(their[0]))  # a negative loss: the class is above all that are left
    assert their[0] < 0.0
    assert mine[0] == jnp.inf
    assert bool(jnp.isfinite(slope).all())


def test_logits_are_not_broadcast_to_the_labels() -> None:
    column, row = jnp.zeros((4, 1)), jnp.zeros(4)
    for name in SIGMOID:
        assert getattr(theirs, name)(row, column).shape == (4, 4)
        with pytest.raises(ValueError, match=r"labels have shape \(4, 1\) and logits \(4,\)"):
            getattr(ours, name)(row, column)
    with pytest.raises(ValueError, match=r"labels have shape \(4, 3\) and logits \(1, 3\)"):
        ours.softmax_cross_entropy(X[:1], Z)


# ------------------------------------------------------------------------------------------------------ optax's rules


@pytest.mark.parametrize("name", ours.__all__)
def test_the_signatures(name: str) -> None:
    def parameters(side: Any) -> list[tuple[str, Any, Any]]:
        found = inspect.signature(getattr(side, name)).parameters.values()
        return [(each.name, each.kind, each.default) for each in found]

    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("name", SIGMOID)
@pytest.mark.parametrize("shape", [(4, 3), (3,), (4, 1), (1, 3), ()])
def test_sigmoid_losses(name: str, shape: tuple[int, ...]) -> None:
    labels = jnp.asarray(np.random.default_rng(1).random(shape), jnp.float32)
    assert_same(name, X, labels)
    if shape == X.shape:
        assert_same(name, X, (labels > 0.5).astype(int))
        assert_same(name, X, labels > 0.5)


@pytest.mark.parametrize("alpha", [None, 0.25, jnp.array([0.2, 0.5, 0.9])])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_focal(alpha: Any, gamma: float) -> None:
    assert_same("sigmoid_focal_loss", X, Z, alpha=alpha, gamma=gamma)
    assert_same("sigmoid_focal_loss", X, (Z > 0.4).astype(jnp.float32), alpha=alpha, gamma=gamma)


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize(
    "where",
    [None, W, W[:, 0], W[:, :1], W[1:2], W & jnp.array([True, False, True, True])[:, None]],
    ids=["none", "elements", "rows", "column", "classes", "empty row"],
)
def test_softmax_losses(name: str, where: Any) -> None:
    labels = Y if name == INTEGER else Z
    if name == INTEGER and where is not None and where.ndim == 2:
        allowed = jnp.broadcast_to(where, X.shape)
        labels = jnp.argmax(allowed, axis=1)  # a class that takes part
    if name == "poly_loss_cross_entropy" and where is not None and where.ndim == 1:  # optax's takes elements alone
        column = with_gradient(ours.poly_loss_cross_entropy, X, labels, where=where[:, None])
        rows = with_gradient(ours.poly_loss_cross_entropy, X, labels, where=where)
        np.testing.assert_array_equal(rows[0], column[0])
        np.testing.assert_array_equal(rows[1], column[1])
        where = where[:, None]
    assert_same(name, X, labels, where=where)


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("axis", [1, -3, (1, 3), (3, 1), (-1,), (0, 1, 2, 3), None])
@pytest.mark.parametrize("masked", [False, True])
def test_axes(name: str, axis: Any, masked: bool) -> None:
    options = {"where": DEEP_W} if masked else {}
    if name != INTEGER:
        assert_same(name, DEEP, DEEP_Z, axis=axis, **options)
        return
    axes = tuple(range(4)) if axis is None else tuple(n % 4 for n in (axis if isinstance(axis, tuple) else (axis,)))
    rest = tuple(i for i in range(4) if i not in axes)
    rows = jnp.transpose(DEEP_W, rest + axes).reshape(*[DEEP.shape[i] for i in rest], -1)
    labels = jnp.argmax(rows, axis=-1)
    assert_same(name, DEEP, labels, axis=axes if axis is None else axis, **options)  # optax refuses None here


def test_rows_of_nothing_cost_nothing_whatever_they_hold() -> None:
    x = X.at[1].set(jnp.nan)
    for name in SOFTMAX:
        for where in (jnp.ones((4, 3), bool).at[1].set(False), jnp.ones(4, bool).at[1].set(False)):
            loss, slope = with_gradient(getattr(ours, name), x, Y if name == INTEGER else Z, where=where)
            assert loss[1] == 0.0
            assert not slope[1].any()
            assert bool(jnp.isfinite(slope).all())


def test_labels_broadcast_and_may_be_numbers() -> None:
    for labels in (Z[0], Z[:1], Z[:, :1], 0.25):
        assert_same("softmax_cross_entropy", X, jnp.asarray(labels))
        assert_same("poly_loss_cross_entropy", X, jnp.asarray(labels))
    np.testing.assert_array_equal(ours.softmax_cross_entropy(X, np.asarray(Z)), ours.softmax_cross_entropy(X, Z))
    np.testing.assert_array_equal(ours.softmax_cross_entropy(np.asarray(X), Z), ours.softmax_cross_entropy(X, Z))
    assert isinstance(ours.softmax_cross_entropy(np.asarray(X), np.asarray(Z)), jax.Array)


def test_the_gradient_of_labels_that_are_one_row_for_all() -> None:
    """It is a sum over rows, rounded to bfloat16 only then."""
    x = jnp.asarray(RNG.normal(size=(4096, 3)), jnp.float32)
    z = jnp.asarray([0.2, 0.3, 0.5], jnp.bfloat16)
    slope = jax.grad(lambda z: ours.softmax_cross_entropy(x, z).sum())(z)
    truth = -np.asarray(jax.nn.log_softmax(x), np.float64).sum(0)
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(slope, np.float64), truth, rtol=2.0**-8)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_smooth_labels(alpha: float) -> None:
    for options in ({}, {"axis": 0}, {"axis": None}, {"axis": (0, 1)}, {"where": W}, {"where": W, "axis": 0}):
        mine, their = (side.smooth_labels(Z, alpha, **options) for side in (ours, theirs))
        np.testing.assert_allclose(mine, their, rtol=1e-6)
    found = ours.smooth_labels(Z, alpha, where=jnp.zeros((4, 3), bool))
    assert bool(jnp.isfinite(found).all())


# -------------------------------------------------------------------------------------------------------- derivatives


HARD = (Z > 0.4).astype(jnp.float32)
DERIVED: dict[str, tuple[Any, Any]] = {
    "sigmoid": (ours.sigmoid_binary_cross_entropy, Z),
    "focal, soft": (lambda x, z: ours.sigmoid_focal_loss(x, z, alpha=0.3, gamma=1.5), Z),
    "focal, hard": (lambda x, z: ours.sigmoid_focal_loss(x, z, gamma=0.5), HARD),
    "softmax": (ours.softmax_cross_entropy, Z),
    "poly": (lambda x, z: ours.poly_loss_cross_entropy(x, z, epsilon=1.5, axis=None), Z),
}
MASKED_LOSSES: dict[str, Any] = {
    "softmax": lambda x, z: ours.softmax_cross_entropy(x, z, where=W),
    "poly": lambda x, z: ours.poly_loss_cross_entropy(x, z, epsilon=1.5, where=W),
}


@pytest.mark.parametrize("name", DERIVED)
def test_derivatives_of_logits_and_labels(name: str) -> None:
    """Of both modes and the second order, along a line through both."""
    loss, labels = DERIVED[name]
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        x, z = jnp.asarray(X, jnp.float64), jnp.asarray(labels, jnp.float64)
        v, h, weight = rng.normal(0.0, 0.3, x.shape), rng.normal(0.0, 0.05, z.shape), rng.random(loss(x, z).shape)
        found = derivatives(lambda t: (weight * loss(x + t * v, z + t * h)).sum(), 2)
    assert min(map(abs, found)) > 1e-6


@pytest.mark.parametrize("name", MASKED_LOSSES)
def test_derivatives_where_elements_are_left_out(name: str) -> None:
    """The loss is linear in the labels, so that its differences are exact but for rounding."""
    loss = MASKED_LOSSES[name]
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        x, z = jnp.asarray(X, jnp.float64), jnp.asarray(Z, jnp.float64)
        v, h, weight = rng.normal(0.0, 0.3, x.shape), rng.normal(0.0, 0.05, z.shape), rng.random(loss(x, z).shape)
        found = derivatives(lambda t: (weight * loss(x + t * v, z + t * h)).sum(), 2)
        program = jax.jit(jax.value_and_grad(lambda z: (weight * loss(x, z)).sum()))
        (low, gradient), (high, _) = program(z), program(z + h)
        np.testing.assert_allclose((gradient * h).sum(), high - low, 1e-12)
        along = jax.jit(lambda z, h: jax.jvp(lambda z: (weight * loss(x, z)).sum(), (z,), (h,))[1])(z, h)
        np.testing.assert_allclose(along, high - low, 1e-12)  # NaN, if a label that is left out had a slope of inf
    assert min(map(abs, found)) > 1e-6


def test_under_jit_and_vmap() -> None:
    for name in (*SOFTMAX, *SIGMOID):
        function = getattr(ours, name)
        labels = Y if name == INTEGER else Z
        np.testing.assert_allclose(jax.jit(function)(X, labels), function(X, labels), rtol=1e-6)
        np.testing.assert_allclose(jax.vmap(function)(X, labels), function(X, labels), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: ours.softmax_cross_entropy(X, Z[:3]), ValueError, "labels have shape (3, 3) and logits (4, 3)"),
        (lambda: ours.softmax_cross_entropy(X, Y), ValueError, "labels have shape (4,) and logits (4, 3)"),
        (
            lambda: ours.softmax_cross_entropy(X, Z, axis=2),
            ValueError,
            "axis 2 is outside [-2, 2) for logits of shape (4, 3)",
        ),
        (lambda: ours.softmax_cross_entropy(X, Z, axis=(0, -2)), ValueError, "axis=(0, -2) names an axis twice"),
        (lambda: ours.softmax_cross_entropy(X.astype(int), Z), TypeError, "logits have dtype int32"),
        (lambda: ours.softmax_cross_entropy(X, None), TypeError, "labels are None"),
        (
            lambda: ours.softmax_cross_entropy(X, Z, where=W[:3]),
            ValueError,
            "where has shape (3, 3), which does not broadcast to (4, 3), the shape of the logits",
        ),
        (
            lambda: ours.softmax_cross_entropy_with_integer_labels(X, Y, where=W[:3, 0]),
            ValueError,
            "where has shape (3,), which does not broadcast to (4,), the shape of the rows",
        ),
        (
            lambda: ours.softmax_cross_entropy_with_integer_labels(X, Y.astype(float)),
            TypeError,
            "labels have dtype float32, and sparse_softmax_cross_entropy_with_logits takes class indices",
        ),
        (lambda: ours.sigmoid_focal_loss(X, Z[:3]), ValueError, "labels have shape (3, 3) and logits (4, 3)"),
        (
            lambda: ours.smooth_labels(Z, 0.1, axis=2),
            ValueError,
            "axis 2 is outside [-2, 2) for labels of shape (4, 3)",
        ),
    ],
)
def test_errors(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}"):
        call()
