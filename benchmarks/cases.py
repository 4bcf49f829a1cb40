"""What is timed: the losses, shapes and number formats, and their inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LOSSES = ("sparse", "softmax", "sigmoid", "weighted")
ACTIVATIONS = ("sigmoid", "log_sigmoid", "softplus", "logit", "softmax", "log_softmax", "logsumexp")
MODES = ("loss", "loss+gradient", "activation")
DTYPES = ("float32", "bfloat16")
SHAPES = ((32, 10), (256, 1000), (4096, 1000), (65_536, 10), (2048, 32_000), (512, 128_256))
ACTIVATION_SHAPES = ((32, 10), (4096, 1000), (2048, 32_000))

# The weight of the positive labels: exact in every format, and no power of two (a product with one needs no rounding).
POS_WEIGHT = 3.5

# Standard deviation of the logits: an ordinary classifier's, neither flat nor saturated.
SCALE = 3.0


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of a format's name; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


@dataclass(frozen=True)
class Case:
    """One row of the tables. `what` is a loss, or in the mode "activation" the name of one."""

    what: str
    mode: str
    dtype: str
    shape: tuple[int, int]
    reduction: str = "mean"  # of the loss with its gradient; the loss alone is never reduced

    @property
    def key(self) -> str:
        """The name that `--only` matches, such as `sparse/loss+gradient/float32/4096x1000`."""
        return f"{self.what}/{self.mode}/{self.dtype}/{self.shape[0]}x{self.shape[1]}"

    @property
    def size(self) -> str:
        return f"{self.shape[0]:,} × {self.shape[1]:,}"

    @property
    def activation(self) -> bool:
        return self.mode == "activation"

    @property
    def gradient(self) -> bool:
        return self.mode == "loss+gradient"

    @property
    def elementwise(self) -> bool:
        """Whether the loss, or the activation, depends on each logit alone."""
        return self.what in ("sigmoid", "weighted", "log_sigmoid", "softplus", "logit")

    def traffic(self) -> tuple[int, int]:
        """(read, written): the bytes that must cross the memory bus at least once when nothing lies in a cache."""
        n, c = self.shape
        whole = n * c * numpy_dtype(self.dtype).itemsize
        if self.activation:
            return whole, n * 4 if self.what == "logsumexp" else whole
        read = whole + (n * 8 if self.what == "sparse" else whole)
        if self.gradient:
            return read, whole
        return read, (n * c if self.elementwise else n) * 4


def all_cases() -> Iterator[Case]:
    """Every case; those of one shape and format follow one another, so that their logits are made once."""
    for shape in SHAPES:
        for dtype in DTYPES:
            for what in LOSSES:
                yield Case(what, "loss", dtype, shape)
                yield Case(what, "loss+gradient", dtype, shape)
            if dtype == "float32" and shape in ACTIVATION_SHAPES:
                for what in ACTIVATIONS:
                    yield Case(what, "activation", dtype, shape)


class Inputs:
    """The arrays of one shape and format, each made at first use: seeded normal logits, and labels of each kind."""

    def __init__(self, shape: tuple[int, int], dtype: str, seed: int = 20_260_101) -> None:
        self.shape, self.dtype = shape, numpy_dtype(dtype)
        self._random = np.random.default_rng(seed)
        self.logits = self._cast(self._random.standard_normal(shape, dtype=np.float32) * np.float32(SCALE))
        self._index_labels = self._random.integers(0, shape[1], shape[0])

    def labels(self, what: str) -> np.ndarray:
        if what == "sparse":
            return self._index_labels
        return self._soft_labels if what == "softmax" else self._binary_labels

    @cached_property
    def _soft_labels(self) -> np.ndarray:
        """Rows that are distributions over all classes, as distillation gives them."""
        labels = self._random.random(self.shape, dtype=np.float32)
        labels /= labels.sum(axis=1, keepdims=True)
        return self._cast(labels)

    @cached_property
    def _binary_labels(self) -> np.ndarray:
        """Independent 0 and 1, in the logits' format because torch and scikit-learn take no other."""
        return self._cast(self._random.integers(0, 2, self.shape, dtype=np.int8).astype(np.float32))

    def activated(self, what: str) -> np.ndarray:
        """What the activation takes: logits, or probabilities."""
        return self._probabilities if what == "logit" else self.logits

    @cached_property
    def _probabilities(self) -> np.ndarray:
        return self._cast(self._random.random(self.shape, dtype=np.float32))

    def _cast(self, array: np.ndarray) -> np.ndarray:
        return array if array.dtype == self.dtype else array.astype(self.dtype)
