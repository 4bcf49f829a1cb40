"""Datasets in HDF5 files.

What lies in other files is not read: a file that somebody sends names no other file of this machine. So external links,
external storage and virtual datasets are refused, and soft links with them, since they may end in an external one.
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from withlogits.evaluation.files.array import Array, ArrayFile, ChunkedFile, Shape, check_numbers
from withlogits.evaluation.files.errors import BadFile, NoSuchArray, chosen, listed, needed, one_line, telling
from withlogits.evaluation.files.unpack import longest, unpacked
from withlogits.tiles import Tile

HDF5 = b"\x89HDF\r\n\x1a\n"
DEFLATE, FLETCHER32 = 1, 3  # HDF5's numbers for them
DEFLATE_TIMES = 1032  # how far it can unpack
UNCHECKED = 1 << 25  # bytes to which a chunk may unpack unchecked
MOST = 1000  # datasets that are looked for where none is named


@dataclass(frozen=True)
class Hdf5File(ChunkedFile):
    """A dataset in an HDF5 file."""

    kind = "HDF5 file"

    def _open(self) -> Any:
        import h5py

        return h5py.File(self.path, "r")

    def _read(self, source: Any, index: Tile) -> Array:
        dataset = source[self.member]
        if self.chunks is not None:
            _check_chunks(dataset, self.chunks, index)
        return np.asarray(dataset[index])


def open_hdf5(name: str, path: str, member: str | None) -> ArrayFile:
    """Return a dataset, of which only the header and the index of chunks are read."""
    library = needed(name, "", "h5py", "hdf5")
    with telling(name, Hdf5File.kind), library.File(path, "r") as file:
        if member is None:
            member = chosen(name, path, None, _datasets(library, file), "dataset")
        inside = member.strip("/")
        dataset = _dataset(library, name, path, file, inside)
        if dataset.shape is None:
            raise BadFile(f"{name} holds no elements: its dataspace is null")
        dtype = check_numbers(name, np.dtype(dataset.dtype.str) if dataset.dtype.kind in "biuf" else dataset.dtype)
        array = Hdf5File(name, path, inside, tuple(dataset.shape), dtype, False, dataset.chunks).checked()
        if array.chunks is not None:
            _check_index(dataset, array.chunks, array.stored)
        return array


def _dataset(library: Any, name: str, path: str, file: Any, inside: str) -> Any:
    """Return what hard links lead to, step by step."""
    found = file
    for step in inside.split("/"):
        link = found.get(step, getlink=True) if isinstance(found, library.Group) and step in set(found) else None
        if link is None:
            held = listed(_datasets(library, file)) or "none"
            raise NoSuchArray(f"{path} holds no dataset {inside!r}; it holds {held}")
        if not isinstance(link, library.HardLink):
            kind = "an external" if isinstance(link, library.ExternalLink) else "a soft"
            raise BadFile(
                f"{name} goes through {kind} link to {one_line(link.path)}, and links are not followed; "
                "name the file and the dataset that it leads to"
            )
        found = found[step]
    if not isinstance(found, library.Dataset):
        held = listed(_datasets(library, file)) or "none"
        raise NoSuchArray(f"{name} is no dataset; the file holds {held}")
    if found.is_virtual or found.external:
        raise BadFile(f"{name} lies in other files, which are not opened; copy it into one dataset")
    filters = _filters(found)
    for number in filters:
        if not library.h5z.filter_avail(number):
            raise BadFile(f"{name} is packed with HDF5's filter {number}, which is not installed")
    if DEFLATE in filters and filters[filters.index(DEFLATE) + 1 :] not in ([], [FLETCHER32]):
        raise BadFile(f"{name} is packed with HDF5's filters {filters}: after deflate (1) only fletcher32 (3) is read")
    return found


def _filters(dataset: Any) -> list[int]:
    """Return the numbers of the filters that packed a chunk, in their order."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def _datasets(library: Any, file: Any) -> list[str]:
    """Return the paths of the datasets behind hard links, `MOST` at most; a dataset with several has one path."""
    found: list[str] = []

    def visit(path: str, item: Any) -> bool | None:
        if isinstance(item, library.Dataset):
            found.append(path)
        return len(found) >= MOST or None  # True ends the visit

    file.visititems(visit)
    return sorted(found)


def _check_index(dataset: Any, chunks: Shape, length: int) -> None:
    """Check that every chunk lies in the file, and no two are the same.

    HDF5 does not check its index of chunks: one of 0 bytes, where a checksum should be, crashes the interpreter.
    """
    filters = _filters(dataset)
    least, most = 1 + 4 * (FLETCHER32 in filters), 2 * longest(chunks, dataset.dtype.itemsize)
    grid = tuple(-(-n // chunk) for n, chunk in zip(dataset.shape, chunks, strict=True))
    seen = np.zeros(grid, bool)

    def wrong(info: Any) -> str | None:
        place = tuple(at // chunk for at, chunk in zip(info.chunk_offset, chunks, strict=True))
        aligned = all(at == i * chunk for at, i, chunk in zip(info.chunk_offset, place, chunks, strict=True))
        if not aligned or any(i >= n for i, n in zip(place, grid, strict=True)) or seen[place]:
            return f"its chunks are not one each: {info.chunk_offset}"
        if not least <= info.size <= most or info.byte_offset + info.size > length:
            return f"its chunk {info.chunk_offset} has {info.size:,} bytes at {info.byte_offset:,}"
        seen[place] = True
        return None

    if (text := dataset.id.chunk_iter(wrong)) is not None:
        raise ValueError(text)


def _check_chunks(dataset: Any, chunks: Shape, index: Tile) -> None:
    """Check that the chunks of a part unpack to no more than they should.

    HDF5 unpacks a chunk to any length. A deflated chunk is unpacked here first, which takes about as long as to read
    it. The other filters that HDF5 brings along cannot expand a chunk by much.
    """
    filters = _filters(dataset)
    if not filters:
        return
    limit = longest(chunks, dataset.dtype.itemsize)
    corners = (range(cut.start // n * n, cut.stop, n) for cut, n in zip(index, chunks, strict=True))
    for corner in itertools.product(*corners):
        info = dataset.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:  # a chunk that was never written
            continue
        if DEFLATE in filters and info.size * DEFLATE_TIMES > limit + UNCHECKED:
            mask, data = dataset.id.read_direct_chunk(corner)
            if not mask >> filters.index(DEFLATE) & 1:
                with contextlib.suppress(zlib.error, EOFError):  # HDF5 raises an error of its own
                    unpacked("zlib", data, limit)
