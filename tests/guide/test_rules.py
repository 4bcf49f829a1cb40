"""The rules one by one, where the corpus of real classifiers has no such case: each mistake, and what looks like it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits
from guide.corpus.cases import Pair, mended, one_hot
from withlogits import diagnose
from withlogits.guide.rules.performance import guessing_loss


def learned(classes: int, rows: int, strength: float = 3.0, seed: int = 0) -> tuple[Any, Any]:
    """Labels, and logits of a model that is mostly right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += strength
    return labels, logits


LABELS, LOGITS = learned(5, 400)


def alarms(labels: Any, logits: Any, **options: Any) -> list[str]:
    found = diagnose(labels, logits, **options)
    return [f.code for f in (*found.errors, *found.warnings)]


def healed(labels: Any, logits: Any, **options: Any) -> list[str]:
    """What is left after the line of the weightiest finding was run."""
    pair = Pair(labels, logits, options)
    after = mended(pair, pair.diagnosis().findings[0].fix).diagnosis()
    return [f.code for f in (*after.errors, *after.warnings)]


# ------------------------------------------------------------------------------------------------------ probabilities


@pytest.mark.parametrize("kind", ["2 decimals", "3 decimals", "rows of zeros", "through bfloat16", "many classes"])
def test_probabilities_are_recognised_after_a_rounding(kind: str) -> None:
    labels, logits = learned(100, 400, 6.0) if kind == "many classes" else (LABELS, LOGITS)
    p = withlogits.softmax(logits)
    if kind == "rows of zeros":
        p[::10] = 0
    elif kind == "through bfloat16":
        p = p.astype(pytest.importorskip("ml_dtypes").bfloat16).astype(np.float32)
    else:
        p = np.round(p, 3 if kind == "3 decimals" else 2)
    found = diagnose(labels, p)
    assert [f.code for f in found.errors] == ["WL101"]
    assert "they look as if they went through a softmax" in found.errors[0].evidence
    assert healed(labels, p) == []


def test_what_is_not_probabilities() -> None:
    units = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
    assert alarms(LABELS, np.abs(units), temperature=0.05) == []
    assert alarms(LABELS, np.maximum(LOGITS, 0)) == []
    for scale in (1.0, 0.1):  # a ReLU at the end, and all in [0, 1]
        assert alarms(LABELS, scale * np.clip(LOGITS / LOGITS.max(), 0, None) * 0.999) == []
    yes = LOGITS[:, 0] > 1
    assert alarms(yes, np.clip(LOGITS[:, 0] / LOGITS.max() * 0.999, 0, None), loss="sigmoid") == []
    assert alarms(yes, withlogits.sigmoid(LOGITS[:, 0]), loss="sigmoid") == ["WL102"]
    assert alarms(yes, np.round(withlogits.sigmoid(LOGITS[:, 0]), 2), loss="sigmoid") == ["WL102"]


def test_saturated_logits_and_what_they_cost() -> None:
    found = diagnose(LABELS, (LOGITS * 2000).astype(np.float32))
    assert [f.code for f in found.warnings] == ["WL108"]
    assert found.performance is not None
    assert found.performance.loss > 10.0
    assert not found.performance.better_than_guessing
    assert "guessing by how often each class occurs: loss 1.6" in str(found)


# -------------------------------------------------------------------------------------------------------------- labels


def test_padding_is_told_from_labels_that_count_from_1() -> None:
    padded = np.where(np.arange(400) % 9 == 0, 5, np.maximum(LABELS, 1))
    found = diagnose(padded, LOGITS).errors[0]
    assert (found.code, "ignore_index=5" in found.fix) == ("WL207", True)
    assert healed(padded, LOGITS) == []
    from_one = diagnose(LABELS + 1, LOGITS).errors[0]
    assert (from_one.code, from_one.fix) == ("WL206", "labels = labels - 1")
    assert healed(LABELS + 1, LOGITS) == []
    unlearned = np.random.default_rng(1).normal(size=LOGITS.shape)
    assert diagnose(LABELS + 1, unlearned).errors[0].code == "WL206"
    some = np.where(np.arange(400) % 9 == 0, -100, LABELS + 1)
    assert "-100" in diagnose(some, LOGITS, ignore_index=-100).errors[0].fix
    assert healed(some, LOGITS, ignore_index=-100) == []


@pytest.mark.parametrize("classes", [4, 6])
@pytest.mark.parametrize("axis", [1, -1])
def test_which_axis_is_one_hot(classes: int, axis: int) -> None:
    """(N, T, C) against (N, C, T), with as many steps as classes and with more; `axis` is that of the logits or not."""
    rng = np.random.default_rng(0)
    labels = one_hot(rng.integers(0, 4, (100, classes)), 4)
    logits = np.moveaxis(3 * labels + rng.normal(size=labels.shape), -1, 1)
    found = diagnose(labels, logits, loss="softmax", axis=axis)
    if classes == 4 and axis == -1:  # by its shape and its sums, this pair is what it says, but for the agreement
        return
    assert [f.code for f in found.errors] == ["WL211"]
    assert healed(labels, logits, loss="softmax", axis=axis) == []
    both = np.moveaxis(labels, -1, 1)
    assert alarms(both, logits, loss="softmax", axis=1) == []


def test_both_arrays_have_their_classes_on_another_axis() -> None:
    rng = np.random.default_rng(0)
    labels = np.moveaxis(one_hot(rng.integers(0, 4, (100, 4)), 4), -1, 1)
    logits = 3 * labels + rng.normal(size=labels.shape)
    found = diagnose(labels, logits, loss="softmax").errors[0]
    assert (found.code, found.fix.endswith("axis=1)")) == ("WL211", True)
    assert healed(labels, logits, loss="softmax") == []


def test_a_dtype_that_cannot_hold_the_classes() -> None:
    labels, logits = learned(1000, 3000, 6.0)
    found = diagnose(labels.astype(np.uint8), logits.astype(np.float32))
    assert [f.code for f in found.warnings] == ["WL208"]
    assert "uint8, which ends at 255, and there are 1,000 classes" in found.warnings[0].evidence
    assert "WL208" in alarms(labels.astype(np.int8), logits)
    assert alarms(labels.astype(np.int16), logits) == []
    assert alarms((labels % 100).astype(np.uint8), logits[np.arange(3000) % 1 == 0]) == []  # small numbers by intent


@pytest.mark.parametrize("kind", ["sparse", "softmax", "sigmoid"])
def test_one_class_alone_where_the_logits_expect_it(kind: str) -> None:
    rng = np.random.default_rng(0)
    score = 4.6 + 0.3 * rng.normal(size=256)
    logits = -score if kind == "sigmoid" else np.stack([score, -score], 1)
    labels: Any = np.zeros(256, np.int64)
    labels = one_hot(labels, 2) if kind == "softmax" else labels
    assert diagnose(labels, logits, loss=kind).codes == ()
    assert "WL213" in diagnose(labels, logits / 4, loss=kind).codes


# -------------------------------------------------------------------------------------------------------- permutations


@pytest.mark.parametrize(
    ("classes", "mapping"),
    [
        (7, [2, 0, 1, 3, 4, 5, 6]),
        (5, [1, 2, 3, 4, 0]),
        (20, [1, 0, *range(2, 18), 19, 18]),
        (600, np.random.default_rng(1).permutation(600)),
        (2000, np.random.default_rng(1).permutation(2000)),
    ],
)
def test_permutations(classes: int, mapping: Any) -> None:
    labels, logits = learned(classes, 12 * classes if classes > 100 else 500, 3.0 if classes < 100 else 8.0)
    wrong = np.asarray(mapping)[labels]
    found = diagnose(wrong, logits.astype(np.float32))
    assert found.codes[0] == "WL301"
    if classes <= 64:
        assert healed(wrong, logits) == []
        dense = one_hot(wrong, classes)
        assert healed(dense, logits, loss="softmax") == []
    else:
        assert found.findings[0].fix == "# compare the two lists of class names"


def test_a_permutation_with_a_weak_class() -> None:
    labels, logits = learned(5, 2000)
    weak = labels == 3
    logits[weak, 3] -= 2.5
    wrong = (labels + 1) % 5
    assert diagnose(wrong, logits).codes[0] == "WL301"
    assert healed(wrong, logits) == []


@pytest.mark.parametrize("ignored", [False, True])
def test_labels_shifted_beside_an_output_more(ignored: bool) -> None:
    labels, logits = learned(5, 500)
    logits = np.concatenate([np.full((500, 1), -1.0), logits], axis=1)  # the model has a class for what is none
    options = {"ignore_index": -100} if ignored else {}
    labels = np.where(np.arange(500) % 11 == 0, -100, labels) if ignored else labels
    assert diagnose(labels, logits, **options).codes[0] == "WL301"
    assert healed(labels, logits, **options) == []


def test_what_is_no_permutation() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = rng.integers(0, 5, 100)
        assert alarms(labels, np.random.default_rng(seed).normal(size=(100, 5))) == []
    labels = np.where(rng.random(2000) < 0.03, 1, 0)
    majority = np.stack([3.0 + 0.3 * rng.normal(size=2000), 0.3 * rng.normal(size=2000)], 1)
    assert alarms(labels, majority) == []


# ------------------------------------------------------------------------------------------- inverted, and no better


@pytest.mark.parametrize("kind", ["sparse", "softmax"])
def test_inverted_scores_of_exclusive_classes(kind: str) -> None:
    labels = LABELS if kind == "sparse" else one_hot(LABELS, 5)
    found = diagnose(labels, -LOGITS, loss=kind)
    assert [f.code for f in found.warnings] == ["WL303"]
    assert healed(labels, -LOGITS, loss=kind) == []


@pytest.mark.parametrize("classes", [5, 100, 300])
def test_labels_in_another_order(classes: int) -> None:
    labels, logits = learned(classes, 2000)
    found = diagnose(np.random.default_rng(1).permutation(labels), logits)
    assert found.codes[0] in ("WL304", "WL305")
    assert "guessing" in found.findings[0].evidence
    assert found.performance is not None
    assert not found.performance.better_than_guessing


@pytest.mark.parametrize("classes", [10, 300, 1000])
@pytest.mark.parametrize("temperature", [0.0625, 8.0])
def test_a_temperature_far_from_1(classes: int, temperature: float) -> None:
    rng = np.random.default_rng(0)
    p = withlogits.softmax(2.0 * rng.normal(size=(3000, classes)))
    labels = (p.cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)
    logits = (np.log(p) * temperature).astype(np.float32)
    found = next(f for f in diagnose(labels, logits) if f.code == "WL304")
    said = float(found.fix.split("temperature=")[1].rstrip(")"))
    assert said == pytest.approx(temperature, rel=0.35)  # of the rows of a sample: 64 of 1,000 classes
    after = diagnose(labels, logits.astype(np.float64) / said)
    assert "WL304" not in after.codes


def test_nothing_found_does_not_stand_over_what_is_no_better_than_guessing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)  # too few for a finding
    logits = 0.1 * rng.normal(size=(40, 2))
    logits[np.arange(40), np.where(rng.random(40) < 0.4, labels, 1 - labels)] += 1.0
    found = diagnose(labels, logits)
    assert found.codes == ()
    assert found.performance is not None
    assert "nothing found that would be wrong, but the logits are no better than guessing" in str(found)
    assert "but the logits are no better than guessing" in found._repr_html_()


# ----------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"class_weight": np.array([1.0, 2.0, 3.0, 1.0, 5.0])}]
)
def test_guessing_is_the_best_constant(options: dict[str, Any]) -> None:
    """No constant row of logits costs less than the loss that is stated, and one costs as much."""
    loss = withlogits.sparse_softmax_cross_entropy_with_logits
    shares = np.bincount(LABELS) / 400
    targets = 0.9 * shares + 0.02 if "label_smoothing" in options else shares
    best = np.log(targets * options.get("class_weight", 1.0))
    found = diagnose(LABELS, LOGITS, **options).performance
    assert found is not None
    assert found.loss == pytest.approx(loss(labels=LABELS, logits=LOGITS, **options).mean(), rel=1e-12)
    assert found.accuracy == np.mean(LOGITS.argmax(axis=1) == LABELS)
    assert found.guessing_accuracy == shares.max()
    for shift in (np.zeros(5), *np.eye(5), *-np.eye(5)):
        constant = np.broadcast_to(best + 0.01 * shift, (400, 5))
        cost = loss(labels=LABELS, logits=constant, **options).mean()
        assert found.guessing_loss is not None
        assert cost == pytest.approx(found.guessing_loss, rel=1e-12) if not shift.any() else cost > found.guessing_loss


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"pos_weight": 4.0}])
def test_guessing_of_independent_classes(options: dict[str, Any]) -> None:
    loss = withlogits.sigmoid_cross_entropy_with_logits
    labels = (np.random.default_rng(0).random((300, 3)) < [0.1, 0.5, 0.8]).astype(float)
    logits = 3 * labels - 1
    rates = labels.mean(axis=0)
    smoothing, weight = options.get("label_smoothing", 0.0), options.get("pos_weight", 1.0)
    yes = weight * ((1 - smoothing) * rates + smoothing / 2)
    best = np.log(yes / ((1 - smoothing) * (1 - rates) + smoothing / 2))
    found = diagnose(labels, logits, loss="sigmoid", **options).performance
    assert found is not None
    cost = loss(labels=labels, logits=np.broadcast_to(best, labels.shape), **options).mean()
    assert found.guessing_loss == pytest.approx(cost, rel=1e-12)
    assert found.guessing_accuracy == pytest.approx(np.maximum(rates, 1 - rates).mean(), rel=1e-12)
    assert found.accuracy == np.mean((logits > 0) == labels)


def test_what_is_not_known_of_guessing() -> None:
    labels = (LOGITS > 0) * 1.0
    found = diagnose(labels, LOGITS, loss="sigmoid", pos_weight=np.arange(1.0, 6.0)).performance
    assert found is not None
    assert found.guessing_loss is None
    assert "guessing" not in str(found)
    wrong = diagnose(LABELS + 1, LOGITS).performance
    assert wrong is not None
    assert wrong.guessing_loss is None
    assert guessing_loss(np.array([[1.0], [0.0]]), {}) == 0.0
    assert diagnose(LABELS[:0], LOGITS[:0]).performance is None
    bad = LOGITS.copy()
    bad[3, 1] = np.nan
    assert diagnose(LABELS, bad).performance.to_dict()["loss"] is None  # type: ignore[union-attr]
