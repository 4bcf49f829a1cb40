"""What the losses mean: shapes, types, reductions, ignored rows, infinities, and the cases in which others fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mp

import oracle
import withlogits

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
weighted_loss = withlogits.weighted_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

FLOATS = list(oracle.DTYPES)
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]

property_test = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def some(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.0, 3.0, shape).astype(dtype)


def some_labels(shape: tuple[int, ...], classes: int, dtype: Any = np.int64, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, classes, shape).astype(dtype)


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Any:
    return (labels[..., None] == np.arange(classes)).astype(dtype)


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


# ------------------------------------------------------------------------------------- what counts, NaN and infinities


def test_an_ignored_row_is_nothing_whatever_it_holds(engine: Any) -> None:
    """torch gives NaN gradients for NaN in an ignored row, and keeps an ignored class in the mean (torch#63004)."""
    logits = some((5, 3))
    logits[1], logits[3, 0] = np.nan, np.inf
    labels = np.array([2, -100, 0, 1, 1])
    sample = np.array([1.0, 1.0, 1.0, 0.0, 2.0], np.float32)
    options = {"ignore_index": -100, "sample_weight": sample, "z_loss": 0.1, "label_smoothing": 0.1}
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    assert (value[[1, 3]] == 0).all()
    assert (gradient[[1, 3]] == 0).all()
    kept = [0, 2, 4]
    fewer = {**options, "sample_weight": sample[kept]}
    expected, expected_gradient = value_and_grad(sparse_loss)(labels=labels[kept], logits=logits[kept], **fewer)
    np.testing.assert_array_equal(value[kept], expected)
    np.testing.assert_array_equal(gradient[kept], expected_gradient)
    mean, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, reduction="mean", **options)
    fewer_mean, expected = value_and_grad(sparse_loss)(
        labels=labels[kept], logits=logits[kept], reduction="mean", **fewer
    )
    assert mean == fewer_mean
    np.testing.assert_array_equal(gradient[kept], expected)


def test_a_real_class_may_be_ignored(engine: Any) -> None:
    logits, labels = some((4, 3)), np.array([0, 1, 2, 1], np.uint8)
    mean = sparse_loss(labels=labels, logits=logits, ignore_index=1, reduction="mean")
    assert mean == sparse_loss(labels=labels[[0, 2]], logits=logits[[0, 2]], reduction="mean")
    # a value that the labels' dtype cannot hold is never met
    np.testing.assert_array_equal(
        sparse_loss(labels=labels, logits=logits, ignore_index=-100), sparse_loss(labels=labels, logits=logits)
    )


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_sample_weight_zero_hides_everything(engine: Any, loss: Any) -> None:
    logits, labels = some((3, 4)), one_hot(some_labels((3,), 4), 4)
    logits[1], labels[1] = np.nan, np.inf
    weight = np.array([1.0, 0.0, 1.0])
    both = value_and_grad(loss, ("logits", "labels"))
    shaped = weight if loss is softmax_loss else weight[:, None]
    value, (gradient, by_label) = both(labels=labels, logits=logits, sample_weight=shaped)
    assert (value[1] == 0).all()
    assert (gradient[1] == 0).all()
    assert (by_label[1] == 0).all()
    assert np.isfinite(both(labels=labels, logits=logits, sample_weight=shaped, reduction="mean")[0])
    if loss is softmax_loss:  # the labels of a hidden row do not enter what a class-weighted mean divides by
        options = {"class_weight": [1.0, 2.0, 3.0, 0.5], "reduction": "mean"}
        kept = loss(labels=labels[[0, 2]], logits=logits[[0, 2]], **options)
        np.testing.assert_allclose(loss(labels=labels, logits=logits, sample_weight=weight, **options), kept, rtol=1e-6)


def test_a_label_out_of_range_is_hidden_by_sample_weight_zero(engine: Any) -> None:
    loss = sparse_loss(labels=np.array([0, 99]), logits=np.zeros((2, 3)), sample_weight=np.array([1.0, 0.0]))
    np.testing.assert_allclose(loss, [np.log(3), 0.0])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_nothing_counts(engine: Any, reduction: str) -> None:
    """torch: NaN (torch#70348, torch#116349)."""
    logits = some((3, 4))
    logits[0] = np.nan
    value, gradient = value_and_grad(sparse_loss)(
        labels=np.full(3, -1), logits=logits, ignore_index=-1, reduction=reduction
    )
    assert value == 0.0
    assert (gradient == 0).all()
    value, gradient = value_and_grad(sigmoid_loss)(
        labels=logits, logits=logits, sample_weight=np.zeros((3, 1)), reduction=reduction
    )
    assert value == 0.0
    assert (gradient == 0).all()


def test_a_mean_over_classes_that_weigh_nothing_is_nothing(engine: Any) -> None:
    value, (gradient, by_label) = value_and_grad(softmax_loss, ("logits", "labels"))(
        labels=np.eye(3)[[0, 0]], logits=some((2, 3)), class_weight=[0, 1, 1], label_smoothing=0.1, reduction="mean"
    )
    assert value == 0.0
    assert (gradient == 0).all()
    assert (by_label == 0).all()


@pytest.mark.parametrize("bad", [[np.nan, 0.0, 1.0], [np.inf, 0.0, 1.0], [-np.inf] * 3, [np.inf, -np.inf, np.nan]])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_rows_without_a_loss_are_nan_and_stay_alone(engine: Any, bad: Any, softcap: Any) -> None:
    logits = np.array([[1.0, 2.0, 3.0], bad, [3.0, 1.0, 2.0]], np.float32)
    labels = np.array([0, 1, 2])
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, softcap=softcap)
    np.testing.assert_array_equal(np.isnan(value), [False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient), [[False] * 3, [True] * 3, [False] * 3])
    dense = value_and_grad(softmax_loss)(labels=one_hot(labels, 3), logits=logits, softcap=softcap)
    np.testing.assert_array_equal(dense[0], value)
    np.testing.assert_array_equal(dense[1], gradient)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_masked_class_costs_nothing_unless_it_is_wanted(engine: Any, softcap: Any) -> None:
    """TensorFlow and torch: NaN or inf for a −inf logit with soft label 0, or under label smoothing."""
    logits = np.array([[1.0, -np.inf, 2.0]] * 3, np.float32)
    labels = np.array([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.5, 1e-30, 0.5]], np.float32)
    value, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits, softcap=softcap)
    fewer = softmax_loss(labels=labels[:1, [0, 2]], logits=logits[:1, [0, 2]], softcap=softcap)
    assert value[0] == fewer[0]
    assert gradient[0, 1] == 0
    assert (value[1:] == np.inf).all()
    assert np.isfinite(gradient).all()
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0, 1, 2]), logits=logits, softcap=softcap)
    np.testing.assert_array_equal(np.isinf(value), [False, True, False])
    assert np.isfinite(gradient).all()


def test_a_masked_class_under_smoothing_is_wanted_unless_it_weighs_nothing(engine: Any) -> None:
    logits, labels = np.array([[1.0, -np.inf, 2.0]], np.float32), np.array([0])
    assert sparse_loss(labels=labels, logits=logits, label_smoothing=0.1)[0] == np.inf
    options = {"label_smoothing": 0.1, "class_weight": [1.0, 0.0, 1.0]}
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=logits, **options)
    truth = oracle.softmax(logits[0], label=0, **options)
    assert oracle.ulp_error(value[0], truth.loss, np.float32) <= 1
    assert oracle.worst(gradient[0], truth.gradient, np.float32) <= 4


def test_the_label_gradient_of_a_masked_class(engine: Any) -> None:
    both = value_and_grad(softmax_loss, "labels")
    logits, labels = np.array([[1.0, -np.inf]]), np.array([[1.0, 0.0]])
    assert both(labels=labels, logits=logits)[1][0, 1] == np.inf
    assert both(labels=labels, logits=logits, class_weight=[1.0, 0.0])[1][0, 1] == 0
    assert both(labels=labels, logits=logits, label_smoothing=1.0, class_weight=[1.0, 0.0])[1][0, 0] == 0


@pytest.mark.parametrize(
    ("x", "z", "loss", "gradient"),
    [
        (np.inf, 1.0, 0.0, 0.0),
        (-np.inf, 0.0, 0.0, 0.0),
        (np.inf, 0.0, np.inf, 1.0),
        (-np.inf, 1.0, np.inf, -1.0),
        (np.inf, 0.25, np.inf, 0.75),
        (np.nan, 0.0, np.nan, np.nan),
        (np.nan, 1.0, np.nan, np.nan),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_of_what_is_not_finite(engine: Any, dtype: str, x: Any, z: Any, loss: Any, gradient: Any) -> None:
    value, got = value_and_grad(sigmoid_loss)(labels=np.array([z], dtype), logits=np.array([x], dtype))
    np.testing.assert_array_equal(value, [loss])
    np.testing.assert_array_equal(got, [gradient])


def test_one_class_costs_nothing(engine: Any) -> None:
    value, gradient = value_and_grad(sparse_loss)(labels=np.zeros(3, np.int64), logits=some((3, 1)))
    assert (value == 0).all()
    assert (gradient == 0).all()


def test_labels_that_are_no_distribution_are_taken_as_they_are(engine: Any) -> None:
    """TensorFlow's gradient is p − z whatever Σ z is; the truth is (Σ z) p − z."""
    logits, labels = some((2, 3), np.float64), np.array([[2.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    value, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits)
    p = withlogits.softmax(logits)
    np.testing.assert_allclose(gradient, labels.sum(axis=1, keepdims=True) * p - labels, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(value, -(labels * np.log(p)).sum(axis=1), rtol=1e-14)
    assert value[1] == 0
    assert (gradient[1] == 0).all()


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
            np.testing.assert_array_equal(sparse[0], dense[0])
            np.testing.assert_array_equal(sparse[1], dense[1])


# ------------------------------------------------------------------------------------------------- where others fail


@pytest.mark.parametrize(("dtype", "top"), [("float32", 20.0), ("float64", 40.0)])
def test_the_tail_of_a_confident_row(engine: Any, dtype: str, top: float) -> None:
    """TensorFlow, torch, optax and scikit-learn: exactly 0, and so the label's gradient."""
    logits = np.array([[top, 0.0]], dtype)
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0]), logits=logits)
    truth = oracle.softmax(logits[0], label=0)
    assert oracle.ulp_error(value[0], truth.loss, dtype) <= 1
    assert oracle.worst(gradient[0], truth.gradient, dtype) <= 2
    # the same in binary form (torch: 0 in the tail, and gradient 0 for z = 1, x = 20)
    value, gradient = value_and_grad(sigmoid_loss)(labels=np.array([0.0, 1.0]), logits=np.array([-top, top], dtype))
    assert oracle.ulp_error(value[0], truth.loss, dtype) <= 1
    assert value[1] == value[0]
    assert gradient[0] == -gradient[1] > 0


def test_the_example_of_three_classes(engine: Any) -> None:
    value, gradient = value_and_grad(sparse_loss)(labels=np.array([0]), logits=np.array([[20.0, 0.0, 0.0]], np.float32))
    assert value[0] == np.float32(4.122307244877116e-09)
    assert gradient[0, 0] == np.float32(-4.122307236379708e-09)


def test_large_equal_logits(engine: Any) -> None:
    """Optax's integer labels: 0."""
    assert sparse_loss(labels=np.array([0]), logits=np.array([[1e8, 1e8]], np.float32))[0] == np.float32(np.log(2.0))


def test_many_equal_halves(engine: Any) -> None:
    """torch and optax: inf for float16 over 131,072 classes; 0.04 to 0.10 off for bfloat16 over 50,000."""
    loss = sparse_loss(labels=np.array([7]), logits=np.zeros((1, 131_072), np.float16))
    assert loss[0] == np.float32(np.log(131_072))
    x = np.random.default_rng(0).normal(0, 1, (1, 50_000)).astype(oracle.BFLOAT16)
    truth = mp.log(mp.fsum(mp.exp(float(v)) for v in x[0])) - float(x[0, 3])
    assert oracle.ulp_error(sparse_loss(labels=np.array([3]), logits=x)[0], truth, np.float32) <= 1


def test_the_weighted_gradient_at_zero(engine: Any) -> None:
    """TensorFlow: 1 for z = 0 at exactly x = 0."""
    _, gradient = value_and_grad(weighted_loss)(labels=np.array([0.0, 1.0]), logits=np.zeros(2), pos_weight=3.0)
    np.testing.assert_array_equal(gradient, [0.5, -1.5])


def test_the_mixed_second_derivative(engine: Any) -> None:
    """TensorFlow: a silent 0 (tensorflow#26495). By differences, exact since the gradient is linear in the labels."""
    logits, labels = np.array([[1.0, 2.0, 0.5]]), np.array([[0.5, 0.25, 0.25]])
    gradient = value_and_grad(softmax_loss)
    step = np.array([[1.0, 0.0, 0.0]])
    change = gradient(labels=labels + step, logits=logits)[1] - gradient(labels=labels, logits=logits)[1]
    np.testing.assert_allclose(change, withlogits.softmax(logits) - step, rtol=1e-14)
    change = value_and_grad(sigmoid_loss)(labels=np.array([1.0]), logits=np.array([0.3]))[1]
    change = change - value_and_grad(sigmoid_loss)(labels=np.array([0.0]), logits=np.array([0.3]))[1]
    np.testing.assert_allclose(change, [-1.0], rtol=1e-15)


def test_large_logits_are_not_clipped(engine: Any) -> None:
    """Keras on NumPy clips: 16."""
    assert sigmoid_loss(labels=np.array([0.0]), logits=np.array([100.0], np.float32))[0] == 100.0


def test_a_subnormal_loss(engine: Any) -> None:
    value = sparse_loss(labels=np.array([0, 0]), logits=np.array([[100.0, 0.0], [103.0, 0.0]], np.float32))
    np.testing.assert_array_equal(value, np.exp(np.float64([-100.0, -103.0])).astype(np.float32))


def test_a_small_smoothing_keeps_its_digits(engine: Any) -> None:
    """1 − ((1 − ε) z + ε/2) would lose them."""
    for eps in (1e-10, 1e-14):
        value = sigmoid_loss(labels=np.array([1.0]), logits=np.array([30.0]), label_smoothing=eps)
        truth = oracle.sigmoid_loss(30.0, 1.0, label_smoothing=eps)
        assert oracle.ulp_error(value[0], truth.loss, np.float64) <= 3


def test_small_labels_beside_a_large_one(engine: Any) -> None:
    """T − t_j is the sum of the others, which T rounded has lost."""
    for dtype, limit in (("float32", 1), ("float64", 4)):
        logits, labels = np.array([[100.0, 0.0]], dtype), np.array([[1.0, 1e-20]], dtype)
        _, gradient = value_and_grad(softmax_loss)(labels=labels, logits=logits)
        truth = oracle.softmax(logits[0], labels=labels[0])
        assert oracle.worst(gradient[0], truth.gradient, dtype) <= limit


# ---------------------------------------------------------------------------------------------------------- properties

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9)


@st.composite
def logits_and_view(draw: Any) -> Any:
    """Logits of any dtype and magnitude, seen through any strides."""
    dtype = oracle.DTYPES[draw(st.sampled_from(FLOATS))]
    shape = draw(SHAPES)
    largest = min(oracle.FORMATS[dtype.name][2] / 2, 1e38)
    magnitude = draw(st.sampled_from([1e-30, 1e-3, 1.0, 20.0, 1e4, largest]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-1, 1, shape) * min(magnitude, largest)).astype(np.float32).astype(dtype)
    steps = draw(st.tuples(*[st.sampled_from([1, 2, -1, -3]) for _ in shape]))
    base = np.zeros(tuple(n * abs(s) for n, s in zip(shape, steps, strict=True)), dtype)
    view = base[tuple(slice(None, None, s) for s in steps)]
    view = view[tuple(slice(0, n) for n in shape)]
    view[...] = x
    order = draw(st.permutations(range(len(shape))))
    return np.moveaxis(view, range(len(shape)), order), draw(st.integers(-len(shape), len(shape) - 1)), seed


@property_test
@given(case=logits_and_view())
def test_any_layout_gives_the_loss_of_its_values(engine: Any, case: Any) -> None:
    x, axis, seed = case
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    labels = np.random.default_rng(seed).integers(0, moved.shape[-1], moved.shape[:-1])
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=x, axis=axis)
    expected, plain = value_and_grad(sparse_loss)(labels=labels, logits=moved)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, np.moveaxis(plain, -1, axis))
    assert (np.asarray(value) >= 0).all()
    row = moved.reshape(-1, moved.shape[-1])[0]
    truth = oracle.softmax(row, label=int(labels.ravel()[0]))
    wide = np.float64 if x.dtype == np.float64 else np.float32
    assert oracle.ulp_error(np.ravel(value)[0], truth.loss, wide) <= (2 if wide is np.float64 else 1)


@property_test
@given(case=logits_and_view())
def test_sigmoid_of_any_layout(engine: Any, case: Any) -> None:
    x, _, seed = case
    labels = np.random.default_rng(seed).random(x.shape).astype(np.float32)
    value, gradient = value_and_grad(sigmoid_loss)(labels=labels, logits=x)
    expected, plain = value_and_grad(sigmoid_loss)(labels=labels.copy(), logits=x.copy(order="C"))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, plain)
    assert (np.asarray(value) >= 0).all()


@property_test
@given(
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, 64.0, -1024.0]),
    classes=st.integers(1, 40),
)
def test_a_shift_of_all_logits_changes_nothing(engine: Any, seed: int, shift: float, classes: int) -> None:
    x = np.random.default_rng(seed).integers(-(2**20), 2**20, (3, classes)) / 2.0**16  # the shift is exact
    labels = some_labels((3,), classes, seed=seed % 1000)
    value, gradient = value_and_grad(sparse_loss)(labels=labels, logits=x)
    shifted, its_gradient = value_and_grad(sparse_loss)(labels=labels, logits=x + shift)
    np.testing.assert_array_equal(value, shifted)
    np.testing.assert_array_equal(gradient, its_gradient)
