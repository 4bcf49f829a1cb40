"""Pairs that nothing is wrong with: no error and no warning may be reported on any of them.

Several are hard on purpose: batches of one to eight rows that by chance hold one class only, as many rows as classes,
networks that know nothing, networks that know too much, formats of few digits, labels that seldom change.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count, cycle
from typing import Any

import numpy as np

import withlogits
from guide.corpus import clean_models as models
from guide.corpus import clean_special as special
from guide.corpus.cases import FORMATS, Case, Pair, cast, like, one_hot
from guide.corpus.classifiers import (
    SINGLE,
    STATES,
    counting,
    outcome,
    pixels,
    runs,
    text,
)

SIZES = (1, 2, 3, 5, 8, 32, 128, None)  # rows; None is all
INDICES = ("int64", "int32", "uint8", "int16", "one column")
DENSE = ("one-hot float32", "one-hot int64", "one-hot bool", "smoothed", "mixup", "teacher")
PLAIN = ("int64", "float32", "bool", "teacher")
SIGMOID = withlogits.sigmoid_cross_entropy_with_logits


def cases() -> Iterator[Case]:
    """All of them, in an order that does not change."""
    for families in (_single, _yes_or_no, _several, _rows, _images, _ignorant, _special, _models):
        for name, form, make in families():
            yield Case(name, make, torch=form.startswith("torch"))


def _rows_of(task: str, state: str, size: int | None, start: int) -> tuple[Any, Any]:
    labels, logits = outcome(task, state)
    if size is None:
        return labels, logits
    start = start * 7 % (len(labels) - size + 1)
    return labels[start : start + size], logits[start : start + size]


# One class an example: each task, state and size once as class numbers and once as rows, the formats taking turns.


def _single() -> Iterator[tuple[str, str, Any]]:
    forms, indices, dense, starts = cycle(FORMATS), cycle(INDICES), cycle(DENSE), count()
    losses = cycle((None, "named", None))
    for task in SINGLE:
        for state in STATES:
            for size in SIZES:
                for kinds in (indices, dense):
                    form, kind, loss = next(forms), next(kinds), next(losses)
                    make = partial(_single_pair, task, state, size, next(starts), form, kind, loss)
                    name = f"{task}, {state}, {size or 'all'} rows, {form}, {kind}, loss {loss}"
                    yield name, form, make
            next(forms)  # or else a size would always meet the same format


def _single_pair(task: str, state: str, size: int | None, start: int, form: str, kind: str, loss: str | None) -> Pair:
    y, logits = _rows_of(task, state, size, start)
    labels = indexed(y, kind) if kind in INDICES else rows(y, SINGLE[task], kind, task, size, start)
    right = "sparse" if kind in INDICES else "softmax"
    return Pair(like(labels, form), cast(logits, form), {} if loss is None else {"loss": right})


def indexed(y: Any, kind: str) -> Any:
    return y[:, None] if kind == "one column" else y.astype(kind)


def rows(y: Any, classes: int, kind: str, task: str, size: int | None, start: int) -> Any:
    """A distribution for each row."""
    if kind.startswith("one-hot"):
        return one_hot(y, classes, kind.removeprefix("one-hot "))
    if kind == "smoothed":
        return (one_hot(y, classes, np.float64) * 0.9 + 0.1 / classes).astype(np.float32)
    if kind == "mixup":
        share = np.random.default_rng(start).beta(0.4, 0.4, len(y)).astype(np.float32)[:, None]
        return share * one_hot(y, classes) + (1 - share) * one_hot(np.roll(y, 1), classes)
    return withlogits.softmax(_rows_of(task, "logistic", size, start)[1])


# One yes or no for each example.


def _yes_or_no() -> Iterator[tuple[str, str, Any]]:
    forms, kinds, starts = cycle(FORMATS), cycle(PLAIN), count()
    losses = cycle((None, "sigmoid", SIGMOID))
    for state in STATES:
        for size in SIZES:
            for column in (False, True):
                form, kind, loss = next(forms), next(kinds), next(losses)
                make = partial(_yes_or_no_pair, state, size, next(starts), form, kind, column, loss)
                shape = "(N, 1)" if column else "(N,)"
                name = f"tumours, {state}, {size or 'all'} rows {shape}, {form}, {kind}, loss {_said(loss)}"
                yield name, form, make
        next(forms), next(kinds)


def _yes_or_no_pair(state: str, size: int | None, start: int, form: str, kind: str, column: bool, loss: Any) -> Pair:
    y, logits = _rows_of("tumours", state, size, start)
    labels = (
        withlogits.sigmoid(_rows_of("tumours", "logistic", size, start)[1]) if kind == "teacher" else y.astype(kind)
    )
    if column:
        labels, logits = labels[:, None], logits[:, None]
    return Pair(like(labels, form), cast(logits, form), {} if loss is None else {"loss": loss})


def _said(loss: Any) -> str:
    return getattr(loss, "__name__", str(loss))


# Several classes at once.


def _several() -> Iterator[tuple[str, str, Any]]:
    forms, kinds, starts = cycle(FORMATS), cycle(PLAIN), count()
    losses = cycle((None, "sigmoid", SIGMOID, "sigmoid"))
    for state in STATES:
        for size in SIZES:
            form, kind, loss = next(forms), next(kinds), next(losses)
            make = partial(_several_pair, state, size, next(starts), form, kind, loss)
            yield f"canvases, {state}, {size or 'all'} rows, {form}, {kind}, loss {_said(loss)}", form, make
        next(forms), next(kinds), next(losses)


def _several_pair(state: str, size: int | None, start: int, form: str, kind: str, loss: Any) -> Pair:
    y, logits = _rows_of("canvases", state, size, start)
    labels = (
        withlogits.sigmoid(_rows_of("canvases", "logistic", size, start)[1]) if kind == "teacher" else y.astype(kind)
    )
    return Pair(like(labels, form), cast(logits, form), {} if loss is None else {"loss": loss})


# Rows of steps, with a class at each, and of the next step.


def _rows() -> Iterator[tuple[str, str, Any]]:
    for form in FORMATS:
        for name, make in (
            ("runs", partial(_steps, 0, None)),
            ("runs, untrained", partial(_steps, 0, "untrained")),
            ("runs, one row", partial(_steps, 1, None)),
            ("runs, padded with -100", partial(_padded, -100)),
            ("runs, padded with -1", partial(_padded, -1)),
            ("runs, as many steps as classes", _square_steps),
            ("counting", partial(_next, counting)),
            ("letters", partial(_next, text)),
            ("letters, one-hot", partial(_next, text, dense=True)),
            ("labels that hardly change", partial(_steps, 0, None, stay=0.95)),
        ):
            yield f"{name}, {form}", form, partial(_formatted, make, form)


def _formatted(make: Any, form: str) -> Pair:
    pair = make()
    options = {name: like(x, form) if isinstance(x, np.ndarray) else x for name, x in pair.options.items()}
    return Pair(like(pair.labels, form), cast(pair.logits, form), options)


def _steps(few: int, state: str | None, stay: float = 0.7) -> Pair:
    y, logits = runs(state or "trained", stay)
    return Pair(y[:few], logits[:few]) if few else Pair(y, logits, {"loss": "sparse"})


def _padded(value: int) -> Pair:
    y, logits = runs()
    labels = y.copy()
    labels[::3, -4:] = value
    return Pair(labels, logits, {"loss": "sparse", "ignore_index": value})


def _square_steps() -> Pair:
    y, logits = runs()
    return Pair(y[:10, :10], logits[:10, :10])


def _next(source: Any, dense: bool = False) -> Pair:
    y, logits = source()
    labels = one_hot(y[:, 1:], logits.shape[-1]) if dense else y[:, 1:]
    return Pair(labels, logits[:, :-1])


# A class for each pixel.


def _images() -> Iterator[tuple[str, str, Any]]:
    for form in FORMATS:
        for name, make in (
            ("channels second", partial(_pixels, 1, 40)),
            ("channels last", partial(_pixels, -1, 40)),
            ("channels second, untrained", partial(_pixels, 1, 40, trained=False)),
            ("one image", partial(_pixels, 1, 1)),
            ("one-hot", partial(_pixels, 1, 8, dense=True)),
            ("a border of 255", _border),
            ("ink or paper", _ink),
        ):
            yield f"pixels, {name}, {form}", form, partial(_formatted, make, form)


def _pixels(axis: int, few: int, trained: bool = True, dense: bool = False) -> Pair:
    y, logits = pixels(trained)
    labels = one_hot(y, 3, np.float32) if dense else y
    if axis == 1:
        logits = np.moveaxis(logits, -1, 1)
        labels = np.moveaxis(labels, -1, 1) if dense else labels
    return Pair(labels[:few], logits[:few], {"axis": axis, "loss": "softmax" if dense else "sparse"})


def _border() -> Pair:
    y, logits = pixels()
    labels = y.astype(np.uint8)
    labels[:, [0, -1]] = 255
    return Pair(labels, np.moveaxis(logits, -1, 1), {"axis": 1, "loss": "sparse", "ignore_index": 255})


def _ink() -> Pair:
    y, logits = pixels()
    return Pair((y == 2).astype(np.float32), logits[..., 2] - np.logaddexp(logits[..., 0], logits[..., 1]))


# Networks that know nothing: whether they are better or worse than chance is chance.


def _ignorant() -> Iterator[tuple[str, str, Any]]:
    for task in ("tumours", "wine", "iris", "digits", "canvases"):
        for state in ("untrained", "early"):
            for seed in range(1, 9):
                yield f"{task}, {state}, seed {seed}", "float32", partial(_seeded, task, state, seed)


def _seeded(task: str, state: str, seed: int) -> Pair:
    return Pair(*outcome(task, state, seed))


# Options, masks, and shapes that invite a false alarm; and models in PyTorch.


def _special() -> Iterator[tuple[str, str, Any]]:
    for form in ("float32", "bfloat16", "torch.float32"):
        for name, make in special.PAIRS:
            yield f"{name}, {form}", form, partial(_formatted, make, form)


def _models() -> Iterator[tuple[str, str, Any]]:
    for name, make in models.PAIRS:
        yield f"model: {name}", "torch", make
