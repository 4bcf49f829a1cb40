"""`import withlogits` brings in NumPy and nothing heavy; the rest comes at first need."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys

import pytest

HEAVY = ("llvmlite", "triton", "torch", "jax", "jaxlib", "tensorflow", "ml_dtypes", "scipy", "typer", "rich")
PROBE = """
import sys
{before}
import withlogits
loaded = sorted(name for name in {heavy!r} if name in sys.modules)
assert not loaded, loaded
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_import_is_light() -> None:
    result = python(PROBE.format(before="", heavy=HEAVY))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["ml_dtypes", "llvmlite"])
def test_this_test_can_fail(name: str) -> None:
    pytest.importorskip(name)
    result = python(PROBE.format(before=f"import {name}", heavy=HEAVY))
    assert result.returncode == 1
    assert f"'{name}'" in result.stderr


def test_who_computes_losses_does_not_wait_for_the_guide() -> None:
    result = python(
        "import sys, numpy, withlogits\n"
        "withlogits.sparse_softmax_cross_entropy_with_logits(labels=numpy.array([0]), logits=numpy.zeros((1, 3)))\n"
        "assert not [name for name in sys.modules if name.startswith(('withlogits.guide', 'withlogits.evaluation'))]\n"
        "print(withlogits.diagnose.__name__, withlogits.Meter.__name__, 'evaluate' in dir(withlogits))"
    )
    assert result.stdout == "diagnose Meter True\n", result.stderr


def test_what_is_not_there() -> None:
    import withlogits

    with pytest.raises(AttributeError, match=r"^module 'withlogits' has no attribute 'hinge'$"):
        _ = withlogits.hinge  # type: ignore[attr-defined]


def test_losses_of_numpy_arrays_load_no_framework() -> None:
    frameworks = ("torch", "jax", "jaxlib", "tensorflow", "keras")
    result = python(
        "import sys, numpy, withlogits\n"
        "withlogits.sparse_softmax_cross_entropy_with_logits(labels=numpy.array([0]), logits=numpy.zeros((1, 3)))\n"
        f"assert not [name for name in {frameworks!r} if name in sys.modules]"
    )
    assert result.returncode == 0, result.stderr


def test_the_reference_engine_needs_no_llvmlite() -> None:
    result = python(
        "import os, sys; os.environ['WITHLOGITS_ENGINE'] = 'reference'\n"
        "import numpy, withlogits\n"
        "both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)\n"
        "print(both(labels=numpy.array([0]), logits=numpy.zeros((1, 2)))[1].tolist())\n"
        "assert 'llvmlite' not in sys.modules"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[[-0.5, 0.5]]\n"


def test_bfloat16_is_known_when_its_package_comes_later() -> None:
    pytest.importorskip("ml_dtypes")
    result = python(
        "import os; os.environ['WITHLOGITS_ENGINE'] = 'reference'\n"
        "import numpy, withlogits, ml_dtypes\n"
        "x = numpy.zeros((1, 2), ml_dtypes.bfloat16)\n"
        "print(withlogits.softmax_cross_entropy_with_logits(labels=x, logits=x).dtype, withlogits.softmax(x).dtype)"
    )
    assert result.stdout == "float32 bfloat16\n", result.stderr


def test_the_import_loads_little_more_than_numpy() -> None:
    """The time that it takes is for benchmarks/startup.py to say; this is what it takes the time for."""
    result = python(
        "import __future__, sys, numpy, numpy.typing, copy, dataclasses, importlib.util\n"
        "before = set(sys.modules)\n"
        "import withlogits\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = result.stdout.split()
    assert [name for name in loaded if name.partition(".")[0] != "withlogits"] == []
    assert len(loaded) <= 12, loaded


def test_the_public_names_are_the_announced_ones() -> None:
    import withlogits

    assert sorted(withlogits.__all__) == sorted(
        [
            "Diagnosis",
            "DiagnosisError",
            "Evaluation",
            "Finding",
            "GuideWarning",
            "Meter",
            "Performance",
            "Recommendation",
            "__version__",
            "checked",
            "diagnose",
            "evaluate",
            "recommend",
            "get_num_threads",
            "log_sigmoid",
            "log_softmax",
            "logit",
            "logsumexp",
            "set_num_threads",
            "set_recycling_limit",
            "sigmoid",
            "sigmoid_cross_entropy_with_logits",
            "softmax",
            "softmax_cross_entropy_with_logits",
            "softplus",
            "sparse_softmax_cross_entropy_with_logits",
            "value_and_grad",
            "weighted_cross_entropy_with_logits",
        ]
    )
    for name in withlogits.__all__:
        assert getattr(withlogits, name) is not None


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [
        ("withlogits.torch", "PyTorch", "torch"),
        ("withlogits.compat.torch", "PyTorch", "torch"),
        ("withlogits.compat.optax", "JAX", "jax"),
    ],
)
def test_a_module_says_which_library_it_needs(module: str, library: str, package: str) -> None:
    result = python(f"import sys; sys.modules[{package!r}] = None; import {module}")
    text = f"{module} needs {library}, which is not installed: pip install {package}"
    assert result.stderr.rstrip().endswith(f"ModuleNotFoundError: {text}")


@pytest.mark.parametrize("order", [*itertools.permutations(("torch", "jax", "tensorflow"))], ids="-".join)
def test_frameworks_come_in_any_order(order: tuple[str, ...]) -> None:
    """Each is imported, and gets a loss, before the next; at last Triton's kernels come."""
    for name in order:
        pytest.importorskip(name, reason=f"{name} is not installed")
    arrays = {
        "torch": "torch.tensor([0]), torch.tensor([[20.0, 0.0, 0.0]])",
        "jax": "jax.numpy.array([0]), jax.numpy.array([[20.0, 0.0, 0.0]])",
        "tensorflow": "tensorflow.constant([0]), tensorflow.constant([[20.0, 0.0, 0.0]])",
    }
    lines = ["import withlogits", "sparse = withlogits.sparse_softmax_cross_entropy_with_logits"]
    for name in order:
        lines += [f"import {name}", f"y, x = {arrays[name]}", "print(round(float(sparse(labels=y, logits=x)[0]), 12))"]
    if importlib.util.find_spec("triton") is not None:
        lines.append("import withlogits.kernels.cuda")
    result = python("\n".join(lines))
    assert (result.returncode, result.stdout) == (0, "4.122e-09\n" * 3), result.stderr
