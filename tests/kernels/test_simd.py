"""Vectors do what their operators say, lane by lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from kernels.compiled import elementwise, runner, slot
from withlogits.kernels.cpu import simd
from withlogits.kernels.cpu.simd import F32, F64, I32, I64, Value

X = np.array([3.0, -1.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 2.5])
Y = np.array([2.0, 4.0, -0.0, 1.0, np.inf, 0.0, 1.0, np.nan])


def compiled(function: Callable[..., Any], outputs: int = 1, inputs: int = 2) -> Any:
    return elementwise(function, inputs, outputs)(*(X, Y)[:inputs])


def test_arithmetic() -> None:
    results = compiled(lambda x, y: (x + y, x - y, x * y, x / y, -x, 1.0 + x, 1.0 - x, 2.0 * x, 1.0 / x), 9)
    with np.errstate(all="ignore"):
        expected = (X + Y, X - Y, X * Y, X / Y, -X, 1 + X, 1 - X, 2 * X, 1 / X)
    for got, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(np.signbit(got)[~np.isnan(got)], np.signbit(wanted)[~np.isnan(wanted)])


def test_comparisons_are_false_with_nan_but_for_unequal() -> None:
    tests = ("<", "<=", ">", ">=", "==", "!=")

    def compare(x: Value, y: Value) -> tuple[Value, ...]:
        flags = (x < y, x <= y, x > y, x >= y, x == y, x != y)
        return tuple(simd.select(flag, 1.0, simd.constant(0.0, x.type)) for flag in flags)

    wanted = (X < Y, X <= Y, X > Y, X >= Y, X == Y, X != Y)
    for name, got, expected in zip(tests, compiled(compare, 6), wanted, strict=True):
        np.testing.assert_array_equal(got, expected.astype(float), err_msg=name)


def test_the_larger_and_the_smaller_are_the_second_where_one_is_nan() -> None:
    larger, smaller = compiled(lambda x, y: (simd.larger(x, y), simd.smaller(x, y)), 2)
    np.testing.assert_array_equal(larger, np.where(X > Y, X, Y))
    np.testing.assert_array_equal(smaller, np.where(X < Y, X, Y))


def test_fma_rounds_once() -> None:
    x = np.full(8, 1.0 + 2.0**-30)
    got = elementwise(lambda x, y: simd.fma(x, x, -y), 2, 1)(x, x * x)
    assert (got == 2.0**-60).all()


def test_rearranging_lanes() -> None:
    x, y = np.arange(8.0), np.arange(8.0, 16.0)

    def rearranged(x: Value, y: Value) -> tuple[Value, ...]:
        low, high = simd.halves(x)
        swapped = simd.insert(simd.insert(x, simd.lane(y, 3), 0), simd.lane(x, 0), 7)
        return simd.join(high, low), simd.shuffle(x, y, [0, 8, 1, 9, 2, 10, 3, 11]), swapped

    joined, mixed, swapped = elementwise(rearranged, 2, 3)(x, y)
    np.testing.assert_array_equal(joined, [4, 5, 6, 7, 0, 1, 2, 3])
    np.testing.assert_array_equal(mixed, [0, 8, 1, 9, 2, 10, 3, 11])
    np.testing.assert_array_equal(swapped, [11, 1, 2, 3, 4, 5, 6, 0])


def test_across_is_a_tree_of_halves() -> None:
    x = np.array([1e16, 1.0, -1e16, 1.0, 3.0, 1.0, 1.0, 1.0])
    got = elementwise(lambda v: simd.splat(simd.across(v, lambda p, q: p + q), v.type), 1, 1)(x)
    four = x[:4] + x[4:]
    two = four[:2] + four[2:]
    assert (got == two[0] + two[1]).all()


def test_bits_signs_and_sizes() -> None:
    absolute, signed, bits = compiled(
        lambda x, y: (simd.absolute(x), simd.copysign(x, y), simd.bits(simd.bits(x) & simd.bits(y))), 3
    )
    np.testing.assert_array_equal(absolute, np.abs(X))
    np.testing.assert_array_equal(np.signbit(signed), np.signbit(Y))
    np.testing.assert_array_equal(bits.view(np.int64), X.view(np.int64) & Y.view(np.int64))


def test_lanes_that_are_set_are_counted() -> None:
    def count(x: Value, y: Value) -> Value:
        return simd.splat(simd.convert(simd.set_lanes(x > y), F64), x.type)

    assert (compiled(count) == (X > Y).sum()).all()


def test_one_of_two_branches_is_taken() -> None:
    def step(job: Value, i: Value) -> None:
        x = slot(job, 0) + i * 8
        chosen = simd.either(i < 2, lambda: simd.load(x, F64) * 10.0, lambda: -simd.load(x, F64))
        simd.either(i == 3, lambda: simd.store(chosen + 1.0, x), lambda: simd.store(chosen, x))

    x = np.arange(4.0)
    runner(step)(4, x)
    np.testing.assert_array_equal(x, [0.0, 10.0, -2.0, -2.0])


def test_integers() -> None:
    def numbers(x: Value) -> tuple[Value, ...]:
        n = simd.convert(x, I64)
        results = (n + 1, n - 3, n * n, n << 2, n >> 1, n | 1, n ^ 5, -n, ~n)
        return tuple(simd.convert(r, F64) for r in results)

    n = np.arange(-4, 4)
    got = elementwise(numbers, 1, 9)(n.astype(float))
    for result, expected in zip(got, (n + 1, n - 3, n * n, n << 2, n >> 1, n | 1, n ^ 5, -n, ~n), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_integers_widen_by_their_sign_unless_told() -> None:
    narrow = np.array([-1, 5, -(2**31), 2**31 - 1, 0, 1, 2, 3], np.int32)
    targets = [np.zeros(8), np.zeros(8)]

    def step(job: Value, i: Value) -> None:
        raw = simd.load(slot(job, 0), simd.vector(I32, 8))
        for k, unsigned in enumerate((False, True)):
            wide = simd.convert(raw, I64, unsigned)
            simd.store(simd.convert(wide, F64), slot(job, 1 + k))

    runner(step)(1, narrow, *targets)
    np.testing.assert_array_equal(targets[0], narrow)
    np.testing.assert_array_equal(targets[1], narrow.view(np.uint32))


def test_a_number_beside_float32_is_a_float32() -> None:
    x = np.zeros(16, np.float32)
    np.testing.assert_array_equal(elementwise(lambda v: v + 0.1, 1, 1, F32)(x), np.full(16, np.float32(0.1)))
    infinite = elementwise(lambda v: v - float("inf"), 1, 1, F32)(x)
    assert (infinite == -np.inf).all()


def test_gather_and_scatter() -> None:
    source, target = np.arange(100.0), np.zeros(100)

    def step(job: Value, i: Value) -> None:
        at = simd.lane_numbers(simd.vector(I64, 8)) * (-24)
        x = simd.gather(at + slot(job, 0), simd.vector(F64, 8))
        simd.scatter(x, at + slot(job, 1))

    runner(step)(1, source[50:], target[50:])
    places = 50 - 3 * np.arange(8)
    np.testing.assert_array_equal(np.flatnonzero(target), places[::-1])
    np.testing.assert_array_equal(target[places], places)


def test_masked_lanes_are_neither_read_nor_written() -> None:
    source, target = np.arange(1.0, 9.0), np.zeros(8)

    def step(job: Value, i: Value) -> None:
        x = simd.load(slot(job, 0), simd.vector(F64, 8))
        odd = (simd.lane_numbers(simd.vector(I64, 8)) & 1) == 1
        kept = simd.load_some(slot(job, 0), odd, simd.constant(-1.0, x.type))
        simd.store_some(kept, slot(job, 1), ~odd)
        simd.store_some(x * 10.0, slot(job, 1), odd)

    runner(step)(1, source, target)
    np.testing.assert_array_equal(target, [-1, 20, -1, 40, -1, 60, -1, 80])


def test_atomics_count_and_publish() -> None:
    cell, seen = np.zeros(1, np.int64), np.zeros(5)

    def step(job: Value, i: Value) -> None:
        before = simd.atomic_add(slot(job, 0), 3)
        simd.store(simd.convert(before + simd.atomic_load(slot(job, 0)), F64), slot(job, 1) + i * 8)

    runner(step)(5, cell, seen)
    assert cell[0] == 15
    np.testing.assert_array_equal(seen, [3, 9, 15, 21, 27])  # before + after


def test_scratch_is_aligned_and_ours() -> None:
    out = np.zeros(9)

    def step(job: Value, i: Value) -> None:
        memory = simd.scratch(64)
        simd.store(simd.convert(memory & 63, F64), slot(job, 0))
        simd.store(simd.load(slot(job, 1), simd.vector(F64, 8)), memory)
        simd.store(simd.load(memory, simd.vector(F64, 8)), slot(job, 0) + 8)

    runner(step)(1, out, np.arange(8.0))
    np.testing.assert_array_equal(out, [0.0, *range(8)])


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot splat"):
        elementwise(lambda x: simd.splat(simd.lane(x, 0), ir.VectorType(I64, 8)), 1, 1)(X)


@pytest.mark.parametrize("entries", [1, 2, 8, 16, 32, 64])
def test_a_table_is_looked_up_by_the_lowest_bits(entries: int) -> None:
    """Whether one instruction does it on this processor, or several."""
    rng = np.random.default_rng(3)
    table = tuple(int(n) for n in rng.integers(-(2**31), 2**31, entries))
    index = np.append(rng.integers(-(2**31), 2**31, 1000), np.arange(64)).astype(np.int32)
    got = elementwise(lambda i: simd.bits(simd.look_up(table, simd.bits(i))), 1, 1, F32)(index.view(np.float32))
    np.testing.assert_array_equal(got.view(np.int32), np.array(table, np.int32)[index % entries])
