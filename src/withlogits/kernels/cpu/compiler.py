"""From a spec to the address of compiled code, through a cache of object files on disk.

Numba compiles a kernel once per machine and version; after that its object file is loaded by llvmlite alone, so a
process that finds everything in the cache never imports Numba. Numba's own cache is not used: it fails at import on a
read-only tree without a home, and its index is not made for two processes that write at once. Here a file is written
under another name and renamed, checked by its digest when read, and no failure to read or write is more than a miss.

A file is named by the digest of everything the code depends on: the sources of this folder, the processor and its
features, and the spec.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

Spec = Any
MAGIC = b"withlogits-object-1\n"
SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
SHORT = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)  # keeps the interpreter lock

_lock = threading.RLock()
_addresses: dict[Spec, int] = {}
_machine: Any = None
_fingerprint: bytes = b""


def address(spec: Spec) -> int:
    """Where the kernel for `spec` begins; compiled or read from the cache the first time."""
    found = _addresses.get(spec)
    if found is None:
        with _lock:
            found = _addresses.get(spec)
            if found is None:
                found = _addresses[spec] = _load(spec)
    return found


def before_fork() -> None:
    """Let a compilation end first: LLVM's own lock, held by a thread that does not come along, would stay locked."""
    _lock.acquire()


def after_fork() -> None:
    _lock.release()


def cache_folder() -> Path | None:
    """Where object files are kept, or None where there is no place that is ours."""
    chosen = os.environ.get("WITHLOGITS_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "withlogits"
    try:
        return Path.home() / ".cache" / "withlogits"
    except RuntimeError:  # no home at all
        return None


def processor() -> tuple[str, str]:
    """The name and the features that code is generated for."""
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def simd_bits(features: str) -> int:
    """The widest vectors of a processor with these features."""
    present = set(features.split(","))
    return next((bits for name, bits in (("+avx512f", 512), ("+avx2", 256)) if name in present), 128)


def _prepare() -> None:
    global _machine, _fingerprint
    if _machine is not None:
        return
    import llvmlite
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = processor()
    digest = hashlib.sha256(MAGIC)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    digest.update(f"{llvmlite.__version__} {llvm.get_process_triple()} {name} {features}".encode())
    _fingerprint = digest.digest()
    _machine = _for_ever(_new_machine())


def _new_machine() -> Any:
    import llvmlite.binding as llvm

    name, features = processor()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=name, features=features, opt=3, codemodel="jitdefault", jit=True
    )


def _load(spec: Spec) -> int:
    import llvmlite.binding as llvm

    _prepare()
    name = "withlogits_" + hashlib.sha256(_fingerprint + repr(spec).encode()).hexdigest()[:32]
    code = _read(name)
    if code is None:
        code = _compile(spec, name)
        _write(name, code)
    machine = _new_machine()  # which the engine then owns
    engine = _for_ever(llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found: int = engine.get_function_address(name)
    if not found:
        raise RuntimeError(f"the compiled kernel for {spec} has no entry {name}; please report this")
    return found


def _for_ever(thing: Any) -> Any:
    """Not even to be let go when the interpreter ends: a worker may still be in its code."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def _compile(spec: Spec, name: str) -> bytes:
    import llvmlite.binding as llvm
    from numba import cfunc, types

    from .builders import build

    integer = types.int64
    compiled = cfunc(integer(integer, integer, integer), error_model="numpy")(build(spec))
    text: str = compiled.inspect_llvm()
    entry = re.search(r"define [^@]*@(cfunc\.[^ (]+)\(", text)
    if entry is None:
        raise RuntimeError("Numba's output has no C entry; this version of Numba is not known, please report this")
    module = llvm.parse_assembly(text.replace(f"@{entry.group(1)}(", f"@{name}("))
    code: bytes = _machine.emit_object(module)
    return code


def _read(name: str) -> bytes | None:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with open(folder / f"{name}.o", "rb") as file:
            if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):
                return None  # somebody else's code is not run
            content = file.read()
    except OSError:
        return None
    code = content[len(MAGIC) + 32 :]
    return code if content == _sealed(name, code) else None


def _sealed(name: str, code: bytes) -> bytes:
    """The content of a file: a damaged one, or that of another kernel, is not taken for it."""
    return MAGIC + hashlib.sha256(name.encode() + code).digest() + code


def _write(name: str, code: bytes) -> None:
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=name)
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_sealed(name, code))
        os.replace(temporary, folder / f"{name}.o")
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
