"""The formulas that are usually written in NumPy, with which the library is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def log_of_softmax(logits: Array, labels: Array) -> Array:
    """Return −log(exp(x_y) / Σ exp(x_j)), the textbook's formula."""
    with np.errstate(all="ignore"):
        e = np.exp(logits)
        p = e / e.sum(axis=-1, keepdims=True)
        return np.asarray(-np.log(np.take_along_axis(p, labels[:, None], axis=-1)[:, 0]))


def logsumexp_minus(logits: Array, labels: Array) -> Array:
    """Return logsumexp(x) − x_y, with the maximum subtracted first."""
    m = logits.max(axis=-1)
    lse = m + np.log(np.exp(logits - m[:, None]).sum(axis=-1))
    return np.asarray(lse - np.take_along_axis(logits, labels[:, None], axis=-1)[:, 0])


def sparse_loss_and_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the loss, and p − one-hot."""
    m = logits.max(axis=-1, keepdims=True)
    e = np.exp(logits - m)
    s = e.sum(axis=-1, keepdims=True)
    rows = np.arange(len(logits))
    loss = (m + np.log(s))[:, 0] - logits[rows, labels]
    p = e / s
    p[rows, labels] -= 1
    return loss, p


def softmax_loss_and_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return −Σ z_j log p_j, and p − z."""
    m = logits.max(axis=-1, keepdims=True)
    shifted = logits - m
    e = np.exp(shifted)
    s = e.sum(axis=-1, keepdims=True)
    return -(labels * (shifted - np.log(s))).sum(axis=-1), e / s - labels


def sigmoid_loss(logits: Array, labels: Array) -> Array:
    """Return max(x, 0) − x z + log1p(exp(−|x|)), the formula of TensorFlow's documentation."""
    return np.asarray(np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits))))


def sigmoid_loss_and_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the loss, and σ(x) − z."""
    return sigmoid_loss(logits, labels), 1 / (1 + np.exp(-logits)) - labels
