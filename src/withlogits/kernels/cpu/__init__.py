"""The Numba engine: NumPy arrays in, one job for a compiled kernel, NumPy arrays out."""

from __future__ import annotations

from withlogits.kernels.cpu.host_facts import row_facts
from withlogits.kernels.cpu.host_sigmoid import elementwise, plan_elementwise, plan_sigmoid_loss, sigmoid_loss
from withlogits.kernels.cpu.host_softmax import plan_softmax_loss, softmax_loss, softmax_map
from withlogits.kernels.cpu.host_tallies import count_scores, element_tallies, label_tallies, pair_tallies, row_tallies

NAME = "numba"

__all__ = [
    "NAME",
    "count_scores",
    "element_tallies",
    "elementwise",
    "label_tallies",
    "pair_tallies",
    "plan_elementwise",
    "plan_sigmoid_loss",
    "plan_softmax_loss",
    "row_facts",
    "row_tallies",
    "sigmoid_loss",
    "softmax_loss",
    "softmax_map",
]
