"""Files that results are written to: checked before the work, replaced only by a file that is complete.

| the path leads to                                  | what happens                                        |
|----------------------------------------------------|-----------------------------------------------------|
| nothing, in a folder that takes new files          | the file appears when it is complete                |
| a regular file that we may write                   | it is replaced at the end; its permissions are kept |
| a symbolic link                                    | the same, for the link's target                     |
| a FIFO, this process's stdout or stderr            | written as a stream                                 |
| an input, a folder, another device, a socket,      | refused with an `OSError`, whose `strerror` is one  |
| a file or a folder that we may not write           | sentence                                            |
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.files import path_of
from withlogits.evaluation.files.errors import printable

StrPath = str | os.PathLike[str]
Refusal = tuple[int, str]  # errno, and the sentence


def check_output(path: StrPath, inputs: Iterable[StrPath] = ()) -> None:
    """Raise an `OSError` if the path cannot be written, is one of the inputs, or lies inside one.

    An input may be named as `open_array` takes it, with the name of an array after that of the file. Files are compared
    by identity: another name of an input, such as a link, is refused too.
    """
    if refusal := _refusal(os.fspath(path), inputs):
        raise OSError(refusal[0], f"{printable(os.fspath(path))} {refusal[1]}", os.fspath(path))


@contextmanager
def open_output(path: StrPath, inputs: Iterable[StrPath] = ()) -> Iterator[IO[bytes]]:
    """Open a checked path to write bytes.

    They go to a temporary file beside the target, which takes its name at the end, and is removed after an error.
    """
    check_output(path, inputs)
    found, target = _stat(path), Path(os.path.realpath(path))
    if (found is not None and not stat.S_ISREG(found.st_mode)) or _standard_stream(found) is not None:
        if sys.stdout is not None:
            sys.stdout.flush()
        number = _standard_stream(found)
        with open(path if number is None else os.dup(number), "wb") as stream:
            yield stream
        return
    partial = _beside(target)
    try:
        with partial.open("xb") as stream:
            yield stream
        if found is not None:
            with suppress(OSError):  # only root may give a file away
                os.chown(partial, found.st_uid, found.st_gid)
            partial.chmod(stat.S_IMODE(found.st_mode))
        os.replace(partial, target)
    except BaseException:  # an interrupt too
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def npy_writer(
    path: StrPath, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, inputs: Iterable[StrPath] = ()
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Give a function that appends a block to a .npy file, in the order in which the elements lie in the file."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    with open_output(path, inputs) as stream:
        np.lib.format.write_array_header_1_0(stream, header)

        def write(block: NDArray[Any]) -> None:
            stream.write(block.tobytes("F" if fortran else "C"))

        yield write


def _refusal(path: str, inputs: Iterable[StrPath]) -> Refusal | None:
    """Return why the path is refused."""
    try:
        found, target = _stat(path), Path(os.path.realpath(path))
        if any(_holds(path_of(os.fspath(name)), target, found) for name in inputs):
            return errno.EEXIST, "is read as an input; choose another file"
        if found is None and not target.parent.is_dir():
            folder = printable(str(target.parent if os.path.islink(path) else Path(path).parent))
            return errno.ENOENT, f"cannot be written: there is no folder {folder}; make it first"
        if _standard_stream(found) is not None:
            return None
        if found is not None and stat.S_ISDIR(found.st_mode):
            return errno.EISDIR, "is a folder; give it the name of a file"
        if found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
            return errno.EINVAL, "is a device or a socket; choose a regular file, a pipe or /dev/stdout"
        if found is not None and not (found.st_mode & 0o222 and os.access(path, os.W_OK)):
            return errno.EACCES, "cannot be written: it is read-only"  # to root too, who could write it
        if found is None or stat.S_ISREG(found.st_mode):
            partial = _beside(target)
            try:
                partial.touch(exist_ok=False)  # no other check knows all reasons why a folder may refuse a file
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        return error.errno or errno.EIO, f"cannot be written: {error.strerror}"
    return None


def _stat(path: StrPath) -> os.stat_result | None:
    """Return the status of what the path leads to; None where nothing is yet."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _holds(source: str, target: Path, found: os.stat_result | None) -> bool:
    """Return whether an input is the target, or a folder around it."""
    try:
        held = os.stat(source)
        if found is not None and os.path.samestat(found, held):
            return True
        return stat.S_ISDIR(held.st_mode) and any(
            os.path.samestat(os.stat(folder), held) for folder in target.parents if folder.exists()
        )
    except OSError:
        return False  # an input that cannot be read is not overwritten either


def _standard_stream(found: os.stat_result | None) -> int | None:
    """Return the descriptor of stdout or stderr if that is what was found."""
    for number in (1, 2):
        with suppress(OSError):
            if found is not None and os.path.samestat(found, os.fstat(number)):
                return number
    return None


def _beside(target: Path) -> Path:
    """Return a name for the file until it is complete."""
    return target.with_name(f".withlogits-{secrets.token_hex(6)}.partial")
