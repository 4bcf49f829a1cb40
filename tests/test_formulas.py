"""The formulas over NumPy's namespace table: pairs, rows, and derivatives; results are measured in test_accuracy."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

import oracle
from kernels.engines import Functions
from oracle import exact
from withlogits import formulas
from withlogits import reference as engine
from withlogits.frameworks import numpy_namespace as xp

reference = Functions(engine)
finite = st.floats(-1e150, 1e150)
factors = st.floats(1e-100, 1e100) | st.floats(-1e100, -1e-100)
NAN, INF = float("nan"), float("inf")


@settings(deadline=None)
@given(a=finite, b=finite)
def test_a_pair_is_the_exact_sum(a: float, b: float) -> None:
    high, low = formulas.add(xp, np.array([a]), np.array([b]))
    assert exact(high[0]) + exact(low[0]) == mpf(a) + mpf(b)
    assert high[0] == a + b


@settings(deadline=None)
@given(a=factors, b=factors)
def test_a_pair_is_the_exact_product(a: float, b: float) -> None:
    high, low = formulas.multiply(xp, np.array([a]), np.array([b]))
    assert exact(high[0]) + exact(low[0]) == mpf(a) * mpf(b)
    assert high[0] == a * b


@settings(deadline=None)
@given(a=factors, b=factors)
def test_a_pair_is_nearly_the_exact_quotient(a: float, b: float) -> None:
    high, low = formulas.divide(xp, np.array([a]), 0.0, np.array(b))
    # the remainder is exact; its quotient is rounded once, at 2⁻⁵³ of 2⁻⁵³
    assert abs(exact(high[0]) + exact(low[0]) - mpf(a) / mpf(b)) <= mpf(2) ** -105 * abs(mpf(a) / mpf(b))
    assert high[0] == a / b


@pytest.mark.parametrize(("a", "b"), [(np.inf, 1.0), (-np.inf, 1.0), (np.inf, -np.inf), (np.nan, 1.0), (1e308, 1e308)])
def test_next_to_infinities_nothing_is_lost(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        for pair, expected in (
            (formulas.add(xp, np.array([a]), np.array([b])), np.array([a]) + b),
            (formulas.multiply(xp, np.array([a]), np.array([b])), np.array([a]) * b),
            (formulas.divide(xp, np.array([a]), 0.0, np.array([b])), np.array([a]) / b),
        ):
            np.testing.assert_array_equal(pair[0], expected)
            assert pair[1] == 0.0


@settings(deadline=None, max_examples=50)
@given(terms=st.lists(finite, min_size=0, max_size=40))
def test_a_total_is_right_far_below_its_last_bit(terms: list[float]) -> None:
    high, low = formulas.total(xp, np.array([terms, terms[::-1]]).reshape(2, -1))
    # what the grid of 2 n max |x| leaves of each term is at most 2⁻⁵² n max |x|; adding n of these up loses at most
    # n 2⁻⁵³ of their sum
    n, largest = len(terms), max(map(abs, terms), default=0.0)
    tolerance = n**3 * mpf(2) ** -105 * mpf(largest) + mpf(2) ** -104 * abs(mpf(math.fsum(terms)))
    for i in range(2):
        assert abs(exact(high[i, 0]) + exact(low[i, 0]) - mp.fsum(map(mpf, terms))) <= tolerance


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([], 0.0),
        ([INF, 1.0], INF),
        ([INF, -INF], NAN),
        ([NAN, 1.0], NAN),
        ([1e308] * 3, INF),
        ([1e308, 1e307], 1.1e308),
    ],
)
def test_totals_at_the_end_of_the_range(terms: list[float], expected: float) -> None:
    with np.errstate(all="ignore"):
        high, low = formulas.total(xp, np.array([terms]).reshape(1, -1))
    np.testing.assert_array_equal(high, [[expected]])
    assert low == 0.0 or expected == 1.1e308


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_the_numbers_of_a_row(kind: str, dtype: str) -> None:
    for classes in (1, 2, 3, 30):
        x = oracle.row(kind, classes, dtype, np.random.default_rng(classes)).astype(np.float64)
        truth = oracle.softmax(x)
        with np.errstate(all="ignore"):
            row = formulas.row_of(xp, x)
        assert row.m[0] == float(truth.m)
        assert oracle.ulp_error(row.r[0], truth.r, np.float64) <= 1.5
        for j in range(classes):
            if truth.p[j] > 1e-300:
                assert oracle.ulp_error(row.p[j], truth.p[j], np.float64) <= 3
            if truth.p[j] > 0.5:
                assert oracle.ulp_error(row.rest[0], -mp.expm1(-truth.r), np.float64) <= 3


def test_zero_times_infinity_is_zero() -> None:
    with np.errstate(all="ignore"):
        product = formulas.times(xp, [0.0, 0.0, 1.0, 0.0, 2.0], np.array([np.inf, -np.inf, np.inf, np.nan, 3.0]))
    np.testing.assert_array_equal(product, [0.0, 0.0, np.inf, np.nan, 6.0])


@pytest.mark.parametrize("x", [0.0, 1e-20, 0.3, -1.0, 5.0, -20.0, 300.0])
def test_sech_squared(x: float) -> None:
    got = formulas.sech_squared(xp, np.array(x))
    assert oracle.ulp_error(got, mp.sech(mpf(x)) ** 2, np.float64) <= 4


def test_half_precision_passes_through_float32() -> None:
    # above the middle of two float16 by less than a float32 sees: in float32 it is a tie, which goes to the even one
    x = np.array([1.0 + 2.0**-11 + 2.0**-40])
    assert formulas.rounded(xp, x, np.dtype(np.float16))[0] == 1.0
    assert formulas.rounded(xp, x, np.dtype(np.float32))[0] == np.float32(1.0 + 2.0**-11)
    assert formulas.rounded(xp, x, np.dtype(np.float64))[0] == x[0]


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


# ------------------------------------------------------------------------------------------------ options in float64


@pytest.mark.parametrize("temperature", [0.1, 0.3, 0.7, 3.0, 1e-3])
def test_a_temperature_costs_no_digit(temperature: float) -> None:
    """x/τ is a pair, so the bounds are those without a temperature: 2 ulp for the loss, 4 for the gradient."""
    rng = np.random.default_rng(0)
    rows = [np.array([40.0, 0.0, 0.0]), np.array([4.0, 0.0, 0.0]), *(rng.normal(0, 10, (40, 5)) * temperature)]
    for x in rows:
        for label in {0, int(np.argmax(x))}:
            truth = oracle.softmax(x, label=label, temperature=temperature)
            loss, (gradient,) = reference.softmax_loss(
                x[None], np.array([label]), axis=1, sparse=True, temperature=temperature, wrt=("logits",)
            )
            assert oracle.ulp_error(loss[0], truth.loss, np.float64) <= 2, x
            for j in range(len(x)):
                if j == label or truth.p[j] >= 1e-6:
                    assert oracle.ulp_error(gradient[0, j], truth.gradient[j], np.float64, truth.scale[j]) <= 4, x


def test_a_softcap_costs_the_error_of_one_tanh() -> None:
    """The logits are off by the error of one tanh, at most 2 ulp: 4 units of 2⁻⁵³ of themselves; all else holds."""
    rng = np.random.default_rng(0)
    for x in (np.array([40.0, 0.0, 0.0]), *rng.normal(0, 30, (40, 5))):
        for options in ({"softcap": 50.0}, {"softcap": 30.0, "temperature": 0.3}):
            truth = oracle.softmax(x, label=0, **options)
            loss, _ = reference.softmax_loss(x[None], np.array([0]), axis=1, sparse=True, **options)
            allowed = 4 * mpf(2) ** -53 * truth.sensitivity
            assert oracle.ulp_error(loss[0], truth.loss, np.float64, granted=allowed) <= 2, x


def test_nearly_equal_logits_keep_their_order_after_a_division() -> None:
    """x/τ rounds two neighbours to one number; only the first is the maximum."""
    x = np.array([[3.0, np.nextafter(3.0, 0.0), 1.0]])
    tau = next(t for t in np.linspace(1.1, 1.9, 99) if x[0, 0] / t == x[0, 1] / t)
    quotient = formulas.divide(xp, x, 0.0, np.array(tau))
    row = formulas.row_of(xp, *quotient)
    truth = oracle.softmax(x[0], temperature=tau)
    assert oracle.ulp_error(row.r[0, 0], truth.r, np.float64) <= 1.5
    assert row.p[0, 1] <= row.p[0, 0]


# ------------------------------------------------------------------------------------------------ second derivatives


def difference(f: Any, at: list[Any], direction: list[Any]) -> list[mpf]:
    """The derivative of a list of numbers along a direction, by differences in 350 bits."""
    step = mpf(10) ** -35
    up, down = (f([a + s * d for a, d in zip(at, direction, strict=True)]) for s in (step, -step))
    return [(p - q) / (2 * step) for p, q in zip(up, down, strict=True)]


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"softcap": 3.0, "z_loss": 0.1, "label_smoothing": 0.1}])
def test_the_hessian_product(options: dict[str, Any], scale: float) -> None:
    """Against differences of the textbook's gradients: Σ of a row's four or five terms, each good to a few ulp."""
    rng = np.random.default_rng(0)
    eps, lam = mpf(options.get("label_smoothing", 0.0)), mpf(options.get("z_loss", 0.0))
    tau, cap = mpf(options.get("temperature", 1.0)), options.get("softcap")
    classes, w = 4, [0.5, 1.0, 2.0, 0.0]

    def gradients(numbers: list[mpf]) -> list[mpf]:
        x, z = numbers[:classes], numbers[classes:]
        slope = [1 / tau if cap is None else mp.sech(a / cap) ** 2 / tau for a in x]
        y = [(a if cap is None else cap * mp.tanh(a / cap)) / tau for a in x]
        lse = mp.log(mp.fsum(map(mp.exp, y)))
        p, t = (
            [mp.exp(a - lse) for a in y],
            [mpf(c) * ((1 - eps) * b + eps / classes) for c, b in zip(w, z, strict=True)],
        )
        dx = [((mp.fsum(t) + 2 * lam * lse) * p[j] - t[j]) * slope[j] for j in range(classes)]
        return dx + [mpf(w[j]) * (1 - eps) * (lse - y[j]) for j in range(classes)]

    plain = {"axis": 1, "sparse": False, "label_smoothing": 0.0, "temperature": 1.0, "softcap": None, "z_loss": 0.0}
    for _ in range(5):
        x, z, v, h = rng.normal(0, scale, classes), rng.dirichlet(np.ones(classes)), *rng.normal(0, 1, (2, classes))
        loss = formulas.Softmax(
            xp, formulas.SoftmaxArrays(x[None], z[None], np.array(w)), SimpleNamespace(**plain | options)
        )
        got = np.concatenate(loss.hessian_product(np.ones(1), v[None], h[None]), axis=1)[0]
        truth = difference(gradients, list(map(exact, [*x, *z])), list(map(exact, [*v, *h])))
        # each entry is good to 16 ulp of the largest thing added up: |v| + |h|, times T and the slopes, is below 16
        for a, b in zip(got, truth, strict=True):
            assert abs(exact(a) - b) <= 16 * 16 * mpf(2) ** -53, (x, z)


# --------------------------------------------------------------------------------------------------------- the oracle


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
