"""What is counted of rows, against each count's definition, row by row with fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits.statistics import rows
from withlogits.statistics.bins import BINS

CLOSE = 2.0**-8
LABELS = np.array(
    [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0.25, 0.25, 0.5, 0],
        [0.25, 0.25, 0.5, CLOSE],
        [0.25, 0.25, 0.5, 2 * CLOSE],
        [2, 0, 0, -1],
        [1, 0.5, 0, 0],
        [np.inf, 0, 0, 0],
    ]
)
LOGITS = np.random.default_rng(0).normal(0.0, 16.0, LABELS.shape).astype(np.float32)


def exact(row: Any) -> list[Fraction]:
    return [Fraction(float(value)) for value in row]


def test_counts_of_labels() -> None:
    finite = [exact(row) for row in LABELS if np.isfinite(row).all()]
    binary = [row for row in finite if set(row) <= {0, 1}]
    unit = [row for row in finite if all(0 <= value <= 1 for value in row)]
    expected = {
        "label_low": -1.0,
        "label_top": np.inf,
        "label_lowest_sum": float(min(map(sum, finite))),
        "label_highest_sum": np.inf,
        "label_total": np.inf,
        "label_positive": float(sum(map(sum, unit))),
        "label_binary": len(binary),
        "label_distributions": sum(min(row) >= 0 and abs(sum(row) - 1) <= Fraction(CLOSE) for row in finite),
        "label_negative": sum(min(row) < 0 for row in finite),
        "label_odd": len(LABELS) - len(finite),
        "label_hot": sum(max(row) == 1 for row in finite),
        "label_none": sum(sum(row) == 0 for row in binary),
        "label_one": sum(sum(row) == 1 for row in binary),
        "label_two": sum(sum(row) == 2 for row in binary),
    }
    assert rows.label_counts(LABELS, 1, CLOSE) == expected
    found = rows.row_statistics(LOGITS, 1, LABELS, close=CLOSE, label_close=CLOSE)
    assert {name: found[name] for name in expected} == expected


def test_counts_of_logits() -> None:
    x = LOGITS.copy()
    x[3] = [0.5, 0.25, 0.25, 0.0]
    x[7, 0] = np.nan
    x[8] = 0.0
    wide = np.delete(x.astype(np.float64), 7, 0)
    found = rows.row_statistics(x, 1, LABELS, close=CLOSE, label_close=CLOSE)
    assert (found["low"], found["top"]) == (np.nanmin(x), np.nanmax(x))
    assert found["odd_rows"] == 1
    assert found["sums_to_one"] == 1
    assert found["saturated"] == (np.nanmax(np.abs(x), axis=1) > rows.CERTAIN).sum()
    spread = (wide.max(axis=1) - wide.min(axis=1)).sum() + float(np.nanmax(x[7])) - float(np.nanmin(x[7]))
    assert found["spread"] == pytest.approx(spread, rel=len(x) * 2.0**-52)
    assert (found["keys"] == rows.NEVER).tolist() == [i == 7 for i in range(len(x))]


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("counted", [None, np.arange(10) % 2 == 0])
def test_counts_of_exclusive_classes(counted: Any, sized: bool) -> None:
    x, y = LOGITS.copy(), np.arange(10) % 4
    x[0] = [60.0, 0.0, 0.0, 0.0]  # certain and right: exp(−60) is below 2^-24
    x[2], y[2] = [16.0, 0.0, 0.0, 0.0], 0  # 3 exp(−16) is above it
    x[4] = [1.0, 1.0, 0.0, 0.0]  # the first of two largest
    x[5, 1] = np.nan
    x[6] = [0.0, 0.0, -np.inf, 0.0]
    loss = withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)
    live = np.ones(10, bool) if counted is None else counted
    size = np.asarray(withlogits.logsumexp(x.astype(np.float64), axis=1)) if sized else None
    found = rows.row_statistics(x, 1, y, close=CLOSE, loss=loss, size=size, counted=counted, bins=BINS)
    finite = np.isfinite(loss)
    assert found["counted"] == live.sum()
    assert found["nan"] == np.isnan(loss).sum() == 1
    assert found["infinite"] == np.isinf(loss).sum() == 1
    assert found["loss"] == loss[finite].astype(np.float64).sum()
    assert found["first"].tolist() == np.nanargmax(x, axis=1).tolist()
    assert found["right"] == ((np.nanargmax(x, axis=1) == y) & live).sum()
    rest = np.array([np.exp(np.sort(row.astype(np.float64) - row.max())[:-1]).sum() for row in x])
    saturated = np.log1p(rest) <= 2.0**-24
    assert found["saturated"] == (saturated & live).sum() > 0
    assert not saturated[2]
    pairs = [(int((row > row[label]).sum()), int((row == row[label]).sum())) for row, label in zip(x, y, strict=True)]

    def share(k: int, above: int, equal: int) -> Fraction:
        """Of equal logits, as many are among the k largest as there is room for; NaN is not."""
        return min(max(Fraction(k - above, equal), Fraction(0)), Fraction(1)) if equal else Fraction(0)

    shares = {
        k: [share(k, *pair) if counts else Fraction(0) for pair, counts in zip(pairs, live, strict=True)]
        for k in BINS.within
    }
    assert found["within"].tolist() == [pytest.approx(float(sum(shares[k]))) for k in BINS.within]
    assert found["within"][0] % 1 != 0  # of the ties
    weight = np.arange(10.0) / 4
    weighted = rows.row_statistics(
        x, 1, y, close=CLOSE, loss=loss, size=size, counted=counted, bins=BINS, weight=weight
    )
    assert weighted["within"].tolist() == [
        pytest.approx(float(sum(w * hit for w, hit in zip(map(Fraction, weight), shares[k], strict=True))))
        for k in BINS.within
    ]
    assert weighted["weight"] == weight[live].sum()
    assert weighted["weighted_loss"] == pytest.approx((loss * weight)[live & finite].sum())
    assert (found["keys"] == rows.NEVER).tolist() == (~(finite & live)).tolist()


def test_a_key_depends_on_its_row_alone() -> None:
    keys = rows.row_keys(np.arange(1000.0), np.zeros(1000))
    assert len(set(keys.tolist())) == 1000
    np.testing.assert_array_equal(rows.row_keys(np.arange(1000.0)[::7], np.zeros(143)), keys[::7])
    bits = np.unpackbits(keys.view(np.uint8)).reshape(1000, 64).mean(axis=0)
    assert (np.abs(bits - 0.5) < 6 * 0.5 / np.sqrt(1000)).all()  # six standard deviations of a fair coin
