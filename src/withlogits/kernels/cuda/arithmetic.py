"""Arithmetic of the Triton kernels: two_sum, exp, log1p and the transformation of logits, each with its error bound.

float32, except for numbers that belong to a whole row, which are float64: a GPU has up to 64 float32 units for each
float64 one, and few rows. Errors are in units in the last place of the result (ulp), the largest seen against mpmath;
`tests/kernels/cuda/test_arithmetic.py` reads the bounds from the docstrings. The polynomials are Chebyshev fits,
rounded to float32.

No function relies on fused multiply-adds (products that must be exact have few bits), so the compiler may fuse them,
and the interpreter, which has none, has the same errors.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693145751953125)  # the first 15 bits of ln 2: times an integer below 2^9 it is exact
LN2_LOW = tl.constexpr(1.4286068202862268e-06)

# Exponentials are scaled by 2^64, so that those below the normal float32 numbers lose no digits before the last
# rounding, and a sum of 2^60 of them does not overflow.
TO_BIAS = tl.constexpr(2.0**64)
FROM_BIAS = tl.constexpr(2.0**-64)
# Added to a number below 2^22 it rounds to an integer, whose low bits then hold the biased exponent.
ROUNDER = tl.constexpr(1.5 * 2.0**23 + 127 + 64)
LOG2E_HIGH = tl.constexpr(1.442626953125)  # the first 13 bits of log2 e: times a half-precision number it is exact
LOG2E_LOW = tl.constexpr(6.80877639634e-05)
LOWEST = tl.constexpr(-131.0)  # exp below is less than half of the smallest subnormal number
FINITE = tl.constexpr(-3.4028234663852886e38)  # the lowest finite number


class Transform(NamedTuple):
    """The softcap c and the temperature τ as float32 numbers."""

    cap: float
    inverse_cap: float
    inverse_high: float  # 1/τ = inverse_high + inverse_low, the first of 12 bits
    inverse_low: float
    inverse: float


def transform_of(softcap: float | None, temperature: float) -> Transform:
    """Return the numbers of a transformation of logits."""
    cap = 1.0 if softcap is None else softcap
    inverse = 1.0 / temperature
    fraction, exponent = math.frexp(inverse)
    high = math.ldexp(math.floor(fraction * 4096.0) / 4096.0, exponent)
    return Transform(*map(to_float32, (cap, 1.0 / cap, high, inverse - high, inverse)))


def to_float32(value: Any) -> float:
    """Round to float32, as the compiled kernel does with its arguments and the interpreter does not."""
    return ctypes.c_float(value).value


@triton.jit
def two_sum(a, b):
    """Return a + b rounded, and its rounding error (Knuth), which is NaN where the sum is infinite."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def exp_biased(d, error, FAST: tl.constexpr):
    """Return 2^64·exp(d + error) for d ≤ 0 and a correction `error` below one ulp of d, or None.

    At most 1.5 ulp; 0 below −131, NaN for NaN, exactly 2^64 for 0. FAST replaces the polynomial by the GPU's
    own exp2: 4 instructions fewer and 2 ulp more, for half-precision logits.
    """
    z = d * LOG2E + ROUNDER
    n = z - ROUNDER
    f = d - n * LN2_HIGH
    if error is None:
        f = f - n * LN2_LOW
    else:
        f = f + (error - n * LN2_LOW)
    scale = (z.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
    if FAST:
        e = tl.exp2(f * LOG2E) * scale
    else:
        q = f * 0.00019891103147529066 + 0.0013933751033619046
        q = q * f + 0.00833331048488617
        q = q * f + 0.041666463017463684
        q = q * f + 0.1666666716337204
        q = q * f + 0.5
        e = scale * (q * (f * f) + f) + scale
    return tl.where(d < LOWEST, 0.0, e)


@triton.jit
def exponent_of(x):
    """Return n + ROUNDER, n and f for a half-precision x: x·log2 e = n + f within 2^-25, n an integer and f small."""
    product = x * LOG2E_HIGH
    z = product + ROUNDER
    n = z - ROUNDER
    return z, n, (product - n) + x * LOG2E_LOW


@triton.jit
def exp_half(x, top):
    """Return 2^64·exp(x − top) for half-precision x ≤ top without rounding the difference; at most 4 ulp.

    9 instructions less than `exp_biased`: no two_sum, and many x share `top`. −inf − (−inf) is taken as −inf. Two
    different numbers above 2.3e38 give NaN.
    """
    z, _, f = exponent_of(x)
    _, n_top, f_top = exponent_of(tl.maximum(top, -1e30))
    z = z - n_top
    scale = (z.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
    return tl.where(z < ROUNDER - 190.0, 0.0, tl.exp2(f - f_top) * scale)


@triton.jit
def log1p_biased(e):
    """Return 2^64·log1p(e/2^64) for 0 ≤ e ≤ 2^64, float32; at most 2.0 ulp.

    log1p(a) = 2 artanh(v) with v = a/(2 + a) ≤ 1/3: no logarithm, and the factor v carries the scale.
    """
    v = tl.div_rn(e, e * FROM_BIAS + 2.0)
    w = v * FROM_BIAS
    w = w * w
    q = w * 0.23224382102489471 + 0.21706564724445343
    q = q * w + 0.2859236001968384
    q = q * w + 0.3999970555305481
    q = q * w + 0.6666666865348816
    return v * (q * w) + 2.0 * v


@triton.jit
def log1p_wide(a):
    """Return log1p(a) for a ≥ 0 in float64, within 4 ulp: the rounding of 1 + a is divided out again (Kahan)."""
    u = a + 1.0
    return tl.where(u == 1.0, a, tl.log(u) * (a / (u - 1.0)))


@triton.jit
def transformed(x, transform, CAPPED: tl.constexpr, TEMPERED: tl.constexpr):
    """Return the transformed logit c·tanh(x/c)/τ as a pair of float32 numbers; −inf stays −inf.

    With the temperature alone the pair is exact to 2^-34. With a cap it is within 2 ulp of float32: c·tanh is x − a
    small part, or ±c + a small part, of at most 0.24 c. Where x/τ overflows float32 it is NaN or infinite.
    """
    high = x
    low = tl.zeros_like(x)
    if CAPPED:
        cap = transform.cap
        y = tl.abs(x) * transform.inverse_cap
        w = y * y
        q = w * 0.00042069549090228975 + -0.0025104593951255083
        q = q * w + 0.008218921720981598
        q = q * w + -0.02166011556982994
        q = q * w + 0.053934790194034576
        q = q * w + -0.1333312839269638
        q = q * w + 0.3333333134651184
        e = exp_biased(y * -2.0, None, False) * FROM_BIAS
        rest = cap * (2.0 * e / (e + 1.0))
        near = y < 1.0
        high = tl.where(near, x, tl.where(x < 0.0, -cap, cap))
        low = tl.where(near, -x * (q * w), tl.where(x < 0.0, rest, -rest))
        total = high + low
        low = low - (total - high)
        high = tl.where(x == -float("inf"), x, total)
    if TEMPERED:
        upper = (high.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
        product = upper * transform.inverse_high
        rest = (high - upper) * transform.inverse_high + (high * transform.inverse_low + low * transform.inverse_high)
        total = product + rest
        low = rest - (total - product)
        high = tl.where(high == -float("inf"), high, total)
    return high, tl.where(high == -float("inf"), 0.0, low)


@triton.jit
def transform_slope(x, transform, CAPPED: tl.constexpr):
    """Return the derivative sech²(x/c)/τ = 4e/(1 + e)²/τ with e = exp(−2|x|/c); at most 4 + 4 |x/c| ulp."""
    slope = tl.zeros_like(x) + transform.inverse
    if CAPPED:
        e = exp_biased(tl.abs(x) * transform.inverse_cap * -2.0, None, False) * FROM_BIAS
        slope = 4.0 * e / ((e + 1.0) * (e + 1.0)) * transform.inverse
    return slope


@triton.jit
def wide_sum(x):
    """Return the sums over the lanes of (ROWS, LANES), in float64."""
    return tl.sum(x.to(tl.float64), axis=1)
