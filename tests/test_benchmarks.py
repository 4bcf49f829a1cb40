"""The benchmarks run on tiny shapes and write what the docs include. What they measure decides nothing here."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import withlogits

ROOT = Path(__file__).resolve().parents[1]

# What the test group installs; the frameworks come with the bench group.
HERE = ("numpy.logsumexp", "scipy")


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    # `accuracy` asks JAX for float64 when it is loaded; another test must not find that.
    monkeypatch.setenv("JAX_ENABLE_X64", "1")


def module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def little_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    bandwidth = module("bandwidth")
    monkeypatch.setattr(bandwidth, "BYTES", 16 * bandwidth.TOGETHER * bandwidth.PAGE)
    monkeypatch.setattr(bandwidth, "measure", functools.partial(bandwidth.measure, seconds=0.1))


def tiny_cases() -> list[Any]:
    """Each loss, each mode and each format once: every combination would cost its compilation."""
    Case, shape = module("cases").Case, (6, 5)
    return [
        Case("sparse", "loss", "float32", shape),
        Case("sparse", "loss+gradient", "float32", shape),
        Case("softmax", "loss+gradient", "float32", shape),
        Case("sigmoid", "loss", "float32", shape),
        Case("weighted", "loss+gradient", "float32", shape),
        Case("sparse", "loss+gradient", "bfloat16", shape),
        Case("softmax", "activation", "float32", shape),
        Case("logit", "activation", "float32", shape),
    ]


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = withlogits.get_num_threads()
    yield
    withlogits.set_num_threads(before)


@pytest.mark.usefixtures("little_bandwidth", "threads_as_before")
def test_speed_validates_times_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = module("speed")
    monkeypatch.setattr(speed, "ATTEMPTS", 1)  # however busy the machine is
    result = speed.run(tiny_cases(), threads=1, rounds=1, budget=0.0, names=(*HERE, "no-such-library"))
    speed.write(result, tmp_path)

    wrong = [case["key"] for case in result["cases"] if "median_ms" not in case["ours"]]
    assert not wrong, "withlogits was found wrong"
    for case in result["cases"]:
        scipy = case["peers"]["scipy"]
        assert ("ratio" in scipy) == (case["dtype"] == "float32"), scipy
        assert bool(case["reused"]) == (case["mode"] == "loss+gradient")
    assert "no-such-library" in result["absent"]

    assert json.loads((tmp_path / "speed.json").read_text())["cases"]
    text = (tmp_path / "speed.md").read_text()
    assert "no-such-library" in text, "an absent library is told, not dropped"
    assert "no bfloat16" in text or "float32 and float64 only" in text
    assert not text.startswith("#"), "the docs include it below a heading of their own"
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_a_wrong_result_is_found_out() -> None:
    cases, truth = module("cases"), module("truth")
    inputs = cases.Inputs((4, 3), "float32")
    for what in cases.LOSSES:
        case = cases.Case(what, "loss", "float32", (4, 3))
        true = truth.Truth(case, inputs)
        assert true.faults(case, true.values, None, strict=True) == ""
        off = true.values.copy()
        off.flat[1] *= 1.001
        assert "instead of" in true.faults(case, off, None, strict=True)
        off.flat[1] = np.nan
        assert "nan" in true.faults(case, off, None, strict=False)

        step = cases.Case(what, "loss+gradient", "float32", (4, 3))
        gradient = true.gradient / true.values.size
        assert true.faults(step, np.float64(true.mean), gradient, strict=True) == ""
        assert "gradient" in true.faults(step, np.float64(true.mean), gradient * 1.01, strict=True)
        assert "mean" in true.faults(step, np.float64(true.mean * 1.01), gradient, strict=True)


def test_a_slower_row_is_marked() -> None:
    report = module("speed_report")
    case = {"what": "sparse", "mode": "loss", "dtype": "float32", "shape": (1, 2), "share_of": "read"}
    case |= {"ours": {"median_ms": 2.0, "minimum_ms": 1.0, "share": 0.5}, "reused": {}}
    case["peers"] = {"torch": {"median_ms": 1.0, "minimum_ms": 1.0, "ratio": 0.5, "ratio_of_minima": 1.0}}
    result = {
        "machine": {"cpu": "one", "cores": 1, "memory_gb": 1.0, "system": "", "threads": 1, "date": "", "versions": {}},
        "bandwidth_gb_s": {"read": 1.0, "copy": 1.0, "copyto": 1.0},
        "peers": {"torch": {"version": "0", "called": "so"}},
        "absent": {},
        "cases": [case],
    }
    text = report.markdown(result)
    assert "Where withlogits is slower" in text
    assert "**0.50× ▼**" in text


def test_turns_alternate_and_come_back_to_each() -> None:
    timing = module("timing")
    called: list[str] = []
    contestants = {name: lambda name=name: called.append(name) for name in "ab"}
    times = timing.alternate(contestants, rounds=2, budget=0.0)
    assert set(called) == {"a", "b"}
    assert all(times[name].minimum <= times[name].median for name in "ab")
    assert len(times["a"].calls) == 2 * timing.LONGEST_TURN_CALLS


def test_accuracy_measures_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, rows = module("accuracy"), module("accuracy_rows")
    monkeypatch.setattr(accuracy, "CLASSES", (3,))
    monkeypatch.setattr(accuracy, "LOSSES", ("sparse", "weighted"))
    monkeypatch.setattr(accuracy, "ACTIVATIONS", ("softmax", "logit"))
    monkeypatch.setattr(accuracy, "MARGINS", np.array([1.0, 20.0]))
    monkeypatch.setattr(rows, "ELEMENTS", 4)
    result = accuracy.run(("float32",), 3, ("withlogits", *HERE))
    accuracy.write(result, tmp_path)

    scipy, ours = (
        [error["ulp"] for error in result["errors"] if error["name"] == name and error["what"] == "sparse"]
        for name in ("scipy", "withlogits")
    )
    assert max(ours) < 10, "of a correct result"
    assert max(scipy) > 1e6, "the tail that SciPy's log_softmax loses"
    assert result["tails"][0]["truth"][0] == pytest.approx(4.122307236e-9)
    assert not (tmp_path / "accuracy.md").read_text().startswith("#")
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="only there can a process reset its peak")
def test_memory_sees_what_a_call_takes() -> None:
    memory = module("memory")
    shape = (256, 32_000)
    logits = 256 * 32_000 * 4
    by_numpy = memory.measure("numpy.logsumexp", "sparse", "loss", shape)
    assert by_numpy["result_bytes"] == 256 * 4
    assert by_numpy["beyond_bytes"] > 0.9 * logits, "exp(x − max) is an array of the logits' size"


def test_startup_runs_fresh_processes() -> None:
    startup = module("startup")
    result = startup.run([("sparse", "loss", "float32")], runs=1)
    assert result["import_withlogits_s"] > 0
    assert result["first_calls"][0]["cached_s"] > 0
    assert "from the cache" in startup.markdown(result)


def test_evaluation_measures_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = module("evaluation")
    monkeypatch.setattr(evaluation, "SHAPES", ((6, 5),))
    monkeypatch.setattr(evaluation, "CASES", (("sparse", 7), ("sigmoid", 5)))
    assert evaluation.main(["--gigabytes", "1e-4", "--folder", str(tmp_path), "--output", str(tmp_path)]) == 0
    lines = (tmp_path / "evaluation.md").read_text().splitlines()
    assert (
        sum(
            line.startswith(("| sparse | 6 × 5 |", "| sigmoid | 6 × 5 |", "| sparse | 7 |", "| sigmoid | 5 |"))
            for line in lines
        )
        == 4
    )
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.md"]


def test_the_rates_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = module("guide_rates")
    monkeypatch.setattr(rates, "MISTAKES", rates.MISTAKES[::20])
    monkeypatch.setattr(rates, "CLEAN", rates.CLEAN[::80])
    assert rates.main(["--output", str(tmp_path)]) == 0
    text = (tmp_path / "guide.md").read_text()
    mistakes, pairs = len(rates.MISTAKES), len(rates.CLEAN)
    assert min(mistakes, pairs) >= 10
    assert f"| all | | {mistakes} | {mistakes} | {mistakes} |" in text
    assert f"| all | {pairs} | 0 |" in text


def test_pytorch_validates_times_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_bandwidth: None, threads_as_before: None
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    pytorch = module("pytorch")
    monkeypatch.setattr(pytorch, "SHAPES", ((6, 5),))
    monkeypatch.setattr(pytorch.shutil, "which", lambda name: None)
    threads = torch.get_num_threads()
    try:
        assert pytorch.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)]) == 0
        result = json.loads((tmp_path / "pytorch.json").read_text())
        assert len(result["cases"]) == 16
        assert all(set(case["times"]) == {"withlogits", "torch"} for case in result["cases"])
        assert all(
            case["absent"] == {"torch.compile": "needs a C++ compiler, and there is none"} for case in result["cases"]
        )
        lines = (tmp_path / "pytorch.md").read_text().splitlines()
        assert sum(line.startswith(("| sparse | 6 × 5 |", "| sigmoid | 6 × 5 |")) for line in lines) == 16
        right = pytorch.LOSSES["sparse"]["withlogits"]
        monkeypatch.setitem(pytorch.LOSSES["sparse"], "withlogits", lambda *given: 1.001 * right(*given))
        with pytest.raises(AssertionError, match="not close"):
            pytorch.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)


def test_jax_validates_times_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_bandwidth: None, threads_as_before: None
) -> None:
    pytest.importorskip("optax", reason="optax is not installed: pip install jax optax")
    jax = module("jax")
    programs = ("argument", "donated", "linear head")
    monkeypatch.setattr(jax, "CASES", tuple(((6, 5), program) for program in programs))
    assert jax.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "jax.json").read_text())
    assert len(result["cases"]) == 12
    assert all(set(case["times"]) == {"withlogits", "optax"} for case in result["cases"])
    assert {"jax", "optax"} <= set(result["machine"]["versions"])
    lines = (tmp_path / "jax.md").read_text().splitlines()
    for program in programs:
        assert sum(f"| 6 × 5 | {program} |" in line for line in lines) == 4
    right = jax.LOSSES["sparse"]["withlogits"]
    monkeypatch.setitem(jax.LOSSES["sparse"], "withlogits", lambda *given: 1.001 * right(*given))
    with pytest.raises(AssertionError, match="withlogits, sparse, argument, float32: the mean"):
        jax.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)])


def test_tensorflow_validates_times_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_bandwidth: None, threads_as_before: None
) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow-cpu")
    tensorflow = module("tensorflow")
    monkeypatch.setattr(tensorflow, "SHAPES", ((6, 5),))
    assert tensorflow.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "tensorflow.json").read_text())
    assert len(result["cases"]) == 12
    assert all(len(case["times"]) == 4 for case in result["cases"])
    assert sum(" | 6 × 5 | " in line for line in (tmp_path / "tensorflow.md").read_text().splitlines()) == 12
    right = tensorflow.LOSSES["sparse"]["withlogits"]
    monkeypatch.setitem(tensorflow.LOSSES["sparse"], "withlogits", lambda *given: 1.001 * right(*given))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        tensorflow.main(["--rounds", "2", "--budget", "0.01", "--output", str(tmp_path)])


def test_parts_of_a_small_loss_are_told(tmp_path: Path, threads_as_before: None) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    threads = torch.get_num_threads()
    try:
        assert module("pytorch_parts").main(["--rounds", "1", "--budget", "0.01", "--output", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = [
        line.split("|") for line in (tmp_path / "pytorch_parts.md").read_text().splitlines() if line.count("|") == 4
    ]
    assert len(rows) == 2 + 8
    assert [float(row[3]) for row in rows if row[1].strip() == "`F.cross_entropy`"] == [1.0]
