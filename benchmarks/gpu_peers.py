"""Who is timed on the GPU: losses of torch tensors, called the way that each library's documentation does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from .cases import Case, Inputs, numpy_dtype

OURS = "withlogits"
PEERS = ("torch", "torch.compile", "liger", "quack")


def no_gpu() -> str | None:
    """Why nothing can be measured, or None."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} sees no CUDA device"


def wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def card(device: str) -> str:
    if device != "cuda":
        return "no GPU"
    import torch

    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """What the call takes beside what is there already, its results included."""
    if device != "cuda":
        return 0
    import torch

    wait(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    wait(device)
    return torch.cuda.max_memory_allocated() - before


class Rows:
    """A gradient on the GPU of which a few rows are looked at."""

    def __init__(self, gradient: Any, dtype: np.dtype) -> None:
        self._gradient, self.dtype = gradient, dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        import torch

        return self._gradient[torch.from_numpy(rows).to(self._gradient.device)].float().cpu().numpy()


class Contestant:
    """`loss(logits, labels, reduction)` on tensors; the gradient by `torch.autograd.grad`."""

    def __init__(self, name: str, version: str, note: str, loss: Callable[..., Any], compiled: bool = False) -> None:
        self.name, self.version, self.note = name, version, note
        self._loss, self._compiled = loss, compiled

    def prepare(self, case: Case, inputs: Inputs, device: str) -> Callable[[], Any]:
        import torch

        from .peers.torch_peer import _tensor

        logits = _tensor(inputs.logits).to(device).requires_grad_(case.gradient)
        labels = torch.from_numpy(inputs.labels("sparse")).to(device)
        loss = self._loss
        if self._compiled:
            # Without the reset, the second shape of a function would be compiled for shapes unknown.
            torch.compiler.reset()
            loss = torch.compile(loss, dynamic=False)

        def forward() -> Any:
            with torch.no_grad():
                value = loss(logits, labels, "none")
            wait(device)
            return value

        def step() -> tuple[Any, Any]:
            value = loss(logits, labels, "mean")
            (gradient,) = torch.autograd.grad(value, logits)
            wait(device)
            return value, gradient

        return step if case.gradient else forward

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, Rows | None]:
        value, gradient = result if case.gradient else (result, None)
        value = value.detach().float().cpu().numpy()
        return value, None if gradient is None else Rows(gradient, numpy_dtype(case.dtype))


def load(names: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """withlogits and the libraries that are installed; for each of the others the reason why it is absent."""
    found: list[Contestant] = []
    absent: dict[str, str] = {}
    for name in (OURS, *names):
        try:
            found.append(_MAKERS[name]())
        except KeyError:
            absent[name] = f"unknown; there are {', '.join(_MAKERS)}"
        except (ImportError, metadata.PackageNotFoundError) as error:
            absent[name] = f"not installed ({error})"
    return found, absent


def _withlogits() -> Contestant:
    import withlogits

    def loss(logits: Any, labels: Any, reduction: str) -> Any:
        return withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, reduction=reduction)

    note = "the public function, gradient by `torch.autograd.grad`"
    return Contestant(OURS, withlogits.__version__, note, loss)


def _torch(compiled: bool) -> Contestant:
    import torch
    import torch.nn.functional as F

    def loss(logits: Any, labels: Any, reduction: str) -> Any:
        return F.cross_entropy(logits, labels, reduction=reduction)

    note = "`torch.nn.functional.cross_entropy`, gradient by `torch.autograd.grad`"
    if compiled:
        note += "; the loss compiled for each shape (`dynamic=False`, default backend)"
    return Contestant("torch.compile" if compiled else "torch", torch.__version__, note, loss, compiled)


def _liger() -> Contestant:
    from liger_kernel.transformers.functional import liger_cross_entropy

    def loss(logits: Any, labels: Any, reduction: str) -> Any:
        return liger_cross_entropy(logits, labels, reduction=reduction)

    note = (
        "`liger_kernel.transformers.functional.liger_cross_entropy`, which may write its gradient over the logits: the "
        "first call is the one that is validated, and the later ones take as logits what is left"
    )
    return Contestant("liger", metadata.version("liger-kernel"), note, loss)


def _quack() -> Contestant:
    from quack.cross_entropy import cross_entropy

    def loss(logits: Any, labels: Any, reduction: str) -> Any:
        return cross_entropy(logits, labels, reduction=reduction)

    note = "`quack.cross_entropy.cross_entropy`, gradient not in place"
    return Contestant("quack", metadata.version("quack-kernels"), note, loss)


_MAKERS: dict[str, Callable[[], Contestant]] = {
    OURS: _withlogits,
    "torch": lambda: _torch(compiled=False),
    "torch.compile": lambda: _torch(compiled=True),
    "liger": _liger,
    "quack": _quack,
}
