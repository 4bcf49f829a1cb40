"""The results of the demo's parts, which the picture shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits.demo import canvases, speed, tail
from withlogits.guide import Diagnosis

Floats = NDArray[np.float32]


class Exclusive(NamedTuple):
    """The same network, trained under sparse softmax and under softmax."""

    sparse: list[float]  # the loss of each batch
    softmax: list[float]
    same: bool  # losses and weights, to the last bit
    accuracy: float
    logits: Floats  # of the held-out digits


class Asked(NamedTuple):
    """A network trained to say which digits are there, and its scores."""

    loss: str
    steps: list[int]
    exact: list[float]  # held-out sets exactly right, at those steps
    threshold: float
    scores: canvases.Scores  # held out, in the end
    at_half: canvases.Scores  # at the threshold 1/2
    logits: Floats  # (N, 10), held out
    probabilities: Floats


class NotExclusive(NamedTuple):
    """Sigmoid and softmax on the same canvases, the same network, the same batches."""

    held_out: canvases.Canvases
    sigmoid: Asked
    softmax: Asked


class Story(NamedTuple):
    """Everything that the picture shows."""

    exclusive: Exclusive
    not_exclusive: NotExclusive
    tails: list[tail.Tail]
    wrong: list[tail.Wrong]
    timings: list[speed.Timing]
    asked: list[Diagnosis]  # of the two tasks, and of one with a planted mistake
