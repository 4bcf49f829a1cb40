"""The operators' way to the Triton kernels gives what their CPU kernels give."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from withlogits.frameworks.torch import cpu, cuda, formulas  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS = [
    formulas.Softmax(1, True, 0.1, 2),
    formulas.Softmax(1, True, z_loss=0.01, softcap=5.0),
    formulas.Softmax(1, False, 0.1, temperature=2.0),
]


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (2, 5, 3, 2)])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("last", [False, True])
def test_softmax(options: Any, shape: tuple[int, ...], last: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape) * 3
    if last and logits.dim() == 4:
        logits = logits.to(memory_format=torch.channels_last)
    rows = (*shape[:1], *shape[2:])
    labels = torch.randint(0, 5, rows) if options.sparse else torch.rand(shape)
    weight, sample, upstream = torch.rand(5) + 0.5, torch.rand(rows), torch.rand(rows)
    given = (logits, labels, weight, sample)
    loss, _ = cpu.softmax_rows(*given, *options)
    there = tuple(t.to(DEVICE) for t in given)
    found, stats = cuda.softmax_rows(*there, *options)
    torch.testing.assert_close(found.cpu(), loss, rtol=1e-5, atol=1e-6)
    asked = (True, not options.sparse)
    gradients = cpu.softmax_rows_backward(upstream, logits.new_empty(0), *given, *options, *asked)
    ours = cuda.softmax_rows_backward(upstream.to(DEVICE), stats, *there, *options, *asked)
    for got, expected in zip(ours, gradients, strict=True):
        assert got.stride() == expected.stride()
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (2, 5, 3), (2, 1, 2, 2, 3)])
def test_sigmoid(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given = (torch.randn(shape) * 3, torch.rand(shape), torch.rand(shape[-1:]).expand(shape), torch.rand(shape), 0.1)
    there = tuple(t.to(DEVICE) if isinstance(t, torch.Tensor) else t for t in given)
    torch.testing.assert_close(cuda.sigmoid_elements(*there).cpu(), cpu.sigmoid_elements(*given))
    upstream = torch.rand(shape)
    expected = cpu.sigmoid_elements_backward(upstream, *given, True, True)
    got = cuda.sigmoid_elements_backward(upstream.to(DEVICE), *there, True, True)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g.cpu(), e, rtol=1e-5, atol=1e-6)
