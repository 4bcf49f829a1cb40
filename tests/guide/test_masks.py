"""What a mask leaves out is not looked at: rows and elements with sample weight 0, and those with the ignored label."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import diagnose
from withlogits.guide import DiagnosisError, diagnosing
from withlogits.guide.findings import FUNCTIONS

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 200)
LOGITS = 3 * np.eye(5)[LABELS] + RNG.normal(size=(200, 5))
TAGS = (RNG.random((200, 5)) < 0.3).astype(float)
SCORES = 4.0 * (TAGS - 0.5) + RNG.normal(size=(200, 5))
ROWS, ELEMENTS = np.arange(200) % 7 != 3, RNG.random((200, 5)) > 0.1
LOSSES = {name: getattr(withlogits, function) for name, function in FUNCTIONS.items()}


def without_temperature(found: Any) -> set[str]:
    return set(found.codes) - {"WL304"}


def garbled(kind: str) -> tuple[Any, Any, Any]:
    """Labels and logits that are wrong in every way where the mask is 0."""
    mask = ELEMENTS if kind == "sigmoid" else ROWS
    if kind == "sparse":
        labels, logits = np.where(mask, LABELS, 99), np.where(mask[:, None], LOGITS, np.nan)
    elif kind == "softmax":
        labels = np.where(mask[:, None], np.eye(5)[LABELS], -np.inf)
        logits = np.where(mask[:, None], LOGITS, 1e30)
    else:
        labels, logits = np.where(mask, TAGS, np.nan), np.where(mask, SCORES, np.inf)
    return labels, logits, mask


@pytest.mark.parametrize("rows", [1 << 17, 16])
@pytest.mark.parametrize("kind", LOSSES)
def test_sample_weight_0(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing, "ROWS", rows)
    labels, logits, mask = garbled(kind)
    assert diagnose(labels, logits, loss=kind).errors
    for weight in (mask, 2.0 * mask, mask.tolist()):
        found = diagnose(labels, logits, loss=kind, sample_weight=weight)
        assert without_temperature(found) == set(), str(found)
    assert found.performance is not None
    expected = LOSSES[kind](labels=labels, logits=logits, sample_weight=mask.astype(float))[mask].mean()
    assert found.performance.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_figures_are_those_of_what_is_left(kind: str) -> None:
    labels, logits, mask = garbled(kind)
    found = diagnose(labels, logits, loss=kind, sample_weight=mask).performance
    left = diagnose(labels[mask], logits[mask], loss=kind).performance
    assert found is not None
    assert left is not None
    assert [*found.to_dict().values()] == pytest.approx([*left.to_dict().values()], rel=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_checked_takes_the_mask_of_the_call(kind: str) -> None:
    labels, logits, mask = garbled(kind)
    loss = withlogits.checked(LOSSES[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(labels=labels, logits=logits, sample_weight=mask.astype(float), reduction="mean")
    with pytest.raises(DiagnosisError, match=r"WL106|WL205|WL206"):
        withlogits.checked(LOSSES[kind])(labels=labels, logits=logits)


def test_logits_of_ignored_rows() -> None:
    labels, logits = LABELS.copy(), LOGITS.copy()
    logits[17, 2], labels[17] = np.nan, -1
    assert without_temperature(diagnose(labels, logits, ignore_index=-1)) == set()
    assert "logits[17, 2]" in diagnose(LABELS, logits).errors[0].evidence
    logits[40, 1] = np.inf  # of a row that counts
    assert "the first at logits[40, 1]" in diagnose(labels, logits, ignore_index=-1).errors[0].evidence


@pytest.mark.parametrize("mark", [-1, -100, 255, float("nan")])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_missing_answers(mark: float, axes: int) -> None:
    shape = {1: (1000,), 2: (200, 5), 3: (20, 10, 5)}[axes]
    labels = np.where(ELEMENTS, TAGS, mark).reshape(shape)
    logits = SCORES.reshape(shape)
    finding = diagnose(labels, logits, loss="sigmoid").errors[0]
    assert (finding.code, finding.title) == ("WL205", "missing labels")
    written = 'float("nan")' if mark != mark else f"{mark}"
    call = "loss = withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits, ignore_index="
    assert finding.fix == f"{call}{written})"
    healed = diagnose(labels, logits, loss="sigmoid", ignore_index=mark)
    assert healed.recommendation is not None
    if axes > 1:
        assert healed.recommendation.call == finding.fix
    assert without_temperature(healed) == set()
    left = diagnose(TAGS[ELEMENTS], SCORES[ELEMENTS], loss="sigmoid").performance
    assert healed.performance is not None
    assert left is not None
    assert healed.performance.loss == pytest.approx(left.loss, rel=1e-12)
    if mark == mark:  # the loss that fits these labels needs no name
        assert diagnose(labels.astype(np.int64), logits).loss == "sigmoid"
        assert diagnose(labels, logits, ignore_index=mark).loss == "sigmoid"


def test_the_line_about_missing_answers_runs() -> None:
    labels = np.where(ELEMENTS, TAGS, -1.0)
    names = {"labels": labels, "logits": SCORES, "withlogits": withlogits}
    exec(diagnose(labels, SCORES, loss="sigmoid").errors[0].fix, names)
    expected = withlogits.sigmoid_cross_entropy_with_logits(labels=TAGS, logits=SCORES)
    np.testing.assert_array_equal(names["loss"], np.where(ELEMENTS, expected, 0.0))


def test_an_ignored_answer_in_a_whole_row_or_column() -> None:
    labels = TAGS.copy()
    labels[3], labels[:, 2] = np.nan, np.nan
    assert without_temperature(diagnose(labels, SCORES, loss="sigmoid", ignore_index=np.nan)) == set()
    nothing = diagnose(np.full_like(TAGS, np.nan), SCORES, loss="sigmoid", ignore_index=np.nan)
    assert without_temperature(nothing) == set()
    assert nothing.performance is None
    assert nothing.recommendation is not None
    assert nothing.recommendation.loss == "sigmoid"


def test_two_marks_of_missing_answers_are_no_distributions() -> None:
    labels = np.where(ELEMENTS, TAGS, -1.0)
    labels[5, 1] = np.nan
    assert diagnose(labels, SCORES).loss == "sigmoid"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ignore_index": 1.5}, ValueError, "ignore_index is 1.5, where a whole number between"),
        ({"ignore_index": "1"}, TypeError, "ignore_index is '1', where a number is expected"),
        ({"ignore_index": np.array([1, 2])}, TypeError, "ignore_index is an object of type ndarray, where a number"),
        ({"sample_weight": -np.ones(200)}, ValueError, "sample_weight[0] is -1.0, where a finite weight of 0 or more"),
        ({"sample_weight": np.full(200, np.nan)}, ValueError, "sample_weight[0] is nan, where a finite weight"),
        ({"sample_weight": "abc"}, TypeError, "sample_weight"),
    ],
)
def test_masks_that_no_loss_takes(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        diagnose(LABELS, LOGITS, **options)


def test_masks_of_images_and_of_column_labels() -> None:
    images = np.moveaxis(LOGITS.reshape(4, 10, 5, 5), -1, 1)
    labels = LABELS.reshape(4, 10, 5)
    wrong, weight = labels.copy(), np.ones((4, 10, 5))
    wrong[:, :2], weight[:, :2] = 77, 0.0
    assert without_temperature(diagnose(wrong, images, axis=1, sample_weight=weight)) == set()
    column = np.where(ROWS, LABELS, 99)[:, None]
    for mask in (ROWS, ROWS[:, None]):
        assert without_temperature(diagnose(column, LOGITS, loss="sparse", sample_weight=mask)) == set()


def test_weights_of_another_shape() -> None:
    text = "sample_weight has shape (7,)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        diagnose(LABELS, LOGITS, sample_weight=np.ones(7))


def test_everything_has_weight_0() -> None:
    found = diagnose(LABELS, LOGITS, sample_weight=np.zeros(200))
    assert found.codes == ("WL213",)
    assert "all 200 labels have sample_weight 0" in found.findings[0].evidence
    assert found.performance is None


def test_a_mask_of_tensors() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    labels, logits, mask = (torch.from_numpy(np.array(a)) for a in garbled("sparse"))
    assert without_temperature(diagnose(labels, logits, sample_weight=mask)) == set()


def test_a_meter_leaves_out_what_is_ignored() -> None:
    labels = np.where(ELEMENTS, TAGS, np.nan)
    meter = withlogits.Meter(loss="sigmoid", ignore_index=np.nan)
    meter.update(labels[:70], SCORES[:70])
    meter.update(labels[70:], SCORES[70:])
    found = meter.diagnose()
    assert without_temperature(found) == set()
    whole = diagnose(labels, SCORES, loss="sigmoid", ignore_index=np.nan)
    assert found.performance is not None
    assert whole.performance is not None
    assert found.performance.loss == pytest.approx(whole.performance.loss, rel=1e-12)
