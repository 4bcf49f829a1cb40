"""PyTorch tensors, end to end through autograd: withlogits beside `torch.nn.functional`, eager and compiled.

    python -m benchmarks pytorch [--quick] [--rounds N] [--budget S] [--output DIR]

Every contestant gets the same tensors. "loss + backward" is the loss and `torch.autograd.grad` of it, with all that is
allocated on the way; for reduction "none" the upstream gradient is a vector of random weights. Every result is compared
with torch's in float64 before it is timed. Writes pytorch.json and pytorch.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.markdown import Markdown

import withlogits as wl

from . import PARTIAL, RESULTS, bandwidth, machine
from .timing import alternate

SHAPES = ((32, 10), (65_536, 10), (4096, 1000), (512, 128_256), (2048, 32_000))
QUICK_SHAPES = SHAPES[:3]
DTYPES = (torch.float32, torch.bfloat16)
REDUCTIONS = ("mean", "none")
OURS = "withlogits"

Loss = Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor]
LOSSES: dict[str, dict[str, Loss]] = {
    "sparse": {
        OURS: lambda x, y, r: wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction=r),
        "torch": lambda x, y, r: F.cross_entropy(x, y, reduction=r),
    },
    "sigmoid": {
        OURS: lambda x, z, r: wl.sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction=r),
        "torch": lambda x, z, r: F.binary_cross_entropy_with_logits(x, z, reduction=r),
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pytorch", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the three smaller shapes")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each case")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results, or build/benchmarks")
    options = parser.parse_args(arguments)
    threads = machine.limit_cores(None)
    torch.set_num_threads(threads)
    rates = bandwidth.measure(threads)
    cases = []
    for shape in QUICK_SHAPES if options.quick else SHAPES:
        for what in LOSSES:
            for dtype in DTYPES:
                for reduction in REDUCTIONS:
                    for backward in (False, True):
                        case = measure(what, shape, dtype, reduction, backward, options.rounds, options.budget)
                        cases.append(case)
                        print(_line(case), file=sys.stderr)
    result = {"machine": machine.describe(threads), "bandwidth_gb_s": rates, "cases": cases}
    output = options.output or (PARTIAL if options.quick else RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    (output / "pytorch.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / "pytorch.md").write_text(markdown(result))
    Console().print(Markdown(markdown(result)))
    print(f"written to {output}")
    return 0


def measure(
    what: str, shape: tuple[int, int], dtype: torch.dtype, reduction: str, backward: bool, rounds: int, budget: float
) -> dict[str, Any]:
    """One row of the table: the milliseconds of each contestant."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(shape, generator=generator) * 3).to(dtype).requires_grad_(backward)
    if what == "sparse":
        labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    else:
        labels = torch.rand(shape, generator=generator).to(dtype)
    losses = dict(LOSSES[what])
    absent = {}
    if shutil.which("g++") or shutil.which("clang++"):
        torch.compiler.reset()
        losses["torch.compile"] = torch.compile(losses["torch"], dynamic=False)
    else:
        absent["torch.compile"] = "needs a C++ compiler, and there is none"
    upstream = None
    if reduction == "none":
        upstream = torch.rand(shape[:1] if what == "sparse" else shape, generator=generator) + 0.5
    calls = {name: _call(loss, logits, labels, reduction, backward, upstream) for name, loss in losses.items()}
    exact = labels if what == "sparse" else labels.double()
    wide = logits.detach().double().requires_grad_(backward)
    truth = _call(
        LOSSES[what]["torch"], wide, exact, reduction, backward, None if upstream is None else upstream.double()
    )()
    for name, call in calls.items():
        for got, right in zip(call(), truth, strict=True):
            ours, single = name == OURS, got.dtype == torch.float32
            rtol = 1e-4 if single and (ours or dtype == torch.float32) else 1e-2 if ours else 5e-2
            torch.testing.assert_close(got.double(), right, rtol=rtol, atol=1e-6 if ours else 5e-2)
    times = alternate(calls, rounds, budget)
    return {
        "loss": what,
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "reduction": reduction,
        "backward": backward,
        "times": {name: t.as_json() for name, t in times.items()},
        "absent": absent,
    }


def _call(
    loss: Loss,
    logits: torch.Tensor,
    labels: torch.Tensor,
    reduction: str,
    backward: bool,
    upstream: torch.Tensor | None,
) -> Callable[[], tuple[torch.Tensor, ...]]:
    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return (loss(logits, labels, reduction),)

    def step() -> tuple[torch.Tensor, ...]:
        value = loss(logits, labels, reduction)
        given = upstream if upstream is None else upstream.to(value.dtype)
        return value.detach(), *torch.autograd.grad(value, logits, given)

    return step if backward else forward


def _line(case: dict[str, Any]) -> str:
    times = {name: t["median_ms"] for name, t in case["times"].items()}
    ratios = ", ".join(f"{name} {ms:.3f} ms ({ms / times[OURS]:.2f}×)" for name, ms in times.items())
    return f"{case['loss']} {case['shape']} {case['dtype']} {case['reduction']} backward={case['backward']}: {ratios}"


def markdown(result: dict[str, Any]) -> str:
    """Milliseconds of withlogits, and how many times as long each other takes."""
    rates = ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in result["bandwidth_gb_s"].items())
    names = ["torch", "torch.compile"]
    lines = [
        f"{machine.as_markdown(result['machine'])} Memory: {rates}.",
        "",
        "Medians; a ratio above 1 says how many times as long the other one takes.",
        "",
        "| loss | shape | dtype | reduction | what | withlogits | " + " | ".join(f"{n} takes" for n in names) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(names),
    ]
    for case in result["cases"]:
        times = {name: t["median_ms"] for name, t in case["times"].items()}
        ratios = [f"{times[n] / times[OURS]:.2f}×" if n in times else "–" for n in names]
        shape = " × ".join(f"{n:,}" for n in case["shape"])
        what = "loss + backward" if case["backward"] else "loss"
        lines.append(
            f"| {case['loss']} | {shape} | {case['dtype']} | {case['reduction']} | {what} | {times[OURS]:.3f} ms | "
            + " | ".join(ratios)
            + " |"
        )
    reasons = dict.fromkeys((name, why) for case in result["cases"] for name, why in case["absent"].items())
    if reasons:
        lines += ["", *(f"- Absent (–): **{name}** {why}." for name, why in reasons)]
    return "\n".join(lines) + "\n"
