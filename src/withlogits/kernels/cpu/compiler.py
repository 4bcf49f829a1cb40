"""From a spec to the address of compiled code, through a cache of object files on disk.

A kernel is compiled once per machine and version. A file is written under another name and renamed, checked by its
digest when read, and no failure to read or write is more than a miss.

A file is named by the digest of everything the code depends on: the sources that a kernel is made of, the version of
LLVM, the target, and the spec.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from .job import SOFTMAX_JOB, SoftmaxSpec
from .target import Target, host, of_features

Spec = Any
MODULES = {
    "SoftmaxSpec": "softmax",
    "RowWeightsSpec": "row_weights",
    "SigmoidSpec": "sigmoid",
    "SmallSpec": "small",
    "TotalSpec": "total",
    "PoolSpec": "spinning",
    "XlaSpec": "xla",
    "OpSpec": "op",
    "ElementsSpec": "element_statistics",
    "ScoresSpec": "element_statistics",
}
MAGIC = b"withlogits-object-2\n"
SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
SHORT = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)  # keeps the interpreter lock
NUMBERS = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)  # of an address
ALONE = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)  # the same of a kernel that needs its job alone

_lock = threading.RLock()
_addresses: dict[Spec, int] = {}


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
    """Return the name and the features that code is generated for."""
    return host().cpu, host().features


def simd_bits(features: str) -> int:
    """Return the width of the widest vectors of a processor with these features."""
    return 8 * of_features("", "", features).vector_bytes


@cache
def _prepare(triple: str) -> None:
    import llvmlite.binding as llvm

    if triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def _module_of(spec: Spec) -> str:
    """Return the name of the module of this folder that makes the kernel."""
    if isinstance(spec, SoftmaxSpec) and spec.result == "scan":
        return "scan"
    return "softmax_float32" if isinstance(spec, SoftmaxSpec) and spec.float32 else MODULES[type(spec).__name__]


@cache
def _sources(module: str) -> bytes:
    """Return the digest of a module of this folder and of all that it imports from it."""
    names, digest = [module], hashlib.sha256()
    for name in names:
        text = (Path(__file__).parent / f"{name}.py").read_bytes()
        digest.update(text)
        for source, imported in re.findall(rb"^ *from \.(\w*) import ([\w, ]*)", text, re.MULTILINE):
            found = [source] if source else re.findall(rb"\w+", imported)
            names += [each.decode() for each in found if each.decode() not in names]
    digest.update(repr(SOFTMAX_JOB.names).encode())  # of which the options decide
    return digest.digest()


def _name(spec: Spec, target: Target) -> str:
    import llvmlite

    digest = hashlib.sha256(MAGIC + _sources(_module_of(spec)))
    digest.update(f"{llvmlite.__version__} {target} {spec}".encode())
    return "withlogits_" + digest.hexdigest()[:32]


def new_machine(target: Target) -> Any:
    import llvmlite.binding as llvm

    _prepare(target.triple)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


def _load(spec: Spec) -> int:
    target = host()
    name = _name(spec, target)
    code = _read(name)
    if code is None:
        code = compiled(spec, name, target)
        _write(name, code)
    return loaded(code, name, target)


def loaded(code: bytes, name: str, target: Target) -> int:
    """Return the address of the function `name` of an object file, which stays loaded for good."""
    import llvmlite.binding as llvm

    machine = new_machine(target)  # which the engine then owns
    engine = for_ever(llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found: int = engine.get_function_address(name)
    if not found:
        raise RuntimeError(f"a compiled kernel has no entry {name}; please report this")
    return found


def for_ever(thing: Any) -> Any:
    """Not even to be let go when the interpreter ends: a worker may still be in its code."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def compiled(spec: Spec, name: str, target: Target) -> bytes:
    """Return the object file of a kernel whose entry is `name`."""
    from .control import written

    kernel = import_module(f".{_module_of(spec)}", __package__).build(spec, target)
    return optimized(written(kernel, name, target), target)


def optimized(text: str, target: Target) -> bytes:
    """Return the object file of LLVM assembly."""
    import llvmlite.binding as llvm

    machine = new_machine(target)
    module = llvm.parse_assembly(text)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    # kernels are unrolled where it pays; without LLVM's own unrolling they compile in half the time
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    code: bytes = machine.emit_object(module)
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
