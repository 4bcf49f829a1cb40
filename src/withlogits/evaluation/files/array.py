"""An array in a file, read in blocks: what all formats share.

Three ways lead to the blocks. Bytes that lie in a file as they lie in memory are mapped. What is packed into one stream
is read from its beginning to its end. What is stored in chunks is read chunk by chunk, in any order.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.files.errors import BadFile, not_numbers, one_line, telling
from withlogits.tiles import Tile, Tiling, size

Array = NDArray[Any]
Shape = tuple[int, ...]
Announce = Callable[[str], None]
Lend = Callable[[], Array]  # returns a buffer for the next block, of as many elements as the largest has

AXES = 64  # NumPy has no arrays of more
# A header is accepted if its array takes no more than HUGE bytes, or than RATIO times the file: deflate packs a
# thousandfold, and nothing that holds logits comes near the second number.
HUGE = 1 << 34
RATIO = 1 << 16
# The same for the number of chunks, of which a missing one stands for zeros and costs its file nothing.
MANY_CHUNKS = 1 << 20
# A chunk is unpacked whole. Larger than this it must be packed no better than deflate can.
LARGE_CHUNK = 1 << 30
# Bytes that are unpacked at once, so that few chunks are unpacked twice.
SLAB = 1 << 27
# A file of more than this share of the memory is not kept in the system's cache: it would not stay there, and finding
# memory for all of it can take 3 times as long as reading it (measured on a virtual machine).
CACHED = 1 / 8


@dataclass(frozen=True)
class ArrayFile(ABC):
    """An array in a file: what its header says, and how to read it in blocks."""

    name: str  # as the caller gave it
    path: str
    member: str | None  # of a file that holds several
    shape: Shape
    dtype: np.dtype[Any]
    fortran: bool  # the first axis varies fastest

    kind: ClassVar[str]  # of the file, in error texts

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def reshaped(self, shape: Shape) -> Self:
        """Return the same elements under a shape that differs by axes of length 1."""
        return replace(self, shape=shape)

    @abstractmethod
    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        """Yield the blocks; each is read-only, and valid until the next is asked for.

        Closing the generator closes the file. `announce` is told if a temporary file is needed. A block may lie in a
        buffer that `lend` returned, and is then valid as long as nobody writes to the buffer.
        """

    @abstractmethod
    def _open(self) -> Any:
        """Open what the blocks are read from; it has `close`."""

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with self._reading():
            source = self._open()
        try:
            yield source
        finally:
            source.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with telling(self.name, self.kind):
            yield

    def checked(self, stored: Callable[[], int]) -> Self:
        """Return the array itself if a file of that many bytes can hold it."""
        check_shape(self.name, self.shape)
        if self.nbytes > HUGE and self.nbytes > RATIO * stored():
            raise BadFile(
                f"{self.name} has a damaged header: shape {self.shape} of {self.dtype} takes {self.nbytes:,} bytes, "
                f"which no packing brings down to the file's {stored():,}"
            )
        return self


@dataclass(frozen=True)
class MappedFile(ArrayFile):
    """Bytes that lie in the file as they lie in memory.

    Blocks that follow one another are read; a map of a file that is not in memory yet takes twice as long. Others are
    mapped, and their pages released, so that a block stays resident and not the file.
    """

    offset: int  # of the first element in the file

    def _open(self) -> IO[bytes]:
        return open(self.path, "rb")

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        with self._opened() as stream:
            if tiling.is_sequential(self.fortran):
                with self._reading():
                    stream.seek(self.offset)
                source = Uncached(stream) if self.nbytes > CACHED * memory() else stream
                yield from in_order(self, source, tiling, lend)
            else:
                yield from mapped(self, stream, self.offset, tiling)


class Stream(Protocol):
    """A packed file while it is read."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


class Uncached:
    """A file whose pages leave the system's cache when they have been read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        os.posix_fadvise(self._stream.fileno(), 0, self._stream.tell(), os.POSIX_FADV_DONTNEED)
        return count


def memory() -> float:
    """Return the bytes of memory; infinity where the system does not tell, or takes no advice on its cache."""
    if not hasattr(os, "posix_fadvise"):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class StreamedFile(ArrayFile):
    """A stream of the elements, in the order of memory.

    Where the blocks that are asked for do not follow each other in it, it is unpacked into a temporary file, and that
    is mapped.
    """

    @abstractmethod
    def _open(self) -> Stream:
        """Open the stream at the first element."""

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        if tiling.is_sequential(self.fortran):
            with self._opened() as stream:
                yield from in_order(self, stream, tiling, lend)
            return
        if announce is not None:
            announce(
                f"{self.name}: unpacking {self.nbytes:,} bytes into {tempfile.gettempdir()}, "
                "since its blocks do not lie one after another"
            )
        with tempfile.TemporaryFile() as unpacked:
            with self._opened() as stream, self._reading():
                buffer = np.empty(min(1 << 20, self.nbytes), np.uint8).data
                left = self.nbytes
                while left:
                    part = buffer[:left]
                    _fill(self.name, stream, part)
                    unpacked.write(part)
                    left -= len(part)
                unpacked.flush()
            yield from mapped(self, unpacked, 0, tiling)


@dataclass(frozen=True)
class ChunkedFile(ArrayFile):
    """An array in chunks, of which any part can be asked for.

    A chunk is unpacked whole to read a part of it. So a block is read together with the rest of the chunks in which it
    lies, if memory allows, and what the next blocks want of those is there already.
    """

    stored: Shape  # the shape in the file
    chunks: Shape | None  # None where any part is as cheap as any other

    @abstractmethod
    def _read(self, source: Any, index: Tile) -> Array:
        """Return the part `index` of the array in the file."""

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        with self._opened() as source:
            begins: Shape = ()
            part: Array | None = None
            for tile in tiling:
                index = self._in_file(tile)
                if part is None or not inside(index, begins, part.shape):
                    block = part = None  # its memory is free before more is asked for
                    whole = self._with_whole_chunks(index)
                    with self._reading():
                        part = np.asarray(self._read(source, whole)).astype(self.dtype, copy=False)
                        if part.shape != size(self.stored, whole):
                            raise BadFile(f"{self.name} ends before its last element")
                    begins = tuple(cut.start for cut in whole)
                    part.flags.writeable = False
                here = tuple(slice(c.start - b, c.stop - b) for c, b in zip(index, begins, strict=True))
                block = part[here].reshape(size(self.shape, tile))
                yield block

    def _in_file(self, tile: Tile) -> Tile:
        """Return a tile of `shape` in `stored`, which differs by axes of length 1."""
        if self.shape == self.stored:
            return tile
        longer = iter([cut for cut, length in zip(tile, self.shape, strict=True) if length != 1])
        return tuple(slice(0, 1) if length == 1 else next(longer) for length in self.stored)

    def _with_whole_chunks(self, index: Tile) -> Tile:
        """Return the part with the rest of its chunks, as far as `SLAB` bytes allow."""
        if self.chunks is None:
            return index
        whole = list(index)
        for axis in reversed(range(len(whole))):
            cut, chunk = index[axis], self.chunks[axis]
            begin, end = cut.start // chunk * chunk, min(-(-cut.stop // chunk) * chunk, self.stored[axis])
            each = math.prod(size(self.stored, (*whole[:axis], slice(0, 1), *whole[axis + 1 :]))) * self.dtype.itemsize
            if (end - begin) * each > SLAB:
                begin, end = cut.start, min(end, max(cut.stop, cut.start + SLAB // each))
            whole[axis] = slice(begin, end)
        return tuple(whole)

    def checked(self, stored: Callable[[], int]) -> Self:
        """Check the number of chunks too, and the size of one."""
        super().checked(stored)
        if self.chunks is None:
            return self
        if len(self.chunks) != len(self.stored) or min(self.chunks, default=1) < 1:
            raise BadFile(f"{self.name} has a damaged header: chunks of shape {self.chunks} for {self.stored}")
        count = math.prod(-(-length // chunk) for length, chunk in zip(self.stored, self.chunks, strict=True))
        nbytes = math.prod(self.chunks) * self.dtype.itemsize
        if (count > MANY_CHUNKS and count > stored()) or (nbytes > LARGE_CHUNK and nbytes > stored() << 10):
            raise BadFile(
                f"{self.name} has a damaged header: it claims {count:,} chunks of {nbytes:,} bytes, "
                f"and its file has {stored():,}"
            )
        return self


def inside(index: Tile, begins: Shape, shape: Shape) -> bool:
    """Return whether a part of an array that begins there holds the index."""
    return all(b <= cut.start and cut.stop <= b + length for cut, b, length in zip(index, begins, shape, strict=True))


def in_order(array: ArrayFile, stream: Any, tiling: Tiling, lend: Lend | None = None) -> Iterator[Array]:
    """Yield the blocks of an array from a stream that stands at its first element."""
    if lend is None:
        with telling(array.name, array.kind):
            own = np.empty(math.prod(tiling.extents), array.dtype)
    for tile in tiling:
        shape = size(tiling.shape, tile)
        buffer = (own if lend is None else lend()).view(np.uint8).data[: math.prod(shape) * array.dtype.itemsize]
        with telling(array.name, array.kind):
            _fill(array.name, stream, buffer)
        yield np.frombuffer(buffer.toreadonly(), array.dtype).reshape(shape, order="F" if array.fortran else "C")


def _fill(name: str, stream: Stream, buffer: memoryview) -> None:
    while buffer:
        count = stream.readinto(buffer)
        if not count:
            raise BadFile(f"{name} ends before its last element")
        buffer = buffer[count:]


def mapped(array: ArrayFile, stream: IO[bytes], offset: int, tiling: Tiling) -> Iterator[Array]:
    """Yield the blocks of an array whose elements lie in an open file from `offset` on."""
    if not array.nbytes:
        return  # an empty stretch cannot be mapped
    order: Literal["C", "F"] = "F" if array.fortran else "C"
    with telling(array.name, array.kind):
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        whole: Array = np.ndarray(array.shape, array.dtype, buffer=pages, offset=offset, order=order)
    for tile in tiling:
        index: tuple[Any, ...] = (*tile, ...)  # with the dots, a block of no axes is an array too
        block = whole[index]
        yield block if whole.flags.aligned else block.copy()
        if hasattr(pages, "madvise"):  # not on Windows, which takes pages back by itself
            pages.madvise(mmap.MADV_DONTNEED)


def check_shape(name: str, shape: Shape) -> None:
    """Raise `BadFile` for a shape that NumPy cannot have."""
    if min(shape, default=0) < 0 or len(shape) > AXES or max(shape, default=0) >= 1 << 63:
        raise BadFile(f"{name} has a damaged header: shape {one_line(shape)}")


def check_numbers(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype if it is one of numbers."""
    if dtype.kind in "biuf" or dtype.name == "bfloat16":
        return dtype
    raise not_numbers(name, dtype)


def check_length(array: ArrayFile, length: int) -> None:
    """Raise `BadFile` if a file is too short for its elements."""
    if length < array.nbytes:
        raise BadFile(
            f"{array.name} is truncated: shape {array.shape} of {array.dtype} takes {array.nbytes:,} bytes, "
            f"and {length:,} are there"
        )
