"""PyTorch: `torch.nn.functional`, eager or through `torch.compile`; and withlogits on the same tensors."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.cases import POS_WEIGHT, Case, Inputs
from benchmarks.peers import Absent
from benchmarks.peers.withlogits_peer import LOSSES

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "log_sigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "logit": torch.logit,
    "softmax": functools.partial(torch.softmax, dim=-1),
    "log_softmax": functools.partial(torch.log_softmax, dim=-1),
    "logsumexp": functools.partial(torch.logsumexp, dim=-1),
}


class TorchPeer:
    def __init__(self, threads: int, variant: str) -> None:
        torch.set_num_threads(threads)
        compiled = variant == "compile"
        self.compiled, self.ours = compiled, variant == "withlogits"
        self.name = f"torch.{variant}" if variant else "torch"
        self.version = torch.__version__
        self.note = f"`{'withlogits' if self.ours else 'torch.nn.functional'}`, gradient by `torch.autograd.grad`" + (
            "; the loss compiled for each shape (`dynamic=False`, default backend)" if compiled else ""
        )
        if compiled and not (shutil.which("g++") or shutil.which("clang++")):
            raise Absent("torch.compile needs a C++ compiler, and there is none")

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.activation:
            function, x = ACTIVATIONS[case.what], _tensor(inputs.activated(case.what))
            return lambda: function(x)
        logits, labels = _tensor(inputs.logits), _tensor(inputs.labels(case.what))
        logits.requires_grad_(case.gradient)
        reduction = case.reduction if case.gradient else "none"
        if case.elementwise:
            weight = torch.tensor(POS_WEIGHT, dtype=logits.dtype) if case.what == "weighted" else None

            def loss(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                return F.binary_cross_entropy_with_logits(x, z, reduction=reduction, pos_weight=weight)
        else:

            def loss(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                return F.cross_entropy(x, z, reduction=reduction)

        if self.ours:
            # the weighted loss is the sigmoid's; TensorFlow's name for it takes no reduction
            function = LOSSES["sigmoid" if case.what == "weighted" else case.what]
            options = {"pos_weight": POS_WEIGHT} if case.what == "weighted" else {}

            def loss(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                return function(labels=z, logits=x, reduction=reduction, **options)

        if self.compiled:
            # Without the reset, the second shape of a function would be compiled for shapes unknown.
            torch.compiler.reset()
            loss = torch.compile(loss, dynamic=False)

        if not case.gradient:

            def forward() -> torch.Tensor:
                with torch.no_grad():
                    return loss(logits, labels)

            return forward

        def step() -> tuple[torch.Tensor, torch.Tensor]:
            value = loss(logits, labels)
            (gradient,) = torch.autograd.grad(value, logits)
            return value, gradient

        return step

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        value, gradient = result if case.gradient else (result, None)
        return _array(value), None if gradient is None else _array(gradient)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A copy in torch's own memory; from_numpy does not know bfloat16, so its bits travel as int16."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).clone()
    return torch.from_numpy(array).clone()


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def make(threads: int, variant: str = "") -> TorchPeer:
    return TorchPeer(threads, variant)
