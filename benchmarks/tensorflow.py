"""TensorFlow tensors, end to end through a GradientTape: withlogits beside `tf.nn`, eager and in a `tf.function`.

    python -m benchmarks tensorflow [--quick] [--rounds N] [--budget S] [--output DIR]

Every contestant gets the same tensors. Each call is the loss and its gradient by the logits, with all that is allocated
on the way. Every result is compared with the truth in float64 before it is timed. Writes tensorflow.json and
tensorflow.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf
from rich.console import Console
from rich.markdown import Markdown

import withlogits as wl

from . import PARTIAL, RESULTS, bandwidth, machine
from .timing import alternate

SHAPES = ((32, 10), (1024, 10), (65_536, 10), (4096, 1000), (2048, 32_000))
QUICK_SHAPES = SHAPES[:3]
DTYPES = ("float32", "bfloat16")
REDUCTIONS = ("mean", "none")
WAYS = ("eager", "function")
OURS, THEIRS = "withlogits", "tf.nn"

Loss = Callable[[Any, Any, str], Any]


def _reduced(losses: Any, reduction: str) -> Any:
    return tf.reduce_mean(losses) if reduction == "mean" else losses


LOSSES: dict[str, dict[str, Loss]] = {
    "sparse": {
        OURS: lambda x, y, r: wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction=r),
        THEIRS: lambda x, y, r: _reduced(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x), r),
    },
    "softmax": {
        OURS: lambda x, z, r: wl.softmax_cross_entropy_with_logits(labels=z, logits=x, reduction=r),
        THEIRS: lambda x, z, r: _reduced(tf.nn.softmax_cross_entropy_with_logits(labels=z, logits=x), r),
    },
    "sigmoid": {
        OURS: lambda x, z, r: wl.sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction=r),
        THEIRS: lambda x, z, r: _reduced(tf.nn.sigmoid_cross_entropy_with_logits(labels=z, logits=x), r),
    },
}

# In float64; tf.nn's gradient of this one is right for labels alone that sum to 1, which rounded ones do not
TRUTH: dict[str, Loss] = {"softmax": lambda x, z, r: _reduced(-tf.reduce_sum(z * tf.nn.log_softmax(x), -1), r)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tensorflow", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the three smaller shapes")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each case")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results, or build/benchmarks")
    options = parser.parse_args(arguments)
    threads = machine.limit_cores(None)
    rates = bandwidth.measure(threads)
    cases = []
    for shape in QUICK_SHAPES if options.quick else SHAPES:
        for what in LOSSES:
            for dtype in DTYPES:
                for reduction in REDUCTIONS:
                    cases.append(measure(what, shape, dtype, reduction, options.rounds, options.budget))
                    print(_line(cases[-1]), file=sys.stderr)
    result = {"machine": machine.describe(threads), "bandwidth_gb_s": rates, "cases": cases}
    output = options.output or (PARTIAL if options.quick else RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    (output / "tensorflow.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / "tensorflow.md").write_text(markdown(result))
    Console().print(Markdown(markdown(result)))
    print(f"written to {output}")
    return 0


def measure(
    what: str, shape: tuple[int, int], dtype: str, reduction: str, rounds: int, budget: float
) -> dict[str, Any]:
    """One row of the table: the milliseconds of each contestant."""
    rng = np.random.default_rng(0)
    logits = tf.cast(rng.normal(0.0, 3.0, shape), dtype)
    if what == "sparse":
        labels = tf.constant(rng.integers(0, shape[1], shape[0]))
    else:
        given = rng.random(shape)
        labels = tf.cast(given / given.sum(1, keepdims=True) if what == "softmax" else given, dtype)
    calls: dict[str, Callable[[], Any]] = {}
    for name, loss in LOSSES[what].items():
        for way in WAYS:
            calls[f"{name}, {way}"] = _call(loss, logits, labels, reduction, way)
    wide = tf.cast(logits, tf.float64), labels if what == "sparse" else tf.cast(labels, tf.float64)
    truth = _call(TRUTH.get(what, LOSSES[what][THEIRS]), *wide, reduction, "eager")()
    for name, call in calls.items():
        for got, right in zip(call(), truth, strict=True):
            tolerance = 1e-4 if dtype == "float32" else 1e-2 if name.startswith(OURS) else 5e-2
            absolute = 1e-6 if name.startswith(OURS) else 5e-2 if dtype == "bfloat16" else 1e-5
            np.testing.assert_allclose(tf.cast(got, tf.float64), right, rtol=tolerance, atol=absolute, err_msg=name)
    times = alternate(calls, rounds, budget)
    return {
        "loss": what,
        "shape": list(shape),
        "dtype": dtype,
        "reduction": reduction,
        "times": {name: t.as_json() for name, t in times.items()},
    }


def _call(loss: Loss, logits: Any, labels: Any, reduction: str, way: str) -> Callable[[], tuple[Any, ...]]:
    def step(x: Any, y: Any) -> tuple[Any, ...]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x, y, reduction)
        return value, tape.gradient(value, x)

    made = tf.function(step, autograph=False) if way == "function" else step
    return lambda: made(logits, labels)


def _line(case: dict[str, Any]) -> str:
    times = {name: t["median_ms"] for name, t in case["times"].items()}
    ratios = ", ".join(
        f"{way} {times[f'{OURS}, {way}']:.3f} ms ({times[f'{THEIRS}, {way}'] / times[f'{OURS}, {way}']:.2f}×)"
        for way in WAYS
    )
    return f"{case['loss']} {case['shape']} {case['dtype']} {case['reduction']}: {ratios}"


def markdown(result: dict[str, Any]) -> str:
    """Milliseconds of withlogits, and how many times as long tf.nn takes."""
    rates = ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in result["bandwidth_gb_s"].items())
    lines = [
        f"{machine.as_markdown(result['machine'])} TensorFlow {tf.__version__}. Memory: {rates}.",
        "",
        "Medians of loss and gradient; a ratio above 1 says how many times as long tf.nn takes.",
        "",
        "| loss | shape | dtype | reduction | eager | tf.nn takes | in a function | tf.nn takes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        times = {name: t["median_ms"] for name, t in case["times"].items()}
        cells = [
            f"{times[f'{OURS}, {way}']:.3f} ms | {times[f'{THEIRS}, {way}'] / times[f'{OURS}, {way}']:.2f}×"
            for way in WAYS
        ]
        shape = " × ".join(f"{n:,}" for n in case["shape"])
        lines.append(f"| {case['loss']} | {shape} | {case['dtype']} | {case['reduction']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
