"""Unpack a chunk, but to no more than its array needs.

A chunk of a megabyte can unpack to gigabytes if it means harm, or is damaged, and the libraries that read chunked
formats unpack it to whatever length comes.
"""

from __future__ import annotations

import bz2
import math
import zlib
from typing import Any

import numpy as np

ZSTD = b"\x28\xb5\x2f\xfd"
# What the bytes of a method say of their length: where it stands, in a header of the chunk.
STATED = {"blosc": slice(4, 8), "lz4": slice(0, 4)}
METHODS = ("blosc", "bz2", "gzip", "lz4", "zlib", "zstd")


class TooLong(ValueError):
    """A chunk that unpacks to more than its array needs."""


def unpacked(method: str, data: bytes, limit: int) -> Any:
    """Return the bytes; TooLong if there are more than `limit`. Methods but zlib, gzip and bz2 need numcodecs."""
    if method in ("zlib", "gzip"):
        return _inflated(lambda: zlib.decompressobj(wbits=47), data, limit)
    if method == "bz2":
        return _inflated(bz2.BZ2Decompressor, data, limit)

    from numcodecs import blosc, lz4, zstd

    if method == "zstd":
        length = zstd_length(data)
        if length is None:  # of a stream: the length shows when it does not fit
            zstd.decompress(data, np.empty(limit, np.uint8))
            return zstd.decompress(data)
        return zstd.decompress(data, np.empty(_within(length, limit), np.uint8))
    _within(int.from_bytes(data[STATED[method]], "little"), limit)
    return {"blosc": blosc, "lz4": lz4}[method].decompress(data)


def inflated_length(data: bytes, limit: int) -> int:
    """Return to how many bytes a zlib stream unpacks; TooLong if more than `limit`."""
    stream, total = zlib.decompressobj(), 0
    while data and not stream.eof:
        total = _within(total + len(stream.decompress(data, 1 << 16)), limit)
        data = stream.unconsumed_tail
    return total


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
