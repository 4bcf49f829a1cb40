"""A network with one hidden layer, and Adam: plain NumPy, but for the loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
LossAndGradient = Callable[..., tuple[Any, Any]]  # what withlogits.value_and_grad returns


class Network:
    """logits = max(x W + b, 0) V + c, for rows x."""

    def __init__(self, inputs: int, hidden: int, classes: int, seed: int, dtype: Any = np.float32) -> None:
        rng = np.random.default_rng(seed)
        self.parameters: list[Floats] = [
            (rng.standard_normal((inputs, hidden)) * np.sqrt(2 / inputs)).astype(dtype),
            np.zeros(hidden, dtype),
            (rng.standard_normal((hidden, classes)) * np.sqrt(2 / hidden)).astype(dtype),
            np.zeros(classes, dtype),
        ]

    def hidden(self, x: Floats) -> Floats:  # (N, inputs) -> (N, hidden)
        w, b, _, _ = self.parameters
        return np.asarray(np.maximum(x @ w + b, np.float32(0)))

    def logits(self, x: Floats) -> Floats:  # (N, inputs) -> (N, classes)
        _, _, v, c = self.parameters
        return np.asarray(self.hidden(x) @ v + c)

    def loss_and_gradients(self, loss: LossAndGradient, x: Floats, labels: Any) -> tuple[float, list[Floats]]:
        """Return the mean loss of a batch, and its gradients by the chain rule from that of the logits."""
        _, _, v, c = self.parameters
        h = self.hidden(x)
        value, g = loss(labels=labels, logits=h @ v + c, reduction="mean")
        back = (g @ v.T) * (h > 0)
        return float(value), [x.T @ back, back.sum(axis=0), h.T @ g, g.sum(axis=0)]


class Adam:
    """Kingma & Ba, "Adam: a method for stochastic optimization", 2015."""

    def __init__(self, parameters: list[Floats]) -> None:
        self.parameters = parameters
        self.mean = [np.zeros_like(p) for p in parameters]
        self.square = [np.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, gradients: list[Floats], rate: float) -> None:
        self.steps += 1
        rate *= np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for p, g, mean, square in zip(self.parameters, gradients, self.mean, self.square, strict=True):
            mean += np.float32(0.1) * (g - mean)
            square += np.float32(0.001) * (g * g - square)
            p -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))


def train(
    network: Network, loss: LossAndGradient, x: Floats, labels: Any, *, steps: int, seed: int, batch: int = 128
) -> Iterator[float]:
    """Train on random batches, and yield the loss of each; the learning rate falls from 0.003 along a cosine."""
    rng = np.random.default_rng(seed)
    adam = Adam(network.parameters)
    for step in range(steps):
        chosen = rng.integers(0, len(x), batch)
        value, gradients = network.loss_and_gradients(loss, x[chosen], labels[chosen])
        adam.step(gradients, 0.003 * (1 + np.cos(np.pi * step / steps)) / 2)
        yield value
