"""What the statistics' planners take from `plan.py`."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .plan import Kernel as Plan

__all__ = ["FLOAT64", "Dtype", "Plan"]
FLOAT64 = np.dtype(np.float64)


class Dtype(Protocol):
    """What a plan asks of an element type: NumPy's dtypes answer, and so may other libraries'."""

    @property
    def name(self) -> str: ...

    @property
    def itemsize(self) -> int: ...
