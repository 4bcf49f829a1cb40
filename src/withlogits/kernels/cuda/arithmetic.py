"""What the Triton kernels compute with: two_sum, exp, log1p and the soft cap, each with its contract.

float32 but for a row's own numbers, which are float64: a GPU has many float32 units, on some cards 64 for each float64
one, and few rows. Errors are in units in the last place of the result (ulp), the largest seen against mpmath;
`tests/kernels/cuda/test_arithmetic.py` holds every function to the figure that stands here. The polynomials are
Chebyshev fits, rounded to float32.

Nothing here needs fused multiply-adds for its exactness (products that must be exact are of few bits), so the compiler
may fuse them, and the interpreter, which has none, finds the same errors.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693145751953125)  # the first 15 bits of ln 2: times an integer below 2^9 it is exact
LN2_LOW = tl.constexpr(1.4286068202862268e-06)

# Exponentials are kept times 2^64, so that those below the normal numbers of float32 lose nothing until the last
# rounding, and a sum of 2^60 of them does not overflow.
TO_BIAS = tl.constexpr(2.0**64)
FROM_BIAS = tl.constexpr(2.0**-64)
# Added to a number below 2^22 it rounds to an integer, which then stands in the low bits with the exponent's offset.
ROUNDER = tl.constexpr(1.5 * 2.0**23 + 127 + 64)
LOG2E_HIGH = tl.constexpr(1.442626953125)  # the first 13 bits of log2 e: times a half-precision number it is exact
LOG2E_LOW = tl.constexpr(6.80877639634e-05)
LOWEST = tl.constexpr(-131.0)  # exp below is less than half of the smallest subnormal number
FINITE = tl.constexpr(-3.4028234663852886e38)  # the lowest finite number


@triton.jit
def two_sum(a, b):
    """a + b as the rounded sum and exactly what rounding lost (Knuth); NaN is lost where the sum is infinite."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def exp_biased(d, left, FAST: tl.constexpr):
    """2^64·exp(d + left) for d ≤ 0 and a correction `left` below one ulp of d, or None.

    At most 1.5 ulp; 0 below −131, NaN for NaN, exactly 2^64 for 0. FAST takes the GPU's own exp2 in place of the
    polynomial: 4 instructions fewer and 2 ulp more, for logits of half precision.
    """
    z = d * LOG2E + ROUNDER
    n = z - ROUNDER
    f = d - n * LN2_HIGH
    if left is None:
        f = f - n * LN2_LOW
    else:
        f = f + (left - n * LN2_LOW)
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
    """x·log2 e of a half-precision x as n + f, n an integer and f small; n + ROUNDER too. n + f is right to 2^-25."""
    product = x * LOG2E_HIGH
    z = product + ROUNDER
    n = z - ROUNDER
    return z, n, (product - n) + x * LOG2E_LOW


@triton.jit
def exp_half(x, top):
    """2^64·exp(x − top) for half-precision x ≤ top, the difference of which is not rounded; at most 4 ulp.

    As `exp_biased`, for 9 instructions less: two_sum is not needed, and `top` is one for many x. −inf − (−inf) counts
    as −inf. Two different numbers above 2.3e38 give NaN.
    """
    z, _, f = exponent_of(x)
    _, n_top, f_top = exponent_of(tl.maximum(top, -1e30))
    z = z - n_top
    scale = (z.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
    return tl.where(z < ROUNDER - 190.0, 0.0, tl.exp2(f - f_top) * scale)


@triton.jit
def log1p_biased(e):
    """2^64·log1p(e/2^64) for 0 ≤ e ≤ 2^64, float32; at most 2.0 ulp.

    log1p(a) = 2 artanh(v) with v = a/(2 + a) ≤ 1/3: no logarithm, and the factor v keeps the bias.
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
    """log1p(a) for a ≥ 0, float64, within some ulp of it: what rounding did to 1 + a is divided out again (Kahan)."""
    u = a + 1.0
    return tl.where(u == 1.0, a, tl.log(u) * (a / (u - 1.0)))


@triton.jit
def bent(x, cap, inverse_cap, inverse_high, inverse_low, CAPPED: tl.constexpr, TEMPERED: tl.constexpr):
    """The transformed logit cap·tanh(x/cap)/τ, as a pair of float32 numbers; −inf stays −inf.

    1/τ = inverse_high + inverse_low, the first of 12 bits. With the temperature alone the pair is exact to 2^-34 of
    it. With a cap it is within 2 ulp of float32: cap·tanh is x − a small part, or ±cap + a small part, and no part
    is larger than 0.24 cap. x/τ beyond the largest float32 is NaN or infinite.
    """
    high = x
    low = tl.zeros_like(x)
    if CAPPED:
        y = tl.abs(x) * inverse_cap
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
        product = upper * inverse_high
        rest = (high - upper) * inverse_high + (high * inverse_low + low * inverse_high)
        total = product + rest
        low = rest - (total - product)
        high = tl.where(high == -float("inf"), high, total)
    return high, tl.where(high == -float("inf"), 0.0, low)


@triton.jit
def slope_of(x, inverse_cap, inverse, CAPPED: tl.constexpr):
    """The derivative of `bent`: sech²(x/cap)/τ = 4e/(1 + e)²/τ with e = exp(−2|x|/cap); at most 4 + 4 |x/cap| ulp."""
    slope = tl.zeros_like(x) + inverse
    if CAPPED:
        e = exp_biased(tl.abs(x) * inverse_cap * -2.0, None, False) * FROM_BIAS
        slope = 4.0 * e / ((e + 1.0) * (e + 1.0)) * inverse
    return slope


@triton.jit
def wide_sum(x):
    """The sums over the lanes of (ROWS, LANES), in float64."""
    return tl.sum(x.to(tl.float64), axis=1)
