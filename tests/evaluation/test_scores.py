"""AUROC and average precision of scores in any range, against scikit-learn's; merging, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from withlogits import evaluate
from withlogits.evaluation import score_bins, scores
from withlogits.evaluation.scores import ScoreFigures, Scores

N = 20_000
RNG = np.random.default_rng(0)
YES = RNG.random((N, 2)) < [0.5, 0.1]
PLAIN = RNG.normal(size=(N, 2)) + 1.8 * YES
RANGES: dict[str, Any] = {
    "as they are": PLAIN,
    "float32": PLAIN.astype(np.float32),
    "from 1100 to 1110": 1105.0 + PLAIN.clip(-5, 5),
    "far from 0": PLAIN + 1e4,
    "far from 0, on the grid of float32": (PLAIN + 1e4).astype(np.float32),
    "farther": PLAIN - 1e9,
    "small": PLAIN * 1e-3,
    "tiny": PLAIN * 1e-31,
    "huge": PLAIN * 1e300,
    "rounded": PLAIN.astype(np.float16),
    "padded": np.where(RNG.random(PLAIN.shape) < 0.1, -1e9, PLAIN),
    "infinite": np.where(RNG.random(PLAIN.shape) < 0.01, np.inf, PLAIN),
    "of few values": np.round(PLAIN),
    "equal": np.zeros(PLAIN.shape),
    "with outliers": PLAIN * np.where(RNG.random(PLAIN.shape) < 1e-4, 1e6, 1.0),
}
# The error of bins that are h wide is h² / 12 times the mean slope of the logarithm of the answers' odds (AUROC): with
# more than 2^11 bins from end to end, h is below 2^-7 standard deviations.
CLOSE = 2.0**-14 / 12


@pytest.fixture
def binned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "EXACT", 100)


def figures(*parts: tuple[Any, ...]) -> ScoreFigures:
    total = Scores(2)
    for part in parts:
        total.add(*part)
    with np.errstate(over="ignore"):
        return total.figures()


def truth(x: Any, yes: Any, weight: Any = None) -> tuple[Any, Any]:
    x = np.clip(x.astype(np.float64), -1e308, 1e308)  # scikit-learn takes no infinities
    both = []
    for figure in (metrics.roc_auc_score, metrics.average_precision_score):
        weights = [None, None] if weight is None else weight.T
        both.append([figure(yes[:, c], x[:, c], sample_weight=weights[c]) for c in range(2)])
    return np.array(both[0]), np.array(both[1])


@pytest.mark.parametrize("name", RANGES)
def test_scores_that_are_kept(name: str) -> None:
    found = figures((RANGES[name], YES))
    for mine, true in zip((found.auroc, found.average_precision), truth(RANGES[name], YES), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-12)
    assert not found.auroc_error.any()
    assert not found.average_precision_error.any()


@pytest.mark.usefixtures("binned")
@pytest.mark.parametrize("name", RANGES)
def test_scores_in_bins(name: str) -> None:
    found, (auroc, average) = figures((RANGES[name], YES)), truth(RANGES[name], YES)
    rounding = 1e-12
    assert (np.abs(found.auroc - auroc) <= np.minimum(CLOSE, found.auroc_error) + rounding).all()
    assert (np.abs(found.average_precision - average) <= found.average_precision_error + rounding).all()
    assert (np.abs(found.average_precision - average) <= 1e-4).all()


@pytest.mark.usefixtures("binned")
def test_bins_that_hold_one_score_each_say_what_the_scores_say() -> None:
    found, exact = figures((np.round(PLAIN, 2), YES)), truth(np.round(PLAIN, 2), YES)
    assert (found.auroc_error > 0).all()  # they are in bins
    np.testing.assert_allclose(found.auroc, exact[0], rtol=1e-12)
    np.testing.assert_allclose(found.average_precision, exact[1], rtol=1e-12)


@pytest.mark.usefixtures("binned")
@pytest.mark.parametrize("scale", [1.0, 1e-310])
def test_heavy_tails_and_denormal_scores_stay_within_the_stated_error(scale: float) -> None:
    x = (RNG.standard_cauchy((N, 2)) + YES) * scale
    found, (auroc, average) = figures((x, YES)), truth(x, YES)
    assert (np.abs(found.auroc - auroc) <= found.auroc_error).all()
    assert (np.abs(found.average_precision - average) <= found.average_precision_error).all()
    assert (found.auroc_error < (0.01 if scale == 1.0 else 0.51)).all()


@pytest.mark.usefixtures("binned")
def test_missing_elements_and_weights() -> None:
    weight = RNG.integers(0, 4, PLAIN.shape) / 2
    for x in (PLAIN, np.where(weight > 0, PLAIN, np.nan)):
        for given_weight in (weight, weight > 0):
            found, (auroc, average) = figures((x, YES, given_weight)), truth(PLAIN, YES, given_weight.astype(float))
            np.testing.assert_allclose(found.auroc, auroc, atol=CLOSE)
            np.testing.assert_allclose(found.average_precision, average, atol=1e-4)
    both = figures((PLAIN[:999], YES[:999]), (PLAIN[999:], YES[999:], weight[999:]))
    ones = np.concatenate((np.ones((999, 2)), weight[999:]))
    np.testing.assert_allclose(both.auroc, truth(PLAIN, YES, ones)[0], atol=CLOSE)


@pytest.mark.parametrize("name", RANGES)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_split_in_any_order_has_the_same_bits(name: str, data: Any) -> None:
    x = RANGES[name]
    cuts = sorted(data.draw(st.lists(st.integers(1, N - 1), max_size=4, unique=True)))
    parts = []
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(scores, "EXACT", 5000)  # some parts keep their scores
        for begin, end in zip((0, *cuts), (*cuts, N), strict=True):
            part = Scores(2)
            middle = (begin + end) // 2  # in two blocks
            for block in (slice(begin, middle), slice(middle, end)):
                part.add(x[block], YES[block])
            parts.append(part)
        order = data.draw(st.permutations(range(len(parts))))
        total = Scores(2)
        for i in order:
            total.merge(parts[i])
        np.testing.assert_equal(total.figures(), figures((x, YES)))


@pytest.mark.usefixtures("binned")
def test_counters_widen_before_they_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = figures((PLAIN, YES))
    monkeypatch.setattr(score_bins, "NARROW", 500)
    wide = Scores(2)
    wide.add(PLAIN, YES)
    assert wide.bins is not None
    assert wide.bins.counts.dtype == np.int64
    np.testing.assert_equal(wide.figures(), narrow)


@pytest.mark.usefixtures("binned")
def test_many_classes() -> None:
    x = RNG.normal(size=(2000, 300))
    yes = RNG.random(x.shape) < 0.3
    total = Scores(300)
    total.add(x, yes)
    found = total.figures()
    exact = [metrics.roc_auc_score(yes[:, c], x[:, c]) for c in range(300)]
    np.testing.assert_array_less(np.abs(found.auroc - exact), found.auroc_error + 1e-12)
    # A pair in one bin is right or wrong by chance, by 1/2: of all pairs of 300 classes, a share of about 2^-11 are in
    # one bin, and their sum has a standard deviation of half the root of their number.
    pairs = 300 * 2000**2 * 0.3 * 0.7
    spread = 0.5 * np.sqrt(pairs * 2.0**-11) / pairs
    assert np.mean(found.auroc) == pytest.approx(np.mean(exact), abs=6 * spread)


def test_without_a_no_or_a_yes() -> None:
    for exact in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scores, "EXACT", 1 << 20 if exact else 10)
            found = figures((PLAIN[:500], np.ones((500, 2), bool)))
            assert all(np.isnan(values).all() for values in figures((PLAIN[:500], np.zeros((500, 2), bool))))
        assert np.isnan([found.auroc, found.auroc_error]).all()
        assert [*found.average_precision, *found.best_f1] == [1.0] * 4
        assert found.average_precision_error.tolist() == [0.0, 0.0]
    assert all(np.isnan(values).all() for values in figures())


def test_a_class_without_a_no() -> None:
    e = evaluate(np.ones((4, 2)), np.arange(8.0).reshape(4, 2), loss="sigmoid")
    assert np.isnan(e.per_class.auroc).all()
    assert e.per_class.best_f1.tolist() == e.per_class.average_precision.tolist() == [1.0, 1.0]
    assert e.per_class.best_logit.tolist() == [0.0, 1.0]
