"""An evaluation of whole arrays, in memory or in files of any size, block by block in one pass."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.evaluation.files import ArrayFile, open_array
from withlogits.evaluation.files.array import Lend
from withlogits.evaluation.files.errors import naming
from withlogits.evaluation.meter import Meter
from withlogits.evaluation.prefetch import prefetch
from withlogits.evaluation.results import Evaluation
from withlogits.guide.arrays import given
from withlogits.statistics.bins import BINS
from withlogits.tiles import Tiling, Turn, cut

Array = NDArray[Any]
Shape = tuple[int, ...]
Announce = Callable[[str], None]

# The elements of a block. Beside three blocks (one looked at, one read, one ready) there are a dozen numbers a row, or
# for independent classes an element: all of it stays below 200 megabytes, and is large enough that Python costs little.
BUDGET = 1 << 22
ROWS = 1 << 17
ELEMENTS = 1 << 20
# Bytes of a file below which a thread that reads ahead is not worth its start.
SMALL = 1 << 24


class InMemory:
    """An array as a source of blocks."""

    def __init__(self, name: str, x: Any) -> None:
        self.name = name
        self._array = given(name, x).array
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.fortran = self._array.flags.f_contiguous and not self._array.flags.c_contiguous

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        """Views."""
        for tile in tiling:
            yield self._array[tile]


Source = ArrayFile | InMemory


def evaluate(
    labels: Any,
    logits: Any,
    *,
    loss: str | Callable[..., Any] | None = None,
    axis: int = -1,
    ignore_index: float | None = None,
    sample_weight: Any = None,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    calibration_bins: int = BINS.confidence,
    classwise: bool = False,
) -> Evaluation:
    """How good logits are for labels: loss, accuracy, calibration, what is confused, and first what is wrong.

    One pass, block by block; files may be larger than memory. All figures are those that `Meter` computes.

    Parameters
    ----------
    labels, logits : array, or str or path
        Arrays of NumPy, PyTorch or JAX, or files: .npy, .npz, .safetensors, .parquet, .zarr, HDF5; ``"run.npz:logits"``
        names one array of several.
    loss : {"sigmoid", "softmax", "sparse"} or a loss of withlogits, optional
        The loss that is meant; without it the one that fits the labels.
    axis : int
        The axis of the classes.
    ignore_index : int or NaN, optional
        Rows with this label do not count (sparse); of independent classes, elements with this label: −1, 255, or NaN,
        which takes labels that are NaN for missing ones.
    sample_weight : array, or str or path, optional
        Weights of examples, in the shape of the logits without their classes, or of elements of independent classes in
        the shape of the logits. All figures but the costliest examples and the histogram are weighted.
    class_names : sequence of str, optional
        What the report calls the classes.
    thresholds, calibration_bins, classwise
        What is computed besides, as for `Meter`.

    Returns
    -------
    Evaluation
        Print it, or write a page with ``.report("report.html")``. Losses are in nats.

    Raises
    ------
    withlogits.evaluation.files.BadFile, NoSuchArray
        With one sentence that begins with the file's name: damaged files, and files that do not fit together.
    TypeError, ValueError
        For arrays that do not fit together, and options that are none.
    DiagnosisError
        A `ValueError`, for labels and logits that were swapped or are no logits at all.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.2, 0.0, 0.1]])
    >>> evaluation = withlogits.evaluate(np.array([0, 1, 2]), logits)
    >>> round(evaluation.loss, 4), round(evaluation.perplexity, 4), evaluation.top_k[1]
    (0.6739, 1.9619, 0.6666666666666666)
    """
    meter = Meter(
        loss=loss,
        axis=axis,
        ignore_index=ignore_index,
        class_names=class_names,
        thresholds=thresholds,
        calibration_bins=calibration_bins,
        classwise=classwise,
    )
    weights = None if sample_weight is None else source("sample_weight", sample_weight)
    for _ in counting(meter, source("logits", logits), source("labels", labels), weights):
        pass
    return meter.compute()


def blaming(source: Source) -> AbstractContextManager[None]:
    """Say of which file it is what is found wrong; an array's own error names it."""
    return nullcontext() if isinstance(source, InMemory) else naming(source.name)


def source(name: str, x: Any) -> Source:
    """A file, if it is a name or a path; an array otherwise."""
    return open_array(os.fspath(x)) if isinstance(x, (str, os.PathLike)) else InMemory(name, x)


def counting(
    meter: Meter, logits: Source, labels: Source, weights: Source | None = None, announce: Announce | None = None
) -> Iterator[int]:
    """Let the meter count all blocks; yields how many logits each had, after it was counted."""
    meter.sources = {
        role: s.name
        for role, s in (("logits", logits), ("labels", labels), ("sample_weight", weights))
        if s is not None and not isinstance(s, InMemory)
    }
    if logits.dtype.kind in "biu" and labels.shape:  # swapped, or predictions: the first few tell as much as all
        meter._count(first_of(labels, announce), first_of(logits, announce), (0,))
        return
    tiling, turn = plan(logits, labels, meter.loss, meter.axis)
    if not math.prod(tiling.shape):
        meter._count(np.zeros(labels.shape, labels.dtype), np.zeros(logits.shape, logits.dtype), (0,))
        return
    with ExitStack() as stack:
        xs = stack.enter_context(closing(reading(logits, tiling, announce)))
        zs = stack.enter_context(closing(reading(labels, tiling.turned(turn), announce)))
        ws: Iterable[Array | None] = itertools.repeat(None)
        if weights is not None:
            of_weights = tiling.turned(weight_turn(weights, logits.shape, turn, meter.axis))
            ws = stack.enter_context(closing(reading(weights, of_weights, announce)))
        for tile, x, z, w in zip(tiling, xs, zs, ws, strict=weights is not None):
            meter._count(z, x, tuple(part.start for part in tile), w)
            yield x.size


def reading(s: Source, tiling: Tiling, announce: Announce | None) -> Generator[Array]:
    """The blocks; those of a large file are read by a thread of their own."""
    if not isinstance(s, ArrayFile) or s.nbytes <= SMALL:
        return s.blocks(tiling, announce)
    return prefetch(lambda lend: s.blocks(tiling, announce, lend), math.prod(tiling.extents), s.dtype)


def first_of(s: Source, announce: Announce | None) -> Array:
    """A block from the beginning."""
    with closing(s.blocks(cut(s.shape, None, BUDGET, s.fortran), announce)) as blocks:
        return np.array(next(blocks, np.zeros(s.shape, s.dtype)))


def plan(logits: Source, labels: Source, loss: str | None, axis: int) -> tuple[Tiling, Turn]:
    """The blocks of the logits, and which axis of the logits each axis of the labels is.

    Raises `BadFile` for arrays that cannot be matched.
    """
    x, z = logits.shape, labels.shape
    with blaming(labels):
        if not x:
            shapes.check_sigmoid_labels(z, x)
            return Tiling((), (), False), ()
    with blaming(logits):
        classes = shapes.class_axis(axis, x)
    with blaming(labels):
        turn = matched(z, x, classes)
        if turn is None:
            if loss != "sigmoid" and len(z) < len(x):
                shapes.index_labels_keep_axis(z, x, classes)
            raise shapes.sigmoid_misfit(z, x)
    missing = set(range(len(x))) - {a for a in turn if a is not None}
    if len(missing) == 1 and loss is None:
        (classes,) = missing  # the labels say where the classes are
    # labels in the logits' shape may turn out to be independent, and then there is much to say of each element
    elements = ELEMENTS if not missing and loss != "softmax" else BUDGET
    rows = ROWS * max(1, x[classes])
    return cut(x, classes if len(x) > 1 or loss != "sigmoid" else None, min(elements, rows), logits.fortran), turn


def weight_turn(weights: Source, logits: Shape, labels: Turn, axis: int) -> Turn:
    """Which axis of the logits each axis of the weights is: of all elements, or of rows without their classes."""
    axes = tuple(range(len(logits)))
    missing = set(axes) - {a for a in labels if a is not None}
    if weights.shape == logits and not missing:
        return axes
    classes = missing.pop() if len(missing) == 1 else shapes.class_axis(axis, logits)
    rows = shapes.rows(logits, classes)
    with blaming(weights):
        if weights.shape != rows:
            raise errors.weight_shape("sample_weight", weights.shape, rows, "rows")
    return shapes.rows(axes, classes)


def matched(labels: Shape, logits: Shape, axis: int) -> Turn | None:
    """Which axis of the logits each axis of the labels is, if the shapes fit in any way that a fix knows."""
    axes = tuple(range(len(logits)))
    if labels == logits:
        return axes
    lacking = axis if labels == shapes.rows(logits, axis) else shapes.other_class_axis(labels, logits)
    if lacking is not None:
        return shapes.rows(axes, lacking)
    if labels == shapes.rows_kept(logits, axis):
        return tuple(None if a == axis else a for a in axes)
    if shapes.longer_by_one(labels, logits) == "labels":
        return (*axes, None)
    if len(labels) == 2 and shapes.is_transposed(labels, logits):
        return axes[::-1]
    moved = shapes.moved_class_axis(labels, logits, axis)
    if moved is None:
        return None
    others = shapes.rows(axes, axis)
    return (*others[:moved], axis, *others[moved:])
