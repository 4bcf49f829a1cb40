"""Which frameworks are installed, told without importing them."""

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from withlogits.frameworks import SERVED


class Framework(NamedTuple):
    """A framework, its version if it is installed, and whether its arrays are served."""

    name: str
    version: str | None
    served: bool


# A framework may be installed under several names, of which the first that is found counts.
_DISTRIBUTIONS = {
    "NumPy": ("numpy",),
    "PyTorch": ("torch",),
    "JAX": ("jax",),
    "TensorFlow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-intel",
        "tensorflow-macos",
        "tf-nightly",
        "tf-nightly-cpu",
    ),
}


def frameworks() -> list[Framework]:
    """Every framework that this library knows of."""
    return [
        Framework(name, _version(names), name == "NumPy" or name in SERVED) for name, names in _DISTRIBUTIONS.items()
    ]


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None
