"""Fixtures that all tests share."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import signal
import sys
from types import ModuleType

import pytest

import withlogits.engine
from withlogits.frameworks import numpy

# Loaded after TensorFlow, by torch for instance, Triton would call functions of TensorFlow's, and crash.
with contextlib.suppress(ImportError):
    importlib.import_module("triton")

# The files that take longest. They come first, so that no process is left alone with one at the end.
LONGEST = (
    "compat/test_keras_backends.py",
    "frameworks/test_torch_transforms.py",
    "kernels/cuda/test_softmax.py",
    "frameworks/test_torch_values.py",
    "frameworks/test_every.py",
    "compat/test_optax.py",
    "frameworks/test_jax.py",
    "guide/test_any_arrays.py",
    "guide/test_corpus.py",
    "frameworks/test_torch_autograd.py",
    "frameworks/test_tensorflow.py",
    "frameworks/test_tensorflow_graphs.py",
    "statistics/test_kernels.py",
    "test_accuracy.py",
    "test_class_offset.py",
    "test_benchmarks.py",
    "kernels/test_pool.py",
    "kernels/test_softmax.py",
    "frameworks/test_torch_processes.py",
    "test_cli_edges.py",
    "evaluation/test_report.py",
    "compat/test_torch.py",
    "frameworks/test_torch_onnx.py",
    "kernels/cuda/test_compiled.py",
)
ENGINES = {"reference": "withlogits.reference", "compiled": "withlogits.kernels.cpu"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--each-once", action="store_true", help="of a test's cases, those that bring a new value")


def pytest_configure() -> None:
    """A shell starts what it runs in the background with interrupts ignored, and our children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--each-once"):
        kept = each_once(items)
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept
    places = {f"tests/{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def each_once(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the cases in which a parameter of a test has a value that it had in no case before."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for item in items:
        test, params = item.nodeid.partition("[")[0], item.callspec.params if hasattr(item, "callspec") else {}
        values = {(test, name, repr(value)) for name, value in params.items()}
        if not values or values - seen:
            kept.append(item)
        seen |= values
    return kept


def pytest_collection_finish() -> None:
    """Tests and what they import live to the end: to look through them at each collection takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def torch_begins_with_the_same_numbers() -> None:
    """What a test draws does not hang on the tests before it; hypothesis sees to NumPy."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Each engine in turn, which the public functions then use too."""
    if request.param == "compiled" and importlib.util.find_spec("llvmlite") is None:
        pytest.skip("withlogits.kernels.cpu cannot be imported: there is no llvmlite")
    module = importlib.import_module(ENGINES[request.param])
    monkeypatch.setattr(withlogits.engine, "select", lambda: module)
    monkeypatch.setattr(numpy, "_calls", {})  # planned by the other engine
    monkeypatch.setattr(numpy, "_maps", {})
    return module
