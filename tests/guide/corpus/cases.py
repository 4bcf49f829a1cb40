"""What a case of the corpus is, and how to do what a finding says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import withlogits

TORCH = importlib.util.find_spec("torch") is not None
FORMATS = ("float32", "float64", "bfloat16", "float16", "torch.float32", "torch.bfloat16")
NAMES = ("sigmoid", "softmax", "sparse")


@dataclass(frozen=True)
class Pair:
    """Labels and logits, what is told to `diagnose` besides, and the pair that doing as told yields."""

    labels: Any
    logits: Any
    options: dict[str, Any] = field(default_factory=dict)  # loss, axis, model, and the loss's own
    healed: Pair | None = None

    def diagnosis(self) -> Any:
        return withlogits.diagnose(self.labels, self.logits, **self.options)


@dataclass(frozen=True)
class Case:
    """A pair that is made when it is wanted. `code` is what is wrong with it: nothing, if it is empty."""

    name: str
    make: Callable[[], Pair]
    code: str = ""
    severity: str = ""  # "alarm" is an error or a warning; "" is any
    torch: bool = False

    @cache  # noqa: B019 - cases live to the end
    def pair(self) -> Pair:
        return self.make()


def mistake(code: str, severity: str = "alarm", torch: bool = False) -> Callable[[Callable[[], Pair]], Case]:
    """Makes a case of a function that makes a pair with this mistake; its name tells what it is."""
    return lambda make: Case(make.__name__.replace("_", " "), make, code, severity, torch)


def fits(severity: str, wanted: str) -> bool:
    return not wanted or severity == wanted or (wanted == "alarm" and severity in ("error", "warning"))


def mended(pair: Pair, fix: str) -> Pair:
    """The pair after a finding's line was run; if the line changes nothing, what the case says it would be."""
    recorder = Recorder()
    names: dict[str, Any] = {"labels": pair.labels, "logits": pair.logits, "numpy": np, "withlogits": recorder}
    if any(type(array).__module__.startswith("jax") for array in (pair.labels, pair.logits)):
        import jax

        names["jax"] = jax
    if TORCH and any(type(array).__module__ == "torch" for array in (pair.labels, pair.logits)):
        import torch

        names["torch"] = torch
    with np.errstate(all="ignore"):  # what matters is what comes out
        exec(fix, names)
    if recorder.called is not None:
        name, given = recorder.called
        labels, logits = given.pop("labels"), given.pop("logits")
        kept = {"model": pair.options["model"]} if "model" in pair.options else {}
        given.pop("reduction", None)
        return Pair(labels, logits, {"loss": name, **given, **kept})
    if names["labels"] is not pair.labels or names["logits"] is not pair.logits:
        return Pair(names["labels"], names["logits"], pair.options)
    assert pair.healed is not None, f"the line changes nothing: {fix}"
    return pair.healed


class Recorder:
    """`withlogits`, but a loss only notes how it was called."""

    def __init__(self) -> None:
        self.called: tuple[str, dict[str, Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(withlogits, name)
        if not name.endswith("_cross_entropy_with_logits"):
            return real

        def note(**given: Any) -> float:
            self.called = (name.removesuffix("_cross_entropy_with_logits").removesuffix("_softmax"), given)
            if name.startswith("weighted"):
                self.called = ("sigmoid", given)
            return 0.0

        return note


def cast(array: Any, form: str) -> Any:
    """A NumPy array in one of the formats; of PyTorch where it says so."""
    if form.startswith("torch."):
        import torch

        return torch.from_numpy(np.array(array)).to(getattr(torch, form.removeprefix("torch.")))
    if form == "bfloat16":
        import ml_dtypes

        return np.asarray(array).astype(ml_dtypes.bfloat16)
    return np.asarray(array).astype(form)


def like(array: Any, form: str, dtype: Any = None) -> Any:
    """Labels beside logits of a format: a tensor beside tensors, in the dtype of their own."""
    array = np.array(array, dtype=dtype)
    return cast(array, f"torch.{array.dtype}") if form.startswith("torch.") else array


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Any:
    return np.eye(classes, dtype=dtype)[labels]
