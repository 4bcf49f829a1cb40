"""How long `import withlogits` takes beside `import numpy`, and the first call of each kernel, in fresh processes.

    python -m benchmarks startup [--quick] [--runs N] [--output DIR]

A first call is measured in a process that has made no other: cold with an empty cache folder (the kernel is compiled),
and again with the folder that the cold run left. Writes startup.json and startup.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import PARTIAL, RESULTS, machine
from benchmarks.cases import ACTIVATIONS, LOSSES

DTYPES = ("float32", "float64", "bfloat16", "float16")

IMPORTS = """
import time
begin = time.perf_counter()
import numpy
between = time.perf_counter()
import withlogits
print(between - begin, time.perf_counter() - between)
"""

# The first time is what a person waits for: the first call, engine and all. The second call is of another size, so that
# nothing but the kernel can have been kept for it.
FIRST_CALL = """
import sys, time
import numpy as np
import withlogits
what, mode, dtype = sys.argv[1:]
if dtype == "bfloat16":
    import ml_dtypes
    dtype = ml_dtypes.bfloat16
def call(n):
    x = (np.arange(n * 10) % 7 / 8).reshape(n, 10).astype(dtype)
    if mode == "activation":
        return getattr(withlogits, what)(x)
    labels = np.arange(n) % 10 if what == "sparse" else np.full((n, 10), 0.125, dtype)
    name = {"sparse": "sparse_softmax", "softmax": "softmax", "sigmoid": "sigmoid", "weighted": "weighted"}[what]
    loss = getattr(withlogits, name + "_cross_entropy_with_logits")
    options = {"pos_weight": 2.0} if what == "weighted" else {}
    return (withlogits.value_and_grad(loss) if mode == "loss+gradient" else loss)(labels=labels, logits=x, **options)
begin = time.perf_counter()
call(32)
first = time.perf_counter()
call(48)
print(first - begin, time.perf_counter() - first)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the sparse loss in float32 alone")
    parser.add_argument("--runs", type=int, default=3, help="fresh processes for each first call (default 3)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    options = parser.parse_args(arguments)
    kernels = list(every_kernel())
    result = run(kernels[:2] if options.quick else kernels, options.runs)
    output = options.output or (PARTIAL if options.quick else RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    (output / "startup.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (output / "startup.md").write_text(markdown(result))
    print(markdown(result))
    print(f"written to {output}")
    return 0


def every_kernel() -> Iterator[tuple[str, str, str]]:
    """(loss or activation, mode, format): all of them in float32, and the sparse loss in the other formats."""
    for what in LOSSES:
        yield what, "loss", "float32"
        yield what, "loss+gradient", "float32"
    for dtype in DTYPES[1:]:
        yield "sparse", "loss+gradient", dtype
    for what in ACTIVATIONS:
        yield what, "activation", "float32"


def run(kernels: Sequence[tuple[str, str, str]], runs: int) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    calls: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("import", total=len(kernels) + 1)
        _child(IMPORTS)  # writes the bytecode, and brings the files into memory
        imports = [_child(IMPORTS) for _ in range(3 * runs)]
        progress.advance(task)
        for kernel in kernels:
            progress.update(task, description=" ".join(kernel))
            calls.append(_first_calls(kernel, runs))
            progress.advance(task)
    return {
        "machine": machine.describe(machine.limit_cores(None)),
        "runs": runs,
        "import_numpy_s": statistics.median(numpy for numpy, _ in imports),
        "import_withlogits_s": statistics.median(ours for _, ours in imports),
        "first_calls": calls,
    }


def _first_calls(kernel: tuple[str, str, str], runs: int) -> dict[str, Any]:
    cold, cached, next_call = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_child(FIRST_CALL, *kernel, cache=folder)[0])
            first, second = _child(FIRST_CALL, *kernel, cache=folder)
            cached.append(first)
            next_call.append(second)
    medians = {
        name: statistics.median(times)
        for name, times in (("cold_s", cold), ("cached_s", cached), ("second_call_s", next_call))
    }
    return dict(zip(("what", "mode", "dtype"), kernel, strict=True)) | medians


def _child(code: str, *arguments: str, cache: str | None = None) -> tuple[float, float]:
    """The two times, in seconds, that a fresh Python prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if cache is not None:
        environment["WITHLOGITS_CACHE_DIR"] = cache
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"a first call of {' '.join(arguments) or 'import'} failed:\n{done.stderr}")
    first, second = done.stdout.split()
    return float(first), float(second)


def markdown(result: dict[str, Any]) -> str:
    return "\n".join(_lines(result)) + "\n"


def _lines(result: dict[str, Any]) -> Iterator[str]:
    numpy, ours = result["import_numpy_s"], result["import_withlogits_s"]
    yield f"`import numpy` {numpy * 1e3:.0f} ms; `import withlogits` after it {ours * 1e3:.0f} ms more.\n"
    yield "The first call in a process, which loads the engine as well:\n"
    yield "| | cold: compiled | from the cache | the call after it |"
    yield "|---|---:|---:|---:|"
    for call in result["first_calls"]:
        title = f"`{call['what']}(x)`" if call["mode"] == "activation" else f"{call['what']}, {call['mode']}"
        times = f"{call['cold_s']:.2f} s | {call['cached_s']:.2f} s | {call['second_call_s'] * 1e6:.0f} µs"
        yield f"| {title.replace('+', ' and ')}, {call['dtype']} | {times} |"
    yield f"\nMedians of {result['runs']} fresh processes each ({3 * result['runs']} for the imports).\n"
    yield machine.as_markdown(result["machine"])


if __name__ == "__main__":
    raise SystemExit(main())
