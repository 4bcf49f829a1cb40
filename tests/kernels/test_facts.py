"""Rows in one pass: the compiled kernel against plain NumPy, which is the reference engine's."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withlogits import reference
from withlogits.kernels.cpu.host_facts import row_facts
from withlogits.kernels.cpu.job import FACTS, TILE

KINDS = ["float16", "bfloat16", "float32", "float64", "bool", "int8", "uint8", "int16", "int32", "int64", "uint32"]


def dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def check(x: Any, axis: int, y: Any = None) -> None:
    mine, truth = row_facts(x, axis, y), reference.row_facts(x, axis, y)
    assert tuple(mine) == tuple(truth) == (FACTS if y is None else (*FACTS, "own"))
    for name in mine:
        tolerance = 1e-12 * np.abs(x.astype(np.float64)).sum(axis=axis).reshape(-1) if name == "total" else 0.0
        with np.errstate(invalid="ignore"):
            off = np.abs(mine[name] - truth[name]) > tolerance
        same = (mine[name] == truth[name]) | (np.isnan(mine[name]) & np.isnan(truth[name]))
        assert (same | ~off).all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 1), 1), ((5, 10), 1), ((70, 10), 1), ((33, TILE), 1), ((33, TILE + 1), 1), ((3, 1000), 1), ((4, 5, 6), 1),
        ((2, 7, 9, 11), 1), ((50, 3), 0), ((2, 3, 130), 0), ((7,), 0), ((3000, 5), 1), ((2, 20_000), 1),
    ],
)  # fmt: skip
def test_every_kind_and_layout(kind: str, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * 3).astype(dtype(kind))
    check(x, axis)
    check(x, axis, rng.integers(0, shape[axis], x.size // shape[axis]))


def test_strided_rows() -> None:
    x = np.random.default_rng(1).normal(size=(20, 30, 8)).astype(np.float32)
    for view in (x[::2], x[:, ::3], x[..., ::2], x[::-1], x.T, np.asfortranarray(x), np.broadcast_to(x[:1], x.shape)):
        for axis in range(view.ndim):
            check(view, axis)
            check(view, axis, np.arange(view.size // view.shape[axis]) % view.shape[axis])


def test_empty_arrays() -> None:
    for shape, axis in (((0, 3), 1), ((3, 0), 1), ((2, 0, 4), 2)):
        check(np.zeros(shape, np.float32), axis)


ELEMENTS = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38])


@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.sampled_from([1, 2, 10, 17, 200])), elements=ELEMENTS),
    which=st.integers(0, 199),
)
def test_any_numbers(x: Any, which: int) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        y = np.full(len(x), which % x.shape[1])
        mine, truth = row_facts(x, 1, y), reference.row_facts(x, 1, y)
        for name in ("top", "low", "first", "above", "own"):
            np.testing.assert_array_equal(mine[name], truth[name], name)


def test_ties_go_to_the_first() -> None:
    for classes in (3, 40, 500):
        x = np.zeros((4, classes))
        x[:, [classes // 2, classes - 1]] = 1.0
        assert (row_facts(x, 1)["first"] == classes // 2).all()
