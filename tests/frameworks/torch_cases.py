"""What the PyTorch tests go over: each loss with each of its options, in one list; and the way between the libraries.

The list itself, of NumPy arrays, is that of `cases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


# ------------------------------------------------------------------------------------------------------- comparisons


def differentiated(loss: Callable[[Any, Any], Any], labels: Any, logits: Any) -> list[Any]:
    """The loss, and the gradients of its sum for logits and labels, as far as they require one."""
    value = loss(labels, logits)
    wrt = [t for t in (logits, labels) if t.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, wrt, torch.ones_like(value))]


def assert_ulps(got: Any, expected: Any, most: float, what: str = "") -> None:
    """As that of `cases`, for tensors too."""
    arrays = [array(x) if isinstance(x, torch.Tensor) else x for x in (got, expected)]
    cases.assert_ulps(*arrays, most, what)
