"""The softmax loss of index labels in float32 arithmetic: layouts, kinds, options, and what holds bitwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
from kernels.engines import (
    DTYPES,
    LAYOUTS,
    ROWS,
    assert_close,
    assert_same,
    compared,
    cpu,
    everything_too_large_for_caches,
    indices,
    laid,
    no_memory,
    plain,
    rows,
)

CLASSES = (1, 2, 9, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1030)
HALVES = ["float16", "bfloat16"]


def loss(x: Any, labels: Any, axis: int = 1, **options: Any) -> Any:
    return cpu.softmax_loss(x, labels, axis=axis, sparse=True, **options)


def value_and_grad(x: Any, labels: Any, axis: int = 1, **options: Any) -> tuple[Any, Any]:
    value, (gradient,) = loss(x, labels, axis, wrt=("logits",), **options)
    return value, gradient


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, classes: int) -> None:
    x = rows(ROWS, classes, np.float32, seed=classes)
    labels = indices(x)
    array, axis = laid(x, layout)
    shaped = labels.reshape(np.delete(array.shape, axis))
    value, (gradient,) = compared("softmax_loss", array, shaped, axis=axis, sparse=True, wrt=("logits",))
    alone, _ = loss(array, shaped, axis)
    assert_same(alone, value)
    # whatever the layout of labels, results do not change
    apart = np.zeros((*shaped.shape, 3), np.int64)[..., 1]
    apart[...] = shaped
    again, gradient_again = value_and_grad(array, apart, axis)
    assert_same(again, value)
    assert_same(gradient_again, gradient)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "classes apart"])
def test_any_number_of_rows(layout: str, count: int) -> None:
    for classes in (5, 20, 300):
        x = rows(count, classes, np.float32, seed=count)
        array, axis = laid(x, layout)
        compared("softmax_loss", array, indices(x), axis=axis, sparse=True, wrt=("logits",))


@pytest.mark.parametrize("classes", [3, 40, 300])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "classes apart"])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision(dtype: str, layout: str, classes: int) -> None:
    """The float32 result, rounded once."""
    half = rows(ROWS, classes, DTYPES[dtype])
    labels = indices(half)
    array, axis = laid(half, layout)
    value, gradient = value_and_grad(array, labels, axis)
    single, axis = laid(half.astype(np.float32), layout)
    expected, wide = value_and_grad(single, labels, axis)
    assert_same(value, expected)
    assert gradient.dtype == half.dtype
    with np.errstate(under="ignore", invalid="ignore"):
        assert_same(gradient, wide.astype(half.dtype))
    assert_same(loss(array, labels, axis)[0], value)


@pytest.mark.parametrize("code", "bhilqBHILQ")
def test_labels_of_every_integer_type(code: str) -> None:
    x = rows(ROWS, 40, np.float32)
    labels = indices(x).astype(code)
    value, gradient = value_and_grad(x, labels)
    expected, wide = value_and_grad(x, indices(x))
    assert_same(value, expected)
    assert_same(gradient, wide)
    strided = np.repeat(labels, 3)[1::3]
    assert_same(value_and_grad(x, strided)[1], gradient)


@pytest.mark.parametrize("classes", [4, 30])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"z_loss": 0.01}, {"ignore_index": 2}, {"z_loss": 0.1, "ignore_index": -9}])
def test_options(options: dict[str, Any], weighted: bool, reduction: str, classes: int) -> None:
    x = rows(ROWS, classes, np.float32, special=False)
    labels = indices(x)
    labels[::5] = options.get("ignore_index", labels[::5])
    if weighted:
        sample = np.random.default_rng(0).choice([0.0, 0.5, 2.0], ROWS)
        options = {**options, "class_weight": np.linspace(0.0, 2.0, classes), "sample_weight": sample}
        labels[sample == 0.0] = 99  # what does not count may hold anything
        x[sample == 0.0] = np.nan
    options = {**options, "reduction": reduction, "wrt": ("logits",)}
    for layout in ("contiguous", "transposed", "classes apart"):
        array, axis = laid(x, layout)
        compared("softmax_loss", array, labels, axis=axis, sparse=True, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sample_weights_of_any_layout(layout: str) -> None:
    x = rows(ROWS, 6, np.float32, special=False)
    array, axis = laid(x, layout)
    shape = tuple(np.delete(array.shape, axis))
    labels = indices(x).reshape(shape)
    sample = np.random.default_rng(0).random(shape[-1])
    spread = np.broadcast_to(sample, shape)
    value, gradient = value_and_grad(array, labels, axis, sample_weight=spread)
    expected, whole = value_and_grad(array, labels, axis, sample_weight=spread.copy())
    assert_same(value, expected)
    assert_same(gradient, whole)
    compared("softmax_loss", array, labels, axis=axis, sparse=True, sample_weight=spread, wrt=("logits",))


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("classes", [7, 50, 300])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_place(layout: str, classes: int, dtype: str) -> None:
    x = rows(ROWS, classes, DTYPES[dtype])
    array, axis = laid(x, layout)
    labels = indices(x).reshape(np.delete(array.shape, axis))
    expected_value, expected = value_and_grad(array, labels, axis)
    value, gradient = value_and_grad(array, labels, axis, out=array)
    assert gradient is array
    assert_same(value, expected_value)
    assert_same(gradient, expected)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "classes apart"])
def test_out_of_another_layout(layout: str) -> None:
    """What lies between the elements of `out` stays as it was."""
    x = rows(ROWS, 30, np.float32)
    array, axis = laid(x, layout)
    room = np.full([2 * n + 3 for n in array.shape], 77, np.float32)
    out = room[1:-2:2, 1:-2:2]
    _, gradient = value_and_grad(array, indices(x), axis, out=out)
    assert gradient is out
    assert_close(out.copy(), value_and_grad(array, indices(x), axis)[1].copy())
    room[1:-2:2, 1:-2:2] = 77
    assert (room == 77).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("classes", [16, 48, 65, 1024, 1030])
def test_results_too_large_for_any_cache(monkeypatch: pytest.MonkeyPatch, classes: int, dtype: str) -> None:
    """Written past the caches where they are aligned, and the same to the last bit."""
    x = rows(ROWS, classes, DTYPES[dtype])
    labels = indices(x)
    expected_value, expected = value_and_grad(x, labels)
    with everything_too_large_for_caches(monkeypatch):
        for start in (0, 16, 1, 3):  # an element, 64 bytes or 0 from where memory is aligned
            room = np.full(x.size + 80, 77, x.dtype)
            first = -(room.ctypes.data // x.itemsize) % (64 // x.itemsize) + start
            out = room[first : first + x.size].reshape(x.shape)
            value, _ = value_and_grad(x, labels, out=out)
            assert_same(value, expected_value)
            assert_same(out, expected)
            out[...] = x  # in place
            value, _ = value_and_grad(out, labels, out=out)
            assert_same(value, expected_value)
            assert_same(out, expected)
            out[...] = 77
            assert (room == 77).all()


def test_without_memory_for_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(ROWS, 300, np.float32)
    labels = indices(x)
    expected_value, expected = value_and_grad(x, labels)
    with no_memory(monkeypatch):
        for out in (None, x):
            value, gradient = value_and_grad(x, labels, out=out)
            assert_same(value, expected_value)
            assert_same(gradient, expected)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "classes apart"])
@pytest.mark.parametrize("classes", [9, 40, 300])
def test_a_row_does_not_depend_on_its_neighbours(classes: int, layout: str) -> None:
    """Not on their number, their order, or what they hold: bitwise."""
    x = rows(48, classes, np.float32, seed=4)
    labels = indices(x)
    order = np.random.default_rng(0).permutation(48)
    array, axis = laid(x, layout)
    value, gradient = value_and_grad(array, labels, axis)
    gradient = plain(gradient, axis)
    array, axis = laid(x[order], layout)
    moved_value, moved = value_and_grad(array, labels[order], axis)
    assert_same(moved_value, value[order])
    assert_same(plain(moved, axis), gradient[order])
    for i in range(48):  # alone, and as a view of the whole
        array, axis = laid(x, layout)
        alone = array[:, i : i + 1] if axis == 0 else array[i : i + 1]
        own_value, own = value_and_grad(alone, labels[i : i + 1], axis)
        assert_same(own_value, value[i : i + 1])
        assert_same(plain(own, axis), gradient[i : i + 1])


def test_beyond_two_to_the_twentieth() -> None:
    """There the maximum is subtracted before the reduction; both sides of the border, and rows of both in one batch."""
    rng = np.random.default_rng(5)
    border = np.float32(2.0**20)
    tops = [border, np.nextafter(border, np.float32(np.inf)), np.nextafter(border, np.float32(0)), 2.0**22, 1e30, 3.0]
    for classes in (5, 70):
        x = rng.uniform(-30, 0, (48, classes)).astype(np.float32)
        x[:, 0] = 0.0
        x += np.resize(np.array([*tops, *(-t for t in tops)], np.float32), 48)[:, None]
        labels = indices(x)
        for layout in ("contiguous", "transposed", "classes apart"):
            array, axis = laid(x, layout)
            value, (gradient,) = compared("softmax_loss", array, labels, axis=axis, sparse=True, wrt=("logits",))
            for i in range(12):
                truth = oracle.softmax(x[i], label=int(labels[i]))
                assert oracle.ulp_error(value[i], truth.loss, np.float32) <= 1
                got = plain(gradient, axis)[i, labels[i]]
                assert oracle.ulp_error(got, truth.gradient[labels[i]], np.float32) <= 4


# confident rows whose tail a search over millions found hardest to reduce: the loss is one exponential
HARD = [
    (-20.318933, -48.86412),
    (-18.283178, -39.130974),
    (-17.495144, -59.95288),
    (-3.077862, -27.375854),
    (-14.892252, -57.183167),
]


@pytest.mark.parametrize("classes", [2, 3, 16, 40, 300])
def test_the_hardest_tails_keep_one_ulp(classes: int) -> None:
    x = np.full((len(HARD), classes), -np.inf, np.float32)
    x[:, :2] = HARD
    labels = np.zeros(len(HARD), np.int64)
    for layout in ("contiguous", "transposed"):
        array, axis = laid(x, layout)
        value, gradient = value_and_grad(array, labels, axis)
        for i in range(len(HARD)):
            truth = oracle.softmax(x[i], label=0)
            assert oracle.ulp_error(value[i], truth.loss, np.float32) <= 1
            for j in (0, 1):
                assert oracle.ulp_error(plain(gradient, axis)[i, j], truth.gradient[j], np.float32) <= 4


def test_random_tails_keep_one_ulp() -> None:
    """Against exponentials of 64 bits, where the platform has them."""
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("numpy.longdouble has no more digits than float64 here")
    rng = np.random.default_rng(6)
    for classes in (2, 17):
        x = np.full((200_000, classes), -np.inf, np.float32)
        x[:, 0] = rng.uniform(-30, 30, len(x))
        x[:, 1] = x[:, 0] - rng.uniform(0.5, 60, len(x)).astype(np.float32)
        value, gradient = value_and_grad(x, np.zeros(len(x), np.int64))
        wide = x[:, :2].astype(np.longdouble)
        truth = np.log1p(np.exp(wide[:, 1] - wide[:, 0]))
        ulp = np.spacing(truth.astype(np.float32)).astype(np.longdouble)
        assert (abs(value - truth) / ulp).max() <= 1
        p = np.exp(wide[:, 1] - wide[:, 0] - truth)
        likely = p >= 1e-6
        ulp = np.spacing(p.astype(np.float32)).astype(np.longdouble)
        assert (abs(gradient[:, 1] - p) / ulp)[likely].max() <= 4
        assert (abs(gradient[:, 0] + p) / ulp).max() <= 4


def test_probabilities_too_small_are_zero_and_never_negative() -> None:
    x = np.array([[0.0, -87.0, -88.0, -103.0, -104.0, -1e30, -np.inf, -50.0] * 3], np.float32)
    _, gradient = value_and_grad(x, np.array([0]))
    rest = gradient[0, 1:]
    assert (rest >= 0).all()
    assert (rest[x[0, 1:] <= -104.0] == 0).all()
    assert (rest[x[0, 1:] == -50.0] > 0).all()


def test_labels_out_of_range_are_counted_wherever_they_are() -> None:
    for layout in ("contiguous", "transposed", "classes apart"):
        for classes in (5, 40):
            x = rows(40, classes, np.float32, special=False)
            for bad in (-1, classes, 2**40, -(2**63)):
                labels = indices(x)
                labels[37] = bad
                array, axis = laid(x, layout)
                before = array.copy()
                for options in ({}, {"wrt": ("logits",)}, {"wrt": ("logits",), "out": array}):
                    with pytest.raises(ValueError, match=rf"labels\[37\] = {bad} is outside \[0, {classes}\)"):
                        loss(array, labels, axis, **options)
                assert_same(array, before)
