"""The operators' way to the Triton kernels gives what their CPU kernels give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from frameworks.torch_cases import FEW, Case, assert_ulps, differentiated, tensors  # noqa: E402
from withlogits.frameworks import torch as front  # noqa: E402
from withlogits.frameworks.torch import checks, cpu, cuda, namespace  # noqa: E402
from withlogits.options import SoftmaxOptions, field_values  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS = [
    SoftmaxOptions(1, True, 0.1, 2),
    SoftmaxOptions(1, True, z_loss=0.01, softcap=5.0),
    SoftmaxOptions(1, False, 0.1, temperature=2.0),
]


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (2, 5, 3, 2)])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("offsets", [False, True])
def test_softmax(options: Any, shape: tuple[int, ...], last: bool, offsets: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape) * 3
    if last and logits.dim() == 4:
        logits = logits.to(memory_format=torch.channels_last)
    rows = (*shape[:1], *shape[2:])
    labels = torch.randint(0, 5, rows) if options.sparse else torch.rand(shape)
    weight, sample, upstream = torch.rand(5) + 0.5, torch.rand(rows), torch.rand(rows)
    offset = torch.tensor([0.3, -1.0, float("-inf"), 2.0, 0.1]) if offsets else None
    given = (logits, labels, weight, sample, offset)
    values = field_values(options, without="reduction")
    loss, _ = cpu.KERNELS["softmax_rows"](*given, *values)
    there = tuple(None if t is None else t.to(DEVICE) for t in given)
    found, stats = cuda.KERNELS["softmax_rows"](*there, *values)
    torch.testing.assert_close(found.cpu(), loss, rtol=1e-5, atol=1e-6)
    asked = (True, not options.sparse)
    gradients = cpu.KERNELS["softmax_rows_backward"](upstream, logits.new_empty(0), *given, *values, *asked)
    ours = cuda.KERNELS["softmax_rows_backward"](upstream.to(DEVICE), stats, *there, *values, *asked)
    for got, expected in zip(ours, gradients, strict=True):
        assert got.stride() == expected.stride()
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (2, 5, 3), (2, 1, 2, 2, 3)])
def test_sigmoid(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(shape[::-1]) * 3).permute(*reversed(range(len(shape))))
    labels = torch.rand(shape).round(decimals=1)  # a 20th of them 1, and ignored
    given = (logits, labels, torch.rand(shape[-1:]).expand(shape), torch.rand(shape), 0.1, 1.0)
    there = tuple(t.to(DEVICE) if isinstance(t, torch.Tensor) else t for t in given)
    loss, expected_loss = cuda.KERNELS["sigmoid_elements"](*there)[0], cpu.KERNELS["sigmoid_elements"](*given)[0]
    assert loss.stride() == expected_loss.stride()
    torch.testing.assert_close(loss.cpu(), expected_loss)
    upstream, stats = torch.rand(shape), torch.empty(0)
    expected = cpu.KERNELS["sigmoid_elements_backward"](upstream, stats, *given, True, True)
    got = cuda.KERNELS["sigmoid_elements_backward"](upstream.to(DEVICE), stats, *there, True, True)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g.cpu(), e, rtol=1e-5, atol=1e-6)


@pytest.fixture
def _every_tensor_takes_the_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The public functions then go the way of CUDA tensors, on CPU tensors."""
    monkeypatch.setattr(front, "_are_plain", lambda *_: False)
    monkeypatch.setattr(front, "_known", {})
    monkeypatch.setattr(cuda, "serves", lambda logits: logits.dtype != torch.float64)
    with torch.library._scoped_library("withlogits", "IMPL") as library:
        for name, kernel in cuda.KERNELS.items():
            library.impl(name, kernel, "CPU", allow_override=True)
        yield


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.filterwarnings("ignore:Warning only once for all operators:UserWarning")  # of torch, of an override
@pytest.mark.parametrize("case", FEW, ids=str)
def test_public_functions(case: Case, request: pytest.FixtureRequest) -> None:
    labels, logits = case.tensors(np.float32, grad=True)
    options, wrt = tensors(case.keywords), case.differentiable
    expected = differentiated(case, labels, logits)
    launches: list[str] = []
    for name, kernel in cuda.KERNELS.items():
        request.getfixturevalue("monkeypatch").setitem(cuda.KERNELS, name, counted(launches, name, kernel))
    request.getfixturevalue("_every_tensor_takes_the_kernels")
    for one, other in zip(differentiated(case, labels, logits), expected, strict=True):
        assert_ulps(one, other, 10)  # of the largest entry: the kernels' contract, and sums and divisions by a mean
    assert len(launches) >= 2
    value, gradients = withlogits.value_and_grad(case.function, wrt)(labels=labels, logits=logits, **options)
    for one, other in zip((value, *gradients), expected, strict=True):
        assert not one.requires_grad
        assert_ulps(one, other, 10)


class _Copies(TorchDispatchMode):
    """Counts what is copied from the CPU to a device, for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        here = any(isinstance(a, torch.Tensor) and a.is_cpu for a in args)
        self.count += here and isinstance(result, torch.Tensor) and result.is_cuda
        return result


@pytest.mark.parametrize("value", [2.0, 3, True])
def test_a_number_is_not_copied_to_the_device(value: Any) -> None:
    with FakeTensorMode():
        logits = torch.empty(3, device="cuda")
        with _Copies() as copies:
            made = namespace.constant(value, logits), checks.as_tensor("pos_weight", value, logits)
        assert copies.count == 0
        assert all(one.is_cuda and one.shape == () for one in made)
        with _Copies() as copies:
            torch.as_tensor(value, device="cuda")
        assert copies.count == 1


def counted(calls: list[str], name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls.append(name)
        return kernel(*args)

    return call
