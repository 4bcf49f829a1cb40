"""Arrays in files of every format that is read, for the tests of reading them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors.numpy
import zarr

from withlogits.evaluation.files import open_array
from withlogits.tiles import Tiling, cut

Array = np.ndarray[Any, Any]

NUMBERS = [
    np.dtype(code)
    for code in (
        "?",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u2",
        "u4",
        "u8",
        "f2",
        "f4",
        "f8",
        ">f4",
        ">i8",
        ml_dtypes.bfloat16,
    )
]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def example(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Numbers, no two of them neighbours by chance."""
    values = np.arange(int(np.prod(shape))).reshape(shape) * 7 % 120
    return (values % 3 == 0) if dtype.kind == "b" else values.astype(dtype)


def npy(path: Path, array: Array) -> str:
    np.save(path, array)
    return str(path)


def npz(path: Path, array: Array) -> str:
    np.savez(path, array=array, other=np.zeros(3))
    return f"{path}:array"


def npz_deflated(path: Path, array: Array) -> str:
    np.savez_compressed(path, array)
    return str(path)


def tensors(path: Path, array: Array) -> str:
    odd = np.zeros(3, np.int8)  # what comes after it is not aligned
    safetensors.numpy.save_file({"a/b": np.ascontiguousarray(array), "0": odd}, path)
    return f"{path}:a/b"


def parquet_column(path: Path, array: Array, fixed: bool = True, **options: Any) -> str:
    column = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        length = array.shape[axis]
        if fixed:
            column = pyarrow.FixedSizeListArray.from_arrays(column, length)
        else:
            offsets = np.arange(0, len(column) + 1, length, np.int32)
            column = pyarrow.ListArray.from_arrays(offsets, column)
    table = pyarrow.table({"x": column, "other": pyarrow.array(["text"] * len(array))})
    pyarrow.parquet.write_table(table, path, row_group_size=5, **options)
    return f"{path}:x"


def parquet_lists(path: Path, array: Array) -> str:
    return parquet_column(path, array, fixed=False, compression="zstd")


def zarr_store(path: Path, array: Array, **options: Any) -> str:
    chunks = tuple(min(4, length) for length in array.shape)
    zarr.create_array(path, data=array, chunks=chunks, name="group/x", **options)
    return f"{path}:group/x"


def zarr_v2(path: Path, array: Array) -> str:
    zarr.create_array(path, data=array, chunks=tuple(min(3, n) for n in array.shape), zarr_format=2)
    return str(path)


def zarr_shards(path: Path, array: Array) -> str:
    chunks, shards = tuple(2 for _ in array.shape), tuple(4 for _ in array.shape)
    zarr.create_array(path, data=array, chunks=chunks, shards=shards, compressors=zarr.codecs.GzipCodec())
    return str(path)


def zarr_zip(path: Path, array: Array) -> str:
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=array, chunks=tuple(min(4, n) for n in array.shape))
    return str(path)


def hdf5(path: Path, array: Array, version: str = "earliest", **options: Any) -> str:
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("group/x", data=array, **options)
        file["other"] = np.zeros(3)
    return f"{path}:/group/x"


def hdf5_chunks(path: Path, array: Array) -> str:
    options = {"chunks": tuple(min(3, n) for n in array.shape), "compression": "gzip", "shuffle": True}
    return hdf5(path, array, fletcher32=True, **options)


WRITERS: dict[str, tuple[str, Callable[[Path, Array], str]]] = {
    "npy": (".npy", npy),
    "npz": (".npz", npz),
    "npz deflated": (".npz", npz_deflated),
    "safetensors": (".safetensors", tensors),
    "parquet": (".parquet", parquet_column),
    "parquet lists": (".parquet", parquet_lists),
    "zarr": (".zarr", zarr_store),
    "zarr 2": (".zarr", zarr_v2),
    "zarr shards": (".zarr", zarr_shards),
    "zarr zip": (".zarr.zip", zarr_zip),
    "hdf5": (".h5", hdf5),
    "hdf5 chunks": (".h5", hdf5_chunks),
}


def holds(form: str, dtype: np.dtype[Any]) -> bool:
    """Whether the format, as its library writes it, has the dtype."""
    if dtype == BFLOAT16:
        return form == "safetensors"
    return not (dtype.byteorder == ">" and form in ("safetensors", "parquet", "parquet lists"))


def stored(folder: Path, form: str, array: Array) -> str:
    """The name under which `open_array` finds the array."""
    ending, write = WRITERS[form]
    return write(folder / f"it{ending}", array)


def whole(name: str, tiling: Tiling | None = None, announce: Callable[[str], None] | None = None) -> Array:
    """Read in blocks and put together again."""
    file = open_array(name)
    tiling = cut(file.shape, None, 5, file.fortran) if tiling is None else tiling
    array = np.empty(file.shape, file.dtype)
    for tile, block in zip(tiling, file.blocks(tiling, announce), strict=True):
        assert block.dtype == file.dtype
        array[tile] = block
    return array
