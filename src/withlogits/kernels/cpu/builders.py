"""Which module makes the kernel of which spec."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

MODULES = {
    "SoftmaxSpec": "softmax",
    "RowWeightsSpec": "row_weights",
    "SigmoidSpec": "sigmoid",
    "SmallSpec": "small",
    "PoolSpec": "spinning",
    "RowsSpec": "row_statistics",
    "ElementsSpec": "element_statistics",
    "ScoresSpec": "element_statistics",
}
# Written in LLVM's language, without Numba
TRACED = ("softmax", "softmax_float32", "sigmoid", "row_weights", "small", "spinning")


def module_of(spec: Any) -> str:
    name = MODULES[type(spec).__name__]
    return "softmax_float32" if name == "softmax" and spec.float32 else name


def build(spec: Any) -> Callable[..., Any]:
    """Return the builder of a spec's kernel: of (spec, target) if traced, else of (spec,) for Numba."""
    module = import_module(f".{module_of(spec)}", __package__)
    found: Callable[..., Any] = module.build_scores if type(spec).__name__ == "ScoresSpec" else module.build
    return found
