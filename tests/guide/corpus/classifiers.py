"""Real classifiers on real data, trained in seconds: the labels and the logits of what they were not trained on.

Tasks with one class an example are those of `SINGLE`; then there are one yes/no question (`tumours`), ten of them
(`canvases`), rows of steps (`runs`, `counting`, `text`), a class for every pixel (`pixels`), and many classes
(`numbers`).
All arrays are read-only and the same at every call.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import withlogits
from withlogits.data import load_digits
from withlogits.demo.canvases import compose
from withlogits.demo.network import Network, train

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SINGLE = {"digits": 10, "twenty": 20, "wine": 3, "iris": 3}  # the task, and its classes
STATES = ("untrained", "early", "trained", "overtrained", "logistic")
STEPS = {"untrained": 0, "early": 6, "trained": 250, "overtrained": 500}
FEW = 80  # what an overtrained network has seen

SPARSE = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
SIGMOID = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)


class Outcome(NamedTuple):
    """What a classifier said of held-out examples."""

    labels: Any  # (N,) class numbers, or (N, C) 0 and 1
    logits: Floats


class Data(NamedTuple):
    x: Floats
    y: Any
    held_out: Floats
    truth: Any


def frozen(array: Any) -> Any:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


@cache
def data(task: str) -> Data:
    """The examples of a task, shuffled, standardised and split; rows are examples."""
    rng = np.random.default_rng(sum(task.encode()))
    if task in ("digits", "twenty"):
        images, y = load_digits()
        x = images.reshape(len(images), 64)
        if task == "twenty":  # ink on paper, and chalk on a board
            x, y = np.concatenate([x, 1 - x]), np.concatenate([y, y + 10])
        train_size = 2 * len(x) // 3
    elif task == "canvases":
        images, y = load_digits()
        train_part, rest = compose(images[:1300], y[:1300], 2500, 1), compose(images[1300:], y[1300:], 800, 2)
        return Data(train_part.rows, frozen(train_part.present), rest.rows, frozen(rest.present))
    else:
        x, y = table(task)
        train_size = len(x) // 2
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    mean, deviation = x[:train_size].mean(0), x[:train_size].std(0) + (1.0 if task in ("digits", "twenty") else 0.0)
    x = ((x - mean) / deviation).astype(np.float32)
    y = y.astype(np.int64)
    return Data(x[:train_size], frozen(y[:train_size]), x[train_size:], frozen(y[train_size:]))


def table(name: str) -> tuple[Any, Any]:
    """One of scikit-learn's tables as it stands."""
    from sklearn import datasets

    load = {"wine": datasets.load_wine, "iris": datasets.load_iris, "tumours": datasets.load_breast_cancer}[name]
    return load(return_X_y=True)


@cache
def network(task: str, state: str = "trained", seed: int = 0) -> Network:
    x, y, _, _ = data(task)
    outputs = {"canvases": 10, "tumours": 1}.get(task) or SINGLE[task]
    result = Network(x.shape[1], 48, outputs, seed)
    labels = y.astype(np.float32)[:, None] if task == "tumours" else y
    if state == "overtrained":
        x, labels = x[:FEW], labels[:FEW]
    for _ in train(result, SPARSE if task in SINGLE else SIGMOID, x, labels, steps=STEPS[state], seed=seed):
        pass
    return result


@cache
def outcome(task: str, state: str = "trained", seed: int = 0) -> Outcome:
    """Labels (N,) and logits (N, C); of `tumours` logits (N,), and of `canvases` labels (N, C)."""
    truth, held_out = data(task).truth, data(task).held_out
    logits = _logistic(task) if state == "logistic" else network(task, state, seed).logits(held_out)
    return Outcome(truth, frozen(logits[:, 0] if logits.shape[1] == 1 else logits))


def _logistic(task: str) -> Floats:
    """scikit-learn's logistic regression; one for each class where the classes are independent."""
    x, y, held_out, _ = data(task)
    columns = [_fit(x, y[:, j]).decision_function(held_out) for j in range(10)] if task == "canvases" else None
    scores = np.stack(columns, 1) if columns else _fit(x, y).decision_function(held_out)
    return scores.reshape(len(held_out), -1).astype(np.float32)


@cache
def fitted(task: str) -> Any:
    return _fit(data(task).x, data(task).y)


def _fit(x: Floats, y: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 60 iterations are few
        return LogisticRegression(max_iter=60).fit(x, y)


@cache
def runs(state: str = "trained", stay: float = 0.7) -> Outcome:
    """Digits in a row, the same one again with probability `stay`; labels (60, 12), logits (60, 12, 10)."""
    rng = np.random.default_rng(5)
    digits, logits = outcome("digits", state)
    wanted = rng.integers(0, 10, (60, 12))
    for step in range(1, 12):
        wanted[:, step] = np.where(rng.random(60) < stay, wanted[:, step - 1], wanted[:, step])
    chosen = _images_of(wanted, digits, rng)
    return Outcome(frozen(wanted), frozen(logits[chosen]))


@cache
def counting() -> Outcome:
    """Someone counts, up or down, and errs now and then; the logits (60, 16, 10) at a step are of what follows."""
    rng = np.random.default_rng(6)
    x, y, held_out, truth = data("digits")
    x, y = np.concatenate([x, x]), np.concatenate([y, y])
    way = np.repeat([1, -1], len(y) // 2)
    follows = np.where(rng.random(len(y)) < 0.9, (y + way) % 10, rng.integers(0, 10, len(y)))
    model = Network(66, 64, 10, 3)
    for _ in train(model, SPARSE, _told(x, way), follows, steps=600, seed=3):
        pass
    way = np.repeat(rng.choice([1, -1], (60, 1)), 16, axis=1)
    steps = np.where(rng.random((60, 16)) < 0.9, way, rng.integers(0, 10, (60, 16)))
    wanted = (rng.integers(0, 10, (60, 1)) + np.cumsum(steps, 1)) % 10
    return Outcome(frozen(wanted), frozen(model.logits(_told(held_out[_images_of(wanted, truth, rng)], way))))


def _told(x: Floats, way: Any) -> Floats:
    """Rows of pixels, and whether the count goes up or down."""
    up = (way > 0)[..., None]
    return np.concatenate([x, 3 * up, 3 * ~up], -1).astype(np.float32)


def _images_of(wanted: Integers, digits: Integers, rng: np.random.Generator) -> Integers:
    """For each wanted digit the number of a held-out image of it."""
    chosen = np.zeros_like(wanted)
    for digit in range(10):
        which = wanted == digit
        chosen[which] = rng.choice(np.flatnonzero(digits == digit), np.count_nonzero(which))
    return chosen


@cache
def text() -> Outcome:
    """A licence read letter by letter: the logits (30, 60, C) at a letter are of the next one, from the last three."""
    written = (Path(__file__).resolve().parents[3] / "LICENSE").read_text(encoding="utf-8").lower()
    letters, tokens = np.unique([*" ".join(written.split())], return_inverse=True)
    count = len(letters)
    context = np.stack([tokens[0:-3], tokens[1:-2], tokens[2:-1]], 1)
    x = np.eye(count, dtype=np.float32)[context].reshape(len(context), -1)
    model = Network(x.shape[1], 64, count, 4)
    train_size = len(x) - 30 * 60
    for _ in train(model, SPARSE, x[:train_size], tokens[3:][:train_size], steps=400, seed=4):
        pass
    here = context[train_size:, 2].reshape(30, 60)
    return Outcome(frozen(here), frozen(model.logits(x[train_size:]).reshape(30, 60, count)))


@cache
def pixels(trained: bool = True) -> Outcome:
    """Paper, edge or ink for each pixel of noisy canvases; labels (40, 12, 12), logits (40, 12, 12, 3)."""
    images, y = load_digits()
    rng = np.random.default_rng(7)
    clean = compose(images, y, 160, 8).images
    noisy = np.pad(clean + 0.04 * rng.standard_normal(clean.shape).astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    x = np.stack([noisy[:, i : i + 12, j : j + 12] for i in range(3) for j in range(3)], -1)  # (160, 12, 12, 9)
    labels = (clean > 0).astype(np.int64) + (clean > 0.5)
    model = Network(9, 24, 3, 5)
    if trained:
        for _ in train(model, SPARSE, x[:120].reshape(-1, 9), labels[:120].reshape(-1), steps=500, seed=5):
            pass
    return Outcome(frozen(labels[120:]), frozen(model.logits(x[120:].reshape(-1, 9)).reshape(40, 12, 12, 3)))


@cache
def numbers(places: int, count: int = 60) -> Outcome:
    """Numbers of several written digits as one class each: logits (count, 10 ** places)."""
    digits, logits = outcome("digits")
    rows = np.random.default_rng(9).integers(0, len(digits), (count, places))
    total, joint = np.zeros(count, np.int64), np.zeros((count, 1), np.float32)
    for place in range(places):
        total = 10 * total + digits[rows[:, place]]
        joint = (joint[:, :, None] + logits[rows[:, place]][:, None, :]).reshape(count, -1)
    return Outcome(frozen(total), frozen(joint))
