"""exp, log1p and tanh for vectors, each with its contract.

Errors are in units in the last place of the result (ulp), the largest seen against mpmath over the stated range;
`tests/kernels/test_functions.py` holds every function to the figure that stands here.

The polynomials are near-minimax fits (Chebyshev interpolation at 40 digits, then rounded), so their coefficients differ
from the Taylor series in the last digits on purpose.
"""

from __future__ import annotations

from . import simd
from .simd import Value, fma, select

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH = 6.93147180369123816490e-01  # the first 32 bits of ln 2, so that n·LN2_HIGH is exact
LN2_LOW = 1.90821492927058770002e-10
LN2_FLOAT32 = 0.693147182464599609375
LN2_MISSING = -1.904654323148236017e-09  # ln 2 less that
FAR = 2.0**15  # up to here a float32 is reduced exactly, in 32nds of ln 2 too
# Adding it rounds to an integer, which then stands in the low bits
ROUNDER_FLOAT32, ROUNDER = 1.5 * 2.0**23, 1.5 * 2.0**52

# q(r) = (e^r − 1 − r)/r² for |r| ≤ ln2/2; r²·error of q is the relative error of exp
EXP_FULL = (
    0.5000000000000001, 0.16666666666666669, 0.04166666666662399, 0.008333333333330051, 0.0013888888917281794,
    0.00019841269863105968, 2.480152119021773e-05, 2.7557268378684192e-06, 2.7620138719733994e-07,
    2.5100424157005067e-08,
)  # 1.3e-17  # fmt: skip
EXP_HALF = (
    0.4999999999995511, 0.16666666666662586, 0.04166666678626573, 0.00833333334420298, 0.0013888839110572009,
    0.00019841224599656011, 2.4867870179687727e-05, 2.7617564785876086e-06,
)  # 7.4e-14  # fmt: skip
EXP_FLOAT32 = (
    0.5000000013498178, 0.16666666681659179, 0.04166646460202654, 0.008333310889582076, 0.0013933685862617174,
    0.00019891030654370327,
)  # 1.7e-10  # fmt: skip
# The same for |r| ≤ 0.55 ln2/entries, by the entries of a table of powers of 2
EXP_REDUCED = {1: EXP_FLOAT32, 8: (0.5, 0.16666667, 0.041666667), 32: (0.5, 0.16666667)}

# (log((1+z)/(1−z)) − 2z)/z³ in w = z², for f = (1+z)/(1−z) between sqrt(1/2) and sqrt(2)
LOG_FULL = (
    0.666666666666667, 0.3999999999989889, 0.28571428626253836, 0.22222211089379496, 0.1818289243253687,
    0.15331611722055008, 0.14617807153417325,
)  # fmt: skip
# log((1+z)/(1−z))/z of the same f, relative error 4.3e-12
LOG_SINGLE = (2.0000000000083595, 0.6666666524748752, 0.4000038467237519, 0.2853505103781631, 0.23616359099145984)
# log1p(e)/e for 0 ≤ e ≤ 1, relative error 1.4e-10
LOG1P_FLOAT32 = (
    0.9999999998657495, -0.4999999612139627, 0.33333145512337686, -0.24996389178843487, 0.19963546159118528,
    -0.1644481781513311, 0.13403457249133155, -0.1008180479257159, 0.06350289738777211, -0.029800145490202278,
    0.008925603861739712, -0.0012525852620659762,
)  # fmt: skip


# (log1p(f) − f)/f² for −1/4 ≤ f ≤ 1/2, in float32: together with f its relative error is 5.1e-10
LOG1P_NEAR = (
    -0.5, 0.3333336114883423, -0.2500021755695343, 0.19998446106910706, -0.16652031242847443, 0.1429423689842224,
    -0.1279136836528778, 0.11643395572900772, -0.08733979612588882, 0.03423517197370529,
)  # fmt: skip


def horner(x: Value, coefficients: tuple[float, ...]) -> Value:
    result = simd.constant(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b as the rounded sum and exactly what rounding lost (Knuth). Infinite sums lose 0, not NaN."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return total, select(lost == lost, lost, 0.0)


def exp_pair(
    d: Value, e: Value | None = None, coefficients: tuple[float, ...] = EXP_FULL, bias: int = 0, to_zero: bool = True
) -> tuple[Value, Value]:
    """exp(d + e)·2^bias for d ≤ 0 and a correction e below one ulp of d, as (scale, t): scale·(1 + t), scale = 2^n.

    float64. With EXP_FULL scale·(1 + t) is within 0.6 ulp when t is used unrounded, 1.1 ulp when the product is
    rounded once; with EXP_HALF its relative error is 1.0e-13, with EXP_FLOAT32 its relative error is 2.2e-10. Below
    −708 (−750 with a bias of 64, which keeps subnormal results exact until the last multiplication) scale is 0; with
    `to_zero` off, one instruction cheaper, it stays that of −708, which every float32 rounds to 0. NaN gives t = NaN.
    """
    lowest = -750.0 if bias else -708.0
    if not to_zero:
        d = simd.larger(simd.constant(lowest, d.type), d)
    rounder = ROUNDER + 1023 + bias  # the exponent's offset rides along in the low bits
    z = fma(d, LOG2E, rounder)
    n = z - rounder
    if coefficients is not EXP_FULL:
        r = fma(n, -LN2, d)
    else:
        r = fma(n, -LN2_HIGH, d)
        r = fma(n, -LN2_LOW, r) if e is None else r + fma(n, -LN2_LOW, e)
    t = fma(r * r, horner(r, coefficients), r)
    scale = simd.bits(simd.bits(z) << 52)
    if not to_zero:
        return scale, t
    nothing = d < lowest
    return select(nothing, 0.0, scale), select(nothing, 0.0, t)


def exp(d: Value) -> Value:
    """exp(d) for d ≤ 0, float64, 1.1 ulp; 0 below −708; NaN stays NaN."""
    scale, t = exp_pair(d)
    return fma(scale, t, scale)


def expm1(d: Value) -> tuple[Value, Value]:
    """exp(d) − 1 and exp(d) for d ≤ 0, float64, 1.5 ulp and 1.1 ulp; NaN stays NaN."""
    scale, t = exp_pair(d)
    return fma(scale, t, scale - 1.0), fma(scale, t, scale)


def _split(u: Value) -> tuple[Value, Value]:
    """u = 2^k·f for u > 0, f in [sqrt(1/2), sqrt(2)): k as a whole float64, f."""
    shifted = simd.bits(u) + ((0x3FF00000 - 0x3FE6A09E) << 32)
    f = simd.bits((shifted & 0x000FFFFFFFFFFFFF) + (0x3FE6A09E << 32))
    # the exponent's bits behind those of 2^52; converting 64-bit integers takes AVX2 many instructions
    k = simd.bits(((shifted & (0x7FF << 52)) >> 52) + (0x433 << 52)) - (2.0**52 + 1023.0)
    return k, f


def _log(k: Value, g: Value, missing: Value) -> Value:
    """k·ln2 + log(1 + g) + missing for 1 + g in [sqrt(1/2), sqrt(2))."""
    half = g * g * 0.5
    z = g / (g + 2.0)
    w = z * z
    tail = fma(z, fma(w, horner(w, LOG_FULL), half), missing)
    return fma(k, LN2_HIGH, g - (half - fma(k, LN2_LOW, tail)))


def log(u: Value, lost: Value) -> Value:
    """log(u + lost) for a normal u > 0 and a correction `lost` below one ulp of u; float64, 0.9 ulp."""
    k, f = _split(u)
    return _log(k, f - 1.0, lost / u)


def log1p(s: Value, lost: Value | None = None, inverse: Value | None = None) -> Value:
    """log(1 + s + lost) for s ≥ 0 and a correction `lost` below one ulp of s; float64, 0.9 ulp; NaN stays NaN.

    Who has 1/(1 + s) already spares a division.
    """
    u = s + 1.0
    part = u - s
    error = (s - (u - part)) + (1.0 - part)
    if lost is not None:
        error = error + lost
    k, f = _split(u)
    small = k == 0.0
    # what u misses of 1 + s + lost, relative to u; g is s itself while k is 0, and then misses only `lost`
    missing = select(small, 0.0 if lost is None else lost, error)
    missing = missing / u if inverse is None else missing * inverse
    result = _log(k, select(small, s, f - 1.0), missing)
    return select(s < float("inf"), result, s + s)


def log1p_single(s: Value) -> Value:
    """log(1 + s) for finite s ≥ 0 in float64 arithmetic, relative error 4.4e-12, enough for a float32; or NaN."""
    k, f = _split(s + 1.0)
    g = select(k == 0.0, s, f - 1.0)
    z = g / (g + 2.0)
    return select(s == s, fma(k, LN2, z * horner(z * z, LOG_SINGLE)), s)


def log1p_float32(e: Value) -> Value:
    """log(1 + e) for 0 ≤ e ≤ 1 in float64 arithmetic, relative error 1.4e-10: enough for a float32 result."""
    return e * horner(e, LOG1P_FLOAT32)


RECIPROCAL = (2.82842287694974, -2.9393414211438476, 1.3310225303292895, -0.2218370883882149)  # 1/d, 1 ≤ d ≤ 2, 1.5e-3


def reciprocal(d: Value, steps: int = 3) -> Value:
    """1/d for 1 ≤ d ≤ 2, float64, 2 ulp: a cubic and three Newton steps, a third of a division's time; two, 5.1e-12."""
    y = horner(d, RECIPROCAL)
    for _ in range(steps):
        y = fma(y, fma(-d, y, 1.0), y)
    return y


def tanh(y: Value) -> tuple[Value, Value]:
    """tanh(y) and its derivative 1/cosh²(y), float64, 4 ulp and 6 ulp; NaN stays NaN."""
    below, e = expm1(simd.absolute(y) * -2.0)
    inverse = 1.0 / (below + 2.0)
    return simd.copysign(-below * inverse, y), e * 4.0 * inverse * inverse


def exp_table(entries: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return 2^(j/entries) in float32 and, relative to it, what rounding lost, as bits, for j below `entries`.

    Of the powers, the bits are those of the fraction, less j·2^23/entries: see `exp_reduced_float32`.
    """
    high, low = [], []
    for j in range(entries):
        number = 2.0 ** (j / entries)
        rounded = simd.float32(number)
        high.append(simd.float32_bits(rounded) - simd.float32_bits(1.0) - j * (2**23 // entries))
        low.append(simd.float32_bits(number / rounded - 1.0))
    return tuple(high), tuple(low)


def exp_reduced_float32(x: Value, rounder: Value | float, entries: int) -> tuple[Value, Value, Value | None]:
    """Return exp(x)·2^b as scale·(1 + t + lost), with rounder = ROUNDER_FLOAT32 + entries·(127 + b); float32.

    With x = (i + j/entries) ln2 + r, scale is 2^(i + b + j/entries) rounded, from a table of so many entries, and
    t + lost is e^r − 1 with what rounding scale lost: together within 3e-9 with 32 entries, within 8e-9 with 8 (`lost`
    is then None), and within 1.1e-8 with 1 entry, which is no table. Exact reduction needs |x| ≤ FAR.
    """
    z = fma(x, entries * LOG2E, rounder)
    n = z - rounder
    high = fma(n, -LN2_FLOAT32 / entries, x)  # exact: ln2 rounded to float32, and x near n·ln2/entries
    r = fma(n, -LN2_MISSING / entries, high)
    square, rest, word = r * r, horner(r, EXP_REDUCED[entries]), simd.bits(z)
    t = fma(square, rest, r)
    if entries == 1:
        lost = fma(square, rest, r - t) + fma(n, -LN2_MISSING, high - r)
        return simd.bits(word << 23), t, lost
    numbers, missing = exp_table(entries)
    # the bits of n: those of j, which the table makes up for, and above them those of i, which become the exponent
    scale = simd.bits(simd.look_up(numbers, word) + (word << (24 - entries.bit_length())))
    return scale, t + simd.bits(simd.look_up(missing, word)), None


def exp_pair_float32(scale: Value, t: Value, lost: Value | None) -> tuple[Value, Value]:
    """Return scale·(1 + t + lost), float32, and what its rounding lost."""
    e = fma(scale, t, scale)
    low = fma(scale, t, scale - e)
    return e, low if lost is None else fma(scale, lost, low)


def exp_float32(d: Value, entries: int) -> tuple[Value, Value]:
    """exp(d) for d ≤ 0, float32, and what its rounding lost: within 1.5e-8 of it together; NaN stays NaN.

    The scale is 2^64 too large until the end, so that a subnormal result is rounded from a whole one, to 0.76 ulp.
    """
    d = simd.larger(simd.constant(-104.5, d.type), d)  # exp of less is 0
    parts = exp_reduced_float32(d, ROUNDER_FLOAT32 + entries * (127.0 + 64.0), entries)
    e, low = exp_pair_float32(*parts)
    return e * 2.0**-64, low * 2.0**-64


def log1p_pair_float32(e: Value, low: Value) -> tuple[Value, Value]:
    """log(1 + e + low) for 0 ≤ e ≤ 1, float32, and a correction: within 3.6e-8 of it together.

    With `exp_float32` the sum of both is within 0.98 ulp of softplus, over all float32 (tried one by one).
    """
    large = e >= 0.5  # then 1 + e = 2 (1 + f)
    f = select(large, fma(e, 0.5, -0.5), e)
    base = select(large, LN2_FLOAT32, simd.constant(0.0, e.type))
    high = base + f
    tail = fma(f * f, horner(f, LOG1P_NEAR), f - (high - base))
    tail = fma(base, LN2_MISSING / LN2, tail)  # what ln2 in float32 misses
    slope = fma(f, fma(f, 0.7, -1.0), 1.0)  # 1/(1 + f), well enough for a correction
    return high, fma(select(large, low * 0.5, low), slope, tail)


def inverse_float32(e: Value, low: Value) -> Value:
    """1/(1 + e + low) for 0 ≤ e ≤ 1, float32, 0.6 ulp."""
    d = e + 1.0
    y = horner(d, RECIPROCAL)
    y = fma(y, fma(-d, y, 1.0), y)
    missing = (e - (d - 1.0)) + low
    return fma(y, fma(-missing, y, fma(-d, y, 1.0)), y)
