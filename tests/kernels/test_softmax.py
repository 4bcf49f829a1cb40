"""The softmax family in float64 arithmetic: layouts, kinds and options against the reference, and what is bitwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.engines import (
    DTYPES,
    LAYOUTS,
    ROWS,
    assert_close,
    assert_same,
    compared,
    cpu,
    distributions,
    indices,
    laid,
    no_memory,
    plain,
    rows,
)
from withlogits.kernels.cpu.softmax import STEPS

CLASSES = (1, 2, 7, 8, 9, 15, 16, 17, 64, 65, 256, 257)
BOTH = ("logits", "labels")
THREE = ("contiguous", "transposed", "classes apart")  # lanes along the classes, across the rows, and neither
WAYS = {"transformed": {"temperature": 0.5, "softcap": 20.0}, "smooth": {"label_smoothing": 0.1}, "dense": {}}


def loss(x: Any, labels: Any, axis: int = 1, **options: Any) -> Any:
    return cpu.softmax_loss(x, labels, axis=axis, sparse=labels.ndim < x.ndim, **options)


def given(x: Any, layout: str, way: str, dtype: Any = np.float32) -> tuple[Any, Any, int]:
    """Logits in a layout, their labels (dense ones in the same layout), the class axis."""
    array, axis = laid(x, layout)
    if way == "dense":
        return array, laid(distributions(x, dtype), layout)[0], axis
    return array, indices(x).reshape(np.delete(array.shape, axis)), axis


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, classes: int, way: str) -> None:
    x = rows(ROWS, classes, np.float32, seed=classes)
    array, labels, axis = given(x, layout, way)
    options = {"axis": axis, "sparse": way != "dense", **WAYS[way]}
    value, _ = compared("softmax_loss", array, labels, wrt=("logits",), **options)
    assert_same(loss(array, labels, **{k: v for k, v in options.items() if k != "sparse"})[0], value)


@pytest.mark.parametrize("classes", [3, 16, 70])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_of_another_layout(layout: str, classes: int) -> None:
    x = rows(ROWS, classes, np.float32)
    array, axis = laid(x, layout)
    z = distributions(x)
    expected, (by_logits, by_labels) = loss(x, z, wrt=BOTH)
    for labels in (
        np.moveaxis(z.reshape((*np.delete(array.shape, axis), classes)), -1, axis),
        laid(z, layout)[0][...].copy("F"),
    ):
        value, gradients = compared("softmax_loss", array, labels, axis=axis, sparse=False, wrt=BOTH)
        assert_close(value.ravel(), expected)
        assert_close(plain(gradients[0], axis), by_logits)
        assert_close(plain(gradients[1], axis), by_labels)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("layout", THREE)
def test_any_number_of_rows(layout: str, count: int) -> None:
    for classes in (5, 40):
        x = rows(count, classes, np.float32, seed=count)
        array, labels, axis = given(x, layout, "dense")
        compared("softmax_loss", array, labels, axis=axis, sparse=False, wrt=("logits",))


@pytest.mark.parametrize("layout", THREE)
@pytest.mark.parametrize("way", ["index", "dense"])
def test_float64(way: str, layout: str) -> None:
    for classes in (1, 5, 16, 17, 100, 300):
        x = rows(ROWS, classes, np.float64, seed=classes)
        array, labels, axis = given(x, layout, way, np.float64)
        wrt = BOTH if way == "dense" else ("logits",)
        value, _ = compared("softmax_loss", array, labels, axis=axis, sparse=way == "index", wrt=wrt)
        assert value.dtype == np.float64


@pytest.mark.parametrize("classes", [5, 40])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("way", ["transformed", "dense"])
def test_half_precision(way: str, dtype: str, classes: int) -> None:
    """The float32 result, rounded once, for labels in half precision too."""
    x = rows(ROWS, classes, DTYPES[dtype])
    for layout in THREE:
        array, labels, axis = given(x, layout, way, DTYPES[dtype])
        wrt = BOTH if way == "dense" else ("logits",)
        value, gradients = loss(array, labels, axis, wrt=wrt, **WAYS[way])
        single, wide, _ = given(x.astype(np.float32), layout, way)
        if way == "dense":
            wide[...] = labels
        expected, wide_gradients = loss(single, wide, axis, wrt=wrt, **WAYS[way])
        assert_same(value, expected)
        for got, other in zip(gradients, wide_gradients, strict=True):
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                assert_same(got, other.astype(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", ["bool", *"bhilqBHILQ", "float16", "float32", "float64", "longdouble"])
def test_dense_labels_of_every_type(dtype: str) -> None:
    x = rows(ROWS, 20, np.float32)
    labels = distributions(x, dtype)
    value, (gradient,) = loss(x, labels, wrt=("logits",))
    expected, (wide,) = loss(x, labels.astype(np.float64), wrt=("logits",))
    assert_same(value, expected)
    assert_same(gradient, wide)


@pytest.mark.parametrize("code", "bhilqBHILQ")
def test_smoothed_index_labels_of_every_type(code: str) -> None:
    x = rows(ROWS, 20, np.float32)
    labels = indices(x)
    assert_same(loss(x, labels.astype(code), label_smoothing=0.25)[0], loss(x, labels, label_smoothing=0.25)[0])


def test_smoothed_index_labels_are_smoothed_one_hot_labels() -> None:
    for dtype in (np.float32, np.float64):
        x = rows(ROWS, 21, dtype)
        labels = indices(x)
        dense = (labels[:, None] == np.arange(21)).astype(dtype)
        for options in ({"label_smoothing": 0.1}, {"label_smoothing": 1.0, "class_weight": np.linspace(0, 2, 21)}):
            value, (gradient,) = loss(x, labels, wrt=("logits",), **options)
            expected, (wide,) = loss(x, dense, wrt=("logits",), **options)
            assert_same(value, expected)
            assert_same(gradient, wide)


@pytest.mark.parametrize("kind", ["bool", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_labels_has_their_dtype_or_the_losses(dtype: str, kind: str) -> None:
    x = rows(ROWS, 20, DTYPES[dtype], special=False)
    labels = distributions(x, kind)
    _, (gradient,) = compared("softmax_loss", x, labels, axis=1, sparse=False, wrt=("labels",))
    assert gradient.dtype == (np.dtype(kind) if kind.startswith("float") else x.dtype)


OPTIONS: dict[str, dict[str, Any]] = {
    "z-loss": {"z_loss": 0.01},
    "temperature": {"temperature": 3.0},
    "softcap": {"softcap": 5.0},
    "smoothing": {"label_smoothing": 0.3},
    "everything": {"z_loss": 0.01, "temperature": 0.7, "softcap": 15.0, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("way", ["index", "dense"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_options(reduction: str, way: str, name: str) -> None:
    for weighted in (False, True):
        for layout in THREE:
            x = rows(ROWS, 20, np.float32, special=False)
            array, labels, axis = given(x, layout, way)
            options = {**OPTIONS[name], "reduction": reduction}
            if weighted:
                sample = np.random.default_rng(0).choice([0.0, 0.5, 2.0], ROWS)
                options |= {"class_weight": np.linspace(0.0, 2.0, 20), "sample_weight": sample}
                array[sample == 0.0 if axis == 1 else (slice(None), sample == 0.0)] = np.nan
            if way == "index":
                options["ignore_index"] = int(labels[3])
            wrt = BOTH if way == "dense" else ("logits",)
            compared("softmax_loss", array, labels, axis=axis, sparse=way == "index", wrt=wrt, **options)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [7, 50])
def test_in_place(layout: str, classes: int, dtype: str) -> None:
    """The gradient in the logits' place, and the labels left alone."""
    x = rows(ROWS, classes, DTYPES[dtype])
    array, labels, axis = given(x, layout, "dense", np.float64)
    expected_value, (expected, _) = loss(array, labels, axis, wrt=BOTH)
    kept = labels.copy()
    value, (gradient, _) = loss(array, labels, axis, wrt=BOTH, out=array)
    assert gradient is array
    assert_same(value, expected_value)
    assert_same(gradient, expected)
    assert_same(labels, kept)


@pytest.mark.parametrize("layout", THREE)
def test_without_memory_for_scratch(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    x = rows(ROWS, 40, np.float32)
    array, labels, axis = given(x, layout, "dense")
    expected_value, (expected,) = loss(array, labels, axis, wrt=("logits",))
    with no_memory(monkeypatch):
        for out in (None, array):
            value, (gradient,) = loss(array, labels, axis, wrt=("logits",), out=out)
            assert_same(value, expected_value)
            assert_same(gradient, expected)


@pytest.mark.parametrize("in_place", [False, True])
def test_rows_longer_than_what_is_kept(in_place: bool) -> None:
    """Of long rows the exponentials are made again: the same gradient to the last bit, also in place."""
    for dtype in (np.float32, np.float64):
        whole = STEPS * 8
        for classes in (whole - 8, whole - 1, whole, whole + 5):
            x = np.full((2, whole + 8), -np.inf, dtype)
            x[:, :1000] = np.random.default_rng(0).normal(0, 4, (2, 1000))
            labels = np.zeros_like(x)
            labels[0, 3], labels[1, ::100] = 1.0, 0.01
            ours, theirs = np.ascontiguousarray(x[:, :classes]), np.ascontiguousarray(x[:, :1000])
            _, (expected,) = loss(theirs, np.ascontiguousarray(labels[:, :1000]), wrt=("logits",))
            labels = np.ascontiguousarray(labels[:, :classes])
            labels[:, 1000:] = 0.0
            _, (gradient,) = loss(ours, labels, wrt=("logits",), out=ours if in_place else None)
            if dtype is np.float32:
                assert_same(gradient[:, :1000], expected)
            assert_close(gradient[:, :1000], expected)
            assert (gradient[:, 1000:] == 0).all()


@pytest.mark.parametrize("layout", THREE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["index", "dense", "smooth", "transformed"])
def test_a_row_does_not_depend_on_its_neighbours(way: str, dtype: str, layout: str) -> None:
    for classes in (9, 40):
        x = rows(36, classes, DTYPES[dtype], seed=4)
        options = WAYS.get(way, {})
        array, labels, axis = given(x, layout, way)
        value, (gradient,) = loss(array, labels, axis, wrt=("logits",), **options)
        gradient = plain(gradient, axis)
        for i in range(36):
            here = (slice(None), slice(i, i + 1)) if axis == 0 else slice(i, i + 1)
            own = labels[here] if way == "dense" else labels[i : i + 1]
            own_value, (alone,) = loss(array[here], own, axis, wrt=("logits",), **options)
            assert_same(own_value, value[i : i + 1])
            assert_same(plain(alone, axis), gradient[i : i + 1])
        flipped = array[:, ::-1] if axis == 0 else array[::-1]
        backwards = labels[::-1] if axis == 1 or way != "dense" else labels[:, ::-1]
        value_flipped, (turned,) = loss(flipped, backwards, axis, wrt=("logits",), **options)
        assert_same(value_flipped, value[::-1])
        assert_same(plain(turned, axis), gradient[::-1])


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_of_any_layout(layout: str, kind: str) -> None:
    for classes in (1, 7, 16, 65, 300):
        array, axis = laid(rows(ROWS, classes, np.float32), layout)
        compared("softmax_map", array, axis=axis, kind=kind)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "logsumexp"])
def test_maps_of_any_type(kind: str, dtype: str) -> None:
    for layout in ("contiguous", "transposed"):
        array, axis = laid(rows(ROWS, 33, DTYPES[dtype]), layout)
        got, _ = compared("softmax_map", array, axis=axis, kind=kind)
        assert got.dtype == array.dtype


@pytest.mark.parametrize("way", ["index", "dense"])
def test_broadcast_logits_and_labels(way: str) -> None:
    """Strides of 0: one row for all, one number for all classes."""
    row = rows(1, 20, np.float32)
    for base in (np.broadcast_to(row, (ROWS, 20)), np.broadcast_to(row[:, :1], (ROWS, 20)), row.repeat(ROWS, 0)):
        z = np.broadcast_to(distributions(row), (ROWS, 20)) if way == "dense" else np.broadcast_to(indices(row), ROWS)
        value, (gradient,) = compared("softmax_loss", base, z, axis=1, sparse=way == "index", wrt=("logits",))
        expected, (wide,) = loss(np.ascontiguousarray(base), np.ascontiguousarray(z), wrt=("logits",))
        assert_same(value, expected)
        assert_close(gradient, wide)
        assert_same(value, np.broadcast_to(value[:1], ROWS))


def test_labels_out_of_range_under_smoothing_and_transformation() -> None:
    x = rows(ROWS, 20, np.float32, special=False)
    for options in (WAYS["smooth"], WAYS["transformed"]):
        labels = indices(x)
        labels[11] = 20
        with pytest.raises(ValueError, match=r"labels\[11\] = 20 is outside \[0, 20\)"):
            loss(x, labels, **options)
        labels = labels.astype(np.uint64)
        labels[11] = 2**64 - 1
        with pytest.raises(ValueError, match=r"labels\[11\] = 18446744073709551615 is outside"):
            loss(x, labels, **options)
