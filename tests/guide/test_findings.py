"""Findings, the diagnosis that holds them, and how they read."""

from __future__ import annotations

import copy
import json
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import withlogits
from withlogits.guide import CODES, Diagnosis, DiagnosisError, Finding

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 5)) * 3
LABELS = LOGITS.argmax(axis=1)


def test_the_weightiest_first() -> None:
    logits = withlogits.softmax(LOGITS)
    found = withlogits.diagnose(np.where(LABELS == 2, -100, LABELS), logits)
    severities = [f.severity for f in found]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert found.codes[:2] == ("WL101", "WL207")
    assert [f.code for f in found.errors] == ["WL101", "WL207"]
    assert len(found) == len(found.findings)


def test_truth_is_an_error_or_a_warning() -> None:
    assert not withlogits.diagnose(LABELS, LOGITS)
    assert not withlogits.diagnose(LABELS, withlogits.log_softmax(LOGITS)).errors
    assert withlogits.diagnose(LABELS * 0, LOGITS)
    assert withlogits.diagnose(LABELS + 1, LOGITS)


def test_raise_for_errors() -> None:
    withlogits.diagnose(LABELS, LOGITS).raise_for_errors()
    withlogits.diagnose(LABELS * 0, LOGITS).raise_for_errors()  # a warning
    diagnosis = withlogits.diagnose(LABELS + 1, LOGITS)
    with pytest.raises(DiagnosisError) as caught:
        diagnosis.raise_for_errors()
    assert isinstance(caught.value, ValueError)
    assert caught.value.diagnosis is diagnosis
    assert str(caught.value).startswith("WL206, labels out of range: ")
    assert str(caught.value).endswith("0 never occurs and 5 does: they count from 1; fix: labels = labels - 1")


def test_as_a_dictionary() -> None:
    diagnosis = withlogits.diagnose(LABELS + 1, LOGITS)
    found = json.loads(json.dumps(diagnosis.to_dict()))
    assert found["findings"][0].keys() == {"code", "severity", "title", "evidence", "fix"}
    assert found["findings"][0]["code"] == "WL206"
    assert found["subject"] == "logits (40, 5) float64, labels (40,) int64"
    assert found["recommendation"] is None  # what shifted labels seem to be would contradict the finding
    assert found["loss"] == "sparse"
    clean = withlogits.diagnose(LABELS, LOGITS).to_dict()
    assert clean["recommendation"]["loss"] == "sparse"
    assert clean["performance"].keys() == {"count", "loss", "accuracy", "guessing_loss", "guessing_accuracy"}
    assert clean["performance"]["accuracy"] == 1.0


def test_in_a_terminal() -> None:
    text = str(withlogits.diagnose(LABELS + 1, LOGITS))
    lines = text.splitlines()
    assert lines[0] == "logits (40, 5) float64, labels (40,) int64; loss: sparse"
    assert lines[1] == "error   WL206  labels out of range"
    assert "        fix: labels = labels - 1" in lines
    assert max(map(len, lines)) <= 120
    clean = str(withlogits.diagnose(LABELS, LOGITS)).splitlines()
    assert clean[1] == "nothing found that would be wrong"
    assert re.fullmatch(
        r"figures      loss 0\.\d+, 100\.0% right; guessing by how often each class occurs: loss 1\.\d+, .*% right",
        clean[2],
    )
    assert clean[3].startswith("recommended  sparse: ")
    assert "recommended" not in text


def test_in_a_notebook() -> None:
    finding = Finding("WL101", "error", "a <title>", "5 < 6", "x = '<'")
    page = Diagnosis((finding,), None, "sparse", "<logits>")._repr_html_()
    for raw in ("<title>", "5 < 6", "'<'", "<logits>"):
        assert raw not in page
    assert "5 &lt; 6" in page
    assert "nothing found" in withlogits.diagnose(LABELS, LOGITS)._repr_html_()


def test_every_code_has_a_title() -> None:
    assert len(CODES) == 40
    assert all(len(title) < 75 for title in CODES.values())


def in_a_process(diagnosis: Diagnosis) -> None:
    diagnosis.raise_for_errors()


def test_errors_are_copied_compared_and_sent_to_other_processes() -> None:
    diagnosis = withlogits.diagnose(LABELS + 1, LOGITS)
    with pytest.raises(DiagnosisError) as caught:
        diagnosis.raise_for_errors()
    for other in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert type(other) is DiagnosisError
        assert other == caught.value
        assert hash(other) == hash(caught.value)
        assert (str(other), other.diagnosis) == (str(caught.value), diagnosis)
    assert caught.value != ValueError(str(caught.value))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        error = pool.submit(in_a_process, diagnosis).exception(timeout=120)
    assert error == caught.value


def test_every_result_is_copied_and_compared() -> None:
    several = (RNG.random((40, 5)) < 0.3) * 1.0
    results = [
        withlogits.diagnose(LABELS + 1, LOGITS),
        withlogits.diagnose(LABELS + 1, LOGITS).findings[0],
        withlogits.recommend(LABELS),
        withlogits.evaluate(LABELS, LOGITS),  # arrays, and NaN in empty bins
        withlogits.evaluate(several, LOGITS, loss="sigmoid"),
    ]
    others = [withlogits.evaluate(several, LOGITS, loss="sigmoid").calibration, results[0].findings, 3, None, LABELS]
    for result in results:
        for again in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
            assert again == result
        assert sum(result is other or result == other for other in results) == 1
        assert not any(isinstance(other, type(result)) and result == other for other in others)
    assert withlogits.evaluate(LABELS, LOGITS) == withlogits.evaluate(LABELS, LOGITS)
    warning = withlogits.GuideWarning("text")
    assert str(pickle.loads(pickle.dumps(warning))) == "text"
