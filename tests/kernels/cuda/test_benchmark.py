"""The benchmark of the GPU runs, on tiny shapes and on whatever device there is, and says so where there is no GPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from kernels.cuda.arrays import DEVICE, GPU

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    module = importlib.import_module("benchmarks.gpu")
    monkeypatch.setattr(module, "COPIED", 1 << 20)
    return module


def test_it_validates_times_and_reports(gpu: Any, tmp_path: Path) -> None:
    cases = list(gpu.all_cases([(6, 5), (4, 40)]))
    result = gpu.run(cases, DEVICE, rounds=1, budget=0.0, names=("torch", "liger", "no-such-library"))
    gpu.write(result, tmp_path)
    assert len(cases) == 8
    for case in result["cases"]:
        assert "median_ms" in case["ours"], case
        assert case["ours"]["share"] > 0
    assert all("ratio" in case["peers"]["torch"] for case in result["cases"] if case["dtype"] == "float32")
    assert "unknown" in result["absent"]["no-such-library"]
    assert json.loads((tmp_path / "gpu.json").read_text())["cases"]
    text = (tmp_path / "gpu.md").read_text()
    assert "no-such-library" in text, "an absent library is told, not dropped"
    assert not text.startswith("#"), "the docs include it below a heading of their own"
    assert any("torch" in line for line in gpu.gpu_report.summary(result))


def test_a_wrong_result_is_found_out(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> Any:
        right = gpu.gpu_peers.Contestant("torch", "0", "", None)
        right._loss = lambda logits, labels, reduction: (logits.sum(1) * 0.0).mean() if reduction == "mean" else labels
        return right

    monkeypatch.setitem(gpu.gpu_peers._MAKERS, "torch", wrong)
    result = gpu.run(list(gpu.all_cases([(6, 5)])), DEVICE, rounds=1, budget=0.0, names=("torch",))
    assert all("wrong" in case["peers"]["torch"] for case in result["cases"])


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert capsys.readouterr().err.count("\n") == 1
