"""Which module makes the kernel of which spec."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

MODULES = {
    "SoftmaxSpec": "softmax",
    "SigmoidSpec": "sigmoid",
    "PoolSpec": "spinning",
    "FactsSpec": "facts",
    "TalliesSpec": "tallies",
    "LabelsSpec": "labels",
    "PairsSpec": "labels",
    "ElementsSpec": "elements",
    "ScoresSpec": "scores",
}
TRACED = ("softmax", "softmax_float32", "sigmoid", "spinning")  # written in LLVM's language, without Numba


def module_of(spec: Any) -> str:
    name = MODULES[type(spec).__name__]
    return "softmax_float32" if name == "softmax" and spec.float32 else name


def build(spec: Any) -> Callable[..., Any]:
    """Return the builder of a spec's kernel: of (spec, target) if traced, else of (spec,) for Numba."""
    module = import_module(f".{module_of(spec)}", __package__)
    found: Callable[..., Any] = module.build_pairs if type(spec).__name__ == "PairsSpec" else module.build
    return found
