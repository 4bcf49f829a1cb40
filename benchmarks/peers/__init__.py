"""One file for each library that is compared, all with the same small protocol (`Peer`)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.cases import Case, Inputs

# In the order of the tables' columns.
OURS = ("withlogits", "withlogits.out")
PEERS = ("torch", "torch.compile", "tensorflow", "jax", "scikit-learn", "scipy")


# The activations are compared with SciPy's alone: the frameworks fuse theirs into whatever surrounds them.
ACTIVATION_PEERS = ("scipy",)


class Absent(Exception):
    """Raised where a library cannot do a case; the text is the reason that the table gives."""


class Peer(Protocol):
    """What the benchmark asks of a library.

    The loss alone is one value a row (or element); with the gradient it is the mean and the gradient of the mean, which
    is what a training step asks for.
    """

    name: str
    version: str
    note: str  # how it is called, for the table's foot

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        """Return a call that takes nothing and comes back when its result is ready; its inputs are native already."""

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The result as NumPy arrays: (loss, gradient or None). Not timed."""


def reduced(losses: np.ndarray, gradient: np.ndarray, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """For libraries that leave this to their caller: the case's value, and its gradient in the place of the sum's."""
    if case.reduction == "sum":
        return losses.sum(), gradient
    gradient /= losses.dtype.type(losses.size)
    return losses.mean(), gradient


def load(threads: int, names: Sequence[str] = PEERS) -> tuple[list[Peer], dict[str, str]]:
    """The libraries that are installed, and for each of the others the reason why it is absent."""
    found: list[Peer] = []
    absent: dict[str, str] = {}
    for name in names:
        library, _, variant = name.partition(".")
        try:
            module = importlib.import_module(f".{library.replace('-', '_')}_peer", __package__)
            found.append(module.make(threads, variant))
        except ImportError as error:
            absent[name] = f"not installed ({error})"
        except Absent as error:
            absent[name] = str(error)
    return found, absent
