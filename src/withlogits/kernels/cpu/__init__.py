"""The Numba engine: NumPy arrays in, one job for a compiled kernel, NumPy arrays out."""

from __future__ import annotations

from withlogits.kernels.cpu.host_sigmoid import elementwise, plan_elementwise, plan_sigmoid_loss, sigmoid_loss
from withlogits.kernels.cpu.host_softmax import plan_softmax_loss, softmax_loss, softmax_map

NAME = "numba"

__all__ = [
    "NAME",
    "elementwise",
    "plan_elementwise",
    "plan_sigmoid_loss",
    "plan_softmax_loss",
    "sigmoid_loss",
    "softmax_loss",
    "softmax_map",
]
