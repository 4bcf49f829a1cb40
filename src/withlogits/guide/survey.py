"""All that the guide looks at, gathered block by block in one pass, never a copy.

A block is some rows of logits with their labels. What a row is like comes from `row_facts` (one pass of a compiled
kernel over the logits, one over dense labels), the losses from the public losses, and what there is to count of them
from `row_tallies` (one pass over the rows' numbers). Costlier looks (for NaN, for equal rows) are taken only after the
cheap facts have raised the suspicion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from withlogits import engine
from withlogits.activations import logsumexp
from withlogits.guide.arrays import without
from withlogits.guide.facts import MATRIX, LabelFacts, LogitFacts, PairFacts, closeness
from withlogits.guide.temperature import SIZE, Sample
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)

if TYPE_CHECKING:
    from withlogits.evaluation.bins import Bins

Array = NDArray[Any]

IGNORED = -1  # what stands for labels that do not count, or are no class, when a loss is asked for


@dataclass
class Block:
    """Rows of logits and labels with what has been found out about each row."""

    x: Array  # logits, (..., C on `axis`, ...)
    z: Array  # labels: (rows) of class numbers, or as the logits
    axis: int
    y: Array  # (N,) the class of each row: its number, or the first of the largest labels; sigmoid: unused
    counts: Array | None  # (N,) which rows count and have a class; None: all
    loss: Array  # (N,); sigmoid: unused
    facts: dict[str, Array]  # of the logits' rows; sigmoid: unused
    label_facts: dict[str, Array] | None  # of the rows of dense labels; sigmoid: unused
    size: Array | None = None  # (N,) logsumexp of each row, where the loss does not tell it
    tallies: dict[str, Any] = field(default_factory=dict)  # what was counted; sigmoid: for an evaluation alone

    @property
    def predicted(self) -> Array:
        return self.facts["first"].astype(np.int64)

    @property
    def elements(self) -> tuple[Array, Array]:
        """Logits and labels of independent classes, (rows, C), side by side."""
        moved = (np.moveaxis(a, self.axis, -1) for a in (self.x, self.z))
        x, z = (np.ascontiguousarray(a).reshape(-1, self.x.shape[self.axis]) for a in moved)
        return x, z

    def pairs(self, classes: int) -> Array:
        """class · C + prediction of each row that counts."""
        codes = self.y * classes + self.predicted
        return codes if self.counts is None else codes[self.counts]


@dataclass
class Survey:
    """A pair of labels and logits, looked at block by block. `kind` is "sparse", "softmax" or "sigmoid"."""

    kind: str
    axis: int  # of the classes
    logits: LogitFacts
    labels: LabelFacts
    pair: PairFacts
    ignore_index: int | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of the loss, that change its value
    bins: Bins | None = None  # of the figures of an evaluation, if they are wanted
    floor: float = -np.inf  # losses that are worth remembering one by one

    @classmethod
    def begin(
        cls,
        kind: str,
        axis: int,
        classes: int,
        logits: str,
        labels: str,
        ignore: int | None,
        options: dict[str, Any],
        sample: int = SIZE,
    ) -> Survey:
        """With nothing seen yet; `logits` and `labels` are the names of dtypes."""
        return cls(
            kind, axis, LogitFacts(logits, classes), LabelFacts(labels, kind == "sparse", classes),
            PairFacts(sample=Sample(sample, independent=kind == "sigmoid")), ignore, options,
        )  # fmt: skip

    def add(self, x: Array, z: Array, offset: tuple[int, ...] = ()) -> Block:
        """Look at a block: logits with the classes on `axis`, labels without it (sparse) or in the same shape.

        `offset` is where the block lies in the whole.
        """
        offset = offset or (0,) * x.ndim
        if self.kind == "sigmoid":
            return self._add_elements(x, z, offset)
        rows, label_facts, size = engine.select().row_facts, None, None
        if self.kind == "sparse":
            row_offset = offset[: self.axis] + offset[self.axis + 1 :]
            counts = self.labels.add_indices(z, self.ignore_index, row_offset)
            y = z.reshape(-1)
            if counts is not None:
                y = np.where(counts, y, 0)
            y = np.ascontiguousarray(y, np.int64)
            facts = rows(x, self.axis, y)
            labels = z if counts is None else np.where(counts, y, IGNORED).reshape(z.shape)
            with np.errstate(invalid="ignore"):
                loss = sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=x, axis=self.axis, ignore_index=None if counts is None else IGNORED,
                    **self.options,
                )  # fmt: skip
        else:
            label_facts = rows(z, self.axis)
            close = closeness(self.labels.dtype, self.labels.classes)
            self.labels.add_rows(z, self.axis, engine.select().label_tallies(label_facts, close))
            y, counts = label_facts["first"].astype(np.int64), None
            if self.labels.distributions < self.labels.rows:  # rows that want no class are no mistake of the logits
                counts = label_facts["top"] > 0.0
                counts = None if counts.all() else counts
            facts = rows(x, self.axis, y)
            loss = softmax_cross_entropy_with_logits(labels=z, logits=x, axis=self.axis, **self.options)
        if self.kind == "softmax" or self.options:
            size = np.asarray(logsumexp(x, axis=self.axis)).reshape(-1).astype(np.float64)
        block = Block(x, z, self.axis, y, counts, np.asarray(loss).reshape(-1), facts, label_facts, size)
        self._count(block)
        self.logits.add(x, self.axis, block.tallies, offset, facts)
        return block

    def _count(self, block: Block) -> None:
        pair, classes, rows = self.pair, self.logits.classes, len(block.y)
        shape = without(block.x.shape, block.axis)
        hot = block.label_facts is None or bool((block.label_facts["top"] == 1.0).all())
        wanted = 1 < classes <= MATRIX
        for limit in pair.sample.limits(classes, rows):
            block.tallies = tallies = engine.select().row_tallies(
                block.facts, block.y, block.loss, classes=classes, line=shape[-1] if shape else 1,
                matrix=wanted and classes * classes <= max(4096, 4 * rows), limit=limit,
                counts=block.counts, size=block.size, bins=self.bins, floor=self.floor,
            )  # fmt: skip
            if pair.sample.enough(classes, len(tallies["keyed"])):
                break
        for name in (
            "right", "counted", "loss", "nan", "infinite", "neighbours", "in_place", "ahead", "behind", "changes",
        ):  # fmt: skip
            setattr(pair, name, getattr(pair, name) + tallies[name])
        if classes > 1:
            self.logits.saturated += tallies["saturated"]
        if self.kind == "sparse" and classes <= 1 << 20:
            counts = self.labels.counts
            self.labels.counts = tallies["support"] if counts is None else counts + tallies["support"]
        if wanted and hot:
            if pair.matrix is None:
                pair.matrix = np.zeros((classes, classes), np.int64)
            if tallies["matrix"] is None:
                np.add.at(pair.matrix.reshape(-1), block.pairs(classes), 1)
            else:
                pair.matrix += tallies["matrix"]
        pair.sample.add(block.x, block.z, block.axis, tallies["keyed"], tallies["keys"])

    def _add_elements(self, x: Array, z: Array, offset: tuple[int, ...]) -> Block:
        pair, rows = self.pair, x.size // x.shape[self.axis]
        close = closeness(self.labels.dtype, self.labels.classes)
        for limit in pair.sample.limits(self.logits.classes, rows):
            tallies = engine.select().pair_tallies(x, z, self.axis, close, limit)
            if pair.sample.enough(self.logits.classes, len(tallies["logits"]["keyed"])):
                break
        of_logits = tallies["logits"]
        self.logits.add(x, self.axis, of_logits, offset)
        self.logits.saturated += of_logits["saturated"]
        block = Block(x, z, self.axis, np.zeros(0, np.int64), None, np.zeros(0), {}, None)
        if self.bins is not None:
            binary = tallies["binary"] == rows
            block.tallies = engine.select().element_tallies(
                *block.elements, bins=self.bins, floor=self.floor, binary=binary
            )
        totals = block.tallies or self._totals(x, z)
        for name in ("loss", "nan", "infinite"):
            setattr(pair, name, getattr(pair, name) + totals[name])
        pair.counted += x.size
        if not of_logits["odd_rows"] and not tallies["odd"]:
            pair.zx += totals["agreement"]
            pair.x += of_logits["total"]
            pair.z += tallies["total"]
        yes = block.tallies["answers"][0] if block.tallies and binary else None
        self.labels.add_rows(z, self.axis, tallies, yes)
        pair.sample.add(x, z, self.axis, of_logits["keyed"], of_logits["keys"])
        return block

    def _totals(self, x: Array, z: Array) -> dict[str, Any]:
        """Of elements, the sums of `element_tallies`; from the loss where options or the arrays' layout want that."""
        if not self.options and x.flags.c_contiguous and z.flags.c_contiguous:
            totals: dict[str, Any] = engine.select().element_tallies(x.reshape(-1, 1), z.reshape(-1, 1))
            return totals
        loss = float(sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction="sum", **self.options))
        found: dict[str, Any] = {"loss": loss, "nan": 0, "infinite": 0}
        if not np.isfinite(loss):
            losses = np.asarray(sigmoid_cross_entropy_with_logits(labels=z, logits=x, **self.options))
            found["nan"], found["infinite"] = (int(np.count_nonzero(odd(losses))) for odd in (np.isnan, np.isinf))
            found["loss"] = float(losses[np.isfinite(losses)].sum(dtype=np.float64))
        wide = np.float64 if x.dtype == np.float64 else np.float32
        a, b = x.astype(wide, copy=False).reshape(-1), z.astype(wide, copy=False).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            found["agreement"] = float(np.dot(a, b))
        return found

    def merge(self, other: Survey) -> None:
        """Take in what another survey of the same kind has seen."""
        self.logits.merge(other.logits)
        self.labels.merge(other.labels)
        self.pair.merge(other.pair)


def in_rows(kind: str, axis: int, x: Array, z: Array) -> tuple[Array, Array, int]:
    """Logits and labels with an axis of rows, where there was none, and the axis of the classes."""
    if z.dtype == np.uint64:
        z = z.astype(np.int64)
    if kind == "sigmoid" and x.ndim < 2:
        return x.reshape(-1, 1), z.reshape(-1, 1), 1
    if x.ndim == 1:
        return x[None], z[None], 1
    return x, z, axis % x.ndim
