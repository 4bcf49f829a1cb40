"""Block by block or all at once, the losses are the same; and what is wrong is named by its place in the whole file."""

import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import withlogits
from withlogits.evaluation import losses
from withlogits.evaluation.files import ArrayFile, BadFile, open_array
from withlogits.evaluation.losses import choose_loss, evaluate, pair_up
from withlogits.tiles import size

FUNCTIONS = {
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
    "softmax": withlogits.softmax_cross_entropy_with_logits,
    "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
}


@pytest.fixture(params=[1, 30, 10**6])
def budget(request, monkeypatch):
    """Blocks of a row, of a few rows, and of all."""
    monkeypatch.setattr(losses, "BUDGET", request.param)


@pytest.fixture
def saved(tmp_path):
    """Save an array, and open its file."""

    def save(name, array, form="npy"):
        if form == "npy":
            np.save(tmp_path / f"{name}.npy", array)
            return open_array(str(tmp_path / f"{name}.npy"))
        np.savez_compressed(tmp_path / f"{name}.npz", array)
        return open_array(str(tmp_path / f"{name}.npz"))

    return save


def example(loss, shape, axis, dtype=np.float32, seed=0):
    """Logits, and labels that fit the loss."""
    rng = np.random.default_rng(seed)
    logits = (4 * rng.standard_normal(shape)).astype(dtype)
    if loss == "sigmoid":
        return logits, rng.random(shape).astype(np.float32)
    rows = np.delete(shape, axis)
    if loss == "sparse":
        return logits, rng.integers(0, shape[axis], rows)
    labels = rng.random(shape)
    return logits, (labels / labels.sum(axis=axis, keepdims=True)).astype(np.float32)


def kept(pair, **options):
    """All losses, put together again."""
    whole = np.empty(pair.rows.shape, pair.loss_dtype)
    tiles = iter(pair.rows)

    def keep(block):
        tile = next(tiles)
        assert block.shape == size(whole.shape, tile)
        whole[tile] = block

    summary = evaluate(pair, keep=keep, **options)
    return whole, summary


def options_for(loss, axis):
    return {} if loss == "sigmoid" else {"axis": axis}


CASES = [((11,), -1), ((12, 5), -1), ((12, 5), 0), ((3, 4, 5), 1), ((2, 3, 4, 5), 1), ((4, 7, 1), 2)]


@pytest.mark.parametrize("loss", FUNCTIONS)
@pytest.mark.parametrize(("shape", "axis"), CASES)
@pytest.mark.parametrize("layouts", ["CC", "FF", "FC"])
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_every_loss_is_the_one_of_the_whole_array(saved, budget, loss, shape, axis, layouts, form):
    logits, labels = example(loss, shape, axis)
    x = saved("logits", np.asarray(logits, order=layouts[0]), form)
    z = saved("labels", np.asarray(labels, order=layouts[1]), form)
    expected = FUNCTIONS[loss](labels=labels, logits=logits, **options_for(loss, axis))
    for in_order in (False, True):
        got, summary = kept(pair_up(x, z, loss, axis, in_order))
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
        assert (summary.count, summary.ignored, summary.nan, summary.infinite) == (expected.size, 0, None, None)


@pytest.mark.parametrize("loss", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_sum_and_mean_are_those_of_the_whole_array(saved, budget, loss, dtype):
    logits, labels = example(loss, (300, 7), -1, dtype)
    summary = evaluate(pair_up(saved("logits", logits), saved("labels", labels), loss))
    exact = FUNCTIONS[loss](labels=labels, logits=logits.astype(np.float64))
    assert summary.total == pytest.approx(math.fsum(exact.ravel()), rel=1e-15)
    assert summary.mean == summary.total / exact.size
    native = FUNCTIONS[loss](labels=labels, logits=logits, reduction="mean")
    ulp = np.spacing(native)
    assert abs(float(native) - summary.mean) <= ulp


def test_sums_do_not_depend_on_the_cuts(saved, monkeypatch):
    logits, labels = example("sparse", (1000, 7), -1)
    x, z = saved("logits", logits), saved("labels", labels)
    totals = set()
    for size_of_block in (7, 70, 777, 10**6):
        monkeypatch.setattr(losses, "BUDGET", size_of_block)
        totals.add(evaluate(pair_up(x, z, "sparse")).total)
    assert max(totals) - min(totals) <= 2 * np.spacing(max(totals))


def test_ignored_rows_leave_the_mean(saved, budget):
    logits, labels = example("sparse", (50, 6), -1)
    labels[::3] = -100
    logits[3] = np.nan
    pair = pair_up(saved("logits", logits), saved("labels", labels), "sparse")
    summary = evaluate(pair, ignore_index=-100)
    assert (summary.count, summary.ignored) == (33, 17)
    expected = FUNCTIONS["sparse"](labels=labels, logits=logits.astype(np.float64), ignore_index=-100, reduction="mean")
    assert summary.mean == pytest.approx(expected, rel=1e-15)
    assert summary.nan is None


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.uint64, ">i4"])
def test_index_labels_of_any_integer_dtype(saved, budget, kind):
    logits, labels = example("sparse", (20, 6), -1)
    got, _ = kept(pair_up(saved("logits", logits), saved("labels", labels.astype(kind)), "sparse"))
    np.testing.assert_array_equal(got, FUNCTIONS["sparse"](labels=labels, logits=logits))


def test_index_labels_that_keep_the_axis(saved, budget):
    logits, labels = example("sparse", (4, 5, 6), 1)
    x, z = saved("logits", logits), saved("labels", labels[:, None, :])
    got, _ = kept(pair_up(x, z, "sparse", 1))
    assert got.shape == (4, 1, 6)
    np.testing.assert_array_equal(got, FUNCTIONS["sparse"](labels=labels[:, None, :], logits=logits, axis=1))


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_one_label_row_for_all(saved, budget, shape):
    logits, labels = example("softmax", (12, 5), -1)
    row = labels[0].reshape(shape)
    x, z = saved("logits", logits), saved("labels", row)
    got, _ = kept(pair_up(x, z, "softmax"))
    np.testing.assert_array_equal(got, FUNCTIONS["softmax"](labels=row, logits=logits))
    assert choose_loss(x, z).loss == "softmax"


def test_nothing_at_all(saved):
    pair = pair_up(saved("logits", np.zeros((0, 3))), saved("labels", np.zeros(0, int)), "sparse")
    summary = evaluate(pair)
    assert (summary.total, summary.mean, summary.count) == (0.0, 0.0, 0)


def test_progress_hears_of_every_logit(saved, budget):
    logits, labels = example("sparse", (50, 6), -1)
    heard = []
    evaluate(pair_up(saved("logits", logits), saved("labels", labels), "sparse"), progress=heard.append)
    assert sum(heard) == logits.size


# --------------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(("shape", "axis"), [((40, 5), -1), ((5, 40), 0), ((4, 5, 10), 1)])
@pytest.mark.parametrize("order", "CF")
def test_a_label_out_of_range_is_named_by_its_place_in_the_file(saved, budget, shape, axis, order):
    logits, labels = example("sparse", shape, axis)
    for where in (37, 23):
        labels.flat[where] = 12
    x, z = saved("logits", np.asarray(logits, order=order)), saved("labels", np.asarray(labels, order=order))
    place = ", ".join(map(str, np.unravel_index(23, labels.shape)))
    with pytest.raises(BadFile) as raised:
        evaluate(pair_up(x, z, "sparse", axis))
    assert str(raised.value) == (
        f"{z.name}: labels[{place}] = 12 is outside [0, 5) for logits with 5 classes; "
        "the logits lack classes, or the labels want another numbering (WL206); "
        "to skip padding pass ignore_index=12 (WL207)"
    )


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_files_are_closed_before_an_error_is_seen(saved, budget, form, monkeypatch):
    """And not when the error, which keeps hold of them, is forgotten."""
    streams = []
    open_file = ArrayFile._opened

    @contextmanager
    def opened(array):
        with open_file(array) as stream:
            streams.append(stream)
            yield stream

    monkeypatch.setattr(ArrayFile, "_opened", opened)
    logits, labels = example("sparse", (40, 5), -1)
    labels[23] = 12
    with pytest.raises(BadFile):
        evaluate(pair_up(saved("logits", logits, form), saved("labels", labels, form), "sparse"))
    assert len(streams) == 3
    assert all(stream.closed for stream in streams)


def test_labels_that_count_from_one_are_recognised_across_blocks(saved, budget):
    logits, labels = example("sparse", (40, 5), -1)
    with pytest.raises(BadFile, match="labels that count from 1 are indices after labels - 1"):
        evaluate(pair_up(saved("logits", logits), saved("labels", labels + 1), "sparse"))


@pytest.mark.parametrize("loss", FUNCTIONS)
@pytest.mark.parametrize(("shape", "axis"), [((40, 5), -1), ((5, 40), 0), ((4, 5, 10), 1)])
def test_the_first_nan_is_placed_and_explained(saved, budget, loss, shape, axis):
    logits, labels = example(loss, shape, axis)
    bad = [np.unravel_index(n, shape) for n in (111, 187)]
    for where in bad:
        logits[where] = np.nan
    x, z = saved("logits", logits), saved("labels", labels)
    _, summary = kept(pair_up(x, z, loss, axis))
    expected = np.argwhere(np.isnan(FUNCTIONS[loss](labels=labels, logits=logits, **options_for(loss, axis))))
    assert summary.nan == losses.Oddity(tuple(expected[0]), "a logit is NaN", x.name, len(expected))
    assert summary.infinite is None


@pytest.mark.parametrize(
    ("row", "label", "kind", "cause"),
    [
        ([np.inf, 0, 0], 0, "nan", "a logit is inf"),
        ([-np.inf, -np.inf, -np.inf], 0, "nan", "every logit is -inf"),
        ([-np.inf, 0, 0], 0, "infinite", "the label wants what an infinite logit rules out"),
    ],
)
def test_infinite_logits_are_explained(saved, row, label, kind, cause):
    logits = np.zeros((4, 3), np.float32)
    logits[2] = row
    x = saved("logits", logits)
    for loss, labels in (("sparse", np.full(4, label)), ("softmax", np.eye(3)[np.full(4, label)])):
        summary = evaluate(pair_up(x, saved("labels", labels), loss))
        assert getattr(summary, kind) == losses.Oddity((2,), cause, x.name, 1)


def test_nan_among_the_labels_is_the_labels_fault(saved):
    logits, labels = example("sigmoid", (4, 3), -1)
    labels[1, 2] = np.nan
    z = saved("labels", labels)
    summary = evaluate(pair_up(saved("logits", logits), z, "sigmoid"))
    assert summary.nan == losses.Oddity((1, 2), "a label is NaN or infinite", z.name, 1)


# ------------------------------------------------------------------------------------------------- which loss it is


def test_auto_goes_by_dtype_shape_and_sums(saved, budget):
    rng = np.random.default_rng(0)
    one_hot = np.eye(5, dtype=np.uint8)[rng.integers(0, 5, 40)]
    late = one_hot.copy()
    late[33] = [1, 1, 0, 0, 0]
    x = saved("logits", rng.standard_normal((40, 5)))
    for labels, loss, reason in (
        (one_hot.argmax(1), "sparse", "int64 labels of shape (40,) are the numbers of classes"),
        (one_hot.argmax(1)[:, None], "sparse", "int64 labels of shape (40, 1) are the numbers of classes"),
        (one_hot, "softmax", "uint8 labels have the logits' shape, and every row sums to 1"),
        (one_hot * 0.9 + 0.02, "softmax", "float64 labels have the logits' shape, and every row sums to 1"),
        (
            (one_hot * 0.9 + 0.02).astype(np.float16),
            "softmax",
            "float16 labels have the logits' shape, and every row sums to 1",
        ),
        (late, "sigmoid", "uint8 labels have the logits' shape, and row [33] sums to 2: independent classes"),
        (late * 0.5, "sigmoid", "float64 labels have the logits' shape, and row [0] sums to 0.5: independent classes"),
    ):
        choice = choose_loss(x, saved("labels", labels))
        assert (choice.loss, choice.reason) == (loss, reason)


def test_auto_on_another_axis(saved, budget):
    one_hot = np.eye(5, dtype=np.float32)[[0, 4, 2]].T
    x = saved("logits", np.zeros((5, 3), np.float32))
    assert choose_loss(x, saved("labels", one_hot), 0).loss == "softmax"
    assert choose_loss(x, saved("labels", one_hot), 1).loss == "sigmoid"
    assert choose_loss(x, saved("labels", np.array([0, 4, 2])), 0).loss == "sparse"


@pytest.mark.parametrize(
    ("shape", "labels", "reason"),
    [
        ((), np.array(1), "there is one logit and one label"),
        ((4, 1), np.ones((4, 1)), "float64 labels have the logits' shape, with one class on axis 1"),
    ],
)
def test_auto_takes_a_single_class_for_a_question(saved, shape, labels, reason):
    choice = choose_loss(saved("logits", np.zeros(shape)), saved("labels", labels))
    assert (choice.loss, choice.reason) == ("sigmoid", reason)


@pytest.mark.parametrize(
    ("logits", "labels", "loss", "text"),
    [
        (np.zeros((4, 3), int), np.zeros(4, int), "auto", "logits: logits have dtype int64"),
        (np.zeros((4, 3), complex), np.zeros(4, int), "sparse", "logits: logits have dtype complex128"),
        (np.zeros((4, 3)), np.zeros(4), "auto", "labels: labels have dtype float64, and sparse_softmax"),
        (np.zeros((4, 3)), np.zeros(4, bool), "auto", "labels: labels have dtype bool, and sparse_softmax"),
        (np.zeros((4, 3)), np.zeros(5, int), "auto", "labels: labels have shape (5,) and logits (4, 3)"),
        (np.zeros((4, 3)), np.zeros(3, int), "sparse", "the labels fit classes on another axis: pass axis=0"),
        (np.zeros((4, 3)), np.zeros((3, 4)), "auto", "the labels are transposed: pass labels.T"),
        (np.zeros((4, 3)), np.zeros((3, 4)), "sigmoid", "the labels are transposed: pass labels.T"),
        (np.zeros((4, 3)), np.zeros((4, 3), "U1"), "softmax", "labels: labels have dtype str"),
        (np.zeros(()), np.zeros((), int), "sparse", "logits: logits are a single number"),
        (np.zeros((4, 0)), np.zeros((4, 0)), "softmax", "logits: logits of shape (4, 0) without a class"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_read(saved, logits, labels, loss, text):
    x, z = replace(saved("logits", logits), name="logits"), replace(saved("labels", labels), name="labels")
    with pytest.raises(BadFile) as raised:
        pair_up(x, z, choose_loss(x, z).loss if loss == "auto" else loss)
    assert text in str(raised.value)
