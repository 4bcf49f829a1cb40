"""The reference engine's own parts; what it computes is measured with the other engine's results in test_accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

import oracle
from withlogits import reference

finite = st.floats(-1e150, 1e150)


@settings(deadline=None)
@given(a=finite, b=finite)
def test_a_pair_is_the_exact_sum(a: float, b: float) -> None:
    high, low = reference.add(np.array([a]), np.array([b]))
    assert mpf(float(high[0])) + mpf(float(low[0])) == mpf(a) + mpf(b)
    assert high[0] == a + b


@pytest.mark.parametrize(("a", "b"), [(np.inf, 1.0), (-np.inf, 1.0), (np.inf, -np.inf), (np.nan, 1.0), (1e308, 1e308)])
def test_what_is_not_finite_leaves_nothing_over(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        high, low = reference.add(np.array([a]), np.array([b]))
        np.testing.assert_array_equal(high, np.array([a]) + b)
    assert low[0] == 0.0


@settings(deadline=None, max_examples=50)
@given(terms=st.lists(finite, min_size=0, max_size=40))
def test_a_sum_is_right_to_the_last_bit(terms: list[float]) -> None:
    high, low = reference.add_up(np.array([terms, terms[::-1]]).reshape(2, -1))
    # the pair holds twice the digits of a float64: enough unless they cancel to nothing
    tolerance = 1e-30 * math.fsum(map(abs, terms))
    for i in range(2):
        assert abs(mpf(float(high[i])) + mpf(float(low[i])) - mp.fsum(map(mpf, terms))) <= tolerance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_the_pair_of_a_row(kind: str, dtype: str) -> None:
    for classes in (1, 2, 3, 30):
        x = oracle.row(kind, classes, dtype, np.random.default_rng(classes)).astype(np.float64)
        truth = oracle.softmax(x)
        with np.errstate(all="ignore"):
            row = reference.row_of(x)
        assert row.m[0] == float(truth.m)
        assert oracle.ulp_error(row.r[0], truth.r, np.float64) <= 1.5
        assert row.k[0] == (x == x.max()).sum()
        for j in range(classes):
            if truth.p[j] > 1e-300:
                p = row.e[j] / (row.k[0] + row.s[0])
                assert oracle.ulp_error(p, truth.p[j], np.float64) <= 3


def test_zero_times_infinity_is_zero() -> None:
    with np.errstate(all="ignore"):
        product = reference.times(np.array([0.0, 0.0, 1.0, 0.0, 2.0]), np.array([np.inf, -np.inf, np.inf, np.nan, 3.0]))
    np.testing.assert_array_equal(product, [0.0, 0.0, np.inf, np.nan, 6.0])


@pytest.mark.parametrize("x", [0.0, 1e-20, 0.3, -1.0, 5.0, -20.0, 300.0])
def test_square_of_sech(x: float) -> None:
    got = reference.square_of_sech(np.array(x))
    assert oracle.ulp_error(got, mp.sech(mpf(x)) ** 2, np.float64) <= 4


def test_half_precision_passes_through_float32() -> None:
    # above the middle of two float16 by less than a float32 sees: in float32 it is a tie, which goes to the even one
    x = np.array([1.0 + 2.0**-11 + 2.0**-40])
    assert reference.to_dtype(x, np.dtype(np.float16))[0] == 1.0
    assert reference.to_dtype(x, np.dtype(np.float32))[0] == np.float32(1.0 + 2.0**-11)
    assert reference.to_dtype(x, np.dtype(np.float64))[0] == x[0]


def test_the_row_does_not_depend_on_what_stands_beside_it() -> None:
    x = np.random.default_rng(0).normal(0, 3, (9, 77))
    together = reference.softmax_map(x, axis=1, kind="logsumexp")
    for i in range(9):
        assert reference.softmax_map(x[i], axis=0, kind="logsumexp") == together[i]


def test_no_warning_is_left_behind() -> None:
    """Overflow, invalid operations and divisions by 0 are part of the formulas here."""
    with np.errstate(all="raise"):
        x = np.array([[1e38, -1e38, np.inf], [np.nan, 0.0, 1.0], [-np.inf, 1e-45, 745.0]], np.float32)
        reference.softmax_loss(x, np.array([0, 1, 2]), axis=1, sparse=True, reduction="mean", wrt=("logits",))
        reference.sigmoid_loss(x, np.zeros_like(x), wrt=("logits", "labels"))
        reference.softmax_map(x, axis=1, kind="softmax")
        reference.elementwise(x, kind="logit")
        reference.elementwise(np.array(0.0), kind="logit")


def test_the_oracle_knows_an_ulp() -> None:
    """What measures must be measured."""
    assert oracle.ulp(mpf(1), np.float32) == mpf(2) ** -23
    assert oracle.ulp(mpf("1e-45"), np.float32) == mpf(2) ** -149
    assert oracle.ulp(mpf(0), np.float64) == mpf(2) ** -1074
    assert oracle.ulp(mpf(3), oracle.BFLOAT16) == mpf(2) ** -6
    assert oracle.ulp(mpf(3), np.float16) == mpf(2) ** -9
    for x in (1.0, 0.1, 3e38, 1e-40):
        assert oracle.ulp(mpf(float(np.float32(x))), np.float32) == mpf(float(np.spacing(np.float32(x))))
    assert oracle.ulp_error(np.float32(1 + 2**-23), mpf(1), np.float32) == 1
    assert oracle.ulp_error(np.inf, mpf(10) ** 39, np.float32) == 0
    assert oracle.ulp_error(np.inf, mpf(10) ** 38, np.float32) == np.inf
    assert oracle.ulp_error(3e38, mp.inf, np.float32) == np.inf
    assert oracle.ulp_error(-np.inf, mp.inf, np.float32) == np.inf
    assert oracle.ulp_error(np.nan, mp.nan, np.float32) == 0
    assert oracle.ulp_error(np.nan, mpf(1), np.float32) == oracle.ulp_error(1.0, mp.nan, np.float32) == np.inf


def test_the_oracle_agrees_with_the_textbook() -> None:
    """Probabilities, logarithms and nothing clever: −Σ t log p and its derivatives, by differences in 350 bits."""
    x, z = [0.3, -1.2, 2.0], [0.5, 0.25, 0.5]
    options = {
        "class_weight": [1.0, 2.0, 0.5],
        "label_smoothing": 0.1,
        "temperature": 0.7,
        "softcap": 3.0,
        "z_loss": 0.2,
    }

    def loss(x: list[mpf], z: list[mpf]) -> mpf:
        bent = [3 * mp.tanh(a / 3) / mpf(0.7) for a in x]
        total = mp.fsum(mp.exp(a) for a in bent)
        eps, weight = mpf(0.1), options["class_weight"]
        target = [mpf(w) * ((1 - eps) * b + eps / 3) for w, b in zip(weight, z, strict=True)]
        cross = -mp.fsum(t * mp.log(mp.exp(a) / total) for t, a in zip(target, bent, strict=True))
        return cross + mpf(0.2) * mp.log(total) ** 2

    truth = oracle.softmax(x, labels=z, **options)
    x, z = [mpf(a) for a in x], [mpf(b) for b in z]
    assert abs(truth.loss - loss(x, z)) < mpf(10) ** -90
    step = mpf(10) ** -30
    for j in range(3):
        moved = [a + step * (i == j) for i, a in enumerate(x)], [a - step * (i == j) for i, a in enumerate(x)]
        assert abs(truth.gradient[j] - (loss(moved[0], z) - loss(moved[1], z)) / (2 * step)) < mpf(10) ** -50
        moved = [b + step * (i == j) for i, b in enumerate(z)], [b - step * (i == j) for i, b in enumerate(z)]
        assert abs(truth.label_gradient[j] - (loss(x, moved[0]) - loss(x, moved[1])) / (2 * step)) < mpf(10) ** -50
