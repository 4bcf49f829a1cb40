"""The accuracy contract: every loss, gradient and activation against mpmath, for both engines.

In units in the last place of the truth: the loss 1 for float32 and 2 for float64, the gradient 4 where p ≥ 1e-6 and at
the label always. What these figures do not mean:

- Where m and r of a logsumexp in float64 have opposite signs they cancel, and the error counts in ulp of the larger.
- The same holds for entries of a gradient whose parts cancel (a soft label that is nearly the probability); a float32
  result, computed in float64, is granted 2⁻²⁶ of that.
- In float64, class weights and smoothing are rounded on their way into t: 3 ulp. `softcap` has the
  error of one tanh, so the loss is that of logits which are off by 4 units of 2⁻⁵³ of themselves (`granted`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import withlogits
from oracle import ulp_error

LOSS_ULP = {"float32": 1.0, "float64": 2.0}
OPTION_ULP = {"float32": 1.0, "float64": 3.0}
GRADIENT_ULP = 4.0
UNIT = mpf(2) ** -53

OPTIONS: dict[str, dict[str, Any]] = {
    "smoothed": {"label_smoothing": 0.1},
    "hardly smoothed": {"label_smoothing": 1e-10},
    "class weights": {"class_weight": [0.25, 0.0, 3.0, 1.0]},
    "z-loss": {"z_loss": 1e-2},
    "temperature": {"temperature": 0.7},
    "softcap": {"softcap": 30.0},
    "all": {
        "label_smoothing": 0.1,
        "class_weight": [0.25, 0.1, 3.0, 1.0],
        "z_loss": 1e-4,
        "temperature": 1.7,
        "softcap": 20.0,
    },
}


def options_for(name: str, classes: int) -> dict[str, Any]:
    options = dict(OPTIONS.get(name, {}))
    if "class_weight" in options:
        options["class_weight"] = np.resize(options["class_weight"], classes)
    return options


@functools.cache
def index_cases(dtype: str, classes: int, each: int, name: str = "") -> tuple[Any, Any, list[oracle.Truth]]:
    """Hard rows, each with its largest logit as the label, and with another."""
    rng = np.random.default_rng(classes)
    rows = [x for _, x in oracle.rows(classes, dtype, classes, each) for _ in range(2)]
    labels = [int(np.argmax(x)) if i % 2 else int(rng.integers(classes)) for i, x in enumerate(rows)]
    options = options_for(name, classes)
    return (
        np.stack(rows),
        np.array(labels),
        [oracle.softmax(x, label=y, **options) for x, y in zip(rows, labels, strict=True)],
    )


@functools.cache
def soft_cases(dtype: str, classes: int, each: int, name: str = "") -> tuple[Any, Any, list[oracle.Truth]]:
    """Hard rows with labels from nearly one-hot to nearly uniform, and some that are no distribution."""
    rng = np.random.default_rng(classes)
    rows = [x for _, x in oracle.rows(classes, dtype, classes + 1, each) for _ in range(4)]
    labels = [rng.dirichlet(np.full(classes, (0.02, 0.3, 10.0)[i % 3])).astype(dtype) for i in range(len(rows))]
    for i, z in enumerate(labels):
        if i % 4 == 3:
            z[...] = rng.choice([0.0, 1.0, 1e-20], classes)
    options = options_for(name, classes)
    return (
        np.stack(rows),
        np.stack(labels),
        [oracle.softmax(x, labels=z, **options) for x, z in zip(rows, labels, strict=True)],
    )


def granted(truth: oracle.Truth, options: dict[str, Any], dtype: str) -> mpf:
    """What the options may cost a float64 loss beside its ulp (see above)."""
    if dtype != "float64":
        return mpf(0)
    allowed = mpf(0)
    if "softcap" in options:
        allowed += 4 * UNIT * truth.sensitivity
    if "z_loss" in options:  # the square of a sum m + r that may cancel
        allowed += 4 * UNIT * options["z_loss"] * abs(truth.logsumexp) * max(abs(truth.m), truth.r)
    return allowed


def granted_to_gradient(truth: oracle.Truth, j: int, x: Any, options: dict[str, Any], dtype: str) -> mpf:
    """The same for an entry of the gradient: logits off by 4 units move p by 8 |x'| p (1 − p) units at most."""
    p, allowed = truth.p[j], mpf(0)
    if dtype != "float64" or not np.isfinite(x[j]):
        return allowed
    if "softcap" in options:
        softcap = options["softcap"]
        largest = np.minimum(np.abs(x[np.isfinite(x)]).max(), softcap) / options.get("temperature", 1.0)
        weight = max(options.get("class_weight", [1.0]))
        allowed += 8 * UNIT * mpf(float(largest)) * weight * p * (1 - p) * truth.slope[j]
        # the slope 1/cosh²(x/c) changes by 2 |x/c| of itself
        allowed += 8 * UNIT * mpf(float(abs(x[j]) / softcap)) * truth.scale[j]
    if "z_loss" in options:
        allowed += 8 * UNIT * options["z_loss"] * max(abs(truth.m), truth.r) * p * truth.slope[j]
    return allowed


def check_gradient(got: Any, truth: oracle.Truth, x: Any, label: int, dtype: str, options: dict[str, Any]) -> None:
    share = mpf(1) if dtype == "float64" else mpf(2) ** -26
    for j in range(len(x)):
        if j == label or truth.p[j] >= 1e-6:
            allowed = granted_to_gradient(truth, j, x, options, dtype)
            error = ulp_error(got[j], truth.gradient[j], dtype, truth.scale[j] * share, allowed)
            assert error <= GRADIENT_ULP, (j, label, got[j], float(truth.gradient[j]), x)


@pytest.mark.parametrize(
    ("classes", "each", "axis"),
    [(1, 1, 1), (2, 20, 1), (3, 20, 1), (3, 20, 0), (10, 10, 1), (10, 10, 0), (67, 4, 1), (67, 4, 0), (1000, 1, 1)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_index_labels(engine: Any, dtype: str, classes: int, each: int, axis: int) -> None:
    logits, labels, truths = index_cases(dtype, classes, each)
    laid = logits if axis else np.ascontiguousarray(logits.T)
    loss = withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=laid, axis=axis)
    again, gradient = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
        labels=labels, logits=laid, axis=axis
    )
    gradient = gradient if axis else gradient.T
    for i, truth in enumerate(truths):
        assert ulp_error(loss[i], truth.loss, dtype) <= LOSS_ULP[dtype], (logits[i], labels[i], loss[i])
        assert ulp_error(again[i], truth.loss, dtype) <= LOSS_ULP[dtype], (logits[i], labels[i], again[i])
        check_gradient(gradient[i], truth, logits[i], labels[i], dtype, {})


@pytest.mark.parametrize(("classes", "each"), [(1, 1), (2, 10), (3, 10), (10, 5), (67, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_soft_labels(engine: Any, dtype: str, classes: int, each: int) -> None:
    logits, labels, truths = soft_cases(dtype, classes, each)
    loss = withlogits.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    again, (gradient, by_label) = withlogits.value_and_grad(
        withlogits.softmax_cross_entropy_with_logits, ("logits", "labels")
    )(labels=labels, logits=logits)
    for i, truth in enumerate(truths):
        assert ulp_error(loss[i], truth.loss, dtype) <= LOSS_ULP[dtype], (logits[i], labels[i], loss[i])
        assert ulp_error(again[i], truth.loss, dtype) <= LOSS_ULP[dtype], (logits[i], labels[i], again[i])
        check_gradient(gradient[i], truth, logits[i], int(np.argmax(labels[i])), dtype, {})
        assert oracle.worst(by_label[i], truth.label_gradient, dtype) <= GRADIENT_ULP


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_longest_rows(engine: Any, dtype: str, kind: str) -> None:
    classes = 262_144
    rng = np.random.default_rng(7)
    x = oracle.row(kind, classes, dtype, rng)
    for label in (int(np.argmax(x)), 5):
        truth = long_truth(kind, dtype, label, x.tobytes())
        value, gradient = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
            labels=np.array([label]), logits=x[None]
        )
        loss = withlogits.sparse_softmax_cross_entropy_with_logits(labels=np.array([label]), logits=x[None])
        assert ulp_error(value[0], truth.loss, dtype) <= LOSS_ULP[dtype]
        assert ulp_error(loss[0], truth.loss, dtype) <= LOSS_ULP[dtype]
        for j in {label, *rng.integers(0, classes, 50).tolist()}:
            if j == label or truth.p[j] >= 1e-6:
                assert ulp_error(gradient[0, j], truth.gradient[j], dtype) <= GRADIENT_ULP
        assert_logsumexp(withlogits.logsumexp(x), truth, dtype)


@functools.cache
def long_truth(kind: str, dtype: str, label: int, x: bytes) -> oracle.Truth:
    return oracle.softmax(np.frombuffer(x, dtype), label=label)


def assert_logsumexp(got: Any, truth: oracle.Truth, dtype: str) -> None:
    scale = max(abs(truth.m), truth.r) if dtype == "float64" else mpf(0)
    assert ulp_error(got, truth.logsumexp, dtype, scale) <= LOSS_ULP[dtype]


@pytest.mark.parametrize("labels", ["index", "soft"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_options(engine: Any, dtype: str, name: str, labels: str) -> None:
    for classes in (1, 3, 19):
        options = options_for(name, classes)
        cases = index_cases if labels == "index" else soft_cases
        logits, targets, truths = cases(dtype, classes, 2, name)
        loss = (
            withlogits.sparse_softmax_cross_entropy_with_logits
            if labels == "index"
            else withlogits.softmax_cross_entropy_with_logits
        )
        plain = loss(labels=targets, logits=logits, **options)
        value, gradient = withlogits.value_and_grad(loss)(labels=targets, logits=logits, **options)
        for i, truth in enumerate(truths):
            allowed = granted(truth, options, dtype)
            for got in (plain[i], value[i]):
                assert ulp_error(got, truth.loss, dtype, granted=allowed) <= OPTION_ULP[dtype], (logits[i], targets[i])
            label = int(targets[i] if labels == "index" else np.argmax(targets[i]))
            check_gradient(gradient[i], truth, logits[i], label, dtype, options)


@functools.cache
def sigmoid_cases(dtype: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    ends = [0.0, 88.8, 104.0, 708.5, 745.2]
    size = np.concatenate([10.0 ** rng.uniform(-45, 38, 300), rng.uniform(0, 40, 300), ends])
    x = (size * rng.choice([-1.0, 1.0], len(size))).astype(dtype)
    z = rng.choice([0.0, 1.0, 0.5, 1e-20, 1.0 - 2.0**-24, -1.0], len(x))
    z = np.where(z < 0, rng.random(len(x)), z).astype(dtype)
    q = rng.choice([1.0, 0.0, 3.7, 1e-3], len(x))
    return x, z, q


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1e-10, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid(engine: Any, dtype: str, weighted: bool, smoothing: float) -> None:
    x, z, q = sigmoid_cases(dtype)
    options = {"label_smoothing": smoothing, "pos_weight": q if weighted else None}
    loss = withlogits.sigmoid_cross_entropy_with_logits(labels=z, logits=x, **options)
    again, (gradient, by_label) = withlogits.value_and_grad(
        withlogits.sigmoid_cross_entropy_with_logits, ("logits", "labels")
    )(labels=z, logits=x, **options)
    limit = LOSS_ULP[dtype] if not smoothing and not weighted else OPTION_ULP[dtype]
    for i in range(len(x)):
        weight = q[i] if weighted else 1.0
        truth = oracle.sigmoid_loss(x[i], z[i], pos_weight=weight, label_smoothing=smoothing)
        assert ulp_error(loss[i], truth.loss, dtype) <= limit, (x[i], z[i], weight)
        assert ulp_error(again[i], truth.loss, dtype) <= limit, (x[i], z[i], weight)
        share = 1 if dtype == "float64" else mpf(2) ** -26
        error = ulp_error(gradient[i], truth.gradient[0], dtype, truth.scale[0] * share)
        assert error <= GRADIENT_ULP, (x[i], z[i], weight, gradient[i])
        scale = max(weight, 1.0) * max(abs(float(x[i])), 1.0) * share if weight != 1.0 else mpf(0)
        assert ulp_error(by_label[i], truth.label_gradient[0], dtype, scale) <= GRADIENT_ULP, (x[i], z[i], weight)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weighted_loss_is_the_sigmoid_loss(engine: Any, dtype: str) -> None:
    x, z, q = sigmoid_cases(dtype)
    ours = withlogits.weighted_cross_entropy_with_logits(labels=z, logits=x, pos_weight=q)
    same = withlogits.sigmoid_cross_entropy_with_logits(labels=z, logits=x, pos_weight=q)
    np.testing.assert_array_equal(ours, same)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reductions(engine: Any, dtype: str, reduction: str) -> None:
    logits, labels, truths = index_cases(dtype, 10, 10)
    keep = [i for i, truth in enumerate(truths) if mp.isfinite(truth.loss) and truth.loss < 1e30]
    sample = np.random.default_rng(0).choice([0.0, 0.5, 2.0, 1e-3], len(keep)).astype(dtype)
    got = withlogits.sparse_softmax_cross_entropy_with_logits(
        labels=labels[keep], logits=logits[keep], sample_weight=sample, reduction=reduction
    )
    truth = mp.fsum(oracle.exact(s) * truths[i].loss for s, i in zip(sample, keep, strict=True))
    if reduction == "mean":
        truth /= mp.fsum(map(oracle.exact, sample))
    assert ulp_error(got, truth, dtype) <= OPTION_ULP[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_float32_result_rounded_once(engine: Any, dtype: str) -> None:
    half, labels, _ = index_cases(dtype, 10, 5)
    single = half.astype(np.float32)
    for options in ({}, {"reduction": "mean"}, OPTIONS["z-loss"] | {"label_smoothing": 0.1}):
        both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
        value, gradient = both(labels=labels, logits=half, **options)
        expected, wide = both(labels=labels, logits=single, **options)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected)
        assert gradient.dtype == half.dtype
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(gradient, wide.astype(half.dtype))
    for kind in ("softmax", "log_softmax", "logsumexp"):
        got, wide = getattr(withlogits, kind)(half), getattr(withlogits, kind)(single)
        assert got.dtype == half.dtype
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got, wide.astype(half.dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sigmoid(engine: Any, dtype: str) -> None:
    half = oracle.row("confident", 200, dtype, np.random.default_rng(1)).reshape(10, 20)
    labels = (np.arange(200).reshape(10, 20) % 3 == 0).astype(half.dtype)
    both = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits, ("logits", "labels"))
    value, gradients = both(labels=labels, logits=half)
    expected, wide = both(labels=labels.astype(np.float32), logits=half.astype(np.float32))
    np.testing.assert_array_equal(value, expected)
    for got, single in zip(gradients, wide, strict=True):
        np.testing.assert_array_equal(got, single.astype(half.dtype))
