"""Each loss with each of its options, in one list that every framework's tests go over.

A case holds NumPy arrays, so that the same numbers go to withlogits on NumPy, which other tests hold to the truth.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
import withlogits.engine
from withlogits import reference

LOSSES = {
    "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
    "weighted": withlogits.weighted_cross_entropy_with_logits,
    "softmax": withlogits.softmax_cross_entropy_with_logits,
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
}
SOFTMAX_MAPS = ("softmax", "log_softmax", "logsumexp")
ACTIVATIONS = (*SOFTMAX_MAPS, "sigmoid", "log_sigmoid", "softplus", "logit")


@dataclass(frozen=True)
class Case:
    """A loss, its options and the form of its arrays."""

    loss: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4, 3)
    axis: int = -1
    labels: str = "full"  # "kept": indices (N, 1); "row": one label row for all

    def __str__(self) -> str:
        return f"{self.loss}: {self.name}"

    @property
    def function(self) -> Any:
        return LOSSES[self.loss]

    @property
    def differentiable(self) -> tuple[str, ...]:
        return ("logits",) if self.loss == "sparse" else ("logits", "labels")

    @property
    def keywords(self) -> dict[str, Any]:
        """The options with NumPy arrays, the axis among them."""
        return self.options if self.axis == -1 else {**self.options, "axis": self.axis}

    def arrays(self, dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any]:
        """Labels and logits."""
        rng = np.random.default_rng(seed)
        logits = rng.normal(0.0, 2.0, self.shape).astype(dtype)
        rows = tuple(np.delete(self.shape, self.axis)) if self.shape else ()
        classes = self.shape[self.axis] if self.shape else 1
        if self.loss == "sparse":
            labels = rng.integers(0, classes, rows)
            if "ignore_index" in self.options and labels.size > 1:
                labels.flat[1] = self.options["ignore_index"]
            return (np.expand_dims(labels, self.axis) if self.labels == "kept" else labels), logits
        if self.loss != "softmax":
            labels = rng.random(self.shape).astype(dtype)
            if "ignore_index" in self.options:
                labels.flat[1] = self.options["ignore_index"]
            return labels, logits
        labels = rng.dirichlet(np.ones(classes), (1,) if self.labels == "row" else rows)
        labels = labels[0] if self.labels == "row" else np.moveaxis(labels, -1, self.axis)
        return np.ascontiguousarray(labels.astype(dtype)), logits


CLASS_WEIGHT = np.array([0.5, 2.0, 1.5])
SAMPLE_WEIGHT = np.array([1.0, 0.5, 0.0, 3.0])
ALL = {
    "class_weight": CLASS_WEIGHT, "sample_weight": SAMPLE_WEIGHT, "label_smoothing": 0.2, "temperature": 1.7,
    "softcap": 4.0, "z_loss": 0.1,
}  # fmt: skip
SIGMOID_ALL = {
    "pos_weight": CLASS_WEIGHT, "sample_weight": SAMPLE_WEIGHT[:, None], "label_smoothing": 0.2, "reduction": "mean",
}  # fmt: skip
SOFTMAX_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "mean": {"reduction": "mean"},
    "class weights": {"class_weight": CLASS_WEIGHT},
    "class-weighted mean": {"class_weight": CLASS_WEIGHT, "reduction": "mean"},
    "class weights, smoothed": {"class_weight": np.array([0.5, 0.0, 2.0]), "label_smoothing": 0.2},
    "a class of weight 0": {"class_weight": np.array([0.0, 2.0, 1.0]), "reduction": "sum"},
    "sample weights": {"sample_weight": SAMPLE_WEIGHT},
    "sample-weighted mean": {"sample_weight": SAMPLE_WEIGHT, "reduction": "mean"},
    "smoothed": {"label_smoothing": 0.2},
    "temperature": {"temperature": 0.6, "reduction": "mean"},
    "softcap": {"softcap": 2.5},
    "z-loss": {"z_loss": 0.3, "reduction": "sum"},
    "without weights": {"label_smoothing": 0.1, "temperature": 0.5, "softcap": 5.0, "z_loss": 0.1},
    "all": ALL,
    "all, mean": {**ALL, "reduction": "mean"},
}
CASES = [
    *(Case(loss, name, options) for loss in ("softmax", "sparse") for name, options in SOFTMAX_OPTIONS.items()),
    *(Case(loss, "classes in the middle", {}, (2, 3, 2, 2), 1) for loss in ("softmax", "sparse")),
    *(Case(loss, "classes first", {"reduction": "mean"}, (3, 4), 0) for loss in ("softmax", "sparse")),
    *(Case(loss, "one row", {}, (3,)) for loss in ("softmax", "sparse")),
    Case("softmax", "one label row", {}, labels="row"),
    Case("softmax", "one label row, weighted mean", {**ALL, "reduction": "mean"}, labels="row"),
    Case("sparse", "kept axis", {}, labels="kept"),
    Case("sparse", "kept axis, weighted", {**ALL, "sample_weight": SAMPLE_WEIGHT[:, None]}, labels="kept"),
    Case("sparse", "kept axis in the middle", {"reduction": "mean"}, (2, 3, 2), 1, "kept"),
    Case("sparse", "ignored", {"ignore_index": -100}),
    Case("sparse", "ignored mean", {"ignore_index": -100, "reduction": "mean"}),
    Case("sparse", "ignored class, all", {**ALL, "ignore_index": 2, "reduction": "mean"}),
    Case("sigmoid", "plain"),
    Case("sigmoid", "sum", {"reduction": "sum"}),
    Case("sigmoid", "mean", {"reduction": "mean"}),
    Case("sigmoid", "smoothed", {"label_smoothing": 0.2}),
    Case("sigmoid", "pos_weight", {"pos_weight": 3.0}),
    Case("sigmoid", "pos_weight of each class", {"pos_weight": CLASS_WEIGHT, "reduction": "mean"}),
    Case("sigmoid", "sample weights", {"sample_weight": SAMPLE_WEIGHT[:, None]}),
    Case("sigmoid", "sample-weighted mean", {"sample_weight": SAMPLE_WEIGHT[:, None], "reduction": "mean"}),
    Case("sigmoid", "weights of each element", {"sample_weight": SAMPLE_WEIGHT[:, None] * [[1.0, 0.0, 0.3]]}),
    Case("sigmoid", "all", SIGMOID_ALL),
    # NaN stays what it is under the steps of finite differences
    Case("sigmoid", "ignored", {"ignore_index": math.nan}),
    Case("sigmoid", "ignored mean", {"ignore_index": math.nan, "reduction": "mean"}),
    Case("sigmoid", "ignored, all", {**SIGMOID_ALL, "ignore_index": math.nan}),
    Case("sigmoid", "a single number", {"pos_weight": 2.0}, ()),
    Case("weighted", "weighted", {"pos_weight": 3.0}),
    Case("weighted", "weights of each class", {"pos_weight": CLASS_WEIGHT}),
    Case("weighted", "ignored", {"pos_weight": 3.0, "ignore_index": math.nan}),
]
# each with every reduction
REDUCTIONS = ("none", "sum", "mean")
EVERY = [case for case in CASES if case.loss == "weighted"] + list({
    (c.loss, c.shape, c.labels, repr(options)): replace(c, name=f"{c.name}, {reduction}", options=options)
    for c in reversed(CASES) if c.loss != "weighted"
    for reduction in REDUCTIONS for options in [{**c.options, "reduction": reduction}]
}.values())  # fmt: skip
# one of each family and reduction, for what does not depend on the other options
FEW = [case for case in CASES if case.name in ("plain", "mean", "all", "all, mean", "ignored mean", "kept axis")]


# ------------------------------------------------------------------------------------------------------- comparisons


def by_numpy(case: Case, labels: Any, logits: Any) -> list[Any]:
    """The loss and its gradients, of NumPy arrays."""
    value, gradients = withlogits.value_and_grad(case.function, case.differentiable)(
        labels=labels, logits=logits, **case.keywords
    )
    return [value, *gradients]


@contextlib.contextmanager
def engine(name: str) -> Iterator[None]:
    """The losses are computed by compiled kernels, or by formulas."""
    if name == "kernels" and withlogits.engine.select().NAME != "compiled":
        pytest.skip("llvmlite is not installed, so there are no kernels")
    with pytest.MonkeyPatch.context() as patch:
        if name == "formulas":
            patch.setattr(withlogits.engine, "select", lambda: reference)
        yield


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """Each entry within so many ulp of the largest one, or the same if that is 0; dtype and shape are the same too.

    NaN stands for NaN, infinity for infinity.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), what
    if most == 0:
        np.testing.assert_array_equal(got, expected, err_msg=what)
        return
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    np.testing.assert_array_equal(np.where(finite, 0.0, a), np.where(finite, 0.0, b), err_msg=what)
    digits, lowest, _ = oracle.FORMATS[got.dtype.name]
    a, b = a[finite], b[finite]
    exponent = max(np.frexp(np.abs(b).max(initial=0.0))[1] - 1, lowest)
    error = np.abs(a - b).max(initial=0.0) / np.ldexp(1.0, exponent - digits + 1)
    assert error <= most, f"{what}: {error} ulp\n{got}\n{expected}"
