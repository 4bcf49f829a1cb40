"""The Numba engine: NumPy arrays in, one job for a compiled kernel, NumPy arrays out."""

from __future__ import annotations

from withlogits.kernels.cpu.host_sigmoid import elementwise, sigmoid_loss
from withlogits.kernels.cpu.host_softmax import softmax_loss, softmax_map

NAME = "numba"

__all__ = ["NAME", "elementwise", "sigmoid_loss", "softmax_loss", "softmax_map"]
