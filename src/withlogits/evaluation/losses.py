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
from withlogits.evaluation.evaluate import matched
from withlogits.evaluation.files import ArrayFile, BadFile
from withlogits.evaluation.files.errors import naming
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
from withlogits.statistics.accumulated import closeness
from withlogits.statistics.summary import is_known
from withlogits.tiles import Tile, Tiling, Turn, cut, position, size

Array = NDArray[Any]
Shape = tuple[int, ...]
Announce = Callable[[str], None]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": sigmoid_cross_entropy_with_logits,
    "softmax": softmax_cross_entropy_with_logits,
    "sparse": sparse_softmax_cross_entropy_with_logits,
}

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
    turn: Turn | None  # the axes of the logits that the labels have; None for one row of labels for all

    @property
    def rows(self) -> Tiling:
        """The blocks of the loss; where index labels keep the class axis, so does the loss."""
        if self.loss == "sparse" and self.turn is not None:
            return self.tiling.turned(self.turn)
        return self.tiling if self.axis is None else self.tiling.without(self.axis)

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.logits.dtype == np.float64 else np.float32)

    def label_blocks(self, announce: Announce | None = None) -> Generator[Array]:
        """A block of labels for each block of logits."""
        if self.turn is not None:
            yield from self.labels.blocks(self.tiling.turned(self.turn), announce)
            return
        (row,) = self.labels.blocks(cut(self.labels.shape, None, math.prod(self.labels.shape), self.labels.fortran))
        for tile in self.tiling:
            yield np.broadcast_to(row, size(self.tiling.shape, tile))


def choose_loss(logits: ArrayFile, labels: ArrayFile, axis: int = -1, announce: Announce | None = None) -> Choice:
    """The loss that the labels' dtype, shape and sums speak for; whether they fit it is for `pair_up` to say.

    Labels in the logits' shape are read up to the first row that does not sum to 1.
    """
    _check_logits(logits)
    dtype, shape = labels.dtype.name, labels.shape
    if shape == logits.shape == ():
        return Choice("sigmoid", "there is one logit and one label")
    with naming(logits.name):
        classes = shapes.class_axis(axis, logits.shape)
    if shape != logits.shape:
        if labels.dtype.kind in "iu" or shape == shapes.rows(logits.shape, classes):
            return Choice("sparse", f"{dtype} labels of shape {shape} are the numbers of classes")
        return Choice("softmax", f"{dtype} labels of shape {shape} are one distribution for all rows")
    dense = f"{dtype} labels have the logits' shape"
    if shape[classes] == 1:
        return Choice("sigmoid", f"{dense}, with one class on axis {classes}")
    odd = _first_odd_row(labels, classes, announce)
    if odd is None:
        return Choice("softmax", f"{dense}, and every row sums to 1")
    return Choice("sigmoid", f"{dense}, and {odd}: independent classes")


def pair_up(logits: ArrayFile, labels: ArrayFile, loss: str, axis: int = -1, in_order: bool = False) -> Pair:
    """Check that the two fit, and cut them into blocks; `in_order` has them visited as the indices count."""
    _check_logits(logits)
    classes = None
    if loss != "sigmoid":
        with naming(logits.name):
            classes = shapes.class_axis(axis, logits.shape)
    kind, one_row = labels.dtype.kind, False
    with naming(labels.name):
        if loss == "sparse" and classes is not None:
            if kind not in "iu":
                raise errors.index_dtype(labels.dtype.name)
            shapes.index_labels_keep_axis(labels.shape, logits.shape, classes)
        elif kind not in "biuf":
            raise errors.label_dtype(labels.dtype.name)
        elif classes is None:
            shapes.check_sigmoid_labels(labels.shape, logits.shape)
        else:
            one_row = shapes.dense_labels_are_one_row(labels.shape, logits.shape, classes, kind in "iu")
    tiling = cut(logits.shape, classes, BUDGET, logits.fortran and not in_order)
    turn = None if one_row else matched(labels.shape, logits.shape, classes or 0)
    return Pair(logits, labels, loss, classes, tiling, turn)


def evaluate(
    pair: Pair,
    *,
    ignore_index: float | None = None,
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
            skipped = 0 if ignore_index is None else z.size - int(np.count_nonzero(is_known(z, ignore_index)))
            ignored += skipped
            count += block.size - skipped
            total = float(block.sum(dtype=np.float64))
            if not math.isfinite(total):
                for kind, there in (("nan", np.isnan(block)), ("infinite", np.isinf(block))):
                    if kind in found:
                        odd = found[kind]
                        found[kind] = replace(odd, count=odd.count + int(np.count_nonzero(there)))
                    elif there.any():
                        found[kind] = _oddity(pair, there, tile, x, z)
            totals.append(total)
            if keep is not None:
                keep(block)
            if progress is not None:
                progress(x.size)
    total = math.fsum(totals) if all(map(math.isfinite, totals)) else sum(totals)
    return Summary(total, count, ignored, found.get("nan"), found.get("infinite"))


def _loss_of(pair: Pair, x: Array, z: Array, ignore_index: float | None) -> Array:
    options: dict[str, Any] = {} if pair.axis is None else {"axis": pair.axis}
    if pair.loss != "softmax":
        options["ignore_index"] = ignore_index
    if pair.loss != "sparse":
        return np.asarray(FUNCTIONS[pair.loss](labels=z, logits=x, **options))
    try:
        return np.asarray(FUNCTIONS["sparse"](labels=z, logits=x, **options))
    except ValueError as error:  # it names a position in the block, where the file's is wanted
        raise (_first_label_outside(pair, ignore_index) or error) from None


def _oddity(pair: Pair, there: NDArray[np.bool_], tile: Tile, x: Array, z: Array) -> Oddity:
    """Describe the losses of a block that are marked, by the first of them."""
    flat = int(np.argmax(there))
    row = x.reshape(-1) if pair.axis is None else np.moveaxis(x, pair.axis, -1).reshape(-1, x.shape[pair.axis])
    label = np.moveaxis(z, pair.axis or 0, -1).reshape(row.shape) if pair.loss == "softmax" else z.reshape(-1)
    cause, blamed = _cause(row[flat], label[flat])
    file = pair.labels if blamed == "labels" else pair.logits
    return Oddity(position(tile, flat), cause, file.name, int(np.count_nonzero(there)))


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


def _first_label_outside(pair: Pair, ignore_index: float | None) -> BadFile | None:
    """The error for the first label that is no class, counted in the whole file."""
    classes = pair.logits.shape[pair.axis or 0]
    tiling = cut(pair.labels.shape, None, BUDGET)
    first, value, lowest, highest = None, 0, classes, 0
    with closing(pair.labels.blocks(tiling)) as blocks:
        for tile, z in zip(tiling, blocks, strict=True):
            lowest, highest = min(lowest, int(z.min())), max(highest, int(z.max()))
            wrong = (z < 0) | (z >= classes)
            if ignore_index is not None:
                wrong &= z != ignore_index
            if first is None and wrong.any():
                flat = int(np.argmax(wrong))
                first, value = position(tile, flat), int(z.reshape(-1)[flat])
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
                flat = int(np.argmax(odd))
                where = ", ".join(map(str, position(tile, flat)))
                return f"row [{where}] sums to {sums.reshape(-1)[flat]:g}"
    return None


def _check_logits(logits: ArrayFile) -> None:
    if logits.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        with naming(logits.name):
            raise errors.logits_dtype("logits", logits.dtype.name)
