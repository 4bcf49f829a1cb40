"""The sample that a temperature is fitted on: the rows with the smallest keys, however they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from withlogits import diagnose
from withlogits.evaluation.meter import Meter
from withlogits.statistics import rows
from withlogits.statistics.sample import NEVER, SIZE, Sample

C = 1 << 10
ROOM = SIZE // C


def keys_of(x: Any, loss: Any) -> Any:
    return rows.row_keys(np.asarray(loss, np.float64), x.sum(axis=1, dtype=np.float64))


@pytest.mark.parametrize("rows", [ROOM - 1, ROOM, 5 * ROOM, 40 * ROOM])
def test_the_smallest_keys_are_kept(rows: int) -> None:
    """Where a guess at how large they are comes first, too."""
    rng = np.random.default_rng(0)
    x = rng.integers(-50, 50, (rows, C)).astype(np.float32)  # sums are exact
    y = rng.integers(0, C, rows)
    meter = Meter()
    meter.update(y, x)
    assert meter._summary is not None
    sample = meter._summary.pair.sample
    from withlogits import sparse_softmax_cross_entropy_with_logits as loss

    keys = np.sort(keys_of(x, loss(labels=y, logits=x)))
    np.testing.assert_array_equal(np.sort(sample.keys), keys[:ROOM])


def test_a_guess_that_finds_too_little_is_followed_by_certainty() -> None:
    keys = np.arange(100 * ROOM, dtype=np.uint64) + np.uint64(1 << 63)  # all above any guess
    keys[::2] = NEVER
    sample = Sample()
    sample.add(np.zeros((len(keys), C)), np.zeros(len(keys)), 1, keys)
    np.testing.assert_array_equal(np.sort(sample.keys), keys[1 : 2 * ROOM : 2])


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


def test_a_full_sample_takes_smaller_keys_alone() -> None:
    sample = Sample(size=64 * 3)
    x, z = np.ones((64, 3)), np.zeros(64)
    sample.add(x, z, 1, np.arange(64, dtype=np.uint64) + np.uint64(5))
    sample.add(x[:3] * 2, z[:3], 1, np.array([1, 2, 68], np.uint64))
    assert sorted(sample.keys.tolist()) == [1, 2, *range(5, 67)]
    rows, _, _ = sample.rows()
    assert rows[:3, 0].tolist() == [2.0, 2.0, 1.0]


def test_rows_that_are_in_no_sample() -> None:
    sample = Sample()
    sample.add(np.ones((5, 3)), np.zeros(5), 1, np.full(5, NEVER, np.uint64))
    assert sample.x is None
    assert sample.fit() is None
