"""`torch.onnx.export` writes the losses as standard operations, and onnxruntime computes the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import withlogits
from frameworks.torch_cases import ACTIVATIONS, FEW, Case, array, assert_ulps, tensors, torch
from withlogits.compat import torch as compat

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install onnxscript")

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own, many


def exported(function: Any, path: Path, *given: Any) -> Any:
    """What onnxruntime makes of a function that was exported with other numbers of the same shapes."""

    class Model(torch.nn.Module):
        def forward(self, labels: Any, logits: Any) -> Any:
            return function(labels, logits)

    labels, logits = given
    program = torch.onnx.export(Model(), (labels, torch.zeros_like(logits)), dynamo=True, verbose=False)
    assert {used.domain for used in program.model_proto.opset_import} == {""}
    program.save(str(path / "loss.onnx"))
    session = onnxruntime.InferenceSession(str(path / "loss.onnx"))
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, (array(labels), array(logits)), strict=False)))[0]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_losses(case: Case, tmp_path: Path) -> None:
    labels, logits = case.tensors(np.float32)
    options = tensors(case.keywords)

    def loss(labels: Any, logits: Any) -> Any:
        return case.function(labels=labels, logits=logits, **options)

    assert_ulps(exported(loss, tmp_path, labels, logits), loss(labels, logits), 4)


def test_drop_ins_under_a_patch(tmp_path: Path) -> None:
    criterion, binary = torch.nn.CrossEntropyLoss(ignore_index=1), torch.nn.BCEWithLogitsLoss()

    def loss(labels: Any, logits: Any) -> Any:
        return criterion(logits, labels) + binary(logits, logits.sigmoid())

    labels, logits = torch.tensor([0, 1, 2, 0]), torch.randn(4, 3)
    with compat.patch():
        got, expected = exported(loss, tmp_path, labels, logits), loss(labels, logits)
    assert_ulps(got, expected, 4)


def test_activations(tmp_path: Path) -> None:
    def all_of_them(_: Any, x: Any) -> Any:
        values = [getattr(withlogits, name)(x) for name in ACTIVATIONS]
        return torch.stack([v if v.dim() == 2 else v[:, None].expand(4, 3) for v in values])

    labels, x = torch.zeros(4), 0.01 + 0.98 * torch.rand(4, 3)
    assert_ulps(exported(all_of_them, tmp_path, labels, x), all_of_them(labels, x), 4)
