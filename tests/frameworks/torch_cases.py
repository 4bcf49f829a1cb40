"""What the PyTorch tests go over: each loss with each of its options, in one list; and the way between the libraries.

A case holds NumPy arrays, so that the same numbers go to withlogits on NumPy, which other tests hold to the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import oracle
import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

LOSSES = {
    "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
    "weighted": withlogits.weighted_cross_entropy_with_logits,
    "softmax": withlogits.softmax_cross_entropy_with_logits,
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
}
SOFTMAX_MAPS = ("softmax", "log_softmax", "logsumexp")
ACTIVATIONS = (*SOFTMAX_MAPS, "sigmoid", "log_sigmoid", "softplus", "logit")
DTYPES = {name: getattr(torch, name) for name in oracle.DTYPES}
INTEGERS = [getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]


# ----------------------------------------------------------------------------------------------- to torch and back


def tensor(given: Any, requires_grad: bool = False) -> Any:
    """An array as a tensor with memory of its own and the same strides; what is none is left as it is."""
    if not isinstance(given, np.ndarray):
        return given
    raw = given.view(np.int16) if given.dtype == oracle.BFLOAT16 else given
    copied = torch.from_numpy(raw.copy(order="K"))
    copied = copied.view(torch.bfloat16) if given.dtype == oracle.BFLOAT16 else copied
    return copied.requires_grad_() if requires_grad else copied


def array(given: torch.Tensor) -> Any:
    """A tensor as an array."""
    given = given.detach()
    if given.dtype == torch.bfloat16:
        return given.contiguous().view(torch.int16).numpy().view(oracle.BFLOAT16)
    return given.numpy()


def tensors(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor(value) for name, value in options.items()}


# ---------------------------------------------------------------------------------------------------------- the cases


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
            return rng.random(self.shape).astype(dtype), logits
        labels = rng.dirichlet(np.ones(classes), (1,) if self.labels == "row" else rows)
        labels = labels[0] if self.labels == "row" else np.moveaxis(labels, -1, self.axis)
        return np.ascontiguousarray(labels.astype(dtype)), logits

    def tensors(self, dtype: Any = np.float64, seed: int = 0, grad: bool = False) -> tuple[Any, Any]:
        labels, logits = self.arrays(dtype, seed)
        return tensor(labels, grad and self.loss != "sparse"), tensor(logits, grad)

    def of_tensors(self, device: str = "cpu") -> Case:
        """The case with its weights as tensors: torch.compile does not follow how arrays become these."""
        made = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in tensors(self.options).items()}
        return replace(self, options=made)

    def __call__(self, labels: Any, logits: Any, **changes: Any) -> Any:
        """The loss, with the options in the library of the logits."""
        options = {**self.keywords, **changes}
        options = options if isinstance(logits, np.ndarray) else tensors(options)
        return self.function(labels=labels, logits=logits, **options)


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
    Case("sigmoid", "a single number", {"pos_weight": 2.0}, ()),
    Case("weighted", "weighted", {"pos_weight": 3.0}),
    Case("weighted", "weights of each class", {"pos_weight": CLASS_WEIGHT}),
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


# --------------------------------------------------------------------------------------------------- the ways through


class _Watched(TorchDispatchMode):
    """Changes nothing; but operations under it are traced, and so go through the operators."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []


@contextmanager
def operators() -> Iterator[list[Any]]:
    """The operators instead of the direct way to the kernels; gives the list of the operations that were seen."""
    with _Watched() as watched:
        yield watched.seen


def ours(seen: list[Any]) -> set[str]:
    """The names of our operators among them."""
    return {str(op).split(".")[1] for op in seen if str(op).startswith("withlogits.")}


# ------------------------------------------------------------------------------------------------------- comparisons


def differentiated(loss: Callable[[Any, Any], Any], labels: Any, logits: Any) -> list[Any]:
    """The loss, and the gradients of its sum for logits and labels, as far as they require one."""
    value = loss(labels, logits)
    wrt = [t for t in (logits, labels) if t.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, wrt, torch.ones_like(value))]


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """Each entry within so many ulp of the largest one, or the same if that is 0; dtype and shape are the same too.

    NaN stands for NaN, infinity for infinity.
    """
    got, expected = (array(x) if isinstance(x, torch.Tensor) else np.asarray(x) for x in (got, expected))
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
