"""Tensors in .safetensors files.

The library checks the header: that it is one, and that the tensors fill the file without a gap or an overlap. The bytes
we map ourselves. A slice that the library takes is a copy, the pages that it touches stay resident up to the size of
the file, and only newer releases of it make bfloat16 known to NumPy.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from withlogits.evaluation.files.array import ArrayFile, MappedFile
from withlogits.evaluation.files.errors import chosen, needed, not_numbers, telling

DTYPES = {
    "BOOL": "?", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4",
    "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


class SafetensorsFile(MappedFile):
    """A tensor in a .safetensors file."""

    kind = ".safetensors file"


def is_safetensors(begins: bytes) -> bool:
    """The format has no mark of its own: it is the length of a header, 100 MB at most, and then a JSON object."""
    return begins[8:9] == b"{" and int.from_bytes(begins[:8], "little") <= 100_000_000


def open_safetensors(name: str, path: str, member: str | None) -> ArrayFile:
    """Return a tensor, of which only the header is read."""
    library = needed(name, "", "safetensors", "safetensors")
    with telling(name, SafetensorsFile.kind):
        with library.safe_open(path, framework="numpy") as file:
            tensor = chosen(name, path, member, sorted(file.keys()), "tensor")
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))[tensor]
        dtype, offset = _dtype(name, header["dtype"]), 8 + length + header["data_offsets"][0]
        return SafetensorsFile(name, path, tensor, tuple(header["shape"]), dtype, False, offset).checked()


def _dtype(name: str, code: str) -> np.dtype[Any]:
    if code == "BF16":
        bfloat16: np.dtype[Any] = np.dtype(needed(name, " holds bfloat16, which", "ml_dtypes", "bfloat16").bfloat16)
        return bfloat16
    if code not in DTYPES:
        raise not_numbers(name, code)
    return np.dtype(DTYPES[code])
