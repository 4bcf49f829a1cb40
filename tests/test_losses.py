"""What the losses mean: axes, shapes, types, reductions and determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
from oracle import one_hot, some, some_labels

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
weighted_loss = withlogits.weighted_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

FLOATS = list(oracle.DTYPES)
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]

# ---------------------------------------------------------------------------------------------------- axes and shapes


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_any_axis(engine: Any, axis: int) -> None:
    logits = some((2, 3, 4, 5))
    moved = np.ascontiguousarray(np.moveaxis(logits, axis, -1))
    labels = some_labels(moved.shape[:-1], moved.shape[-1])
    expected, gradient = value_and_grad(sparse_loss)(labels=labels, logits=moved)
    value, got = value_and_grad(sparse_loss)(labels=labels, logits=logits, axis=axis)
    assert value.shape == labels.shape
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(got, np.moveaxis(gradient, -1, axis))
    dense = one_hot(labels, moved.shape[-1])
    expected, gradient = value_and_grad(softmax_loss)(labels=dense, logits=moved)
    value, got = value_and_grad(softmax_loss)(labels=np.moveaxis(dense, -1, axis), logits=logits, axis=axis)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(got, np.moveaxis(gradient, -1, axis))


def test_dim_is_an_older_name_of_axis(engine: Any) -> None:
    logits = some((3, 4))
    labels = one_hot(some_labels((4,), 3), 3).T
    np.testing.assert_array_equal(
        softmax_loss(labels=labels, logits=logits, dim=0), softmax_loss(labels=labels, logits=logits, axis=0)
    )


def test_name_changes_nothing(engine: Any) -> None:
    logits, labels = some((3, 4)), one_hot(some_labels((3,), 4), 4)
    for loss in (sigmoid_loss, softmax_loss):
        np.testing.assert_array_equal(
            loss(labels=labels, logits=logits, name="loss"), loss(labels=labels, logits=logits)
        )
    named = weighted_loss(labels=labels, logits=logits, pos_weight=2.0, name="loss")
    np.testing.assert_array_equal(named, weighted_loss(labels=labels, logits=logits, pos_weight=2.0))


@pytest.mark.parametrize(
    ("logits", "axis", "labels"),
    [((4, 3), -1, (4,)), ((4, 3), -1, (4, 1)), ((2, 3, 5), 1, (2, 5)), ((2, 3, 5), 1, (2, 1, 5)), ((4, 1), -1, (4, 1))],
)
def test_the_sparse_loss_has_the_shape_of_its_labels(engine: Any, logits: Any, axis: int, labels: Any) -> None:
    x, y = some(logits), some_labels(labels, logits[axis])
    loss, gradient = value_and_grad(sparse_loss)(labels=y, logits=x, axis=axis)
    assert loss.shape == labels
    assert gradient.shape == logits
    rows = logits[:axis] + logits[axis + 1 :] if axis >= 0 else logits[:-1]
    plain = sparse_loss(labels=y.reshape(rows), logits=x, axis=axis)
    np.testing.assert_array_equal(loss.reshape(rows), plain)
    assert softmax_loss(labels=x, logits=x, axis=axis).shape == rows


def test_labels_with_a_kept_axis_take_sample_weights_of_that_shape(engine: Any) -> None:
    x, y = some((4, 3)), some_labels((4, 1), 3)
    weight = np.array([[1.0], [0.0], [2.0], [0.5]])
    loss = sparse_loss(labels=y, logits=x, sample_weight=weight)
    np.testing.assert_array_equal(loss[:, 0], sparse_loss(labels=y[:, 0], logits=x, sample_weight=weight[:, 0]))


def test_one_row_gives_a_number(engine: Any) -> None:
    loss = sparse_loss(labels=0, logits=[20.0, 0.0, 0.0])
    assert type(loss) is np.float64
    assert loss == pytest.approx(4.122307244877116e-09, rel=1e-15)
    assert type(softmax_loss(labels=[1.0, 0.0], logits=np.zeros(2, np.float32))) is np.float32


def test_sigmoid_takes_any_rank(engine: Any) -> None:
    for shape in ((), (1,), (2, 3), (2, 1, 3, 2)):
        loss, gradient = value_and_grad(sigmoid_loss)(labels=np.ones(shape, np.float32), logits=some(shape))
        assert loss.shape == gradient.shape == shape
    assert type(sigmoid_loss(labels=1, logits=0.0)) is np.float64


@pytest.mark.parametrize("labels", [np.array([0.2, 0.3, 0.5]), np.array([[0.2, 0.3, 0.5]])])
def test_one_label_row_serves_all_rows(engine: Any, labels: Any) -> None:
    logits = some((4, 3))
    full = np.broadcast_to(np.ravel(labels), (4, 3))
    both = value_and_grad(softmax_loss, ("labels", "logits"))
    loss, (by_label, gradient) = both(labels=labels, logits=logits)
    expected, (by_full, expected_gradient) = both(labels=full.copy(), logits=logits)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert by_label.shape == labels.shape
    np.testing.assert_allclose(np.ravel(by_label), by_full.sum(axis=0), rtol=1e-15)


def test_one_label_row_on_another_axis(engine: Any) -> None:
    logits, labels = some((2, 3, 5)), np.array([0.5, 0.25, 0.25]).reshape(1, 3, 1)
    loss = softmax_loss(labels=labels, logits=logits, axis=1)
    np.testing.assert_array_equal(
        loss, softmax_loss(labels=np.broadcast_to(labels, (2, 3, 5)).copy(), logits=logits, axis=1)
    )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_empty_batches(engine: Any, shape: Any, reduction: str) -> None:
    logits = np.zeros(shape, np.float32)
    labels = np.zeros(shape[:-1], np.int64)
    for loss, targets in ((sparse_loss, labels), (softmax_loss, logits), (sigmoid_loss, logits)):
        value, gradient = value_and_grad(loss)(labels=targets, logits=logits, reduction=reduction)
        assert gradient.shape == shape
        if reduction == "none":
            assert value.shape == (shape if loss is sigmoid_loss else shape[:-1])
        else:
            assert value == 0.0
            assert type(value) is np.float32


def test_an_empty_list_of_labels(engine: Any) -> None:
    assert sparse_loss(labels=[], logits=np.zeros((0, 3))).shape == (0,)


# -------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize("dtype", FLOATS)
def test_result_dtypes(engine: Any, dtype: str) -> None:
    kind = oracle.DTYPES[dtype]
    wide = np.float64 if dtype == "float64" else np.float32
    logits, labels = some((4, 3), kind), some_labels((4,), 3)
    dense = one_hot(labels, 3)
    for loss, targets in ((sparse_loss, labels), (softmax_loss, dense), (sigmoid_loss, dense)):
        value, gradient = value_and_grad(loss)(labels=targets, logits=logits)
        assert (value.dtype, gradient.dtype) == (wide, kind)
        assert type(loss(labels=targets, logits=logits, reduction="mean")) is wide


@pytest.mark.parametrize("dtype", INTEGERS)
def test_index_labels_of_every_integer_dtype(engine: Any, dtype: str) -> None:
    logits, labels = some((20, 100)), some_labels((20,), 100)
    np.testing.assert_array_equal(
        sparse_loss(labels=labels.astype(dtype), logits=logits), sparse_loss(labels=labels, logits=logits)
    )


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, "bool", "longdouble"])
def test_dense_labels_of_every_real_dtype(engine: Any, dtype: str) -> None:
    kind = oracle.DTYPES.get(dtype, np.dtype(dtype) if dtype not in oracle.DTYPES else None)
    logits, labels = some((20, 5)), one_hot(some_labels((20,), 5), 5)
    for loss in (softmax_loss, sigmoid_loss):
        expected, by_expected = value_and_grad(loss, "labels")(labels=labels, logits=logits)
        value, by_label = value_and_grad(loss, "labels")(labels=labels.astype(kind), logits=logits)
        np.testing.assert_array_equal(value, expected)
        assert by_label.dtype == {"longdouble": np.float64}.get(dtype, kind if dtype in FLOATS else np.float32)
        np.testing.assert_allclose(by_label.astype(np.float64), by_expected, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_labels_and_logits_as_they_come(engine: Any, dtype: str) -> None:
    """Byte-swapped, strided, reversed, unaligned, read-only, memory-mapped, subclassed, lists."""
    logits, labels = some((6, 5)), one_hot(some_labels((6,), 5), 5, dtype)
    expected, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits)
    for x in disguises(logits):
        for z in disguises(labels):
            value, got = value_and_grad(softmax_loss)(labels=z, logits=x)
            np.testing.assert_array_equal(value, expected)
            np.testing.assert_array_equal(got, gradient)


def disguises(array: Any) -> list[Any]:
    """The same values in other clothes."""
    wide = np.zeros((*array.shape, 3), array.dtype)
    wide[..., 1] = array
    shifted = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    still = array.copy()
    still.flags.writeable = False
    return [
        array.astype(array.dtype.newbyteorder("S")),
        np.asfortranarray(array),
        wide[..., 1],
        array[::-1, ::-1].copy()[::-1, ::-1],
        shifted,
        still,
        array.view(Subclass),
    ]


class Subclass(np.ndarray):
    pass


def test_lists_are_arrays(engine: Any) -> None:
    loss = sparse_loss(labels=[0, 1], logits=[[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(loss, sparse_loss(labels=np.array([0, 1]), logits=np.array([[1.0, 2.0], [3.0, 4.0]])))
    assert loss.dtype == np.float64
    options = {"class_weight": [1, 2], "sample_weight": [1, 3]}
    weighted = softmax_loss(labels=[[True, False], [False, True]], logits=[[1.0, 2.0], [3.0, 4.0]], **options)
    np.testing.assert_allclose(weighted, loss * [1, 6])


def test_memory_maps(engine: Any, tmp_path: Any) -> None:
    logits = some((6, 5))
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    labels = some_labels((6,), 5)
    np.testing.assert_array_equal(sparse_loss(labels=labels, logits=mapped), sparse_loss(labels=labels, logits=logits))


def test_broadcast_views(engine: Any) -> None:
    logits = np.broadcast_to(some((5,)), (6, 5))
    labels = np.broadcast_to(np.int8(3), (6,))
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits)
    expected, full = value_and_grad(sparse_loss)(labels=labels.copy(), logits=logits.copy())
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, full)


def test_nothing_is_changed(engine: Any) -> None:
    logits, labels = some((6, 5)), one_hot(some_labels((6,), 5), 5)
    class_weight, sample_weight = np.arange(5.0), np.arange(6.0)
    arrays = (logits, labels, class_weight, sample_weight)
    before = [a.copy() for a in arrays]
    value_and_grad(softmax_loss, ("logits", "labels"))(
        labels=labels, logits=logits, class_weight=class_weight, sample_weight=sample_weight, softcap=3.0
    )
    value_and_grad(sigmoid_loss, ("logits", "labels"))(labels=labels, logits=logits, pos_weight=class_weight)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --------------------------------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("name", ["sparse", "dense", "sigmoid"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sum_and_mean(engine: Any, name: str, weighted: bool) -> None:
    logits, labels = some((6, 4), np.float64), some_labels((6,), 4)
    options: dict[str, Any] = {}
    if weighted:
        shape = (6, 4) if name == "sigmoid" else (6,)
        options["sample_weight"] = np.random.default_rng(2).choice([0.0, 0.5, 2.0], shape)
    targets = labels if name == "sparse" else one_hot(labels, 4, np.float64)
    loss = {"sparse": sparse_loss, "dense": softmax_loss, "sigmoid": sigmoid_loss}[name]
    each, gradient = value_and_grad(loss)(labels=targets, logits=logits, **options)
    total, sum_gradient = value_and_grad(loss)(labels=targets, logits=logits, reduction="sum", **options)
    mean, mean_gradient = value_and_grad(loss)(labels=targets, logits=logits, reduction="mean", **options)
    count = options["sample_weight"].sum() if weighted else each.size
    np.testing.assert_allclose(total, each.sum(), rtol=1e-14)
    np.testing.assert_allclose(mean, each.sum() / count, rtol=1e-14)
    np.testing.assert_array_equal(sum_gradient, gradient)
    np.testing.assert_allclose(mean_gradient, gradient / count, rtol=1e-14)


def test_the_mean_divides_by_class_weights_for_indices_and_distributions_alike(engine: Any) -> None:
    """torch divides by Σw for indices and by N for distributions (torch#61309, torch#107680)."""
    logits, labels = some((6, 4), np.float64), np.array([0, 1, 2, 3, 3, 1])
    weight, sample = np.array([1.0, 2.0, 0.5, 0.0]), np.array([1.0, 0.5, 2.0, 1.0, 3.0, 0.0])
    each = sparse_loss(labels=labels, logits=logits)
    expected = (sample * weight[labels] * each).sum() / (sample * weight[labels]).sum()
    options = {"class_weight": weight, "sample_weight": sample, "reduction": "mean"}
    sparse, sparse_gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    dense, dense_gradient = value_and_grad(softmax_loss)(labels=one_hot(labels, 4), logits=logits, **options)
    np.testing.assert_allclose(sparse, expected, rtol=1e-14)
    assert sparse == dense
    np.testing.assert_array_equal(sparse_gradient, dense_gradient)
    soft = np.random.default_rng(0).dirichlet(np.ones(4), 6)
    each = (sample * (weight * soft * -withlogits.log_softmax(logits)).sum(axis=1)).sum()
    mean = softmax_loss(labels=soft, logits=logits, **options)
    np.testing.assert_allclose(mean, each / (sample * (soft @ weight)).sum(), rtol=1e-14)


def test_the_mean_without_class_weights_counts_rows_whatever_their_labels_sum_to(engine: Any) -> None:
    logits, labels = some((3, 4), np.float64), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0.1, 0, 0, 0]])
    each = softmax_loss(labels=labels, logits=logits)
    np.testing.assert_allclose(softmax_loss(labels=labels, logits=logits, reduction="mean"), each.sum() / 3)


def test_smoothing_does_not_change_what_the_mean_divides_by(engine: Any) -> None:
    logits, labels, weight = some((5, 3), np.float64), np.array([0, 1, 2, 1, 1]), np.array([1.0, 2.0, 4.0])
    options = {"class_weight": weight, "label_smoothing": 0.3}
    each = sparse_loss(labels=labels, logits=logits, **options)
    mean = sparse_loss(labels=labels, logits=logits, reduction="mean", **options)
    np.testing.assert_allclose(mean, each.sum() / weight[labels].sum(), rtol=1e-14)


def test_half_precision_means_scale_before_they_round(engine: Any) -> None:
    """torch: 93 % of the entries of a float16 mean gradient underflow to 0."""
    logits = np.zeros((64, 1000), np.float16)
    labels = np.zeros(64, np.int64)
    _, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, reduction="mean")
    assert (gradient != 0).all()
    assert gradient[0, 1] == np.float16(np.float32(1e-3 / 64))


# ------------------------------------------------------------------------------------------------------- determinism


def test_a_row_does_not_depend_on_its_batch(engine: Any) -> None:
    for classes in (3, 10, 33, 1000):
        logits, labels = some((37, classes)), some_labels((37,), classes)
        value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits)
        for i in (0, 5, 36):
            one, its_gradient = value_and_grad(sparse_loss)(labels=labels[i : i + 1], logits=logits[i : i + 1])
            assert one[0] == value[i]
            np.testing.assert_array_equal(its_gradient[0], gradient[i])


def test_the_number_of_threads_changes_no_bit(engine: Any) -> None:
    before = withlogits.get_num_threads()
    logits, labels = some((3000, 101)), some_labels((3000,), 101)
    try:
        results = []
        for threads in (1, 2, 3):
            withlogits.set_num_threads(threads)
            results.append(value_and_grad(sparse_loss)(labels=labels, logits=logits, reduction="mean"))
    finally:
        withlogits.set_num_threads(before)
    for value, gradient in results[1:]:
        assert value == results[0][0]
        np.testing.assert_array_equal(gradient, results[0][1])


def test_index_labels_are_one_hot_labels(engine: Any) -> None:
    for dtype in FLOATS:
        logits, labels = some((50, 10), oracle.DTYPES[dtype]), some_labels((50,), 10)
        for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01, "class_weight": np.arange(10.0), "softcap": 4.0}):
            sparse = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
            dense = value_and_grad(softmax_loss)(labels=one_hot(labels, 10), logits=logits, **options)
            if dtype == "float64":
                np.testing.assert_array_equal(sparse[0], dense[0])
                np.testing.assert_array_equal(sparse[1], dense[1])
            else:  # index labels take float32 arithmetic, each path within its own limit
                np.testing.assert_array_max_ulp(sparse[0], dense[0], 1)
                close = {"rtol": 2e-7 if dtype == "float32" else 2.0**-7, "atol": 1e-7}
                np.testing.assert_allclose(sparse[1].astype(np.float64), dense[1].astype(np.float64), **close)
