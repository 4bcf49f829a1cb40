"""The compiled engine beside the reference, on arrays of any layout."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from withlogits import reference
from withlogits.frameworks import numpy as front
from withlogits.kernels import cpu as compiled
from withlogits.kernels.cpu import sigmoid_plan, softmax_plan
from withlogits.options import SigmoidOptions, SoftmaxOptions

DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16)
}
# how far the engines may be apart: accuracy is held to mpmath elsewhere, here it is about which element goes where
RTOL = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 1e-6, "float64": 1e-12}
ROWS = 24  # rows of most cases: 2 × 3 × 4


def rows(count: int, classes: int, dtype: Any, seed: int = 0, special: bool = True) -> Any:
    """Rows of many sorts, one after the other; the special ones have no finite loss or are not to be subtracted from.

    Where rows are handled 16 at a time, sorts meet that go different ways.
    """
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    largest = float(ml_dtypes.finfo(dtype).max)
    x = rng.normal(0.0, 3.0, (count, classes))
    for i, row in enumerate(x):
        sort = i % (12 if special else 7)
        if sort == 1:
            row[rng.integers(classes)] += 20.0
        elif sort == 2:
            row[...] = rng.choice(row[: max(1, classes // 3)], classes)
        elif sort == 3:
            row[rng.permutation(classes)[: classes // 2]] = -np.inf
        elif sort == 4:
            row *= 1e-30
        elif sort == 5:
            row += rng.choice([-100.0, 100.0])
        elif sort == 6:
            row[...] = row[0]
        elif sort == 7:
            row *= min(2.0**22, largest / 64)
        elif sort == 8:
            row += min(2.0**23, largest / 2)
        elif sort == 9:
            row[rng.integers(classes)] = np.nan
        elif sort == 10:
            row[rng.integers(classes)] = np.inf
        elif sort == 11:
            row[...] = -np.inf
    return x.astype(np.float32).astype(dtype) if dtype != np.float64 else x


def indices(x: Any, dtype: Any = np.int64, seed: int = 1) -> Any:
    """A label for each row: its largest logit or any."""
    labels = np.random.default_rng(seed).integers(0, x.shape[-1], len(x))
    labels[::2] = np.argmax(x[::2].astype(np.float64), axis=-1)
    return labels.astype(dtype)


def distributions(x: Any, dtype: Any = np.float32, seed: int = 2) -> Any:
    """Dense labels for each row: soft, one-hot, with zeros, and no distribution at all."""
    rng = np.random.default_rng(seed)
    z = rng.random(x.shape)
    z[1::4] = np.arange(x.shape[-1]) == indices(x)[1::4, None]
    z[2::4] *= z[2::4] > 0.7
    z[::4] /= z[::4].sum(axis=-1, keepdims=True)
    return z.astype(dtype) if np.dtype(dtype).kind == "f" else (z * 3 + 0.5).astype(dtype)


def _within(shape: tuple[int, ...], dtype: Any, order: tuple[int, ...]) -> Any:
    """An array whose axes lie in memory in this order, with room between: no two of them can be taken together."""
    room = np.zeros([shape[i] + 1 for i in order], dtype)
    return room[tuple(slice(shape[i]) for i in order)].transpose(np.argsort(order))


LAYOUTS = {
    "contiguous": lambda x: (x.copy(), 1),
    "rows apart": lambda x: (_filled(np.zeros((2 * len(x), x.shape[1] + 3), x.dtype)[::2, 3:], x), 1),
    "rows backwards": lambda x: (x[::-1].copy()[::-1], 1),
    "transposed": lambda x: (np.ascontiguousarray(x.T), 0),
    "Fortran": lambda x: (np.asfortranarray(x), 1),
    "classes apart": lambda x: (_filled(np.zeros((len(x), 2 * x.shape[1]), x.dtype)[:, ::2], x), 1),
    "all backwards": lambda x: (x[::-1, ::-1].copy()[::-1, ::-1], 1),
    "middle": lambda x: (np.ascontiguousarray(np.moveaxis(x.reshape(2, -1, x.shape[1]), -1, 1)), 1),
    "images": lambda x: (np.moveaxis(x.reshape(2, 3, -1, x.shape[1]), -1, 1).copy("C"), 1),
    "blocks, classes last": lambda x: (_filled(_within((2, 3, len(x) // 6, x.shape[1]), x.dtype, (2, 0, 1, 3)), x), 3),
    "blocks, classes first": lambda x: (
        np.moveaxis(_filled(_within((2, 3, len(x) // 6, x.shape[1]), x.dtype, (3, 1, 0, 2)), x), -1, 0),
        0,
    ),
    "five axes": lambda x: (_filled(_within((2, 3, 2, len(x) // 12, x.shape[1]), x.dtype, (4, 2, 0, 3, 1)), x), 4),
}


def _filled(view: Any, x: Any) -> Any:
    view[...] = x.reshape(view.shape)
    return view


def laid(x: Any, name: str) -> tuple[Any, int]:
    """Rows (N, C) laid out in memory another way, and where their class axis went."""
    array, axis = LAYOUTS[name](x)
    assert plain(array, axis).tobytes() == x.tobytes()
    return array, axis


def plain(array: Any, axis: int) -> Any:
    """Back to (N, C)."""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def assert_close(got: Any, expected: Any, what: str = "") -> None:
    assert got.dtype == expected.dtype, what
    assert got.shape == expected.shape, what
    rtol = RTOL[got.dtype.name]
    wide, other = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(wide, other, rtol=rtol, atol=1e-15, equal_nan=True, err_msg=what)


def assert_same(got: Any, expected: Any, what: str = "") -> None:
    """Bitwise, but for the bits of a NaN."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, what
    np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64), err_msg=what)
    counts = got == got
    np.testing.assert_array_equal(np.signbit(got)[counts], np.signbit(expected)[counts], err_msg=what)


@contextmanager
def everything_too_large_for_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results of any size are written past the caches, as large ones are."""
    with planned_anew(), monkeypatch.context() as patch:
        patch.setattr(softmax_plan, "STREAM", 0)
        patch.setattr(sigmoid_plan, "STREAM", 0)
        yield


@contextmanager
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that ask for scratch get none."""
    asked: list[int] = []
    refuse = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda nbytes: asked.append(nbytes) or 0)
    with planned_anew(), monkeypatch.context() as patch:
        pair = ctypes.cast(refuse, ctypes.c_void_p).value, softmax_plan.heap()[1]
        patch.setattr(softmax_plan, "heap", lambda: pair)
        yield
    assert asked, "nobody asked for memory"


@contextmanager
def planned_anew() -> Iterator[None]:
    """Nothing is known from earlier calls, and nothing from here to later ones."""
    forget()
    try:
        yield
    finally:
        forget()


def forget() -> None:
    for calls in (front._calls, front._maps):
        calls.clear()


def computed(engine: Any, function: str, *arrays: Any, **options: Any) -> tuple[Any, tuple[Any, ...]]:
    """What an engine makes of arrays: a value and the gradients that `wrt` names."""
    memory = front.NumpyMemory
    if function == "softmax_map":
        return engine.plan_softmax_map(options["kind"], options["axis"], memory, memory.layout(arrays[0]))(*arrays), ()
    if function == "elementwise":
        return engine.plan_elementwise(options["kind"], memory, memory.layout(arrays[0]))(*arrays), ()
    logits, labels = arrays
    labels = labels.astype(np.float64) if labels.dtype.itemsize > 8 else labels
    kind: Any = SoftmaxOptions if function == "softmax_loss" else SigmoidOptions
    weights = [options.pop(name, None) for name in kind.WEIGHTS]
    wrt, out = options.pop("wrt", ()), options.pop("out", None)
    plan = engine.plan_loss(kind(**options), memory, memory.layout(labels), memory.layout(logits))
    outcome = plan.evaluate((labels, logits, *weights), "logits" in wrt, "labels" in wrt, out)
    return outcome[0], tuple(outcome[1] if name == "logits" else outcome[2] for name in wrt)


class Functions:
    """An engine as functions of arrays."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def softmax_loss(self, logits: Any, labels: Any, **options: Any) -> Any:
        return computed(self._engine, "softmax_loss", logits, labels, **options)

    def sigmoid_loss(self, logits: Any, labels: Any, **options: Any) -> Any:
        return computed(self._engine, "sigmoid_loss", logits, labels, **options)

    def softmax_map(self, x: Any, *, axis: int, kind: str) -> Any:
        return computed(self._engine, "softmax_map", x, axis=axis, kind=kind)[0]

    def elementwise(self, x: Any, *, kind: str) -> Any:
        return computed(self._engine, "elementwise", x, kind=kind)[0]


cpu = Functions(compiled)


def compared(function: str, *arrays: Any, **options: Any) -> Any:
    """The compiled engine's value and gradients, after comparison with the reference's."""
    got = computed(compiled, function, *arrays, **options)
    expected = computed(reference, function, *arrays, **options)
    assert_close(got[0], expected[0], "value")
    assert len(got[1]) == len(expected[1])
    for name, ours, theirs in zip(options.get("wrt", ()), got[1], expected[1], strict=True):
        assert_close(ours, theirs, f"gradient of the {name}")
    return got
