"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

import withlogits.engine

ENGINES = {"reference": "withlogits.reference", "numba": "withlogits.kernels.cpu"}


def pytest_collection_finish() -> None:
    """Tests and what they import live to the end: to look through them at each collection takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Each engine in turn, which the public functions then use too."""
    if request.param == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("withlogits.kernels.cpu cannot be imported: there is no Numba")
    module = importlib.import_module(ENGINES[request.param])
    monkeypatch.setattr(withlogits.engine, "select", lambda: module)
    return module
