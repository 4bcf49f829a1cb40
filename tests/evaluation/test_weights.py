"""Weights, missing elements, ties, thresholds and class-wise figures, against scikit-learn's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import withlogits
from withlogits import Meter, evaluate
from withlogits.evaluation import evaluate as module
from withlogits.evaluation.files import BadFile

RNG = np.random.default_rng(0)
N, C = 600, 4
YES = (RNG.random((N, C)) < 0.3).astype(np.int64)
ODDS = np.round(RNG.normal(size=(N, C)) + YES, 1)
WEIGHTS = RNG.integers(0, 4, (N, C)) / 2
MISSING = RNG.random((N, C)) < 0.2
LABELS = RNG.integers(0, C, N)
LOGITS = np.round(RNG.normal(size=(N, C)) + np.eye(C)[LABELS], 1)
ROW_WEIGHTS = RNG.integers(0, 4, N) / 2
OPTIONS: dict[str, Any] = {"thresholds": [0.3, 0.5], "calibration_bins": 10, "classwise": True}


def calibration_error(p: Any, true: Any, weight: Any) -> float:
    """The ECE over ten bins."""
    place, total = np.minimum((p * 10).astype(int), 9), weight.sum()
    gaps = [abs(((true - p) * weight)[place == b].sum()) for b in range(10)]
    return float(sum(gaps) / total)


def check_elements(e: Any, yes: Any, x: Any, weight: Any) -> None:
    """Compare all figures of independent classes with scikit-learn's."""
    p = withlogits.sigmoid(x.astype(np.float64))
    flat = {"y_true": yes.reshape(-1), "sample_weight": weight.reshape(-1)}
    said = p.reshape(-1) > 0.5
    assert e.loss == pytest.approx(metrics.log_loss(y_proba=p.reshape(-1), **flat), rel=1e-7)
    assert e.accuracy == pytest.approx(metrics.accuracy_score(y_pred=said, **flat))
    assert e.brier == pytest.approx(metrics.brier_score_loss(y_proba=p.reshape(-1), **flat))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(y_pred=said, average="binary", **flat)
    assert (e.precision, e.recall, e.f1) == (pytest.approx(precision), pytest.approx(recall), pytest.approx(f1))
    assert e.calibration.error == pytest.approx(calibration_error(p, yes, weight), rel=1e-6)
    for i, threshold in enumerate(OPTIONS["thresholds"]):
        above = p.reshape(-1) > threshold
        figures = metrics.precision_recall_fscore_support(y_pred=above, average="binary", **flat)
        mine = [getattr(e.thresholds, name)[i] for name in ("precision", "recall", "f1")]
        assert mine == [pytest.approx(value) for value in figures[:3]]
    for c in range(C):
        of = {"sample_weight": weight[:, c]}
        each = e.per_class
        assert each.auroc[c] == pytest.approx(metrics.roc_auc_score(yes[:, c], x[:, c], **of))
        assert each.average_precision[c] == pytest.approx(metrics.average_precision_score(yes[:, c], x[:, c], **of))
        assert each.brier[c] == pytest.approx(metrics.brier_score_loss(yes[:, c], p[:, c], **of))
        assert each.loss[c] == pytest.approx(metrics.log_loss(yes[:, c], p[:, c], **of), rel=1e-7)
        figures = metrics.precision_recall_fscore_support(yes[:, c], x[:, c] > 0, average="binary", **of)
        mine = [getattr(each, name)[c] for name in ("precision", "recall", "f1")]
        assert mine == [pytest.approx(value) for value in figures[:3]]
        assert each.support[c] == pytest.approx((weight * yes)[:, c].sum())
        assert each.calibration_error[c] == pytest.approx(calibration_error(p[:, c], yes[:, c], weight[:, c]))
    assert e.classwise_calibration_error == pytest.approx(e.per_class.calibration_error.mean())


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.float32, np.nan), (np.float64, -1), (np.int8, -1), (np.uint8, 255), (np.int64, -100)]
)
@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_missing_elements_do_not_count(dtype: Any, value: Any, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "reference":
        from withlogits.statistics import arrays, elements

        monkeypatch.setattr(elements, "backend", lambda: arrays)
    labels = np.where(MISSING, np.asarray(value, dtype), YES.astype(dtype))
    logits = np.where(MISSING, RNG.choice([np.nan, np.inf, -np.inf, 3.0], MISSING.shape), ODDS)
    e = evaluate(labels, logits, loss="sigmoid", ignore_index=value, **OPTIONS)
    assert (e.count, e.ignored) == ((~MISSING).sum(), MISSING.sum())
    assert e.histogram.counts.sum() == e.calibration.counts.sum() == e.fitted_on == e.count
    assert {found.severity for found in e.diagnosis.findings} <= {"note"}
    assert not any(MISSING[one.index] for one in e.costliest)
    check_elements(e, YES, ODDS, (~MISSING).astype(float))


def test_labels_that_are_nan_are_errors_unless_they_are_said_to_be_missing() -> None:
    labels = np.where(MISSING, np.nan, YES)
    assert np.isnan(evaluate(labels, ODDS, loss="sigmoid").loss)
    assert evaluate(labels, ODDS, loss="sigmoid", sample_weight=~MISSING).loss == pytest.approx(
        evaluate(labels, ODDS, loss="sigmoid", ignore_index=float("nan")).loss
    )


@pytest.mark.parametrize("weight", [WEIGHTS, ROW_WEIGHTS, np.ones(N)], ids=["elements", "rows", "ones"])
@pytest.mark.parametrize("missing", [False, True])
def test_weights_of_elements(weight: Any, missing: bool) -> None:
    labels = np.where(MISSING, -1, YES) if missing else YES
    options = OPTIONS | ({"ignore_index": -1} if missing else {})
    e = evaluate(labels, ODDS, loss="sigmoid", sample_weight=weight, **options)
    wide = np.broadcast_to(weight if weight.ndim == 2 else weight[:, None], YES.shape)
    check_elements(e, YES, ODDS, wide * ~MISSING if missing else wide)


def test_one_logit_an_example() -> None:
    e = evaluate(YES[:, 0], ODDS[:, 0], loss="sigmoid", sample_weight=ROW_WEIGHTS)
    assert e.auroc == pytest.approx(metrics.roc_auc_score(YES[:, 0], ODDS[:, 0], sample_weight=ROW_WEIGHTS))


@pytest.mark.parametrize("kind", ["sparse", "softmax"])
def test_weights_of_rows(kind: str) -> None:
    labels = LABELS if kind == "sparse" else np.eye(C)[LABELS]
    e = evaluate(labels, LOGITS, loss=kind, sample_weight=ROW_WEIGHTS, calibration_bins=10, classwise=True)
    of = {"sample_weight": ROW_WEIGHTS}
    p, predicted = withlogits.softmax(LOGITS), LOGITS.argmax(axis=1)
    assert e.count == (ROW_WEIGHTS > 0).sum()
    assert e.loss == pytest.approx(metrics.log_loss(LABELS, p, **of))
    assert e.brier == pytest.approx(metrics.brier_score_loss(LABELS, p, labels=range(C), scale_by_half=False, **of))
    assert e.confusion is not None
    np.testing.assert_allclose(e.confusion.matrix, metrics.confusion_matrix(LABELS, predicted, **of))
    figures = metrics.precision_recall_fscore_support(LABELS, predicted, **of)
    for name, true in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        np.testing.assert_allclose(getattr(e.per_class, name), true)
    untied = LOGITS + np.linspace(0.0, 1e-3, C)
    e = evaluate(labels, untied, loss=kind, sample_weight=ROW_WEIGHTS)
    assert e.accuracy == pytest.approx(metrics.accuracy_score(LABELS, untied.argmax(axis=1), **of))
    assert e.top_k is not None
    assert e.top_k[3] == pytest.approx(metrics.top_k_accuracy_score(LABELS, untied, k=3, **of))
    errors = [calibration_error(p[:, c], c == LABELS, ROW_WEIGHTS) for c in range(C)]
    whole = evaluate(labels, LOGITS, loss=kind, sample_weight=ROW_WEIGHTS, calibration_bins=10, classwise=True)
    assert whole.per_class.calibration_error == pytest.approx(errors)
    assert whole.classwise_calibration_error == pytest.approx(np.mean(errors))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whole_weights_are_repetitions(data: Any) -> None:
    loss = data.draw(st.sampled_from(["sparse", "softmax", "sigmoid"]))
    many = np.array(data.draw(st.lists(st.integers(0, 3), min_size=40, max_size=40).filter(any)))
    logits = np.array(data.draw(st.lists(st.sampled_from([-2.0, 0.0, 1.0, 1.5]), min_size=80, max_size=80)))
    logits = logits.reshape(40, 2)
    labels = LABELS[:40] % 2 if loss == "sparse" else np.eye(2)[LABELS[:40] % 2]
    weighted = evaluate(labels, logits, loss=loss, sample_weight=many, classwise=True)
    repeated = evaluate(np.repeat(labels, many, axis=0), np.repeat(logits, many, axis=0), loss=loss, classwise=True)
    for name in ("loss", "accuracy", "auroc", "average_precision", "best_f1", "brier", "classwise_calibration_error"):
        mine, true = getattr(weighted, name), getattr(repeated, name)
        assert mine == (None if true is None else pytest.approx(true, nan_ok=True)), name
    if weighted.top_k is not None:
        assert weighted.top_k == pytest.approx(repeated.top_k, nan_ok=True)
    assert weighted.calibration.error == pytest.approx(repeated.calibration.error)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ties_are_shared(dtype: Any) -> None:
    labels = RNG.integers(0, 10, 1000)
    e = evaluate(labels, np.zeros((1000, 10), dtype))
    assert e.top_k is not None
    assert (e.accuracy, e.top_k[1]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (e.top_k[3], e.top_k[5]) == (pytest.approx(0.3), pytest.approx(0.5))
    assert e.calibration.error == pytest.approx(0.0, abs=1e-7)
    two = np.tile(np.array([1, 1, 0, 0], dtype), (1000, 1))
    e = evaluate(labels % 4, two)
    of_each = np.bincount(labels % 4) / 1000
    assert e.accuracy == pytest.approx((of_each[0] + of_each[1]) / 2)
    assert e.top_k is not None
    assert e.top_k[3] == pytest.approx(of_each[0] + of_each[1] + (of_each[2] + of_each[3]) / 2)


def test_weights_of_batches_merge() -> None:
    a, b = (Meter(loss="sigmoid", ignore_index=-1, **OPTIONS) for _ in range(2))
    labels = np.where(MISSING, -1, YES)
    a.update(labels[:200], ODDS[:200])
    a.update(labels[200:400], ODDS[200:400], sample_weight=WEIGHTS[200:400])
    b.update(labels[400:], ODDS[400:], sample_weight=WEIGHTS[400:], first=400)
    a.merge(b)
    wide = np.concatenate((np.ones((200, C)), WEIGHTS[200:])) * ~MISSING
    check_elements(a.compute(), YES, ODDS, wide)
    for options in ({"thresholds": [0.3]}, OPTIONS | {"ignore_index": 255}, OPTIONS):
        other = Meter(loss="sigmoid", **options)
        other.update(YES, ODDS)
        with pytest.raises(ValueError, match=r"^meters with other ignore_index, thresholds, .* do not merge"):
            a.merge(other)


def test_weights_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 40)
    monkeypatch.setattr(module, "ELEMENTS", 40)
    for name, array in {"x": ODDS, "z": YES, "w": WEIGHTS, "r": ROW_WEIGHTS, "y": LABELS}.items():
        np.save(tmp_path / f"{name}.npy", array)
    x, z, w, r, y = (tmp_path / f"{name}.npy" for name in "xzwry")
    for weights, array in ((w, WEIGHTS), (r, ROW_WEIGHTS)):
        e = evaluate(z, x, loss="sigmoid", sample_weight=weights, **OPTIONS)
        assert e.loss == pytest.approx(evaluate(YES, ODDS, loss="sigmoid", sample_weight=array).loss)
        assert e.sources["sample_weight"] == str(weights)
    assert evaluate(y, x, sample_weight=r).accuracy == pytest.approx(
        evaluate(LABELS, ODDS, sample_weight=ROW_WEIGHTS).accuracy
    )
    with pytest.raises(BadFile, match=f"^{re.escape(f'{w}: {SHAPES}')}$"):
        evaluate(y, x, sample_weight=w)
    with pytest.raises(ValueError, match=f"^{re.escape(SHAPES)}$"):
        evaluate(LABELS, ODDS, sample_weight=WEIGHTS)
    np.save(w, -WEIGHTS - 1.0)
    with pytest.raises(BadFile, match=rf"^{re.escape(str(w))}: sample_weight\[0, 0\] is -"):
        evaluate(z, x, loss="sigmoid", sample_weight=w)


SHAPES = "sample_weight has shape (600, 4), which does not broadcast to (600,), the shape of the rows"
BETWEEN = "where probabilities between 0 and 1 are expected: [0.3, 0.5]"
REFUSED = [
    ({"ignore_index": "a"}, TypeError, "ignore_index is 'a', where a number is expected"),
    ({"ignore_index": np.nan}, TypeError, "ignore_index is nan, where an integer or None is expected"),
    ({"thresholds": [0.2, 1.0]}, ValueError, f"thresholds is [0.2, 1.0], {BETWEEN}"),
    ({"thresholds": 0.2}, ValueError, f"thresholds is 0.2, {BETWEEN}"),
    (
        {"thresholds": [0.2]},
        ValueError,
        (
            'thresholds are of independent classes (loss="sigmoid"), and the loss is sparse, which predicts the '
            "largest logit: leave them out"
        ),
    ),
    ({"calibration_bins": 0}, ValueError, "calibration_bins is 0, where 1 to 1000 is expected"),
    (
        {"sample_weight": -ROW_WEIGHTS},
        ValueError,
        (
            f"sample_weight[{np.flatnonzero(ROW_WEIGHTS)[0]}] is {-ROW_WEIGHTS[ROW_WEIGHTS > 0][0]}, "
            "where a finite weight of 0 or more is expected"
        ),
    ),
    ({"sample_weight": WEIGHTS}, ValueError, SHAPES),
]


@pytest.mark.parametrize(("options", "kind", "text"), REFUSED)
def test_options_that_are_refused(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    meter_options = {name: value for name, value in options.items() if name != "sample_weight"}
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        Meter(loss="sparse", **meter_options).update(LABELS, LOGITS, sample_weight=options.get("sample_weight"))


def test_weights_of_nothing() -> None:
    for labels, logits, loss in (
        (LABELS, LOGITS, "sparse"),
        (YES, ODDS, "sigmoid"),
        (np.eye(C)[LABELS], LOGITS, "softmax"),
    ):
        e = evaluate(labels, logits, loss=loss, sample_weight=np.zeros(N), classwise=True)
        assert (e.count, e.loss, e.calibration.error) == (0, 0.0, 0.0)
        assert np.isnan(e.accuracy)
        assert str(e)


def test_how_it_reads() -> None:
    text = str(evaluate(YES, ODDS, loss="sigmoid", sample_weight=WEIGHTS, **OPTIONS))
    for words in ("at 0.3", "class-wise", "Brier score", "F1, best thresholds", "10 bins"):
        assert words in text
    text = str(evaluate(LABELS, LOGITS, sample_weight=ROW_WEIGHTS))
    assert re.search(r"taken for another +\d as \d \([\d.]+\)", text)
