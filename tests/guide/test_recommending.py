"""`recommend`: the loss from the labels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from withlogits import recommend

EYE = np.eye(4)[[0, 3, 2, 2, 1]]


@pytest.mark.parametrize(
    ("labels", "num_classes", "loss", "words"),
    [
        (np.array([3, 0, 2, 2]), None, "sparse", "exactly one class"),
        (np.array([[3, 0], [2, -100]]), None, "sparse", "1 negative ones look like padding"),
        (np.array([0, 1, 1, 0]), None, "sigmoid", "2 of 4 are yes"),
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
