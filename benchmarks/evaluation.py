"""What the guide and an evaluation of files cost: diagnose beside the loss, and evaluate beside reading the file once.

    python -m benchmarks.evaluation [--gigabytes G] [--folder DIR] [--output DIR]

Writes a file of G gigabytes of float32 logits (20 for the report in docs/results) into DIR, and removes it in the end.
The page cache is asked to forget it before each reading. Writes evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

import withlogits
from benchmarks import PARTIAL, RESULTS, machine

SHAPES = ((2048, 32_000), (4096, 1000), (65_536, 10), (32, 10))
CASES = (("sparse", 32_000), ("sparse", 1000), ("sparse", 10), ("sigmoid", 1000), ("sigmoid", 10))

READING = """
import os, sys, time
begin, room = time.perf_counter(), bytearray(1 << 22)
for name in sys.argv[1:3]:
    with open(name, "rb", buffering=0) as stream:
        while stream.readinto(room):
            if sys.argv[3] == "handed back":
                os.posix_fadvise(stream.fileno(), 0, stream.tell(), os.POSIX_FADV_DONTNEED)
print(time.perf_counter() - begin, 0)
"""

EVALUATION = r"""
import re, sys, time
import withlogits
begin = time.perf_counter()
evaluation = withlogits.evaluate(sys.argv[2], sys.argv[1], loss=sys.argv[3])
assert evaluation.count > 0
took = time.perf_counter() - begin
status = open("/proc/self/status").read()
print(took, 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, help="where the files go (default: the system's for temporary files)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs/results, for 20 gigabytes")
    options = parser.parse_args(arguments)
    text = "\n".join(_lines(options.gigabytes, options.folder)) + "\n"
    output = options.output or (RESULTS if options.gigabytes == 20.0 else PARTIAL)
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.md").write_text(text)
    print(text)
    return 0


def _lines(gigabytes: float, folder: Path | None) -> Iterator[str]:
    yield "`diagnose` beside the loss itself, float32, medians of calls in turns:\n"
    yield "| labels | logits | loss | diagnose | ratio |"
    yield "|---|---|---:|---:|---:|"
    for kind in ("sparse", "sigmoid"):
        for shape in SHAPES:
            loss, diagnosis = diagnosing(kind, shape)
            yield (
                f"| {kind} | {shape[0]:,} × {shape[1]:,} | {1e3 * loss:.3g} ms | {1e3 * diagnosis:.3g} ms "
                f"| {diagnosis / loss:.1f} |"
            )
    yield (
        f"\n`evaluate` of {gigabytes:g} GB of float32 logits and their labels in .npy files (sparse: int64, one a row; "
        "sigmoid: uint8, one a logit), and reading both once: into one small buffer, and likewise with what was read "
        "handed back to the system, so that it does not look for memory to keep it in:\n"
    )
    yield "| labels | classes | reading | handed back | evaluate | of reading | of handed back | peak memory |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for kind, classes, readings, took, peak in evaluating(gigabytes, folder):
        seconds = " | ".join(f"{t:.1f} s" for t in (*readings, took))
        ratios = " | ".join(f"{took / reading:.2f}" for reading in readings)
        yield f"| {kind} | {classes:,} | {seconds} | {ratios} | {peak / 1e6:.0f} MB |"
    yield "\n" + machine.as_markdown(machine.describe(machine.limit_cores(None)))


def diagnosing(kind: str, shape: tuple[int, int]) -> tuple[float, float]:
    """Seconds of the loss and of the diagnosis, of logits of a model that is right about half of the time."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(shape, np.float32)
    labels: Any = rng.integers(0, shape[1], shape[0])
    loss: Callable[..., Any] = withlogits.sparse_softmax_cross_entropy_with_logits
    if kind == "sigmoid":
        labels = (rng.random(shape, np.float32) < 0.3).astype(np.float32)
        logits += 2 * labels - 1.8
        loss = withlogits.sigmoid_cross_entropy_with_logits
    else:
        logits[np.arange(shape[0]), labels] += np.sqrt(2.0 * np.log(shape[1]))
    calls = (
        lambda: loss(labels=labels, logits=logits),
        lambda: withlogits.diagnose(labels, logits, loss=kind),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(9):
        for call, taken in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


def evaluating(gigabytes: float, folder: Path | None) -> Iterator[tuple[str, int, list[float], float, float]]:
    """For each case: seconds of both readings and of an evaluation, and the most memory that this took.

    One file of logits serves all, and one of labels all independent classes: their headers are written anew.
    """
    together = math.lcm(*(classes for _, classes in CASES))
    elements = int(gigabytes * 1e9 / 4) // together * together
    with tempfile.TemporaryDirectory(dir=folder) as place:
        logits, numbers, answers = (Path(place) / f"{name}.npy" for name in ("logits", "numbers", "answers"))
        rng = np.random.default_rng(0)
        block = rng.standard_normal(min(elements, 1 << 24), np.float32)
        _write(logits, elements, block)
        _write(answers, elements, (rng.random(len(block), np.float32) < 0.3).view(np.uint8))
        for kind, classes in CASES:
            shape = (elements // classes, classes)
            _set_shape(logits, "<f4", shape)
            if kind == "sigmoid":
                labels = answers
                _set_shape(labels, "|u1", shape)
            else:
                labels = numbers
                np.save(labels, rng.integers(0, classes, shape[0]))
            readings = [_child(READING, logits, labels, manner)[0] for manner in ("kept", "handed back")]
            yield kind, classes, readings, *_child(EVALUATION, logits, labels, kind)


def _write(path: Path, elements: int, block: Any) -> None:
    """The numbers of the block, over and over."""
    with path.open("wb") as stream:
        _write_header(stream, block.dtype.str, (elements, 1))
        for begin in range(0, elements, len(block)):
            stream.write(block[: elements - begin].data)
        stream.flush()
        os.fsync(stream.fileno())


def _set_shape(path: Path, dtype: str, shape: tuple[int, int]) -> None:
    with path.open("r+b") as stream:
        _write_header(stream, dtype, shape)


def _write_header(stream: IO[bytes], dtype: str, shape: tuple[int, int]) -> None:
    """Of the same length for every shape."""
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    assert stream.tell() == 128


def _child(code: str, logits: Path, labels: Path, manner: str) -> tuple[float, float]:
    for path in (logits, labels):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(logits), str(labels), manner],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    first, second = json.loads(f"[{done.stdout.replace(' ', ',')}]")
    return first, second


if __name__ == "__main__":
    raise SystemExit(main())
