"""The patch puts our functions where torch's own modules find them, and takes nothing else away."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import withlogits.compat.torch as ours  # noqa: E402

F = torch.nn.functional
THEIRS = {name: getattr(F, name) for name in ("cross_entropy", "binary_cross_entropy_with_logits")}
X, Y, Z = torch.tensor([[20.0, 0.0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0]])


def in_force() -> bool:
    """Whether ours are in place; both or none."""
    present = {name: getattr(F, name) for name in THEIRS}
    assert present in (THEIRS, {name: getattr(ours, name) for name in THEIRS})
    return present != THEIRS


@pytest.fixture(autouse=True)
def _torchs_own_before_and_after() -> Any:
    assert not in_force()
    yield
    assert not in_force()


def test_the_import_patches_nothing() -> None:
    code = (
        "import torch.nn.functional as F; before = F.cross_entropy, F.binary_cross_entropy_with_logits\n"
        "import withlogits.compat.torch, withlogits.torch\n"
        "assert before == (F.cross_entropy, F.binary_cross_entropy_with_logits)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_functions_and_modules_compute_by_ours_while_it_lasts() -> None:
    class_of_before = torch.nn.CrossEntropyLoss
    before = torch.nn.CrossEntropyLoss()
    with ours.patch():
        assert in_force()
        assert F.cross_entropy(X, Y) > 0.0
        assert before(X, Y) > 0.0
        assert torch.nn.CrossEntropyLoss()(X, Y) > 0.0
        assert torch.nn.BCEWithLogitsLoss()(-X[:, :1], Z[:, 1:]) > 0.0
        assert torch.nn.CrossEntropyLoss is class_of_before
        assert ours.CrossEntropyLoss()(X, Y) > 0.0
    assert before(X, Y) == 0.0


def test_errors_under_the_patch_are_torchs() -> None:
    with ours.patch(), pytest.raises(IndexError, match="Target 7 is out of bounds"):
        torch.nn.CrossEntropyLoss()(X, Y + 7)


def test_it_is_undone_by_a_call_and_once() -> None:
    undo = ours.patch()
    assert in_force()
    undo()
    assert not in_force()
    with ours.patch():
        undo()
        assert in_force()


def test_an_error_inside_undoes_it() -> None:
    with pytest.raises(KeyError), ours.patch():
        raise KeyError


def test_patches_nest_in_any_order() -> None:
    with ours.patch():
        with ours.patch():
            assert in_force()
        assert in_force()
    first, second = ours.patch(), ours.patch()
    first()
    assert in_force()
    second()
    assert not in_force()


def test_a_patch_of_somebody_else_stays_theirs() -> None:
    def other(*args: Any, **kwargs: Any) -> str:
        return "other"

    undo = ours.patch()
    F.cross_entropy = other
    try:
        undo()
        assert F.cross_entropy is other
        assert F.binary_cross_entropy_with_logits is THEIRS["binary_cross_entropy_with_logits"]
        with ours.patch():
            assert F.cross_entropy is ours.cross_entropy
        assert F.cross_entropy is other
    finally:
        F.cross_entropy = THEIRS["cross_entropy"]


def test_threads_may_patch_at_once() -> None:
    wrong = []

    def work() -> None:
        for _ in range(200):
            with ours.patch():
                if F.cross_entropy is not ours.cross_entropy:
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_compiled_under_the_patch_computes_by_ours() -> None:
    torch._dynamo.reset()
    module = torch.nn.CrossEntropyLoss()
    with ours.patch():
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert compiled(X, Y) > 0.0
