"""The programs in examples/ run as they stand, in a time in which one would wait for them, and say what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def output_of(name: str, *needs: str, **settings: str) -> str:
    for each in needs:
        pytest.importorskip(each, reason=f"{each} is not installed")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WITHLOGITS_NUM_THREADS": "1", **settings}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_with_torch() -> None:
    text = output_of("train_torch.py", "torch")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 5
    assert len({line.split(" loss ")[1].split()[0] for line in runs[:4]}) == 1
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 85.0 for line in runs)
    assert "agree to the last bit" in text
    assert ": rounding." in text
    assert "costs 4.122e-09; torch says 0.0" in text


def test_training_with_jax() -> None:
    text = output_of("train_jax.py", "optax")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 3
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 85.0 for line in runs)
    assert ": rounding." in text
    assert "costs 4.122e-09; optax says 0.0" in text


def test_training_with_tensorflow() -> None:
    text = output_of("train_tensorflow.py", "tensorflow")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 4
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 80.0 for line in runs)
    assert ": rounding." in text
    assert "costs 4.122e-09; tf.nn says 0.0" in text


def test_training_with_keras() -> None:
    text = output_of("train_keras.py", "keras", "torch", KERAS_BACKEND="torch")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 4
    assert all(line.endswith("agree") for line in runs)
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 80.0 for line in runs)
    assert "A saved and loaded loss: BinaryCrossentropy(name=" in text
    assert "costs 4.122e-09; Keras says 0.0" in text


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
