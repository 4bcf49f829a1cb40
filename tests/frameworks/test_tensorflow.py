"""TensorFlow tensors: values, gradients, dtypes and errors are those that withlogits has for NumPy arrays."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
import pytest

import oracle
import withlogits
import withlogits.engine
from frameworks.cases import ACTIVATIONS, CASES, EVERY, FEW, LOSSES, SOFTMAX_MAPS, Case, by_numpy, engine
from frameworks.tensorflow_cases import WAYS, arguments, array, assert_ulps, differentiated, most_ulps, tensor, tf
from withlogits import reference

value_and_grad = withlogits.value_and_grad
NAN, INF = float("nan"), float("inf")
SPARSE = next(case for case in EVERY if str(case) == "sparse: plain, mean")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The losses are computed in this way."""
    with engine(request.param):
        yield request.param


def flat(value: Any, gradients: Any) -> list[Any]:
    return [value, *(gradients if isinstance(gradients, tuple) else [gradients])]


def of(case: Case, options: dict[str, Any]) -> Callable[[Any, Any], Any]:
    return lambda labels, logits: case.function(labels=labels, logits=logits, **options)


@pytest.mark.parametrize(
    ("case", "way"),
    [(case, way) for way, cases in (("kernels", CASES), ("formulas", FEW)) for case in cases],
    ids=str,
    indirect=["way"],
)
def test_in_a_function_of_any_shape(case: Case, way: str) -> None:
    """Nothing is known when the graph is made but dtypes, and all of it is when it runs."""
    labels, logits, options = arguments(case)
    wrt = case.differentiable

    @functools.partial(tf.function, autograph=False)
    def step(labels: Any, logits: Any) -> Any:
        return differentiated(of(case, options), labels, logits, wrt)

    right = by_numpy(case, *case.arrays())
    for shapes in ((labels.shape, logits.shape), ([None] * labels.ndim, [None] * logits.ndim)):
        made = step.get_concrete_function(
            *(tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, (labels, logits), strict=True))
        )
        for place, (mine, number) in enumerate(zip(made(labels, logits), right, strict=True)):
            assert_ulps(mine, number, most_ulps(way, case, "float64", place))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_of_unknown_rank(case: Case, way: str) -> None:
    if case.axis != -1:
        pytest.skip("the classes of logits of unknown rank are counted from the end")
    labels, logits, options = arguments(case)
    step = tf.function(of(case, options), autograph=False)
    made = step.get_concrete_function(tf.TensorSpec(None, labels.dtype), tf.TensorSpec(None, logits.dtype))
    assert_ulps(made(labels, logits), by_numpy(case, *case.arrays())[0], most_ulps(way, case, "float64"))


@pytest.mark.parametrize("wrt", ["logits", "labels", ("labels", "logits")])
@pytest.mark.parametrize("case", [case for case in FEW if case.loss != "sparse"], ids=str)
def test_value_and_grad(case: Case, wrt: Any, way: str) -> None:
    labels, logits, options = arguments(case)
    value, gradients = value_and_grad(case.function, wrt)(labels=labels, logits=logits, **options)
    a, b = case.arrays()
    right, others = value_and_grad(case.function, wrt)(labels=a, logits=b, **case.keywords)
    names = ("value", *([wrt] if isinstance(wrt, str) else wrt))
    for name, mine, number in zip(names, flat(value, gradients), flat(right, others), strict=True):
        assert_ulps(mine, number, most_ulps(way, case, "float64", 2 if name == "labels" else 0))


def test_value_and_grad_into_a_variable(way: str) -> None:
    labels, logits, _ = arguments(SPARSE)
    both, out = value_and_grad(SPARSE.function), tf.Variable(tf.zeros_like(logits))
    _, gradient = both(labels=labels, logits=logits, out=out)
    assert_ulps(out.read_value(), gradient, 0)
    assert_ulps(out.read_value(), both(labels=labels, logits=logits)[1], 0)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_activations(name: str, dtype: str) -> None:
    """float64 within 8 ulp of the largest: an exp, a log1p, sums of three and a rounding; others round it."""
    x = np.random.default_rng(0).normal(0.0, 2.0, (4, 3)).astype(oracle.DTYPES[dtype])
    x = np.abs(x) / np.abs(x).max() if name == "logit" else x
    function = getattr(withlogits, name)
    for options in ({"axis": a} for a in (-1, 0, None, (1, 0))) if name in SOFTMAX_MAPS else ({},):
        assert_ulps(function(tensor(x), **options), function(x, **options), 8 if dtype == "float64" else 1)
        unknown = tf.function(lambda x, o=options: function(x, **o), autograph=False)
        made = unknown.get_concrete_function(tf.TensorSpec([None, None], x.dtype))
        assert_ulps(made(tensor(x)), function(x, **options), 8 if dtype == "float64" else 1)
    if name == "logsumexp":
        assert function(tensor(x), axis=0, keepdims=True).shape == (1, 3)


def test_activations_of_special_values() -> None:
    x = np.array([[NAN, INF, 0.0], [INF, 0.0, 1.0], [-INF, -INF, -INF], [-INF, 0.0, 800.0], [-800.0, 0.0, 800.0]])
    for name in ACTIVATIONS:
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(getattr(withlogits, name)(tensor(x)), getattr(withlogits, name)(x), rtol=1e-15)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("row", [(40.0, 0.0, 1.0), (0.0, 20.0, 20.0), (-745.0, 0.0, 3.0)], ids=str)
@pytest.mark.parametrize("how", ["eager", "function", "xla"])
def test_the_derivatives_of_confident_rows_keep_their_digits(name: str, row: tuple[float, ...], how: str) -> None:
    """For Σ c f(x): d/dx_j is p_j (c_j − Σ p c) of the softmax, c_j − p_j Σ c of its logarithm; both cancel.

    The rounding of a logarithm of up to 40 is an error of 40 half ulps of p; eight more roundings follow. A p of less
    than 1e-300 counts as 0.
    """
    c = (1.0, 0.25, -0.5)

    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(getattr(withlogits, name)(x) * tf.constant(c, tf.float64))
        return tape.gradient(value, x)

    given = gradient if how == "eager" else tf.function(gradient, jit_compile=how == "xla")
    e = [mpmath.exp(mpmath.mpf(x)) for x in row]
    p = [each / sum(e) for each in e]
    mean = sum(map(operator.mul, p, c))
    truth = [pj * (cj - mean) if name == "softmax" else cj - pj * sum(c) for pj, cj in zip(p, c, strict=True)]
    np.testing.assert_allclose(
        given(tf.constant(row, tf.float64)).numpy(), np.array(truth, float), 48 * 2.0**-53, 1e-300
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_special_values(loss: str, way: str) -> None:
    """NaN gives NaN, −inf is a class that cannot occur, and what is masked costs nothing, whatever it holds."""
    logits = np.array([[NAN, 0.0, 1.0], [-INF, 0.0, 1.0], [INF, 0.0, 1.0], [NAN, INF, 0.0], [20.0, 0.0, 0.0]])
    labels = np.array([1, 1, 1, 0, 0]) if loss == "sparse" else np.eye(3)[[1, 1, 1, 0, 0]]
    weight = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    options = {
        "sparse": {"sample_weight": weight},
        "softmax": {"sample_weight": weight},
        "weighted": {"pos_weight": 2.0},
    }
    given = options.get(loss, {"sample_weight": weight[:, None]})
    function, wrt = LOSSES[loss], ("logits",) if loss == "sparse" else ("logits", "labels")
    made = {name: tensor(value) for name, value in given.items()}
    got = differentiated(lambda z, x: function(labels=z, logits=x, **made), tensor(labels), tensor(logits), wrt)
    with np.errstate(all="ignore"):
        value, gradients = value_and_grad(function, wrt)(labels=labels, logits=logits, **given)
    for mine, right in zip(got, (value, *gradients), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-14)
    if loss != "weighted":
        assert not any(np.any(array(each)[3]) for each in got)


# ------------------------------------------------------------------------------------------------------------- errors


def test_errors_of_shapes_and_dtypes_come_when_a_graph_is_made(way: str) -> None:
    loss = tf.function(lambda z, x: LOSSES["sparse"](labels=z, logits=x), autograph=False)
    known = tf.TensorSpec((None, 3), tf.float32)
    with pytest.raises(ValueError, match=r"labels have shape \(None, 4\) and logits \(None, 3\), classes on axis 1"):
        loss.get_concrete_function(tf.TensorSpec((None, 4), tf.int32), known)
    with pytest.raises(TypeError, match=r"pass tf.cast\(labels, tf.int64\) if they are indices stored as floats"):
        loss.get_concrete_function(tf.TensorSpec((None,), tf.float32), known)
    with pytest.raises(TypeError, match=r"pass tf.cast\(logits, tf.float32\)"):
        loss.get_concrete_function(tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, 3), tf.int32))


def test_shapes_that_do_not_fit_when_a_graph_runs(way: str) -> None:
    loss = tf.function(lambda z, x: LOSSES["sparse"](labels=z, logits=x), autograph=False)
    made = loss.get_concrete_function(tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, 3), tf.float32))
    with pytest.raises(tf.errors.InvalidArgumentError):
        made(tf.zeros(4, tf.int32), tf.zeros((2, 3)))


def test_a_label_out_of_range_in_a_function_by_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, values cannot be looked at: NaN, and no gradient."""
    monkeypatch.setattr(withlogits.engine, "select", lambda: reference)
    loss = tf.function(
        lambda z, x: differentiated(lambda z, x: LOSSES["sparse"](labels=z, logits=x), z, x, ("logits",)),
        autograph=False,
    )
    value, gradient = loss(tf.constant([3, 0]), tf.zeros((2, 3)))
    assert np.isnan(value[0])
    assert np.isfinite(value[1])
    np.testing.assert_array_equal(gradient[0], 0.0)
    assert np.all(gradient[1] != 0.0)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("classes", [3, 5000])
@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_the_weight_of_a_single_row(loss: str, classes: int, traced: bool) -> None:
    """Without axes, NumPy's products are numbers, which have no memory of their own."""
    rng = np.random.default_rng(0)
    logits, labels, weight = rng.normal(size=classes).astype(np.float32), np.eye(classes, dtype=np.float32)[1], 0.5
    if loss == "sparse":
        labels = np.int64(1)
    if loss == "sigmoid":
        logits, labels = logits[0], labels[0]

    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = LOSSES[loss](labels=tf.constant(labels), logits=x, sample_weight=weight)
        return tape.gradient(value, x, output_gradients=tf.constant(3.0))

    found = (tf.function(gradient) if traced else gradient)(tf.constant(logits))
    expected = value_and_grad(LOSSES[loss])(labels=labels, logits=logits, sample_weight=3.0 * weight)[1]
    np.testing.assert_array_equal(array(found), expected)


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("labels", lambda: tf.sparse.from_dense([0, 1]), r"labels are a SparseTensor, .* tf.sparse.to_dense\(labels\)"),
        ("labels", lambda: tf.ragged.constant([[0], [1]]), r"labels are a RaggedTensor, .* labels.to_tensor\(\)"),
        ("labels", lambda: np.ma.masked_equal([0, 1], 1), r"labels are a masked array, .* pass labels.data"),
        ("labels", lambda: [[0], [1, 2]], "labels cannot be made an array"),
        ("name", lambda: 7, "name is 7, where a string or None is expected"),
    ],
)
def test_what_is_no_tensor(name: str, given: Callable[[], Any], text: str) -> None:
    arrays = {"labels": tf.constant([0, 1]), "logits": tf.zeros((2, 3)), name: given()}
    with pytest.raises(TypeError, match=text):
        LOSSES["sparse"](**arrays)


def test_out_must_be_a_variable() -> None:
    both, given = value_and_grad(SPARSE.function), {"labels": tf.constant([0, 1]), "logits": tf.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"out must be a tf.Variable, and is a EagerTensor"):
        both(**given, out=tf.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"of shape \(2, 3\) and dtype float32, and is of shape \(2,\)"):
        both(**given, out=tf.Variable(tf.zeros(2)))


def test_arrays_of_another_library() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    with pytest.raises(TypeError, match="labels are an array of PyTorch, where the logits are of TensorFlow"):
        LOSSES["sparse"](labels=torch.zeros(2, dtype=torch.int64), logits=tf.zeros((2, 3)))
    with pytest.raises(TypeError, match="labels are an array of TensorFlow, where the logits are of NumPy"):
        LOSSES["sparse"](labels=tf.constant([0, 1]), logits=np.zeros((2, 3)))


def test_a_release_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from withlogits.frameworks.tensorflow import private

    monkeypatch.setattr(tf, "__version__", "2.9.1")
    with pytest.raises(ImportError, match=r"withlogits needs TensorFlow 2.18 or later, and found 2.9.1: install"):
        private.check_version()
    with contextlib.suppress(ImportError):
        monkeypatch.setattr(tf, "__version__", "3.0.0-rc1")
        private.check_version()
