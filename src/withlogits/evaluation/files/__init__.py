"""Arrays in files of several formats, read in blocks; a pickle is never opened.

The package of a format is imported when a file needs it. The first bytes of a file tell its format, not its ending.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable

from withlogits.evaluation.files.array import ArrayFile
from withlogits.evaluation.files.errors import BadFile, NoSuchArray, needed, telling
from withlogits.evaluation.files.hdf5 import HDF5, open_hdf5
from withlogits.evaluation.files.npy import NPY, open_npy, open_npz
from withlogits.evaluation.files.parquet import PARQUET, open_parquet
from withlogits.evaluation.files.safetensors import is_safetensors, open_safetensors

__all__ = ["ArrayFile", "BadFile", "NoSuchArray", "open_array", "path_of"]

ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an archive without members
STORE = {"zarr.json", ".zarray", ".zgroup"}  # what marks a folder or an archive as one of Zarr
PICKLE = b"\x80"
READ = ".npy, .npz, .safetensors, .parquet, .zarr or HDF5"

Reader = Callable[[str, str, str | None], ArrayFile]
MAGIC: dict[bytes, Reader] = {NPY: open_npy, PARQUET: open_parquet, HDF5: open_hdf5}


def open_array(name: str) -> ArrayFile:
    """Return the array that `name` leads to: FILE if it holds one array, or FILE:NAME.

    FILE is a .npy, .npz, .safetensors, .parquet or HDF5 file, or a .zarr folder or zip archive; NAME is a member, a
    tensor, a column, or the path of an array or a dataset. Only the header is read.

    Raises
    ------
    NoSuchArray
        If there is no such file or array, a file of several arrays is named without one, or the format's package is not
        installed.
    BadFile
        If the file is damaged or holds something else than numbers.
    """
    path, member = split(name)
    with telling(name):
        reader = _reader(name, path)
        return reader(name, path, member)


def path_of(name: str) -> str:
    """Return the path of the file that `open_array` reads for this name."""
    return split(name)[0]


def split(name: str) -> tuple[str, str | None]:
    """Split FILE:NAME into the path of a file that exists and the name of the array, if one follows."""
    path = name
    while not _there(path):
        path, mark, _ = path.rpartition(":")
        if not mark:
            return name, None
    return path, None if path == name else name[len(path) + 1 :]


def _there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:  # there, but not for us: the reader says why
        return True
    return True


def _reader(name: str, path: str) -> Reader:
    """Return the function that reads such a file."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode) and any(os.path.exists(os.path.join(path, mark)) for mark in STORE):
        return _reader_of_zarr(name)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadFile(f"{name} is no regular file, and blocks of a stream cannot be read again; write it to a file")
    with open(path, "rb") as stream:
        begins = stream.read(16)
    if begins.startswith(ZIP):
        return _reader_of_zip(name, path)
    if is_safetensors(begins):
        return open_safetensors
    for magic, reader in MAGIC.items():
        if begins.startswith(magic):
            return reader
    raise BadFile(_no_array_file(name, begins))


def _reader_of_zip(name: str, path: str) -> Reader:
    """Return the reader of an .npz file, or of a zipped store of Zarr."""
    with telling(name, "zip archive"), zipfile.ZipFile(path) as archive:
        held = archive.namelist()
    return _reader_of_zarr(name) if STORE & set(held) else open_npz


def _reader_of_zarr(name: str) -> Reader:
    """Return the one reader whose module cannot be imported without its package."""
    needed(name, "", "zarr", "zarr")
    from withlogits.evaluation.files.zarr import open_zarr

    return open_zarr


def _no_array_file(name: str, begins: bytes) -> str:
    if not begins:
        return f"{name} is empty (0 bytes)"
    if begins.startswith(PICKLE):
        return f"{name} is a pickle, which is never opened; save the array with numpy.save"
    return f"{name} is no {READ} file: it begins with {begins[:6]!r}"
