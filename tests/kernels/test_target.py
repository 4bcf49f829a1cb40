"""Kernels compile for every processor that is named, and the AVX2 build computes what this machine's own does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processes import environment, run
from withlogits.kernels.cpu import compiler
from withlogits.kernels.cpu.job import ElementsSpec, PoolSpec, ScoresSpec, SigmoidSpec, SmallSpec, SoftmaxSpec, XlaSpec
from withlogits.kernels.cpu.target import NAMED, host, of_features

SPECS: dict[str, Any] = {
    "softmax, float32": SoftmaxSpec("float32", "index", "int64", "along", gradient=True),
    "softmax, float32, across": SoftmaxSpec("bfloat16", "index", "int32", "across", gradient=True),
    "softmax, float32, tiled": SoftmaxSpec("float16", "dense", "float16", "tiled"),
    "softmax": SoftmaxSpec("float32", "dense", "float32", "along", gradient=True, transformed=True),
    "softmax, strided": SoftmaxSpec("float64", "dense", "uint8", "strided", gradient=True, label_gradient="float64"),
    "softmax, tiled": SoftmaxSpec("float64", "smooth", "int64", "tiled", gradient=True, weighted=True),
    "sigmoid": SigmoidSpec("bfloat16", "bool", gradient=True),
    "sigmoid, strided": SigmoidSpec("float64", "float64", strided=True, gradient=True, q="many", s="float32"),
    "logit": SigmoidSpec("float32", result="logit"),
    "pool": PoolSpec("serve"),
    "small": SmallSpec("softmax", -1),
    "xla": XlaSpec("handle"),
    "scan, along": SoftmaxSpec("float16", "index", "int64", "along", result="scan"),
    "scan, tiled": SoftmaxSpec("float64", "none", "", "tiled", result="scan"),
    "elements": ElementsSpec("float32", "uint8", True, 15, -20, 61),
    "scores": ScoresSpec("bfloat16", "bool", "int32", 100),
}
VECTORS = {64: "zmm", 32: "ymm", 16: "xmm"}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", NAMED)
def test_every_target_has_every_kernel(name: str, spec: str) -> None:
    code = compiler.compiled(SPECS[spec], "kernel", NAMED[name])
    assert code[:4] == b"\x7fELF"
    machine = int.from_bytes(code[18:20], "little")
    assert machine == {"x86_64": 62, "aarch64": 183}[NAMED[name].architecture]


def test_vectors_are_as_wide_as_features_allow() -> None:
    wide = "+avx2,+avx512f,+avx512bw,+avx512vl"
    assert of_features("", "", wide).vector_bytes == 64
    assert of_features("", "", wide).masks
    assert not of_features("", "", "+avx2,+avx512f").masks
    assert of_features("", "", "+avx2,-avx512f").vector_bytes == 32
    assert of_features("", "", "+sse2").vector_bytes == 16
    assert host().vector_bytes in VECTORS


CHOSEN = """
from withlogits.kernels.cpu.target import host
import numpy as np, withlogits
x = np.linspace(-30, 30, 40 * 50, dtype="f").reshape(40, 50)
loss, g = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(labels=np.arange(40), logits=x)
print(host().cpu, host().vector_bytes, float(loss.sum()), float(abs(g).sum()))
"""


@pytest.mark.skipif("+avx2" not in host().features.split(",") and host().cpu != "haswell", reason="needs AVX2")
def test_a_target_can_be_chosen_by_name() -> None:
    chosen = run(CHOSEN, env=environment(WITHLOGITS_TARGET="haswell", WITHLOGITS_CACHE_DIR="")).split()
    own = run(CHOSEN, env=environment(WITHLOGITS_TARGET=None, WITHLOGITS_CACHE_DIR="")).split()
    assert chosen[:2] == ["haswell", "32"]
    assert float(chosen[2]) == pytest.approx(float(own[2]), rel=1e-6)
    assert float(chosen[3]) == pytest.approx(float(own[3]), rel=1e-6)


def test_an_unknown_target_is_refused() -> None:
    code = "from withlogits.kernels.cpu.target import host\ntry: host()\nexcept ValueError as error: print(error)"
    out = run(code, env=environment(WITHLOGITS_TARGET="pentium"))
    assert out.startswith("WITHLOGITS_TARGET='pentium' names no target; known are haswell, ")
    if host().architecture == "x86_64":
        out = run(code, env=environment(WITHLOGITS_TARGET="neon"))
        assert out == "WITHLOGITS_TARGET='neon' is a target for aarch64; this machine is x86_64\n"


ROOT = Path(__file__).resolve().parents[2]
ACCURACY = ("tests/test_accuracy.py", "tests/kernels/test_softmax_float32.py", "tests/kernels/test_sigmoid.py")


@pytest.mark.skipif(host().vector_bytes < 64, reason="this machine's own build has vectors of 256 bits or less")
@pytest.mark.parametrize("tests", ACCURACY)
def test_the_avx2_build_keeps_every_promise(tests: str) -> None:
    """The same tests in a process whose kernels are those of a machine without AVX-512."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not reference", tests]
    env = environment(WITHLOGITS_TARGET="haswell")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
