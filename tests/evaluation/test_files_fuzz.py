"""Whatever is done to a file, it is read as an array of the shape that it claims, or refused in one sentence.

A few seconds of it run with the other tests. To look for more:

    WITHLOGITS_FUZZ_SECONDS=600 python -m pytest -q tests/evaluation/test_files_fuzz.py

Each file lies in /tmp/withlogits-fuzz (or the system's folder for temporary files) while it is read, so that one that
brings down the interpreter is still there. A file that takes a minute ends the run, with the place where it hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from evaluation.formats import BFLOAT16, WRITERS, Array, example, parquet_column, zarr_store
from withlogits.evaluation.files import BadFile, NoSuchArray, open_array
from withlogits.tiles import cut, size

SECONDS = float(os.environ.get("WITHLOGITS_FUZZ_SECONDS", "0"))
EXAMPLES = 100  # of each format, among the other tests
MOST_BLOCKS = 50  # of a file that claims a lot, and keeps it
MEGABYTES = 400  # by which the process may grow over one file

Files = dict[str, bytes]  # of a folder, by their paths; a file alone has the path ""
ZIPPED = "zipped:"  # before the path of a member of an archive

# One change: what is done, where (as a share of the length, from either end, or among the numbers), and with what.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "set", "cut", "insert", "copy", "number", "number", "zero"]),
        st.one_of(st.floats(0, 1), st.integers(0, 600), st.integers(-600, -1)),
        st.one_of(
            st.binary(min_size=1, max_size=9),
            st.sampled_from(
                [b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\0\0\0\x80", b"\xff\xff\xff\x7f"]
            ),
        ),
    ),
    min_size=1,
    max_size=3,
)
NUMBERS = [b"-1", b"0", b"1", b"2", b"7", b"255", b"65537", b"2147483648", b"10000000000", b"9223372036854775807"]
NUMBERS += [b"1" + b"0" * 15, b"18446744073709551616", b"1e3", b"null", b'"4"', b"[3]"]


def changed(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    data = bytearray(content)
    for what, where, value in changes:
        at = int(where * len(data)) if isinstance(where, float) else where % max(1, len(data))
        at = min(at, max(0, len(data) - 1))
        if what == "flip" and data:
            data[at] ^= value[0] or 1
        elif what == "set":
            data[at : at + len(value)] = value
        elif what == "cut":
            del data[at:]
        elif what == "insert":
            data[at:at] = value
        elif what == "zero":
            data[at : at + 40] = bytes(len(data[at : at + 40]))
        elif what == "copy":
            begin = int.from_bytes(value[:4], "little") % max(1, len(data))
            data[at : at + 4 * len(value)] = data[begin : begin + 4 * len(value)]
        elif numbers := list(re.finditer(rb"(?<![\w.])\d+(?![\w.])", data)):
            found = numbers[at % len(numbers)]
            data[found.start() : found.end()] = NUMBERS[value[0] % len(NUMBERS)]
    return bytes(data)


def plain_parquet(path: Path, array: Array) -> str:
    """Without what notices a change: checksums of a packed page, and Arrow's own copy of the schema."""
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
    return parquet_column(path, array, fixed=False, **options)


def plain_zarr(path: Path, array: Array) -> str:
    return zarr_store(path, array, compressors=None)


def latest_hdf5(path: Path, array: Array) -> str:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(
            "x", data=array, chunks=tuple(min(2, n) for n in array.shape), maxshape=(None,) * array.ndim
        )
    return f"{path}:x"


FORMS = WRITERS | {
    "plain parquet": (".parquet", plain_parquet),
    "plain zarr": (".zarr", plain_zarr),
    "latest hdf5": (".h5", latest_hdf5),
}


def valid(form: str) -> list[tuple[str, Files]]:
    """Files that are right, each with what follows the name of the file, to be changed."""
    made = []
    for dtype, shape in [("f4", (7, 3)), ("i8", (13,)), ("?", (2, 3, 4)), (BFLOAT16, (9, 2))]:
        if dtype is BFLOAT16 and form != "safetensors":
            continue
        with tempfile.TemporaryDirectory() as folder:
            ending, write = FORMS[form]
            name = write(Path(folder) / f"it{ending}", example(np.dtype(dtype), shape))
            path, _, member = name.partition(":")
            files = [file for file in Path(path).rglob("*") if file.is_file()] or [Path(path)]
            content = {os.path.relpath(file, path) if file != Path(path) else "": file.read_bytes() for file in files}
            made.append((f":{member}" if member else "", content))
            if zipfile.is_zipfile(path):  # what its members hold is changed before they get their checksums
                with zipfile.ZipFile(path) as archive:
                    members = {ZIPPED + inside: archive.read(inside) for inside in archive.namelist()}
                made += 3 * [(made[-1][0], members)]
    return made


def write(path: Path, files: Files) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    if min(files).startswith(ZIPPED):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for inside, content in files.items():
                archive.writestr(inside.removeprefix(ZIPPED), content)
        return
    for inside, content in files.items():
        file = path / inside if inside else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def megabytes() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(name: str, budget: int, along_first: bool) -> None:
    """All of the blocks, or as many as make sense; every way but two to end is a failure."""
    try:
        file = open_array(name)
        assert all(isinstance(length, int) and length >= 0 for length in file.shape)
        assert file.nbytes == math.prod(file.shape) * file.dtype.itemsize
        if file.nbytes > 1 << 26:
            budget = 1 << 20
        axis = 0 if along_first and file.shape and file.shape[0] < 1 << 20 else None
        tiling = cut(file.shape, axis, budget, file.fortran)
        blocks = file.blocks(tiling)
        with contextlib.closing(blocks):
            for count, (tile, block) in enumerate(zip(tiling, blocks, strict=True)):
                assert (block.shape, block.dtype) == (size(file.shape, tile), file.dtype)
                assert block.tobytes() is not None  # touches all of it
                if count > MOST_BLOCKS:
                    break
    except (BadFile, NoSuchArray) as error:
        text = str(error)
        assert text.startswith(name.partition(":")[0]), text
        assert text.isprintable(), text
        assert len(text) < 1000, text


def fuzzed(form: str, path: Path, examples: int, first: int) -> None:
    samples = valid(form)

    @seed(first)
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=False,
        phases=[Phase.generate] if SECONDS else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        sample=st.sampled_from(samples),
        which=st.integers(0, 100),
        changes=CHANGES,
        named=st.booleans(),
        budget=st.sampled_from([5, 1000]),
        along_first=st.booleans(),
    )
    def run(sample, which, changes, named, budget, along_first):
        member, files = sample
        inside = sorted(files)[which % len(files)]
        write(path, {**files, inside: changed(files[inside], changes)})
        before = megabytes()
        if SECONDS:
            faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
        read(f"{path}{member if named else ''}", budget, along_first)
        if SECONDS:
            faulthandler.cancel_dump_traceback_later()
        assert megabytes() - before < MEGABYTES, f"{path} took {megabytes() - before:.0f} MB"

    run()


@pytest.mark.parametrize("form", FORMS)
def test_a_few_changes(tmp_path, form):
    fuzzed(form, tmp_path / f"it{FORMS[form][0]}", EXAMPLES, 0)


@pytest.mark.skipif(not SECONDS, reason="asked for with WITHLOGITS_FUZZ_SECONDS")
def test_many_changes(capfd):
    folder = Path(tempfile.gettempdir()) / "withlogits-fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    begin, rounds = time.monotonic(), 0
    first = int(begin * 1000) % 1_000_000
    while time.monotonic() - begin < SECONDS:
        for form, (ending, _) in FORMS.items():
            fuzzed(form, folder / f"{form.replace(' ', '-')}{ending}", 200, first + rounds)
        rounds += 1
    with capfd.disabled():
        print(f"\n{rounds} rounds of 200 files of each of {len(FORMS)} formats, from seed {first}")
