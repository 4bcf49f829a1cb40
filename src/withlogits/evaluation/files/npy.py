"""Arrays in .npy and .npz files; a pickle is never opened.

A .npy file is mapped. A member of an .npz file, stored or deflated, is a stream.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np

from withlogits.evaluation.files.array import ArrayFile, MappedFile, Shape, Stream, StreamedFile, check_shape
from withlogits.evaluation.files.errors import BadFile, chosen, damaged_header, one_line, telling
from withlogits.evaluation.files.unpack import check_member

NPY = b"\x93NUMPY"
Header = tuple[Shape, bool, np.dtype[Any]]
PARSERS: dict[tuple[int, int], Callable[[IO[bytes]], Header]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyFile(MappedFile):
    """An array in a .npy file."""

    kind = ".npy file"


@dataclass(frozen=True)
class NpzMember(StreamedFile):
    """An array in an .npz file."""

    offset: int  # of the first element in the member

    kind = ".npz file"

    def _open(self) -> Stream:
        with zipfile.ZipFile(self.path) as archive:
            stream = _member(self.name, archive, self.member or "")
        stream.read(self.offset)
        return cast(Stream, stream)


def open_npy(name: str, path: str, member: str | None) -> ArrayFile:
    """Return the array in a .npy file, of which only the header is read."""
    if member is not None:
        raise BadFile(f"{name} names a member of a .npy file, which has none")
    with telling(name, NpyFile.kind), open(path, "rb") as stream:
        shape, fortran, dtype = _header(name, stream)
        return NpyFile(name, path, None, shape, dtype, fortran, stream.tell()).checked()


def open_npz(name: str, path: str, member: str | None) -> ArrayFile:
    """Return an array in an .npz file, of which only the header is read."""
    with telling(name, NpzMember.kind), zipfile.ZipFile(path) as archive:
        held = archive.namelist()
        arrays = [entry.removesuffix(".npy") for entry in held]  # NumPy adds it to an array's name
        inside = member if member in held else held[arrays.index(chosen(name, path, member, arrays))]
        info = archive.getinfo(inside)
        check_member(name, info, os.path.getsize(path))
        with _member(name, archive, inside) as stream:
            shape, fortran, dtype = _header(name, stream)
            array = NpzMember(name, path, inside, shape, dtype, fortran, stream.tell())
        array.check_length(info.file_size - array.offset)
        return array


def _member(name: str, archive: zipfile.ZipFile, member: str) -> Any:
    try:
        return archive.open(member)
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, an encrypted member
        raise BadFile(f"{name} cannot be unpacked: {one_line(error)}") from None


def _header(name: str, stream: IO[bytes]) -> Header:
    """Return shape, memory order and dtype of an array of numbers."""
    shape, fortran, dtype = _parsed(name, stream)
    check_shape(name, shape)
    if dtype.hasobject:
        raise BadFile(f"{name} holds Python objects, which only a pickle can carry, and a pickle is never opened")
    if dtype == np.dtype("V2"):
        raise BadFile(
            f"{name} holds 2-byte voids (|V2), as NumPy stores bfloat16; rewrite it once with "
            "numpy.save(file, numpy.load(file).view(ml_dtypes.bfloat16).astype(numpy.float32))"
        )
    if not dtype.itemsize or dtype.shape:
        raise damaged_header(name, f"dtype {one_line(dtype.str)} of {dtype.itemsize} bytes")
    return tuple(map(int, shape)), fortran, dtype


def _parsed(name: str, stream: IO[bytes]) -> Header:
    """Return what NumPy's parser finds; over damaged bytes it raises errors of many types."""
    try:
        version = np.lib.format.read_magic(stream)
        if version in PARSERS:
            return PARSERS[version](stream)
    except (zipfile.BadZipFile, zlib.error, OSError):
        raise
    except Exception as error:
        raise damaged_header(name, one_line(error)) from None
    got = ".".join(map(str, version))
    raise BadFile(f"{name} has format version {got}, where 1.0 or 2.0 is expected for an array of numbers")
