"""Without the private names of torch the stand-ins give the same numbers."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from frameworks.torch_cases import FEW, Case, assert_ulps, differentiated, torch
from withlogits.frameworks.torch import eager, private


@pytest.mark.parametrize("name", [*private.STAND_INS, "forward_mode", "apply_of", "all"])
def test_stand_ins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [(case, case.tensors(np.float32, grad=True)) for case in FEW]
    expected = [differentiated(case, *given) for case, given in cases]
    for one, (_, stand_in) in private.STAND_INS.items():
        if name in (one, "all"):
            monkeypatch.setattr(eager, one, stand_in)
    if name in ("forward_mode", "all"):
        monkeypatch.setattr(eager, "forward_mode", SimpleNamespace(_current_level=0))
    if name in ("apply_of", "all"):
        monkeypatch.setattr(eager, "_node", private._apply_publicly(eager.Loss))
        monkeypatch.setattr(eager, "_small_node", private._apply_publicly(eager.SmallLoss))
    for (case, given), values in zip(cases, expected, strict=True):
        for one, other in zip(differentiated(case, *given), values, strict=True):
            assert_ulps(one, other, 4)  # a mean and its gradient are divided elsewhere


def test_names_that_are_not_there() -> None:
    def stand_in() -> int:
        return 1

    assert private._found("_C._no_such_name", stand_in) is stand_in
    assert private._found("_C._is_tracing", stand_in) is torch._C._is_tracing


@pytest.mark.parametrize("path", [*private.REQUIRED, "torch._no_such_module.name"])
def test_without_a_required_name_the_error_names_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no public way: a silent stand-in would drop derivatives."""
    module, _, name = path.rpartition(".")
    if path in private.REQUIRED:
        assert private._required(path) is getattr(importlib.import_module(module), name)
        monkeypatch.delattr(importlib.import_module(module), name)
    text = (
        f"withlogits needs {path}, which torch {torch.__version__} does not have: "
        "install an earlier torch, or a later withlogits"
    )
    with pytest.raises(ImportError) as raised:
        private._required(path)
    assert str(raised.value) == text


def test_a_second_backward_pass_by_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "keeps_graph", private.STAND_INS["keeps_graph"][1])
    labels, logits = Case("sparse", "").tensors(np.float32, grad=True)
    value: Any = Case("sparse", "", {"reduction": "mean"})(labels, logits)
    value.backward(retain_graph=True)
    first = logits.grad.clone()
    value.backward()
    assert torch.equal(logits.grad, 2.0 * first)
