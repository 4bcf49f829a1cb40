"""The summary of a pair of labels and logits, accumulated block by block in one pass, never a copy.

A block is some rows of logits with their labels. The losses come from the public losses, and what there is to count
from `row_statistics`, in one pass of a compiled kernel over logits and labels. Costlier looks (for NaN, for equal rows)
are taken only where the counts have raised the suspicion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits.activations import logsumexp
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
from withlogits.statistics.accumulated import (
    MATRIX,
    Figures,
    LabelStatistics,
    LogitStatistics,
    PairStatistics,
    closeness,
)
from withlogits.statistics.bins import BINS, Bins
from withlogits.statistics.elements import element_counts
from withlogits.statistics.rows import row_statistics
from withlogits.statistics.sample import SIZE, Sample

Array = NDArray[Any]

IGNORED = -1  # stands for labels that do not count, or are no class, when a loss is asked for


@dataclass
class Block:
    """Rows of logits and labels, and what an evaluation asks of them one by one."""

    x: Array  # logits, (..., C on `axis`, ...); sigmoid: (rows, C), contiguous
    z: Array  # labels: (rows) of class numbers, or as the logits
    loss: Array  # (N,); sigmoid: of the listed elements
    listed: Array  # the flat numbers of the rows (sigmoid: elements) that lose at least `floor`
    y: Array  # (N,) the class of each row: its number, or the first of the largest labels; sigmoid: unused
    predicted: Array  # (N,) sigmoid: unused
    counted: Array | None = None  # (N,) which rows count and have a class; None: all
    matrix: Array | None = None  # (C, C) how many rows have which class and prediction, of few classes
    weight: Array | None = None  # (N,); sigmoid: as x, or booleans: which elements count; None: all, with weight 1

    def codes(self, classes: int) -> Array:
        """class · C + prediction of each row that counts."""
        return self.of_counted(self.y * classes + self.predicted)

    def of_counted(self, values: Array) -> Array:
        """Of each row that counts."""
        return values if self.counted is None else values[self.counted]

    @property
    def weights(self) -> Array | None:
        """The weights of the rows that count; None if there are none."""
        return None if self.weight is None else self.of_counted(self.weight)


@dataclass
class Summary:
    """Statistics of a pair of labels and logits. `kind` is "sparse", "softmax" or "sigmoid"."""

    kind: str
    axis: int  # of the classes
    logits: LogitStatistics
    labels: LabelStatistics
    pair: PairStatistics
    ignore_index: float | None = None  # NaN: labels that are NaN
    options: dict[str, Any] = field(default_factory=dict)  # of the loss, that change its value
    bins: Bins | None = None  # of the figures of an evaluation, if they are wanted
    figures: Figures = field(default_factory=lambda: Figures.empty(0, BINS))

    @classmethod
    def begin(
        cls,
        kind: str,
        axis: int,
        classes: int,
        dtypes: tuple[str, str],
        ignore: float | None = None,
        options: dict[str, Any] | None = None,
        sample: int = SIZE,
        bins: Bins | None = None,
    ) -> Summary:
        """With nothing seen yet; `dtypes` are the names of those of logits and labels."""
        return cls(
            kind, axis, LogitStatistics(dtypes[0], classes), LabelStatistics(dtypes[1], kind == "sparse", classes),
            PairStatistics(sample=Sample(sample, independent=kind == "sigmoid")), ignore, options or {}, bins=bins,
            figures=Figures.empty(0 if bins is None else classes, bins or BINS),
        )  # fmt: skip

    def add(
        self, x: Array, z: Array, offset: tuple[int, ...] = (), floor: float = -np.inf, weight: Array | None = None
    ) -> Block:
        """Take in a block: logits with the classes on `axis`, labels without it (sparse) or in the same shape.

        `offset` is where the block lies in the whole, `floor` the loss from which on rows are listed. The weights of
        the figures are those of rows, or of elements of independent classes: float64, or booleans that say which
        count. What has weight 0, or the label that is ignored, does not count.
        """
        offset = offset or (0,) * x.ndim
        kept = None if weight is None else weight > 0
        if self.ignore_index is not None and self.kind != "softmax":
            known = is_known(z, self.ignore_index)
            kept = known if kept is None else kept & known
        kept = None if kept is None or kept.all() else kept
        weight = None if weight is None or weight.dtype == np.bool_ else weight
        with np.errstate(invalid="ignore"):
            return (self._add_elements if self.kind == "sigmoid" else self._add_rows)(x, z, offset, floor, kept, weight)

    def _add_rows(
        self, x: Array, z: Array, offset: tuple[int, ...], floor: float, kept: Array | None, weight: Array | None
    ) -> Block:
        axis, classes, pair = self.axis, self.logits.classes, self.pair
        where = None if kept is None else np.expand_dims(kept, axis)
        seen = None if kept is None else kept.reshape(-1)
        weight = None if weight is None else weight.reshape(-1)
        y, counted = z, None
        if self.kind == "sparse":
            counted = self.labels.add_indices(z, kept, offset[:axis] + offset[axis + 1 :])
            y = z.reshape(-1) if counted is None else np.where(counted, z.reshape(-1), 0)
            y = np.ascontiguousarray(y, np.int64)
            shown = z if counted is None else np.where(counted, y, IGNORED).reshape(z.shape)
            loss = sparse_softmax_cross_entropy_with_logits(
                labels=shown, logits=x, axis=axis, ignore_index=None if counted is None else IGNORED, **self.options
            )
        else:
            if where is not None:
                y = z = np.where(where, z, z.dtype.type(0))
            loss = softmax_cross_entropy_with_logits(labels=z, logits=x, axis=axis, sample_weight=kept, **self.options)
        loss = np.asarray(loss).reshape(-1)
        size = np.asarray(logsumexp(x, axis=axis)).reshape(-1) if self.kind == "softmax" or self.options else None
        counts = row_statistics(
            x, axis, y, close=closeness(self.logits.dtype, classes),
            label_close=closeness(self.labels.dtype, classes), loss=loss, size=size, counted=counted, seen=seen,
            bins=self.bins, weight=weight,
        )  # fmt: skip
        if classes == 1:
            counts["saturated"] = 0
        if self.kind == "softmax":
            self.labels.add_rows(z, axis, counts, seen=seen)
            self.labels.ignored += 0 if seen is None else seen.size - int(np.count_nonzero(seen))
            y = counts["labels"]
            if counted is None and counts["counted"] < len(y):  # rows that want no class are no mistake of the logits
                counted = np.asarray(z.max(axis=axis) > 0).reshape(-1)
        block = Block(x, z, loss, np.zeros(0, np.int64), y, counts["first"], counted, weight=weight)
        rows = x.shape[:axis] + x.shape[axis + 1 :]
        pair.accumulate(counts)
        pair.add_neighbours(y, block.predicted, counted, rows[-1] if rows else 1)
        self._count_classes(block, counts)
        pair.sample.add(x, z, axis, counts["keys"], None if weight is None else weight.reshape(rows))
        self.logits.add(x, axis, counts, offset, where)
        if self.bins is not None:
            listed = loss >= floor
            block.listed = np.flatnonzero(listed if counted is None else listed & counted)
        return block

    def _count_classes(self, block: Block, counts: dict[str, Any]) -> None:
        """Count the classes that occur, and (class, predicted) where there are few."""
        classes, of_class = self.logits.classes, block.of_counted(block.y)
        hot = self.kind == "sparse" or counts["label_hot"] == len(of_class)
        if 1 < classes <= MATRIX and classes**2 <= max(4096, 4 * len(block.y)):
            block.matrix = np.bincount(block.codes(classes), minlength=classes**2).reshape(classes, classes)
        if 1 < classes <= MATRIX and hot:
            if self.pair.matrix is None:
                self.pair.matrix = np.zeros((classes, classes), np.int64)
            if block.matrix is None:
                np.add.at(self.pair.matrix.reshape(-1), block.codes(classes), 1)
            else:
                self.pair.matrix += block.matrix
        if classes > MATRIX and hot:
            self.pair.outcomes.add(block.predicted[:, None], block.y, 1, counts["keys"])
        if self.bins is None and self.kind != "sparse":
            return
        support = np.bincount(of_class, minlength=classes) if block.matrix is None else block.matrix.sum(axis=1)
        if self.kind == "sparse" and classes <= 1 << 20:
            self.labels.accumulate({"counts": support})
        if self.bins is not None:
            loss, weights = block.of_counted(block.loss), block.weights
            if weights is not None:
                support, loss = np.bincount(of_class, weights, classes), loss * weights
            class_loss = np.bincount(of_class, loss, classes)
            self.figures.accumulate(counts | {"class_weight": support, "class_loss": class_loss})

    def _add_elements(
        self, x: Array, z: Array, offset: tuple[int, ...], floor: float, where: Array | None, weight: Array | None
    ) -> Block:
        axis, classes, pair, counted, seen = self.axis, self.logits.classes, self.pair, x.size, None
        if where is not None:  # what does not count is replaced by what changes no count
            seen, counted = where.any(axis=axis).reshape(-1), int(np.count_nonzero(where))
            x, z = np.where(where, x, _any_finite(x[where], x.dtype)), np.where(where, z, z.dtype.type(0))
            weight = where if weight is None else np.where(where, weight, 0.0)
        counts = row_statistics(
            x, axis, z, close=closeness(self.logits.dtype, classes), label_close=closeness(self.labels.dtype, classes),
            seen=seen,
        )  # fmt: skip
        nothing = np.zeros(0, np.int64)
        block = Block(x, z, np.zeros(0), nothing, nothing, nothing, weight=weight)
        yes = None
        if self.bins is None:
            totals = self._totals(x, z, where)
        else:
            binary = counts["label_binary"] == (x.size // classes if seen is None else np.count_nonzero(seen))
            totals = self._count_elements(block, floor, binary)
            yes = totals["answers"][0] if binary and (weight is None or weight is where) else None
        pair.accumulate({name: totals[name] for name in ("loss", "nan", "infinite")} | {"counted": counted})
        if not counts["odd_rows"] and not counts["label_odd"]:
            total = counts["total"] if where is None else float(x.sum(where=where, dtype=np.float64))
            pair.accumulate({"zx": _product(x, z), "x": total, "z": counts["label_total"]})
        self.labels.add_rows(z, axis, counts, yes, seen)
        self.labels.ignored += x.size - counted
        pair.sample.add(x, z, axis, counts["keys"], weight)
        self.logits.add(x, axis, counts, offset, where)
        return block

    def _count_elements(self, block: Block, floor: float, binary: bool) -> dict[str, Any]:
        """The figures of an evaluation; elements lie side by side in the block from then on."""

        def beside(a: Array) -> Array:
            return np.ascontiguousarray(np.moveaxis(a, self.axis, -1)).reshape(-1, self.logits.classes)

        assert self.bins is not None
        x, z = block.x, block.z = beside(block.x), beside(block.z)
        if block.weight is not None:
            block.weight = beside(block.weight)
        counts = element_counts(x, z, bins=self.bins, floor=floor, binary=binary, weight=block.weight)
        self.figures.accumulate(counts | {"weight": counts["class_weight"].sum()})
        block.listed = counts["listed"]
        flat = (a.reshape(-1)[block.listed].astype(np.float64) for a in (z, x))
        block.loss = np.asarray(sigmoid_cross_entropy_with_logits(labels=next(flat), logits=next(flat)))
        return counts

    def _totals(self, x: Array, z: Array, where: Array | None) -> dict[str, Any]:
        """The sum of the finite losses, and how many others there are."""
        options = self.options if where is None else self.options | {"sample_weight": where}
        loss = float(sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction="sum", **options))
        if np.isfinite(loss):
            return {"loss": loss, "nan": 0, "infinite": 0}
        losses = np.asarray(sigmoid_cross_entropy_with_logits(labels=z, logits=x, **options))
        nan, infinite = (int(np.count_nonzero(odd(losses))) for odd in (np.isnan, np.isinf))
        return {"loss": float(losses[np.isfinite(losses)].sum(dtype=np.float64)), "nan": nan, "infinite": infinite}

    def merge(self, other: Summary) -> None:
        """Take in what another summary of the same kind has seen."""
        for name in ("logits", "labels", "pair", "figures"):
            getattr(self, name).merge(getattr(other, name))


def is_known(z: Array, ignored: float) -> Array:
    """Which labels are another than the ignored one, which may be NaN."""
    known: Array = z != ignored if ignored == ignored else ~np.isnan(z)
    return known


def _any_finite(x: Array, dtype: np.dtype[Any]) -> Any:
    """A finite number among these, or 0."""
    finite = x[np.isfinite(x)]
    return finite[0] if finite.size else dtype.type(0)


def _product(x: Array, z: Array) -> float:
    """Σ of label times logit."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    return float(np.dot(x.astype(wide, copy=False).reshape(-1), z.astype(wide, copy=False).reshape(-1)))


def in_rows(kind: str, axis: int, x: Array, z: Array) -> tuple[Array, Array, int]:
    """Logits and labels with an axis of rows, where there was none, and the axis of the classes."""
    if z.dtype == np.uint64:
        z = z.astype(np.int64)
    if kind == "sigmoid" and x.ndim < 2:
        return x.reshape(-1, 1), z.reshape(-1, 1), 1
    if x.ndim == 1:
        return x[None], z[None], 1
    return x, z, axis % x.ndim
