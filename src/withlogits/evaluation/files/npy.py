"""Arrays in .npy and .npz files; a pickle is never opened.

A .npy file is mapped. A member of an .npz file, stored or deflated, is a stream.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np

from withlogits.evaluation.files.array import (
    ArrayFile,
    MappedFile,
    Shape,
    Stream,
    StreamedFile,
    check_length,
    check_shape,
)
from withlogits.evaluation.files.errors import BadFile, chosen, one_line, telling
from withlogits.evaluation.files.zips import check_member

NPY = b"\x93NUMPY"


class NpyFile(MappedFile):
    """An array in a .npy file."""

    kind = ".npy file"


@dataclass(frozen=True)
class NpzMember(StreamedFile):
    """An array in an .npz file."""

    offset: int  # of the first element in the member

    kind = ".npz file"

    def _open(self) -> Stream:
        stream = _member(self.name, self.path, self.member or "")
        stream.read(self.offset)
        return cast(Stream, stream)


def open_npy(name: str, path: str, member: str | None) -> ArrayFile:
    """Return the array in a .npy file, of which only the header is read."""
    if member is not None:
        raise BadFile(f"{name} names a member of a .npy file, which has none")
    with telling(name, NpyFile.kind), open(path, "rb") as stream:
        shape, fortran, dtype = _header(name, stream)
        array = NpyFile(name, path, None, shape, dtype, fortran, stream.tell())
        check_length(array, os.fstat(stream.fileno()).st_size - array.offset)
    return array


def open_npz(name: str, path: str, member: str | None) -> ArrayFile:
    """Return an array in an .npz file, of which only the header is read."""
    with telling(name, NpzMember.kind):
        with zipfile.ZipFile(path) as archive:
            inside = _member_name(name, path, member, archive.namelist())
            info = archive.getinfo(inside)
            check_member(name, info, os.path.getsize(path))
        with _member(name, path, inside) as stream:
            shape, fortran, dtype = _header(name, stream)
            array = NpzMember(name, path, inside, shape, dtype, fortran, stream.tell())
            check_length(array, info.file_size - array.offset)
    return array


def _member(name: str, path: str, member: str) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.open(member)
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, an encrypted member
        raise BadFile(f"{name} cannot be unpacked: {one_line(error)}") from None


def _member_name(name: str, path: str, member: str | None, held: list[str]) -> str:
    """Return the member's name in the archive, where NumPy adds .npy to the array's name."""
    if member in held:
        return str(member)
    arrays = [entry.removesuffix(".npy") for entry in held]
    return held[arrays.index(chosen(name, path, member, arrays))]


def _header(name: str, stream: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
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
        raise BadFile(f"{name} has a damaged header: dtype {one_line(dtype.str)} of {dtype.itemsize} bytes")
    return tuple(map(int, shape)), fortran, dtype


def _parsed(name: str, stream: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Return what NumPy's parser finds; over damaged bytes it raises errors of many types."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except (zipfile.BadZipFile, zlib.error, OSError):
        raise
    except Exception as error:
        raise BadFile(f"{name} has a damaged header: {one_line(error)}") from None
    got = ".".join(map(str, version))
    raise BadFile(f"{name} has format version {got}, where 1.0 or 2.0 is expected for an array of numbers")
