"""One table over all frameworks, losses, options, dtypes and reductions: the numbers and the errors of NumPy.

What a framework has besides (transformations, graphs, devices) is tested in files of its own. How far its ways may be
from NumPy's kernels stands in its `most_ulps`.
"""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oracle
import processes
from frameworks.cases import EVERY, FEW, LOSSES, Case, assert_ulps, by_numpy, engine

NAN = float("nan")
FRAMEWORKS = ("torch", "jax", "tensorflow")
WAYS = [
    *(("torch", way) for way in ("kernels", "operators", "formulas")),
    *((name, way) for name in ("jax", "tensorflow") for way in ("kernels", "formulas")),
]
# How each writes what NumPy's texts say
WORDS = {
    "torch": {"labels.to(torch.int64)": "labels.astype(numpy.int64)"},
    "jax": {"labels.astype(jax.numpy.int32)": "labels.astype(numpy.int64)"},
    "tensorflow": {
        "tf.cast(labels, tf.int64)": "labels.astype(numpy.int64)",
        "tf.argmax(labels, 1)": "labels.argmax(axis=1)",
    },
}


def side(framework: str) -> Any:
    """What the tests have for a framework: the way to its arrays, its derivatives, its bounds."""
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    return importlib.import_module(f"frameworks.{framework}_cases")


@pytest.mark.parametrize("case", EVERY, ids=str)
@pytest.mark.parametrize(("framework", "way"), WAYS)
def test_values_and_gradients_are_those_of_numpy(framework: str, way: str, case: Case) -> None:
    """JAX compiles each formula for each shape and dtype, so that few cases have to do there."""
    this = side(framework)
    if (framework, way) == ("jax", "formulas") and case not in FEW:
        return
    for dtype in oracle.DTYPES if case in FEW else this.DTYPES:
        got = this.computed(case, dtype, way)
        labels, logits = case.arrays(oracle.DTYPES[dtype])
        expected = by_numpy(case, labels, logits)
        if case.options.get("reduction") == "none":  # which autograd has made without its gradient
            expected[0] = case.function(labels=labels, logits=logits, **case.keywords)
        assert len(got) == (2 if (framework, way) == ("jax", "kernels") else len(expected))
        for place, (mine, right) in enumerate(zip(got, expected, strict=False)):
            most = this.most_ulps(way, case, dtype, place)
            assert_ulps(mine, right, most, f"{dtype}: {('loss', *case.differentiable)[place]}")


# -------------------------------------------------------------------------------------------------------- derivatives


def differences(case: Case) -> list[float]:
    """The derivatives of first to third order along the line of `line`, of NumPy's gradients in float64."""
    labels, logits = case.arrays()
    v, h = line(case)

    def first(t: float) -> float:
        gradients = by_numpy(case, labels if h is None else labels + t * h, logits + t * v)[1:]
        return sum(float((g * d).sum()) for g, d in zip(gradients, (v, h), strict=False))

    step = 1e-4
    low, middle, high = first(-step), first(0.0), first(step)
    return [middle, (high - low) / (2 * step), (high - 2 * middle + low) / step**2]


def line(case: Case) -> tuple[Any, Any]:
    """Directions of logits and, if they have derivatives, labels."""
    rng, (labels, logits) = np.random.default_rng(1), case.arrays()
    v = rng.normal(0.0, 0.3, logits.shape)
    return v, rng.normal(0.0, 0.1, labels.shape) if len(case.differentiable) > 1 else None


@pytest.mark.parametrize("case", [case for case in FEW if case.name in ("plain", "all", "all, mean")], ids=str)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_three_orders_of_derivatives(framework: str, case: Case) -> None:
    """Differences err by step²/6 = 2e-9 and step²/12 times derivatives two orders up, which are below 1e3 here, and by
    1e-16/step = 1e-12 and 4e-16/step² = 4e-8 times the gradient, which is below 10."""
    got, expected = side(framework).orders(case, *line(case)), differences(case)
    for mine, right, error in zip(got, expected, (1e-12, 1e-6, 1e-6), strict=True):
        assert abs(mine - right) <= error, (got, expected)


# -------------------------------------------------------------------------------------------------- threads, processes


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_threads(framework: str) -> None:
    """Calls of two threads, small ones and such that have threads of their own: the same bits as alone."""
    this = side(framework)
    cases = [Case("sparse", "small", {"reduction": "mean"}, (32, 10)), Case("sigmoid", "large", {}, (4096, 100))]
    with engine("kernels"):
        alone = {str(case): this.computed(case, "float32", "kernels") for case in cases}
        with ThreadPoolExecutor(2) as pool:
            for case in cases:
                for found in pool.map(lambda _, case=case: this.computed(case, "float32", "kernels"), range(20)):
                    for one, other in zip(found, alone[str(case)], strict=True):
                        np.testing.assert_array_equal(one, other)


FORKED = """
    import os, warnings, numpy as np, withlogits
    from frameworks.cases import Case, by_numpy
    from frameworks import {framework}_cases as side

    case = Case("sparse", "large", {{"reduction": "mean"}}, (4096, 100))
    labels, logits = case.arrays(np.float32)
    expected = by_numpy(case, labels, logits)
    side.computed(case, "float32", "kernels")
    warnings.simplefilter("ignore")  # JAX's, that its own calls may hang in a child
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(*pair) for pair in zip(by_numpy(case, labels, logits), expected))
        os._exit(0 if same else 1)
    again = side.computed(case, "float32", "kernels")
    print(os.waitpid(child, 0)[1], all(np.array_equal(*pair) for pair in zip(again, expected)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fork_after_use(framework: str) -> None:
    """The framework itself may not survive in the child, but losses of NumPy arrays do, and the parent goes on."""
    side(framework)
    env = processes.environment(TF_CPP_MIN_LOG_LEVEL="3")
    env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent.parent)
    with processes.start(FORKED.format(framework=framework), env=env) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "0 True\n"), err


# ------------------------------------------------------------------------------------------------------------- errors


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("sparse", {"labels": np.array([0, 3])}),
    ("sparse", {"labels": np.array([0, -1])}),
    ("sparse", {"labels": np.array([0.0, 1.0], np.float32)}),
    ("sparse", {"labels": np.array([False, True])}),
    ("sparse", {"labels": np.eye(3)[:2].astype(np.int64)}),
    ("sparse", {"labels": np.eye(3)[:2].astype(np.float32)}),
    ("sparse", {"labels": np.array([0, 1, 2])}),
    ("sparse", {"axis": 2}),
    ("sparse", {"axis": 1.5}),
    ("sparse", {"class_weight": np.ones((3, 1))}),
    ("sparse", {"logits": np.zeros((2, 0))}),
    ("sparse", {"class_weight": np.ones(2)}),
    ("sparse", {"class_weight": np.array([1.0, -1.0, 1.0])}),
    ("sparse", {"sample_weight": np.ones(3)}),
    ("sparse", {"sample_weight": np.array([1.0, NAN])}),
    ("sparse", {"reduction": "average"}),
    ("sparse", {"temperature": 0.0}),
    ("softmax", {"labels": np.array([0, 1])}),
    ("softmax", {"labels": np.ones((3, 2))}),
    ("softmax", {"labels": np.ones((2, 3), np.complex64)}),
    ("softmax", {"labels": None}),
    ("softmax", {"logits": np.zeros(())}),
    ("softmax", {"dim": 0, "axis": 1}),
    ("sigmoid", {"labels": np.ones((2, 1, 3))}),
    ("sigmoid", {"labels": np.ones((3, 2))}),
    ("sigmoid", {"labels": np.zeros(2, np.float32)}),
    ("sigmoid", {"pos_weight": np.ones((2, 1, 3))}),
    ("sigmoid", {"pos_weight": np.full(3, NAN)}),
    ("sigmoid", {"reduction": "average"}),
]


@pytest.mark.parametrize(("loss", "changes"), WRONG, ids=str)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_errors_are_those_of_numpy(framework: str, loss: str, changes: dict[str, Any]) -> None:
    this = side(framework)
    labels = np.array([0, 1]) if loss == "sparse" else np.full((2, 3), 1 / 3, np.float32)
    given = {"labels": labels, "logits": np.zeros((2, 3), np.float32), **changes}
    with pytest.raises((TypeError, ValueError)) as right:
        LOSSES[loss](**given)
    with pytest.raises(right.type) as got:
        LOSSES[loss](**{name: this.tensor(value) for name, value in given.items()})
    text = str(got.value)
    for theirs, ours in WORDS[framework].items():
        text = text.replace(theirs, ours)
    assert text == str(right.value)


TRACES: dict[str, list[Any]] = {
    "torch": [
        lambda torch, loss: loss(torch.tensor(2.0, requires_grad=True)),
        lambda torch, loss: torch.func.grad(loss)(torch.tensor(2.0)),
        lambda torch, loss: torch.func.vmap(loss)(torch.ones(3)),
    ],
    "jax": [
        lambda jax, loss: jax.jit(loss)(2.0),
        lambda jax, loss: jax.grad(loss)(2.0),
        lambda jax, loss: jax.vmap(loss)(jax.numpy.ones(3)),
    ],
    "tensorflow": [lambda tf, loss: tf.function(loss)(tf.constant(2.0))],
}


@pytest.mark.parametrize("option", ["temperature", "z_loss", "ignore_index", "axis"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_options_are_no_arrays_that_are_traced(framework: str, option: str) -> None:
    """Nor tensors whose gradient is wanted, which there is none of; but a number in an array is one."""
    this, module = side(framework), pytest.importorskip(framework)
    labels, logits = this.tensor(np.array([0, 1])), this.tensor(np.zeros((2, 3), np.float32))

    def loss(value: Any) -> Any:
        return LOSSES["sparse"](labels=labels, logits=logits, reduction="sum", **{option: value})

    expected = {"ignore_index": "an integer or None", "axis": "an integer"}.get(option, "a number")
    instead = ", or divide the logits by the array instead" if option == "temperature" else ""
    text = (
        f"{option} is an object of type \\w+, where {expected} is expected: options are Python numbers, which stay the "
        f"same while a function is traced and have no gradient; pass one, in jax.jit by static_argnames{instead}"
    )
    for traced in TRACES[framework]:
        with pytest.raises(TypeError, match=text):
            traced(module, loss)
    if expected == "a number":
        assert float(loss(this.tensor(np.array(2.0)))) == float(loss(2.0))
