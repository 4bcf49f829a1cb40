"""Speed beside the peers: every result compared with the truth, then timed in turns, in one process.

    python -m benchmarks speed [--quick] [--only PATTERN] [--rounds N] [--threads N] [--output DIR]

Progress goes to stderr and the summary to stdout. A whole run writes speed.json, speed.md and speed.png to
docs/results; part of one goes to build/benchmarks, so that it never overwrites a whole one.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import PARTIAL, RESULTS, bandwidth, machine, peers, speed_picture, speed_report
from .cases import Case, Inputs, all_cases
from .quiet import DISTURBED, Watch
from .timing import Times, alternate
from .truth import Truth

# A case that other processes disturb is timed again, up to this often in all.
ATTEMPTS = 3

QUICK_SHAPES = ((32, 10), (4096, 1000), (65_536, 10))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    cases = _selected(options)
    if not cases:
        print(f"no case matches {options.only!r}; a case is named like {next(all_cases()).key}", file=sys.stderr)
        return 2
    output = options.output or (PARTIAL if options.quick or options.only else RESULTS)
    result = run(cases, machine.limit_cores(options.threads), options.rounds, options.budget, options.peers.split(","))
    write(result, output)
    speed_report.show(result, Console())
    print(f"written to {output}")
    wrong = [case["key"] for case in result["cases"] if "median_ms" not in case["ours"]]
    if wrong:
        print(f"withlogits was wrong, or failed, in {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def write(result: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "speed.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (output / "speed.md").write_text(speed_report.markdown(result))
    speed_picture.draw(result, output / "speed.png")


def run(cases: Sequence[Case], threads: int, rounds: int, budget: float, names: Sequence[str]) -> dict[str, Any]:
    """All cases, one after the other; the result is what goes into speed.json."""
    begin = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("loading the libraries", total=len(cases))
        contestants, absent = peers.load(threads, (*peers.OURS, *names))
        progress.update(task, description="memory bandwidth")
        rates = bandwidth.measure(threads)
        done: list[dict[str, Any]] = []
        shared = _Shared()
        for case in cases:
            progress.update(task, description=case.key)
            done.append(_one(case, shared, contestants, absent, rounds, budget))
            progress.advance(task)
        progress.update(task, description="memory bandwidth")
        again = bandwidth.measure(threads)
        rates = {name: max(rate, again[name]) for name, rate in rates.items()}  # one of them may have been disturbed
        for case in done:
            _add_shares(case, rates)
    return {
        "machine": machine.describe(threads),
        "bandwidth_gb_s": rates,
        "seconds": round(time.perf_counter() - begin),
        "peers": {peer.name: {"version": peer.version, "called": peer.note} for peer in contestants},
        "absent": absent,
        "cases": done,
    }


class _Shared:
    """The inputs and truths of the case before, kept while the next ones use them: they are large, and slow to make."""

    def __init__(self) -> None:
        self._inputs_of: tuple[Any, Inputs | None] = (None, None)
        self._truth_of: tuple[Any, Truth | None] = (None, None)

    def inputs(self, case: Case) -> Inputs:
        key = (case.shape, case.dtype)
        if self._inputs_of[0] != key:
            self._inputs_of = (None, None)  # frees the old ones before the new ones are made
            self._inputs_of = (key, Inputs(*key))
        return self._inputs_of[1]

    def truth(self, case: Case) -> Truth:
        key = (case.what, case.activation, case.shape, case.dtype)
        if self._truth_of[0] != key:
            self._truth_of = (key, Truth(case, self.inputs(case)))
        return self._truth_of[1]


def _one(
    case: Case,
    shared: _Shared,
    contestants: Sequence[peers.Peer],
    absent: dict[str, str],
    rounds: int,
    budget: float,
) -> dict[str, Any]:
    inputs, truth = shared.inputs(case), shared.truth(case)
    calls, found = {}, {name: {"absent": reason} for name, reason in absent.items() if _compared(case, name)}
    for peer in contestants:
        if not _compared(case, peer.name):
            continue
        strict = case.dtype == "float32" or peer.name.startswith("withlogits")
        try:
            call = peer.prepare(case, inputs)
            faults = truth.faults(case, *peer.read(case, call()), strict=strict)
        except peers.Absent as reason:
            found[peer.name] = {"absent": str(reason)}
            continue
        except Exception as error:  # a peer that fails is a row of the table, not the end of the run
            found[peer.name] = {"absent": f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"}
            continue
        if faults:
            found[peer.name] = {"wrong": faults}
        else:
            calls[peer.name] = call
    times, others = _undisturbed(calls, rounds, budget)
    found |= {name: measured.as_json() for name, measured in times.items()}
    return _with_ratios(case, found) | {"others": others}


def _undisturbed(
    calls: dict[str, Callable[[], Any]], rounds: int, budget: float
) -> tuple[dict[str, Times], float | None]:
    """The times, and the share of the cores that others took: the quietest of up to three attempts."""
    attempts: list[tuple[float, dict[str, Times]]] = []
    for _ in range(ATTEMPTS):
        watch = Watch()
        times = alternate(calls, rounds, budget)
        others = watch.others()
        if others is None or others <= DISTURBED:
            return times, others
        attempts.append((others, times))
    others, times = min(attempts, key=lambda attempt: attempt[0])
    return times, others


def _compared(case: Case, name: str) -> bool:
    if name == "withlogits, out=":
        return case.gradient
    return not case.activation or name in peers.ACTIVATION_PEERS or name == "withlogits"


def _with_ratios(case: Case, found: dict[str, Any]) -> dict[str, Any]:
    """The case as it goes into speed.json, less the shares of the bandwidth."""
    ours, reused = found.pop("withlogits"), found.pop("withlogits, out=", {})
    read, written = case.traffic()
    for times in found.values():
        if "median_ms" in times and "median_ms" in ours:
            times["ratio"] = times["median_ms"] / ours["median_ms"]
            times["ratio_of_minima"] = times["minimum_ms"] / ours["minimum_ms"]
    return {
        "key": case.key,
        "what": case.what,
        "mode": case.mode,
        "dtype": case.dtype,
        "shape": case.shape,
        "bytes_read": read,
        "bytes_written": written,
        # Not copying where a number a row is written.
        "share_of": "copy" if written > read / 4 else "read",
        "ours": ours,
        "reused": reused,
        "peers": found,
    }


def _add_shares(case: dict[str, Any], rates: dict[str, float]) -> None:
    for times in (case["ours"], case["reused"]):
        if "median_ms" in times:
            times["gb_s"] = (case["bytes_read"] + case["bytes_written"]) / times["median_ms"] / 1e6
            times["share"] = times["gb_s"] / rates[case["share_of"]]


def _selected(options: argparse.Namespace) -> list[Case]:
    cases = list(all_cases())
    if options.quick:
        cases = [case for case in cases if case.shape in QUICK_SHAPES and case.dtype == "float32"]
    if options.only:
        patterns = [pattern if "*" in pattern else f"*{pattern}*" for pattern in options.only]
        cases = [case for case in cases if any(fnmatch.fnmatchcase(case.key, pattern) for pattern in patterns)]
    return cases


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="float32 at three shapes, a few minutes")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help=f"cases whose name contains this or matches it (*); a name looks like {next(all_cases()).key}; repeatable",
    )
    parser.add_argument("--peers", default=",".join(peers.PEERS), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant, at most (default 15)")
    parser.add_argument(
        "--budget", type=float, default=4.0, help="seconds of turns a case (default 4; 3 rounds always)"
    )
    parser.add_argument("--threads", type=int, help="cores to use (default: all)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
