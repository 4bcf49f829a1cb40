"""What is counted of rows and elements, on compiled kernels: pieces of them, their counters, and the sums of these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .call import Dtype, Plan
from .host_facts import layout_of, row_facts
from .job import (
    ANSWER_BITS,
    CLASS_TABLES,
    ELEMENTS_JOB,
    LABEL_COUNTS,
    LABEL_VECTORS,
    LABELS_JOB,
    LANES,
    LOGIT_COUNTS,
    LOGIT_VECTORS,
    MOST_ELEMENTS,
    PAIRS_JOB,
    SCORE_CLASSES,
    SCORES_JOB,
    TALLIES_JOB,
    TALLY_COUNTS,
    TALLY_VECTORS,
    TILE,
    WIDE,
    ElementsSpec,
    FactsSpec,
    Figures,
    LabelsSpec,
    PairsSpec,
    ScoresSpec,
    TalliesSpec,
    period,
)
from .layout import Array, Strides, address, two_levels, without

PIECES = 16  # at most
GRAIN = 4096  # rows of a piece, at least
COST = 16  # a row takes as long as so many elements of a loss
ELEMENT_COST = 8
LABEL_COST = 8
SIGN = 1 << 63
PAIRED = LabelsSpec(True)


def row_tallies(
    facts: dict[str, Array],
    y: Array,
    loss: Array,
    *,
    classes: int,
    line: int,
    matrix: bool,
    limit: int,
    counts: Array | None = None,
    size: Array | None = None,
    bins: Any = None,
    floor: float = -np.inf,
) -> dict[str, Any]:
    """What `reference.row_tallies` says, which explains the arguments; all arrays lie side by side."""
    within = () if bins is None else bins.within
    spec = TalliesSpec(loss.dtype.name, size is not None, counts is not None, matrix, _figures(bins), within)
    rows, room = len(y), spec.end(classes)
    plan, grain = _plan(spec, rows, line, classes, room)
    pieces = plan.count
    out = _counters(pieces, room)
    lists = np.empty((1 if bins is None else 2, pieces, grain + LANES, 2), np.int64)
    plan.run(
        TALLIES_JOB.fill(
            address(facts["top"]), address(loss), address(y), 0 if size is None else address(size),
            0 if counts is None else address(counts), address(out), address(lists),
            0 if bins is None else address(lists[1]), limit - SIGN, floor,
        )
    )  # fmt: skip
    found = _read(spec, out, lists, classes)
    if counts is None:
        found["counted"], found["neighbours"] = rows, rows // line * (line - 1)
    return found


@lru_cache(maxsize=256)
def _plan(spec: TalliesSpec, rows: int, line: int, classes: int, room: int) -> tuple[Plan, int]:
    pieces, grain = _pieces(rows, room)
    head = TALLIES_JOB.plan(rows, grain, max(1, line), classes, rows * 8, _step(room))
    return Plan(spec, head, pieces, rows * COST, 1, ()), grain


def _counters(pieces: int, room: int) -> Array:
    """Zeros, of which each piece's begin on a cache line: what lies on two is slow to be read after it was written."""
    step = _step(room) // 8
    zeros = np.zeros(pieces * step + 8, np.int64)
    begin = -(address(zeros) // 8) % 8
    counters: Array = zeros[begin : begin + pieces * step].reshape(pieces, step)[:, :room]
    return counters


def _step(room: int) -> int:
    """Bytes from one piece's counters to the next one's."""
    return -(-room // 8) * 64


def _pieces(count: int, room: int) -> tuple[int, int]:
    """How many pieces, and how much each has; large beside their counters, which are added up in the end.

    They do not depend on the threads.
    """
    pieces = max(1, min(PIECES, count // max(GRAIN, 4 * room)), count // MOST_ELEMENTS + 1)
    return pieces, -(-count // (pieces * LANES)) * LANES


def _read(spec: TalliesSpec, out: Array, lists: Array, classes: int) -> dict[str, Any]:
    vectors = out[:, : spec.counts_at].view(np.float64).reshape(len(out), len(TALLY_VECTORS), LANES)
    listed = out[:, spec.within_at - 2 : spec.within_at].T
    numbers, sums = (a[:, spec.counts_at :].sum(axis=0) for a in (out, out.view(np.float64)))

    def counted(begin: int, count: int) -> Array:
        found: Array = numbers[begin - spec.counts_at :][:count]
        return found

    def summed(begin: int, count: int) -> Array:
        found: Array = sums[begin - spec.counts_at :][:count]
        return found

    found = _merged(TALLY_VECTORS, vectors)
    found |= zip(
        TALLY_COUNTS[:-2], numbers[: len(TALLY_COUNTS) - 2].tolist(), strict=True
    )  # but the lengths of the lists
    keyed = _joined(lists[0], listed[0])
    found["keyed"], found["keys"] = keyed[:, 0], np.ascontiguousarray(keyed[:, 1]).view(np.uint64)
    occur = counted(spec.classes_at, classes * classes if spec.matrix else classes)
    found["matrix"] = occur.reshape(classes, classes) if spec.matrix else None
    found["support"] = found["matrix"].sum(axis=1) if spec.matrix else occur
    if spec.figures is not None:
        found["within"] = counted(spec.within_at, len(spec.within))
        found |= _of_figures(spec.figures, out[:, spec.figures_at :])
        found["class_loss"] = summed(spec.class_loss_at(classes), classes)
        found["costly"] = _joined(lists[1], listed[1])[:, 0]
    return found


def _joined(parts: Array, counts: Array) -> Array:
    """The entries of all lists, which fill as much of their parts."""
    return np.concatenate([part[:n] for part, n in zip(parts, counts.tolist(), strict=True)])


def label_tallies(
    label_facts: dict[str, Array], close: float, facts: dict[str, Array] | None = None, limit: int = 0
) -> dict[str, Any]:
    """What `reference.label_tallies` says, which explains the arguments."""
    rows = len(label_facts["top"])
    spec = LabelsSpec(facts is not None)
    plan, grain = _labels_plan(spec, rows)
    out, keyed = _counters(plan.count, spec.end), np.empty((plan.count, grain + LANES, 2), np.int64)
    plan.run(
        LABELS_JOB.fill(
            address(label_facts["top"]), 0 if facts is None else address(facts["top"]), address(out), address(keyed),
            limit - SIGN, close,
        )
    )  # fmt: skip
    return _of_labels(spec, out, keyed)


def pair_tallies(x: Array, z: Array, axis: int, close: float, limit: int) -> dict[str, Any]:
    """What `reference.pair_tallies` says, which explains the arguments."""
    found = _pairs_plan(x.shape, axis, x.dtype, x.strides, z.dtype, z.strides) if x.size else None
    if found is None:
        return label_tallies(row_facts(z, axis), close, row_facts(x, axis), limit)
    plan, grain = found
    out, keyed = _counters(plan.count, PAIRED.end), np.empty((plan.count, grain + LANES, 2), np.int64)
    plan.run(PAIRS_JOB.fill(address(x), address(z), address(out), address(keyed), limit - SIGN, close))
    return _of_labels(PAIRED, out, keyed)


@lru_cache(maxsize=256)
def _pairs_plan(
    shape: tuple[int, ...], axis: int, x: Dtype, x_strides: Strides, z: Dtype, z_strides: Strides
) -> tuple[Plan, int] | None:
    """None for long rows, whose facts take little memory, and for those that have to be copied or cut into blocks."""
    layouts = [layout_of(shape, axis, *array) for array in ((x, x_strides), (z, z_strides))]
    outer, inner, steps, blocks = two_levels(without(shape, axis), [without(x_strides, axis), without(z_strides, axis)])
    if not set(layouts) <= {"tiled", "across"} or shape[axis] > TILE or len(blocks) > 1:
        return None
    rows, classes = outer * inner, shape[axis]
    pieces, grain = _pieces(rows, PAIRED.end)
    head = PAIRS_JOB.plan(
        rows, grain, _step(PAIRED.end), classes, inner, *steps[0], x_strides[axis], *steps[1], z_strides[axis]
    )
    spec = PairsSpec(*(FactsSpec(array.name, layout) for array, layout in zip((x, z), layouts, strict=True)))
    return Plan(spec, head, pieces, rows * (classes + LABEL_COST), 1, ()), grain


def _of_labels(spec: LabelsSpec, out: Array, keyed: Array) -> dict[str, Any]:
    numbers = out[:, spec.counts_at :].sum(axis=0).tolist()
    vectors = out[:, : spec.counts_at].view(np.float64).reshape(len(out), -1, LANES)
    found = _merged(LABEL_VECTORS, vectors) | dict(zip(LABEL_COUNTS, numbers, strict=False))
    if spec.paired:
        logits = _merged(LOGIT_VECTORS, vectors[:, len(LABEL_VECTORS) :])
        logits |= zip(LOGIT_COUNTS, numbers[len(LABEL_COUNTS) :], strict=True)
        entries = _joined(keyed, out[:, spec.counts_at + len(LABEL_COUNTS) + LOGIT_COUNTS.index("keyed")])
        logits["keyed"], logits["keys"] = entries[:, 0], np.ascontiguousarray(entries[:, 1]).view(np.uint64)
        found["logits"] = logits
    return found


def _merged(names: Sequence[str], vectors: Array) -> dict[str, Any]:
    """Extremes and sums over pieces and lanes."""
    combined = {"low": np.min, "lowest_sum": np.min, "top": np.max, "highest_sum": np.max}
    return {name: float(combined.get(name, np.sum)(vectors[:, i])) for i, name in enumerate(names)}


@lru_cache(maxsize=256)
def _labels_plan(spec: LabelsSpec, rows: int) -> tuple[Plan, int]:
    pieces, grain = _pieces(rows, spec.end)
    head = LABELS_JOB.plan(rows, grain, rows * 8, _step(spec.end))
    return Plan(spec, head, pieces, rows * LABEL_COST, 1, ()), grain


def _figures(bins: Any) -> Figures | None:
    return None if bins is None else Figures(bins.confidence, bins.lowest, bins.octaves)


def _of_figures(figures: Figures, slots: Array) -> dict[str, Array]:
    """The claims, (3, bins): how many, their sum, what came true; and the histogram of losses."""
    entries = slots[:, figures.claims_at : figures.histogram_at]
    no_yes = (2, figures.confidence + 1, 2)
    many = entries.sum(axis=0).reshape(no_yes)[:, :-1, 0]
    claimed = entries.view(np.float64).sum(axis=0).reshape(no_yes)[:, :-1, 1]
    return {
        "confidence": np.array([many.sum(axis=0), claimed.sum(axis=0), many[1]], np.float64),
        "histogram": slots[:, figures.histogram_at :][:, : figures.losses].sum(axis=0),
    }


def element_tallies(
    x: Array, z: Array, *, bins: Any = None, floor: float = np.inf, binary: bool = False
) -> dict[str, Any]:
    """What `reference.element_tallies` says, which explains the arguments; all arrays lie side by side."""
    classes = x.shape[1]
    spec = ElementsSpec(x.dtype.name, z.dtype.name, binary, _figures(bins))
    plan, grain = _elements_plan(spec, x.size, classes)
    out = _counters(plan.count, spec.end(classes))
    costly = np.empty((plan.count, grain + WIDE if bins else 0, 2), np.int64)
    plan.run(ELEMENTS_JOB.fill(address(x), address(z), address(out), address(costly), floor))
    loss, agreement = (
        out[:, : spec.counts_at].view(np.float64).reshape(plan.count, 2, spec.lanes).sum(axis=(0, 2)).tolist()
    )
    nan, infinite, _ = out[:, spec.counts_at : spec.counts_at + 3].sum(axis=0).tolist()
    found = {"loss": loss, "agreement": agreement, "nan": nan, "infinite": infinite}
    if spec.figures is None:
        return found
    packed, losses = out[:, spec.classes_at :].reshape(plan.count, CLASS_TABLES, -1).transpose(1, 0, 2)
    answers = np.array([(packed >> ANSWER_BITS * i & (1 << ANSWER_BITS) - 1).sum(axis=0) for i in range(3)])
    entries = _joined(costly, out[:, spec.counts_at + 2])
    figures = _of_figures(spec.figures, out[:, spec.figures_at :])
    if not binary:
        true = out[:, spec.true_at : spec.classes_at - 1].view(np.float64)
        figures["confidence"][2] = true.sum(axis=0)
    return (
        found
        | figures
        | {
            "answers": _folded(answers, classes),
            "class_loss": _folded(losses.view(np.float64).sum(axis=0)[None], classes)[0],
            "costly": entries[:, 0],
            "costs": np.ascontiguousarray(entries[:, 1]).view(np.float64),
        }
    )


@lru_cache(maxsize=256)
def _elements_plan(spec: ElementsSpec, elements: int, classes: int) -> tuple[Plan, int]:
    pieces, grain = _pieces(elements, spec.end(classes))
    head = ELEMENTS_JOB.plan(elements, grain, period(classes), _step(spec.end(classes)))
    return Plan(spec, head, pieces, elements * ELEMENT_COST, 1, ()), grain


def _folded(tables: Array, classes: int) -> Array:
    """(k, C) from tables that have each class several times."""
    whole: Array = tables[:, :-WIDE].reshape(len(tables), -1, classes).sum(axis=1)
    for i, more in enumerate(tables[:, -WIDE:].T):
        whole[:, i % classes] += more
    return whole


def count_scores(x: Array, z: Array, counts: Array, *, bins: Any, fraction: int) -> None:
    """What `reference.count_scores` does, which explains the arguments; all arrays lie side by side."""
    classes = x.shape[1]
    spec = ScoresSpec(x.dtype.name, z.dtype.name, counts.dtype.name, fraction, bins.score_lowest, bins.score_octaves)
    plan = _scores_plan(spec, x.size, classes, len(counts))
    plan.run(SCORES_JOB.fill(address(x), address(z), address(counts), address(_numbers(classes))))


@lru_cache(maxsize=256)
def _scores_plan(spec: ScoresSpec, elements: int, classes: int, tables: int) -> Plan:
    units, grain = -(-classes // SCORE_CLASSES), elements
    if units == 1:
        units = min(tables, max(1, elements // GRAIN))
        grain = -(-elements // (units * LANES)) * LANES
    head = SCORES_JOB.plan(
        elements, grain, period(classes), classes, classes * 2 * spec.bins * np.dtype(spec.counts).itemsize
    )
    return Plan(spec, head, units, elements * ELEMENT_COST, 1, ())


@lru_cache(maxsize=16)
def _numbers(classes: int) -> Array:
    """Of the classes that an element of a period, and LANES more, have."""
    return np.arange(period(classes) + LANES) % classes
