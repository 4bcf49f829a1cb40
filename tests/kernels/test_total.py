"""The sum of many numbers keeps what rounding loses, and IEEE's infinities and NaN."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("there is no llvmlite", allow_module_level=True)

from withlogits.kernels.cpu.layout import address
from withlogits.kernels.cpu.plan import total


def summed(numbers: np.ndarray) -> float:
    copied = numbers.copy()  # the first takes the sum
    return total(address(copied), copied.size)


@pytest.mark.parametrize("count", [1, 7, 8, 63, 65, 71, 72, 1000, 10_001])
def test_the_sum_is_rounded_once(count: int) -> None:
    rng = np.random.default_rng(count)
    numbers = rng.normal(size=count) * 10.0 ** rng.integers(-8, 8, count)
    assert summed(numbers) == math.fsum(numbers)


def test_what_cancels() -> None:
    numbers = np.tile([1e16, 1.0, -1e16], 100)
    assert summed(numbers) == 100.0


@pytest.mark.parametrize(("special", "expected"), [([np.inf], np.inf), ([np.nan], np.nan), ([np.inf, -np.inf], np.nan)])
def test_special_numbers(special: list[float], expected: float) -> None:
    numbers = np.ones(100)
    numbers[17 : 17 + len(special)] = special
    np.testing.assert_equal(summed(numbers), expected)
