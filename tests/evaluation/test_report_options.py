"""The report of an evaluation with weights, thresholds, class-wise figures, and figures from bins."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from withlogits import evaluate
from withlogits.evaluation.report import write
from withlogits.evaluation.report.texts import CHINESE, ENGLISH
from withlogits.evaluation.results import Evaluation

pytest.importorskip("jinja2")

RNG = np.random.default_rng(0)
YES = (RNG.random((300, 3)) < 0.4).astype(np.int8)
ODDS = RNG.normal(size=(300, 3)) + YES


def written(e: Evaluation, folder: Path, language: str = "en") -> str:
    write(e, folder / "report.html", language)
    return (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("language", "texts"), [("en", ENGLISH), ("zh", CHINESE)])
def test_figures_are_shown_where_they_are_asked_for(language: str, texts: dict[str, str], tmp_path: Path) -> None:
    asked = {"brier_score", "classwise_ece", "thresholds", "thresholds_caption"}
    page = written(evaluate(YES, ODDS, loss="sigmoid"), tmp_path, language)
    assert not any(texts[key] in page for key in asked | {"auroc_error"})
    assert texts["best_f1"] in page
    e = evaluate(YES, ODDS, loss="sigmoid", thresholds=[0.25, 0.75], classwise=True)
    page = written(e, tmp_path, language)
    assert all(texts[key] in page for key in asked)
    assert e.brier is not None
    assert f"{e.brier:.4f}" in page
    assert "0.25" in page
    page = written(replace(e, auroc_error=1.5e-5, average_precision_error=2.5e-5), tmp_path, language)
    assert texts["auroc_error"] in page
    assert "1.5e-5" in page


@pytest.mark.parametrize("labels", [YES, RNG.integers(0, 3, 300)], ids=["sigmoid", "sparse"])
def test_sums_of_weights_are_shown_as_such(labels: Any, tmp_path: Path) -> None:
    weight = np.full(300, 0.25)
    weight[0] = 0.125
    page = written(evaluate(labels, ODDS, sample_weight=weight), tmp_path)
    e = evaluate(labels, ODDS, sample_weight=weight)
    assert any(value % 1 for value in e.per_class.support)
    for value in e.per_class.support:
        assert re.search(rf">{re.escape(f'{value:.4g}')}0*<", page)
