"""The lines of fixes run on the caller's own arrays, of every library, and make the pair right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits
from guide.corpus.cases import one_hot
from withlogits.guide.lines import LINES

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 200)
LOGITS = (3 * np.eye(5)[LABELS] + RNG.normal(size=(200, 5))).astype(np.float32)
HOT = one_hot(LABELS, 5)
TEACHER = withlogits.softmax(2 * LOGITS)
YES = (LOGITS > 0) * np.float32(1)
MISTAKES: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "as integers": ("WL208", LABELS.astype(np.float32), LOGITS, {"loss": "sparse"}),
    "one-hot": ("WL201", HOT, LOGITS, {"loss": "sparse"}),
    "sums": ("WL205", TEACHER * np.linspace(0.5, 2, 200, dtype=np.float32)[:, None], LOGITS, {"loss": "softmax"}),
    "negative": ("WL205", TEACHER - np.float32(0.01) * (np.arange(200) % 9 == 0)[:, None], LOGITS, {"loss": "softmax"}),
    "counts": ("WL209", HOT * 51, LOGITS, {"loss": "softmax"}),
    "logarithms": ("WL205", np.log(TEACHER), LOGITS, {"loss": "softmax"}),
    "another model's logits": ("WL205", LOGITS, LOGITS, {"loss": "softmax"}),
    "bytes": ("WL209", (255 * YES).astype(np.uint8), LOGITS, {"loss": "sigmoid"}),
    "from 1": ("WL206", LABELS + 1, LOGITS, {"loss": "sparse"}),
    "from 1 beside padding": ("WL206", np.where(np.arange(200) < 20, -100, LABELS + 1), LOGITS, {"ignore_index": -100}),
    "transposed": ("WL212", HOT.T, LOGITS, {"loss": "softmax"}),
    "elsewhere": ("WL211", HOT.reshape(20, 10, 5), np.moveaxis(LOGITS.reshape(20, 10, 5), -1, 1), {"loss": "softmax"}),
    "renumbered": ("WL301", (LABELS + 1) % 5, LOGITS, {"loss": "sparse"}),
    "reordered": ("WL301", one_hot((LABELS + 1) % 5, 5), LOGITS, {"loss": "softmax"}),
    "shifted": ("WL301", LABELS, np.roll(np.pad(LOGITS, ((0, 0), (0, 1))), 1, axis=1), {"loss": "sparse"}),
    "softmax": ("WL101", LABELS, withlogits.softmax(LOGITS), {"loss": "sparse"}),
    "rounded softmax": ("WL101", LABELS, np.round(withlogits.softmax(LOGITS), 2), {"loss": "sparse"}),
    "sigmoid": ("WL102", YES, withlogits.sigmoid(LOGITS), {"loss": "sigmoid"}),
    "inverted": ("WL303", LABELS, -LOGITS, {"loss": "sparse"}),
    "one class": ("WL105", YES[:, 0].astype(np.int64), LOGITS[:, :1], {"loss": "sparse"}),
}


def of(library: str) -> tuple[Any, dict[str, Any]]:
    """What makes arrays of a library, and its names."""
    if library == "list":
        return np.ndarray.tolist, {"numpy": np}
    if library == "numpy":
        return np.array, {"numpy": np}
    module = pytest.importorskip(library.partition(".")[0], reason=f"{library} is not installed")
    if library == "torch":
        return lambda array: module.from_numpy(np.array(array)), {"torch": module}
    if library == "jax.numpy":
        return module.numpy.asarray, {"jax": module}
    return module.constant, {"tf": module}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("library", ["numpy", "list", "torch", "jax.numpy", "tensorflow"])
def test_the_line_runs_and_helps(library: str, name: str) -> None:
    make, names = of(library)
    code, labels, logits, options = MISTAKES[name]
    given = {"labels": make(labels), "logits": make(logits)}
    found = withlogits.diagnose(**given, **options).findings[0]
    assert found.code == code
    assert "loss = " not in found.fix or name in ("one class",)
    after = dict(given, withlogits=withlogits, **names)
    exec(found.fix, after)
    if "loss" not in after:
        healed = withlogits.diagnose(after["labels"], after["logits"], **options)
        assert not healed, f"{found.fix}\n{healed}"
    if library not in ("numpy", "list"):
        assert type(after["labels"]).__module__ == type(given["labels"]).__module__
        assert type(after["logits"]).__module__ == type(given["logits"]).__module__


@pytest.mark.parametrize("name", ["from 1 beside padding", "logarithms", "renumbered", "sums"])
def test_labels_of_numpy_beside_tensors(name: str) -> None:
    make, names = of("torch")
    code, labels, logits, options = MISTAKES[name]
    found = withlogits.diagnose(labels, make(logits), **options).findings[0]
    after = {"labels": labels, "numpy": np, **names}
    exec(found.fix, after)
    assert found.code == code
    assert isinstance(after["labels"], np.ndarray)
    assert not withlogits.diagnose(after["labels"], make(logits), **options)


def test_every_library_has_every_line() -> None:
    assert {len(lines) for lines in LINES.values()} == {len(LINES["numpy"]._fields)}
    assert all(all(lines) for lines in LINES.values())
