"""Adapters of array libraries, and the means to tell whose array an object is without importing the library."""

from __future__ import annotations

from typing import Any

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
