"""Arrays in .npy and .npz files, read in blocks; a pickle is never opened.

A .npy file is mapped into memory, and the pages of a block are handed back once it was read, so that what stays
resident is a block and not the file. A member of an .npz file, stored or deflated, is a stream: it is read from its
beginning to its end, block after block. Where the blocks that are asked for do not follow each other in the stream, the
member is unpacked into a temporary file, and that is mapped.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.tiles import Tiling, size

Array = NDArray[Any]
Shape = tuple[int, ...]

NPY = b"\x93NUMPY"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an archive without members
PICKLE = b"\x80"


class BadFile(Exception):
    """A file that does not hold what it should; the message is one sentence that begins with its name."""


class NoSuchArray(Exception):
    """A name that leads to no array: a missing file, or a member that is missing or not named."""


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file: what its header says, and how to read it in blocks."""

    name: str  # as the caller gave it
    path: str
    member: str | None  # of an .npz file
    shape: Shape
    dtype: np.dtype[Any]
    fortran: bool
    offset: int  # of the first element, in the file or in the member

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def reshaped(self, shape: Shape) -> ArrayFile:
        """The same elements under a shape that differs by axes of length 1."""
        return replace(self, shape=shape)

    def blocks(self, tiling: Tiling, announce: Callable[[str], None] | None = None) -> Generator[Array]:
        """The blocks one after another; each is valid until the next is asked for, and not to be written to.

        Who does not ask for all of them closes the generator, and with it the file.

        `announce` hears of a temporary file, should one be needed.
        """
        if self.member is None:
            with self._opened() as stream:
                yield from self._mapped(stream, self.offset, tiling)
        elif tiling.is_sequential(self.fortran):
            with self._opened() as stream:
                yield from self._streamed(stream, tiling)
        else:
            if announce is not None:
                announce(
                    f"{self.name}: unpacking {self.nbytes:,} bytes into {tempfile.gettempdir()}, "
                    "since its blocks do not lie one after another"
                )
            with self._opened() as stream, tempfile.TemporaryFile() as unpacked:
                with self._reading():
                    stream.read(self.offset)
                    shutil.copyfileobj(stream, unpacked, 1 << 20)
                    unpacked.flush()
                yield from self._mapped(unpacked, 0, tiling)

    def _mapped(self, stream: IO[bytes], offset: int, tiling: Tiling) -> Iterator[Array]:
        if not self.nbytes:
            return  # an empty stretch cannot be mapped
        with self._reading():
            pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        whole: Array = np.ndarray(self.shape, self.dtype, buffer=pages, offset=offset, order=order)
        for tile in tiling:
            index: tuple[Any, ...] = (*tile, ...)  # with the dots, a block of no axes is an array too
            yield whole[index]
            if hasattr(pages, "madvise"):  # not on Windows, which takes pages back by itself
                pages.madvise(mmap.MADV_DONTNEED)

    def _streamed(self, stream: IO[bytes], tiling: Tiling) -> Iterator[Array]:
        buffer = memoryview(bytearray(math.prod(tiling.extents) * self.dtype.itemsize))
        with self._reading():
            stream.read(self.offset)
        for tile in tiling:
            shape = size(self.shape, tile)
            room = buffer[: math.prod(shape) * self.dtype.itemsize]
            with self._reading():
                self._fill(stream, room)
            yield np.frombuffer(room, self.dtype).reshape(shape, order="F" if self.fortran else "C")

    def _fill(self, stream: IO[bytes], room: memoryview) -> None:
        while room:
            count = stream.readinto(room)  # type: ignore[attr-defined]
            if not count:
                raise BadFile(f"{self.name} ends before its last element")
            room = room[count:]

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with self._reading():
            archive = zipfile.ZipFile(self.path) if self.member is not None else None
            stream = archive.open(self.member) if archive and self.member else open(self.path, "rb")  # noqa: SIM115
        try:
            yield stream
        finally:
            stream.close()
            if archive:
                archive.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with _telling(self.name):
            yield


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """What goes wrong while reading becomes one sentence that begins with the file's name."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadFile(f"{name} is a damaged .npz file: {error}") from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, an encrypted member
        raise BadFile(f"{name} cannot be unpacked: {error}") from None
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
        raise (NoSuchArray if missing else BadFile)(f"{name} cannot be read: {error.strerror}") from None


def open_array(name: str) -> ArrayFile:
    """The array that `name` leads to: FILE.npy, FILE.npz with one member, or FILE.npz:MEMBER.

    Only the header is read. What a file holds is told by its first bytes, not by its ending.

    Raises
    ------
    NoSuchArray
        If there is no such file or member, or a file of several members is named without one.
    BadFile
        If the file is damaged or holds something else than numbers.
    """
    path, member = _split(name)
    with _telling(name), open(path, "rb") as stream:
        begins = stream.read(len(NPY))
        if begins == NPY and member is None:
            stream.seek(0)
            return _described(name, path, None, stream, os.fstat(stream.fileno()).st_size)
        if not begins.startswith(ZIP):
            raise BadFile(_no_array_file(name, begins))
        with zipfile.ZipFile(stream) as archive:
            inside = _member(name, path, member, archive)
            with archive.open(inside) as content:
                return _described(name, path, inside, content, archive.getinfo(inside).file_size)


def _split(name: str) -> tuple[str, str | None]:
    before, mark, member = name.rpartition(".npz:")
    if mark and not os.path.exists(name):
        return f"{before}.npz", member
    return name, None


def _no_array_file(name: str, begins: bytes) -> str:
    if not begins:
        return f"{name} is empty (0 bytes)"
    if begins.startswith(PICKLE):
        return f"{name} is a pickle, which is never opened; save the array with numpy.save"
    if begins == NPY:
        return f"{name} names a member of a .npy file, which has none"
    return f"{name} is neither a .npy nor an .npz file: it begins with {begins!r}"


def _member(name: str, path: str, member: str | None, archive: zipfile.ZipFile) -> str:
    """The member's name in the archive, where NumPy adds .npy to the array's name."""
    held = archive.namelist()
    arrays = [entry.removesuffix(".npy") for entry in held]
    if member is None:
        if len(held) == 1:
            return held[0]
        if not held:
            raise BadFile(f"{name} holds no array")
        raise NoSuchArray(f"{name} holds {len(held)} arrays: name one, as {path}:{arrays[0]} ({', '.join(arrays)})")
    if member not in arrays and member not in held:
        raise NoSuchArray(f"{path} holds no array {member!r}; it holds {', '.join(arrays) or 'none'}")
    return held[arrays.index(member)] if member in arrays else member


def _described(name: str, path: str, member: str | None, stream: IO[bytes], length: int) -> ArrayFile:
    """What the header says, checked against the bytes that there are."""
    shape, fortran, dtype = _header(name, stream)
    if min(shape, default=0) < 0:
        raise BadFile(f"{name} has a damaged header: shape {shape}")
    if dtype.hasobject:
        raise BadFile(f"{name} holds Python objects, which only a pickle can carry, and a pickle is never opened")
    if dtype == np.dtype("V2"):
        raise BadFile(
            f"{name} holds 2-byte voids (|V2), as NumPy stores bfloat16; rewrite it once with "
            "numpy.save(file, numpy.load(file).view(ml_dtypes.bfloat16).astype(numpy.float32))"
        )
    array = ArrayFile(name, path, member, tuple(shape), dtype, fortran, stream.tell())
    if length - array.offset < array.nbytes:
        raise BadFile(
            f"{name} is truncated: shape {array.shape} of {dtype} takes {array.nbytes:,} bytes, "
            f"and {length - array.offset:,} are there"
        )
    return array


def _header(name: str, stream: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Shape, memory order and dtype; NumPy's parser raises errors of many types over damaged bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        if version in ((1, 0), (2, 0)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that a header is of Python 2 is no news to a reader
                if version == (1, 0):
                    return np.lib.format.read_array_header_1_0(stream)
                return np.lib.format.read_array_header_2_0(stream)
    except (zipfile.BadZipFile, zlib.error, OSError):
        raise
    except Exception as error:
        raise BadFile(f"{name} has a damaged header: {' '.join(str(error).split())}") from None
    got = ".".join(map(str, version))
    raise BadFile(f"{name} has format version {got}, where 1.0 or 2.0 is expected for an array of numbers")
