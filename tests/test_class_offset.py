"""`class_offset`: a number for each class, added to the logits before softcap and temperature, on every path."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

import withlogits
from oracle import exact, ulp_error

SPARSE, DENSE = withlogits.sparse_softmax_cross_entropy_with_logits, withlogits.softmax_cross_entropy_with_logits
INF = float("inf")
RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 4.0, (6, 5))
Y = RNG.integers(0, 5, 6)
Z = RNG.dirichlet(np.ones(5), 6)
OFFSET = RNG.normal(0.0, 2.0, 5)


def truth(x: Any, y: int, offset: Any, temperature: float = 1.0) -> Any:
    """The loss of one row with an index label, to 2,000 bits."""
    with mp.workprec(2000):
        terms = [(exact(a) + exact(b)) / mpf(temperature) for a, b in zip(x, offset, strict=True)]
        m = max(terms)
        return mp.log(mp.fsum(mp.exp(t - m) for t in terms)) + (m - terms[y])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [3, 40, 300])
def test_the_loss_is_right_to_its_last_digits(
    engine: Any, classes: int, dtype: str, order: Any, temperature: float
) -> None:
    """Confident rows too: the sum of logit and offset is kept as a pair, so float64 has the bound of plain logits."""
    x = RNG.normal(0.0, 5.0, (8, classes)).astype(dtype)
    y, offset = RNG.integers(0, classes, 8), RNG.normal(0.0, 3.0, classes)
    x[np.arange(4), y[:4]] += 30.0  # confident
    options = {"class_offset": offset, "temperature": temperature}
    one_hot = np.eye(classes, dtype=dtype)[y]
    for loss in (
        SPARSE(labels=y, logits=np.asarray(x, order=order), **options),
        DENSE(labels=one_hot, logits=np.asarray(x, order=order), **options),
    ):
        for i in range(8):
            expected = truth(x[i], y[i], offset, temperature)
            assert ulp_error(loss[i], expected, np.dtype(dtype)) <= 2.0, (i, loss[i], float(expected))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5, "softcap": 6.0}, {"class_weight": OFFSET**2, "z_loss": 0.1}]
)
def test_the_gradients_are_those_of_logits_with_the_offset(engine: Any, options: dict[str, Any]) -> None:
    for loss, labels, wrt in ((SPARSE, Y, ("logits",)), (DENSE, Z, ("logits", "labels"))):
        both = withlogits.value_and_grad(loss, wrt)
        for reduction in ("none", "sum", "mean"):
            value, gradients = both(labels=labels, logits=X, class_offset=OFFSET, reduction=reduction, **options)
            expected, theirs = both(labels=labels, logits=X + OFFSET, reduction=reduction, **options)
            np.testing.assert_allclose(value, expected, rtol=1e-12)
            for got, want in zip(gradients, theirs, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)
        step = 1e-6
        _, (gradient, *_) = both(labels=labels, logits=X, class_offset=OFFSET, reduction="sum", **options)
        for j in range(5):
            moved = [
                loss(labels=labels, logits=X + by * np.eye(5)[j], class_offset=OFFSET, reduction="sum", **options)
                for by in (step, -step)
            ]
            np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), gradient[:, j].sum(), rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1]),
    temperature=st.sampled_from([1.0, 0.3, 5.0]),
    softcap=st.sampled_from([None, 5.0]),
    z_loss=st.sampled_from([0.0, 0.1]),
    weighted=st.booleans(),
    order=st.sampled_from(["C", "F"]),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_in_any_combination_of_options(
    seed: int, classes: int, smoothing: float, weighted: bool, order: Any, dtype: str, **options: Any
) -> None:
    """The same as adding the offset to the logits in float64, to within the rounding of the results."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.normal(0, 5, (5, classes)).astype(dtype), order=order)
    offset = rng.normal(0, 3, classes)
    options["label_smoothing"] = smoothing
    if weighted:
        options["class_weight"] = rng.choice([0.5, 2.0], classes)
        options["sample_weight"] = rng.choice([0.0, 1.0, 3.0], 5)
    for loss, labels in (
        (SPARSE, rng.integers(0, classes, 5)),
        (DENSE, rng.dirichlet(np.ones(classes), 5).astype(dtype).astype(np.float64)),
    ):
        both = withlogits.value_and_grad(loss)
        value, gradient = both(labels=labels, logits=x, class_offset=offset, **options)
        expected, wanted = both(labels=labels, logits=x.astype(np.float64) + offset, **options)
        rtol = {"float16": 2.0**-22, "float32": 2.0**-22, "float64": 1e-12}[dtype]
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-30)
        rounding = {"float16": 2.0**-10, "float32": 2.0**-21, "float64": 1e-11}[dtype]
        smallest = {"float16": 2.0**-24, "float32": 1e-12, "float64": 1e-14}[dtype]
        np.testing.assert_allclose(gradient.astype(np.float64), wanted, rtol=rounding, atol=smallest)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_minus_infinity_removes_a_class(engine: Any, dtype: str) -> None:
    offset = np.array([0.0, -INF, 0.5, 0.0, -INF])
    kept, labels = [0, 2, 3], np.array([0, 1, 2, 0, 1, 2])
    x = X.astype(dtype)
    both = withlogits.value_and_grad(SPARSE)
    value, gradient = both(labels=np.array(kept)[labels], logits=x, class_offset=offset)
    expected, wanted = both(labels=labels, logits=x[:, kept], class_offset=offset[kept])
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient[:, kept], wanted)
    assert not gradient[:, [1, 4]].any()
    assert SPARSE(labels=np.array([1]), logits=x[:1], class_offset=offset)[0] == INF
    assert np.isnan(SPARSE(labels=np.array([1]), logits=x[:1], class_offset=np.full(5, -INF))[0])
    assert SPARSE(labels=np.array([1]), logits=x[:1], class_offset=offset, ignore_index=1)[0] == 0.0


def test_a_row_of_its_largest_logits_is_a_tie_in_the_sums_alone(engine: Any) -> None:
    """float64: 1e16 + 1 and 1e16 + 2 differ by what their rounding loses."""
    x, offset = np.array([[1e16, 1e16]]), np.array([1.0, 2.5])
    loss = SPARSE(labels=np.array([0]), logits=x, class_offset=offset)[0]
    assert loss == pytest.approx(float(np.log1p(np.exp(1.5))), rel=1e-15)


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (np.zeros(4), "class_offset has shape (4,), where (5,) is expected: one number for each class"),
        (np.array([0.0, np.nan, 0.0, 0.0, 0.0]), "class_offset[1] is nan, where a finite number or -inf is expected"),
        (np.array([0.0, 0.0, INF, 0.0, 0.0]), "class_offset[2] is inf, where a finite number or -inf is expected"),
    ],
)
def test_errors(engine: Any, offset: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        SPARSE(labels=Y, logits=X, class_offset=offset)


# ----------------------------------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def test_tensors_give_what_arrays_give(torch: Any) -> None:
    for loss, labels in ((SPARSE, Y), (DENSE, Z)):
        for options in ({}, {"softcap": 5.0}, {"class_weight": OFFSET**2}):
            expected, wanted = withlogits.value_and_grad(loss)(
                labels=labels, logits=X, class_offset=OFFSET, reduction="mean", **options
            )
            tensors = {name: torch.tensor(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
            x = torch.tensor(X, requires_grad=True)

            def of(x: Any, loss: Any = loss, labels: Any = labels, tensors: Any = tensors) -> Any:
                return loss(
                    labels=torch.tensor(labels),
                    logits=x,
                    class_offset=torch.tensor(OFFSET),
                    reduction="mean",
                    **tensors,
                )

            value = of(x)
            (2.0 * value).backward()
            np.testing.assert_allclose(value.item(), expected, rtol=1e-13)
            np.testing.assert_allclose(x.grad.numpy() / 2.0, wanted, rtol=1e-12, atol=1e-16)
            np.testing.assert_allclose(torch.func.grad(of)(x.detach()).numpy(), wanted, rtol=1e-12, atol=1e-16)


def test_derivatives_of_tensors(torch: Any) -> None:
    x, labels, offset = torch.tensor(X, requires_grad=True), torch.tensor(Y), torch.tensor(OFFSET)
    offset[2] = -INF

    def of(x: Any) -> Any:
        return SPARSE(labels=labels.clamp(3, 4), logits=x, class_offset=offset, softcap=4.0, temperature=0.7)

    assert torch.autograd.gradcheck(of, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(of, x)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
def test_transforms_of_torch(torch: Any) -> None:
    x, labels, offset = torch.tensor(X), torch.tensor(Y), torch.tensor(OFFSET)

    def mean(x: Any, labels: Any) -> Any:
        return SPARSE(labels=labels, logits=x, class_offset=offset, reduction="mean")

    expected = mean(x, labels)
    close = {"rtol": 1e-13, "atol": 0.0}
    torch.testing.assert_close(torch.compile(mean, fullgraph=True, backend="aot_eager")(x, labels), expected, **close)
    torch.testing.assert_close(torch.jit.trace(mean, (x + 1.0, labels))(x, labels), expected, **close)
    each = torch.func.vmap(mean)(x.reshape(2, 3, 5), labels.reshape(2, 3))
    torch.testing.assert_close(each.mean(), expected, **close)
    several = torch.func.vmap(lambda o: SPARSE(labels=labels, logits=x, class_offset=o))(
        torch.stack([offset, offset * 0])
    )
    torch.testing.assert_close(several[1], SPARSE(labels=labels, logits=x), **close)

    class Model(torch.nn.Module):
        def forward(self, x: Any, labels: Any) -> Any:
            return mean(x, labels)

    exported = torch.export.export(Model(), (x, labels)).module()
    torch.testing.assert_close(exported(x, labels), expected, **close)


def test_modules_keep_it_as_a_buffer(torch: Any) -> None:
    from withlogits.torch import SoftmaxCrossEntropy, SparseSoftmaxCrossEntropy

    for module, labels in ((SparseSoftmaxCrossEntropy, Y), (SoftmaxCrossEntropy, Z)):
        loss = module(class_offset=torch.tensor(OFFSET))
        assert "class_offset" in loss.state_dict()
        got = loss(labels=torch.tensor(labels), logits=torch.tensor(X))
        function = SPARSE if labels is Y else DENSE
        np.testing.assert_allclose(got.numpy(), function(labels=labels, logits=X, class_offset=OFFSET), rtol=1e-13)


def test_an_offset_that_asks_for_a_gradient_is_refused(torch: Any) -> None:
    with pytest.raises(ValueError, match=r"^class_offset requires a gradient"):
        SPARSE(labels=torch.tensor(Y), logits=torch.tensor(X), class_offset=torch.tensor(OFFSET, requires_grad=True))
