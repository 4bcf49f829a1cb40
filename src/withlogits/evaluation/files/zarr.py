"""Arrays in Zarr stores, a folder or a zip archive, of either version of the format.

Zarr finds the chunks and puts them together. Two things it is not left alone with: how long a value in a store may be,
and to what a chunk unpacks. And it gets only methods of packing to see that can do nothing but unpack; a pickle is one
of the others. A chunk that a store lacks stands for its fill value, so that one that was lost is not noticed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.metadata import ArrayV2Metadata
from zarr.storage import LocalStore, WrapperStore, ZipStore

from withlogits.evaluation.files.array import Array, ArrayFile, ChunkedFile, check_numbers
from withlogits.evaluation.files.errors import BadFile, chosen, one_line, telling
from withlogits.evaluation.files.unpack import METHODS, room, unpacked
from withlogits.evaluation.files.zips import check_member
from withlogits.tiles import Tile

DESCRIPTIONS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
METADATA = 1 << 24  # the longest of them
PACKED = {BloscCodec: "blosc", GzipCodec: "gzip", ZstdCodec: "zstd"}


@dataclass(frozen=True)
class ZarrFile(ChunkedFile):
    """An array in a Zarr store."""

    kind = "Zarr store"

    def _open(self) -> Any:
        return Opened(self.name, self.path, self.member or "")

    def _read(self, source: Any, index: Tile) -> Array:
        return np.asarray(source.array[index])


class Opened:
    """An array, with the store that has to be closed after it."""

    def __init__(self, name: str, path: str, member: str) -> None:
        self.store = opened_store(name, path)
        try:
            array = zarr.open_array(store=self.store, path=member, mode="r")
            metadata: Any = array.metadata
            if isinstance(metadata, ArrayV2Metadata):
                metadata = replace(metadata, compressor=_bounded_compressor(name, metadata))
                outer = metadata.chunks
            else:
                metadata = replace(metadata, codecs=_bounded(name, metadata.codecs))
                outer = array.shards or array.chunks
            pieces = int(np.prod([-(-o // i) for o, i in zip(outer, array.chunks, strict=True)], dtype=object))
            self.store.limit = 2 * room(outer, array.dtype.itemsize) + 64 * pieces  # a shard lists its chunks
            self.array: Any = zarr.Array(zarr.AsyncArray(metadata, array.store_path))
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        self.store.close()


class CheckedStore(WrapperStore[Store]):
    """A store of regular files of a length that makes sense."""

    def __init__(self, store: Store, length: Callable[[str], int]) -> None:
        super().__init__(store)
        self.length = length
        self.limit = 0

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
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
    """A codec that stops where a chunk has no more room."""

    method: str
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = room(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize)
        data = await asyncio.to_thread(unpacked, self.method, chunk_bytes.to_bytes(), limit)
        return chunk_spec.prototype.buffer.from_array_like(np.frombuffer(data, np.uint8))

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        raise NotImplementedError


class BoundedCompressor:
    """The same for version 2 of the format."""

    codec_id = "bounded"

    def __init__(self, method: str, limit: int) -> None:
        self.method, self.limit = method, limit

    def decode(self, buf: Any, out: Any = None) -> Any:
        return np.frombuffer(unpacked(self.method, bytes(buf), self.limit), np.uint8)

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError

    def get_config(self) -> Any:
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Any) -> Self:
        raise NotImplementedError


def open_zarr(name: str, path: str, member: str | None) -> ArrayFile:
    """An array, of which only the description is read."""
    with telling(name, ZarrFile.kind):
        inside = _path_inside(name, path, member)
        source = Opened(name, path, inside)
        try:
            array = source.array
            shape = tuple(array.shape)
            dtype = check_numbers(name, array.dtype)
            # The chunks inside a shard, of which each is unpacked by itself.
            file = ZarrFile(name, path, inside, shape, dtype, False, shape, tuple(array.chunks))
            return file.checked(lambda: _bytes_in(path))
        finally:
            source.close()


def opened_store(name: str, path: str) -> CheckedStore:
    """The store in a folder or in a zip archive."""
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


def _path_inside(name: str, path: str, member: str | None) -> str:
    """Where in the store the array lies."""
    store = opened_store(name, path)
    try:
        try:
            node = zarr.open(store=store, path=(member or "").strip("/"), mode="r")
        except FileNotFoundError:
            node = None
        if isinstance(node, zarr.Array):
            return node.path
        top = zarr.open_group(store=store, mode="r", use_consolidated=False)
        held = sorted(key for key, item in top.members(max_depth=None) if isinstance(item, zarr.Array))
        return chosen(name, path, member, held)
    finally:
        store.close()


def _bytes_in(path: str) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)


def _bounded(name: str, codecs: Iterable[Codec]) -> list[Codec]:
    """The codecs, with those that unpack replaced by ones that know when to stop."""
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
    return BoundedCompressor(method, room(metadata.chunks, metadata.dtype.to_native_dtype().itemsize))


def _unknown(name: str, codec: object) -> BadFile:
    return BadFile(
        f"{name} is packed with the codec {one_line(codec)!r}, which is not read; "
        f"store the array with one of {', '.join(METHODS)}, or with none"
    )
