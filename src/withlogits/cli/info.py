"""The engine and the installed frameworks, for `withlogits info`; no framework is imported."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

from withlogits import __version__, engine
from withlogits.frameworks import SERVED

# A framework may be installed under several names, of which the first that is found counts.
TENSORFLOW = ("", "-cpu", "-intel", "-macos")
DISTRIBUTIONS = {
    "NumPy": ("numpy",),
    "PyTorch": ("torch",),
    "JAX": ("jax",),
    "TensorFlow": (*(f"tensorflow{suffix}" for suffix in TENSORFLOW), "tf-nightly", "tf-nightly-cpu"),
}


def described() -> dict[str, Any]:
    """Return versions, the engine's description, and the version of each framework and whether it is served."""
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "engine": engine.describe(),
        "frameworks": {
            name: {"version": _version(distributions), "served": name == "NumPy" or name in SERVED}
            for name, distributions in DISTRIBUTIONS.items()
        },
    }


def show_info(found: dict[str, Any]) -> None:
    """Print it as two tables."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"withlogits {found['version']}, Python {found['python']}", style="bold")
    style: Any = {"box": None, "padding": (0, 2, 0, 0), "header_style": "bold"}
    table = Table("engine", "", **style)
    for key, value in found["engine"].items():
        table.add_row(key.replace("_", " "), _text(value))
    console.print("", table, sep="\n")
    table = Table("framework", "installed", "served", **style)
    for name, framework in found["frameworks"].items():
        table.add_row(name, framework["version"] or "no", "yes" if framework["served"] else "not yet")
    console.print("", table, sep="\n")


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def _text(value: object) -> str:
    """Return a value of the engine's description as it stands in a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
