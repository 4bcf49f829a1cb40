"""What the TensorFlow tests share: the way between the libraries, and losses with their gradients."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """As that of `cases`, for tensors too."""
    cases.assert_ulps(array(got), array(expected), most, what)
