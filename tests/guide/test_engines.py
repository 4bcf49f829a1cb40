"""The guide and an evaluation say the same where there is no compiler, and plain NumPy computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import engine, reference
from withlogits.evaluation import scores

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(400, 12)) * 3).astype(np.float32)
LABELS = RNG.integers(0, 12, 400)
SEVERAL = (RNG.random((400, 12)) < 0.3).astype(np.float32)
PAIRS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sparse": (LABELS, LOGITS, {}),
    "padded": (np.where(LABELS < 4, -1, LABELS), LOGITS, {"ignore_index": -1}),
    "softmax": (withlogits.softmax(RNG.normal(size=(400, 12))), LOGITS, {}),
    "sigmoid": (SEVERAL, LOGITS, {"loss": "sigmoid"}),
    "broken": (LABELS, np.where(RNG.random(LOGITS.shape) < 0.01, np.nan, LOGITS), {}),
    "sequences": (LABELS.reshape(40, 10), LOGITS.reshape(40, 10, 12), {}),
}


def nearly(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            nearly(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b)
        for i, (p, q) in enumerate(zip(a, b, strict=True)):
            nearly(p, q, f"{where}[{i}]")
    elif isinstance(a, float) and isinstance(b, float):
        assert b == pytest.approx(a, rel=1e-6, abs=1e-9), where
    else:
        assert a == b, where


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("exact", [True, False])
def test_both_engines_say_the_same(name: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits, options = PAIRS[name]
    if not exact:
        monkeypatch.setattr(scores, "EXACT", 100)
    found = []
    for chosen in (engine.select(), reference):
        monkeypatch.setattr(engine, "_chosen", chosen)
        evaluation = withlogits.evaluate(labels, logits, **options)
        given = {"loss": options.get("loss"), "ignore_index": options.get("ignore_index")}
        diagnosis = withlogits.diagnose(labels, logits, **{key: o for key, o in given.items() if o is not None})
        found.append((evaluation.to_dict(), diagnosis.to_dict()))
    for mine, truth in zip(*found, strict=True):
        nearly(truth, mine)
