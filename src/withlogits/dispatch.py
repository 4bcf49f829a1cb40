"""Choose the adapter of an array by its type; a framework is loaded at its first array."""

from __future__ import annotations

from typing import Any, Protocol

from withlogits.frameworks import framework
from withlogits.options import Options


class Adapter(Protocol):
    """What an adapter offers; a module with these functions is one."""

    @property
    def namespace(self) -> Any:
        """The table of functions that the formulas are made of."""

    def loss(
        self,
        options: Options,
        labels: Any,
        logits: Any,
        weights: tuple[Any, ...] = (),
        wrt: tuple[str, ...] = (),
        out: Any = None,
        name: str | None = None,
    ) -> tuple[Any, tuple[Any, ...]]:
        """A loss and the gradients that `wrt` names; `weights` as `options.WEIGHTS`, or () for none at all."""

    def softmax_map(self, x: Any, axis: Any, kind: str, keepdims: bool = False) -> Any:
        """softmax, log_softmax or logsumexp over an axis, several (a tuple) or all (None)."""

    def elementwise(self, x: Any, kind: str) -> Any:
        """sigmoid, log_sigmoid, softplus or logit of each element."""


_adapters: dict[type, Adapter] = {}


def adapter(array: Any) -> Adapter:
    """The adapter for this type of array; that of a framework is loaded at its first array.

    NumPy's takes all that belongs to no other: lists, numbers, memory maps, whatever converts itself; and it refuses
    the arrays of frameworks it knows of.
    """
    try:
        return _adapters[type(array)]
    except KeyError:
        return _found(type(array))


def _found(kind: type) -> Adapter:
    found: Any
    if framework(kind) == "PyTorch" and any(base.__name__ == "Tensor" for base in kind.__mro__):
        # by a statement, which torch.compile follows, as it does not follow `importlib`
        from withlogits.frameworks import torch as found
    else:
        from withlogits.frameworks import numpy as found
    return _adapters.setdefault(kind, found)
