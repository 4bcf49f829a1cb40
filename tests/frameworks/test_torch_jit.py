"""`torch.jit.trace` records the losses as operators: the traced function computes the loss of what it is given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import withlogits
from frameworks.torch_cases import ACTIVATIONS, CASES, LOSSES, Case, assert_ulps, differentiated, tensors, torch
from withlogits.compat import torch as compat
from withlogits.torch import SigmoidCrossEntropy, SoftmaxCrossEntropy, SparseSoftmaxCrossEntropy

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is not supported:DeprecationWarning"),
]
F = torch.nn.functional


def traced(function: Any, *example: Any) -> Any:
    return torch.jit.trace(function, example)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_traced_loss_is_that_of_its_arguments(case: Case) -> None:
    """And its gradient: the same numbers as from a call, up to the sums of a mean and its divisor."""
    options = tensors(case.keywords)

    def loss(labels: Any, logits: Any) -> Any:
        return case.function(labels=labels, logits=logits, **options)

    function = traced(loss, *case.tensors(np.float32))
    labels, logits = case.tensors(np.float32, seed=1, grad=True)
    for one, other in zip(differentiated(function, labels, logits), differentiated(loss, labels, logits), strict=True):
        assert_ulps(one, other, 4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_traced_loss_takes_other_batches_and_travels(loss: str, reduction: str) -> None:
    options = {"pos_weight": 3.0} if loss == "weighted" else {"reduction": reduction}

    def call(labels: Any, logits: Any) -> Any:
        return LOSSES[loss](labels=labels, logits=logits, **options)

    file = io.BytesIO()
    torch.jit.save(traced(call, *Case(loss, "").tensors(np.float32)), file)
    file.seek(0)
    labels, logits = Case(loss, "", shape=(70, 3)).tensors(np.float32)
    assert_ulps(torch.jit.load(file)(labels, logits), call(labels, logits), 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_traced_activations(name: str) -> None:
    function = getattr(withlogits, name)
    x = torch.rand(5, 3)
    assert torch.equal(traced(function, torch.rand(4, 3))(x), function(x))


@pytest.mark.parametrize(
    "module",
    [
        SigmoidCrossEntropy(pos_weight=[1.0, 2.0, 0.5], reduction="mean"),
        SoftmaxCrossEntropy(class_weight=[1.0, 2.0, 0.5], reduction="mean"),
        SparseSoftmaxCrossEntropy(class_weight=[1.0, 2.0, 0.5], ignore_index=1, reduction="mean"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_traced_modules(module: Any) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = module

        def forward(self, labels: Any, logits: Any) -> Any:
            return self.loss(labels=labels, logits=logits * 2.0)

    labels = torch.randint(0, 3, (4,)) if isinstance(module, SparseSoftmaxCrossEntropy) else torch.rand(4, 3)
    function = traced(Model(), labels, torch.randn(4, 3))
    logits = torch.randn(4, 3)
    assert_ulps(function(labels, logits), module(labels=labels, logits=2.0 * logits), 2)


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", ["indices", "probabilities", "binary"])
def test_traced_drop_ins(kind: str, weighted: bool, reduction: str, patched: bool) -> None:
    logits, other = torch.randn(4, 3), torch.randn(6, 3)
    weight = torch.tensor([1.0, 2.0, 0.5]) if weighted else None
    home = torch.nn if patched else compat
    model = (home.BCEWithLogitsLoss if kind == "binary" else home.CrossEntropyLoss)(weight=weight, reduction=reduction)

    def target(n: int) -> Any:
        return torch.randint(0, 3, (n,)) if kind == "indices" else torch.rand(n, 3)

    if patched:
        with compat.patch():
            function = traced(model, logits, target(4))
    else:
        function = traced(model, logits, target(4))
    assert "withlogits::" in str(function.inlined_graph)
    labels = target(6)
    torch.testing.assert_close(function(other, labels), model(other, labels))


def test_a_named_loss_is_traced() -> None:
    def loss(labels: Any, logits: Any) -> Any:
        return LOSSES["sparse"](labels=labels, logits=logits, name="head")

    labels, logits = torch.tensor([0, 2]), torch.randn(2, 3)
    assert torch.equal(traced(loss, labels, torch.randn(2, 3))(labels, logits), loss(labels, logits))


@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_a_traced_loss_refuses_labels_that_do_not_fit(loss: str) -> None:
    """The checks of a call are not in the graph; the kernels read no further than the labels reach."""
    labels, logits = Case(loss, "").tensors(np.float32)

    def call(labels: Any, logits: Any) -> Any:
        return LOSSES[loss](labels=labels, logits=logits)

    function = traced(call, labels, logits)
    shape = tuple(labels.shape)
    fewer = str((1, *shape[1:])).replace("(", r"\(").replace(")", r"\)")
    expected = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(Exception, match=rf"labels have shape {fewer}, where {expected} is expected"):
        function(labels[:1], logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_grad_is_not_traced(loss: str) -> None:
    options = {"pos_weight": 3.0} if loss == "weighted" else {}

    def both(labels: Any, logits: Any) -> Any:
        return withlogits.value_and_grad(LOSSES[loss])(labels=labels, logits=logits, **options)

    text = "torch.jit.trace cannot record value_and_grad: trace the loss, and differentiate the traced function"
    with pytest.raises(RuntimeError, match=f"^{text}$"):
        traced(both, *Case(loss, "").tensors(np.float32))
