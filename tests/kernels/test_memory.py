"""Elements of every kind: read exactly, written rounded to nearest, and nothing touched beside them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from llvmlite import ir

from kernels.compiled import runner, slot
from withlogits.kernels.cpu import simd
from withlogits.kernels.cpu.memory import KINDS, Access, Tile, load_lanes, store_lanes
from withlogits.kernels.cpu.simd import F32, F64, I64, Value
from withlogits.kernels.cpu.target import host

LANES = 8
INTEGERS = [name for name in KINDS if "int" in name]
FLOATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
DTYPES = {name: np.dtype(FLOATS.get(name, name)) for name in KINDS}
EVERY = simd.vector(simd.I1, LANES)


def lanes_below(n: Value) -> Value:
    return simd.lane_numbers(simd.vector(I64, LANES)) < n


@functools.cache
def reader(into: str, strided: bool) -> Callable[..., None]:
    """Reads vectors of all kinds: for each (source, step, target), and beside them n, the lanes with work."""
    element = {"float64": F64, "float32": F32, "int64": I64}[into]

    def step(job: Value, i: Value) -> None:
        n = slot(job, 0)
        for k, kind in enumerate(KINDS.values()):
            if into != "float64" and ("int" in kind.name) != (into == "int64"):
                continue
            source, stride, target = (slot(job, 1 + 3 * k + j) for j in range(3))
            at = source + i * (LANES * kind.size)
            if strided:
                at = simd.smaller(simd.lane_numbers(simd.vector(I64, LANES)), n - 1) * stride + source
            x = Access(kind, LANES, strided).read(at, lanes_below(n), -7.0, element)
            simd.store(x, target + i * (LANES * {F64: 8, F32: 4, I64: 8}[element]))

    return runner(step)


@functools.cache
def writer(element: Any, strided: bool) -> Callable[..., None]:
    """Writes vectors of the floating kinds: for each (source, target, step), and beside them n."""
    size, kinds = {F64: 8, F32: 4}[element], [KINDS[name] for name in FLOATS if element is F64 or name != "float64"]

    def step(job: Value, i: Value) -> None:
        n = slot(job, 0)
        for k, kind in enumerate(kinds):
            source, target, stride = (slot(job, 1 + 3 * k + j) for j in range(3))
            x = simd.load(source + i * (LANES * size), simd.vector(element, LANES))
            at = target + i * (LANES * kind.size)
            if strided:
                last = simd.smaller(simd.lane_numbers(simd.vector(I64, LANES)), n - 1)
                at = last * stride + target
                # lanes without work repeat the last that has some, in value too
                for lane in range(LANES):
                    inside = simd.lane(lanes_below(n), lane)
                    again = simd.select(inside, simd.lane(x, lane), simd.load(source + (n - 1) * size, element))
                    x = simd.insert(x, again, lane)
            Access(kind, LANES, strided).write(x, at, lanes_below(n))

    return runner(step)


def read(sources: dict[str, Any], into: str = "float64") -> dict[str, Any]:
    """All elements of arrays of all kinds, lanes side by side."""
    count = len(next(iter(sources.values()))) // LANES
    targets = {name: np.empty(count * LANES, into) for name in KINDS}
    slots = [part for name in KINDS for part in (sources.get(name, np.empty(0)), 0, targets[name])]
    reader(into, False)(count, LANES, *slots)
    return targets


def write(x: Any) -> dict[str, Any]:
    element = F64 if x.dtype == np.float64 else F32
    names = [name for name in FLOATS if element is F64 or name != "float64"]
    targets = {name: np.empty(len(x), DTYPES[name]) for name in names}
    writer(element, False)(len(x) // LANES, LANES, *(part for name in names for part in (x, targets[name], 0)))
    return targets


def interesting(dtype: np.dtype[Any]) -> Any:
    """The ends of an integer type, and what does not fit float64's significand."""
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rng = np.random.default_rng(0)
    some = rng.integers(low, high, 56, dtype=np.int64 if dtype.kind == "b" else dtype, endpoint=True)
    ends = [low, high, 0, 1, high // 2 + 1, high - 1, low + 1, high - high // 3]
    return (
        np.array([*ends, *some.tolist()]).astype(dtype)
        if dtype != np.uint64
        else np.array([*map(int, ends), *map(int, some)], np.uint64)
    )


def test_every_half_precision_pattern_is_read_exactly() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    sources = {name: np.zeros(65536, DTYPES[name]) for name in KINDS}
    sources |= {"float16": bits.view(np.float16), "bfloat16": bits.view(ml_dtypes.bfloat16)}
    for into in ("float64", "float32"):
        got = read(sources, into)
        for name in ("float16", "bfloat16"):
            with np.errstate(invalid="ignore"):  # signalling NaNs
                np.testing.assert_array_equal(got[name], sources[name].astype(into))


def test_every_kind_is_read_as_numpy_converts_it() -> None:
    sources = {name: interesting(DTYPES[name]) for name in [*INTEGERS, "bool"]}
    numbers = np.random.default_rng(1).normal(0, 100, 64)
    sources |= {name: numbers.astype(DTYPES[name]) for name in FLOATS}
    got = read(sources)
    for name, source in sources.items():
        np.testing.assert_array_equal(got[name], source.astype(np.float64), err_msg=name)


def test_indices_are_read_as_integers_and_huge_ones_are_negative() -> None:
    sources = {name: interesting(DTYPES[name]) for name in INTEGERS}
    got = read(sources, "int64")
    for name in INTEGERS:
        np.testing.assert_array_equal(got[name], sources[name].astype(np.int64), err_msg=name)
    assert got["uint64"][1] == -1


def hard_to_round(name: str) -> Any:
    """All numbers of a half-precision kind, the midpoints between them, and the float32 beside both."""
    numbers = np.arange(65536, dtype=np.uint16).view(DTYPES[name]).astype(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    ordered = np.unique(numbers)
    middles = ((ordered[1:].astype(np.float64) + ordered[:-1]) / 2).astype(np.float32)
    beyond = np.float32([65519.99, 65520.0, 65536.0, 3.3895e38, 3.39617752e38, 3.3961778e38, np.inf, 1e-45, 2e-45])
    exact = np.concatenate([numbers, middles, beyond, -beyond])
    with np.errstate(over="ignore", under="ignore"):
        beside = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    x = np.concatenate([exact, *beside])
    return np.resize(x, -(-len(x) // LANES) * LANES)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_written_to_the_nearest_even(name: str) -> None:
    x = hard_to_round(name)
    with np.errstate(over="ignore"):
        expected = x.astype(DTYPES[name])
    for given in (x, x.astype(np.float64)):
        got = write(given)[name]
        np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))


def test_float64_becomes_half_precision_by_way_of_float32() -> None:
    x = np.array([1.0 + 2.0**-11 + 2.0**-40, 1.0 + 2.0**-8 + 2.0**-40, 0.1, 2.0**-149, -1e300, 1e-300, 3.0, -0.0])
    got = write(x)
    with np.errstate(over="ignore"):
        for name in FLOATS:
            np.testing.assert_array_equal(
                got[name], x.astype(np.float32 if name != "float64" else x.dtype).astype(DTYPES[name])
            )
    np.testing.assert_array_equal(np.signbit(got["bfloat16"]), np.signbit(x))


def test_nan_stays_nan_whatever_its_bits() -> None:
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7F80FFFF, 0x7FFF8000])
    x = bits.astype(np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide = x.astype(np.float64)
    for got in (write(x), write(wide)):
        for name, array in got.items():
            assert np.isnan(array.astype(np.float32)).all(), name


@pytest.mark.parametrize("n", range(1, LANES + 1))
def test_lanes_without_work_read_a_stand_in_and_write_nothing(n: int) -> None:
    sources = {name: np.full(LANES, 5, DTYPES[name]) for name in KINDS}
    targets = {name: np.zeros(LANES) for name in KINDS}
    slots = [part for name in KINDS for part in (sources[name], 0, targets[name])]
    reader("float64", False)(1, n, *slots)
    for name, got in targets.items():
        five = 1.0 if name == "bool" else 5.0
        np.testing.assert_array_equal(got, [five] * n + [-7.0] * (LANES - n), err_msg=name)
    written = {name: np.full(LANES, 9, DTYPES[name]) for name in FLOATS}
    x = np.arange(1.0, LANES + 1)
    writer(F64, False)(1, n, *(part for name in FLOATS for part in (x, written[name], 0)))
    for name, after in written.items():
        np.testing.assert_array_equal(after.astype(float), [*range(1, n + 1), *[9] * (LANES - n)], err_msg=name)


@pytest.mark.parametrize("stride", [3, 1, -2, 0])
@pytest.mark.parametrize("n", [1, 5, LANES])
def test_strided_lanes_repeat_the_last_that_has_work(stride: int, n: int) -> None:
    rng = np.random.default_rng(3)
    whole = {name: rng.integers(0, 2 if name == "bool" else 100, 60).astype(DTYPES[name]) for name in KINDS}
    starts = {name: array[20:] for name, array in whole.items()}
    targets = {name: np.zeros(LANES) for name in KINDS}
    steps = {name: stride * DTYPES[name].itemsize for name in KINDS}
    reader("float64", True)(1, n, *(part for name in KINDS for part in (starts[name], steps[name], targets[name])))
    places = [20 + stride * min(i, n - 1) for i in range(LANES)]
    for name in KINDS:
        np.testing.assert_array_equal(targets[name], whole[name][places].astype(float), err_msg=name)
    x = np.arange(1.0, LANES + 1)
    written = {name: np.full(60, 9, DTYPES[name]) for name in FLOATS}
    slots = [part for name in FLOATS for part in (x, written[name][20:], steps[name])]
    writer(F64, True)(1, n, *slots)
    expected = np.full(60, 9.0)
    for i in range(n):
        expected[20 + stride * i] = x[i]
    for name, after in written.items():
        np.testing.assert_array_equal(after.astype(float), expected, err_msg=name)


def test_sizes_are_numpys() -> None:
    for name, kind in KINDS.items():
        assert kind.size == DTYPES[name].itemsize


@functools.cache
def turner(name: str, lanes: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """A square of a tile filled from rows, and written back to rows: job (rows, step, n, classes, tile)."""
    tile = Tile(KINDS[name], lanes)

    def mask(job: Value) -> Value:
        return simd.lane_numbers(simd.vector(I64, lanes)) < slot(job, 3)

    def fill(job: Value, _: Value) -> None:
        tile.fill(slot(job, 4), slot(job, 0), slot(job, 1), slot(job, 2), mask(job))

    def empty(job: Value, _: Value) -> None:
        tile.empty(slot(job, 4), slot(job, 0), slot(job, 1), slot(job, 2), mask(job))

    return runner(fill), runner(empty)


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("name", ["uint8", "bfloat16", "float32", "float64"])
def test_a_tile_is_the_rows_turned_and_turned_back(name: str, lanes: int) -> None:
    fill, empty = turner(name, lanes)
    dtype = np.dtype(f"uint{8 * KINDS[name].size}")
    rng = np.random.default_rng(0)
    for n, classes in ((lanes, lanes), (lanes, 1), (3, lanes - 1), (1, 5)):
        memory = rng.integers(0, 256, (n + 2, lanes + 3)).astype(dtype)
        rows = memory[1 : n + 1, 1 : classes + 1]
        tile = np.full((lanes, lanes), 77, dtype)
        fill(1, rows, rows.strides[0], n, classes, tile)
        np.testing.assert_array_equal(tile[:classes, :n], rows.T)
        assert (tile[:classes, n:] == rows[-1][:, None]).all(), "lanes without a row repeat the last"

        target = np.full_like(memory, 99)
        back = target[1 : n + 1, 1 : classes + 1]
        empty(1, back, back.strides[0], n, classes, tile)
        np.testing.assert_array_equal(back, rows)
        back[:] = 99
        assert (target == 99).all(), "nothing beside the rows is touched"


def test_rows_that_go_backwards_are_turned_too() -> None:
    fill, empty = turner("float32", 8)
    memory = np.arange(64, dtype=np.float32).reshape(8, 8)
    rows, tile = memory[::-1], np.zeros((8, 8), np.float32)
    fill(1, rows, rows.strides[0], 8, 8, tile)
    np.testing.assert_array_equal(tile, rows.T)
    result = np.zeros_like(memory)
    empty(1, result[::-1], -result.strides[0], 8, 8, tile)
    np.testing.assert_array_equal(result, memory)


@functools.cache
def first_lanes(size: int, lanes: int, masks: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """The first n lanes read from an address, and written to one: job (address, n, vector)."""
    target, llvm = replace(host(), masks=masks), simd.vector(ir.IntType(8 * size), lanes)

    def read(job: Value, _: Value) -> None:
        simd.store(load_lanes(slot(job, 0), llvm, slot(job, 1)), slot(job, 2))

    def write(job: Value, _: Value) -> None:
        store_lanes(simd.load(slot(job, 2), llvm), slot(job, 0), slot(job, 1))

    return runner(read, target), runner(write, target)


@pytest.fixture(scope="module")
def guarded() -> Iterator[int]:
    """The address of a page whose neighbour behind it must not be touched."""
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as memory:
        held = (ctypes.c_char * len(memory)).from_buffer(memory)
        protect, start = ctypes.CDLL(None).mprotect, ctypes.addressof(held)
        assert protect(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        yield start
        assert protect(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 3) == 0
        del held


@pytest.mark.skipif(sys.platform == "win32", reason="pages are guarded by POSIX's mprotect")
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_first_lanes_at_the_end_of_memory(guarded: int, size: int, lanes: int, masks: bool) -> None:
    """Nothing behind them is read, and nothing beside them written."""
    read, write = first_lanes(size, lanes, masks)
    page = np.ctypeslib.as_array((ctypes.c_uint8 * mmap.PAGESIZE).from_address(guarded))
    x = np.arange(1, lanes * size + 1, dtype=np.uint8)
    for n in range(lanes + 1):
        for end in (mmap.PAGESIZE, mmap.PAGESIZE // 2):
            page[:] = 0
            at = guarded + end - n * size
            write(1, at, n, x)
            expected = np.zeros(mmap.PAGESIZE, np.uint8)
            expected[end - n * size : end] = x[: n * size]
            np.testing.assert_array_equal(page, expected)
            if n == 0:  # only written
                continue
            got = np.zeros_like(x)
            read(1, at, n, got)
            np.testing.assert_array_equal(got[: n * size], x[: n * size])
