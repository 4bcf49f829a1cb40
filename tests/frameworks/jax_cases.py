"""JAX's side of the tests: arrays of a case, its derivatives, and the settings they are computed under."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import oracle
from frameworks.cases import Case, engine

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


tensor = array  # as the other frameworks' is called


def arrays(options: dict[str, Any]) -> dict[str, Any]:
    return {name: array(value) for name, value in options.items()}


def loss_of(case: Case, **changes: Any) -> Callable[[Any, Any], Any]:
    """The loss of a case as a function of logits and labels."""
    options = arrays({**case.keywords, **changes})
    return lambda logits, labels: case.function(labels=labels, logits=logits, **options)


WAYS = ("kernels", "formulas")
DTYPES = ("float32",)  # of most cases: each is compiled anew


def most_ulps(way: str, case: Case, dtype: str, place: int = 0) -> float:
    """How far the ways may be from NumPy's kernels, in ulp of the largest entry.

    Rows are the same to the bit. A sum of float32 losses is rounded once more, 1 ulp, and so are the weights of a mean.
    The sigmoid losses with weights are computed by the formulas, in float32: a softplus and its factors, 4 ulp. The
    bound of other formulas in float64 is that of torch's. Float32 arithmetic has
    the same roundings of its own size, and XLA may fuse a product with a sum, so that the halves of a product have one
    digit less.
    """
    if way == "formulas":
        return 24
    weights = ("pos_weight", "sample_weight") if case.loss in ("sigmoid", "weighted") else ()
    of_rows = case.options.get("reduction", "none") == "none" and not any(name in case.options for name in weights)
    return 0 if of_rows else 4


def computed(case: Case, dtype: str, way: str) -> list[Any]:
    """The loss and its gradients, as arrays; with that of the labels, by formulas, the loss is none of the kernels."""
    labels, logits = case.arrays(oracle.DTYPES[dtype])
    if way == "formulas":
        jax.clear_caches()
    with x64(dtype == "float64"), engine(way):
        found = [np.asarray(each) for each in differentiated(case, labels, logits, way == "formulas")]
    if way == "formulas":
        jax.clear_caches()
    return found


def orders(case: Case, v: Any, h: Any) -> list[float]:
    """The derivatives of first to third order of the loss's sum, along a line through logits and labels.

    Forward and reverse mode agree to some hundred roundings.
    """
    labels, logits = case.arrays()
    with x64(True):
        labels, logits, loss, found = array(labels), array(logits), loss_of(case), []

        def value(t: Any) -> Any:
            return loss(logits + t * v, labels if h is None else labels + t * h).sum()

        def pushed(function: Any) -> Any:
            return lambda t: jax.jvp(function, (t,), (1.0,))[1]

        forward = reverse = value
        for _ in range(3):
            forward, reverse = pushed(forward), jax.grad(reverse)
            found.append(float(jax.jit(reverse)(0.0)))
            np.testing.assert_allclose(jax.jit(forward)(0.0), found[-1], 1e-13, 1e-13)
    return found


def differentiated(case: Case, labels: Any, logits: Any, by_labels: bool = True) -> list[Any]:
    """The loss, and the gradients of its sum for logits and dense labels."""
    loss, labels, logits = loss_of(case), array(labels), array(logits)
    if not by_labels or case.loss == "sparse":
        value, pull = jax.vjp(lambda logits: loss(logits, labels), logits)
    else:
        value, pull = jax.vjp(loss, logits, labels)
    return [value, *pull(jax.numpy.ones_like(value))]
