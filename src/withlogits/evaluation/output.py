"""A .npy file that is written block after block, and appears under its name only when it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def npy_writer(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """What takes the blocks of an array in the order in which they lie in the file.

    They go to a file beside `path`, which takes that name at the end, and vanishes if there was an error.
    """
    partial = path.with_name(path.name + ".partial")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    try:
        with partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)

            def write(block: NDArray[Any]) -> None:
                stream.write(block.tobytes("F" if fortran else "C"))

            yield write
        os.replace(partial, path)
    except BaseException:  # an interrupt too
        partial.unlink(missing_ok=True)
        raise
