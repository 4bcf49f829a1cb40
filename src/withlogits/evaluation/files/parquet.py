"""Columns of .parquet files, read in batches of rows.

A column of numbers is an array of one axis; a column of lists that are equally long, one of two, and so on. Several
columns of one floating-point type are together an array (rows, columns), so that a table of one column a class is what
it looks like. A missing value has no number, and is refused.
"""

from __future__ import annotations

import io
import math
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from withlogits.evaluation.files.array import Array, ArrayFile, Shape, Stream, StreamedFile
from withlogits.evaluation.files.errors import BadFile, chosen, listed, needed, not_numbers, one_line, telling

PARQUET = b"PAR1"
BATCH = 1 << 20  # elements
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the row labels of a data frame, which are no data


@dataclass(frozen=True)
class ParquetColumns(StreamedFile):
    """Columns of a .parquet file."""

    columns: tuple[str, ...]
    row: Shape  # of one row of a column

    kind = ".parquet file"

    def _open(self) -> Stream:
        file = Table(self.path)
        return Batches(file, self._batches(file))

    def _batches(self, file: Table) -> Iterator[memoryview]:
        """Yield the rows, batch after batch, as bytes."""
        width = math.prod(self.row)
        size = max(1, BATCH // max(1, width * len(self.columns)))
        done = 0
        for batch in file.batches(self.columns, size):
            count = batch.num_rows
            block = np.empty((count, len(self.columns), width), self.dtype)
            for i, column in enumerate(self.columns):
                values = _values(self.name, column, batch.column(column), self.row, done)
                block[:, i] = values.reshape(count, width)
            yield block.reshape(-1).view(np.uint8).data
            done += count


class Batches(io.RawIOBase):
    """A stream of the bytes of batches."""

    def __init__(self, file: Table, batches: Iterator[memoryview]) -> None:
        self.file, self.batches = file, batches
        self.left = memoryview(b"")  # of the batch that is read

    def readinto(self, buffer: Any) -> int:
        while not self.left:
            following = next(self.batches, None)
            if following is None:
                return 0
            self.left = following
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def open_parquet(name: str, path: str, member: str | None) -> ArrayFile:
    """Return the columns; the schema is read, and one row where lists do not state their length."""
    needed(name, "", "pyarrow", "parquet")
    with telling(name, ParquetColumns.kind):
        with closing(Table(path)) as file:
            schema = file.file.schema_arrow
            columns = _columns(name, path, member, schema)
            rows = file.file.metadata.num_rows
            kind = schema.field(columns[0]).type
            row, dtype = _row(name, columns[0], kind, lambda: _first(file, columns[0]))
        shape = (rows, *row) if len(columns) == 1 else (rows, len(columns))
        array = ParquetColumns(name, path, member, shape, dtype, False, columns, row)
        return array.checked()


class Table:
    """A .parquet file whose bytes are mapped.

    Arrow then reads a page in place, and not into a buffer of the length that the page states, which in a damaged file
    is 2 GB. `pre_buffer` would read the columns of a whole row group at once.

    A page and a dictionary of each column stay in memory, usually 1 to 2 MB: for a thousand columns a thousand times
    that, for the same numbers in one column of lists not.
    """

    def __init__(self, path: str) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        with open(path, "rb") as stream:
            self.pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.file: Any = ParquetFile(pyarrow.BufferReader(pyarrow.py_buffer(self.pages)), pre_buffer=False)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[Any]:
        for batch in self.file.iter_batches(batch_size=size, columns=list(columns), use_threads=False):
            if hasattr(self.pages, "madvise"):
                self.pages.madvise(mmap.MADV_DONTNEED)
            yield batch

    def close(self) -> None:
        self.file.close()


def _columns(name: str, path: str, member: str | None, schema: Any) -> tuple[str, ...]:
    """Return the column that is named, or the only one, or all, if they are of one floating-point type."""
    names = list(schema.names)
    if len(set(names)) < len(names):
        raise BadFile(f"{name} has several columns of one name: {listed(names)}")
    if member is not None:
        return (chosen(name, path, member, names, "column"),)
    names = [column for column in names if not PANDAS_INDEX.fullmatch(column)]
    if len(names) > 1:
        import pyarrow

        kinds = {schema.field(column).type for column in names}
        if len(kinds) == 1 and pyarrow.types.is_floating(kinds.copy().pop()):
            return tuple(names)
    return (chosen(name, path, None, names, "column"),)


def _first(file: Table, column: str) -> Any:
    """Return the first row of a column as an array of length 1; None where there is none."""
    for batch in file.batches([column], 1):
        if batch.num_rows:
            return batch.column(0)
    return None


def _row(name: str, column: str, kind: Any, first: Callable[[], Any]) -> tuple[Shape, np.dtype[Any]]:
    """Return shape and dtype of a row; what its type does not state is the length of the lists in the first row."""
    import pyarrow
    from pyarrow.types import is_boolean, is_fixed_size_list, is_floating, is_integer, is_large_list, is_list

    row: list[int] = []
    if isinstance(kind, pyarrow.FixedShapeTensorType) and list(kind.permutation or ()) == sorted(
        kind.permutation or ()
    ):
        row, kind = list(kind.shape), kind.value_type
    values = first() if is_list(kind) or is_large_list(kind) or is_fixed_size_list(kind) else None
    while is_list(kind) or is_large_list(kind) or is_fixed_size_list(kind):
        if values is not None:
            _no_nulls(name, column, values, 0, len(values))
        if is_fixed_size_list(kind):
            row.append(kind.list_size)
        else:
            row.append(int(values.offsets[1].as_py() - values.offsets[0].as_py()) if values else 0)
        kind = kind.value_type
        values = values.flatten() if values is not None else None
    if not (is_integer(kind) or is_floating(kind) or is_boolean(kind)):
        raise not_numbers(name, kind)
    return tuple(row), np.dtype(kind.to_pandas_dtype())


def _values(name: str, column: str, values: Any, row: Shape, done: int) -> Array:
    """Return the numbers of a batch, flattened."""
    import pyarrow

    _no_nulls(name, column, values, done, 1)
    if isinstance(values, pyarrow.ExtensionArray):
        values = values.storage
        row = (math.prod(row),)
    inner = 1  # lists in a row
    for length in row:
        if not pyarrow.types.is_fixed_size_list(values.type):
            lengths = np.diff(values.offsets.to_numpy())
            if (lengths != length).any():
                at = int(np.argmax(lengths != length))
                raise BadFile(
                    f"{name} has lists of different lengths in column {one_line(column)}: {int(lengths[at])} elements "
                    f"in row {done + at // max(1, inner)}, after {length}; make them equally long"
                )
        values = values.flatten()
        inner *= length
        _no_nulls(name, column, values, done, inner)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _no_nulls(name: str, column: str, values: Any, done: int, inner: int) -> None:
    if values.null_count:
        at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise BadFile(
            f"{name} has a missing value (null) in column {one_line(column)}, row {done + at // max(1, inner)}; "
            "drop the row or fill it"
        )
