"""The front ends: one module for each framework, chosen by the type of the logits.

A front end turns its framework's arrays into what a kernel takes, and gives the result back as it came. It does the
checks that need an array, with the texts of `withlogits.arguments`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from withlogits.arguments import SigmoidOptions, SoftmaxOptions
from withlogits.frameworks import numpy as numpy_front


class FrontEnd(Protocol):
    """What a front end offers; a module with these functions is one."""

    def softmax_loss(
        self,
        labels: Any,
        logits: Any,
        options: SoftmaxOptions,
        name: str | None,
        class_weight: Any,
        sample_weight: Any,
        out: Any,
    ) -> tuple[Any, tuple[Any, ...]]: ...

    def sigmoid_loss(
        self,
        labels: Any,
        logits: Any,
        options: SigmoidOptions,
        name: str | None,
        pos_weight: Any,
        sample_weight: Any,
        out: Any,
    ) -> tuple[Any, tuple[Any, ...]]: ...

    def softmax_map(self, x: Any, axis: Any, kind: str) -> Any: ...

    def elementwise(self, x: Any, kind: str) -> Any: ...


_front_ends: dict[type, FrontEnd] = {np.ndarray: numpy_front}


def front_end(array: Any) -> FrontEnd:
    """The front end for this type of array.

    NumPy's takes all that belongs to no other: lists, numbers, memory maps, whatever converts itself; and it refuses
    the arrays of frameworks it knows of.
    """
    try:
        return _front_ends[type(array)]
    except KeyError:
        return _front_ends.setdefault(type(array), numpy_front)
