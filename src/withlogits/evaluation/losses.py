"""The losses of arrays in files, block by block: what the library computes for the whole arrays.

A loss that is kept has the dtype that the library gives it. A sum or a mean is taken of losses in float64, so that
where the cuts fall can change its last digit at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.evaluation.files import ArrayFile, BadFile
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
from withlogits.statistics.accumulated import closeness
from withlogits.tiles import Tile, Tiling, cut, size

Array = NDArray[Any]
Shape = tuple[int, ...]
Announce = Callable[[str], None]

# The elements of a block: small enough for the caches and for any machine, large enough to make its overhead vanish.
BUDGET = 1 << 20


@dataclass(frozen=True)
class Choice:
    """The loss that fits the labels, and what gave it away."""

    loss: str
    reason: str


@dataclass(frozen=True)
class Oddity:
    """Losses that are NaN or infinite: where the first is, why, whose fault it is, and how many there are."""

    first: Shape
    cause: str
    file: str
    count: int


@dataclass(frozen=True)
class Summary:
    """What came of an evaluation."""

    total: float
    count: int  # rows (sigmoid: elements) that count
    ignored: int
    nan: Oddity | None
    infinite: Oddity | None

    @property
    def mean(self) -> float:
        """0 if nothing counts."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Pair:
    """Logits and labels that fit together, cut into the same blocks."""

    logits: ArrayFile
    labels: ArrayFile
    loss: str
    axis: int | None  # of the classes, counted from the front; None for sigmoid
    tiling: Tiling  # of the logits
    loss_shape: Shape

    @property
    def rows(self) -> Tiling:
        """The blocks of the loss, in the shape that it has without the class axis."""
        return self.tiling if self.axis is None else self.tiling.without(self.axis)

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.logits.dtype == np.float64 else np.float32)

    def label_blocks(self, announce: Announce | None = None) -> Generator[Array]:
        """A block of labels for each block of logits."""
        if self.loss == "sparse":
            yield from self.labels.reshaped(self.rows.shape).blocks(self.rows, announce)
        elif self.labels.shape == self.logits.shape:
            yield from self.labels.blocks(self.tiling, announce)
        else:  # one row of labels for all
            (row,) = self.labels.blocks(cut(self.labels.shape, None, math.prod(self.labels.shape), self.labels.fortran))
            for tile in self.tiling:
                yield np.broadcast_to(row, size(self.tiling.shape, tile))


def choose_loss(logits: ArrayFile, labels: ArrayFile, axis: int = -1, announce: Announce | None = None) -> Choice:
    """The loss that the labels' dtype, shape and sums speak for.

    Labels in the logits' shape are read up to the first row that does not sum to 1.
    """
    _check_logits(logits)
    dtype, shape = labels.dtype.name, labels.shape
    if shape == logits.shape:
        if not shape:
            return Choice("sigmoid", "there is one logit and one label")
        with _naming(logits):
            classes = shapes.class_axis(axis, shape)
        if shape[classes] == 1:
            return Choice("sigmoid", f"{dtype} labels have the logits' shape, with one class on axis {classes}")
        odd = _first_odd_row(labels, classes, announce)
        if odd is None:
            return Choice("softmax", f"{dtype} labels have the logits' shape, and every row sums to 1")
        return Choice("sigmoid", f"{dtype} labels have the logits' shape, and {odd}: independent classes")
    with _naming(logits):
        classes = shapes.class_axis(axis, logits.shape)
    integers = labels.dtype.kind in "iu"
    rows = logits.shape[:classes] + logits.shape[classes + 1 :]
    with _naming(labels):
        if integers or shape == rows:
            shapes.index_labels_keep_axis(shape, logits.shape, classes)
            if not integers:
                raise errors.index_dtype(dtype)
            return Choice("sparse", f"{dtype} labels of shape {shape} are the numbers of classes")
        shapes.dense_labels_are_one_row(shape, logits.shape, classes, integers)
        return Choice("softmax", f"{dtype} labels of shape {shape} are one distribution for all rows")


def pair_up(logits: ArrayFile, labels: ArrayFile, loss: str, axis: int = -1, in_order: bool = False) -> Pair:
    """Check that the two fit, and cut them into blocks; `in_order` has them visited as the indices count."""
    _check_logits(logits)
    kind = labels.dtype.kind
    rows = logits.shape
    classes = None
    if loss != "sigmoid":
        with _naming(logits):
            classes = shapes.class_axis(axis, logits.shape)
        rows = logits.shape[:classes] + logits.shape[classes + 1 :]
    loss_shape = rows
    with _naming(labels):
        if loss == "sparse" and classes is not None:
            if kind not in "iu":
                raise errors.index_dtype(labels.dtype.name)
            if shapes.index_labels_keep_axis(labels.shape, logits.shape, classes):
                loss_shape = labels.shape
        elif kind not in "biuf":
            raise errors.label_dtype(labels.dtype.name)
        elif classes is not None:
            shapes.dense_labels_are_one_row(labels.shape, logits.shape, classes, kind in "iu")
        elif labels.shape != logits.shape:
            raise shapes.sigmoid_misfit(labels.shape, logits.shape)
    tiling = cut(logits.shape, classes, BUDGET, logits.fortran and not in_order)
    return Pair(logits, labels, loss, classes, tiling, loss_shape)


def evaluate(
    pair: Pair,
    *,
    ignore_index: int | None = None,
    keep: Callable[[Array], None] | None = None,
    progress: Callable[[int], None] | None = None,
    announce: Announce | None = None,
) -> Summary:
    """The losses of all blocks.

    `keep` takes the losses of one block after another, in the library's dtype; without it they are computed in float64,
    for their sum. `progress` hears how many logits each block had.
    """
    totals: list[float] = []
    found: dict[str, Oddity] = {}
    count = ignored = 0
    with closing(pair.logits.blocks(pair.tiling, announce)) as xs, closing(pair.label_blocks(announce)) as zs:
        for tile, x, z in zip(pair.rows, xs, zs, strict=True):
            block = _loss_of(pair, x if keep is not None else x.astype(np.float64), z, ignore_index)
            skipped = int(np.count_nonzero(z == ignore_index)) if ignore_index is not None else 0
            ignored += skipped
            count += block.size - skipped
            total = float(block.sum(dtype=np.float64))
            if not math.isfinite(total):
                _note(found, "nan", np.isnan(block), pair, tile, x, z)
                _note(found, "infinite", np.isinf(block), pair, tile, x, z)
            totals.append(total)
            if keep is not None:
                keep(block)
            if progress is not None:
                progress(x.size)
    total = math.fsum(totals) if all(map(math.isfinite, totals)) else sum(totals)
    return Summary(total, count, ignored, found.get("nan"), found.get("infinite"))


def _loss_of(pair: Pair, x: Array, z: Array, ignore_index: int | None) -> Array:
    if pair.axis is None:
        return np.asarray(sigmoid_cross_entropy_with_logits(labels=z, logits=x))
    if pair.loss == "softmax":
        return np.asarray(softmax_cross_entropy_with_logits(labels=z, logits=x, axis=pair.axis))
    try:
        return np.asarray(
            sparse_softmax_cross_entropy_with_logits(labels=z, logits=x, axis=pair.axis, ignore_index=ignore_index)
        )
    except ValueError as error:  # it names a position in the block, where the file's is wanted
        raise (_first_label_outside(pair, ignore_index) or error) from None


def _note(
    found: dict[str, Oddity], kind: str, there: NDArray[np.bool_], pair: Pair, tile: Tile, x: Array, z: Array
) -> None:
    count = int(np.count_nonzero(there))
    if count and kind in found:
        found[kind] = replace(found[kind], count=found[kind].count + count)
    elif count:
        flat = int(np.argmax(there))
        inside = np.unravel_index(flat, there.shape)
        row = x[inside] if pair.axis is None else np.moveaxis(x, pair.axis, -1)[inside]
        wanted = (
            np.moveaxis(z, pair.axis, -1)[inside] if pair.loss == "softmax" and pair.axis is not None else z[inside]
        )
        cause, blamed = _cause(np.asarray(row), np.asarray(wanted))
        file = pair.labels if blamed == "labels" else pair.logits
        found[kind] = Oddity(_position(flat, pair, tile), cause, file.name, count)


def _cause(x: Array, z: Array) -> tuple[str, str]:
    """Why the loss of a row is NaN or infinite, and whether logits or labels are to blame."""
    if z.dtype.kind == "f" and not np.isfinite(z).all():
        return "a label is NaN or infinite", "labels"
    if np.isnan(x).any():
        return "a logit is NaN", "logits"
    if x.ndim and np.isposinf(x).any():
        return "a logit is inf", "logits"
    if x.ndim and np.isneginf(x).all():
        return "every logit is -inf", "logits"
    return "the label wants what an infinite logit rules out", "logits"


def _position(flat: Any, pair: Pair, tile: Tile) -> Shape:
    """Where in the whole loss the element `flat` of a block lies; labels may have kept the class axis."""
    inside = np.unravel_index(int(flat), size(pair.rows.shape, tile))
    where = [int(part.start + i) for part, i in zip(tile, inside, strict=True)]
    if len(pair.loss_shape) > len(where) and pair.axis is not None:
        where.insert(pair.axis, 0)
    return tuple(where)


def _first_label_outside(pair: Pair, ignore_index: int | None) -> BadFile | None:
    """The error for the first label that is no class, counted in the whole file."""
    classes = pair.logits.shape[pair.axis or 0]
    labels = pair.labels.reshaped(pair.rows.shape)
    tiling = cut(labels.shape, None, BUDGET)
    first, value, lowest, highest = None, 0, classes, 0
    with closing(labels.blocks(tiling)) as blocks:
        for tile, z in zip(tiling, blocks, strict=True):
            lowest, highest = min(lowest, int(z.min())), max(highest, int(z.max()))
            wrong = (z < 0) | (z >= classes)
            if ignore_index is not None:
                wrong &= z != ignore_index
            if first is None and wrong.any():
                flat = int(np.argmax(wrong))
                first, value = _position(flat, pair, tile), int(z.reshape(-1)[flat])
    if first is None:
        return None
    from_one = value == classes and lowest >= 1 and highest == classes
    return BadFile(f"{pair.labels.name}: {errors.label_outside(first, value, classes, from_one)}")


def _first_odd_row(labels: ArrayFile, axis: int, announce: Announce | None) -> str | None:
    """A label row that is no distribution, in words; None if all are."""
    tiling = cut(labels.shape, axis, BUDGET, labels.fortran)
    close = closeness(labels.dtype.name, labels.shape[axis])
    with closing(labels.blocks(tiling, announce)) as blocks:
        for tile, z in zip(tiling.without(axis), blocks, strict=True):
            sums = z.sum(axis=axis, dtype=np.float64)
            odd = ~(np.abs(sums - 1.0) <= close) | (z.min(axis=axis) < 0)
            if odd.any():
                inside = np.unravel_index(int(np.argmax(odd)), odd.shape)
                where = ", ".join(str(part.start + int(i)) for part, i in zip(tile, inside, strict=True))
                return f"row [{where}] sums to {sums[inside]:g}"
    return None


def _check_logits(logits: ArrayFile) -> None:
    if logits.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        with _naming(logits):
            raise errors.logits_dtype("logits", logits.dtype.name)


class _naming:
    """What `arguments` finds wrong with an array becomes a sentence that begins with its file's name."""

    def __init__(self, array: ArrayFile) -> None:
        self.array = array

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (TypeError, ValueError)):
            raise BadFile(f"{self.array.name}: {error}") from None
