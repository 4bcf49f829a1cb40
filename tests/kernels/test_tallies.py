"""What is counted of rows and elements: the compiled kernels against plain NumPy, which is the reference engine's."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import withlogits
from withlogits import reference
from withlogits.evaluation.bins import BINS
from withlogits.kernels import cpu
from withlogits.kernels.cpu import host_tallies
from withlogits.kernels.cpu.job import ANSWER_BITS, LANES, MOST_ELEMENTS, SCORE_CLASSES, TILE, Figures, period

SPECIAL = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38, 41.0])
NUMBERS = st.floats(-60, 60, width=32) | SPECIAL
ALL = (1 << 64) - 1


def same(mine: Any, truth: Any, where: str = "") -> None:
    """Whole numbers to the last digit, sums up to their rounding, and claims up to what the kernel promises."""
    if isinstance(truth, dict):
        assert mine.keys() == truth.keys()
        for name in truth:
            same(mine[name], truth[name], name)
    elif truth is None:
        assert mine is None, where
    elif isinstance(truth, np.ndarray) and truth.dtype.kind in "iu":
        np.testing.assert_array_equal(mine, truth, where)
    elif isinstance(truth, int):
        assert mine == truth, where
    else:
        np.testing.assert_allclose(mine, truth, rtol=1e-9, atol=1e-9, err_msg=where)


def rows(count: int, classes: int, seed: int = 0, special: bool = True) -> tuple[Any, Any, Any]:
    """Logits, classes and losses; some rows with NaN and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 3.0, (count, classes)).astype(np.float32)
    x[::5] *= 40
    if special:
        x[3::11, 0], x[4::13, -1], x[5::17], x[6::19, 0] = np.nan, np.inf, -np.inf, -np.inf
    y = rng.integers(0, classes, count)
    return x, y, losses(x, y)


def losses(x: Any, y: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.asarray(withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x))


def both_row_tallies(x: Any, y: Any, loss: Any, **options: Any) -> tuple[Any, Any]:
    facts = cpu.row_facts(x, 1, y)
    given: dict[str, Any] = {"classes": x.shape[1], "line": len(y), "matrix": True, "limit": ALL} | options
    with np.errstate(invalid="ignore", over="ignore"):
        return cpu.row_tallies(facts, y, loss, **given), reference.row_tallies(facts, y, loss, **given)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 1000, 9001])
@pytest.mark.parametrize("classes", [2, 10, 33])
def test_rows(count: int, classes: int) -> None:
    x, y, loss = rows(count, classes)
    for bins in (None, BINS):
        for matrix in (True, False):
            same(*both_row_tallies(x, y, loss, matrix=matrix, bins=bins, floor=4.0))


@pytest.mark.parametrize("limit", [0, 1 << 60, 1 << 63, ALL - 1])
def test_listed_rows_have_small_keys(limit: int) -> None:
    x, y, loss = rows(3000, 5)
    mine, truth = both_row_tallies(x, y, loss, limit=limit)
    same(mine, truth)
    assert (mine["keys"] <= np.uint64(limit)).all()
    assert len(mine["keyed"]) == len(mine["keys"])


@pytest.mark.parametrize("line", [1, 2, 3, 5, 8, 10, 60, 300])
def test_neighbours_end_with_their_line(line: int) -> None:
    x, y, loss = rows(600, 4, special=False)
    y[1:] = x[:-1].argmax(axis=1)  # each label is the prediction before it
    some = np.random.default_rng(1).random(600) < 0.8
    for counts in (None, some):
        mine, truth = both_row_tallies(x, y, loss, line=line, counts=counts)
        same(mine, truth)
        assert mine["ahead"] == mine["neighbours"]
    assert both_row_tallies(x, y, loss, line=line)[0]["neighbours"] == 600 // line * (line - 1)


def test_rows_that_do_not_count() -> None:
    x, y, loss = rows(700, 6)
    for counts in (np.zeros(700, bool), np.ones(700, bool), np.arange(700) % 3 == 0):
        for size in (None, np.asarray(withlogits.logsumexp(x, axis=1)).astype(float)):
            for matrix in (True, False):
                same(*both_row_tallies(x, y, loss, counts=counts, size=size, matrix=matrix, bins=BINS))


def test_losses_in_float64() -> None:
    x, y, _ = rows(500, 7)
    x = x.astype(np.float64) * 1e3
    same(*both_row_tallies(x, y, losses(x, y), bins=BINS, floor=100.0))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_of_any_numbers(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 12)))
    x = data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    y = data.draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    line = data.draw(st.sampled_from([n for n in range(1, shape[0] + 1) if shape[0] % n == 0]))
    same(*both_row_tallies(x, y, losses(x, y), line=line, bins=BINS, floor=data.draw(st.floats(-1, 5))))


def test_what_every_thread_does_is_the_same() -> None:
    x, y, loss = rows(60_000, 10)
    z = (x > 0).astype(np.uint8)
    threads, found = withlogits.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            withlogits.set_num_threads(n)
            facts = cpu.row_facts(x, 1, y)
            counts = np.zeros((2, 10, 2, BINS.scores(5)), np.int64)
            cpu.count_scores(x, z, counts, bins=BINS, fraction=5)
            found.append(
                [
                    cpu.row_tallies(facts, y, loss, classes=10, line=4, matrix=True, limit=1 << 61, bins=BINS),
                    cpu.label_tallies(cpu.row_facts(z, 1), 1e-3, facts, 1 << 61),
                    cpu.element_tallies(x, z, bins=BINS, floor=9.0),
                    counts,
                ]
            )
    finally:
        withlogits.set_num_threads(threads)
    for other in found[1:]:
        for mine, first in zip(other, found[0], strict=True):
            np.testing.assert_equal(mine, first)


# ----------------------------------------------------------------------------------------------------- dense labels


@pytest.mark.parametrize("count", [1, 8, 13, 5000, 40_000])
@pytest.mark.parametrize("form", ["one-hot", "several", "shares", "scores", "odd"])
def test_labels(count: int, form: str) -> None:
    rng = np.random.default_rng(count)
    x, _, _ = rows(count, 6)
    z = {
        "one-hot": lambda: np.eye(6)[rng.integers(0, 6, count)],
        "several": lambda: (rng.random((count, 6)) < 0.3).astype(np.uint8),
        "shares": lambda: rng.dirichlet(np.ones(6), count),
        "scores": lambda: rng.normal(size=(count, 6)),
        "odd": lambda: np.where(rng.random((count, 6)) < 0.05, np.nan, rng.random((count, 6))),
    }[form]()
    with np.errstate(invalid="ignore"):
        of_labels, of_logits = cpu.row_facts(z, 1), cpu.row_facts(x, 1)
        same(cpu.label_tallies(of_labels, 1e-3), reference.label_tallies(of_labels, 1e-3))
        for limit in (0, 1 << 62, ALL):
            mine = cpu.label_tallies(of_labels, 1e-3, of_logits, limit)
            same(mine, reference.label_tallies(of_labels, 1e-3, of_logits, limit))


# ------------------------------------------------------------------------------------------------------------- pairs


def both_pair_tallies(x: Any, z: Any, axis: int = -1, limit: int = 1 << 62) -> tuple[Any, Any]:
    """The keys are made of sums, so the truth has to begin with the same ones."""
    with np.errstate(invalid="ignore", over="ignore"):
        of_labels, of_logits = (cpu.row_facts(a, axis % x.ndim) for a in (z, x))
        truth = reference.label_tallies(of_labels, 1e-3, of_logits, limit)
        return cpu.pair_tallies(x, z, axis % x.ndim, 1e-3, limit), truth


PAIR_SHAPES = [(1, 1), (9, 1), (4000, 1), (17, 3), (300, 10), (5000, 10), (33, 33), (20, TILE), (20, TILE + 1)]


@pytest.mark.parametrize("shape", PAIR_SHAPES)
def test_pairs(shape: tuple[int, int]) -> None:
    x, _, _ = rows(*shape)
    z = np.random.default_rng(2).random(shape)
    for labels in (z.astype(np.float32), (z < 0.3).astype(np.uint8), np.where(z < 0.01, np.nan, z)):
        same(*both_pair_tallies(x, labels))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pairs_of_any_layout(axis: int) -> None:
    x, _, _ = rows(6 * 7, 8)
    x = x.reshape(6, 7, 8)
    z = np.random.default_rng(2).random(x.shape) < 0.3
    whole = np.zeros((6, 7, 16), np.float32)
    whole[:, :, ::2] = x
    for logits in (x, np.asfortranarray(x), whole[:, :, ::2], x[:, ::-1]):
        for labels in (z, np.asfortranarray(z)):
            same(*both_pair_tallies(logits, labels, axis))


@pytest.mark.parametrize("x_dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("z_dtype", ["bool", "int8", "int64", "float64"])
def test_pairs_of_every_kind(x_dtype: str, z_dtype: str) -> None:
    x, _, _ = rows(70, 5)
    same(*both_pair_tallies(x.astype(x_dtype), (x > 1.0).astype(z_dtype)))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_pairs(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 20)))
    x, z = (data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-60, 60, width=32))) for _ in "xz")
    same(*both_pair_tallies(x, z))


# ---------------------------------------------------------------------------------------------------------- elements


def both_element_tallies(x: Any, z: Any, floor: float = 3.0, **options: Any) -> tuple[Any, Any]:
    given = {"bins": BINS, "floor": floor} | options
    with np.errstate(invalid="ignore", over="ignore"):
        mine, truth = (engine.element_tallies(x, z, **given) for engine in (cpu, reference))
        # a sum of both signs, of which nearly all may cancel
        terms = np.abs(x.astype(np.float64) * z.astype(np.float64))
    one, other = mine.pop("agreement"), truth.pop("agreement")
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * terms[np.isfinite(terms)].sum())
    return mine, truth


SHAPES = [(1, 1), (7, 1), (5000, 1), (3, 5), (40, 7), (900, 10), (50, 63), (30, 64), (20, 65), (70, 1001)]


@pytest.mark.parametrize("shape", SHAPES)
def test_elements(shape: tuple[int, int]) -> None:
    x, _, _ = rows(*shape, special=False)
    z = np.random.default_rng(2).random(shape)
    for labels in (z.astype(np.float32), (z < 0.3).astype(np.uint8)):
        same(*both_element_tallies(x, labels))
    same(*both_element_tallies(x, labels, binary=True))
    x[:1] = np.nan, *np.full(shape[1] - 1, np.inf)
    for bins in (BINS, None):
        same(*both_element_tallies(x, labels, bins=bins))


@pytest.mark.parametrize("x_dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("z_dtype", ["bool", "int8", "int64", "bfloat16", "float64"])
def test_elements_of_every_kind(x_dtype: str, z_dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kinds = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
    x, _, _ = rows(50, 20)
    z = x > 1.0
    same(*both_element_tallies(x.astype(kinds.get(x_dtype, x_dtype)), z.astype(kinds.get(z_dtype, z_dtype))))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_elements(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 40)))
    x = data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    z = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    same(*both_element_tallies(x, z, data.draw(st.floats(-1, 5))))


@pytest.mark.parametrize("logit", [1000.0, -1000.0, 0.0])
def test_claims_of_a_run_do_not_overflow(logit: float) -> None:
    """How many claims and their sum share a word, until a run of them is added up; here all of them are alike."""
    count = host_tallies.PIECES * (3 * Figures.RUN + 5)
    x = np.full((count, 1), logit, np.float32)
    mine, truth = both_element_tallies(x, np.ones(x.shape, np.uint8), floor=np.inf, binary=True)
    same(mine, truth)
    assert mine["confidence"][0].sum() == mine["confidence"][2].sum() == mine["histogram"].sum() == count
    x, y = np.full((count, 2), 0.0, np.float32), np.zeros(count, np.int64)
    x[:, 0] = logit
    same(*both_row_tallies(x, y, losses(x, y), bins=BINS, limit=0, floor=np.inf))


def test_answers_of_a_piece_do_not_overflow() -> None:
    """Three counters share a word: a class occurs in a piece at most as often as a counter can hold."""
    assert MOST_ELEMENTS // period(1) < 1 << ANSWER_BITS
    assert 3 * ANSWER_BITS < 64
    for elements in (1, 1 << 20, 1 << 32, 1 << 40):
        pieces, grain = host_tallies._pieces(elements, 1000)
        assert pieces * grain >= elements
        assert grain <= MOST_ELEMENTS + LANES


# ------------------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("shape", [*SHAPES, (300, SCORE_CLASSES), (300, SCORE_CLASSES + 1), (9000, 3)])
@pytest.mark.parametrize("fraction", [3, 9])
def test_scores(shape: tuple[int, int], fraction: int) -> None:
    x, _, _ = rows(*shape)
    z = np.random.default_rng(3).random(shape).astype(np.float32)
    mine = np.zeros((2 if shape[1] <= SCORE_CLASSES else 1, shape[1], 2, BINS.scores(fraction)), np.int64)
    truth = mine.copy()
    narrow = mine.astype(np.int32)
    for _ in range(2):  # they are added to
        cpu.count_scores(x, z, narrow, bins=BINS, fraction=fraction)
        cpu.count_scores(x, z, mine, bins=BINS, fraction=fraction)
        reference.count_scores(x, z, truth, bins=BINS, fraction=fraction)
    np.testing.assert_array_equal(mine.sum(axis=0), truth.sum(axis=0))
    np.testing.assert_array_equal(mine, narrow)
    assert mine.sum() == 2 * x.size


@settings(max_examples=40, deadline=None)
@given(x=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.floats()))
def test_any_scores(x: Any) -> None:
    mine = np.zeros((1, x.shape[1], 2, BINS.scores(4)), np.int64)
    truth = mine.copy()
    cpu.count_scores(x, x > 0, mine, bins=BINS, fraction=4)
    reference.count_scores(x, x > 0, truth, bins=BINS, fraction=4)
    np.testing.assert_array_equal(mine, truth)


# -------------------------------------------------------------------------------------------------------------- bins


def test_losses_lie_between_the_edges_of_their_bin() -> None:
    edges = BINS.edges
    inside = np.concatenate((edges[:-1], np.nextafter(edges[1:-1], 0.0), [1e30, 5e-324]))
    counts = reference.loss_histogram(inside, BINS)
    np.testing.assert_array_equal(counts, np.histogram(inside, edges)[0])
    facts = {name: np.zeros(len(inside)) for name in ("top", "low", "total", "first", "above", "own")}
    table = np.array(list(facts.values()))
    facts = dict(zip(facts, table, strict=True))
    y = np.zeros(len(inside), np.int64)
    mine = cpu.row_tallies(facts, y, inside, classes=1, line=1, matrix=False, limit=0, bins=BINS)
    np.testing.assert_array_equal(mine["histogram"], counts)
