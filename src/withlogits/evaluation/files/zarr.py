"""Arrays in Zarr stores, a folder or a zip archive, of either version of the format.

Zarr finds the chunks and puts them together. Two lengths are bounded here: that of a value in the store, and that to
which a chunk unpacks. Only codecs that can do nothing but unpack are let through; a pickle is one of the others. A
chunk that a store lacks stands for its fill value, so one that was lost is not noticed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numcodecs.abc import Codec as Compressor
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore, WrapperStore, ZipStore

from withlogits.evaluation.files.array import Array, ArrayFile, ChunkedFile, check_numbers
from withlogits.evaluation.files.errors import BadFile, chosen, one_line, telling
from withlogits.evaluation.files.unpack import METHODS, check_member, longest, unpacked
from withlogits.tiles import Tile

DESCRIPTIONS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
METADATA = 1 << 24  # the longest of them
PACKED = {BloscCodec: "blosc", GzipCodec: "gzip", ZstdCodec: "zstd"}


@dataclass(frozen=True)
class ZarrFile(ChunkedFile):
    """An array in a Zarr store."""

    kind = "Zarr store"

    def _open(self) -> Any:
        return OpenArray(self.name, self.path, self.member)

    def _read(self, source: Any, index: Tile) -> Array:
        return np.asarray(source.array[index])


class OpenArray:
    """An array whose chunks are unpacked to a bounded length, with the store that has to be closed after it."""

    def __init__(self, name: str, path: str, member: str | None) -> None:
        self.store = opened_store(name, path)
        try:
            array: Any = self._find(name, path, member)
            metadata = array.metadata
            if metadata.zarr_format == 2:
                metadata = replace(metadata, compressor=_bounded_compressor(name, metadata))
            else:
                metadata = replace(metadata, codecs=_bounded(name, metadata.codecs))
            outer = array.shards or array.chunks
            pieces = int(np.prod([-(-o // i) for o, i in zip(outer, array.chunks, strict=True)], dtype=object))
            self.store.limit = 2 * longest(outer, array.dtype.itemsize) + 64 * pieces  # a shard lists its chunks
            self.array: Any = zarr.Array(zarr.AsyncArray(metadata, array.store_path))
        except BaseException:
            self.store.close()
            raise

    def _find(self, name: str, path: str, member: str | None) -> Any:
        """Return the array that is named, or the only one in the store."""
        try:
            node = zarr.open(store=self.store, path=(member or "").strip("/"), mode="r")
        except FileNotFoundError:
            node = None
        if isinstance(node, zarr.Array):
            return node
        top = zarr.open_group(store=self.store, mode="r", use_consolidated=False)
        held = sorted(key for key, item in top.members(max_depth=None) if isinstance(item, zarr.Array))
        return zarr.open_array(store=self.store, path=chosen(name, path, member, held), mode="r")

    def close(self) -> None:
        self.store.close()


class CheckedStore(WrapperStore[Store]):
    """A store whose values are regular files of a bounded length."""

    def __init__(self, store: Store, length: Callable[[str], int]) -> None:
        super().__init__(store)
        self.length = length
        self.limit = 0

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        try:
            length = self.length(key)
        except (KeyError, FileNotFoundError, NotADirectoryError):
            return None
        limit = METADATA if key.rpartition("/")[2] in DESCRIPTIONS else self.limit
        if length > limit:
            raise ValueError(f"{key} has {length:,} bytes, where {limit:,} are the most")
        if not length:  # which would pass for one that is missing
            raise ValueError(f"{key} is empty (0 bytes)")
        return await self._store.get(key, prototype, byte_range)


@dataclass(frozen=True)
class Bounded(BytesBytesCodec):
    """A codec that stops where a chunk is longer than it should be."""

    method: str
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: Any) -> Buffer:
        limit = longest(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize)
        data = await asyncio.to_thread(unpacked, self.method, chunk_bytes.to_bytes(), limit)
        found: Buffer = chunk_spec.prototype.buffer.from_array_like(np.frombuffer(data, np.uint8))
        return found

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        raise NotImplementedError


class BoundedCompressor(Compressor):  # type: ignore[misc]
    """The same for version 2 of the format."""

    codec_id = "bounded"

    def __init__(self, method: str, limit: int) -> None:
        self.method, self.limit = method, limit

    def decode(self, buf: Any, out: Any = None) -> Any:
        return np.frombuffer(unpacked(self.method, bytes(buf), self.limit), np.uint8)

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError


def open_zarr(name: str, path: str, member: str | None) -> ArrayFile:
    """Return an array, of which only the description is read."""
    with telling(name, ZarrFile.kind), closing(OpenArray(name, path, member)) as source:
        array = source.array
        dtype = check_numbers(name, array.dtype)
        # The chunks inside a shard, of which each is unpacked by itself.
        return ZarrFile(name, path, array.path, tuple(array.shape), dtype, False, tuple(array.chunks)).checked()


def opened_store(name: str, path: str) -> CheckedStore:
    """Return the store in a folder or in a zip archive."""
    if os.path.isdir(path):

        def length(key: str) -> int:
            found = os.stat(os.path.join(path, key))
            if stat.S_ISDIR(found.st_mode):
                raise KeyError(key)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{key} is no regular file")
            return found.st_size

        return CheckedStore(LocalStore(path, read_only=True), length)

    archive = os.path.getsize(path)
    with zipfile.ZipFile(path) as opened:
        members = {info.filename: info for info in opened.infolist()}

    def length_of_member(key: str) -> int:
        check_member(name, members[key], archive)
        return members[key].file_size

    return CheckedStore(ZipStore(path, mode="r"), length_of_member)


def _bounded(name: str, codecs: Iterable[Codec]) -> list[Codec]:
    """Return the codecs, with those that unpack replaced by bounded ones."""
    known: list[Codec] = []
    for codec in codecs:
        if type(codec) in PACKED:
            known.append(Bounded(PACKED[type(codec)]))
        elif isinstance(codec, ShardingCodec):
            _bounded(name, codec.index_codecs)
            known.append(replace(codec, codecs=tuple(_bounded(name, codec.codecs))))
        elif isinstance(codec, BytesCodec | Crc32cCodec | TransposeCodec):
            known.append(codec)
        else:
            raise _unknown(name, codec.to_dict().get("name"))
    return known


def _bounded_compressor(name: str, metadata: Any) -> BoundedCompressor | None:
    for codec in metadata.filters or ():
        raise _unknown(name, codec.codec_id)
    if metadata.compressor is None:
        return None
    method = metadata.compressor.codec_id
    if method not in METHODS:
        raise _unknown(name, method)
    return BoundedCompressor(method, longest(metadata.chunks, metadata.dtype.to_native_dtype().itemsize))


def _unknown(name: str, codec: object) -> BadFile:
    return BadFile(
        f"{name} is packed with the codec {one_line(codec)!r}, which is not read; "
        f"store the array with one of {', '.join(METHODS)}, or with none"
    )
