"""The front ends: one module for each framework, chosen by the type of the logits.

A front end turns its framework's arrays into what a kernel takes, and gives the result back as it came. It does the
checks that need an array, with the texts of `withlogits.arguments`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from withlogits.frameworks import numpy as numpy_front


class FrontEnd(Protocol):
    """What a front end offers, with the arguments of the public functions; a module with these functions is one."""

    def softmax_loss(
        self,
        sparse: bool,
        wrt: tuple[str, ...],
        labels: Any,
        logits: Any,
        axis: Any,
        dim: Any,
        name: str | None,
        class_weight: Any,
        label_smoothing: Any,
        ignore_index: Any,
        temperature: Any,
        softcap: Any,
        z_loss: Any,
        sample_weight: Any,
        reduction: Any,
        out: Any,
    ) -> tuple[Any, tuple[Any, ...]]: ...

    def sigmoid_loss(
        self,
        wrt: tuple[str, ...],
        labels: Any,
        logits: Any,
        name: str | None,
        pos_weight: Any,
        label_smoothing: Any,
        sample_weight: Any,
        reduction: Any,
        out: Any,
    ) -> tuple[Any, tuple[Any, ...]]: ...

    def softmax_map(self, x: Any, axis: Any, kind: str) -> Any: ...

    def elementwise(self, x: Any, kind: str) -> Any: ...


_front_ends: dict[type, FrontEnd] = {np.ndarray: numpy_front}


def front_end(array: Any) -> FrontEnd:
    """The front end for this type of array; that of a framework is loaded at its first array.

    NumPy's takes all that belongs to no other: lists, numbers, memory maps, whatever converts itself; and it refuses
    the arrays of frameworks it knows of.
    """
    kind = type(array)
    if kind in _front_ends:
        return _front_ends[kind]
    return _found(kind)


def _found(kind: type) -> FrontEnd:
    found: Any = numpy_front
    if any(base.__name__ == "Tensor" and base.__module__.partition(".")[0] == "torch" for base in kind.__mro__):
        # by a statement, which torch.compile follows, as it does not follow `importlib`
        from withlogits.frameworks import torch as found
    return _front_ends.setdefault(kind, found)
