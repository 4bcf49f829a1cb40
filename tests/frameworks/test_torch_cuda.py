"""The public functions on tensors of a GPU: the numbers are those of the CPU, nothing waits, nothing large is made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
from withlogits import reference

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from frameworks.torch_cases import (  # noqa: E402
    ACTIVATIONS,
    CASES,
    EVERY,
    FEW,
    INTEGERS,
    LOSSES,
    SOFTMAX_MAPS,
    Case,
    assert_ulps,
    differentiated,
    tensor,
)

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own, in its compiler
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),  # said once a process, as it is set
]
SPARSE = LOSSES["sparse"]
# Of the largest entry: the kernels' own contract, and what autograd's sums and divisions by a mean add.
ULPS = {"float32": 10, "float64": 16, "float16": 2, "bfloat16": 2}


def on_gpu(*given: Any) -> Any:
    return tuple(t.detach().cuda().requires_grad_(t.requires_grad) if isinstance(t, torch.Tensor) else t for t in given)


def differentiated_there(case: Case, labels: Any, logits: Any) -> list[Any]:
    results = differentiated(case.of_tensors("cuda"), *on_gpu(labels, logits))
    assert all(result.is_cuda for result in results)
    return [result.cpu() for result in results]


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_values_and_gradients_are_those_of_the_cpu(case: Case) -> None:
    for name, dtype in oracle.DTYPES.items():
        labels, logits = case.tensors(dtype, grad=True)
        expected = differentiated(case, labels, logits)
        got = differentiated_there(case, labels, logits)
        for what, one, other in zip(("loss", "logits", "labels"), got, expected, strict=False):
            most = ULPS[name] if one.dtype == logits.dtype else ULPS["float32"]
            assert_ulps(one, other, most, f"{name}: {what}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_grad(case: Case) -> None:
    both = withlogits.value_and_grad(case.function, case.differentiable)
    labels, logits = on_gpu(*case.tensors(np.float32, grad=True))
    value, gradients = both(labels=labels, logits=logits, **case.of_tensors("cuda").keywords)
    expected = differentiated(case.of_tensors("cuda"), labels, logits)
    for one, other in zip((value, *gradients), expected, strict=True):
        assert not one.requires_grad
        assert_ulps(one.cpu(), other.cpu(), 4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_cpu(name: str) -> None:
    rng = np.random.default_rng(0)
    function = getattr(withlogits, name)
    for format_, dtype in oracle.DTYPES.items():
        x = tensor((rng.random((3, 4, 5)) if name == "logit" else rng.normal(0, 3, (3, 4, 5))).astype(dtype))
        for options in ({}, {"axis": 1}) if name in SOFTMAX_MAPS else ({},):
            assert_ulps(function(x.cuda(), **options).cpu(), function(x, **options), ULPS[format_])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_dtype_of_labels(dtype: Any) -> None:
    logits = torch.randn(6, 5)
    labels = torch.randint(0, 5, (6,))
    got = SPARSE(labels=labels.to(dtype).cuda(), logits=logits.cuda())
    assert_ulps(got.cpu(), SPARSE(labels=labels, logits=logits), 4)


@pytest.mark.parametrize("layout", ["transposed", "every other", "offset", "channels last", "expanded"])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_layouts(case: Case, layout: str) -> None:
    labels, logits = case.tensors(np.float32)
    there = logits.cuda()
    if layout == "transposed":
        there = there.t().contiguous().t()
    elif layout == "every other":
        there = there.repeat_interleave(2, 1)[:, ::2]
    elif layout == "offset":
        there = torch.cat((torch.zeros(1, device="cuda"), there.flatten()))[1:].view(there.shape)
    elif layout == "channels last":
        there = there[:, :, None, None].to(memory_format=torch.channels_last)[:, :, 0, 0]
    else:
        logits, there = logits[:1].expand(4, 3), there[:1].expand(4, 3)
    there.requires_grad_()
    got = differentiated(case.of_tensors("cuda"), labels.cuda(), there)
    expected = differentiated(case, labels, logits.clone().requires_grad_())
    for one, other in zip(got, expected, strict=True):
        assert_ulps(one.cpu(), other, ULPS["float32"])


@pytest.mark.parametrize("case", FEW, ids=str)
def test_second_derivatives(case: Case) -> None:
    labels, logits = on_gpu(*case.tensors(np.float64, grad=True))
    case = case.of_tensors("cuda")

    def loss(logits: Any) -> Any:
        return case(labels.detach(), logits)

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_compiled_whole(case: Case) -> None:
    labels, logits = on_gpu(*case.tensors(np.float32, grad=True))
    case = case.of_tensors("cuda")
    torch._dynamo.reset()
    compiled = torch.compile(lambda labels, logits: case(labels, logits), fullgraph=True)
    got, expected = differentiated(compiled, labels, logits), differentiated(case, labels, logits)
    for one, other in zip(got, expected, strict=True):
        assert_ulps(one.cpu(), other.cpu(), ULPS["float32"])


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_nothing_waits_for_the_gpu(case: Case) -> None:
    labels, logits = on_gpu(*case.tensors(np.float32, grad=True))
    case = case.of_tensors("cuda")
    differentiated(case, labels, logits)
    with without_waiting():
        differentiated(case, labels, logits)


def test_what_waits_is_found_out() -> None:
    with without_waiting(), pytest.raises(RuntimeError, match="synchron"):
        torch.ones(1, device="cuda").item()


def test_an_index_out_of_range_is_nan_and_moves_nothing() -> None:
    logits = torch.randn(3, 4, device="cuda", requires_grad=True)
    loss = SPARSE(labels=torch.tensor([0, 4, -1], device="cuda"), logits=logits)
    assert torch.isnan(loss).tolist() == [False, True, True]
    (gradient,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_makes_nothing_of_the_size_of_its_logits(dtype: Any) -> None:
    logits = torch.randn(512, 32_000, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 32_000, (512,), device="cuda")
    whole = logits.numel() * logits.element_size()
    slack = 1 << 20  # what torch's allocator may give beyond what it was asked for

    def taken(call: Any) -> int:
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    assert taken(lambda: SPARSE(labels=labels, logits=logits)) < slack
    step = withlogits.value_and_grad(SPARSE)
    assert taken(lambda: step(labels=labels, logits=logits, reduction="mean")) < whole + slack
    room = torch.empty_like(logits)
    assert taken(lambda: step(labels=labels, logits=logits, reduction="mean", out=room)) < whole + slack


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="cuda:0"):
        SPARSE(labels=torch.tensor([0]), logits=torch.zeros(1, 3, device="cuda"))


def test_a_training_learns() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8, device="cuda")
    labels = (x @ torch.randn(8, 5, device="cuda")).argmax(1)
    model = torch.nn.Linear(8, 5).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = SPARSE(labels=labels, logits=model(x), reduction="mean")
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert float(losses[-1]) < float(losses[0]) / 5


def test_the_guide_takes_tensors_of_a_gpu() -> None:
    logits = torch.randn(64, 5, device="cuda") * 3
    labels = logits.argmax(1)
    codes = {found.code for found in withlogits.diagnose(labels, torch.softmax(logits, 1), loss="sparse").findings}
    assert "WL101" in codes
    assert withlogits.recommend(labels).loss == withlogits.recommend(labels.cpu()).loss
    with pytest.raises(withlogits.DiagnosisError, match="WL101"):
        withlogits.checked(SPARSE)(labels=labels, logits=torch.softmax(logits, 1))
    evaluated = withlogits.evaluate(labels, logits)
    assert evaluated.to_dict() == withlogits.evaluate(labels.cpu(), logits.cpu()).to_dict()


def test_without_llvmlite_the_gpu_computes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withlogits.engine, "select", lambda: reference)
    logits = torch.randn(6, 5)
    labels = torch.randint(0, 5, (6,))
    got = SPARSE(labels=labels.cuda(), logits=logits.cuda())
    assert_ulps(got.cpu(), SPARSE(labels=labels, logits=logits), 4)
