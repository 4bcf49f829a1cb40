"""The programs in examples/ run as they stand, in a time in which one would wait for them, and say what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def output_of(name: str, needs: str) -> str:
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    one_core = {**os.environ, "OMP_NUM_THREADS": "1", "WITHLOGITS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=120, env=one_core
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_with_torch() -> None:
    text = output_of("train_torch.py", needs="torch")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 5
    assert len({line.split(" loss ")[1].split()[0] for line in runs[:4]}) == 1
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 85.0 for line in runs)
    assert "agree to the last bit" in text
    assert ": rounding." in text
    assert "costs 4.122e-09; torch says 0.0" in text


def test_training_with_jax() -> None:
    text = output_of("train_jax.py", needs="optax")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 3
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 85.0 for line in runs)
    assert ": rounding." in text
    assert "costs 4.122e-09; optax says 0.0" in text


def test_training_with_tensorflow() -> None:
    text = output_of("train_tensorflow.py", needs="tensorflow")
    runs = [line for line in text.splitlines() if " accuracy " in line]
    assert len(runs) == 4
    assert all(float(line.split(" accuracy ")[1].split("%")[0]) > 80.0 for line in runs)
    assert ": rounding." in text
    assert "costs 4.122e-09; tf.nn says 0.0" in text


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
