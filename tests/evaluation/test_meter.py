"""`Meter`: its figures against scikit-learn's, and merging against counting at once."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import withlogits
from withlogits import Meter
from withlogits.guide import DiagnosisError

RNG = np.random.default_rng(0)
N, C = 1500, 12
LOGITS = (RNG.normal(size=(N, C)) * 2).astype(np.float32)
LABELS = RNG.integers(0, C, N)
LOGITS[np.arange(N), LABELS] += 2
SOFT = withlogits.softmax(RNG.normal(size=(N, C)))
SEVERAL = (RNG.random((N, C)) < 0.3).astype(np.float32)
ODDS = (RNG.normal(size=(N, C)) + 2 * SEVERAL - 1).astype(np.float32)
KINDS: dict[str, tuple[Any, Any]] = {
    "sparse": (LABELS, LOGITS),
    "softmax": (SOFT, LOGITS),
    "sigmoid": (SEVERAL, ODDS),
    "one logit": (SEVERAL[:, 0], ODDS[:, 0]),
}


def metered(labels: Any, logits: Any, cuts: tuple[int, ...] = (), **options: Any) -> list[Meter]:
    meters = []
    for begin, end in zip((0, *cuts), (*cuts, len(logits)), strict=True):
        meter = Meter(**options)
        meter.update(labels[begin:end], logits[begin:end], first=begin)
        meters.append(meter)
    return meters


def same(a: Any, b: Any, rel: float = 1e-12) -> None:
    """Two evaluations, but for the rounding of sums."""
    one, other = a.to_dict(), b.to_dict()

    def compare(x: Any, y: Any, where: str) -> None:
        if isinstance(x, dict):
            assert x.keys() == y.keys(), where
            for key in x:
                compare(x[key], y[key], f"{where}.{key}")
        elif isinstance(x, list):
            assert len(x) == len(y), where
            for i, (p, q) in enumerate(zip(x, y, strict=True)):
                compare(p, q, f"{where}[{i}]")
        elif isinstance(x, float) and isinstance(y, float):
            assert y == pytest.approx(x, rel=rel, abs=1e-12), where
        else:
            assert x == y, where

    compare(one, other, "")


# ------------------------------------------------------------------------------------------------ figures


def test_exclusive_classes_as_scikit_learn_has_them() -> None:
    e = metered(LABELS, LOGITS)[0].compute()
    p, predicted = withlogits.softmax(LOGITS.astype(np.float64)), LOGITS.argmax(axis=1)
    assert e.loss == pytest.approx(metrics.log_loss(LABELS, p), rel=1e-7)
    assert e.bits == pytest.approx(e.loss / math.log(2.0))
    assert e.perplexity == pytest.approx(math.exp(e.loss))
    assert e.accuracy == metrics.accuracy_score(LABELS, predicted)
    assert e.top_k is not None
    for k in (3, 5, 10):
        assert e.top_k[k] == metrics.top_k_accuracy_score(LABELS, LOGITS, k=k)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(LABELS, predicted)
    np.testing.assert_allclose(e.per_class.precision, precision)
    np.testing.assert_allclose(e.per_class.recall, recall)
    np.testing.assert_allclose(e.per_class.f1, f1)
    np.testing.assert_array_equal(e.per_class.support, support)
    assert e.confusion is not None
    np.testing.assert_array_equal(e.confusion.matrix, metrics.confusion_matrix(LABELS, predicted))
    losses = withlogits.sparse_softmax_cross_entropy_with_logits(labels=LABELS, logits=LOGITS)
    for c in range(C):
        assert e.per_class.loss[c] == pytest.approx(losses[c == LABELS].mean(dtype=np.float64))
    order = np.argsort(-losses, kind="stable")[:20]
    assert [one.index for one in e.costliest] == [(i,) for i in order]
    assert e.costliest[0].confidence == pytest.approx(p[order[0]].max(), rel=1e-5)
    assert e.histogram.counts.sum() == N
    assert (e.f1, e.auroc) == (None, None)


def test_calibration_by_hand() -> None:
    e = metered(LABELS, LOGITS)[0].compute()
    p = withlogits.softmax(LOGITS.astype(np.float64))
    claimed, right = p.max(axis=1), p.argmax(axis=1) == LABELS
    place = np.minimum((claimed * 15).astype(int), 14)
    gaps = [abs(right[place == b].mean() - claimed[place == b].mean()) * (place == b).mean() for b in np.unique(place)]
    assert e.calibration.error == pytest.approx(sum(gaps), rel=1e-5)
    assert e.calibration.counts.sum() == N


def test_the_best_temperature_is_the_best() -> None:
    for name in ("sparse", "softmax", "sigmoid"):
        labels, logits = KINDS[name]
        e = metered(labels, logits, loss=name)[0].compute()

        def loss(temperature: float, name: str = name, labels: Any = labels, logits: Any = logits) -> float:
            function = {
                "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
                "softmax": withlogits.softmax_cross_entropy_with_logits,
                "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
            }[name]
            return float(function(labels=labels, logits=logits.astype(np.float64) / temperature, reduction="mean"))

        assert e.fitted_on == (N if name != "sigmoid" else N * C)
        assert e.loss_at_temperature == pytest.approx(loss(e.temperature))
        for other in (0.98, 1.02):
            assert loss(e.temperature * other) > e.loss_at_temperature
        assert e.calibration_at_temperature.counts.sum() == e.fitted_on


def test_independent_classes_as_scikit_learn_has_them() -> None:
    e = metered(SEVERAL, ODDS, loss="sigmoid")[0].compute()
    said = ODDS > 0
    assert e.loss == pytest.approx(
        np.mean([metrics.log_loss(SEVERAL[:, c], withlogits.sigmoid(ODDS[:, c].astype(float))) for c in range(C)]),
        rel=1e-6,
    )
    assert e.accuracy == pytest.approx((said == SEVERAL).mean())
    for name, mine in (("micro", e.f1), ("macro", e.macro_f1)):
        assert mine == pytest.approx(metrics.f1_score(SEVERAL, said, average=name))
    assert e.precision == pytest.approx(metrics.precision_score(SEVERAL, said, average="micro"))
    assert e.recall == pytest.approx(metrics.recall_score(SEVERAL, said, average="micro"))
    assert e.auroc == pytest.approx(metrics.roc_auc_score(SEVERAL, ODDS, average="macro"))
    assert e.average_precision == pytest.approx(metrics.average_precision_score(SEVERAL, ODDS, average="macro"))
    assert e.per_class.auroc is not None
    np.testing.assert_allclose(e.per_class.auroc, metrics.roc_auc_score(SEVERAL, ODDS, average=None))
    assert (e.perplexity, e.top_k, e.confusion) == (None, None, None)
    assert (e.auroc_error, e.average_precision_error) == (0.0, 0.0)
    for c in range(C):
        precision, recall, thresholds = metrics.precision_recall_curve(SEVERAL[:, c], ODDS[:, c])
        f1 = 2 * precision * recall / (precision + recall)
        assert e.per_class.best_f1 is not None
        assert e.per_class.best_logit is not None
        assert e.per_class.best_f1[c] == pytest.approx(f1.max())
        assert e.per_class.best_logit[c] == thresholds[f1.argmax()]


def test_ignored_rows_do_not_count() -> None:
    labels = np.where(np.arange(N) % 3 == 0, -100, LABELS)
    e = metered(labels, LOGITS, ignore_index=-100)[0].compute()
    kept = labels != -100
    alone = metered(labels[kept], LOGITS[kept])[0].compute()
    assert (e.count, e.ignored) == (int(kept.sum()), int((~kept).sum()))
    assert (e.loss, e.accuracy) == (pytest.approx(alone.loss), alone.accuracy)
    np.testing.assert_array_equal(e.per_class.support, alone.per_class.support)
    assert not e.diagnosis


def test_rows_that_are_no_class_do_not_count_and_are_an_error() -> None:
    labels = LABELS.copy()
    labels[5] = 99
    e = metered(labels, LOGITS)[0].compute()
    assert e.count == N - 1
    assert e.diagnosis.codes[0] == "WL206"


def test_nan_is_nan() -> None:
    logits = LOGITS.copy()
    logits[3, 4] = np.nan
    e = metered(LABELS, logits)[0].compute()
    assert math.isnan(e.loss)
    assert e.diagnosis.codes[0] == "WL106"
    assert e.to_dict()["loss"] == "nan"


def test_many_classes() -> None:
    logits = RNG.normal(size=(400, 5000)).astype(np.float32)
    labels = RNG.integers(0, 5000, 400)
    e = metered(labels, logits)[0].compute()
    assert e.confusion is not None
    assert e.confusion.matrix.shape == (25, 25)
    assert sum(n for _, _, n in e.confusion.common) <= 400
    assert e.per_class.support.sum() == 400


# ------------------------------------------------------------------------------------------------ merging


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_split_in_any_order_is_the_whole(name: str, data: Any) -> None:
    labels, logits = KINDS[name]
    loss = {"one logit": "sigmoid"}.get(name, name)
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, N), max_size=5))))
    parts = metered(labels, logits, cuts, loss=loss)
    order = data.draw(st.permutations(range(len(parts))))
    total = Meter(loss=loss)
    for i in order:
        total.merge(pickle.loads(pickle.dumps(parts[i])))
    same(metered(labels, logits, loss=loss)[0].compute(), total.compute())


def test_merging_is_associative() -> None:
    a, b, c = (metered(LABELS, LOGITS, (400, 900)) for _ in range(3))
    a[0].merge(a[1])
    a[0].merge(a[2])
    b[1].merge(b[2])
    b[0].merge(b[1])
    c[2].merge(c[0])
    c[2].merge(c[1])
    same(a[0].compute(), b[0].compute())
    same(a[0].compute(), c[2].compute())


def test_merging_leaves_the_other_alone() -> None:
    a, b = metered(LABELS, LOGITS, (700,))
    before = b.compute()
    empty = Meter()
    empty.merge(b)
    a.merge(b)
    empty.update(LABELS[:10], LOGITS[:10], first=N)
    same(before, b.compute())


def test_mended_pairs_can_be_pickled() -> None:
    meter = metered(np.eye(C)[LABELS], LOGITS, loss="sparse")[0]
    again = pickle.loads(pickle.dumps(meter))
    again.update(np.eye(C)[LABELS[:5]], LOGITS[:5])
    assert again.compute().count == N + 5
    assert again.compute().diagnosis.codes[0] == "WL201"


def test_meters_that_do_not_go_together() -> None:
    a, b = metered(LABELS, LOGITS)[0], metered(SEVERAL, ODDS, loss="sigmoid")[0]
    text = "a meter of sparse with 12 classes does not merge with one of sigmoid with 12: give both the same loss"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        a.merge(b)


def test_batches_that_do_not_go_together() -> None:
    meter = metered(LABELS, LOGITS)[0]
    with pytest.raises(ValueError, match=r"^logits have shape \(1500, 11\) in this batch, where the first batch lets"):
        meter.update(LABELS, LOGITS[:, 1:])
    with pytest.raises(ValueError, match=r"^labels have shape \(9,\) in this batch"):
        meter.update(LABELS[:9], LOGITS)


@pytest.mark.parametrize("name", ["sparse", "softmax", "sigmoid"])
def test_class_names_that_are_too_few_or_too_many(name: str) -> None:
    labels, logits = KINDS[name]
    text = "class_names has 2 names, where logits (1500, 12) have 12 classes"
    for names in (("a", "b"), ["a", "b"]):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            Meter(loss=name, class_names=names).update(labels, logits)
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            withlogits.evaluate(labels, logits, loss=name, class_names=names)
    assert withlogits.evaluate(labels, logits, loss=name, class_names=[*map(str, range(C))]).class_names


def test_nothing_to_compute_from() -> None:
    with pytest.raises(ValueError, match=r"^the meter has seen no batch: call update\(labels, logits\) first$"):
        Meter().compute()
    swapped = Meter()
    swapped.update(LOGITS, np.eye(C)[LABELS])
    with pytest.raises(DiagnosisError, match=r"^WL104"):
        swapped.compute()
    assert swapped.diagnose().codes == ("WL104",)


def test_batches_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    meter = Meter()
    meter.update(torch.tensor(LABELS), torch.tensor(LOGITS).requires_grad_())
    same(metered(LABELS, LOGITS)[0].compute(), meter.compute())


def test_sequences_images_and_where_examples_lie() -> None:
    x = RNG.normal(size=(4, 6, 5, 3))
    y = x.argmax(axis=1)
    y[2, 1, 1] = (y[2, 1, 1] + 1) % 6
    x[2, y[2, 1, 1], 1, 1] = -50.0
    e = metered(y, x, (1, 3), axis=1)
    for other in e[1:]:
        e[0].merge(other)
    found = e[0].compute()
    assert found.costliest[0].index == (2, 1, 1)
    assert found.count == 4 * 5 * 3
