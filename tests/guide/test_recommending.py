"""`recommend`: the loss from the labels alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import recommend

EYE = np.eye(4)[[0, 3, 2, 2, 1]]


@pytest.mark.parametrize(
    ("labels", "num_classes", "loss", "words"),
    [
        (np.array([3, 0, 2, 2]), None, "sparse", "exactly one class"),
        (np.array([[3, 0], [2, -100]]), None, "sparse", "1 negative ones look like padding"),
        (np.array([0, 1, 1, 0]), None, "sigmoid", "2 of 4 are yes"),
        (np.array(1), None, "sigmoid", "1 of 1 are yes"),
        (np.array(7), None, "sparse", "8 classes in 1 label"),
        (np.array([0, 1, 1, 0]), 2, "sparse", "exactly one class"),
        (np.array([True, False]), None, "sigmoid", "one yes or no"),
        (np.array([0.2, 0.9]), None, "sigmoid", "one yes or no"),
        (np.array([-1, 1, 1]), None, "sigmoid", "+1 and -1"),
        (EYE, None, "softmax", "exactly one class is true in each of 5 rows"),
        (EYE.astype(np.int8), None, "softmax", "exclude one another"),
        (EYE * 0.9 + 0.025, None, "softmax", "sums to 1"),
        (np.array([[1, 1, 0], [0, 0, 0]]), None, "sigmoid", "of 2 rows 1 have none and 1 have two or more"),
        (np.array([[0.3, 0.9], [0.1, 0.2]]), None, "sigmoid", "do not sum to 1"),
        (np.array([2.0, 5.0, 0.0]), None, "sparse", "exactly one class"),
        (np.array([[1], [0]]), None, "sigmoid", "one yes or no"),
        (np.zeros((0,), np.int64), None, "sparse", "no labels"),
        (np.array([[0, 255], [255, 255]]), None, "sigmoid", "0 and 255"),
        (np.array([[0, 255], [255, 255]]), 2, "sigmoid", "0 and 255"),
    ],
)
def test_the_loss_and_why(labels: Any, num_classes: int | None, loss: str, words: str) -> None:
    found = recommend(labels, num_classes=num_classes)
    assert (found.loss, words in found.why) == (loss, True), found
    assert found.call.startswith("loss = withlogits.")
    assert found.to_dict()["loss"] == loss


COUNTS = np.random.default_rng(0).multinomial(51, np.ones(5) / 5, 20)


@pytest.mark.parametrize(
    ("labels", "num_classes", "loss", "words", "transform", "option"),
    [
        (COUNTS, None, "softmax", "sums to 51: counts", "labels = labels / labels.sum(-1, keepdims=True)", ""),
        (COUNTS.astype(float), 5, "softmax", "sums to 51", "labels = labels / labels.sum(-1, keepdims=True)", ""),
        (COUNTS / 51 * 100, None, "softmax", "per cent", "labels = labels / labels.sum(-1, keepdims=True)", ""),
        (np.array([[0, 1, -1], [1, -1, 0]]), None, "sigmoid", "-1 stands for a missing", "", "ignore_index=-1"),
        (np.array([[0, 1, np.nan]]), None, "sigmoid", "NaN stands for", "", 'ignore_index=float("nan")'),
        (np.array([0, 1, np.nan]), None, "sigmoid", "1 is NaN", "", 'ignore_index=float("nan")'),
        (np.uint8([0, 255, 255]), None, "sigmoid", "written as 0 and 255", "labels = labels / 255", ""),
        (np.uint8([0, 255, 255]), 2, "sparse", "written as 0 and 255", "labels = labels // 255", ""),
        (np.uint8([[0, 1], [255, 1]]), None, "sigmoid", "1 is 255, which stands for missing", "", "ignore_index=255"),
        (np.uint8([0, 1, 255]), None, "sigmoid", "1 is 255", "", "ignore_index=255"),
        (np.uint8([0, 1, 255]), 2, "sparse", "1 is 255", "", "ignore_index=255"),
        (np.uint8([[0, 20, 255], [7, 20, 3]]), 21, "sparse", "21 classes in 6 labels; 1 of", "", "ignore_index=255"),
        (np.array([1, 2, 3]), 3, "sparse", "they count from 1", "labels = labels - 1", ""),
        (np.array([0, 4, 9]), 3, "sparse", "2 are no class: 4, 9", "", ""),
        (np.moveaxis(EYE[None], -1, 1), None, "softmax", "in each of 5 rows", "", "axis=1"),
        (np.moveaxis(EYE[None], -1, 1), 4, "softmax", "in each of 5 rows", "", "axis=1"),
        (
            np.array([0, 2, np.nan]), None, "sparse", "1 NaN look like padding",
            "labels = numpy.where(numpy.isnan(labels), -1, labels).astype(numpy.int64)", "ignore_index=-1",
        ),
        (np.random.default_rng(0).uniform(5e4, 9e5, 200), None, "none", "look like measurements", "", ""),
        (np.array([0.2, 3.5]), None, "none", "neither class numbers nor within 0 and 1", "", ""),
        (
            np.random.default_rng(0).normal(size=(9, 4)), None, "softmax", "look like logits of another model",
            "labels = withlogits.softmax(labels, axis=-1)", "",
        ),
        (np.array([[0, 2, 1], [2, 1, 0], [1, 1, 1], [2, 0, 1]]), None, "sparse", "3 classes in 12 labels", "", ""),
        (np.array([[0, 2, 1], [2, 1, 0]]), 3, "sparse", "3 classes in 6 labels", "", ""),
    ],
)  # fmt: skip
def test_what_is_easily_mistaken(
    labels: Any, num_classes: int | None, loss: str, words: str, transform: str, option: str
) -> None:
    found = recommend(labels, num_classes=num_classes)
    assert (found.loss, found.transform) == (loss, transform), found
    assert words in found.why
    if loss == "none":
        assert found.call.startswith("# ")
    else:
        assert found.call.endswith(f"logits=logits{', ' if option else ''}{option})"), found
    if transform:
        names = {"labels": labels, "numpy": np, "withlogits": withlogits}
        exec(transform, names)
        assert recommend(names["labels"], num_classes=num_classes).loss == loss


def test_the_line_for_nan_runs_in_every_library() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    found = recommend(torch.tensor([0.0, 2.0, np.nan]))
    names = {"labels": torch.tensor([0.0, 2.0, np.nan]), "torch": torch}
    exec(found.transform, names)
    assert names["labels"].tolist() == [0, 2, -1]
    assert names["labels"].dtype == torch.int64


def test_what_to_transform_first() -> None:
    assert recommend(np.array([2.0, 5.0])).transform == "labels = labels.astype(numpy.int64)"
    assert recommend(np.array([-1, 1])).transform == "labels = (labels + 1) / 2"
    assert "first   labels = (labels + 1) / 2" in str(recommend(np.array([-1, 1])))
    assert recommend(EYE).transform == ""


def test_padding_is_passed_on() -> None:
    assert recommend(np.array([2, 0, -100])).call.endswith("logits=logits, ignore_index=-100)")


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert recommend(torch.tensor([3, 0, 2])).loss == "sparse"
    assert recommend(torch.tensor([3.0, 0.0, 2.0])).transform == "labels = labels.long()"
    assert recommend(torch.tensor(EYE).bfloat16()).form == "(5, 4) bfloat16, one-hot"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (0, ValueError, "num_classes is 0, where 1 or more is expected"),
        (-1, ValueError, "num_classes is -1, where 1 or more is expected"),
        (1.5, TypeError, "num_classes is 1.5, where an integer is expected"),
        ("3", TypeError, "num_classes is '3', where an integer is expected"),
        ([3], TypeError, "num_classes is an object of type list, where an integer is expected"),
    ],
)
def test_a_number_of_classes_that_is_none(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        recommend([0, 1, 2], num_classes=given)
