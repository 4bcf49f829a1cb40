"""The sparse loss on a GPU beside the peers: validated, then timed in turns, in one process.

    python -m benchmarks gpu [--quick] [--only PATTERN] [--peers A,B] [--rounds N] [--budget S] [--output DIR]

A call is timed from its start until the GPU has its result, so its way through Python counts. A whole run writes
gpu.json and gpu.md to docs/results; part of one goes to build/benchmarks, so that it never overwrites a whole one.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from . import PARTIAL, RESULTS, gpu_peers, gpu_report, machine, speed
from .cases import Case, Inputs
from .peers import Absent
from .timing import alternate
from .truth import Truth

SHAPES = ((65_536, 10), (65_536, 1000), (32_768, 4096), (8192, 32_000), (4096, 128_256), (2048, 262_144))
QUICK_SHAPES = ((65_536, 10), (4096, 4096), (2048, 32_000))
DTYPES = ("float32", "bfloat16")
MODES = ("loss", "loss+gradient")
COPIED = 1 << 30  # bytes: many times what the caches hold
PASSES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if (why := gpu_peers.no_gpu()) is not None:
        print(f"there is no GPU to measure: {why}", file=sys.stderr)
        return 1
    cases = [case for case in all_cases(QUICK_SHAPES if options.quick else SHAPES) if _wanted(case, options.only)]
    if not cases:
        print(f"no case matches {options.only!r}; a case is named like {next(all_cases(SHAPES)).key}", file=sys.stderr)
        return 2
    part = options.quick or options.only or options.peers != _parser().get_default("peers")
    output = options.output or (PARTIAL if part else RESULTS)
    result = run(cases, "cuda", options.rounds, options.budget, options.peers.split(","))
    write(result, output)
    print("\n".join(gpu_report.summary(result)))
    print(f"written to {output}")
    wrong = [case["key"] for case in result["cases"] if "median_ms" not in case["ours"]]
    if wrong:
        print(f"withlogits was wrong, or failed, in {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def all_cases(shapes: Sequence[tuple[int, int]]) -> Iterator[Case]:
    """Those of one shape and format follow one another, so that their inputs are made once."""
    for shape in shapes:
        for dtype in DTYPES:
            for mode in MODES:
                yield Case("sparse", mode, dtype, shape)


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "gpu.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (output / "gpu.md").write_text(gpu_report.markdown(result))


def run(cases: Sequence[Case], device: str, rounds: int, budget: float, names: Sequence[str]) -> dict[str, Any]:
    """All cases, one after the other; the result is what goes into gpu.json."""
    begin = time.perf_counter()
    contestants, absent = gpu_peers.load(names)
    rate = copy_bandwidth(device)
    done: list[dict[str, Any]] = []
    inputs: Inputs | None = None
    truth: tuple[Any, Truth | None] = (None, None)
    for number, case in enumerate(cases, 1):
        print(f"{number}/{len(cases)} {case.key}", file=sys.stderr)
        if inputs is None or inputs.shape != case.shape or inputs.dtype != Inputs((1, 1), case.dtype).dtype:
            inputs, truth = Inputs(case.shape, case.dtype), (None, None)
        if truth[1] is None:
            truth = (case.key, Truth(case, inputs))
        done.append(_one(case, inputs, truth[1], device, contestants, absent, rounds, budget))
    rate = max(rate, copy_bandwidth(device))  # one of the two may have been disturbed
    for case in done:
        speed._add_shares(case, {"copy": rate})
    return {
        "machine": _machine(device),
        "bandwidth_gb_s": {"copy": rate},
        "seconds": round(time.perf_counter() - begin),
        "peers": {peer.name: {"version": peer.version, "called": peer.note} for peer in contestants},
        "absent": absent,
        "cases": done,
    }


def _one(
    case: Case,
    inputs: Inputs,
    truth: Truth,
    device: str,
    contestants: Sequence[gpu_peers.Contestant],
    absent: dict[str, str],
    rounds: int,
    budget: float,
) -> dict[str, Any]:
    calls: dict[str, Callable[[], Any]] = {}
    found: dict[str, Any] = {name: {"absent": reason} for name, reason in absent.items()}
    memory: dict[str, float] = {}
    for peer in contestants:
        strict = case.dtype == "float32" or peer.name == "withlogits"
        try:
            call = peer.prepare(case, inputs, device)
            result = call()
            faults = truth.faults(case, *peer.read(case, result), strict=strict)
            del result
            memory[peer.name] = gpu_peers.peak_bytes(call, device) / 1e6
        except Absent as reason:
            found[peer.name] = {"absent": str(reason)}
            continue
        except Exception as error:  # a peer that fails is a row of the table, not the end of the run
            found[peer.name] = {"absent": f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
            continue
        if faults:
            found[peer.name] = {"wrong": faults}
        else:
            calls[peer.name] = call
    found |= {name: measured.as_json() for name, measured in alternate(calls, rounds, budget).items()}
    return speed._with_ratios(case, found) | {"share_of": "copy", "memory_mb": memory}


def copy_bandwidth(device: str, size: int | None = None) -> float:
    """GB/s of copying, read and written: the median of several copies that no cache holds."""
    import torch

    size = size or COPIED
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds: list[float] = []
    for _ in range(PASSES):
        gpu_peers.wait(device)
        begin = time.perf_counter()
        target.copy_(source)
        gpu_peers.wait(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * size / statistics.median(seconds) / 1e9


def _machine(device: str) -> dict[str, Any]:
    described = machine.describe(threads=1) | {"card": gpu_peers.card(device)}
    for name in ("triton", "liger-kernel", "quack-kernels"):
        try:
            described["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return described


def _wanted(case: Case, patterns: Sequence[str] | None) -> bool:
    return not patterns or any(
        fnmatch.fnmatchcase(case.key, pattern if "*" in pattern else f"*{pattern}*") for pattern in patterns
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="three shapes")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="cases whose name contains or matches this")
    parser.add_argument("--peers", default=",".join(gpu_peers.PEERS), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant, at most (default 15)")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of turns a case (default 4)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
