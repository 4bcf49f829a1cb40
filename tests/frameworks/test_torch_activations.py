"""The softmax activations of tensors over several axes, and where logits are infinite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import withlogits  # noqa: E402

MAPS = ("softmax", "log_softmax", "logsumexp")
OVER = [None, (0, 1), (2, 0), (-1,), ()]


def values() -> Any:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 3, (2, 3, 4)))


def by_torch(name: str, x: Any, axis: Any) -> Any:
    axes = tuple(range(x.dim())) if axis is None else axis
    total = torch.logsumexp(x, axes, keepdim=True) if axes else x
    if name == "logsumexp":
        return total.squeeze(axes) if axes else total
    return x - total if name == "log_softmax" else torch.exp(x - total)


@pytest.mark.parametrize("axis", OVER)
@pytest.mark.parametrize("name", MAPS)
def test_several_axes_and_their_gradient(name: str, axis: Any) -> None:
    function = getattr(withlogits, name)
    x = values().requires_grad_()
    got, expected = function(x, axis=axis), by_torch(name, x, axis)
    np.testing.assert_array_equal(got.detach().numpy(), function(x.detach().numpy(), axis=axis))
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=tuple(expected.shape)))
    (gradient,) = torch.autograd.grad(got, x, weights)
    (truth,) = torch.autograd.grad(expected, x, weights)
    # torch's p comes from the rounded x − total: off by |x| + |total| < 20 roundings, times |Σ u| <= 24 in the gradient
    assert torch.allclose(gradient, truth, rtol=0.0, atol=24 * 20 * 2**-53)


@pytest.mark.parametrize("axis", [None, (0, 1), 1, -1])
def test_kept_axes(axis: Any) -> None:
    x = values()
    axes = (0, 1, 2) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    kept = withlogits.logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == torch.logsumexp(x, axes, keepdim=True).shape
    assert torch.equal(kept.squeeze(axes), withlogits.logsumexp(x, axis=axis))


@pytest.mark.parametrize("name", MAPS)
def test_vmap_over_several_axes(name: str) -> None:
    x, function = values(), getattr(withlogits, name)
    mapped = torch.func.vmap(lambda row: function(row, axis=None))(x)
    assert torch.equal(mapped, function(x, axis=(1, 2)))
    mapped = torch.func.vmap(torch.func.grad(lambda row: withlogits.logsumexp(row, axis=None)))(x)
    assert torch.equal(mapped, withlogits.softmax(x, axis=(1, 2)))


@pytest.mark.parametrize("name", MAPS)
def test_several_axes_are_compiled(name: str) -> None:
    x, function = values(), getattr(withlogits, name)
    compiled = torch.compile(lambda x: function(x, axis=(0, 2)), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), function(x, axis=(0, 2)))


@pytest.mark.parametrize(
    ("axis", "kind", "text"),
    [
        (1.5, TypeError, "axis is 1.5, where an integer is expected"),
        ([0], TypeError, "axis is an object of type list, where an integer is expected"),
        ((0, -3), ValueError, "axis=(0, -3) names an axis twice: pass each once"),
        ((0, 3), ValueError, "axis 3 is outside [-3, 3) for x of shape (2, 3, 4)"),
    ],
)
def test_axes_that_are_none(axis: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        withlogits.softmax(values(), axis=axis)
    assert str(caught.value) == text


INF, NAN = float("inf"), float("nan")
ROWS = [[1.0, -INF], [INF, 0.0], [-INF, -INF], [NAN, 1.0], [INF, INF], [INF, NAN], [-INF, NAN], [INF, -INF], [0.0, 0.0]]
TOTALS = [1.0, INF, -INF, NAN, INF, NAN, NAN, INF, np.log(2.0)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_logsumexp_of_infinite_rows(dtype: str) -> None:
    """The gradient is the softmax: NaN where that is not defined, and no other row is touched."""
    x = torch.tensor(ROWS, dtype=getattr(torch, dtype), requires_grad=True)
    total = withlogits.logsumexp(x)
    np.testing.assert_array_equal(total.detach().numpy(), np.array(TOTALS, dtype))
    (gradient,) = torch.autograd.grad(total.sum(), x)
    expected = np.full((len(ROWS), 2), NAN)
    expected[0], expected[-1] = [1.0, 0.0], [0.5, 0.5]
    np.testing.assert_array_equal(gradient.numpy(), expected)
    by_map = torch.func.vmap(withlogits.logsumexp)(x.detach())
    np.testing.assert_array_equal(by_map.numpy(), np.array(TOTALS, dtype))
