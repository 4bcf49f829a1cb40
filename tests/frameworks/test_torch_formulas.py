"""The formulas on tensors: derivatives of every order, tracing, and devices without float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

import withlogits  # noqa: E402
from kernels.engines import Functions  # noqa: E402
from withlogits import formulas  # noqa: E402
from withlogits import reference as engine  # noqa: E402
from withlogits.frameworks.torch import namespace  # noqa: E402
from withlogits.options import SigmoidOptions, SoftmaxOptions  # noqa: E402

reference = Functions(engine)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"softcap": 4.0},
    {"label_smoothing": 0.1, "temperature": 1.7, "softcap": 4.0, "z_loss": 0.1},
]
CLASSES = 5
RNG = np.random.default_rng(0)
X, Z, V, H = RNG.normal(0, 3, (6, CLASSES)), RNG.dirichlet(np.ones(CLASSES), 6), *RNG.normal(0, 1, (2, 6, CLASSES))
Y, W, S = RNG.integers(0, CLASSES, 6), RNG.random(CLASSES) + 0.1, np.array([1.0, 0.5, 0.0, 2.0, 1.0, 3.0])
ALL = {"label_smoothing": 0.1, "ignore_index": 2, "temperature": 0.7, "softcap": 5.0, "z_loss": 0.1}


def softmax(x: Any, labels: Any, class_weight: Any, sample_weight: Any, options: Any) -> Any:
    return formulas.Softmax(namespace, formulas.SoftmaxArrays(x, labels, class_weight, sample_weight), options)


def sigmoid(x: Any, labels: Any, pos_weight: Any, sample_weight: Any, smoothing: float) -> Any:
    arrays = formulas.SigmoidArrays(x, labels, pos_weight, sample_weight)
    return formulas.Sigmoid(namespace, arrays, SigmoidOptions(smoothing))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_autograd_through_the_formulas_is_right_to_the_third_order(options: dict[str, Any], sparse: bool) -> None:
    """Each order is made by autograd of the losses, and of the formulas for one order less; numbers below 100."""
    x, labels = torch.tensor(X, requires_grad=True), torch.tensor(Y if sparse else Z, requires_grad=not sparse)
    loss = softmax(x, labels, torch.tensor(W), torch.tensor(S), SoftmaxOptions(1, sparse, **options))
    losses, ones = loss.losses(), torch.ones(6, dtype=torch.float64)
    wrt, directions = ((x,), (torch.tensor(V),)) if sparse else ((x, labels), (torch.tensor(V), torch.tensor(H)))
    value, expected = reference.softmax_loss(
        X, labels.detach().numpy(), axis=1, sparse=sparse, class_weight=W, sample_weight=S,
        wrt=("logits", "labels")[: len(wrt)], **options,
    )  # fmt: skip
    torch.testing.assert_close(losses.detach(), torch.tensor(value), rtol=1e-15, atol=0)

    close = {"rtol": 0.0, "atol": 1e-11}
    first = torch.autograd.grad(losses.sum(), wrt, create_graph=True)
    for got, formula, array in zip(first, loss.gradients(ones, True, not sparse), expected, strict=False):
        torch.testing.assert_close(got, formula, **close)
        torch.testing.assert_close(formula.detach(), torch.tensor(array), rtol=1e-13, atol=1e-15)
    second = torch.autograd.grad(
        sum((g * d).sum() for g, d in zip(first, directions, strict=True)), wrt, create_graph=True
    )
    product = loss.hessian_product(ones, *directions, *(None,) * (2 - len(directions)))
    for got, formula in zip(second, product, strict=False):
        torch.testing.assert_close(got, formula, **close)
    third, by_formula = (
        torch.autograd.grad((part[0] * directions[0]).sum(), x, retain_graph=True)[0] for part in (second, product)
    )
    torch.testing.assert_close(third, by_formula, **close)


def test_derivatives_at_ties_and_at_zero_are_those_of_the_function() -> None:
    """Where |x| and a maximum have no derivative; the derivatives of log(1 + exp(x)) at 0 are 1/2, 1/4, 0, −1/8."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = sigmoid(x, torch.zeros(3, dtype=torch.float64), None, None, 0.0).losses()
    for expected in (0.5, 0.25, 0.0, -0.125):
        (loss,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
        torch.testing.assert_close(loss.detach(), torch.full_like(x, expected), rtol=0, atol=1e-15)
    labels, options = torch.tensor([0, 1]), SoftmaxOptions(1, True, softcap=2.0)

    def ours(x: Any) -> Any:
        return softmax(x, labels, None, None, options).losses().sum()

    def theirs(x: Any) -> Any:
        return torch.nn.functional.cross_entropy(2.0 * torch.tanh(x / 2.0), labels, reduction="sum")

    tied = torch.zeros(2, 3, dtype=torch.float64)
    got, expected = (torch.func.jacrev(torch.func.hessian(f))(tied) for f in (ours, theirs))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)


def test_the_formulas_can_be_traced_exported_and_mapped() -> None:
    options = SoftmaxOptions(1, True, **ALL)

    def losses(x: Any, y: Any) -> Any:
        return softmax(x, y, None, None, options).losses()

    class Model(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return losses(x, y)

    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    other, expected = (-x, y.flip(0)), losses(-x, y.flip(0))
    assert torch.equal(make_fx(losses)(x, y)(*other), expected)
    assert torch.equal(torch.export.export(Model(), (x, y)).module()(*other), expected)
    each = torch.func.vmap(torch.func.grad(lambda a, b: losses(a[None], b[None]).sum()))(x.double(), y)
    together, _ = softmax(x.double(), y, None, None, options).gradients(torch.ones(4), True, False)
    torch.testing.assert_close(each, together, rtol=0, atol=1e-14)


def test_one_row_with_class_weights_and_a_mean_under_vmap() -> None:
    x, y, w = torch.randn(4, 3), torch.tensor([0, 1, 2, 1]), torch.tensor([0.5, 2.0, 1.0])

    def loss(a: Any, b: Any) -> Any:
        return withlogits.sparse_softmax_cross_entropy_with_logits(labels=b, logits=a, class_weight=w, reduction="mean")

    got = torch.func.vmap(torch.func.grad(loss))(x, y)
    expected = torch.softmax(x, 1) - torch.nn.functional.one_hot(y, 3)  # the weight of a row is its denominator too
    torch.testing.assert_close(got, expected, rtol=0, atol=4e-7)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3}, {"z_loss": 0.1, "label_smoothing": 0.1}], ids=str)
def test_without_float64_pairs_keep_the_digits_of_float32(options: dict[str, Any], monkeypatch: Any) -> None:
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y)
    chosen = SoftmaxOptions(1, True, **options)
    expected = softmax(x, y, None, None, chosen).losses()
    monkeypatch.setattr(namespace, "NO_FLOAT64", frozenset(("cpu",)))
    got = softmax(x, y, None, None, chosen).losses()
    assert got.dtype == torch.float32
    # 2 ulp and τ, ε and λ themselves rounded to float32: half an ulp of numbers that the loss multiplies by 3 X/τ < 64
    torch.testing.assert_close(got.double(), expected, rtol=64 * 2.0**-24, atol=64 * 2.0**-24)
