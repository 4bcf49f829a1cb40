"""Where the time of a small loss on PyTorch tensors goes: sparse, mean, 32 × 10, float32.

    python -m benchmarks.pytorch_parts [--rounds N] [--budget S] [--output DIR]

Each line is timed with all that lies inside of it, in turns with the others. Writes pytorch_parts.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import withlogits as wl
from withlogits.compat import torch as drop_in

from . import RESULTS, machine
from .timing import alternate

N, C = 32, 10


class Nothing(torch.autograd.Function):
    """What autograd alone takes, where a function is written in Python."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.gradient, None, None


def contestants() -> dict[str, Callable[[], Any]]:
    """What is timed: each returns a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, C, generator=generator).requires_grad_()
    y = torch.randint(0, C, (N,), generator=generator)
    up, weight = torch.rand(N, generator=generator), torch.rand(C, generator=generator) + 0.5
    value, gradient = torch.zeros(()), torch.zeros(N, C)
    loss = wl.sparse_softmax_cross_entropy_with_logits
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "an `autograd.Function` that does nothing": lambda: Nothing.apply(x, value, gradient),
        "`sparse_softmax_cross_entropy_with_logits`": lambda: loss(labels=y, logits=x, reduction="mean"),
        "… by the drop-in `cross_entropy`": lambda: drop_in.cross_entropy(x, y),
        "… with class weights": lambda: loss(labels=y, logits=x, class_weight=weight, reduction="mean"),
        "`F.cross_entropy`": lambda: F.cross_entropy(x, y),
        "`F.cross_entropy` with class weights": lambda: F.cross_entropy(x, y, weight),
    }
    rows: dict[str, Callable[[], torch.Tensor]] = {
        '… with reduction "none"': lambda: loss(labels=y, logits=x),
        '`F.cross_entropy` with reduction "none"': lambda: F.cross_entropy(x, y, reduction="none"),
    }
    calls = {name: lambda of=of: torch.autograd.grad(of(), x)[0] for name, of in losses.items()}
    calls |= {name: lambda of=of: torch.autograd.grad(of(), x, up)[0] for name, of in rows.items()}
    for ours, theirs in (
        ("`sparse_softmax_cross_entropy_with_logits`", "`F.cross_entropy`"),
        ("… by the drop-in `cross_entropy`", "`F.cross_entropy`"),
        ("… with class weights", "`F.cross_entropy` with class weights"),
        ('… with reduction "none"', '`F.cross_entropy` with reduction "none"'),
    ):
        torch.testing.assert_close(calls[ours](), calls[theirs]())
    return calls


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pytorch_parts", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds in all")
    parser.add_argument("--output", type=Path, metavar="DIR", default=RESULTS)
    options = parser.parse_args(arguments)
    threads = machine.limit_cores(None)
    torch.set_num_threads(threads)
    calls = contestants()
    for call in calls.values():
        call()
    times = alternate(calls, options.rounds, options.budget)
    torchs = times["`F.cross_entropy`"].median
    lines = ["| loss and backward at 32 × 10 | µs | of `F.cross_entropy` |", "|---|---:|---:|"]
    lines += [f"| {name} | {t.median * 1e6:.1f} | {t.median / torchs:.2f} |" for name, t in times.items()]
    text = "\n".join([*lines, "", machine.as_markdown(machine.describe(threads))]) + "\n"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "pytorch_parts.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
