"""Every function is held to the figures of its own docstring, against mpmath."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from kernels.compiled import elementwise
from oracle import exact, ulp, ulp_error, worst
from withlogits.kernels.cpu import functions, simd
from withlogits.kernels.cpu.simd import F32, Value

POINTS = 3000
BIAS = 64
# where searches over ten million points found the largest errors
HARD_EXP = [-628.3379191775708, -691.3973006371971, -0.3466980931847363]
HARD_TANH = [0.21388144669630182, 1.342759556729128]


def promised(function: Callable[..., Any], unit: str = "ulp") -> list[float]:
    """The figures of a docstring in their order: "0.8 ulp"; "relative error 1e-9", "within 1e-9"."""
    text = function.__doc__ or ""
    pattern = r"([\d.]+) ulp" if unit == "ulp" else rf"{unit}(?: is)? ([\d.]+e-\d+)"
    found = [float(figure) for figure in re.findall(pattern, text)]
    assert found, f"{function.__name__} promises nothing in {unit}"
    return found


def nonpositive(lowest: float = -708.0) -> Any:
    """Where exp is asked: near 0, where its reduction rounds, in between, and at its end."""
    rng = np.random.default_rng(1)
    halves = -np.log(2.0) * (rng.integers(0, 1000, POINTS // 4) + 0.5) * (1 + rng.normal(0, 1e-13, POINTS // 4))
    x = np.concatenate(
        [
            -(10.0 ** rng.uniform(-300, 0, POINTS // 4)),
            rng.uniform(-2.0, 0.0, POINTS // 4),
            rng.uniform(lowest, 0.0, POINTS // 4),
            halves[halves >= lowest],
            [*HARD_EXP, 0.0, -5e-324, -np.log(2.0), lowest],
        ]
    )
    return np.maximum(x, lowest)


def corrections(x: Any) -> Any:
    """What a sum may have lost: up to one ulp either way."""
    return np.random.default_rng(2).uniform(-1.0, 1.0, len(x)) * np.spacing(np.abs(x))


def relative(got: Any, truth: list[mpf]) -> float:
    return max(float(abs(exact(g) / t - 1)) for g, t in zip(got, truth, strict=True))


@functools.cache
def exponentials() -> dict[str, Any]:
    full, single = functions.EXP_FULL, functions.EXP_FLOAT32
    return {
        "full": elementwise(lambda d: functions.exp_pair(d), 1, 2),
        "half": elementwise(lambda d: functions.exp_pair(d, None, functions.EXP_HALF), 1, 2),
        "single": elementwise(lambda d: functions.exp_pair(d, None, single), 1, 2),
        "corrected": elementwise(lambda d, e: functions.exp_pair(d, e, full, BIAS), 2, 2),
        "clamped": elementwise(lambda d: functions.exp_pair(d, to_zero=False), 1, 2),
    }


def test_exp_pair_before_and_after_its_rounding() -> None:
    unrounded, rounded = promised(functions.exp_pair)
    d = nonpositive()
    scale, t = exponentials()["full"](d)
    truth = [mp.exp(exact(x)) for x in d]
    errors = [
        float(abs(exact(s) * (1 + exact(u)) - y) / ulp(y, np.float64)) for s, u, y in zip(scale, t, truth, strict=True)
    ]
    assert max(errors) <= unrounded
    assert (np.frexp(scale)[0] == 0.5).all()  # a power of two
    assert worst(scale + scale * t, truth, np.float64) <= rounded + 0.5  # without the fma that kernels use


def test_exp_pair_with_a_correction_and_a_bias() -> None:
    """Down to −750, where the result itself would be subnormal."""
    unrounded, _ = promised(functions.exp_pair)
    d = nonpositive(-750.0)
    e = corrections(d)
    e[d == 0.0] = 0.0
    scale, t = exponentials()["corrected"](d, e)
    truth = [mp.ldexp(mp.exp(exact(x) + exact(y)), BIAS) for x, y in zip(d, e, strict=True)]
    errors = [
        float(abs(exact(s) * (1 + exact(u)) - y) / ulp(y, np.float64)) for s, u, y in zip(scale, t, truth, strict=True)
    ]
    assert max(errors) <= unrounded


@pytest.mark.parametrize(("name", "position"), [("half", 0), ("single", 1)])
def test_exp_pair_with_shorter_polynomials(name: str, position: int) -> None:
    figure = promised(functions.exp_pair, "relative error")[position]
    d = nonpositive()
    scale, t = exponentials()[name](d)
    wholes = [exact(s) * (1 + exact(u)) for s, u in zip(scale, t, strict=True)]
    assert max(float(abs(w / mp.exp(exact(x)) - 1)) for w, x in zip(wholes, d, strict=True)) <= figure


def test_exp_pair_at_its_ends() -> None:
    below = np.array([np.nextafter(-708.0, -np.inf), -1e4, -1e300, -np.inf])
    for name in ("full", "single"):
        scale, t = exponentials()[name](below)
        assert (scale == 0).all()
        assert (t == 0).all()
    scale, t = exponentials()["clamped"](below)
    np.testing.assert_array_equal(
        scale + scale * t, np.full(4, exponentials()["full"](np.array([-708.0]))[0][0]) * (1 + t)
    )
    assert (np.float32(scale) == 0).all()
    scale, t = exponentials()["corrected"](np.array([np.nextafter(-750.0, -np.inf), -np.inf]), np.zeros(2))
    assert (scale == 0).all()
    assert (t == 0).all()
    for name in ("full", "single", "clamped"):
        scale, t = exponentials()[name](np.array([np.nan, -1.0]))
        np.testing.assert_array_equal(np.isnan(scale * (1 + t)), [True, False])


def test_exp() -> None:
    (figure,) = promised(functions.exp)
    d = nonpositive()
    compute = elementwise(functions.exp, 1, 1)
    assert worst(compute(d), [mp.exp(exact(x)) for x in d], np.float64) <= figure
    np.testing.assert_array_equal(compute(np.array([0.0, -708.1, -np.inf, np.nan])), [1.0, 0.0, 0.0, np.nan])


def test_expm1() -> None:
    minus_one, plain = promised(functions.expm1)
    d = nonpositive()
    below, e = elementwise(functions.expm1, 1, 2)(d)
    assert worst(below, [mp.expm1(exact(x)) for x in d], np.float64) <= minus_one
    assert worst(e, [mp.exp(exact(x)) for x in d], np.float64) <= plain
    below, e = elementwise(functions.expm1, 1, 2)(np.array([0.0, -800.0, -np.inf, np.nan]))
    np.testing.assert_array_equal(below, [0.0, -1.0, -1.0, np.nan])
    np.testing.assert_array_equal(e, [1.0, 0.0, 0.0, np.nan])


def test_log() -> None:
    (figure,) = promised(functions.log)
    rng = np.random.default_rng(3)
    near_one = 1.0 + rng.uniform(-1, 1, POINTS // 3) * 10.0 ** rng.uniform(-16, -0.5, POINTS // 3)
    ends = [2.0**-1022, 1.7e308, np.sqrt(0.5), np.sqrt(2.0), 1.0, np.nextafter(1.0, 0.0), np.nextafter(1.0, 2.0)]
    u = np.concatenate([np.exp2(rng.uniform(-1022, 1024, POINTS)), near_one, rng.uniform(0.5, 2.0, POINTS // 3), ends])
    compute = elementwise(functions.log, 2, 1)
    assert worst(compute(u, 0 * u), [mp.log(exact(x)) for x in u], np.float64) <= figure
    # with u at 1 the correction is all there is, and its own relative error that of one division
    u = u[(np.abs(u - 1.0) > 1e-9)]
    lost = corrections(u)
    truth = [mp.log(exact(x) + exact(y)) for x, y in zip(u, lost, strict=True)]
    assert worst(compute(u, lost), truth, np.float64) <= figure


@functools.cache
def log1ps() -> dict[str, Any]:
    return {
        "plain": elementwise(lambda s: functions.log1p(s), 1, 1),
        "corrected": elementwise(functions.log1p, 2, 1),
    }


def nonnegative() -> Any:
    rng = np.random.default_rng(4)
    powers = np.exp2(rng.integers(-60, 60, POINTS // 4)) - 1.0
    return np.concatenate(
        [
            10.0 ** rng.uniform(-300, 308, POINTS // 2),
            10.0 ** rng.uniform(-17, 3, POINTS // 2),
            np.sqrt(2.0) - 1.0 + rng.normal(0, 1e-15, 20),
            powers[powers >= 0] * (1 + rng.normal(0, 1e-16, (powers >= 0).sum())),
            [0.0, 5e-324, 1.0, 2.0**53, 2.0**53 + 2, 2.0**54, 1.7e308],
        ]
    )


def test_log1p() -> None:
    (figure,) = promised(functions.log1p)
    s = nonnegative()
    assert worst(log1ps()["plain"](s), [mp.log1p(exact(x)) for x in s], np.float64) <= figure
    ends = np.array([0.0, np.inf, np.nan])
    np.testing.assert_array_equal(log1ps()["plain"](ends), ends)


def test_log1p_with_what_its_argument_lost() -> None:
    (figure,) = promised(functions.log1p)
    s = nonnegative()
    s = s[s > 1e-290]  # a correction that is a normal number
    lost = corrections(s)
    truth = [mp.log1p(exact(x) + exact(y)) for x, y in zip(s, lost, strict=True)]
    assert worst(log1ps()["corrected"](s, lost), truth, np.float64) <= figure
    ends = np.array([0.0, np.inf, np.nan])
    np.testing.assert_array_equal(log1ps()["corrected"](ends, np.zeros(3)), ends)


def test_log1p_for_single_precision() -> None:
    (figure,) = promised(functions.log1p_float32, "relative error")
    rng = np.random.default_rng(5)
    e = np.concatenate([rng.random(POINTS), 10.0 ** rng.uniform(-300, 0, POINTS), [1.0]])
    compute = elementwise(functions.log1p_float32, 1, 1)
    assert relative(compute(e), [mp.log1p(exact(x)) for x in e]) <= figure
    np.testing.assert_array_equal(compute(np.array([0.0, np.nan])), [0.0, np.nan])


def test_log1p_of_any_number_for_single_precision() -> None:
    (figure,) = promised(functions.log1p_single, "relative error")
    s = nonnegative()
    s = s[s > 1e-307]  # half of it is a normal number
    compute = elementwise(functions.log1p_single, 1, 1)
    assert relative(compute(s), [mp.log1p(exact(x)) for x in s]) <= figure
    np.testing.assert_array_equal(compute(np.array([0.0, np.nan])), [0.0, np.nan])


def test_reciprocal() -> None:
    (figure,) = promised(functions.reciprocal)
    rng = np.random.default_rng(6)
    d = np.concatenate([rng.uniform(1.0, 2.0, POINTS), 1.0 + 10.0 ** rng.uniform(-16, 0, POINTS), [1.0, 2.0]])
    compute = elementwise(functions.reciprocal, 1, 1)
    assert worst(compute(d), [1 / exact(x) for x in d], np.float64) <= figure
    assert np.isnan(compute(np.array([np.nan])))[0]


def test_tanh_and_its_derivative() -> None:
    value, slope = promised(functions.tanh)
    rng = np.random.default_rng(7)
    y = np.concatenate([10.0 ** rng.uniform(-300, 2.5, POINTS), rng.uniform(0, 25, POINTS), HARD_TANH, [0.0, 354.0]])
    y = y * rng.choice([-1.0, 1.0], len(y))
    compute = elementwise(functions.tanh, 1, 2)
    got, derivative = compute(y)
    assert worst(got, [mp.tanh(exact(x)) for x in y], np.float64) <= value
    assert worst(derivative, [mp.sech(exact(x)) ** 2 for x in y], np.float64) <= slope
    got, derivative = compute(np.array([0.0, -0.0, 400.0, -400.0, np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(got, [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, np.nan])
    np.testing.assert_array_equal(np.signbit(got[:2]), [False, True])
    np.testing.assert_array_equal(derivative, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, np.nan])


@pytest.mark.parametrize("entries", [1, 8, 32])
@pytest.mark.parametrize("size", [1.0, 100.0, functions.FAR])
def test_the_parts_of_an_exponential_in_float32(size: float, entries: int) -> None:
    """Whatever table this processor can look up at once: a longer one is made of several."""
    figures = dict(zip((32, 8, 1), promised(functions.exp_reduced_float32, "within"), strict=True))
    rng = np.random.default_rng(8)
    whole = rng.integers(-60, 60, POINTS)  # of exponents, so that no scale overflows
    x = np.append(rng.uniform(-size, size, POINTS), -5.198927).astype(np.float32)
    shift = np.rint(x.astype(np.float64) / np.log(2.0)) - np.append(whole, 0)
    rounder = (functions.ROUNDER_FLOAT32 + entries * (127.0 - shift)).astype(np.float32)

    def parts(x: Value, rounder: Value) -> tuple[Value, Value, Value]:
        scale, t, lost = functions.exp_reduced_float32(x, rounder, entries)
        return scale, t, simd.constant(0.0, x.type) if lost is None else lost

    scale, t, lost = elementwise(parts, 2, 3, F32)(x, rounder)
    error = 0.0
    for a, n, s, b, c in zip(x, shift, scale, t, lost, strict=True):
        exponential = mp.exp(exact(a) - mpf(float(n)) * mp.ln2)
        error = max(error, float(abs(exact(s) * (1 + exact(b) + exact(c)) / exponential - 1)))
    assert figures[entries] / 2 < error <= figures[entries]


def together(high: Any, low: Any, truth: list[mpf]) -> float:
    """The relative error of pairs."""
    return max(float(abs((exact(h) + exact(e)) / t - 1)) for h, e, t in zip(high, low, truth, strict=True))


@pytest.mark.parametrize("entries", [1, 8, 32])
def test_exp_in_float32_and_what_it_lost(entries: int) -> None:
    (figure,) = promised(functions.exp_float32, "within")
    (subnormal,) = promised(functions.exp_float32)
    rng = np.random.default_rng(10)
    d = -np.concatenate([rng.uniform(0, 1, POINTS), rng.uniform(0, 60, POINTS), 10.0 ** rng.uniform(-30, 0, POINTS)])
    d = d.astype(np.float32)
    compute = elementwise(lambda d: functions.exp_float32(d, entries), 1, 2, F32)
    assert together(*compute(d), [mp.exp(exact(x)) for x in d]) <= figure
    d = rng.uniform(-104.0, -80.0, POINTS).astype(np.float32)  # down to the smallest subnormal number
    assert worst(compute(d)[0], [mp.exp(exact(x)) for x in d], np.float32) <= subnormal
    ends = compute(np.float32([0.0, -0.0, -104.5, -1e30, -np.inf, np.nan]))[0]
    np.testing.assert_array_equal(ends, np.float32([1.0, 1.0, 0.0, 0.0, 0.0, np.nan]))


def pairs_up_to_one() -> tuple[Any, Any]:
    rng = np.random.default_rng(11)
    e = np.concatenate([rng.random(POINTS), 10.0 ** rng.uniform(-30, 0, POINTS), [0.5, np.nextafter(0.5, 0), 1.0]])
    e = e.astype(np.float32)
    return e, (rng.uniform(-0.5, 0.5, len(e)) * np.spacing(e) * (e < 1)).astype(np.float32)


def test_log1p_in_float32_and_its_correction() -> None:
    (figure,) = promised(functions.log1p_pair_float32, "within")
    e, low = pairs_up_to_one()
    truth = [mp.log1p(exact(x) + exact(y)) for x, y in zip(e, low, strict=True)]
    assert together(*elementwise(functions.log1p_pair_float32, 2, 2, F32)(e, low), truth) <= figure


def test_inverse_in_float32() -> None:
    (figure,) = promised(functions.inverse_float32)
    e, low = pairs_up_to_one()
    truth = [1 / (1 + exact(x) + exact(y)) for x, y in zip(e, low, strict=True)]
    assert worst(elementwise(functions.inverse_float32, 2, 1, F32)(e, low), truth, np.float32) <= figure


def test_two_sum_loses_nothing() -> None:
    rng = np.random.default_rng(9)
    a, b = (rng.choice([-1.0, 1.0], POINTS) * 10.0 ** rng.uniform(-200, 200, POINTS) for _ in range(2))
    b[::3] = -a[::3] * (1 + rng.normal(0, 1e-15, len(a[::3])))
    compute = elementwise(functions.two_sum, 2, 2)
    total, lost = compute(a, b)
    np.testing.assert_array_equal(total, a + b)
    assert all(exact(s) + exact(e) == exact(p) + exact(q) for s, e, p, q in zip(total, lost, a, b, strict=True))
    total, lost = compute(np.array([np.inf, np.inf, -np.inf, np.nan]), np.array([1.0, -np.inf, 5.0, 1.0]))
    np.testing.assert_array_equal(total, [np.inf, np.nan, -np.inf, np.nan])
    assert (lost == 0).all()


def test_horner_is_the_polynomial() -> None:
    x = np.linspace(-2.0, 2.0, 101)
    got = elementwise(lambda v: functions.horner(v, (1.0, -2.0, 0.5, 3.0)), 1, 1)(x)
    np.testing.assert_allclose(got, 1 - 2 * x + 0.5 * x**2 + 3 * x**3, rtol=1e-14, atol=1e-14)


def test_a_figure_that_is_too_small_is_noticed() -> None:
    """These tests can fail: a shorter polynomial breaks the promise of the longer one."""
    d = nonpositive()
    short = elementwise(lambda v: simd.fma(*(functions.exp_pair(v, None, functions.EXP_FLOAT32) * 2)[:3]), 1, 1)(d)
    assert max(ulp_error(g, mp.exp(exact(x)), np.float64) for g, x in zip(short, d, strict=True)) > 1000
