"""Every function is held to the figures of its own docstring, against mpmath."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from mpmath import mp

import oracle
from kernels.cuda import probes
from kernels.cuda.arrays import DEVICE, array, tensor, torch
from oracle import exact, ulp_error
from withlogits.kernels.cuda import arithmetic
from withlogits.kernels.cuda.arithmetic import Transform, transform_of

POINTS = 400
PLAIN = transform_of(None, 1.0)
RNG = np.random.default_rng(0)
DIFFERENCES = np.concatenate(
    [
        -(10.0 ** RNG.uniform(-30, 0, POINTS)),
        RNG.uniform(-131.0, 0.0, POINTS),
        -np.log(2.0) * (RNG.integers(0, 180, POINTS) + 0.5) * (1 + RNG.normal(0, 1e-6, POINTS)),
        [0.0, -0.0, -131.0, -1e-45, -87.33655, -103.97208],
    ]
).astype(np.float32)


def promised(name: str) -> list[float]:
    return [float(figure) for figure in re.findall(r"([\d.]+) ulp", getattr(arithmetic, name).fn.__doc__ or "")]


def applied(what: str, x: Any, y: Any = None, transform: Transform = PLAIN, wide: bool = False) -> Any:
    """The function of each number, and the second of two results."""
    x = tensor(np.asarray(x))
    y = torch.zeros_like(x) if y is None else tensor(np.asarray(y))
    out = torch.empty(x.shape, device=DEVICE, dtype=torch.float64 if wide else torch.float32)
    rest = torch.empty(x.shape, device=DEVICE)
    block = 256
    probes.probe[(-(-len(x) // block),)](x, y, out, rest, len(x), transform, WHAT=what, BLOCK=block)
    return array(out), array(rest)


def largest_error(got: Any, truths: Any, dtype: Any = np.float32) -> float:
    return max(ulp_error(a, b, dtype) for a, b in zip(got, truths, strict=True))


def test_exp_biased() -> None:
    most, fast = promised("exp_biased")
    truths = [mp.ldexp(mp.exp(exact(d)), 64) for d in DIFFERENCES]
    assert largest_error(applied("exp", DIFFERENCES)[0], truths) <= most
    left = (RNG.uniform(-0.5, 0.5, len(DIFFERENCES)) * np.spacing(np.abs(DIFFERENCES))).astype(np.float32)
    left[DIFFERENCES == 0.0] = 0.0
    truths = [mp.ldexp(mp.exp(exact(d) + exact(e)), 64) for d, e in zip(DIFFERENCES, left, strict=True)]
    assert largest_error(applied("exp corrected", DIFFERENCES, left)[0], truths) <= most
    assert largest_error(applied("exp fast", DIFFERENCES, left)[0], truths) <= most + fast


@pytest.mark.parametrize("what", ["exp", "exp corrected", "exp fast"])
def test_exp_biased_at_its_ends(what: str) -> None:
    got, _ = applied(what, np.float32([0.0, -131.1, -1e4, -3e38, -np.inf, np.nan]))
    np.testing.assert_array_equal(got, [2.0**64, 0.0, 0.0, 0.0, 0.0, np.nan])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_exp_half(dtype: str) -> None:
    (most,) = promised("exp_half")
    x = RNG.normal(0.0, 1.0, (1500, 2)) * 10.0 ** RNG.uniform(-4, 3, (1500, 1))
    x[::3, 1] = x[::3, 0] * 1e-5
    x = np.sort(x.astype(np.float32).astype(oracle.DTYPES[dtype]), axis=1)
    x = x[(x[:, 1] - x[:, 0]).astype(np.float64) < 130.0]
    truths = [mp.ldexp(mp.exp(exact(a) - exact(b)), 64) for a, b in x]
    assert largest_error(applied("exp half", x[:, 0], x[:, 1])[0], truths) <= most
    lowest = oracle.FORMATS[dtype][2]
    ends = np.array([[-lowest, 0], [-np.inf, 0], [-np.inf, -lowest], [-np.inf, -np.inf], [np.nan, 1], [3, 3]])
    ends = ends.astype(np.float32).astype(oracle.DTYPES[dtype])
    np.testing.assert_array_equal(applied("exp half", ends[:, 0], ends[:, 1])[0], [0.0, 0.0, 0.0, 0.0, np.nan, 2.0**64])


def test_log1p_biased() -> None:
    (most,) = promised("log1p_biased")
    x = np.concatenate([10.0 ** RNG.uniform(-40, 0, POINTS), RNG.uniform(0, 1, POINTS), [0.0, 1.0]])
    x = np.ldexp(x, 64).astype(np.float32)
    truths = [mp.ldexp(mp.log1p(mp.ldexp(exact(a), -64)), 64) for a in x]
    assert largest_error(applied("log1p", x)[0], truths) <= most


def test_log1p_wide() -> None:
    x = np.concatenate([10.0 ** RNG.uniform(-40, 6, POINTS), [0.0, 1.0, 1e-16]])
    x = np.ldexp(x, 64).astype(np.float32)
    truths = [mp.log1p(mp.ldexp(exact(a), -64)) for a in x]
    assert largest_error(applied("log1p wide", x, wide=True)[0], truths, np.float64) <= 4.0


@pytest.mark.parametrize("cap", [0.5, 20.0, 30.0])
def test_transformed_with_a_cap(cap: float) -> None:
    (most,) = promised("transformed")
    near = cap * RNG.uniform(0.9, 1.1, 10 * POINTS)  # where one formula ends and the other begins: the largest errors
    x = np.concatenate([RNG.normal(0, cap, POINTS), 10.0 ** RNG.uniform(-20, 20, POINTS), [0.0, cap, -cap], near])
    x = x.astype(np.float32)
    high, low = applied("capped", x, transform=transform_of(cap, 1.0))
    for a, b, c in zip(x, high, low, strict=True):
        truth = exact(cap) * mp.tanh(exact(a) / exact(cap))
        assert abs(exact(b) + exact(c) - truth) <= most * oracle.ulp(truth, np.float32)
    np.testing.assert_array_equal(
        applied("capped", np.float32([-np.inf, np.nan]), transform=transform_of(cap, 1.0))[0], [-np.inf, np.nan]
    )


@pytest.mark.parametrize("temperature", [0.7, 3.0, 1e-3, 123.4])
def test_transformed_with_a_temperature(temperature: float) -> None:
    assert "exact to 2^-34" in (arithmetic.transformed.fn.__doc__ or "")
    transform = transform_of(None, temperature)
    x = np.concatenate([RNG.normal(0, 10, POINTS), 10.0 ** RNG.uniform(-20, 20, POINTS), [0.0]]).astype(np.float32)
    high, low = applied("tempered", x, transform=transform)
    for a, b, c in zip(x, high, low, strict=True):
        truth = exact(a) / exact(temperature)
        assert abs(exact(b) + exact(c) - truth) <= abs(truth) * mp.ldexp(1, -34)
    got, rest = applied("tempered", np.float32([-np.inf, np.nan]), transform=transform)
    np.testing.assert_array_equal(got, [-np.inf, np.nan])
    assert rest[0] == 0.0


def test_both_transformations_are_one_after_the_other() -> None:
    x = RNG.normal(0, 30, POINTS).astype(np.float32)
    high, low = applied("both", x, transform=transform_of(30.0, 0.7))
    np.testing.assert_allclose(
        high.astype(np.float64) + low, 30.0 * np.tanh(x.astype(np.float64) / 30.0) / 0.7, rtol=1.3e-7
    )


def test_transform_slope() -> None:
    text = arithmetic.transform_slope.fn.__doc__ or ""
    assert "4 + 4 |x/c| ulp" in text
    x = np.concatenate([RNG.normal(0, 30, POINTS), [0.0, 300.0, -300.0]]).astype(np.float32)
    got, _ = applied("slope", x, transform=transform_of(30.0, 0.5))
    for a, b in zip(x, got, strict=True):
        truth = 2 * mp.sech(exact(a) / 30) ** 2
        assert ulp_error(b, truth, np.float32) <= 4 + 4 * abs(float(a)) / 30
    assert applied("slope", np.float32([-np.inf]), transform=transform_of(30.0, 0.5))[0].tolist() == [0.0]


def test_a_temperature_is_split_into_a_few_bits_and_the_rest() -> None:
    for temperature in (0.7, 3.0, 1e-3, 123.4, 2.0):
        transform = transform_of(None, temperature)
        high, low = transform.inverse_high, transform.inverse_low
        assert math.frexp(high)[0] * 4096 == int(math.frexp(high)[0] * 4096)
        assert abs(high + low - 1.0 / temperature) <= 2.0**-35 / temperature
