"""Inputs that once gave wrong values or errors from inside the library, with the value or text that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits.errors import SIGMOID, SPARSE

sparse = withlogits.sparse_softmax_cross_entropy_with_logits
dense = withlogits.softmax_cross_entropy_with_logits
binary = withlogits.sigmoid_cross_entropy_with_logits

X = np.random.default_rng(0).normal(size=(4, 3))
Y = np.array([0, 1, 2, 1])
Z = np.eye(3)[Y]
HUGE = 10**400  # beyond every float


def as_numpy(x: Any) -> Any:
    return x


def as_torch(x: Any) -> Any:
    return pytest.importorskip("torch").from_numpy(x)


@pytest.fixture(params=[as_numpy, as_torch], ids=["numpy", "torch"])
def array(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """What makes an array of a framework."""
    found: Callable[[Any], Any] = request.param
    return found


NUMBERS: dict[str, tuple[Any, type[Exception], str]] = {
    "temperature beyond floats": (
        {"temperature": HUGE}, ValueError, "temperature is inf, where a finite number above 0 is expected",
    ),
    "temperature below floats": (
        {"temperature": -HUGE}, ValueError, "temperature is -inf, where a finite number above 0 is expected",
    ),
    "softcap beyond floats": (
        {"softcap": HUGE}, ValueError, "softcap is inf, where a finite number above 0 is expected",
    ),
    "z_loss beyond floats": (
        {"z_loss": HUGE}, ValueError, "z_loss is inf, where a finite number of 0 or more is expected",
    ),
    "smoothing beyond floats": (
        {"label_smoothing": HUGE}, ValueError, "label_smoothing is inf, where a number from 0 to 1 is expected",
    ),
    "temperature as text": ({"temperature": "2"}, TypeError, "temperature is '2', where a number is expected"),
    "temperature as bytes": (
        {"temperature": b"2"}, TypeError, "temperature is an object of type bytes, where a number is expected",
    ),
    "ignore_index as text": (
        {"ignore_index": "a"}, TypeError, "ignore_index is 'a', where an integer or None is expected",
    ),
    "ignore_index as a list": (
        {"ignore_index": [1]}, TypeError,
        "ignore_index is an object of type list, where an integer or None is expected",
    ),
    "axis as text": ({"axis": "a"}, TypeError, "axis is 'a', where an integer is expected"),
    "no logits": ({"logits": None}, TypeError, "logits are None, where an array is expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_none(name: str, array: Any) -> None:
    given, kind, text = NUMBERS[name]
    for function in (sparse, withlogits.value_and_grad(sparse)):
        with pytest.raises(kind) as caught:
            function(**{"labels": array(Y), "logits": array(X), **given})  # type: ignore[operator]
        assert str(caught.value) == text


def test_no_labels(array: Any) -> None:
    with pytest.raises(TypeError, match=r"^labels are None, where an array is expected$"):
        dense(labels=None, logits=array(X))


@pytest.mark.parametrize("index", [HUGE, -HUGE, 2**64, 2**63, -(2**63) - 1])
def test_an_ignore_index_that_no_label_can_be_ignores_nothing(index: int, array: Any) -> None:
    got = sparse(labels=array(Y), logits=array(X), ignore_index=index)
    np.testing.assert_array_equal(got, sparse(labels=Y, logits=X))


def test_a_name_that_is_none() -> None:
    tensor = as_torch(X)
    with pytest.raises(TypeError, match=r"^name is 3, where a string or None is expected$"):
        dense(labels=tensor, logits=tensor, name=3)  # type: ignore[call-overload]


LACKS = "the labels lack axis 1, which has length 1 in the logits: pass labels[:, None]"
SHAPES: list[tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any], str]] = [
    (binary, (2, 4, 5), (2, 1, 4, 5), {}, LACKS),
    (binary, (7, 6), (7, 1, 6), {}, LACKS),
    (binary, (4, 5), (1, 4, 5), {}, "the labels lack axis 0, which has length 1 in the logits: pass labels[None]"),
    (
        binary, (2, 5, 4), (2, 1, 4, 5), {},
        "axes 1 and 2 of the labels look swapped, and axis 1 is missing: pass labels.swapaxes(1, 2)[:, None]",
    ),
    (
        binary, (2, 1, 5, 4), (2, 1, 4, 5), {},
        "axes 2 and 3 of the labels look swapped: pass labels.swapaxes(2, 3)",
    ),
    (binary, (2, 5, 4), (2, 4, 5), {}, "axes 1 and 2 of the labels look swapped: pass labels.swapaxes(1, 2)"),
    (
        binary, (7, 6), (7, 6, 3), {},
        f"class indices belong to {SPARSE}; {SIGMOID} takes one label for each logit, in the logits' shape (WL202)",
    ),
    (
        sparse, (2, 5, 4), (2, 3, 4, 5), {"axis": 1},
        "axes 1 and 2 of the labels look swapped: pass labels.swapaxes(1, 2)",
    ),
    (
        sparse, (2, 1, 5, 4), (2, 3, 4, 5), {"axis": 1},
        "axes 2 and 3 of the labels look swapped: pass labels.swapaxes(2, 3)",
    ),
    (sparse, (7, 6), (6, 7, 3), {}, "axes 0 and 1 of the labels look swapped: pass labels.swapaxes(0, 1)"),
    (
        dense, (2, 3, 5, 4), (2, 3, 4, 5), {"axis": 1},
        "axes 2 and 3 of the labels look swapped: pass labels.swapaxes(2, 3)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("function", "labels", "logits", "options", "advice"), SHAPES)
def test_labels_of_images_and_sequences(
    function: Any, labels: Any, logits: Any, options: Any, advice: str, array: Any
) -> None:
    y = np.zeros(labels, np.int64)
    x = np.zeros(logits, np.float32)
    with pytest.raises(ValueError, match=r"^labels have shape") as caught:
        function(labels=array(y), logits=array(x), **options)
    classes = f", classes on axis {options.get('axis', len(logits) - 1)}" if function is not binary else ""
    assert str(caught.value) == f"labels have shape {labels} and logits {logits}{classes}: {advice}"
    if "pass labels" in advice:  # what is advised fits
        repaired = eval(advice.rpartition("pass ")[2], {"labels": y})
        function(labels=array(repaired), logits=array(x), **options)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_an_error_of_the_engine_keeps_its_text(
    shape: tuple[int, ...], array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no label out of range, whatever the shape of the labels."""
    plan = pytest.importorskip("withlogits.kernels.cpu.softmax_plan").SoftmaxPlan
    if withlogits.engine.select().NAME != "compiled":
        pytest.skip("there are no kernels")
    labels, logits = array(Y.reshape(shape)), array(np.tile(X, 2))  # a kind of call that no other test makes

    def fail(*_: Any) -> Any:
        raise ValueError("the engine's own text")

    for name in ("evaluate", "quick"):
        monkeypatch.setattr(plan, name, fail)
    with pytest.raises(ValueError, match=r"^the engine's own text$"):
        sparse(labels=labels, logits=logits, temperature=1.5)


@pytest.mark.parametrize("weight", [[HUGE, 1.0, 1.0], [HUGE, 1, 1]])
def test_a_weight_beyond_floats(weight: Any, array: Any) -> None:
    with pytest.raises(TypeError, match=r"^class_weight (cannot be made an array: |has dtype object, where real)"):
        sparse(labels=array(Y), logits=array(X), class_weight=weight)
