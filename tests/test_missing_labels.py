"""`ignore_index` of the sigmoid losses: an element whose label is missing does not count, on every path."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

import oracle
import withlogits
from test_accuracy import GRADIENT_ULP, LOSS_ULP
from withlogits.options import sigmoid_options

SIGMOID, WEIGHTED = withlogits.sigmoid_cross_entropy_with_logits, withlogits.weighted_cross_entropy_with_logits
BOTH = withlogits.value_and_grad(SIGMOID, ("logits", "labels"))
NAN, INF = math.nan, math.inf
REDUCTIONS = ("none", "sum", "mean")
LABELS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", *oracle.DTYPES)
MISSING = (-1, 255, -100, 1, NAN)
RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 3.0, (6, 4))
Z = np.where(RNG.random((6, 4)) < 0.3, -1.0, np.round(RNG.random((6, 4))))
HIDDEN = Z == -1.0  # by more than one logit
X[HIDDEN] = np.resize([NAN, INF, -INF, 3.0], HIDDEN.sum())


def can_hold(dtype: Any, missing: float) -> bool:
    """Whether a label of this dtype may be this number."""
    if dtype.kind == "b":
        return missing == 1
    if missing != missing or dtype.kind not in "iu":
        return dtype.kind not in "iu"
    return bool(np.iinfo(dtype).min <= missing <= np.iinfo(dtype).max)


def with_missing(labels: Any, missing: float, seed: int = 0) -> tuple[Any, Any]:
    """Labels of which some are missing, if their dtype allows that, and which these are."""
    where = np.random.default_rng(seed).random(labels.shape) < 0.4
    if can_hold(labels.dtype, missing):
        labels = labels.copy()
        labels[where] = missing
    return labels, labels == missing if missing == missing else labels != labels


@pytest.mark.parametrize("missing", MISSING, ids=str)
@pytest.mark.parametrize("dtype", LABELS)
def test_what_is_missing_is_nothing_whatever_it_holds(engine: Any, dtype: str, missing: float) -> None:
    """Loss and gradients are exactly 0 there, and elsewhere those of a call that hides the element by its weight."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (7, 5)).astype(oracle.DTYPES.get(dtype, dtype))
    labels, hidden = with_missing(labels, missing)
    logits = rng.normal(0.0, 3.0, labels.shape).astype(np.float32)
    expected = {r: BOTH(labels=labels == 1, logits=logits, sample_weight=~hidden, reduction=r) for r in REDUCTIONS}
    logits[hidden] = np.resize([NAN, INF, -INF], hidden.sum())
    for reduction in REDUCTIONS:
        value, gradients = BOTH(labels=labels, logits=logits, ignore_index=missing, reduction=reduction)
        np.testing.assert_allclose(value, expected[reduction][0], rtol=2.0**-23)
        np.testing.assert_array_equal(
            SIGMOID(labels=labels, logits=logits, ignore_index=missing, reduction=reduction), value
        )
        for got, want in zip(gradients, expected[reduction][1], strict=True):
            assert not got[hidden].any()
            np.testing.assert_allclose(
                got.astype(float), want.astype(float), rtol=2.0**-22 if got.itemsize > 2 else 2.0**-8
            )
        if reduction == "none":
            assert not value[hidden].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_losses_that_count_are_right_to_their_last_digits(engine: Any, dtype: str) -> None:
    """Against 100 digits, beside missing ones in the same vectors."""
    rng = np.random.default_rng(2)
    logits = (10.0 ** rng.uniform(-45, 38, 200) * rng.choice([-1.0, 1.0], 200)).astype(dtype)
    labels, hidden = with_missing(rng.choice([0.0, 1.0, 0.5], 200).astype(dtype), -1)
    value, (gradient, by_label) = BOTH(labels=labels, logits=logits, ignore_index=-1)
    for i in np.flatnonzero(~hidden):
        truth = oracle.sigmoid_loss(logits[i], labels[i])
        assert oracle.ulp_error(value[i], truth.loss, dtype) <= LOSS_ULP[dtype]
        share = 1 if dtype == "float64" else mpf(2) ** -26
        assert oracle.ulp_error(gradient[i], truth.gradient[0], dtype, truth.scale[0] * share) <= GRADIENT_ULP
        assert by_label[i] == -logits[i]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(), (1,), (5, 3), (3, 70), (40, 30), (2, 3, 4, 5), (30, 700)]),
    kinds=st.sampled_from([("float32", "float32"), ("float64", "int8"), ("float16", "float16")]),
    missing=st.sampled_from([-1, 1, NAN]),
    smoothing=st.sampled_from([0.0, 0.1]),
    q=st.sampled_from([None, "one", "many"]),
    s=st.sampled_from([None, "rows", "many"]),
    turned=st.booleans(),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_in_any_combination_of_options(
    seed: int, shape: Any, kinds: Any, missing: float, smoothing: float, q: Any, s: Any, turned: bool, reduction: Any
) -> None:
    """The same as a weight of 0 for what is missing: small calls and large ones, of any layout."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0.0, 4.0, shape).astype(kinds[0]), np.round(rng.random(shape)).astype(kinds[1])
    labels, hidden = with_missing(np.asarray(labels), missing, seed)
    weight = np.ones(shape)
    options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": reduction}
    if q:
        options["pos_weight"] = 3.0 if q == "one" else rng.choice([0.0, 0.5, 4.0], shape)
    if s:
        weight = rng.choice([0.0, 0.5, 2.0], shape[: 1 if s == "rows" else None])
        weight = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
        options["sample_weight"] = weight
    if turned:
        logits, labels, hidden = (np.asarray(a, order="F") for a in (logits, labels, hidden))
    whole = np.where(hidden, np.zeros((), labels.dtype), labels)
    expected, wanted = BOTH(labels=whole, logits=logits, **{**options, "sample_weight": weight * ~hidden})
    logits = np.where(hidden, logits.dtype.type(NAN), logits)
    value, gradients = BOTH(labels=labels, logits=logits, ignore_index=missing, **options)
    np.testing.assert_allclose(value, expected, rtol=2.0**-22)  # the sums of weights may be rounded once more
    alone, gradient = withlogits.value_and_grad(SIGMOID)(
        labels=labels, logits=logits, ignore_index=missing, **options
    )  # of a small call
    np.testing.assert_allclose(alone, value, rtol=2.0**-22)
    np.testing.assert_allclose(gradient.astype(float), gradients[0].astype(float), rtol=2.0**-9, atol=2.0**-24)
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=2.0**-9, atol=2.0**-24)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("size", [3, 30_000])
def test_nothing_counts(engine: Any, size: int, reduction: str) -> None:
    labels, logits = np.full(size, NAN), np.full(size, INF)
    for weight in (None, np.ones(size)):
        value, gradients = BOTH(
            labels=labels, logits=logits, sample_weight=weight, ignore_index=NAN, reduction=reduction
        )
        assert value == 0.0
        assert not any(g.any() for g in gradients)


def test_a_missing_label_is_not_smoothed_nor_weighted(engine: Any) -> None:
    options = {"label_smoothing": 0.2, "pos_weight": 3.0, "ignore_index": -1}
    value, gradients = BOTH(labels=Z, logits=X, **options)
    assert not value[HIDDEN].any()
    assert not any(g[HIDDEN].any() for g in gradients)
    mean = SIGMOID(labels=Z, logits=X, reduction="mean", **options)
    assert mean == pytest.approx(value[~HIDDEN].mean(), rel=1e-14)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_a_weight_of_zero_hides_a_label_that_is_nan(engine: Any, dtype: str) -> None:
    labels = np.where(HIDDEN, NAN, Z).astype(oracle.DTYPES[dtype])
    for logits in (X, X.astype(np.float32), X.astype(np.float16)):
        for reduction in REDUCTIONS:
            value, gradients = BOTH(labels=labels, logits=logits, sample_weight=~HIDDEN, reduction=reduction)
            assert np.isfinite(value).all()
            assert not any(g[HIDDEN].any() for g in gradients)
            assert not np.isfinite(SIGMOID(labels=labels, logits=logits))[HIDDEN & np.isfinite(logits)].any()


def test_the_weighted_loss(engine: Any) -> None:
    options = {"pos_weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": -1}
    value, gradient = withlogits.value_and_grad(WEIGHTED)(labels=Z, logits=X, **options)
    expected, wanted = withlogits.value_and_grad(SIGMOID)(labels=Z, logits=X, **options)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, wanted)
    np.testing.assert_array_equal(WEIGHTED(labels=Z, logits=X, **options), expected)


def test_a_number_that_labels_cannot_be_ignores_nothing(engine: Any) -> None:
    """2^24 - 1 is no float16, and labels that float32 would round to a number below 2^24 there are none."""
    for labels, missing in (
        (np.array([255, 1, 0], np.uint8), -1),
        (np.array([-1, 1, 0], np.int8), 255),
        (np.array([0, 1, 1], np.int64), NAN),
        (np.array([2.0**24, 1, 0], np.float32), 2**24 - 1),
        (np.array([2**24 + 1, 2**53, 0], np.int64), 2**24 - 1),
        (np.array([-1.0 + 2.0**-52, 1, 0]), -1),
        (np.array([np.inf, 1, 0], np.float16), 2**24 - 1),
    ):
        for logits in (np.array([1.0, -2.0, 3.0]), np.array([1.0, -2.0, 3.0], np.float32)):
            got = SIGMOID(labels=labels, logits=logits, ignore_index=missing)
            np.testing.assert_array_equal(got, SIGMOID(labels=labels, logits=logits))


def test_equal_options_are_one_object() -> None:
    """Of which a planned call is known: any NaN, and a whole number of any type."""
    for same in (
        (NAN, np.nan, float("nan"), np.float32("nan"), np.array(-NAN)),
        (-1, -1.0, np.int8(-1), np.float16(-1)),
    ):
        assert len({id(sigmoid_options((0.0, each, "none"))) for each in same}) == 1
    assert sigmoid_options((0.0, True, "none")).ignore_index == 1


EXPECTED = "where a whole number between -2^24 and 2^24, NaN or None is expected"


@pytest.mark.parametrize(
    ("missing", "error", "text"),
    [
        (0.5, ValueError, f"ignore_index is 0.5, {EXPECTED}"),
        (INF, ValueError, f"ignore_index is inf, {EXPECTED}"),
        (-(2**24), ValueError, f"ignore_index is -16777216.0, {EXPECTED}"),
        (10**400, ValueError, f"ignore_index is inf, {EXPECTED}"),
        ("nan", TypeError, "ignore_index is 'nan', where a number is expected"),
        ([-1], TypeError, "ignore_index is an object of type list, where a number is expected"),
    ],
)
def test_errors(missing: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        SIGMOID(labels=Z, logits=X, ignore_index=missing)


# ---------------------------------------------------------------------------------------------------------- frameworks

# NumPy's answers are those of the tests above; every one of them with NaN and infinities where labels are missing
GIVEN = [(np.where(HIDDEN, NAN, Z), NAN), (Z, -1), (Z.astype(np.int64), -1), (Z.astype(np.int8).view(np.uint8), 255)]
WITH = [{}, {"label_smoothing": 0.1, "pos_weight": 2.0}, {"sample_weight": RNG.choice([0.0, 1.0, 2.5], X.shape)}]
CALLS = [(z, {"ignore_index": m, **more, "reduction": r}) for z, m in GIVEN for more in WITH for r in REDUCTIONS]


def expected(labels: Any, options: dict[str, Any], logits: Any = X) -> tuple[Any, Any]:
    return withlogits.value_and_grad(SIGMOID)(labels=labels, logits=logits, **options)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def test_tensors_of_torch(torch: Any) -> None:
    for labels, options in CALLS:
        value, gradient = expected(labels, options)
        tensors = {name: torch.tensor(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
        z = torch.tensor(labels)

        def of(x: Any, z: Any = z, tensors: Any = tensors) -> Any:
            return SIGMOID(labels=z, logits=x, **tensors)

        x = torch.tensor(X, requires_grad=True)
        of(x).sum().backward()
        np.testing.assert_allclose(of(x).detach().numpy(), value, rtol=1e-15)
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-15)
        by_func, got = torch.func.grad_and_value(lambda x, of=of: of(x).sum())(x.detach())
        np.testing.assert_allclose(got.item(), np.sum(value), rtol=1e-14)
        np.testing.assert_allclose(by_func.numpy(), gradient, rtol=1e-14)


def test_second_derivatives_of_torch(torch: Any) -> None:
    """Finite, and 0 for what is missing, though its logits are not finite."""
    for labels, options in CALLS[::5]:
        tensors = {name: torch.tensor(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
        x = torch.tensor(X)
        hessian = torch.func.hessian(
            lambda x, labels=labels, tensors=tensors: SIGMOID(labels=torch.tensor(labels), logits=x, **tensors).sum()
        )(x)
        diagonal = hessian.reshape(X.size, X.size)
        assert torch.isfinite(diagonal).all()
        assert torch.equal(diagonal, torch.diag(diagonal.diag()))
        assert not diagonal.diag().numpy().reshape(X.shape)[HIDDEN].any()
    labels = torch.tensor(np.where(HIDDEN, NAN, Z), requires_grad=True)
    x = torch.tensor(np.where(HIDDEN, 0.5, X), requires_grad=True)

    def mean(x: Any, labels: Any) -> Any:
        return SIGMOID(labels=labels, logits=x, ignore_index=NAN, reduction="mean")

    assert torch.autograd.gradcheck(mean, (x, labels), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(mean, (x, labels))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("missing", [-1, NAN], ids=str)
def test_transforms_of_torch(torch: Any, missing: float) -> None:
    x, labels = torch.tensor(X), torch.tensor(np.where(HIDDEN, missing, Z))

    def mean(x: Any, labels: Any) -> Any:
        return SIGMOID(labels=labels, logits=x, ignore_index=missing, reduction="mean")

    value, gradient = (
        torch.tensor(each) for each in expected(labels.numpy(), {"ignore_index": missing, "reduction": "mean"})
    )
    close = {"rtol": 1e-13, "atol": 0.0}
    compiled = torch.compile(mean, fullgraph=True, backend="aot_eager")
    given = x.clone().requires_grad_()
    found = compiled(given, labels)
    found.backward()
    torch.testing.assert_close(found, value, **close)
    torch.testing.assert_close(given.grad, gradient, **close)
    torch.testing.assert_close(torch.jit.trace(mean, (torch.zeros_like(x), labels))(x, labels), value, **close)
    each = torch.func.vmap(mean)(x.reshape(2, 3, 4), labels.reshape(2, 3, 4))
    for i in (0, 1):
        torch.testing.assert_close(each[i], mean(x.reshape(2, 3, 4)[i], labels.reshape(2, 3, 4)[i]), **close)

    class Model(torch.nn.Module):
        def forward(self, x: Any, labels: Any) -> Any:
            return mean(x, labels)

    exported = torch.export.export(Model(), (x, labels)).module()
    torch.testing.assert_close(exported(x, labels), value, **close)


def test_unsigned_labels_of_64_bits_of_torch(torch: Any) -> None:
    """Where an index to ignore of the sparse loss would stand for its 64 bits."""
    labels = torch.tensor([1, 0, 2**63], dtype=torch.uint64)
    x = torch.tensor([0.5, -1.0, 2.0])
    got = torch.func.vmap(lambda x, z: SIGMOID(labels=z, logits=x, ignore_index=-1))(x, labels)
    torch.testing.assert_close(got, SIGMOID(labels=labels, logits=x))


def test_modules_of_torch(torch: Any) -> None:
    from withlogits.torch import SigmoidCrossEntropy

    for labels, options in CALLS:
        options = dict(options)
        weight = options.pop("sample_weight", None)
        loss = SigmoidCrossEntropy(**options)
        given = None if weight is None else torch.tensor(weight)
        got = loss(labels=torch.tensor(labels), logits=torch.tensor(X), sample_weight=given)
        np.testing.assert_allclose(
            got.numpy(), SIGMOID(labels=labels, logits=X, sample_weight=weight, **options), 1e-15
        )
    assert repr(SigmoidCrossEntropy(ignore_index=-1.0)) == "SigmoidCrossEntropy(ignore_index=-1)"
    assert repr(SigmoidCrossEntropy(ignore_index=NAN)) == "SigmoidCrossEntropy(ignore_index=nan)"


@pytest.mark.parametrize("wide", [True, False])
def test_arrays_of_jax(wide: bool) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    from frameworks.jax_cases import x64

    dtype, close = (np.float64, 1e-14) if wide else (np.float32, 2e-6)
    with x64(wide):
        for labels, options in CALLS[2::13]:
            labels = labels.astype(dtype) if labels.dtype.kind == "f" else labels
            value, gradient = expected(labels, options, X.astype(dtype))

            def of(x: Any, labels: Any = labels, options: Any = options) -> Any:
                return SIGMOID(labels=jax.numpy.asarray(labels), logits=x, **options)

            x = jax.numpy.asarray(X.astype(dtype))
            np.testing.assert_allclose(of(x), value, rtol=close)
            np.testing.assert_allclose(jax.jit(of)(x), value, rtol=close)
            np.testing.assert_allclose(jax.grad(lambda x, of=of: of(x).sum())(x), gradient, rtol=close)
            if options["reduction"] == "mean":
                hessian = np.asarray(jax.hessian(of)(x)).reshape(X.size, X.size)
                assert np.isfinite(hessian).all()
                assert not hessian.diagonal().reshape(X.shape)[HIDDEN].any()
        z, options = GIVEN[0][0].astype(dtype), {"ignore_index": NAN, "reduction": "mean"}
        value, gradient = jax.vmap(
            lambda x, z: withlogits.value_and_grad(SIGMOID, ("logits", "labels"))(labels=z, logits=x, **options)
        )(jax.numpy.asarray(X.astype(dtype)).reshape(3, 2, 4), jax.numpy.asarray(z).reshape(3, 2, 4))
        for i in range(3):
            part = slice(2 * i, 2 * i + 2)
            mine, theirs = BOTH(labels=z[part], logits=X[part].astype(dtype), **options)
            np.testing.assert_allclose(value[i], mine, rtol=close)
            for got, want in zip(gradient, theirs, strict=True):
                np.testing.assert_allclose(got[i], want, rtol=close, atol=close)


def test_tensors_of_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    for labels, options in CALLS[2::13]:
        value, gradient = expected(labels, options)

        def of(x: Any, z: Any, options: Any = options) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = SIGMOID(labels=z, logits=x, **options)
            return found, tape.gradient(found, x)

        for way in (of, tf.function(of), tf.function(of, jit_compile=True)):
            got, slope = way(tf.constant(X), tf.constant(labels))
            np.testing.assert_allclose(got, value, rtol=1e-14)
            np.testing.assert_allclose(slope, gradient, rtol=1e-14)
        with tf.GradientTape() as outer:
            x = tf.constant(X)
            outer.watch(x)
            slope = of(x, tf.constant(labels))[1]
        second = outer.gradient(slope, x).numpy()
        assert np.isfinite(second).all()
        assert not second[HIDDEN].any()
