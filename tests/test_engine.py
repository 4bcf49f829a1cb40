"""Which engine computes, how a person chooses and learns it, and what is said when the fast one cannot be had."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import withlogits
from processes import environment, run
from withlogits import engine
from withlogits.kernels.cpu import compiler

BLOCKED = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
CALL = """
import warnings
import numpy as np
import withlogits

def call():
    return withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
        labels=np.array([0]), logits=np.array([[1.0, 2.0]])
    )
"""


def blocked(*names: str) -> str:
    return BLOCKED.format(blocked=set(names))


@pytest.mark.parametrize(("wish", "name"), [("", "compiled"), ("compiled", "compiled"), ("reference", "reference")])
def test_the_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch, wish: str, name: str) -> None:
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv("WITHLOGITS_ENGINE", wish)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name == engine.select().NAME
    assert engine.select() is engine.select()


def test_an_unknown_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv("WITHLOGITS_ENGINE", "cuda")
    expected = "WITHLOGITS_ENGINE is 'cuda'; expected 'compiled' or 'reference'; unset it to choose by itself"
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{expected}$"):
            withlogits.softplus(1.0)


def test_without_llvmlite_the_reference_computes_and_it_is_said_once() -> None:
    out = run(
        blocked("llvmlite")
        + CALL
        + """
import threading
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = [call() for _ in range(3)]
    withlogits.softmax(np.zeros(3)), withlogits.sigmoid(0.0)
print(len(caught), caught[0].category.__name__)
print(caught[0].message)
print(results[0][0], results[0][1])
print(withlogits.engine.select().NAME)
""",
        env=environment(WITHLOGITS_ENGINE=None),
    )
    assert out.splitlines() == [
        "1 RuntimeWarning",
        (
            "withlogits computes with plain NumPy, many times slower than it could, since llvmlite cannot be found; "
            "install it with: pip install llvmlite"
        ),
        "[1.31326169] [[-0.73105858  0.73105858]]",
        "reference",
    ]


def test_the_reference_that_was_asked_for_is_no_news() -> None:
    code = blocked("llvmlite") + "import warnings; warnings.simplefilter('error')\n" + CALL + "print(call()[0])"
    assert run(code, env=environment(WITHLOGITS_ENGINE="reference")) == "[1.31326169]\n"


def test_llvmlite_that_was_asked_for_and_is_missing_is_an_error() -> None:
    code = (
        blocked("llvmlite")
        + CALL
        + """
try:
    call()
except ImportError as error:
    print(error)
"""
    )
    assert run(code, env=environment(WITHLOGITS_ENGINE="compiled")) == (
        "WITHLOGITS_ENGINE is 'compiled', but llvmlite cannot be found; install it with: pip install llvmlite\n"
    )


def test_settings_work_without_llvmlite() -> None:
    """They concern the compiled engine, but a program may set them wherever it runs."""
    code = blocked("llvmlite") + (
        "import withlogits\n"
        "withlogits.set_num_threads(2)\nwithlogits.set_recycling_limit(0)\nprint(withlogits.get_num_threads())\n"
        "print(withlogits.engine.describe())"
    )
    out = run(code, env=environment(WITHLOGITS_ENGINE=None)).splitlines()
    assert out == ["2", "{'engine': 'reference', 'threads': 2, 'why': 'llvmlite cannot be found'}"]


def test_describe_names_what_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv("WITHLOGITS_ENGINE", "compiled")
    monkeypatch.setenv("WITHLOGITS_CACHE_DIR", str(tmp_path))
    facts = engine.describe()
    assert list(facts) == [
        "engine", "threads", "llvmlite", "processor", "simd bits", "cache folder", "recycling limit",
    ]  # fmt: skip
    import llvmlite

    assert facts["llvmlite"] == llvmlite.__version__
    assert facts["engine"] == "compiled"
    assert facts["threads"] == withlogits.get_num_threads()
    assert facts["simd bits"] in (128, 256, 512)
    assert facts["processor"] == compiler.processor()[0]
    assert facts["cache folder"] == str(tmp_path)
    monkeypatch.setenv("WITHLOGITS_CACHE_DIR", "")
    assert engine.describe()["cache folder"] == "none: kernels are compiled anew in every process"


def test_describe_says_why_it_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv("WITHLOGITS_ENGINE", "reference")
    assert engine.describe() == {
        "engine": "reference",
        "threads": withlogits.get_num_threads(),
        "why": "WITHLOGITS_ENGINE=reference",
    }


BAD = [0, -1, 1.0, 2.5, "2", None, True, [2], np.float64(2.0)]


@pytest.mark.parametrize("given", BAD, ids=repr)
def test_what_is_no_number_of_threads(given: Any) -> None:
    before = withlogits.get_num_threads()
    with pytest.raises(ValueError, match=r"threads is .*; expected a whole number of at least 1$") as caught:
        withlogits.set_num_threads(given)
    assert repr(given) in str(caught.value)
    assert withlogits.get_num_threads() == before


@pytest.mark.parametrize("given", [-1, 0.0, "1", None, False, np.float32(1)], ids=repr)
def test_what_is_no_recycling_limit(given: Any) -> None:
    before = engine.describe()["recycling limit"]
    with pytest.raises(ValueError, match=r"nbytes is .*; expected a whole number of at least 0$") as caught:
        withlogits.set_recycling_limit(given)
    assert repr(given) in str(caught.value)
    assert engine.describe()["recycling limit"] == before


def test_settings_take_numpys_integers() -> None:
    before = withlogits.get_num_threads(), engine.describe()["recycling limit"]
    try:
        withlogits.set_num_threads(np.int64(3))
        assert withlogits.get_num_threads() == 3
        assert type(withlogits.get_num_threads()) is int
        withlogits.set_recycling_limit(np.uint32(1 << 21))
        assert engine.describe()["recycling limit"] == 1 << 21
    finally:
        withlogits.set_num_threads(before[0])
        withlogits.set_recycling_limit(before[1])


@pytest.mark.parametrize("given", ["1", "7"])
def test_the_threads_of_the_environment(given: str) -> None:
    code = "import withlogits\nprint(withlogits.get_num_threads())"
    assert run(code, env=environment(WITHLOGITS_NUM_THREADS=given)) == f"{given}\n"
    more = "import withlogits\nwithlogits.set_num_threads(3)\nprint(withlogits.get_num_threads())"
    assert run(more, env=environment(WITHLOGITS_NUM_THREADS=given)) == "3\n"
