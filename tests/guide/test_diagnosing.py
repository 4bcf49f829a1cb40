"""`diagnose`: its arguments, the arrays that it takes, and rules at their edges; the corpus has the realistic cases."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import diagnose
from withlogits.statistics.summary import Summary

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(200, 6)) * 3).astype(np.float32)
LABELS = LOGITS.argmax(axis=1)
LABELS[::7] = (LABELS[::7] + 1) % 6
ONE_HOT = np.eye(6)[LABELS]
LOSSES = {
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
    "softmax": withlogits.softmax_cross_entropy_with_logits,
    "sigmoid": withlogits.sigmoid_cross_entropy_with_logits,
}


def codes(*args: Any, **kwargs: Any) -> set[str]:
    return set(diagnose(*args, **kwargs).codes) - {"WL304", "WL214"}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_by_name_or_by_itself(name: str) -> None:
    labels = LABELS if name == "sparse" else ONE_HOT
    by_name = diagnose(labels, LOGITS, loss=name)
    assert by_name == diagnose(labels, LOGITS, loss=LOSSES[name])
    assert by_name == diagnose(labels, LOGITS, loss=LOSSES[name].__name__)
    assert by_name.loss == name


def test_softmax_outputs_and_class_numbers_that_are_swapped() -> None:
    assert codes(withlogits.softmax(LOGITS), LABELS) == {"WL104"}
    assert codes(withlogits.softmax(LOGITS), LABELS, loss="softmax") == {"WL104"}
    assert "WL104" not in codes(np.full((200, 6), np.nan), LABELS, loss="softmax")  # of no numbers it says nothing


def test_an_unknown_loss() -> None:
    text = "loss is 'hinge', where 'sigmoid', 'softmax', 'sparse' or a loss of withlogits is expected"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        diagnose(LABELS, LOGITS, loss="hinge")
    with pytest.raises(ValueError, match=r"^loss is 3, where"):
        diagnose(LABELS, LOGITS, loss=3)  # type: ignore[arg-type]


def test_an_unknown_option() -> None:
    with pytest.raises(TypeError, match=r"^diagnose has no option 'gamma'; it takes those of the losses$"):
        diagnose(LABELS, LOGITS, gamma=2.0)


def test_what_is_no_array_of_numbers() -> None:
    with pytest.raises(TypeError, match="labels"):
        diagnose(np.array(["a", "b"]), LOGITS[:2])
    with pytest.raises(TypeError, match="logits"):
        diagnose(LABELS, LOGITS.astype(complex))
    with pytest.raises(TypeError, match="mask"):
        diagnose(np.ma.masked_array(LABELS), LOGITS)


def test_shapes_of_which_nothing_can_be_made_get_the_text_of_the_loss() -> None:
    with pytest.raises(ValueError, match=r"^labels have shape \(7,\) and logits \(200, 6\), classes on axis 1: class"):
        diagnose(LABELS[:7], LOGITS)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype_of_logits(kind: str) -> None:
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else kind
    found = diagnose(LABELS, LOGITS.astype(dtype))
    assert not found
    assert found.subject == f"logits (200, 6) {kind}, labels (200,) int64"
    assert codes(LABELS, withlogits.softmax(LOGITS.astype(dtype))) == {"WL101"}


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_dtype_of_labels(kind: str) -> None:
    assert not diagnose(LABELS.astype(kind), LOGITS)
    assert codes((LABELS + 1).astype(kind), LOGITS) == {"WL206"}
    assert not diagnose(ONE_HOT.astype(kind), LOGITS)


def test_lists_read_only_and_strided_arrays() -> None:
    frozen = LOGITS.copy()
    frozen.flags.writeable = False
    assert not diagnose(LABELS.tolist(), LOGITS.tolist())
    assert not diagnose(LABELS, frozen)
    assert not diagnose(LABELS[::2], LOGITS[::2])
    assert not diagnose(LABELS, np.asfortranarray(LOGITS))
    assert not diagnose(LABELS.astype(">i4"), LOGITS.astype(">f4"))


def test_empty_arrays_say_nothing() -> None:
    assert not diagnose(LABELS[:0], LOGITS[:0])
    assert not diagnose(ONE_HOT[:0], LOGITS[:0])
    assert not diagnose(np.zeros((0, 3)), np.zeros((0, 3)), loss="sigmoid")


def test_nothing_is_changed() -> None:
    labels, logits = LABELS.copy(), LOGITS.copy()
    diagnose(labels, logits)
    diagnose(np.where(labels == 1, -100, labels), logits)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(logits, LOGITS)


def test_images_and_sequences() -> None:
    images = RNG.normal(size=(3, 4, 9, 8)).astype(np.float32)
    labels = images.argmax(axis=1)
    assert not diagnose(labels, images, axis=1)
    assert diagnose(labels, images).codes[0] == "WL211"
    assert "axis=1" in diagnose(labels, images).findings[0].fix
    wrong = labels.copy()
    wrong[1, 2, 3] = -1
    found = diagnose(wrong, images, axis=1).errors[0]
    assert "labels[1, 2, 3] = -1" in found.evidence
    assert "ignore_index=-1" in found.fix
    assert "axis=1" in found.fix
    assert not diagnose(wrong, images, axis=1, ignore_index=-1)


def test_a_masked_class_is_no_mistake() -> None:
    logits = LOGITS.copy()
    logits[:, 5] = -np.inf
    labels = np.where(LABELS == 5, 0, LABELS)
    assert not diagnose(labels, logits).errors
    found = diagnose(np.where(labels == 0, 5, labels), logits)
    assert found.codes[0] == "WL106"
    assert "-inf rules out a class that the label wants" in found.findings[0].evidence
    logits[3] = -np.inf
    assert "nothing but -inf" in diagnose(labels, logits).findings[0].evidence


def test_overflow_of_float16_is_told_apart() -> None:
    logits = LOGITS.astype(np.float16)
    logits[4, 2] = np.inf
    found = diagnose(LABELS, logits).findings[0]
    assert found.title == "float16 logits that have overflowed"
    assert "the first at logits[4, 2]" in found.evidence
    logits[4, 2] = np.nan
    assert diagnose(LABELS, logits).findings[0].title == "NaN or infinite logits"


def test_few_numbers_are_no_evidence() -> None:
    assert not diagnose([1], [[0.2, 0.9]])
    assert not diagnose([1.0, 0.0], [0.3, 0.1])
    assert not diagnose([0, 0, 0], RNG.normal(size=(3, 4)))
    assert not diagnose(np.eye(3), RNG.normal(size=(3, 3)), loss="sigmoid")
    assert not diagnose([0, 0, 0], np.zeros((3, 4)))


def test_options_of_the_loss() -> None:
    labels = np.where(LABELS == 3, -100, LABELS)
    assert codes(labels, LOGITS) == {"WL207"}
    assert codes(labels, LOGITS, ignore_index=-100) == set()
    assert codes(labels * 0 - 100, LOGITS, ignore_index=-100) == {"WL213"}
    rare = (np.arange(2000) % 200 == 0).astype(np.float64)
    logits = rare * 2 - 1 + RNG.normal(size=2000)
    assert "WL214" in diagnose(rare, logits).codes
    assert "WL214" not in diagnose(rare, logits, pos_weight=199.0).codes
    assert "WL304" not in diagnose(LABELS, LOGITS * 20, temperature=20.0).codes


@pytest.mark.parametrize("classes", [5, 300])
def test_where_the_labels_say_nothing_no_temperature_is_offered(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 4000)
    logits = rng.normal(size=(4000, classes)) + 4.0 * np.eye(classes)[labels]
    found = next(f for f in diagnose(rng.permutation(labels), logits) if f.code in ("WL304", "WL305"))
    assert "guessing" in found.title or found.code == "WL305"
    assert "temperature=" not in found.fix
    assert "where guessing" in found.evidence


def test_the_temperature_is_the_one_that_was_put_in() -> None:
    p = withlogits.softmax(RNG.normal(size=(4000, 5)) * 2)
    labels = (p.cumsum(axis=1) > RNG.random((4000, 1))).argmax(axis=1)
    for temperature in (0.25, 4.0):
        found = [f for f in diagnose(labels, np.log(p) * temperature + 3.0) if f.code == "WL304"]
        said = float(re.search(r"at temperature ([\d.]+)", found[0].evidence)[1])  # type: ignore[index]
        assert abs(said / temperature - 1.0) < 0.1
    assert "WL304" not in diagnose(labels, np.log(p) + 3.0).codes


def test_the_reference_engine_says_the_same(engine: Any) -> None:
    for labels, logits in ((LABELS, LOGITS), (LABELS + 1, LOGITS), (ONE_HOT, withlogits.sigmoid(LOGITS))):
        expected = diagnose(labels, logits)
        assert expected.codes == diagnose(labels, logits).codes
        assert expected.loss in LOSSES


def test_what_two_surveys_saw_is_what_one_would() -> None:
    labels = np.where(LABELS == 3, -100, LABELS)
    cases = {
        "sparse": (labels, LOGITS),
        "softmax": (ONE_HOT * 0.9, withlogits.softmax(LOGITS)),
        "sigmoid": (ONE_HOT, LOGITS),
    }
    for kind, (z, x) in cases.items():
        whole, left, right = (Summary.begin(kind, 1, 6, (str(x.dtype), str(z.dtype))) for _ in range(3))
        whole.add(x, z)
        left.add(x[:70], z[:70])
        right.add(x[70:], z[70:], (70, 0))
        right.merge(left)
        for part in ("logits", "labels"):
            for name, value in vars(getattr(whole, part)).items():
                got = getattr(getattr(right, part), name)
                if name == "first_row":
                    continue
                if isinstance(value, float):
                    assert got == pytest.approx(value), (kind, name)
                elif name == "first_outside":
                    assert got == value
                else:
                    assert (
                        got == value if isinstance(value, (str, set, dict, type(None))) else np.allclose(got, value)
                    ), name
        assert right.pair.right == whole.pair.right
        assert right.pair.loss == pytest.approx(whole.pair.loss)
        for got, expected in zip(right.pair.sample.rows(), whole.pair.sample.rows(), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_weights_of_the_elements_of_one_row() -> None:
    x = np.random.default_rng(0).normal(size=40)
    z = (x > 0).astype(float)
    for weight in (2.0, np.ones(1), np.full(40, 2.0)):
        assert diagnose(z, x, loss="sigmoid", pos_weight=weight).codes == ()


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("odd", [False, True])
def test_sums_of_elements_are_those_of_the_loss_that_is_meant(layout: Any, odd: bool) -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(40, 3)), rng.random((40, 3))
    if odd:
        x[3, 1], x[5, 0] = np.nan, -np.inf
    for options in ({}, {"pos_weight": 3.0}, {"label_smoothing": 0.2}):
        summary = Summary.begin("sigmoid", 1, 3, ("float64", "float64"), None, options)
        with np.errstate(invalid="ignore"):
            summary.add(x.copy(layout), z.copy(layout))
            losses = LOSSES["sigmoid"](labels=z, logits=x, **options)
        assert summary.pair.loss == pytest.approx(losses[np.isfinite(losses)].sum())
        assert (summary.pair.nan, summary.pair.infinite) == (np.isnan(losses).sum(), np.isinf(losses).sum())
        assert summary.pair.zx == pytest.approx(0.0 if odd else (x * z).sum())


def test_weights_of_elements_go_with_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("withlogits.guide.diagnosing.ROWS", 7)
    x = np.random.default_rng(0).normal(size=(40, 3))
    assert diagnose((x > 0) * 1.0, x, loss="sigmoid", pos_weight=np.full((40, 3), 2.0)).codes == ()


@pytest.mark.parametrize("scale", [30.0, 100.0])
def test_perfect_and_confident_logits_are_clean(scale: float) -> None:
    labels = np.arange(200) % 5
    hot = np.eye(5)[labels]
    assert diagnose(labels, scale * hot).codes == ()
    assert diagnose(hot, scale * hot, loss="softmax").codes == ()
    assert diagnose(labels > 2, scale * (2.0 * (labels > 2) - 1), loss="sigmoid").codes == ()
    assert withlogits.evaluate(labels, scale * hot).loss < 1e-12
    withlogits.checked(LOSSES["sparse"])(labels=labels, logits=scale * hot)
