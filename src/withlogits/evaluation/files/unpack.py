"""Bound what packed bytes unpack to: chunks, and members of zip archives.

A chunk of a megabyte can unpack to gigabytes if it means harm, or is damaged, and the libraries that read chunked
formats unpack it to whatever length comes.
"""

from __future__ import annotations

import bz2
import math
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from withlogits.evaluation.files.errors import BadFile, one_line

ZSTD = b"\x28\xb5\x2f\xfd"
INFLATE = partial(zlib.decompressobj, wbits=47)  # zlib or gzip, as the first bytes say
STREAMS: dict[str, Callable[[], Any]] = {"zlib": INFLATE, "gzip": INFLATE, "bz2": bz2.BZ2Decompressor}
# What the bytes of a method say of their length: where it stands, in a header of the chunk.
STATED = {"blosc": slice(4, 8), "lz4": slice(0, 4)}
METHODS = ("blosc", "bz2", "gzip", "lz4", "zlib", "zstd")
# How many times longer the unpacked bytes can be, by the method's own format, with some bytes for very short members.
TIMES = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
OTHERS = 1 << 16  # bzip2 and LZMA
SHORT = 1 << 12


class TooLong(ValueError):
    """A chunk that unpacks to more than its array needs."""


def unpacked(method: str, data: bytes, limit: int) -> Any:
    """Return the bytes; TooLong if there are more than `limit`. Methods but zlib, gzip and bz2 need numcodecs."""
    if method in STREAMS:
        return _inflated(STREAMS[method], data, limit)

    from numcodecs import blosc, lz4, zstd

    if method != "zstd":
        _within(int.from_bytes(data[STATED[method]], "little"), limit)
        return {"blosc": blosc, "lz4": lz4}[method].decompress(data)
    length = zstd_length(data)
    if length is None:  # of a stream: the length shows when it does not fit
        zstd.decompress(data, np.empty(limit, np.uint8))
        return zstd.decompress(data)
    return zstd.decompress(data, np.empty(_within(length, limit), np.uint8))


def zstd_length(data: bytes) -> int | None:
    """Return the length that the first frame states, as RFC 8878 (3.1.1.1) lays it out; None where it states none."""
    if data[:4] != ZSTD or len(data) < 5:
        return None
    descriptor = data[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(data) < begin + width:
        return None
    return int.from_bytes(data[begin : begin + width], "little") + (256 if width == 2 else 0)


def longest(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the length that a chunk may unpack to, where the result may be packed once more, or end in a checksum."""
    nbytes = math.prod(shape) * itemsize
    return nbytes + nbytes // 8 + 4096


def _inflated(new: Any, data: bytes, limit: int) -> bytes:
    """Streams one after another, as gzip and bzip2 have them."""
    parts: list[bytes] = []
    left = limit
    while data:
        stream = new()
        part = stream.decompress(data, left + 1)
        left = limit - _within(limit - left + len(part), limit)
        if not stream.eof:
            raise EOFError("a chunk ends before its last byte")
        parts.append(part)
        data = stream.unused_data
    return b"".join(parts)


def _within(length: int, limit: int) -> int:
    if length > limit:
        raise TooLong(f"a chunk unpacks to {length:,} bytes or more, where {limit:,} are the most")
    return length


def check_member(name: str, info: zipfile.ZipInfo, archive: int) -> None:
    """Raise `BadFile` if an archive of that many bytes cannot hold a member of these sizes.

    A stream ends at its member's size, so a header that states less reads less, and one that states more is refused
    before any memory is allocated.
    """
    times = TIMES.get(info.compress_type, OTHERS)
    if info.compress_size > archive or info.file_size > times * info.compress_size + SHORT:
        raise BadFile(
            f"{name} is a damaged archive: {one_line(info.filename)} claims {info.file_size:,} bytes, packed into "
            f"{info.compress_size:,} of an archive of {archive:,}"
        )
