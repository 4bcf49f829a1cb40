"""torch's default device is of no account: results lie where the tensors lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import withlogits
from frameworks.torch_cases import ACTIVATIONS, CASES, LOSSES, Case, assert_ulps, differentiated, tensors, torch
from withlogits.compat import torch as compat
from withlogits.torch import SigmoidCrossEntropy, SparseSoftmaxCrossEntropy


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


ELSEWHERE = {"device": lambda: torch.device("meta"), "default device": default_device}
elsewhere = pytest.mark.parametrize("elsewhere", ELSEWHERE.values(), ids=ELSEWHERE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_and_gradients(case: Case) -> None:
    """Twice: the second call of a kind takes a shorter way."""
    labels, logits = case.tensors(np.float32, grad=True)
    options = tensors(case.keywords)

    def loss(labels: Any, logits: Any) -> Any:
        return case.function(labels=labels, logits=logits, **options)

    def all_of_it() -> list[Any]:
        value, gradients = withlogits.value_and_grad(case.function, case.differentiable)(
            labels=labels, logits=logits, **options
        )
        mapped = torch.vmap(loss)(labels[None], logits[None])
        return [
            *differentiated(loss, labels, logits),
            loss(labels, logits).detach(),
            value,
            *gradients,
            mapped.detach(),
        ]

    expected = all_of_it()
    for _ in range(2):
        with default_device():
            got = all_of_it()
        for one, other in zip(got, expected, strict=True):
            assert one.is_cpu
            assert_ulps(one, other, 0)


@elsewhere
def test_large_arrays_and_numbers_as_weights(elsewhere: Callable[[], Any]) -> None:
    """Results of more than a few kB come from memory of our own; lists and numbers become tensors beside the logits."""
    labels, logits = torch.randint(0, 5, (3000,)), torch.randn(3000, 5, requires_grad=True)
    step = withlogits.value_and_grad(LOSSES["sparse"])
    options = {"class_weight": [1.0, 2.0, 3.0, 0.5, 0.1], "sample_weight": 0.1}
    expected = step(labels=labels, logits=logits, **options)
    with elsewhere():
        got = step(labels=labels.tolist(), logits=logits, **options)
        infinite = LOSSES["sparse"](
            labels=torch.zeros(1, dtype=torch.int64, device="cpu"),
            logits=torch.tensor([[-3e38, 3e38]], device="cpu"),
            reduction="sum",
        )
    for one, other in zip(got, expected, strict=True):
        assert_ulps(one, other, 0)
    assert infinite.is_cpu
    assert infinite == torch.inf


@elsewhere
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, elsewhere: Callable[[], Any]) -> None:
    x = torch.rand(70, 3, requires_grad=True)
    function = getattr(withlogits, name)
    expected = [function(x).detach(), *torch.autograd.grad(function(x).sum(), x)]
    with elsewhere():
        got = [function(x).detach(), *torch.autograd.grad(function(x).sum(), x)]
    for one, other in zip(got, expected, strict=True):
        assert_ulps(one, other, 0)


@elsewhere
def test_modules_and_drop_ins(elsewhere: Callable[[], Any]) -> None:
    labels, z, logits = torch.randint(0, 3, (4,)), torch.rand(4, 3), torch.randn(4, 3)
    weight = torch.tensor([1.0, 2.0, 3.0])
    modules = SparseSoftmaxCrossEntropy(reduction="mean"), SigmoidCrossEntropy(reduction="mean")

    def all_of_it() -> list[Any]:
        return [
            modules[0](labels=labels, logits=logits),
            modules[1](labels=z, logits=logits),
            SparseSoftmaxCrossEntropy(class_weight=weight)(labels=labels, logits=logits),
            *(compat.cross_entropy(logits, y, w) for y in (labels, z) for w in (None, weight, -weight)),
            *(compat.binary_cross_entropy_with_logits(logits, z, w) for w in (None, weight, -weight)),
        ]

    expected = all_of_it()
    with elsewhere():
        got = all_of_it()
    for one, other in zip(got, expected, strict=True):
        assert_ulps(one, other, 0)


@elsewhere
def test_the_operators(elsewhere: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulas, for devices without a kernel, and second derivatives."""
    from withlogits import reference

    monkeypatch.setattr(withlogits.engine, "select", lambda: reference)
    for case in (c for c in CASES if c.name.startswith("all")):
        labels, logits = case.tensors(np.float64, grad=True)
        options = tensors(case.keywords)

        def curvature(labels: Any = labels, logits: Any = logits, case: Any = case, options: Any = options) -> Any:
            value = case.function(labels=labels, logits=logits, **options).sum()
            (slope,) = torch.autograd.grad(value, logits, create_graph=True)
            return torch.autograd.grad(slope.square().sum(), logits)[0]

        expected = curvature()
        with elsewhere():
            got = curvature()
        assert_ulps(got, expected, 0)
