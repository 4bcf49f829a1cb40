"""The sigmoid family: every layout, kind and option against the reference, and what must hold bitwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.engines import DTYPES, assert_close, assert_same, compared, cpu, everything_too_large_for_caches
from withlogits.kernels.cpu.job import BLOCK

BOTH = ("logits", "labels")
SIZES = (1, 7, 8, 9, 31, 32, 33, 255, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5)
SHAPE = (6, 10)


def numbers(shape: Any, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Of all magnitudes, with the ends."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 4.0, shape)
    flat = x.reshape(-1)
    ends = [0.0, -0.0, 100.0, -100.0, 1e-30, -1e-30, np.inf, -np.inf, np.nan, 6e4, -6e4]
    flat[: len(ends)] = ends[: flat.size]
    return x.astype(np.float32).astype(dtype) if np.dtype(dtype) != np.float64 else x


def labels_for(x: Any, dtype: Any = np.float32, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    z = np.where(rng.random(x.shape) < 0.5, rng.integers(0, 2, x.shape), rng.random(x.shape))
    return z.astype(dtype) if np.dtype(dtype).kind in "fV" else np.rint(z).astype(dtype)


LAYOUTS = {
    "contiguous": lambda x: x.copy(),
    "apart": lambda x: _into(np.zeros((x.shape[0], 3 * x.shape[1]), x.dtype)[:, ::3], x),
    "rows apart": lambda x: _into(np.zeros((2 * x.shape[0], x.shape[1] + 5), x.dtype)[::2, 5:], x),
    "Fortran": np.asfortranarray,
    "all backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "blocks": lambda x: _into(np.zeros((11, 3, 4), x.dtype)[:10, :2, :3].transpose(2, 1, 0), x),
}


def _into(view: Any, x: Any) -> Any:
    view[...] = x.reshape(view.shape)
    return view


@pytest.mark.parametrize("other", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, other: str) -> None:
    """Of the logits and of the labels, each its own; shapes follow the logits'."""
    x, z = numbers(SHAPE), labels_for(numbers(SHAPE))
    logits = LAYOUTS[layout](x)
    labels = LAYOUTS[other](z).reshape(logits.shape) if other != "blocks" else z.reshape(logits.shape)
    value, gradients = compared("sigmoid_loss", logits, labels, wrt=BOTH)
    expected, wide = cpu.sigmoid_loss(x, z, wrt=BOTH)
    assert_same(value.reshape(SHAPE), expected)
    for got, same in zip(gradients, wide, strict=True):
        assert_same(got.reshape(SHAPE), same)


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size: int) -> None:
    x = numbers(size, seed=size)
    z = labels_for(x)
    value, gradients = compared("sigmoid_loss", x, z, wrt=BOTH)
    for step in (2, -1):
        apart = np.zeros(2 * size, np.float32)[:: abs(step)][:size][:: -1 if step < 0 else 1]
        apart[...] = x
        again, same = cpu.sigmoid_loss(apart, z, wrt=BOTH)
        assert_same(again, value)
        assert_same(same[0], gradients[0])
        assert_same(same[1], gradients[1])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (0,), (3, 0, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ranks(shape: Any, reduction: str) -> None:
    x = numbers(shape)
    _value, (gradient,) = compared("sigmoid_loss", x, labels_for(x), reduction=reduction, wrt=("logits",))
    assert gradient.shape == shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["contiguous", "apart"])
def test_types_of_logits(layout: str, dtype: str) -> None:
    x = numbers(SHAPE, DTYPES[dtype])
    z = labels_for(x, DTYPES[dtype])
    logits, labels = LAYOUTS[layout](x), LAYOUTS[layout](z)
    value, gradients = compared("sigmoid_loss", logits, labels, wrt=BOTH)
    assert value.dtype == (np.float64 if dtype == "float64" else np.float32)
    if DTYPES[dtype].itemsize == 2:
        expected, wide = cpu.sigmoid_loss(x.astype(np.float32), z.astype(np.float32), wrt=BOTH)
        assert_same(value, expected)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for got, single in zip(gradients, wide, strict=True):
                assert_same(got, single.astype(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", ["bool", *"bhilqBHILQ", "float16", "float32", "float64", "longdouble"])
def test_types_of_labels(dtype: str) -> None:
    x = numbers(SHAPE)
    labels = labels_for(x, dtype)
    value, _ = cpu.sigmoid_loss(x, labels)
    assert_same(value, cpu.sigmoid_loss(x, labels.astype(np.float64))[0])
    compared("sigmoid_loss", x, labels)


@pytest.mark.parametrize("kind", ["bool", "uint8", "float16", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_labels_has_their_dtype_or_the_losses(dtype: str, kind: str) -> None:
    x = numbers(SHAPE, DTYPES[dtype])
    _, (gradient,) = compared("sigmoid_loss", x, labels_for(x, kind), wrt=("labels",))
    assert gradient.dtype == (np.dtype(kind) if kind.startswith("float") else x.dtype)
    assert_same(gradient[np.isfinite(x)], -x[np.isfinite(x)].astype(gradient.dtype))


def pos_weights() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    row = np.where(rng.random(10) < 0.3, 0.0, rng.random(10) * 3)
    return {
        "none": None,
        "one": np.array(2.5),
        "nothing": np.array(0.0),
        "a row": row,
        "a column": rng.random((6, 1)) * 3,
        "all": rng.random(SHAPE) * 3,
        "every other": np.repeat(row, 2)[::2],
    }


def sample_weights() -> dict[str, Any]:
    weights = np.random.default_rng(4).choice([0.0, 0.25, 2.0], SHAPE)
    return {
        "none": None,
        "float64": weights,
        "float32": weights.astype(np.float32),
        "a column": np.broadcast_to(weights[:, :1], SHAPE),
        "transposed": np.asfortranarray(weights),
    }


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("sample", sample_weights())
@pytest.mark.parametrize("pos", pos_weights())
def test_weights(pos: str, sample: str, reduction: str) -> None:
    x = numbers(SHAPE)
    if reduction != "none":
        x[~np.isfinite(x)] = 1.0
    options = {"pos_weight": pos_weights()[pos], "sample_weight": sample_weights()[sample], "reduction": reduction}
    for smoothing in (0.0, 0.2):
        compared("sigmoid_loss", x, labels_for(x), label_smoothing=smoothing, wrt=BOTH, **options)
    value, (_gradient,) = cpu.sigmoid_loss(x, labels_for(x), wrt=("logits",), **options)
    alone, _ = cpu.sigmoid_loss(x, labels_for(x), **options)
    assert_same(alone, value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_any_layout(layout: str) -> None:
    x = LAYOUTS[layout](numbers(SHAPE))
    z = labels_for(x)
    options = {"sample_weight": np.broadcast_to(np.array([0.0, 0.5] * 5), SHAPE).reshape(x.shape)}
    options["pos_weight"] = np.linspace(0.0, 2.0, x.shape[-1])
    for reduction in ("none", "sum"):
        finite = np.where(np.isfinite(x), x, 1.0)
        compared("sigmoid_loss", x if reduction == "none" else finite, z, wrt=BOTH, reduction=reduction, **options)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_place(layout: str, dtype: str) -> None:
    logits = LAYOUTS[layout](numbers(SHAPE, DTYPES[dtype]))
    labels = labels_for(logits)
    expected_value, (expected, by_label) = cpu.sigmoid_loss(logits, labels, wrt=BOTH)
    value, (gradient, again) = cpu.sigmoid_loss(logits, labels, wrt=BOTH, out=logits)
    assert gradient is logits
    assert_same(value, expected_value)
    assert_same(gradient, expected)
    assert_same(again, by_label)


def test_out_of_another_layout() -> None:
    """What lies between the elements of `out` stays as it was."""
    x = numbers(SHAPE)
    room = np.full((13, 23), 77, np.float32)
    out = room[1:-1:2, 1:-2:2]
    assert out.shape == SHAPE
    _, (gradient,) = cpu.sigmoid_loss(x, labels_for(x), wrt=("logits",), out=out)
    assert gradient is out
    assert_same(out.copy(), cpu.sigmoid_loss(x, labels_for(x), wrt=("logits",))[1][0])
    out[...] = 77
    assert (room == 77).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [31, 32, 64, 100, BLOCK, 2 * BLOCK + 37])
def test_results_too_large_for_any_cache(monkeypatch: pytest.MonkeyPatch, size: int, dtype: str) -> None:
    """Written past the caches where they are aligned, and the same to the last bit."""
    x = numbers(size, DTYPES[dtype])
    z = labels_for(x, DTYPES[dtype])
    weights = np.linspace(0.0, 2.0, size)
    calls: list[Any] = [
        lambda out: cpu.sigmoid_loss(x, z, wrt=BOTH, out=out),
        lambda out: cpu.sigmoid_loss(x, z, wrt=("logits",), out=out, pos_weight=weights, sample_weight=weights),
        lambda out: (cpu.elementwise(x, kind="softplus"), ()),
        lambda out: cpu.sigmoid_loss(np.where(np.isfinite(x), x, x.dtype.type(1)), z, reduction="sum"),
    ]
    expected = [call(None) for call in calls]
    with everything_too_large_for_caches(monkeypatch):
        for start in (0, 1, 3):
            room = np.full(size + 80, 77, x.dtype)
            first = -(room.ctypes.data // x.itemsize) % (64 // x.itemsize) + start
            out = room[first : first + size]
            for call, (value, gradients) in zip(calls, expected, strict=True):
                got, found = call(out)
                assert_same(got, value)
                for ours, theirs in zip(found, gradients, strict=True):
                    assert_same(ours, theirs)
            out[...] = x  # in place
            assert_same(cpu.sigmoid_loss(out, z, wrt=("logits",), out=out)[1][0], expected[0][1][0])
            out[...] = 77
            assert (room == 77).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_element_does_not_depend_on_its_neighbours(dtype: str) -> None:
    x = numbers(200, DTYPES[dtype])
    z = labels_for(x)
    value, (gradient,) = cpu.sigmoid_loss(x, z, wrt=("logits",))
    order = np.random.default_rng(0).permutation(200)
    moved, (moved_gradient,) = cpu.sigmoid_loss(x[order], z[order], wrt=("logits",))
    assert_same(moved, value[order])
    assert_same(moved_gradient, gradient[order])
    for i in range(40):
        alone, (own,) = cpu.sigmoid_loss(x[i : i + 1], z[i : i + 1], wrt=("logits",))
        assert_same(alone, value[i : i + 1])
        assert_same(own, gradient[i : i + 1])


def test_sums_are_those_of_the_elements() -> None:
    """In float64, whatever the layout; blocks that are not full count once."""
    x = np.abs(numbers(5 * BLOCK + 3, np.float64, seed=9))
    x[~np.isfinite(x)] = 1.0
    z = labels_for(x)
    each, _ = cpu.sigmoid_loss(x, z)
    apart = np.repeat(x, 2)[::2]
    for logits in (x, apart):
        total, _ = cpu.sigmoid_loss(logits, z, reduction="sum")
        np.testing.assert_allclose(total, np.sum(each.astype(np.longdouble)).astype(float), rtol=1e-14)
        mean, _ = cpu.sigmoid_loss(logits, z, reduction="mean")
        np.testing.assert_allclose(mean, total / len(x), rtol=1e-15)


@pytest.mark.parametrize("kind", ["sigmoid", "log_sigmoid", "softplus", "logit"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_maps(dtype: str, kind: str) -> None:
    x = numbers((30, 20), DTYPES[dtype])
    if kind == "logit":
        x = np.concatenate([np.abs(x[:10]) / 20, x[10:20] * 1e-3 + np.array(0.5, x.dtype), x[20:]]).astype(x.dtype)
    whole, _ = compared("elementwise", x, kind=kind)
    for layout in ("apart", "Fortran", "all backwards"):
        got, _ = compared("elementwise", LAYOUTS[layout](x), kind=kind)
        assert_same(got, whole)
    assert_same(cpu.elementwise(np.array(x[3, 4]), kind=kind), whole[3, 4])


def test_broadcast_views() -> None:
    row, z = numbers((1, 10)), labels_for(numbers((1, 10)))
    expected, (wide,) = cpu.sigmoid_loss(np.repeat(row, 6, 0), np.repeat(z, 6, 0), wrt=("logits",))
    value, (gradient,) = compared(
        "sigmoid_loss", np.broadcast_to(row, SHAPE), np.broadcast_to(z, SHAPE), wrt=("logits",)
    )
    assert_same(value, expected)
    assert_close(gradient, wide)
    assert value.flags.writeable
