"""What the PyTorch tests go over: each loss with each of its options, in one list; and the way between the libraries.

The list itself, of NumPy arrays, is that of `cases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import oracle
from frameworks import cases

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

LOSSES, REDUCTIONS, ACTIVATIONS, SOFTMAX_MAPS = cases.LOSSES, cases.REDUCTIONS, cases.ACTIVATIONS, cases.SOFTMAX_MAPS
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


class Case(cases.Case):
    """A case with tensors."""

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


CASES, EVERY, FEW = ([Case(**vars(case)) for case in table] for table in (cases.CASES, cases.EVERY, cases.FEW))


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


WAYS = ("kernels", "operators", "formulas")


@contextmanager
def by(way: str) -> Iterator[None]:
    """The losses are computed in this way: by kernels, by operators on kernels, by operators on formulas."""
    direct = way == "kernels"
    with (
        cases.engine("formulas" if way == "formulas" else "kernels"),
        nullcontext([]) if direct else operators() as seen,
    ):
        yield
    assert bool(ours(seen)) != direct  # that it was this way indeed


# ------------------------------------------------------------------------------------------------------- comparisons


def in_one_rounding(case: cases.Case) -> bool:
    """Not so where gradients of labels are added up by autograd: one row for all, and a mean that divides by labels."""
    weighted_mean = "class_weight" in case.options and case.options.get("reduction") == "mean"
    return case.labels != "row" and not (case.loss == "softmax" and weighted_mean)


def most_ulps(way: str, case: cases.Case, dtype: str, place: int = 0) -> float:
    """How far the ways of torch may be from NumPy's kernels, in ulp of the largest entry; u is half an ulp of float64.

    The kernels themselves differ by nothing, and by 3 ulp where torch adds up a mean. The formulas are float64:
    y = c tanh(x/c)/τ takes three roundings and a tanh within 2u, so 5u |y|, with |y| ≤ 2.4 in these cases 12u.
    A probability moves by two of these, 24u, and by its exp (2u), sum (2u) and quotient (u): 29u. T p − t and the slope
    of the softcap add 10u. What autograd adds up besides, where gradients have two parts, takes 4 ulp. Other dtypes see
    the float64 numbers rounded, and float32 kernels within 4 ulp of that.
    """
    summed = 0 if in_one_rounding(case) else 4
    if way == "formulas":
        return (20 if dtype == "float64" else 4) + summed
    return summed or {"kernels": 0, "operators": 3}[way]


def computed(case: cases.Case, dtype: str, way: str) -> list[Any]:
    """The loss and its gradients, as arrays."""
    labels, logits = case.arrays(oracle.DTYPES[dtype])
    labels, logits = tensor(labels, case.loss != "sparse"), tensor(logits, True)
    with by(way):
        found = differentiated(Case(**vars(case)), labels, logits)
    assert found[1].stride() == torch.empty_like(logits).stride()
    return [array(each) for each in found]


def orders(case: cases.Case, v: Any, h: Any) -> list[float]:
    """The derivatives of first to third order of the loss's sum, along a line through logits and labels."""
    labels, logits = Case(**vars(case)).tensors()
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    given = labels if h is None else labels + t * tensor(h)
    found = Case(**vars(case))(given, logits + t * tensor(v)).sum()
    derivatives = []
    for _ in range(3):
        (found,) = torch.autograd.grad(found, t, create_graph=True)
        derivatives.append(found.item())
    return derivatives


def differentiated(loss: Callable[[Any, Any], Any], labels: Any, logits: Any) -> list[Any]:
    """The loss, and the gradients of its sum for logits and labels, as far as they require one."""
    value = loss(labels, logits)
    wrt = [t for t in (logits, labels) if t.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, wrt, torch.ones_like(value))]


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """As that of `cases`, for tensors too."""
    arrays = [array(x) if isinstance(x, torch.Tensor) else x for x in (got, expected)]
    cases.assert_ulps(*arrays, most, what)
