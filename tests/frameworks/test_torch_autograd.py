"""Derivatives by torch's autograd: of every order and direction, and under everything that autograd offers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.autograd import grad, gradcheck, gradgradcheck  # noqa: E402
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from frameworks.torch_cases import (  # noqa: E402
    ACTIVATIONS,
    CASES,
    EVERY,
    FEW,
    REDUCTIONS,
    SOFTMAX_MAPS,
    Case,
    assert_ulps,
    differentiated,
    operators,
    tensor,
)
from withlogits.frameworks import torch as front  # noqa: E402
from withlogits.frameworks.torch import cpu  # noqa: E402

sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
few_cases = pytest.mark.parametrize("case", FEW, ids=str)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def inputs(case: Case, wrt: str) -> tuple[Any, ...]:
    labels, logits = case.tensors(grad=True)
    return {"logits": (labels.detach(), logits), "labels": (labels, logits.detach()), "both": (labels, logits)}[wrt]


# --------------------------------------------------------------------------------------- by differences, in float64


@pytest.mark.parametrize(
    ("case", "wrt"),
    [
        *((c, wrt) for c in CASES for wrt in ("logits", "labels") if wrt == "logits" or c.loss != "sparse"),
        *((c, "logits" if c.loss == "sparse" else "both") for c in EVERY),
    ],
    ids=str,
)
def test_derivatives_by_differences(case: Case, wrt: str) -> None:
    """First and second ones: backward over forward, forward over backward, backward twice; and mapped over."""
    given = inputs(case, wrt)
    every = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(case, given, **every)
    assert gradgradcheck(case, given, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations_by_differences(name: str) -> None:
    function = getattr(withlogits, name)
    rng = np.random.default_rng(0)
    given = tensor(rng.uniform(0.05, 0.95, (3, 4)) if name == "logit" else rng.normal(0, 2, (3, 4)), True)
    for options in ({}, {"axis": 0}) if name in SOFTMAX_MAPS else ({},):

        def of(x: Any, function: Any = function, options: Any = options) -> Any:
            return function(x, **options)

        assert gradcheck(of, given, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
        assert gradgradcheck(of, given, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("case", [c for c in FEW if c.name in ("plain", "all, mean")], ids=str)
def test_third_derivatives_by_differences(case: Case) -> None:
    labels, logits = case.tensors(grad=True)
    labels = labels.detach()
    v, w = torch.randn(2, *logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def second(x: Any) -> Any:
        (g,) = grad(case(labels, x).sum(), x, create_graph=True)
        (h,) = grad((g * v).sum(), x, create_graph=True)
        return (h * w).sum()

    assert gradcheck(second, logits)


@pytest.mark.parametrize("name", ["plain", "mean", "all, mean"])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_mixed_second_derivative(loss: str, name: str) -> None:
    """Autograd through the logits' gradient, and through the labels', give the same; TensorFlow gives a silent 0."""
    case = next(c for c in CASES if (c.loss, c.name) == (loss, "all" if loss == "sigmoid" and "all" in name else name))
    labels, logits = case.tensors(grad=True)
    dx, dz = grad(case(labels, logits).sum(), (logits, labels), create_graph=True)
    over_labels = torch.stack([grad(g, labels, retain_graph=True)[0].flatten() for g in dx.flatten()])
    over_logits = torch.stack([grad(g, logits, retain_graph=True)[0].flatten() for g in dz.flatten()])
    torch.testing.assert_close(over_labels, over_logits.T)
    assert over_labels.abs().max() > 0.01
    if (loss, name) == ("sigmoid", "plain"):
        torch.testing.assert_close(over_labels, -torch.eye(12, dtype=torch.float64), rtol=1e-15, atol=0)


# ----------------------------------------------------------------------------------------- one backward, and another


@pytest.mark.parametrize(
    "rows", [4, 90_000]
)  # the gradient of the second is larger than 1 MiB: memory that is used again
@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
@every_reduction
def test_backward_again_and_again(loss: str, reduction: str, rows: int) -> None:
    """Whatever a caller does to a gradient, the next one is right; and so are those of other upstreams."""
    case = Case(loss, "", {"reduction": reduction}, (rows, 5))
    labels, logits = case.tensors(np.float32, grad=True)
    wrt = [t for t in (logits, labels) if t.requires_grad]
    value = case(labels, logits)
    one = torch.ones_like(value)
    first = grad(value, wrt, one, retain_graph=True)
    kept = [g.clone() for g in first]
    for g in first:
        g.fill_(torch.nan)
    second = grad(value, wrt, one, retain_graph=True)
    for factor in (4.0, -0.5, 0.0, 1.0):
        for got, expected in zip(grad(value, wrt, one * factor, retain_graph=True), kept, strict=True):
            assert torch.equal(got, expected * factor)
    last = grad(value, wrt, one * 2.0)
    other = case(labels.detach().flip(0), logits.detach().flip(0).requires_grad_())
    other.backward(torch.ones_like(other))  # and another call does not write where that lies
    for got, earlier, expected in zip(last, second, kept, strict=True):
        assert torch.equal(got, expected * 2.0)
        assert torch.equal(earlier, expected)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        grad(value, wrt, one)


def test_gradients_of_earlier_calls_stay() -> None:
    case = Case("sparse", "", {"reduction": "mean"}, (300_000, 4))
    labels, logits = case.tensors(np.float32, grad=True)
    kept: list[Any] = []
    for i in range(6):
        x = (logits.detach() * (i % 3)).requires_grad_()
        case(labels, x).backward()
        kept.append((x.grad, x.grad.clone()))
        if i == 3:
            del kept[0]  # its memory is free for the next
    for gradient, copy in kept:
        assert torch.equal(gradient, copy)


@few_cases
def test_gradients_accumulate(case: Case) -> None:
    labels, logits = case.tensors(np.float32, grad=True)
    (expected,) = differentiated(case, labels, logits)[1:2]
    for _ in range(3):
        value = case(labels, logits)
        value.backward(torch.ones_like(value))
    torch.testing.assert_close(logits.grad, 3 * expected, rtol=1e-6, atol=0)
    value = case(labels, logits) + 2 * case(labels, logits)
    torch.testing.assert_close(grad(value.sum(), logits)[0], 3 * expected, rtol=1e-6, atol=0)


@few_cases
def test_an_upstream_of_its_own_for_each_loss(case: Case) -> None:
    labels, logits = case.tensors(grad=True)
    value = case(labels, logits)
    upstream = torch.linspace(-2, 3, max(value.numel(), 2), dtype=value.dtype)[: value.numel()].view(value.shape)
    (got,) = grad(value, logits, upstream, retain_graph=True)
    parts = [
        u * grad(v, logits, retain_graph=True)[0] for u, v in zip(upstream.flatten(), value.flatten(), strict=True)
    ]
    torch.testing.assert_close(got, sum(parts))
    strided = torch.stack([upstream, upstream], -1)[..., 0]
    assert torch.equal(grad(value, logits, strided, retain_graph=True)[0], got)
    expanded = upstream.flatten()[0].expand(value.shape)
    assert torch.equal(grad(value, logits, expanded, retain_graph=True)[0], grad(value, logits, expanded.clone())[0])


@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_an_upstream_of_zero_stops_what_is_not_finite(loss: str) -> None:
    labels, _ = Case(loss, "").tensors(np.float32)
    x = torch.tensor([[torch.nan] * 3, [torch.inf, 0, 0], [-torch.inf] * 3, [1.0, 2.0, 3.0]], requires_grad=True)
    value = Case(loss, "")(labels, x)
    upstream = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(-1, *[1] * (value.dim() - 1)).expand(value.shape)
    for enter in (torch.enable_grad, operators):
        with enter():
            (gradient,) = grad(value, x, upstream, retain_graph=True)
        assert (gradient[:3] == 0).all()
        assert (gradient[3] != 0).all()
    (gradient,) = grad(value, x, upstream, create_graph=True)
    (second,) = grad(gradient.sum(), x)
    assert (gradient[:3] == 0).all()
    assert (second[:3] == 0).all()
    total = Case(loss, "", {"reduction": "sum"})(labels, x)
    assert (grad(total, x, torch.tensor(0.0))[0] == 0).all()


# ----------------------------------------------------------------------------- hooks, checkpoints, changes, no gradient


class Head(torch.nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.layer = case, torch.nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x: Any, labels: Any) -> Any:
        return self.case(labels, self.layer(x)).sum()


@few_cases
def test_hooks_and_checkpoints_change_nothing(case: Case) -> None:
    labels, x = case.tensors()
    head = Head(case)
    head(x, labels).backward()
    expected = [p.grad.clone() for p in head.parameters()]
    seen: list[Any] = []
    handles = [
        head.register_full_backward_hook(lambda module, given, got: seen.append(("module", got[0].shape))),
        head.layer.register_full_backward_hook(lambda module, given, got: seen.append(("layer", got[0].shape))),
    ]

    def save(t: Any) -> Any:
        seen.append(("saved", t.shape))
        return t.clone()

    for around in (saved_tensors_hooks(save, lambda t: t), save_on_cpu()):
        head.zero_grad()
        with around:
            value = head(x.clone().requires_grad_(), labels)
        value.backward()
        assert all(torch.equal(p.grad, e) for p, e in zip(head.parameters(), expected, strict=True))
    assert {kind for kind, _ in seen} == {"module", "layer", "saved"}
    for handle in handles:
        handle.remove()
    for reentrant in (False, True):
        head.zero_grad()
        checkpoint(head, x.clone().requires_grad_(), labels, use_reentrant=reentrant).backward()
        assert all(torch.equal(p.grad, e) for p, e in zip(head.parameters(), expected, strict=True))


@every_reduction
def test_a_hook_of_a_tensor_may_change_its_gradient(reduction: str) -> None:
    case = Case("sparse", "", {"reduction": reduction})
    labels, logits = case.tensors(grad=True)
    expected = differentiated(case, labels, logits)[1]
    logits.register_hook(lambda g: g * 3.0)
    value = case(labels, logits)
    value.register_hook(lambda g: g * 2.0)
    value.backward(torch.ones_like(value))
    torch.testing.assert_close(logits.grad, 6 * expected)


@few_cases
def test_logits_that_are_changed_afterwards_are_an_error_where_they_are_read_again(case: Case) -> None:
    labels, leaf = case.tensors(grad=True)
    _, expected, *_ = differentiated(case, labels.detach(), leaf)
    for upstream in (1.0, 3.0):
        logits = leaf * 1.0
        value = case(labels.detach(), logits).sum()
        logits.mul_(2.0)
        try:  # a gradient that was made with the loss is handed over as it is
            (gradient,) = torch.autograd.grad(value, leaf, torch.tensor(upstream, dtype=value.dtype))
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        else:
            assert upstream == 1.0
            torch.testing.assert_close(gradient, expected)


@few_cases
def test_no_gradient_where_none_is_asked(case: Case) -> None:
    labels, logits = case.tensors(np.float32, grad=True)
    for around in (torch.no_grad(), torch.inference_mode()):
        with around:
            value = case(labels, logits)
        assert not value.requires_grad
        assert value.is_inference() == isinstance(around, torch.inference_mode)
    assert not case(labels.detach(), logits.detach()).requires_grad
    with torch.inference_mode():
        inside = logits * 1.0
    torch.testing.assert_close(case(labels.detach(), inside), case(labels, logits).detach())


@pytest.mark.parametrize("wrt", ["logits", "labels", "both", "nothing"])
@few_cases
def test_the_kernels_make_only_the_gradients_that_are_asked_for(
    case: Case, wrt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = pytest.importorskip("withlogits.kernels.cpu.job", reason="there is no llvmlite, so there are no kernels")
    made: set[str] = set()

    def watched(fill: Any, *places: int) -> Any:
        def filled(*args: Any) -> Any:
            made.update(name for name, place in zip(("logits", "labels"), places, strict=False) if args[place])
            return fill(*args)

        return filled

    monkeypatch.setattr(front, "_known", {})  # what is planned keeps what fills its job
    monkeypatch.setattr(cpu, "_plans", {})
    monkeypatch.setattr(job.SOFTMAX_JOB, "fill", watched(job.SOFTMAX_JOB.fill, 2, 3))
    monkeypatch.setattr(job.SIGMOID_JOB, "fill", watched(job.SIGMOID_JOB.fill, 3, 4))
    monkeypatch.setattr(job.SMALL_JOB, "fill", watched(job.SMALL_JOB.fill, 2))
    labels, logits = case.tensors(np.float32)
    labels.requires_grad_(wrt in ("labels", "both") and case.loss != "sparse")
    logits.requires_grad_(wrt in ("logits", "both"))
    value = case(labels, logits)
    if value.requires_grad:
        value.sum().backward()
    expected = {name for name, t in (("labels", labels), ("logits", logits)) if t.requires_grad}
    assert made == expected
    assert {name for name, t in (("labels", labels), ("logits", logits)) if t.grad is not None} == expected


@every_reduction
def test_a_loss_without_a_gradient_compiles_no_kernel_for_one(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = pytest.importorskip("withlogits.kernels.cpu.softmax_plan", reason="there are no compiled kernels")
    new_kernel, strides = plans.softmax_kernel, []

    def watched(options: Any, axis: int, result: str, parts: Any) -> Any:
        strides.append(parts.gradient)
        return new_kernel(options, axis, result, parts)

    monkeypatch.setattr(plans, "softmax_kernel", watched)
    n = {"none": 7, "sum": 8, "mean": 9}[reduction]  # kernels do not differ by it
    x, y = torch.randn(n, 11), torch.arange(n)
    for _ in range(3):
        sparse_loss(labels=y, logits=x, reduction=reduction)
    assert set(strides) == {None}
    for _ in range(3):
        sparse_loss(labels=y, logits=x.requires_grad_(), reduction=reduction).sum().backward()
    assert set(strides) == {None, (44, 4)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_reduction
def test_autocast_leaves_the_loss_in_float32(dtype: Any, reduction: str) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        logits = x @ torch.eye(3)
        value = sparse_loss(labels=torch.tensor([0, 1, 2, 0]), logits=logits, reduction=reduction)
    assert (logits.dtype, value.dtype) == (dtype, torch.float32)
    value.sum().backward()
    assert x.grad.dtype == torch.float32
    assert_ulps(value.detach(), sparse_loss(labels=torch.tensor([0, 1, 2, 0]), logits=logits, reduction=reduction), 0)
