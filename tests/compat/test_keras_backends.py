"""The tests of Keras's signatures on the backends that the other tests do not run on, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from withlogits.frameworks import SERVED

HERE = Path(__file__).resolve().parent
# Keras's backends, and the framework whose tensors each has.
BACKENDS = {"numpy": None, "torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend(backend: str) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    if backend == os.environ["KERAS_BACKEND"]:
        pytest.skip(f"test_keras.py runs on {backend} in this process")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if BACKENDS[backend] not in SERVED | {None}:
        pytest.skip(f"withlogits does not serve arrays of {BACKENDS[backend]} yet")
    tests = [str(HERE / "test_keras.py")]
    if backend == "tensorflow":
        tests.append(str(HERE.parent / "frameworks" / "test_tensorflow_graphs.py::test_keras_fit"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *tests],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=HERE.parent.parent,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stdout[-20_000:]
