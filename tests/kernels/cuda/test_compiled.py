"""The kernels compile for real GPUs, which needs none: the interpreter would run what the compiler refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

# Stands in for the driver of a GPU: kernels are compiled as for a call, and not called. Of each it prints the loads and
# stores of more than one element, all loads and stores, and what tells it from others.
SCRIPT = """
import json, re, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Driver:
    target = 90
    get_current_target = lambda self: GPUTarget("cuda", self.target, 32)
    get_current_device = lambda self: self.target  # what is compiled is kept for each device
    get_current_stream = lambda self, device: 0

driver.set_active(Driver())
call, found = JITFunction.run, []

def compiled(self, *arguments, grid, warmup, **options):
    kernel = call(self, *arguments, grid=grid, warmup=True, **options)
    ptx = kernel.asm["ptx"]
    assert len(kernel.asm["cubin"]) > 1000 and f".target sm_{Driver.target}" in ptx
    long = re.findall(r"(?:ld|st)\\.global[\\w.:]*\\.v[48]\\.", ptx)
    found.append([len(long), len(re.findall("(?:ld|st).global", ptx)), kernel.hash])

JITFunction.run = compiled
from withlogits.kernels import cuda

from withlogits.options import SigmoidOptions, SoftmaxOptions

def softmax(shape, dtype, z=None, w=None, s=None, o=None, **more):
    x = torch.empty(shape, dtype=dtype)
    sparse = z is None
    z = torch.empty((shape[0], shape[2]), dtype=torch.int64) if sparse else torch.empty(shape, dtype=z)
    row = torch.empty((1, 1)).expand(shape[0], shape[2])
    loss, stats = torch.empty(row.shape), torch.empty((2, *row.shape))
    w, s, o = (torch.empty(shape[1]) if w else None), (row if s else None), (torch.empty(shape[1]) if o else None)
    given = SoftmaxOptions(axis=1, sparse=sparse, **more), cuda.Inputs(x, z, (w, s, o))
    cuda.softmax_forward(*given, loss, stats)
    cuda.softmax_backward(*given, row, stats, torch.empty_like(x), None if sparse else torch.empty_like(z))

bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32

def offsets():
    softmax((64, 32000, 1), bf16, o=True)
    softmax((64, 10, 1), fp32, o=True, temperature=2.0)
    softmax((64, 50257, 1), fp16, w=True, s=True, o=True, label_smoothing=0.1, ignore_index=-100, softcap=30.0,
            z_loss=1e-4)
    softmax((4, 100, 64), fp32, z=fp32, o=True)

def losses():
    softmax((64, 32000, 1), bf16, ignore_index=-100)
    softmax((64, 1000, 1), fp32)
    softmax((64, 10, 1), fp32, label_smoothing=0.1)
    softmax((64, 40, 1), bf16, s=True, temperature=2.0)
    softmax((64, 40, 1), fp32, w=True, s=True, label_smoothing=0.1)
    softmax((64, 50257, 1), fp16, w=True, s=True, label_smoothing=0.1, ignore_index=2**64 - 1, temperature=2.0,
            softcap=30.0, z_loss=1e-4)
    softmax((4, 100, 64), bf16, z=fp32, softcap=30.0)
    x = torch.empty((64, 100))
    q = torch.empty(100).expand(64, 100)
    cuda.sigmoid_forward(SigmoidOptions(0.1, -1), cuda.Inputs(x.to(bf16), x > 0, (q, x)), x)
    cuda.sigmoid_backward(SigmoidOptions(0.1, -1), cuda.Inputs(x, x.double(), (q, x)), x, x, x)

def transposed():
    for rows in (64, 63):
        x = torch.empty((100, rows)).t().unsqueeze(-1)
        z = torch.empty((100, rows)).t().unsqueeze(-1)
        u = torch.empty((rows, 1))
        for part in (slice(None), slice(1, None)):
            given = SoftmaxOptions(axis=1, sparse=False), cuda.Inputs(x[part], z[part], (None, None, None))
            stats = torch.empty((2, *u[part].shape))
            cuda.softmax_forward(*given, u[part], stats)
            cuda.softmax_backward(*given, u[part], stats, x[part], z[part])

def older():
    Driver.target = 80
    softmax((64, 5000, 1), fp32, z=fp32, temperature=2.0)

every = {}
for calls in (losses, offsets, transposed, older):
    found = every[calls.__name__] = []
    calls()
print(json.dumps(every))
"""


@pytest.fixture(scope="module")
def loads_and_stores(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of each kernel that a group of calls compiles; one process for all, since torch and Triton take long to load."""
    source = Path(__file__).resolve().parents[3] / "src"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_for_the_gpus_of_today(loads_and_stores: Any) -> None:
    """And that a row's logits are loaded 16 bytes at a time where rows begin at such places, at C = 1000 too."""
    found = loads_and_stores["losses"]
    assert len(found) == 16
    for long, every, _ in found[:4]:
        assert long * 4 > every - 8, found


def test_class_offsets(loads_and_stores: Any) -> None:
    """And that they leave the loads of logits 16 bytes long."""
    found = loads_and_stores["offsets"]
    assert len(found) == 8
    for long, every, _ in found[:2]:
        assert long * 4 > every - 8, found


def test_a_transposed_matrix_has_one_kernel_for_every_number_of_rows(loads_and_stores: Any) -> None:
    """Else a row's bits might depend on its batch."""
    found = loads_and_stores["transposed"]
    assert len(found) == 8
    assert len({kernel for _, _, kernel in found[::2]}) == len({kernel for _, _, kernel in found[1::2]}) == 1


def test_for_older_ones(loads_and_stores: Any) -> None:
    assert len(loads_and_stores["older"]) == 2
