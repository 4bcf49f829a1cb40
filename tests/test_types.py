"""What type checkers tell about calls: mypy --strict on a small program of a user."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import processes

pytest.importorskip("mypy")

RIGHT = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import withlogits as wl

x = np.zeros((2, 3), np.float32)
y = np.array([0, 1])

assert_type(wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x), NDArray[Any])
assert_type(wl.sparse_softmax_cross_entropy_with_logits(labels=[0], logits=[[1.0]]), NDArray[Any])
assert_type(wl.softmax_cross_entropy_with_logits(labels=x, logits=x, axis=0, temperature=2.0), NDArray[Any])
assert_type(wl.sigmoid_cross_entropy_with_logits(labels=x, logits=x, reduction="none"), NDArray[Any])
assert_type(wl.sigmoid_cross_entropy_with_logits(labels=x, logits=x, reduction="mean"), np.floating[Any])
assert_type(wl.softmax_cross_entropy_with_logits(labels=x, logits=x, reduction="sum"), np.floating[Any])
assert_type(
    wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction="mean", ignore_index=-1),
    np.floating[Any],
)
assert_type(wl.sigmoid_cross_entropy_with_logits(labels=x, logits=x, ignore_index=float("nan")), NDArray[Any])
assert_type(wl.weighted_cross_entropy_with_logits(labels=x, logits=x, pos_weight=2.0), NDArray[Any])

both = wl.value_and_grad(wl.sparse_softmax_cross_entropy_with_logits)
assert_type(both(labels=y, logits=x, reduction="mean")[1], NDArray[Any])
pair = wl.value_and_grad(wl.softmax_cross_entropy_with_logits, wrt=("logits", "labels"))
assert_type(pair(labels=x, logits=x)[1], tuple[NDArray[Any], ...])

assert_type(wl.softmax(x), NDArray[np.float32])
assert_type(wl.sigmoid(x), NDArray[np.float32])
assert_type(wl.logit(np.zeros(2)), NDArray[np.float64])
assert_type(wl.log_softmax(x, axis=(0, 1)), NDArray[np.float32])
assert_type(wl.logsumexp(x), NDArray[np.float32])
assert_type(wl.logsumexp(x, axis=None), np.float32)
assert_type(wl.logsumexp(x, axis=None, keepdims=True), NDArray[np.float32])
number: float = wl.softplus(1.0)
"""

TORCH = """
from typing import assert_type

import torch
from torch import Tensor

import withlogits as wl
from withlogits.torch import SparseSoftmaxCrossEntropy

x = torch.zeros(2, 3)
y = torch.tensor([0, 1])

assert_type(wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x), Tensor)
assert_type(wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction="mean"), Tensor)
assert_type(wl.softmax_cross_entropy_with_logits(labels=x, logits=x, reduction="sum"), Tensor)
assert_type(wl.sigmoid_cross_entropy_with_logits(labels=x, logits=x), Tensor)
assert_type(wl.weighted_cross_entropy_with_logits(labels=x, logits=x, pos_weight=2.0), Tensor)

both = wl.value_and_grad(wl.sparse_softmax_cross_entropy_with_logits)
assert_type(both(labels=y, logits=x), tuple[Tensor, Tensor])
pair = wl.value_and_grad(wl.softmax_cross_entropy_with_logits, wrt=("logits", "labels"))
assert_type(pair(labels=x, logits=x), tuple[Tensor, tuple[Tensor, ...]])

assert_type(wl.softmax(x), Tensor)
assert_type(wl.logsumexp(x, axis=None), Tensor)
assert_type(wl.sigmoid(x), Tensor)

module = SparseSoftmaxCrossEntropy(reduction="mean", ignore_index=-1)
assert_type(module(labels=y, logits=x), Tensor)
"""

# Calls that are errors, one a line.
WRONG = """
import numpy as np
import withlogits as wl
x, y = np.zeros((2, 3)), np.array([0, 1])
wl.sigmoid_cross_entropy_with_logits(labels=x, logits=x, reduction="Mean")
wl.softmax_cross_entropy_with_logits(labels=x, logits=x, reduction="avg")
wl.sparse_softmax_cross_entropy_with_logits(y, x)
wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, pos_weight=2.0)
wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, ignore_index="a")
wl.softmax_cross_entropy_with_logits(labels=x, logits=x, temperature="hot")
wl.sigmoid_cross_entropy_with_logits(labels=x)
wl.value_and_grad(wl.softmax_cross_entropy_with_logits, wrt="logit")
wl.softmax(x, axis="last")
wl.softmax(x, 0)
"""

WRONG_TORCH = """
import torch
from withlogits.torch import SparseSoftmaxCrossEntropy
x, y, loss = torch.zeros(2, 3), torch.tensor([0, 1]), SparseSoftmaxCrossEntropy()
SparseSoftmaxCrossEntropy(reduction="Mean")
SparseSoftmaxCrossEntropy(pos_weight=2.0)
SparseSoftmaxCrossEntropy(-1)
loss(y, x)
x.no_such_method()
"""
# As if withlogits were installed: its functions are known by their signatures. Of torch mypy reads what tensors and
# modules are made of; the rest takes it half a minute. The last of the wrong calls holds that a tensor is no Any.
CONFIGURATION = """
[mypy]
strict = true
[mypy-withlogits.*]
follow_imports = silent
[mypy-torch.*,llvmlite.*,matplotlib.*]
follow_imports = skip
[mypy-torch,torch._C.*,torch._tensor,torch.nn.modules.*,torch.nn.parameter,torch.autograd.*]
follow_imports = normal
"""
CACHE = Path(__file__).parents[1] / ".mypy_cache" / "users"
CALL = re.compile(r"(wl\.|loss\(|SparseSoftmax|x\.)")


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str]]]:
    """The line and text of each error of mypy --strict, by program; torch's need torch."""
    folder = tmp_path_factory.mktemp("types")
    programs = {"right": RIGHT, "wrong": WRONG}
    if find_spec("torch") is not None:
        programs |= {"right_torch": TORCH, "wrong_torch": WRONG_TORCH}
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "mypy.ini").write_text(CONFIGURATION)
    # a process of its own, since mypy keeps much in memory
    code = "import sys; from mypy import api; out, err, _ = api.run(sys.argv[1:]); sys.exit(err) if err else print(out)"
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "--config-file=mypy.ini",
            f"--cache-dir={CACHE}",
            *(f"{name}.py" for name in programs),
        ],
        cwd=folder,
        env=processes.environment(MYPYPATH=str(processes.PACKAGE.parent)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, list[tuple[int, str]]] = {name: [] for name in programs}
    for name, line, text in re.findall(r"^(\w+)\.py:(\d+): error: (.*)$", result.stdout, re.MULTILINE):
        found[name].append((int(line), text))
    return found


def test_numpy_arrays_give_numpy_arrays(errors: dict[str, list[tuple[int, str]]]) -> None:
    assert errors["right"] == []


def test_tensors_give_tensors(errors: dict[str, list[tuple[int, str]]]) -> None:
    pytest.importorskip("torch")
    assert errors["right_torch"] == []


@pytest.mark.parametrize(("name", "program"), [("wrong", WRONG), ("wrong_torch", WRONG_TORCH)])
def test_wrong_calls_are_errors(errors: dict[str, list[tuple[int, str]]], name: str, program: str) -> None:
    if name not in errors:
        pytest.skip("torch is not installed")
    calls = [i for i, line in enumerate(program.splitlines(), 1) if CALL.match(line)]
    assert sorted({line for line, _ in errors[name]}) == calls
