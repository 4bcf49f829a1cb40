"""Peak memory beside inputs and outputs, of each loss at 2048 × 32,000 float32, each in a process of its own.

    python -m benchmarks memory [--quick] [--output DIR]

The child process loads one library, warms up on rows of half the length, and notes what it has resident. Then it makes
the inputs, gives free memory back to the system, resets its peak (`/proc/self/clear_refs`: Linux only), and calls once
at the full size. What the peak is above the note, less the bytes of inputs and results, is what the call needed beside
them. The system counts a process's pages in batches for each core, so that a figure is good to about 0.3 MB.

Libraries that compile for each shape (JAX, torch.compile, a traced tf.function) are warmed up at the full size: what a
compiler needs is not the question here, though what it keeps is counted. withlogits keeps no result memory for reuse
(`WITHLOGITS_RECYCLE_BYTES=0`): it would lie there already when the call begins.

Writes memory.json and memory.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import PARTIAL, RESULTS, ROOT, machine, peers
from benchmarks.cases import LOSSES, Case, Inputs

SHAPE = (2048, 32_000)

# Large enough to take the way that the full size takes (threads, results past the cache); with rows of half the length,
# so that scratch memory that grows with a row would still be seen.
WARM_UP = (2048, 16_000)

CONTESTANTS = ("withlogits", "torch.withlogits", *peers.PEERS)  # the second: ours, on tensors and through autograd
COMPILED_BY_SHAPE = ("jax", "torch.compile", "tensorflow")
MODES = ("loss", "loss+gradient")
CLEAR_REFS = Path("/proc/self/clear_refs")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="withlogits on NumPy arrays alone")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    parser.add_argument("--refresh", metavar="A,B", help="measure these alone, and keep the others' figures")
    parser.add_argument("--one", nargs=3, metavar=("NAME", "LOSS", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not CLEAR_REFS.exists():
        print("memory is measured on Linux only: elsewhere a process cannot reset its peak", file=sys.stderr)
        return 1
    if options.one:
        name, what, mode = options.one
        print(json.dumps(measure(name, what, mode)))
        return 0
    names = options.refresh.split(",") if options.refresh else CONTESTANTS[:1] if options.quick else CONTESTANTS
    result = run(names)
    output = options.output or (PARTIAL if options.quick else RESULTS)
    if options.refresh:
        result = machine.refreshed(output / "memory.json", result, names, ("cases",))
    output.mkdir(parents=True, exist_ok=True)
    (output / "memory.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (output / "memory.md").write_text(markdown(result))
    print(markdown(result))
    print(f"written to {output}")
    return 0


def run(names: Sequence[str]) -> dict[str, Any]:
    cases = [(name, what, mode) for name in names for what in LOSSES for mode in MODES]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(cases))
        for name, what, mode in cases:
            progress.update(task, description=f"{name} {what} {mode}")
            if "withlogits" in name:
                in_a_child(name, what, mode)  # leaves the compiled kernel in the cache
            found.append({"name": name, "what": what, "mode": mode, **in_a_child(name, what, mode)})
            progress.advance(task)
    return {"machine": machine.describe(machine.limit_cores(None)), "shape": SHAPE, "cases": found}


def in_a_child(name: str, what: str, mode: str) -> dict[str, Any]:
    """What `measure` finds in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", name, what, mode]
    environment = {**os.environ, "WITHLOGITS_RECYCLE_BYTES": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        return {"absent": f"failed: {(done.stderr.strip() or f'exit {done.returncode}').splitlines()[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, what: str, mode: str, shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    """Bytes that one call needs beyond its inputs and results, in this process."""
    found, absent = peers.load(machine.limit_cores(None), (name,))
    if not found:
        return {"absent": absent[name]}
    (peer,) = found
    case = Case(what, mode, "float32", shape)
    try:
        peer.prepare(Case(what, mode, "float32", WARM_UP), Inputs(WARM_UP, "float32"))()
        before = _settled()
        inputs = Inputs(shape, "float32")
        known = inputs.logits.nbytes + inputs.labels(what).nbytes
        call = peer.prepare(case, inputs)
    except peers.Absent as reason:
        return {"absent": str(reason)}
    del inputs  # whoever has a copy of their own needs ours no more: the inputs are there once
    if name in COMPILED_BY_SHAPE:
        call()
    _settled()
    CLEAR_REFS.write_text("5")  # the peak becomes what is resident now
    result = call()
    peak = _resident("VmHWM")
    value, gradient = peer.read(case, result)
    results = value.nbytes + (gradient.nbytes if gradient is not None else 0)
    return {"beyond_bytes": peak - before - known - results, "result_bytes": results}


def _settled() -> int:
    """Bytes resident once malloc has returned what it holds free, which would serve the measured call unseen."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    return _resident("VmRSS")


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {field}")


def markdown(result: dict[str, Any]) -> str:
    return "\n".join(_lines(result)) + "\n"


def _lines(result: dict[str, Any]) -> Iterator[str]:
    n, c = result["shape"]
    found = {case["name"] for case in result["cases"]}
    names = [name for name in CONTESTANTS if name in found]
    cells = {(case["what"], case["mode"], case["name"]): case for case in result["cases"]}
    yield f"MB (1e6 bytes) at {n:,} × {c:,} float32, whose logits are {n * c * 4 / 1e6:.0f} MB:\n"
    yield f"| | {' | '.join('withlogits on torch' if n == 'torch.withlogits' else n for n in names)} |"
    yield "|---|" + "---:|" * len(names)
    for what in LOSSES:
        for mode in MODES:
            row = [_cell(cells[what, mode, name]) for name in names]
            yield f"| {what}, {mode.replace('+', ' and ')} | {' | '.join(row)} |"
    yield ""
    yield (
        "The peak of the process during one call, less what it had before and the bytes of inputs and results; good "
        "to about 0.3 MB. Each figure comes from a process of its own, warmed up before: JAX, TensorFlow and "
        "torch.compile at the full size, since they compile for each shape. withlogits holds back no memory for later "
        "results here; by default it does, up to 512 MiB (`set_recycling_limit`)."
    )
    yield ""
    reasons = dict.fromkeys((case["name"], case["absent"]) for case in result["cases"] if "absent" in case)
    yield from (f"- Absent (–): **{name}**: {why}." for name, why in reasons)
    yield ("\n" if reasons else "") + machine.as_markdown(result["machine"])


def _cell(case: dict[str, Any]) -> str:
    if "absent" in case:
        return "–"
    megabytes = max(0.0, case["beyond_bytes"] / 1e6)  # the system's count may fall short
    text = f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.1f}"
    return f"**{text}**" if "withlogits" in case["name"] else text


if __name__ == "__main__":
    raise SystemExit(main())
