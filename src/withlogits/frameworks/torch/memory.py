"""How tensors lie in memory, and how results are allocated: what the planner asks of PyTorch.

No NumPy array is made of a tensor that a kernel reads: NumPy has no bfloat16, and the kernels want no more than an
address. Large results come from recycled memory (`kernels.cpu.buffers`), which they return to when their last tensor
dies.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from withlogits.kernels.cpu import buffers
from withlogits.kernels.cpu.layout import Layout
from withlogits.kernels.cpu.plan import Allocator

CPU = torch.device("cpu")  # named in every call that makes a tensor: torch's default device may be another
TEMPLATE = 1 << 16  # bytes of a tensor that is worth keeping for others to be made like it, which is faster
BYTE = np.dtype(np.uint8)
NAMES: dict[torch.dtype, str] = {
    getattr(torch, name): name
    for name in (
        "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
        "uint64", "bool",
    )
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def byte_strides(tensor: Tensor) -> tuple[int, ...]:
    size = tensor.itemsize
    return tuple([step * size for step in tensor.stride()])


class TorchMemory:
    """What the planner asks of tensors."""

    address = handle = staticmethod(Tensor.data_ptr)
    behind = -1
    strides = staticmethod(byte_strides)

    @staticmethod
    def layout(tensor: Tensor) -> Layout:
        return Layout(tuple(tensor.shape), byte_strides(tensor), NAMES[tensor.dtype])

    @staticmethod
    def allocator(shape: tuple[int, ...], dtype: str, like: Layout | None = None) -> Allocator:
        """Tensors laid out as `torch.empty_like` lays them out."""
        kind = DTYPES[dtype]
        template = torch.empty(shape, dtype=kind, device="meta")
        if like is not None:
            steps = [step // like.itemsize for step in like.strides]
            template = torch.empty_like(torch.empty_strided(shape, steps, dtype=kind, device="meta"))
        strides, nbytes = template.stride(), math.prod(shape) * kind.itemsize
        layout = Layout(shape, byte_strides(template), dtype)
        if nbytes <= TEMPLATE:
            return Allocator(
                partial(torch.empty_like, torch.empty_strided(shape, strides, dtype=kind, device=CPU)), layout
            )
        if nbytes < buffers.SMALLEST:
            return Allocator(partial(torch.empty_strided, shape, strides, dtype=kind, device=CPU), layout)

        def recycled() -> Tensor:
            flat = torch.from_numpy(buffers.empty((nbytes,), BYTE)).view(kind)
            return flat.as_strided(shape, strides)

        return Allocator(recycled, layout)

    @staticmethod
    def number(tensor: Tensor) -> Tensor:
        return tensor

    @staticmethod
    def scalar(x: float, dtype: str) -> Tensor:
        kind = DTYPES[dtype]
        if abs(x) > 3.4e38 and kind is torch.float32:  # of which `scalar_tensor` alone makes an error
            return torch.scalar_tensor(x, dtype=torch.float64, device=CPU).to(kind)
        return torch.scalar_tensor(x, dtype=kind, device=CPU)

    @staticmethod
    def cast(tensor: Tensor, dtype: str) -> Tensor:
        return tensor.to(DTYPES[dtype])

    @staticmethod
    def numpy(tensor: Tensor) -> Any:
        return tensor.detach().numpy()
