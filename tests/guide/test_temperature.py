"""The sample that a temperature is fitted on: the rows with the smallest keys, however they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from withlogits import diagnose, reference
from withlogits.evaluation.meter import Meter
from withlogits.guide.temperature import SIZE, Sample

C = 1 << 10
ROOM = SIZE // C


def keys_of(x: Any, loss: Any) -> Any:
    return reference.row_keys(np.asarray(loss, np.float64), x.sum(axis=1, dtype=np.float64))


@pytest.mark.parametrize("rows", [ROOM - 1, ROOM, 5 * ROOM, 40 * ROOM])
def test_the_smallest_keys_are_kept(rows: int) -> None:
    """Where a guess at how large they are comes first, too."""
    rng = np.random.default_rng(0)
    x = rng.integers(-50, 50, (rows, C)).astype(np.float32)  # sums are exact
    y = rng.integers(0, C, rows)
    meter = Meter()
    meter.update(y, x)
    assert meter._survey is not None
    sample = meter._survey.pair.sample
    from withlogits import sparse_softmax_cross_entropy_with_logits as loss

    keys = np.sort(keys_of(x, loss(labels=y, logits=x)))
    np.testing.assert_array_equal(np.sort(sample.keys), keys[:ROOM])


def test_a_guess_that_finds_too_little_is_followed_by_certainty() -> None:
    sample = Sample()
    guess, certain = sample.limits(C, 100 * ROOM)
    assert guess < certain == (1 << 64) - 1
    assert not sample.enough(C, ROOM - 1)
    assert sample.enough(C, ROOM)
    assert list(sample.limits(C, ROOM)) == [certain]


def test_rows_that_are_all_alike() -> None:
    """They have one key, which may be above any guess."""
    for shift in range(6):
        x = np.zeros((3000, C), np.float32)
        x[:, 0] = shift
        y = np.full(3000, 1)
        meter = Meter()
        for _ in range(3):
            meter.update(y, x)
        assert meter.compute().fitted_on == ROOM
        diagnose(y, x)


def test_a_full_sample_asks_for_smaller_keys_alone() -> None:
    sample = Sample(size=64 * 3)
    x, z = np.ones((64, 3)), np.zeros(64)
    sample.add(x, z, 1, np.arange(64), np.arange(64, dtype=np.uint64) + np.uint64(5))
    assert list(sample.limits(3, 10**6)) == [67]
    sample.add(x, z, 1, np.arange(2), np.array([1, 2], np.uint64))
    assert list(sample.limits(3, 10**6)) == [65]
    assert len(sample.keys) == 64
