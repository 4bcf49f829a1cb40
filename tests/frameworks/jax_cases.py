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

    The kernels are NumPy's. The sigmoid losses with weights are computed by the formulas, in float32: a softplus and
    its factors, 4 ulp. The bound of other formulas in float64 is that of torch's. Float32 arithmetic has the same
    roundings of its own size, and XLA may fuse a product with a sum, so that the halves of a product have one digit
    less.
    """
    if way == "formulas":
        return 24
    weights = ("pos_weight", "sample_weight") if case.loss in ("sigmoid", "weighted") else ()
    return 4 if any(name in case.options for name in weights) else 0


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


def derivatives(value: Callable[[Any], Any], highest: int = 3) -> list[float]:
    """The derivatives at 0 of a function of a number, from the first order up; compiled once, in float64.

    Forward and reverse mode agree to some hundred roundings of what is below 1e3. Each is the slope of the one before:
    central differences err by step²/6 times the derivative two orders up, and by 1e-16/step times the values.
    """

    def pushed(function: Any) -> Any:
        return lambda t: jax.jvp(function, (t,), (1.0,))[1]

    forward, reverse, step = [value], [value], 1e-5
    for _ in range(highest):
        forward, reverse = [*forward, pushed(forward[-1])], [*reverse, jax.grad(reverse[-1])]
    program = jax.jit(lambda t: tuple(jax.numpy.stack([f(t) for f in each]) for each in (forward, reverse)))
    low, here, high = (np.asarray(program(t)) for t in (-step, 0.0, step))
    np.testing.assert_allclose(here[1], here[0], 1e-12, 1e-12)
    np.testing.assert_allclose(here[:, 1:], (high - low)[:, :-1] / (2 * step), 1e-5, 1e-5)
    found: list[float] = here[1, 1:].tolist()
    return found


def orders(case: Case, v: Any, h: Any) -> list[float]:
    """The derivatives of first to third order of the loss's sum, along a line through logits and labels."""
    labels, logits = case.arrays()
    with x64(True):
        labels, logits, loss = array(labels), array(logits), loss_of(case)
        return derivatives(lambda t: loss(logits + t * v, labels if h is None else labels + t * h).sum())


def differentiated(case: Case, labels: Any, logits: Any, by_labels: bool = True) -> list[Any]:
    """The loss, and the gradients of its sum for logits and dense labels."""
    loss, labels, logits = loss_of(case), array(labels), array(logits)
    if not by_labels or case.loss == "sparse":
        value, pull = jax.vjp(lambda logits: loss(logits, labels), logits)
    else:
        value, pull = jax.vjp(loss, logits, labels)
    return [value, *pull(jax.numpy.ones_like(value))]
