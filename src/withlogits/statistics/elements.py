"""What elements of independent classes are like: all of them, those that count, or weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics import arrays, backend
from withlogits.statistics.bins import Bins

Array = NDArray[Any]


def element_counts(
    x: Array, z: Array, *, bins: Bins, floor: float, binary: bool, weight: Array | None = None
) -> dict[str, Any]:
    """Count elements as `arrays.element_statistics`; weights that are booleans say which elements count."""
    if weight is None or weight.dtype != np.bool_:
        given = {} if weight is None else {"weight": weight}
        counted: dict[str, Any] = (arrays if given else backend()).element_statistics(
            x, z, bins=bins, floor=floor, binary=binary, **given
        )
        return counted
    # An answer of no for a logit of -inf has loss and probability 0: what it adds to the bins is taken off again.
    x, z = np.where(weight, x, x.dtype.type(-np.inf)), np.where(weight, z, z.dtype.type(0))
    counted = backend().element_statistics(x, z, bins=bins, floor=floor, binary=binary)
    missing = weight.size - int(np.count_nonzero(weight))
    counted["confidence"][0, 0] -= missing
    counted["histogram"][0] -= missing
    counted["listed"] = counted["listed"][weight.reshape(-1)[counted["listed"]]]
    return counted | {"class_weight": np.count_nonzero(weight, axis=0)}
