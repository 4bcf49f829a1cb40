"""What the TensorFlow tests share: the way between the libraries, and losses with their gradients."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oracle
from frameworks import cases
from frameworks.cases import Case

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow-cpu")


def tensor(given: Any) -> Any:
    """An array as a tensor; what is none is left as it is."""
    return tf.convert_to_tensor(given) if isinstance(given, np.ndarray) else given


def array(given: Any) -> Any:
    return given.numpy() if tf.is_tensor(given) else given


def arguments(case: Case, dtype: Any = np.float64) -> tuple[Any, Any, dict[str, Any]]:
    """Labels, logits and options of a case as tensors."""
    labels, logits = case.arrays(dtype)
    return tensor(labels), tensor(logits), {name: tensor(value) for name, value in case.keywords.items()}


def differentiated(loss: Callable[..., Any], labels: Any, logits: Any, wrt: tuple[str, ...]) -> list[Any]:
    """The loss, and the gradients of its sum by what `wrt` names."""
    given = {"labels": labels, "logits": logits}
    with tf.GradientTape() as tape:
        tape.watch([given[name] for name in wrt])
        value = loss(labels, logits)
    return [value, *tape.gradient(value, [given[name] for name in wrt])]


WAYS = ("kernels", "formulas")
DTYPES = ("float64",)  # of most cases; the formulas round nothing away there


def most_ulps(way: str, case: Case, dtype: str, place: int = 0) -> float:
    """How far the ways may be from NumPy's kernels, in ulp of the largest entry; u is half an ulp of float64.

    The kernels are the same; they make the value (0) and the gradient of the logits (1), and the formulas that of the
    labels (2). The formulas are float64: y = c tanh(x/c)/τ takes three roundings and a tanh within 2u, so
    5u |y|, with |y| ≤ 2.4 in these cases 12u. A probability moves by two of these, 24u, and by its exp (2u), sum (2u)
    and quotient (u): 29u. T p − t and the slope of the softcap add 10u. A sum of rounded losses, and what TensorFlow
    adds up besides where gradients have two parts, take 4 ulp. Other dtypes see the float64 numbers rounded, and
    float32 kernels within 4 ulp of that.
    """
    return 0 if way == "kernels" and place < 2 else 24 if dtype == "float64" else 8


def computed(case: Case, dtype: str, way: str) -> list[Any]:
    """The loss and its gradients, as arrays."""
    labels, logits, options = arguments(case, oracle.DTYPES[dtype])

    def loss(labels: Any, logits: Any) -> Any:
        return case.function(labels=labels, logits=logits, **options)

    with cases.engine(way):
        found = differentiated(loss, labels, logits, case.differentiable)
        assert_ulps(loss(labels, logits), found[0], 0)  # without a tape too
    return [array(each) for each in found]


def orders(case: Case, v: Any, h: Any) -> list[float]:
    """The derivatives of first to third order of the loss's sum, along a line through logits and labels."""
    labels, logits, options = arguments(case)

    def loss(t: Any) -> Any:
        given = labels if h is None else labels + t * h
        return tf.reduce_sum(case.function(labels=given, logits=logits + t * v, **options))

    found, function = [], loss
    for _ in range(3):
        function = slope(function)
        found.append(float(function(tf.zeros((), tf.float64))))
    return found


def slope(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The derivative of a function of a number."""

    def derivative(t: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(t)
            value = function(t)
        return tape.gradient(value, t)

    return derivative


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """As that of `cases`, for tensors too."""
    cases.assert_ulps(array(got), array(expected), most, what)
