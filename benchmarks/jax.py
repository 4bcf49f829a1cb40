"""JAX arrays under `jax.jit`, loss and gradient: withlogits beside optax.

    python -m benchmarks jax [--quick] [--rounds N] [--budget S] [--output DIR]

Both get the same arrays, in one process and in turns. Each call is a compiled program that returns the mean loss and
its gradient, timed until both are there. The large case is timed in three programs: with the logits as an argument that
is kept, so that the gradient is a new array; with the logits donated, so that the gradient may take their memory; and
behind a linear head, with the gradients of inputs and weights. Every result is compared with the formulas in float64
before it is timed. Writes jax.json and jax.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.markdown import Markdown

import withlogits as wl

from . import PARTIAL, RESULTS, bandwidth, machine
from .cases import SCALE, numpy_dtype
from .timing import alternate

CASES = (
    ((32, 10), "argument"),
    ((65_536, 10), "argument"),
    ((2048, 32_000), "argument"),
    ((2048, 32_000), "donated"),
    ((2048, 32_000), "linear head"),
)
DTYPES = ("float32", "bfloat16")
INPUTS = 64  # of the linear head
OURS = "withlogits"
CHECKED = 64  # rows of a gradient that are compared

Loss = Callable[[Any, Any], Any]
LOSSES: dict[str, dict[str, Loss]] = {
    "sparse": {
        OURS: lambda x, y: wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, reduction="mean"),
        "optax": lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y).mean(),
    },
    "sigmoid": {
        OURS: lambda x, z: wl.sigmoid_cross_entropy_with_logits(labels=z, logits=x, reduction="mean"),
        "optax": lambda x, z: optax.sigmoid_binary_cross_entropy(x, z).mean(),
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks jax", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the two smaller shapes")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each case")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results, or build/benchmarks")
    options = parser.parse_args(arguments)
    threads = machine.limit_cores(None)
    rates = bandwidth.measure(threads)
    cases = []
    for shape, program in CASES[:2] if options.quick else CASES:
        for what in LOSSES:
            for dtype in DTYPES:
                case = measure(what, shape, program, dtype, options.rounds, options.budget)
                cases.append(case)
                print(_line(case), file=sys.stderr)
    result = {"machine": machine.describe(threads), "bandwidth_gb_s": rates, "cases": cases}
    output = options.output or (PARTIAL if options.quick else RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    (output / "jax.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / "jax.md").write_text(markdown(result))
    Console().print(Markdown(markdown(result)))
    print(f"written to {output}")
    return 0


def measure(what: str, shape: tuple[int, int], program: str, dtype: str, rounds: int, budget: float) -> dict[str, Any]:
    """One row of the table: the milliseconds of each contestant."""
    rng = np.random.default_rng(0)
    if what == "sparse":
        labels = rng.integers(0, shape[1], shape[0], np.int32)
    else:
        labels = rng.random(shape, np.float32).astype(numpy_dtype(dtype))
    if program == "linear head":
        arrays = (
            rng.standard_normal((shape[0], INPUTS), np.float32),
            rng.standard_normal((shape[1], INPUTS), np.float32),
        )
        arrays = (arrays[0] * np.float32(SCALE / INPUTS**0.5), arrays[1])
    else:
        arrays = (rng.standard_normal(shape, np.float32) * np.float32(SCALE),)
    given = tuple([array.astype(numpy_dtype(dtype)) for array in arrays])
    calls = {name: _call(loss, program, given, labels) for name, loss in LOSSES[what].items()}
    right = truth(what, given, labels)
    for name, call in calls.items():
        _check(f"{name}, {what}, {program}", call(), right, dtype)
    times = alternate(calls, rounds, budget)
    return {
        "loss": what,
        "shape": list(shape),
        "program": program,
        "dtype": dtype,
        "times": {name: t.as_json() for name, t in times.items()},
    }


def _call(loss: Loss, program: str, given: tuple[np.ndarray, ...], labels: np.ndarray) -> Callable[[], Any]:
    """A call of the compiled program, which returns the mean and the gradients of all that is given."""

    def head(inputs: Any, weight: Any, z: Any) -> Any:
        return loss(inputs @ weight.T, z)

    arrays, z = tuple([jnp.asarray(array) for array in given]), jnp.asarray(labels)
    if program == "linear head":
        step = jax.jit(jax.value_and_grad(head, argnums=(0, 1)))
        return lambda: jax.block_until_ready(step(*arrays, z))
    if program == "argument":
        step = jax.jit(jax.value_and_grad(loss))
        return lambda: _as_parts(jax.block_until_ready(step(*arrays, z)))
    step = jax.jit(jax.value_and_grad(loss), donate_argnums=0)
    logits = jnp.array(given[0])

    def donated() -> Any:
        """The gradient of one call is the logits of the next: nothing is copied between them."""
        nonlocal logits
        value, logits = jax.block_until_ready(step(logits, z))
        return value, (logits,)

    return donated


def _as_parts(result: tuple[Any, Any]) -> tuple[Any, tuple[Any, ...]]:
    return result[0], (result[1],)


def truth(what: str, given: tuple[np.ndarray, ...], labels: np.ndarray) -> tuple[float, tuple[np.ndarray, ...]]:
    """The mean and the gradients of all that is given, by the usual formulas in float64, some rows at a time."""
    wide = [array.astype(np.float64) for array in given]
    n, classes = len(labels), len(given[-1]) if len(given) > 1 else given[0].shape[1]
    size, total = n if what == "sparse" else n * classes, 0.0
    gradients = [np.zeros_like(array) for array in wide]
    step = max(1, (1 << 21) // classes)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        x = wide[0][rows] @ wide[1].T if len(wide) > 1 else wide[0][rows]
        z = labels[rows].astype(np.float64 if what == "sigmoid" else np.int64)
        if what == "sparse":
            e = np.exp(x - x.max(1, keepdims=True))
            gradient = e / e.sum(1, keepdims=True)
            here = np.arange(len(x)), z
            total += float((np.log(e.sum(1)) + x.max(1) - x[here]).sum())
            gradient[here] -= 1.0
        else:
            total += float((np.maximum(x, 0.0) - x * z + np.log1p(np.exp(-np.abs(x)))).sum())
            gradient = 1.0 / (1.0 + np.exp(-x)) - z
        gradient /= size
        if len(wide) > 1:
            gradients[0][rows] = gradient @ wide[1]
            gradients[1] += gradient.T @ wide[0][rows]
        else:
            gradients[0][rows] = gradient
    return total / size, tuple(gradients)


def _check(
    name: str, found: tuple[Any, tuple[Any, ...]], right: tuple[float, tuple[np.ndarray, ...]], dtype: str
) -> None:
    """Raise unless a result is right; for bfloat16 this leaves room for a library that computes in it."""
    rtol = 1e-4 if dtype == "float32" else 0.05
    np.testing.assert_allclose(float(found[0]), right[0], rtol=rtol, err_msg=f"{name}, {dtype}: the mean")
    for got, gradient in zip(found[1], right[1], strict=True):
        rows = np.unique(np.linspace(0, len(gradient) - 1, CHECKED).astype(np.int64))
        largest = np.abs(gradient[rows]).max()
        np.testing.assert_allclose(
            np.asarray(got)[rows].astype(np.float64) / largest, gradient[rows] / largest,
            rtol=rtol, atol=rtol, err_msg=f"{name}, {dtype}: a gradient",
        )  # fmt: skip


def _line(case: dict[str, Any]) -> str:
    times = {name: t["median_ms"] for name, t in case["times"].items()}
    ratios = ", ".join(f"{name} {ms:.3f} ms ({ms / times[OURS]:.2f}×)" for name, ms in times.items())
    return f"{case['loss']} {case['shape']} {case['program']} {case['dtype']}: {ratios}"


def markdown(result: dict[str, Any]) -> str:
    """Milliseconds of withlogits, and how many times as long optax takes."""
    rates = ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in result["bandwidth_gb_s"].items())
    lines = [
        f"{machine.as_markdown(result['machine'])} Memory: {rates}.",
        "",
        "Medians; a ratio above 1 says how many times as long optax takes.",
        "",
        "| loss | shape | logits | dtype | withlogits | optax takes |",
        "|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        times = {name: t["median_ms"] for name, t in case["times"].items()}
        shape = " × ".join(f"{n:,}" for n in case["shape"])
        lines.append(
            f"| {case['loss']} | {shape} | {case['program']} | {case['dtype']} | {times[OURS]:.3f} ms | "
            f"{times['optax'] / times[OURS]:.2f}× |"
        )
    return "\n".join(lines) + "\n"
