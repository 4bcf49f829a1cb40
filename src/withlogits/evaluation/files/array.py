"""An array in a file, read in blocks: what all formats share.

Three ways lead to the blocks. Bytes that lie in a file as they lie in memory are mapped. What is packed into one stream
is read from its beginning to its end. What is stored in chunks is read chunk by chunk, in any order.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from withlogits.evaluation.files.errors import BadFile, damaged_header, not_numbers, one_line, telling
from withlogits.tiles import Tile, Tiling, cut, size

Array = NDArray[Any]
Shape = tuple[int, ...]
Announce = Callable[[str], None]
Stream = io.BufferedIOBase | io.RawIOBase
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
# Elements that are unpacked at once into a temporary file.
UNPACKED = 1 << 18
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

    @property
    def stored(self) -> int:
        """The bytes of the file, or of all files in the folder."""
        if not os.path.isdir(self.path):
            return os.path.getsize(self.path)
        return sum(
            os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(self.path) for file in files
        )

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

    def checked(self) -> Self:
        """Return the array itself if its file can hold it."""
        check_shape(self.name, self.shape)
        if self.nbytes > HUGE and self.nbytes > RATIO * self.stored:
            raise damaged_header(
                self.name,
                f"shape {self.shape} of {self.dtype} takes {self.nbytes:,} bytes, which no packing brings down to the "
                f"file's {self.stored:,}",
            )
        return self

    def check_length(self, length: int) -> None:
        """Raise `BadFile` if there are fewer bytes than the elements take."""
        if length < self.nbytes:
            raise BadFile(
                f"{self.name} is truncated: shape {self.shape} of {self.dtype} takes {self.nbytes:,} bytes, "
                f"and {length:,} are there"
            )

    def _in_order(self, stream: Stream, tiling: Tiling, lend: Lend | None = None) -> Iterator[Array]:
        """Yield the blocks from a stream that stands at the first element."""
        if lend is None:
            with self._reading():
                own = np.empty(math.prod(tiling.extents), self.dtype)
        for tile in tiling:
            shape = size(tiling.shape, tile)
            buffer = (own if lend is None else lend()).view(np.uint8).data[: math.prod(shape) * self.dtype.itemsize]
            with self._reading():
                left = buffer
                while left:
                    count = stream.readinto(left)
                    if not count:
                        raise BadFile(f"{self.name} ends before its last element")
                    left = left[count:]
            yield np.frombuffer(buffer.toreadonly(), self.dtype).reshape(shape, order="F" if self.fortran else "C")

    def _mapped(self, stream: IO[bytes], offset: int, tiling: Tiling) -> Iterator[Array]:
        """Yield the blocks from an open file in which the elements lie from `offset` on."""
        if not self.nbytes:
            return  # an empty stretch cannot be mapped
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        with self._reading():
            pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            whole: Array = np.ndarray(self.shape, self.dtype, buffer=pages, offset=offset, order=order)
        for tile in tiling:
            index: tuple[Any, ...] = (*tile, ...)  # with the dots, a block of no axes is an array too
            block = whole[index]
            yield block if whole.flags.aligned else block.copy()
            if hasattr(pages, "madvise"):  # not on Windows, which takes pages back by itself
                pages.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class MappedFile(ArrayFile):
    """Bytes that lie in the file as they lie in memory.

    Blocks that follow one another are read; a map of a file that is not in memory yet takes twice as long. Others are
    mapped, and their pages released, so that a block stays resident and not the file.
    """

    offset: int  # of the first element in the file

    def checked(self) -> Self:
        """Return the array itself if its file is long enough."""
        check_shape(self.name, self.shape)
        self.check_length(self.stored - self.offset)
        return self

    def _open(self) -> IO[bytes]:
        return open(self.path, "rb")

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        uncached = self.nbytes > CACHED * memory()
        with self._opened() as stream:
            if not tiling.is_sequential(self.fortran):
                yield from self._mapped(stream, self.offset, tiling)
                return
            with self._reading():
                stream.seek(self.offset)
            for block in self._in_order(stream, tiling, lend):
                if uncached:
                    os.posix_fadvise(stream.fileno(), 0, stream.tell(), os.POSIX_FADV_DONTNEED)
                yield block


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
        with self._opened() as stream:
            if tiling.is_sequential(self.fortran):
                yield from self._in_order(stream, tiling, lend)
                return
            if announce is not None:
                announce(
                    f"{self.name}: unpacking {self.nbytes:,} bytes into {tempfile.gettempdir()}, "
                    "since its blocks do not lie one after another"
                )
            with tempfile.TemporaryFile() as unpacked:
                with self._reading():
                    for part in self._in_order(stream, cut((math.prod(self.shape),), None, UNPACKED)):
                        unpacked.write(part.data)
                    unpacked.flush()
                yield from self._mapped(unpacked, 0, tiling)


@dataclass(frozen=True)
class ChunkedFile(ArrayFile):
    """An array in chunks, of which any part can be asked for.

    A chunk is unpacked whole to read a part of it. So a block is read together with the rest of the chunks in which it
    lies, if memory allows, and what the next blocks want of those is there already.
    """

    chunks: Shape | None  # None where any part is as cheap as any other

    @abstractmethod
    def _read(self, source: Any, index: Tile) -> Array:
        """Return a part of the array."""

    def blocks(self, tiling: Tiling, announce: Announce | None = None, lend: Lend | None = None) -> Generator[Array]:
        with self._opened() as source:
            begins: Shape = ()
            part: Array | None = None
            for tile in tiling:
                if part is None or not inside(tile, begins, part.shape):
                    block = part = None  # its memory is free before more is asked for
                    whole = self._with_whole_chunks(tile)
                    with self._reading():
                        part = np.asarray(self._read(source, whole)).astype(self.dtype, copy=False)
                        if part.shape != size(self.shape, whole):
                            raise BadFile(f"{self.name} ends before its last element")
                    begins = tuple(cut.start for cut in whole)
                    part.flags.writeable = False
                here: list[Any] = [slice(c.start - b, c.stop - b) for c, b in zip(tile, begins, strict=True)]
                block = part[(*here, ...)]
                yield block

    def _with_whole_chunks(self, index: Tile) -> Tile:
        """Return the part with the rest of its chunks, as far as `SLAB` bytes allow."""
        if self.chunks is None:
            return index
        whole = list(index)
        for axis in reversed(range(len(whole))):
            cut, chunk = index[axis], self.chunks[axis]
            begin, end = cut.start // chunk * chunk, min(-(-cut.stop // chunk) * chunk, self.shape[axis])
            each = math.prod(size(self.shape, (*whole[:axis], slice(0, 1), *whole[axis + 1 :]))) * self.dtype.itemsize
            if (end - begin) * each > SLAB:
                begin, end = cut.start, min(end, max(cut.stop, cut.start + SLAB // each))
            whole[axis] = slice(begin, end)
        return tuple(whole)

    def checked(self) -> Self:
        """Check the number of chunks too, and the size of one."""
        super().checked()
        if self.chunks is None:
            return self
        if len(self.chunks) != len(self.shape) or min(self.chunks, default=1) < 1:
            raise damaged_header(self.name, f"chunks of shape {self.chunks} for {self.shape}")
        count = math.prod(-(-length // chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))
        nbytes = math.prod(self.chunks) * self.dtype.itemsize
        if (count > MANY_CHUNKS and count > self.stored) or (nbytes > LARGE_CHUNK and nbytes > self.stored << 10):
            raise damaged_header(
                self.name, f"it claims {count:,} chunks of {nbytes:,} bytes, and its file has {self.stored:,}"
            )
        return self


def inside(index: Tile, begins: Shape, shape: Shape) -> bool:
    """Return whether a part of an array that begins there holds the index."""
    return all(b <= cut.start and cut.stop <= b + length for cut, b, length in zip(index, begins, shape, strict=True))


def check_shape(name: str, shape: Shape) -> None:
    """Raise `BadFile` for a shape that NumPy cannot have."""
    if min(shape, default=0) < 0 or len(shape) > AXES or max(shape, default=0) >= 1 << 63:
        raise damaged_header(name, f"shape {one_line(shape)}")


def check_numbers(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype if it is one of numbers."""
    if dtype.kind in "biuf" or dtype.name == "bfloat16":
        return dtype
    raise not_numbers(name, dtype)
