"""The sigmoid family on the GPU, or interpreted: against the reference, against mpmath, in every layout."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import oracle
from kernels.cuda.arrays import DEVICE, DTYPES, GPU, INTEGERS, array, check_sigmoid, cuda, same, sigmoid, tensor, torch
from withlogits.kernels.cuda import sigmoid as kernels
from withlogits.kernels.cuda.tiles import elementwise_layout
from withlogits.options import SigmoidOptions

SPECIAL = (
    0.0,
    -0.0,
    1e-30,
    -1e-30,
    1e-3,
    -0.5,
    20.0,
    -20.0,
    88.0,
    -90.0,
    100.0,
    -104.5,
    3e4,
    -3e4,
    np.inf,
    -np.inf,
    np.nan,
)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "all smooth": {"label_smoothing": 1.0},
    "pos_weight": {"q": (0.25, 0.0, 3.0, 1.0)},
    "sample weights": {"s": (1.0, 0.0, 0.3, -2.0, 1e-3)},
    "upstream": {"u": (1.0, 0.0, -0.3, 2.0, 1e6)},
    "all": {"label_smoothing": 0.1, "q": (0.25, 0.0, 3.0), "s": (1.0, 0.0, 0.3, 1e-3), "u": (1.0, 0.0, -0.3, 2.0, 1e6)},
}


def logits(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    """Of ordinary size, and each special one somewhere."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 5.0, int(np.prod(shape)))
    x[: len(SPECIAL)] = SPECIAL[: len(x)]
    return tensor(rng.permutation(x).reshape(shape).astype(np.float32).astype(oracle.DTYPES[dtype]))


def labels(shape: tuple[int, ...], seed: int = 1) -> Any:
    """Zeros, ones and what lies between."""
    rng = np.random.default_rng(seed)
    z = rng.random(shape)
    return tensor(np.where(rng.random(shape) < 0.6, np.round(z), z).astype(np.float32))


def spread(options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        name: tensor(np.resize(np.array(value, np.float32), shape)) if isinstance(value, tuple) else value
        for name, value in options.items()
    }


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_option(dtype: str, name: str) -> None:
    for shape in ((40,), (7, 11), (3, 5, 2, 4)):
        check_sigmoid(logits(shape, dtype), labels(shape), **spread(OPTIONS[name], shape))


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [("float32", -1), ("float64", -1), ("float16", math.nan), ("float32", math.nan), ("int64", -1), ("uint8", 255)],
)
@pytest.mark.parametrize("name", ["plain", "all"])
def test_missing_labels(name: str, dtype: str, missing: float) -> None:
    """Results of 0 in their places, and for the others the bits of a call without them."""
    shape = (7, 11)
    x, z, options = logits(shape), labels(shape).round().to(getattr(torch, dtype)), spread(OPTIONS[name], shape)
    expected = sigmoid(x, z, **options)
    hidden = torch.arange(77, device=DEVICE).reshape(shape) % 3 == 0
    z[hidden] = missing
    got = sigmoid(x, z, ignore_index=missing, **options)
    for one, other in zip(got, expected, strict=True):
        assert same(one, torch.where(hidden, 0.0, other))


def test_a_label_beside_the_missing_one_counts() -> None:
    x = logits((3,))
    for z in (torch.tensor([-1.0 - 2.0**-52, 1.0, math.nan], dtype=torch.float64), torch.tensor([2**24 + 1, 0, 1])):
        z = z.to(DEVICE)
        for missing in (-1, 2**24 - 1):
            assert all(same(*pair) for pair in zip(sigmoid(x, z, ignore_index=missing), sigmoid(x, z), strict=True))


def test_arrays_of_any_layout() -> None:
    shape = (6, 5, 7)
    x, z, q, s, u = logits(shape), labels(shape), *(labels(shape, seed) + 0.5 for seed in (2, 3, 4))
    expected = check_sigmoid(x, z, q=q, s=s, u=u)
    turned = [each.permute(2, 1, 0).contiguous().permute(2, 1, 0) for each in (x, z, q, s, u)]
    apart = [torch.cat([each, each], 2)[:, :, ::2].clone(memory_format=torch.preserve_format) for each in (x, z)]
    for each, values in zip(apart, (x, z), strict=True):
        each.copy_(values)
    room = torch.full((6, 7, 5), 3.0, device=DEVICE)
    for got in (
        sigmoid(turned[0], turned[1], q=turned[2], s=turned[3], u=turned[4]),
        sigmoid(x, turned[1], q=q, s=turned[3], u=u, dx=room.transpose(1, 2)),
        sigmoid(apart[0], apart[1], q=q, s=s, u=u),
    ):
        assert all(same(a, b) for a, b in zip(got, expected, strict=True))
    wide = torch.empty((70, 130), device=DEVICE)
    wide.copy_(logits((70, 130)))
    turned_z = labels((130, 70)).t()
    assert all(same(a, b) for a, b in zip(sigmoid(wide, turned_z), sigmoid(wide, turned_z.contiguous()), strict=True))


def test_weights_may_be_broadcast() -> None:
    shape = (4, 3, 2, 5)
    x, z = logits(shape), labels(shape)
    q, s, u = torch.rand(5, device=DEVICE), torch.rand((3, 1, 1), device=DEVICE), torch.tensor(0.25, device=DEVICE)
    views = [each.expand(shape) for each in (q, s, u)]
    expected = check_sigmoid(x, z, **dict(zip("qsu", (view.contiguous() for view in views), strict=True)))
    got = sigmoid(x, z, **dict(zip("qsu", views, strict=True)))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_axes_are_taken_together_where_all_arrays_allow_it() -> None:
    dense = elementwise_layout((4, 3, 5), [(15, 5, 1), (15, 5, 1), (0, 0, 0)])
    assert dense.sizes == (1, 1, 1, 60)
    rows = elementwise_layout((4, 3, 5), [(15, 5, 1), (0, 0, 1)])
    assert rows.sizes == (1, 1, 12, 5)
    assert rows.strides == ((0, 0, 5, 1), (0, 0, 0, 1))
    assert elementwise_layout((), [()]).sizes == (1, 1, 1, 1)
    assert elementwise_layout((2, 0, 3), [(0, 3, 1)]).programs == 0
    apart = elementwise_layout((2, 3, 4, 5), [(500, 100, 20, 1), (1, 2, 6, 24)])
    assert apart.sizes == (2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [*INTEGERS, *DTYPES.values()], ids=str)
def test_labels_of_every_type(dtype: Any) -> None:
    x, z = logits((50,)), torch.arange(50, device=DEVICE) % 3
    got = sigmoid(x, z.to(dtype))
    assert all(same(a, b) for a, b in zip(got, sigmoid(x, z.float()), strict=True))


def test_float64_labels_keep_their_complement() -> None:
    z = torch.tensor([1.0 - 1e-12], dtype=torch.float64, device=DEVICE)
    x = torch.tensor([30.0], device=DEVICE)
    np.testing.assert_allclose(array(sigmoid(x, z)[0]), oracle_loss(30.0, 1.0 - 1e-12), rtol=1e-6)


def oracle_loss(x: float, z: float) -> float:
    return float(oracle.sigmoid_loss(x, z).loss)


def test_at_exactly_zero() -> None:
    x = torch.tensor([0.0, -0.0, 0.0], device=DEVICE)
    loss, dx, dz = sigmoid(x, torch.tensor([0.0, 0.0, 1.0], device=DEVICE))
    np.testing.assert_allclose(array(loss), np.log(2.0), rtol=1e-7)
    assert array(dx).tolist() == [0.5, 0.5, -0.5]
    assert array(dz).tolist() == [0.0, 0.0, 0.0]


def test_elements_that_do_not_count_are_exactly_zero() -> None:
    x = torch.full((6,), float("nan"), device=DEVICE)
    zero, z = torch.zeros(6, device=DEVICE), torch.full((6,), float("nan"), device=DEVICE)
    for result in sigmoid(x, z, s=zero, q=x):
        assert (array(result) == 0.0).all()
    for gradient in sigmoid(x, z, u=zero)[1:]:
        assert (array(gradient) == 0.0).all()


def test_one_gradient_alone_and_none() -> None:
    x, z = logits((40,)), labels((40,))
    _, dx, dz = sigmoid(x, z)
    u, other = torch.ones(40, device=DEVICE), torch.empty(40, device=DEVICE)
    given = SigmoidOptions(), cuda.Inputs(x, z, (None, None))
    cuda.sigmoid_backward(*given, u, other, None)
    assert same(other, dx)
    cuda.sigmoid_backward(*given, u, None, other)
    assert same(other, dz)
    cuda.sigmoid_backward(*given, u, None, None)
    empty = torch.empty((3, 0), device=DEVICE)
    assert sigmoid(empty, empty)[0].shape == (3, 0)


def test_results_repeat_and_an_element_does_not_depend_on_the_others() -> None:
    x, z = logits((9, 33)), labels((9, 33))
    whole = sigmoid(x, z)
    assert all(same(a, b) for a, b in zip(sigmoid(x, z), whole, strict=True))
    part = sigmoid(x[2:4, 5:], z[2:4, 5:])
    assert all(same(a, b[2:4, 5:]) for a, b in zip(part, whole, strict=True))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"pos_weight": 3.5}], ids=str)
def test_the_errors_are_the_promised_ones(options: dict[str, float]) -> None:
    loss_ulp, gradient_ulp = (float(figure) for figure in re.findall(r"within (\d+)\s+ulp", kernels.__doc__ or ""))
    rng = np.random.default_rng(0)
    x = np.concatenate([SPECIAL[:-3], rng.normal(0, 5, 150), rng.uniform(-104, 104, 150)]).astype(np.float32)
    for z in (0.0, 1.0, 0.3, 1e-7, 1.0 - 2.0**-24):
        z_all = np.full(x.shape, z, np.float32)
        smoothing = options.get("label_smoothing", 0.0)
        q = tensor(np.full(x.shape, options["pos_weight"], np.float32)) if "pos_weight" in options else None
        loss, dx, dz = (array(got) for got in sigmoid(tensor(x), tensor(z_all), q=q, label_smoothing=smoothing))
        for i, (a, b) in enumerate(zip(x, z_all, strict=True)):
            truth = oracle.sigmoid_loss(a, b, **options)
            assert oracle.ulp_error(loss[i], truth.loss, np.float32) <= loss_ulp, (a, b)
            assert oracle.ulp_error(dx[i], truth.gradient[0], np.float32, truth.scale[0]) <= gradient_ulp, (a, b)
            size = max(oracle.softplus(float(a)), options.get("pos_weight", 1.0) * oracle.softplus(-float(a)))
            scale = size if q is not None else oracle.mpf(0)
            assert oracle.ulp_error(dz[i], truth.label_gradient[0], np.float32, scale) <= gradient_ulp, (a, b)


@pytest.mark.skipif(not GPU, reason="there is no GPU")
def test_more_than_two_to_the_31_elements() -> None:
    x = torch.zeros(2**31 + 64, dtype=torch.float16, device=DEVICE)
    z = torch.ones((), dtype=torch.uint8, device=DEVICE).expand(x.shape)
    loss = torch.zeros(x.shape, device=DEVICE)
    x[-3:] = tensor(np.float16([20.0, -20.0, 1.0]))
    cuda.sigmoid_forward(SigmoidOptions(), cuda.Inputs(x, z, (None, None)), loss)
    np.testing.assert_allclose(array(loss[-3:]), [oracle_loss(a, 1.0) for a in (20.0, -20.0, 1.0)], rtol=1e-6)
    assert bool((loss[:-3] == loss[0]).all())
