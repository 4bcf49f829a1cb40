"""Statistics of rows, elements and scores: the compiled kernels against plain NumPy."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import withlogits
from withlogits.statistics import arrays, rows
from withlogits.statistics.bins import BINS

pytest.importorskip("llvmlite")
from withlogits.kernels.cpu import statistics as compiled
from withlogits.kernels.cpu.job import SCORE_CLASSES

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38, 41.0]
NUMBERS = st.floats(-60, 60, width=32) | st.sampled_from(SPECIAL)
KINDS = ["float16", "bfloat16", "float32", "float64", "bool", "int8", "uint8", "int16", "int32", "int64", "uint64"]


def dtype(name: str) -> np.dtype[Any]:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def same(mine: dict[str, Any], truth: dict[str, Any], total: float = 0.0, error: float = 2.0**-33) -> None:
    """Whole numbers exactly; sums of up to 2^20 float64 within 2^20 roundings of 2^-53 of `total`, the sum of all |x|.

    `error` is that of the terms, where it is larger. Row totals decide the keys, which are compared where `total` is 0:
    where sums are exact.
    """
    assert mine.keys() == truth.keys()
    for name, expected in truth.items():
        got = mine[name]
        if name == "keys" and total:
            continue
        if isinstance(expected, int) or (isinstance(expected, np.ndarray) and expected.dtype.kind in "iu"):
            np.testing.assert_array_equal(got, expected, name)
        else:
            np.testing.assert_allclose(got, expected, rtol=error, atol=total * error + 1e-300, err_msg=name)


def logits(*shape: int, seed: int = 0, special: bool = True) -> Any:
    """Whole multiples of 2^-6, of which every sum is exact; some rows with NaN and infinities."""
    x = np.round(np.random.default_rng(seed).normal(0.0, 200.0, shape)).astype(np.float32) / 64
    x[::5] *= 40
    if special:
        x[3::11, ..., 0], x[4::13, ..., -1], x[5::17], x[6::19, ..., 0] = np.nan, np.inf, -np.inf, -np.inf
    return x


def losses(x: Any, y: Any, axis: int = -1) -> Any:
    with np.errstate(invalid="ignore"):
        return np.asarray(withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, axis=axis))


def counted_by(backend: Any, x: Any, axis: int, labels: Any, **options: Any) -> dict[str, Any]:
    """The statistics of rows from the scan of this backend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "backend", lambda: backend)
        return rows.row_statistics(x, axis, labels, **options)


def check_rows(x: Any, axis: int, labels: Any, exact: bool = True, **options: Any) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        wide = np.abs(np.where(np.isfinite(x), x, 0).astype(np.float64)).sum()
        given = {"close": 1e-3, "label_close": 1e-3} | options
        mine, truth = (counted_by(backend, x, axis, labels, **given) for backend in (compiled, arrays))
        same(mine, truth, 0.0 if exact else float(wide) + 1.0)
    found: dict[str, Any] = mine
    return found


def check_exclusive(x: Any, y: Any, **options: Any) -> dict[str, Any]:
    return check_rows(x, 1, y, loss=losses(x, y), **options)


# -------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("count", [1, 7, 64, 65, 1000, 9001])
@pytest.mark.parametrize("classes", [1, 2, 10, 33, 300])
def test_rows_of_exclusive_classes(count: int, classes: int) -> None:
    x, y = logits(count, classes), np.random.default_rng(1).integers(0, classes, count)
    size = np.asarray(withlogits.logsumexp(np.nan_to_num(x), axis=1))
    for bins in (None, BINS):
        check_exclusive(x, y, bins=bins)
        check_exclusive(x, y, bins=bins, size=size, counted=np.arange(count) % 3 == 0)


@pytest.mark.parametrize("form", ["one-hot", "several", "shares", "scores", "odd", "nothing"])
@pytest.mark.parametrize("count", [1, 13, 5000])
def test_rows_of_dense_labels(count: int, form: str) -> None:
    rng = np.random.default_rng(count)
    x = logits(count, 6)
    z = {
        "one-hot": lambda: np.eye(6)[rng.integers(0, 6, count)],
        "several": lambda: (rng.random((count, 6)) < 0.3).astype(np.uint8),
        "shares": lambda: rng.multinomial(64, np.full(6, 1 / 6), count) / 64,
        "scores": lambda: logits(count, 6, seed=2, special=False),
        "odd": lambda: np.where(rng.random((count, 6)) < 0.05, np.nan, 0.25),
        "nothing": lambda: np.zeros((count, 6)),
    }[form]()
    check_rows(x, 1, z)
    with np.errstate(invalid="ignore"):
        loss = np.asarray(withlogits.softmax_cross_entropy_with_logits(labels=z, logits=x))
    check_rows(x, 1, z, loss=loss, size=np.asarray(withlogits.logsumexp(x, axis=1)), bins=BINS)


@pytest.mark.parametrize(("x_kind", "z_kind"), list(zip(KINDS, KINDS[3:] + KINDS[:3], strict=True)))
def test_rows_of_every_kind(x_kind: str, z_kind: str) -> None:
    x, z = logits(70, 5, special=False), logits(70, 5, seed=3, special=False)
    if x_kind not in ("float32", "float64") or z_kind not in ("float32", "float64"):
        x, z = np.round(x) % 8, np.round(z) % 8  # which every kind holds
    check_rows(x.astype(dtype(x_kind)), 1, z.astype(dtype(z_kind)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_of_any_layout(axis: int) -> None:
    x = logits(70, 7, 8, special=False)
    z = np.random.default_rng(2).random(x.shape) < 0.3
    whole = np.zeros((70, 7, 16), np.float32)
    whole[..., ::2] = x
    for a in (x, np.asfortranarray(x), whole[..., ::2], x[:, ::-1], x[::-1], x.transpose(1, 0, 2)):
        labels = z.transpose(1, 0, 2) if a.shape != x.shape else z
        for b in (labels, np.asfortranarray(labels)):
            check_rows(a, axis, b)
        y = np.arange(a.size // a.shape[axis]) % a.shape[axis]
        rows = a.shape[:axis] + a.shape[axis + 1 :]
        check_rows(a, axis, y, loss=losses(a, y.reshape(rows), axis).reshape(-1), bins=BINS)


@pytest.mark.parametrize("classes", [1, 3, 40, 255, 256, 257, 1000])
def test_of_equal_logits_the_first_is_largest(classes: int) -> None:
    x, y = np.full((3, classes), -1.0, np.float32), np.zeros(3, np.int64)
    x[0, [classes // 2, classes - 1]] = 1.0
    x[1, 0], x[1, -1] = -0.0, 0.0
    x[2] = np.nan
    for a in (x, np.asfortranarray(x)):
        with np.errstate(invalid="ignore"):
            found = check_rows(a, 1, y, loss=np.zeros(3, np.float32))
        assert found["first"].tolist() == [classes // 2, 0, 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_of_any_numbers(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 10, 17, 300])))
    x, z = (data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS)) for _ in "xz")
    y = data.draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    with np.errstate(all="ignore"):
        loss = losses(x, y)
        check_rows(x, 1, y, exact=False, loss=loss, bins=BINS)
        mine, truth = (counted_by(f, x, 1, z, close=1e-3, label_close=1e-3) for f in (compiled, arrays))
    for name in ("low", "top", "label_low", "label_top", "label_hot", "label_negative", "saturated"):
        assert mine[name] == truth[name], name


def test_confidences_and_losses_in_float64() -> None:
    x, y = logits(500, 7).astype(np.float64) * 1e3, np.arange(500) % 7
    check_exclusive(x, y, bins=BINS)


def test_every_number_of_threads_counts_the_same() -> None:
    x = np.random.default_rng(0).normal(size=(60_000, 10)).astype(np.float32)
    y, z = np.arange(60_000) % 10, (x > 0).astype(np.uint8)
    loss = losses(x, y)
    threads, found = withlogits.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            withlogits.set_num_threads(n)
            counts = np.zeros((2, 10, 2, 512), np.int64)
            listed = compiled.count_scores(x, z, counts, window(10, 512, 2.0**-6))
            found.append(
                [
                    counted_by(compiled, x, 1, y, close=0.0, loss=loss, bins=BINS),
                    counted_by(compiled, x, 1, z, close=0.0),
                    compiled.element_statistics(x, z, bins=BINS, floor=2.0),
                    counts.sum(axis=0),
                    np.sort(listed),
                ]
            )
    finally:
        withlogits.set_num_threads(threads)
    for other in found[1:]:
        for mine, first in zip(other, found[0], strict=True):
            np.testing.assert_equal(mine, first)


# ---------------------------------------------------------------------------------------------------------- elements

SHAPES = [(1, 1), (7, 1), (5000, 1), (3, 5), (40, 7), (900, 10), (50, 63), (70, 1001)]


def check_elements(x: Any, z: Any, floor: float = 3.0) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        given = {"bins": BINS, "floor": floor, "binary": bool(np.isin(z, (0, 1)).all())}
        mine = compiled.element_statistics(x, z, **given)
        # of exponentials that are within 2.2e-10, and 1e-307 where they are smaller still (`functions.exp_pair`)
        same(mine, arrays.element_statistics(x, z, **given), error=2.0**-31)
    found: dict[str, Any] = mine
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_elements(shape: tuple[int, int]) -> None:
    x, z = logits(*shape), np.random.default_rng(2).random(shape)
    check_elements(x, z.astype(np.float32))
    found = check_elements(x, (z < 0.3).astype(np.uint8))
    assert found["answers"][0].sum() == (z < 0.3).sum()


@pytest.mark.parametrize(
    ("x_kind", "z_kind"), [("float16", "bool"), ("bfloat16", "int8"), ("float32", "bfloat16"), ("float64", "float64")]
)
def test_elements_of_every_kind(x_kind: str, z_kind: str) -> None:
    x = np.round(logits(50, 20, special=False) % 8)
    check_elements(x.astype(dtype(x_kind)), (x > 1.0).astype(dtype(z_kind)))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_elements(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 40)))
    x = data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    z = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    check_elements(x, z, data.draw(st.integers(-4, 20)) / 4)


# ------------------------------------------------------------------------------------------------------------ scores


def window(classes: int, bins: int, width: float, first: float = -100.0) -> tuple[Any, ...]:
    """Bins of this width from `first` on, of which the middle half takes scores; one further for each class."""
    base = first + np.arange(classes)
    return np.full(classes, 1 / width), base, (base + bins // 4) * width, (base + 3 * bins // 4) * width


@pytest.mark.parametrize("shape", [*SHAPES, (300, SCORE_CLASSES), (300, SCORE_CLASSES + 1), (9000, 3)])
@pytest.mark.parametrize("bins", [64, 1000])
def test_scores(shape: tuple[int, int], bins: int) -> None:
    x, z = logits(*shape), np.random.default_rng(3).random(shape).astype(np.float32)
    mine = np.zeros((2 if shape[1] <= SCORE_CLASSES else 1, shape[1], 2, bins), np.int64)
    truth, narrow, given = mine.copy(), mine.astype(np.int32), window(shape[1], bins, 2.0**-4)
    for _ in range(2):  # they are added to
        listed = compiled.count_scores(x, z, narrow, given)
        np.testing.assert_array_equal(listed, compiled.count_scores(x, z, mine, given))
        np.testing.assert_array_equal(np.sort(listed), arrays.count_scores(x, z, truth, given))
    np.testing.assert_array_equal(mine.sum(axis=0), truth.sum(axis=0))
    np.testing.assert_array_equal(mine, narrow)
    assert mine.sum() == 2 * (x.size - len(listed))


@settings(max_examples=40, deadline=None)
@given(
    x=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.floats()),
    octave=st.integers(-60, 60),
)
def test_any_scores(x: Any, octave: int) -> None:
    mine = np.zeros((1, x.shape[1], 2, 256), np.int64)
    truth, given = mine.copy(), window(x.shape[1], 256, 2.0**octave, -128.0)
    with np.errstate(over="ignore"):
        listed = arrays.count_scores(x, x > 0, truth, given)
    np.testing.assert_array_equal(np.sort(compiled.count_scores(x, x > 0, mine, given)), listed)
    np.testing.assert_array_equal(mine, truth)


def test_scores_are_weighted() -> None:
    x, weight = logits(50, 3), np.random.default_rng(1).random((50, 3))
    counts = np.zeros((1, 3, 2, 64))
    listed = arrays.count_scores(x, x > 0, counts, window(3, 64, 2.0**-4), weight)
    assert counts.sum() == pytest.approx(np.delete(weight.reshape(-1), listed).sum())


# -------------------------------------------------------------------------------------------------------------- bins


def test_losses_lie_between_the_edges_of_their_bin() -> None:
    edges = BINS.edges
    inside = np.concatenate((edges[:-1], np.nextafter(edges[1:-1], 0.0), [1e30, 5e-324]))
    counts = BINS.histogram(inside)
    np.testing.assert_array_equal(counts, np.histogram(inside, edges)[0])
    x, y = np.zeros((len(inside), 1)), np.zeros(len(inside), np.int64)
    mine = counted_by(compiled, x, 1, y, close=0.0, loss=inside, bins=BINS)
    np.testing.assert_array_equal(mine["histogram"], counts)
