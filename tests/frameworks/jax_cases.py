"""JAX's side of the tests: arrays of a case, its derivatives, and the settings they are computed under."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from frameworks.cases import Case

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")


@contextlib.contextmanager
def x64(on: bool) -> Iterator[None]:
    """Turn float64 and int64 on or off."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def array(given: Any) -> Any:
    """An array of NumPy as one of JAX; what is none is left as it is."""
    return jax.numpy.asarray(given) if isinstance(given, np.ndarray) else given


def arrays(options: dict[str, Any]) -> dict[str, Any]:
    return {name: array(value) for name, value in options.items()}


def loss_of(case: Case, **changes: Any) -> Callable[[Any, Any], Any]:
    """The loss of a case as a function of logits and labels."""
    options = arrays({**case.keywords, **changes})
    return lambda logits, labels: case.function(labels=labels, logits=logits, **options)


def differentiated(case: Case, labels: Any, logits: Any) -> list[Any]:
    """The loss, and the gradients of its sum for logits and dense labels."""
    value, pull = jax.vjp(loss_of(case), array(logits), array(labels))
    gradients = pull(jax.numpy.ones_like(value))
    return [value, *gradients[: len(case.differentiable)]]
