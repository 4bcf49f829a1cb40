"""PyTorch tensors in other processes and threads: data loaders that fork, distributed training, many at once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import withlogits
from processes import environment, run

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from frameworks.torch_cases import CASES, FEW, Case, assert_ulps, differentiated  # noqa: E402

TESTS = str(Path(__file__).parents[1])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")


def run_with_cases(code: str, *arguments: str, **changes: str) -> str:
    """In a process that finds the modules of these tests."""
    env = environment(**changes)
    env["PYTHONPATH"] = os.pathsep.join((TESTS, env["PYTHONPATH"]))
    return run(code, *arguments, env=env)


# --------------------------------------------------------------------------------------------------------- the import


def test_torch_is_loaded_by_nobody_but_the_caller() -> None:
    """Nor is its front end by NumPy arrays; a tensor loads it, and no compiler of torch."""
    out = run(
        """
        import sys
        import numpy, withlogits
        loss = withlogits.sparse_softmax_cross_entropy_with_logits
        assert "torch" not in sys.modules
        loss(labels=[0], logits=[[0.0, 1.0]])
        assert "torch" not in sys.modules
        import torch
        loss(labels=numpy.array([0]), logits=numpy.zeros((1, 2)))
        assert "withlogits.frameworks.torch" not in sys.modules
        loss(labels=torch.tensor([0]), logits=torch.zeros(1, 2, requires_grad=True)).sum().backward()
        assert "withlogits.frameworks.torch" in sys.modules
        print("torch._inductor" in sys.modules, "triton" in sys.modules)
        """
    )
    assert out == "False False\n"


def test_the_first_call_of_all_may_be_one_that_is_compiled() -> None:
    out = run(
        """
        import torch, withlogits

        @torch.compile(fullgraph=True, backend="aot_eager")
        def step(x, y):
            return withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction="mean")

        x = torch.zeros(2, 4, requires_grad=True)
        step(x, torch.tensor([0, 1])).backward()
        print(x.grad[0].tolist())
        """
    )
    assert out == "[-0.375, 0.125, 0.125, 0.125]\n"


def test_without_llvmlite_the_formulas_compute(tmp_path: Any) -> None:
    """WITHLOGITS_ENGINE=reference: every case, with its gradients, is that of the kernels; llvmlite is not loaded."""
    code = """
        import sys
        import numpy as np, torch
        from frameworks.torch_cases import CASES, differentiated
        kept = {}
        for case in CASES:
            for dtype in ("float32", "float64"):
                for i, t in enumerate(differentiated(case, *case.tensors(dtype, grad=True))):
                    kept[f"{case}|{dtype}|{i}"] = t.numpy()
        np.savez(sys.argv[1], **kept)
        print("llvmlite" in sys.modules)
    """
    assert run_with_cases(code, str(tmp_path / "kept.npz"), WITHLOGITS_ENGINE="reference") == "False\n"
    with np.load(tmp_path / "kept.npz") as kept:
        for case in CASES:
            for dtype in ("float32", "float64"):
                for i, t in enumerate(differentiated(case, *case.tensors(dtype, grad=True))):
                    assert_ulps(t, kept[f"{case}|{dtype}|{i}"], 10, f"{case}")


# ------------------------------------------------------------------------------------------------------------ threads


def test_many_threads_at_once() -> None:
    """Forward and backward, of large tensors whose memory is used again, of the same kinds and of different ones."""
    cases = [
        Case("sparse", "", {"reduction": "mean"}, (20_000, 20)),
        Case("softmax", "", {"label_smoothing": 0.1, "reduction": "sum"}, (20_000, 20)),
        Case("sigmoid", "", {}, (20_000, 20)),
        Case("sparse", "", {"z_loss": 0.1}, (50, 7)),
    ]
    given = [case.tensors(np.float32) for case in cases]

    def compute(i: int) -> list[Any]:
        labels, logits = given[i % len(cases)]
        return differentiated(cases[i % len(cases)], labels, logits.detach().requires_grad_())

    expected = [compute(i) for i in range(len(cases))]
    gate, failures = threading.Barrier(8), []

    def work(me: int) -> None:
        try:
            gate.wait()
            for i in range(me, me + 12):
                for got, other in zip(compute(i), expected[i % len(cases)], strict=True):
                    assert torch.equal(got, other)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_backward_in_another_thread_than_forward() -> None:
    labels, logits = FEW[0].tensors(grad=True)
    expected = differentiated(FEW[0], labels, logits)[1]
    value = FEW[0](labels, logits)
    thread = threading.Thread(target=lambda: value.sum().backward())
    thread.start()
    thread.join()
    assert torch.equal(logits.grad, expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_any_number_of_threads(threads: int) -> None:
    before = withlogits.get_num_threads()
    cases = [Case(loss, "", {"reduction": "mean"}, (3000, 200)) for loss in ("sparse", "softmax", "sigmoid")]
    expected = [differentiated(case, *case.tensors(np.float32, grad=True)) for case in cases]
    try:
        withlogits.set_num_threads(threads)
        for case, values in zip(cases, expected, strict=True):
            for got, other in zip(differentiated(case, *case.tensors(np.float32, grad=True)), values, strict=True):
                assert torch.equal(got, other)
    finally:
        withlogits.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------ other processes


@needs_fork
def test_workers_of_a_data_loader_compute_losses() -> None:
    """Forked after the parent has computed with its threads; large enough for the pool in both."""
    out = run(
        """
        import torch, withlogits
        from torch.utils.data import DataLoader, Dataset

        both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
        withlogits.set_num_threads(2)
        x = torch.linspace(-4, 4, 4_000_000).view(4, 1000, 1000)
        y = torch.arange(1000)

        class Losses(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, i):
                logits = x[i].clone().requires_grad_()
                loss = withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits, reduction="mean")
                loss.backward()
                return loss.detach(), logits.grad

        here = [Losses()[i] for i in range(4)]
        loader = DataLoader(Losses(), batch_size=None, num_workers=2, multiprocessing_context="fork")
        for (loss, gradient), (other, expected) in zip(loader, here):
            assert torch.equal(loss, other) and torch.equal(gradient, expected)
        again = Losses()[3]  # the parent's threads are still there
        assert torch.equal(again[1], here[3][1])
        print("done")
        """,
    )
    assert out == "done\n"


RANK = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import withlogits

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
torch.manual_seed(0)
layer = torch.nn.Linear(8, 5, dtype=torch.float64)
x, y = torch.randn(64, 8, dtype=torch.float64), torch.randint(0, 5, (64,))
loss = lambda x, y: withlogits.sparse_softmax_cross_entropy_with_logits(
    labels=y, logits=x, label_smoothing=0.1, reduction="mean"
)
alone = torch.nn.Linear(8, 5, dtype=torch.float64)
alone.load_state_dict(layer.state_dict())
model = DistributedDataParallel(layer)
for _ in range(3):
    for module, part in ((model, slice(rank, None, 2)), (alone, slice(None))):
        module.zero_grad()
        loss(module(x[part]), y[part]).backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= 0.5 * p.grad
for p, q in zip(model.parameters(), alone.parameters()):
    torch.testing.assert_close(p, q)
dist.barrier()
dist.destroy_process_group()
print("done")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch is not distributed")
@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets in a file whose name starts with a drive there")
def test_two_processes_train_one_model(tmp_path: Any) -> None:
    """Each on half of the rows, gradients averaged: the model that one process trains on all."""
    results: list[str] = []

    def rank(i: int) -> None:
        try:
            results.append(run(RANK, str(i), str(tmp_path / "meeting"), env=environment(GLOO_SOCKET_IFNAME="lo")))
        except AssertionError as error:
            results.append(str(error))

    ranks = [threading.Thread(target=rank, args=(i,)) for i in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert results == ["done\n", "done\n"]


@needs_fork
def test_a_child_after_a_call_computes_and_ends() -> None:
    """With our threads; torch's own hang in a forked child unless it has one alone, as in a data loader's worker."""
    out = run(
        """
        import os
        import torch, withlogits

        withlogits.set_num_threads(2)
        x = torch.linspace(-4, 4, 2_000_000).view(2000, 1000)
        y = torch.arange(2000) % 1000

        def gradient():
            logits = x.clone().requires_grad_()
            withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits, reduction="sum").backward()
            return logits.grad

        expected = gradient()
        kept = gradient()
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                torch.set_num_threads(1)
                same = torch.equal(gradient(), expected) and torch.equal(kept, expected)
                os._exit(0 if same else 1)
            children.append(child)
        assert torch.equal(gradient(), expected)
        print([os.waitpid(child, 0)[1] for child in children])
        """
    )
    assert out == "[0, 0, 0]\n"
