"""`checked`: the first call is diagnosed, the others are the loss itself."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits.guide import DiagnosisError, GuideWarning, checking

LOSS = withlogits.sparse_softmax_cross_entropy_with_logits
LOGITS = np.random.default_rng(0).normal(size=(30, 4))
LABELS = LOGITS.argmax(axis=1)


def test_the_same_loss() -> None:
    loss = withlogits.checked(LOSS)
    for _ in range(2):
        np.testing.assert_array_equal(loss(labels=LABELS, logits=LOGITS), LOSS(labels=LABELS, logits=LOGITS))
    assert loss.__name__ == LOSS.__name__


def test_errors_are_raised_by_the_first_call_and_by_it_alone() -> None:
    loss = withlogits.checked(LOSS)
    with pytest.raises(DiagnosisError, match=r"^WL101, probabilities passed as logits"):
        loss(labels=LABELS, logits=withlogits.softmax(LOGITS))
    with pytest.raises(DiagnosisError):  # a call that was refused does not count
        loss(labels=LABELS, logits=withlogits.softmax(LOGITS))
    loss(labels=LABELS, logits=LOGITS)
    loss(labels=LABELS, logits=withlogits.softmax(LOGITS))


def test_warnings_are_warned_of() -> None:
    with pytest.warns(GuideWarning, match="^WL107, logits that do not depend on the example: all 30 rows"):
        withlogits.checked(LOSS)(labels=LABELS, logits=LOGITS[:1].repeat(30, axis=0))


def test_every_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    diagnose = checking.diagnose

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return diagnose(*args, **kwargs)

    monkeypatch.setattr(checking, "diagnose", counted)
    loss = withlogits.checked(LOSS, every=3)
    for _ in range(7):
        loss(labels=LABELS, logits=LOGITS, reduction="mean", ignore_index=-1)
    assert len(seen) == 3
    assert seen[0]["loss"] == "sparse"
    assert seen[0]["ignore_index"] == -1


def test_options_are_handed_on() -> None:
    loss = withlogits.checked(LOSS)
    images = np.random.default_rng(0).normal(size=(2, 4, 3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(labels=images.argmax(axis=1), logits=images, axis=1)
        dense = withlogits.checked(withlogits.softmax_cross_entropy_with_logits)
        dense(labels=withlogits.softmax(images, axis=1), logits=images, dim=1)


def test_bad_arguments() -> None:
    for wrong in (print, None, "sparse"):
        with pytest.raises(ValueError, match="a loss of withlogits"):
            withlogits.checked(wrong)  # type: ignore[arg-type]
    for every in (0, -1, True, 1.5):
        text = f"every is {every!r}, where a whole number of at least 1 is expected"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            withlogits.checked(LOSS, every=every)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels"):
        withlogits.checked(LOSS)(logits=LOGITS)


def test_a_model_that_is_cut_off() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(5, 4)
    x, y = torch.randn(16, 5), torch.arange(16) % 4
    loss = withlogits.checked(LOSS, model=model)
    with pytest.raises(DiagnosisError, match=r"^WL402, logits cut off from the model: 2 parameters"):
        loss(labels=y, logits=model(x).detach())
    with pytest.raises(DiagnosisError, match=r"WL401, softmax or sigmoid at the end of the model"):
        loss(labels=y, logits=model(x).mul(5).softmax(-1)[:, :])
    loss(labels=y, logits=model(x), reduction="mean").backward()
    with torch.no_grad():
        assert not withlogits.diagnose(y, model(x), model=model).errors


def test_value_and_grad_takes_a_checked_loss() -> None:
    step = withlogits.value_and_grad(withlogits.checked(LOSS))
    with pytest.raises(DiagnosisError, match="WL211"):
        step(labels=np.arange(8) % 3, logits=np.zeros((8, 3)), axis=0)
    given = {"labels": np.arange(8) % 3, "logits": np.random.default_rng(0).normal(size=(8, 3)), "reduction": "mean"}
    value, gradient = withlogits.value_and_grad(withlogits.checked(LOSS))(**given)
    expected = withlogits.value_and_grad(LOSS)(**given)
    assert value == expected[0]
    np.testing.assert_array_equal(gradient, expected[1])


def test_nothing_is_diagnosed_while_torch_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    looked = []
    monkeypatch.setattr("withlogits.guide.checking._check", lambda *_: looked.append(1))
    loss = withlogits.checked(LOSS)
    labels, logits = torch.arange(8) % 3, torch.randn(8, 3)

    def call(labels: Any, logits: Any) -> Any:
        return loss(labels=labels, logits=logits, reduction="mean")

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(labels, logits)
    assert not looked
    torch.testing.assert_close(compiled, call(labels, logits))
    assert looked


def cut_off(torch: Any, how: str) -> tuple[Any, Any]:
    """A model, and logits that do not lead to it."""
    import copy

    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x = torch.randn(32, 5)
    if how == "copied":
        return model, copy.deepcopy(model)(x)
    out = 3 * model(x)
    logits = {
        "list": lambda: torch.tensor(out.tolist(), requires_grad=True) * 1.0,
        "leaf": lambda: torch.tensor(out.tolist(), requires_grad=True),
        "rounded": lambda: out.round(decimals=0),
        "floored": lambda: out.floor() + 0.0,
        "detached": lambda: out.detach(),
    }[how]()
    return model, logits


@pytest.mark.parametrize("how", ["copied", "list", "leaf", "rounded", "floored", "detached"])
def test_logits_whose_gradient_does_not_reach_the_model(how: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    torch.manual_seed(0)
    model, logits = cut_off(torch, how)
    found = withlogits.diagnose(torch.arange(32) % 4, logits, model=model)
    assert [f.code for f in found.errors] == ["WL402"]
    assert found.errors[0].evidence.startswith("4 parameters of the model want a gradient, and ")


def test_rounded_logits_without_the_model() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    logits = torch.randn(32, 4, requires_grad=True)
    labels = torch.arange(32) % 4
    assert withlogits.diagnose(labels, (3 * logits).round()[:, :]).codes[0] == "WL402"
    assert not withlogits.diagnose(labels, logits).errors
    assert not withlogits.diagnose(labels, logits.detach()).errors


def test_logits_that_do_reach_the_model() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    from torch.utils.checkpoint import checkpoint

    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x, labels = torch.randn(32, 5, requires_grad=True), torch.arange(32) % 4
    out = model(x)
    ways = {
        "as they are": out,
        "rounded beside": out + out.round(),
        "one layer": model[2](model[1](model[0](x)).detach()),
        "checkpoint": checkpoint(model, x, use_reentrant=True),
        "checkpoint without": checkpoint(model, x, use_reentrant=False),
        "deep": sum((out for _ in range(50)), out),
    }
    for name, logits in ways.items():
        assert not withlogits.diagnose(labels, logits, model=model).errors, name
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert not withlogits.diagnose(labels, out.detach(), model=model).errors
