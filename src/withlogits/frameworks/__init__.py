"""Adapters of array libraries, and the means to tell whose array an object is without importing the library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors
from withlogits.memo import keep

# Packages whose arrays are recognised by the module of their type. Some convert themselves to NumPy when asked, which
# would drop a gradient or copy from a device silently.
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX", "tensorflow": "TensorFlow", "keras": "Keras"}
# Those that are served, and the names of their types of arrays, or of what these inherit from.
ARRAYS = {
    "PyTorch": frozenset(("Tensor",)),
    "JAX": frozenset(("Array", "ArrayImpl", "Tracer")),
    "TensorFlow": frozenset(("Tensor", "RaggedTensor")),
}
SERVED = frozenset(ARRAYS)
_served: dict[type, str | None] = {}  # by type


def framework(kind: type) -> str | None:
    """Return the framework whose array a type is, or inherits from."""
    for base in kind.__mro__:
        found = FRAMEWORKS.get(base.__module__.partition(".")[0])
        if found is not None:
            return found
    return None


def array_of(kind: type) -> str | None:
    """Return the framework that serves a type of array."""
    known = _served.get(kind, "")
    if known != "":
        return known
    found = framework(kind)
    names = ARRAYS.get(found or "", frozenset())
    return keep(_served, kind, found if any(base.__name__ in names for base in kind.__mro__) else None)


def refuse_other_frameworks(name: str, given: Any, logits_of: str) -> None:
    """Raise for an array of another framework than that of the logits."""
    found = framework(type(given))
    if found is None:
        return
    if found not in SERVED:
        raise errors.not_served(name, found)
    if name in ("logits", "x", "p"):  # those have chosen the adapter
        raise errors.no_array_of(name, given, found)
    raise errors.mixed(name, found, logits_of)


def numpy_array(name: str, given: Any, logits_of: str) -> NDArray[Any]:
    """Return what is no array of the logits' framework, numbers and lists too, as an array of NumPy."""
    refuse_other_frameworks(name, given, logits_of)
    if given is None:
        raise errors.none_given(name)
    if isinstance(given, np.ma.MaskedArray):
        raise errors.masked(name)
    try:
        return np.asarray(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.no_array(name, error) from None


def named(name: str | None, scope: Callable[[str], Any]) -> Any:
    """Return the context that labels the operations of a call in a framework's profiler, if the call has a name."""
    if name is None:
        return contextlib.nullcontext()
    if not isinstance(name, str):
        raise errors.call_name(name)
    return scope(name)
