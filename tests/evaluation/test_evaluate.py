"""`evaluate` of arrays and of files, whatever their shapes and the order of their memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import evaluate
from withlogits.evaluation import evaluate as module
from withlogits.evaluation.files import BadFile
from withlogits.evaluation.results import Example

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(300, 7)) * 2).astype(np.float32)
LABELS = LOGITS.argmax(axis=1)
LABELS[::5] = 0
ONE_HOT = np.eye(7, dtype=np.int8)[LABELS]


@pytest.fixture(params=[1 << 20, 40], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", request.param)


def saved(folder: Path, **arrays: Any) -> list[str]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [str(folder / f"{name}.npy") for name in arrays]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_give_what_arrays_give(tmp_path: Path, order: Any) -> None:
    for labels in (LABELS, ONE_HOT, LABELS[:, None]):
        z, x = saved(tmp_path, labels=np.asarray(labels, order=order), logits=np.asarray(LOGITS, order=order))
        from_files, from_arrays = evaluate(z, Path(x)), evaluate(labels, LOGITS)
        assert from_files.loss == pytest.approx(from_arrays.loss)
        assert from_files.accuracy == from_arrays.accuracy
        assert from_files.costliest == from_arrays.costliest
        assert from_files.diagnosis.codes == from_arrays.diagnosis.codes
        assert from_files.sources == {"logits": x, "labels": z}


@pytest.mark.usefixtures("blocks")
def test_images_are_cut_anywhere(tmp_path: Path) -> None:
    x = RNG.normal(size=(2, 5, 30, 20)).astype(np.float32)
    y = x.argmax(axis=1)
    y[1, 29, 19] = (y[1, 29, 19] + 1) % 5
    z, f = saved(tmp_path, y=y, x=x)
    e = evaluate(z, f, axis=1)
    assert e.count == 2 * 30 * 20
    assert e.costliest[0].index == (1, 29, 19)
    assert not e.diagnosis
    wrong_axis = evaluate(z, f)
    assert wrong_axis.diagnosis.codes[0] == "WL211"
    assert wrong_axis.loss == pytest.approx(e.loss)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("labels", "logits", "options", "code"),
    [
        (ONE_HOT, LOGITS, {"loss": "sparse"}, "WL201"),
        (LABELS, LOGITS, {"loss": "softmax"}, "WL202"),
        (LABELS.astype(np.float32), LOGITS, {}, "WL208"),
        (ONE_HOT.T, LOGITS, {}, "WL212"),
        (ONE_HOT[:, 3], LOGITS[:, 3:4], {"loss": "sigmoid"}, "WL210"),
        (ONE_HOT[:, 3:4], LOGITS[:, 3], {"loss": "sigmoid"}, "WL210"),
        (LABELS, withlogits.softmax(LOGITS), {}, "WL101"),
        (np.where(LABELS == 0, -100, LABELS), LOGITS, {}, "WL207"),
    ],
)
def test_mistakes_in_files(tmp_path: Path, labels: Any, logits: Any, options: dict[str, Any], code: str) -> None:
    z, x = saved(tmp_path, z=labels, x=logits)
    e = evaluate(z, x, **options)
    assert e.diagnosis.codes[0] == code
    assert e.count > 0


def test_swapped_files(tmp_path: Path) -> None:
    z, x = saved(tmp_path, z=LABELS, x=LOGITS)
    with pytest.raises(ValueError, match=r"^WL104, labels and logits swapped"):
        evaluate(x, z)
    with pytest.raises(ValueError, match=r"^WL402"):
        evaluate(z, z)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    z, x = saved(tmp_path, z=LABELS[:299], x=LOGITS)
    with pytest.raises(BadFile, match=r"^.*z\.npy: labels have shape \(299,\) and logits \(300, 7\), classes"):
        evaluate(z, x)
    with pytest.raises(BadFile, match=r"^.*x\.npy: axis"):
        evaluate(z, x, axis=5)


def test_empty_files(tmp_path: Path) -> None:
    z, x = saved(tmp_path, z=LABELS[:0], x=LOGITS[:0])
    e = evaluate(z, x)
    assert (e.count, e.loss) == (0, 0.0)
    assert str(e)


def test_a_label_that_is_no_number_can_be_read() -> None:
    e = replace(evaluate(LABELS, LOGITS), costliest=(Example((3,), float("inf"), float("nan"), 2, 0.5),))
    assert str(e).splitlines()[-1].endswith("[3] inf (nan taken for 2)")


def test_how_it_reads() -> None:
    text = str(evaluate(LABELS, LOGITS, class_names=list("abcdefg")))
    for words in ("counted", "300 rows", "nats", "top-3", "best temperature", "taken for another", "a as "):
        assert words in text
    assert text.index("recommended") < text.index("counted")
    text = str(evaluate(ONE_HOT, LOGITS, loss="sigmoid"))
    for words in ("2,100 elements", "AUROC", "F1", "WL204"):
        assert words in text


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    e = evaluate(torch.tensor(LABELS), torch.tensor(LOGITS).bfloat16())
    assert e.loss == pytest.approx(evaluate(LABELS, LOGITS).loss, rel=1e-2)
