"""Derivatives of confident rows and of ties keep their digits: held to the truth, which mpmath computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.autograd import grad  # noqa: E402

from frameworks.torch_cases import DTYPES, LOSSES, operators, tensor  # noqa: E402

ROWS = {
    "confident": [20.0, 0.0, 0.0],
    "very confident": [0.5, 60.0, -1.0, 3.0],
    "wrong": [-30.0, 0.0, 1.0],
    "a tie": [1.5, 1.5, -2.0],
    "all tied": [0.0] * 4,
    "a tie of confident ones": [30.0, 30.0, 0.0],
    "masked": [20.0, -np.inf, 1.0],
    "one class": [3.0],
}
SIGMOIDS = [-90.0, -20.0, -1.0, 0.0, 1e-30, 0.5, 20.0, 60.0]


def columns(of: Any, given: Any) -> np.ndarray:
    """The derivatives of each entry of `of`, a row each."""
    rows = [grad(g, given, retain_graph=True)[0].flatten() for g in of.flatten()]
    return torch.stack(rows).double().numpy()


def assert_digits(got: Any, truth: list[list[Any]], dtype: str, most: float) -> None:
    for i, row in enumerate(truth):
        for j, entry in enumerate(row):
            assert oracle.ulp_error(got[i, j], mpf(entry), dtype) <= most, (i, j, got[i, j], mp.nstr(entry, 17))


def probabilities(x: list[float]) -> tuple[list[Any], list[Any]]:
    """p, and 1 − p without cancellation."""
    e = [mp.exp(mpf(v)) if v != -np.inf else mpf(0) for v in x]
    total = mp.fsum(e)
    return [v / total for v in e], [mp.fsum(e[:i] + e[i + 1 :]) / total for i in range(len(e))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ROWS)
def test_second_derivatives_of_a_softmax_loss(name: str, dtype: str) -> None:
    x = ROWS[name]
    p, rest = probabilities(x)
    among = range(len(x))
    hessian = [[p[i] * (rest[i] if i == j else -p[j]) for j in among] for i in among]
    mixed = [[-rest[i] if i == j else p[i] for j in among] for i in among]  # of the gradient i, by the label j
    most = 2 if dtype == "float32" else 16
    logits = torch.tensor([x], dtype=DTYPES[dtype], requires_grad=True)
    for label in among:
        if x[label] == -np.inf:
            continue
        value = LOSSES["sparse"](labels=torch.tensor([label]), logits=logits, reduction="mean")
        (g,) = grad(value, logits, create_graph=True)
        assert_digits(columns(g, logits), hessian, dtype, most)
    labels = torch.zeros_like(logits).detach()
    labels[0, np.argmax(x)] = 1.0
    labels.requires_grad_()
    dx, dz = grad(LOSSES["softmax"](labels=labels, logits=logits).sum(), (logits, labels), create_graph=True)
    assert_digits(columns(dx, logits), hessian, dtype, most)
    assert_digits(columns(dx, labels), mixed, dtype, most)
    assert_digits(columns(dz, logits), np.array(mixed).T.tolist(), dtype, most)

    def loss(a: Any) -> Any:
        return LOSSES["sparse"](labels=torch.tensor([int(np.argmax(x))]), logits=a, reduction="sum")

    first = torch.eye(len(x), dtype=DTYPES[dtype])[:1]
    (v,) = torch.func.jvp(torch.func.grad(loss), (logits.detach(),), (first,))[1:]
    assert_digits(v.double().numpy(), [[row[0] for row in hessian]], dtype, most)
    whole = torch.func.hessian(loss)(logits.detach())[0, :, 0]
    assert_digits(whole.double().numpy(), hessian, dtype, most)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("q", [1.0, 3.0])
def test_second_derivatives_of_a_sigmoid_loss(q: float, dtype: str) -> None:
    x = torch.tensor(SIGMOIDS, dtype=DTYPES[dtype], requires_grad=True)
    for z in (0.0, 0.25, 1.0):
        labels = torch.full_like(x, z).requires_grad_()
        value = LOSSES["sigmoid"](labels=labels, logits=x, pos_weight=q, reduction="sum")
        dx, dz = grad(value, (x, labels), create_graph=True)
        exact = [oracle.exact(v) for v in x.detach()]
        yes, no = [oracle.sigmoid(v) for v in exact], [oracle.sigmoid(-v) for v in exact]
        curved = [(q * z + 1 - z) * a * b for a, b in zip(yes, no, strict=True)]
        mixed = [-(a + q * b) for a, b in zip(yes, no, strict=True)]
        for of, by, truth in ((dx, x, curved), (dx, labels, mixed), (dz, x, mixed)):
            (got,) = grad(of.sum(), by, retain_graph=True)
            assert oracle.worst(got, truth, dtype) <= (1 if dtype == "float32" else 6)


@pytest.mark.parametrize("way", ["backward", "forward"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ROWS)
def test_derivatives_of_log_softmax_and_softmax(name: str, dtype: str, way: str) -> None:
    """In both directions: row i is that of the entry i."""
    x = torch.tensor(ROWS[name], dtype=DTYPES[dtype], requires_grad=True)
    p, rest = probabilities(ROWS[name])
    among = range(len(p))
    logarithms = [[rest[j] if i == j else -p[j] for j in among] for i in among]
    plain = [[p[i] * (rest[i] if i == j else -p[j]) for j in among] for i in among]
    for function, truth in ((withlogits.log_softmax, logarithms), (withlogits.softmax, plain)):
        backward, forward = lambda f: columns(f(x), x), lambda f: torch.func.jacfwd(f)(x.detach()).double().numpy()
        got = (backward if way == "backward" else forward)(function)
        # float32 computes these in float32, each entry from a softmax that is rounded
        assert_digits(got, truth, dtype, 16)
    with operators():
        (got,) = grad(withlogits.logsumexp(x), x)
    assert_digits(got.double().numpy()[None], [p], dtype, 2)


def test_third_derivatives_of_a_confident_row() -> None:
    """d³/dx₀³ of logsumexp is p (1 − p) (1 − 2p)."""
    for dtype, most in (("float32", 2), ("float64", 64)):
        x = torch.tensor([[20.0, 0.0, 0.0]], dtype=DTYPES[dtype], requires_grad=True)
        (g,) = grad(LOSSES["sparse"](labels=torch.tensor([0]), logits=x).sum(), x, create_graph=True)
        (h,) = grad(g[0, 0], x, create_graph=True)
        (third,) = grad(h[0, 0], x)
        (p, *_), (rest, *_) = probabilities([20.0, 0.0, 0.0])
        assert oracle.ulp_error(third[0, 0], p * rest * (rest - p), dtype) <= most


@pytest.mark.parametrize("cap", [30.0, 5.0])
def test_second_derivatives_under_a_softcap(cap: float) -> None:
    """By differences of the truth's gradient: of a row that the cap leaves confident."""
    x = np.array([[25.0, 0.5, -3.0]])
    steps = np.float64([1e-20, -1e-20])
    logits = tensor(x, True)
    (g,) = grad(LOSSES["sparse"](labels=torch.tensor([0]), logits=logits, softcap=cap).sum(), logits, create_graph=True)
    got = columns(g, logits)

    def gradient(values: list[Any]) -> list[Any]:
        bent = [mpf(cap) * mp.tanh(v / cap) for v in values]
        p, rest = probabilities(bent)
        slopes = [mp.sech(v / cap) ** 2 for v in values]
        return [(-rest[i] if i == 0 else p[i]) * slopes[i] for i in range(3)]

    exact = [mpf(float(v)) for v in x[0]]
    for j in range(3):
        up, down = (gradient([v + mpf(float(s)) * (i == j) for i, v in enumerate(exact)]) for s in steps)
        for i in range(3):
            assert oracle.ulp_error(got[i, j], (up[i] - down[i]) / mpf(2e-20), "float64") <= 256
