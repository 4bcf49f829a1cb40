"""The tests of Keras's signatures on the backends that the other tests do not run on, each in a process of its own.

There all combinations of parameters are tested, here each value of each parameter.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}  # most of JAX's time is compilation
BACKENDS = ("numpy", "torch", "jax", "tensorflow")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend(backend: str) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    if backend == os.environ["KERAS_BACKEND"]:
        pytest.skip(f"test_keras.py runs on {backend} in this process")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    tests = [str(HERE / "test_keras.py")]
    if backend == "jax":  # which compiles each operation: the rules of shapes and files are tested elsewhere
        tests += ["-k", "not (axis or axes or class_numbers or functional_model or serialis)"]
    if backend == "tensorflow":
        tests.append(str(HERE.parent / "frameworks" / "test_tensorflow_graphs.py::test_keras_fit"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--each-once", *tests],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=HERE.parent.parent,
        env={**os.environ, **QUICK, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 0, done.stdout[-20_000:]
