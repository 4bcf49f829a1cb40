"""Choose the adapter of an array by its type; a framework is loaded at its first array."""

from __future__ import annotations

from typing import Any, Protocol

from withlogits.frameworks import array_of
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


class _Adapters(dict[type, Adapter]):
    """The adapter for each type of array; that of a framework is loaded at its first array.

    NumPy's takes all that belongs to no other: lists, numbers, memory maps, whatever converts itself; and it refuses
    the arrays of frameworks it knows of. A dictionary, since a function would take small calls a Python frame.
    """

    def __missing__(self, kind: type) -> Adapter:
        found: Any
        of = array_of(kind)
        # by statements, which torch.compile follows, as it does not follow `importlib`
        if of == "PyTorch":
            from withlogits.frameworks import torch as found
        elif of == "JAX":
            from withlogits.frameworks import jax as found
        elif of == "TensorFlow":
            from withlogits.frameworks import tensorflow as found
        else:
            from withlogits.frameworks import numpy as found
        return self.setdefault(kind, found)


adapters = _Adapters()
