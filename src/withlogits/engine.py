"""Choose the engine: the compiled kernels or, without llvmlite, the reference in plain NumPy; and set its limits."""

from __future__ import annotations

import importlib
import operator
import os
import warnings
from types import ModuleType
from typing import Any

_chosen: ModuleType | None = None


def select() -> ModuleType:
    """Return the engine of this process; warn once if it is the slow one and was not asked for."""
    global _chosen
    if _chosen is None:
        _chosen = _choose()
    return _chosen


def _choose() -> ModuleType:
    wish = os.environ.get("WITHLOGITS_ENGINE", "")
    if wish not in ("", "compiled", "reference"):
        raise ValueError(
            f"WITHLOGITS_ENGINE is {wish!r}; expected 'compiled' or 'reference'; unset it to choose by itself"
        )
    if wish != "reference":
        reason = _missing()
        if reason is None:
            from withlogits.kernels import cpu

            return cpu
        if wish == "compiled":
            raise ImportError(f"WITHLOGITS_ENGINE is 'compiled', but {reason}; install it with: pip install llvmlite")
        warnings.warn(
            f"withlogits computes with plain NumPy, many times slower than it could, since {reason}; "
            "install it with: pip install llvmlite",
            RuntimeWarning,
            stacklevel=4,
        )
    from withlogits import reference

    return reference


def _missing() -> str | None:
    """Return why the compiled engine is not available, or None if it is."""
    try:
        importlib.import_module("llvmlite.binding")
    except ModuleNotFoundError:
        return "llvmlite cannot be found"
    except Exception as error:  # a library that it needs, or its own file, cannot be loaded
        return f"llvmlite cannot be loaded ({type(error).__name__}: {error})"
    return None


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, including the calling one.

    Raises
    ------
    ValueError
        For anything but a whole number of at least 1.

    Examples
    --------
    >>> import withlogits
    >>> withlogits.set_num_threads(2)
    >>> withlogits.get_num_threads()
    2
    """
    threads = _whole_number("threads", threads, 1)
    from withlogits.kernels.cpu import pool

    pool.set_num_threads(threads)


def get_num_threads() -> int:
    """Return how many threads a call may use.

    The default is WITHLOGITS_NUM_THREADS, or the number of cores that this process may use.
    """
    from withlogits.kernels.cpu import pool

    return pool.get_num_threads()


def set_recycling_limit(nbytes: int) -> None:
    """Set how many bytes of idle result memory may be kept for the next results; 0 keeps none.

    The memory of a large result is kept when its last array is deleted, because the first touch of fresh memory takes
    longer than the arithmetic. The default is WITHLOGITS_RECYCLE_BYTES, or 512 MiB.

    Raises
    ------
    ValueError
        For anything but a whole number of at least 0.
    """
    nbytes = _whole_number("nbytes", nbytes, 0)
    from withlogits.kernels.cpu import buffers

    buffers.set_recycling_limit(nbytes)


def _whole_number(name: str, given: Any, least: int) -> int:
    try:
        number = least - 1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} is {given!r}; expected a whole number of at least {least}")
    return number


def describe() -> dict[str, Any]:
    """Return the engine's name and threads and, of the compiled one, its versions, processor, SIMD width and caches."""
    from importlib import metadata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        name = select().NAME
    facts: dict[str, Any] = {"engine": name, "threads": get_num_threads()}
    if name == "reference":
        reason = _missing()
        facts["why"] = "WITHLOGITS_ENGINE=reference" if reason is None else reason
        return facts
    from withlogits.kernels.cpu import buffers, compiler

    processor, features = compiler.processor()
    facts["llvmlite"] = metadata.version("llvmlite")
    facts["processor"] = processor
    facts["simd bits"] = compiler.simd_bits(features)
    facts["cache folder"] = str(compiler.cache_folder() or "none: kernels are compiled anew in every process")
    facts["recycling limit"] = buffers.recycling_limit()
    return facts
