"""The Triton kernels run on the GPU where there is one, and through Triton's interpreter where there is none.

What is interpreted is decided when a function is defined. So the kernels are imported with TRITON_INTERPRET set, which
is taken back at once; and Triton's own functions in Triton (`tl.sum`), which others may have imported before, are
replaced by interpreted ones for as long as a test runs. So is the language itself, once in a test: the interpreter
would do so at each call of a function of a kernel, and take longer for that than for the function. Other tests find
Triton as it was.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]

if not MISSING:
    import torch
    import triton.language

    GPU = torch.cuda.is_available()
    if not GPU:
        # The interpreter imports this when it first runs, and it wants Triton's own functions as they were.
        with contextlib.suppress(ImportError):
            importlib.import_module("triton.experimental.gluon.language")
        for name in [name for name in sys.modules if name.startswith("withlogits.kernels.cuda")]:
            del sys.modules[name]
        before = os.environ.get("TRITON_INTERPRET")
        os.environ["TRITON_INTERPRET"] = "1"
        try:
            importlib.import_module("withlogits.kernels.cuda")
            importlib.import_module("kernels.cuda.probes")
        finally:
            if before is None:
                del os.environ["TRITON_INTERPRET"]
            else:
                os.environ["TRITON_INTERPRET"] = before


@pytest.fixture(autouse=True)
def _kernels_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    if GPU:
        yield
        return
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    for module in (triton.language, triton.language.standard):
        for name, function in list(vars(module).items()):
            if isinstance(function, JITFunction):
                monkeypatch.setattr(module, name, interpreter.InterpretedFunction(function.fn))
    patch, patched = interpreter._patch_lang, {}

    def patch_once(function: Any) -> Any:
        seen = tuple(module in function.__globals__.values() for module in (triton.language, triton.language.core))
        if seen not in patched:
            patched[seen] = patch(function)
        return interpreter._LangPatchScope()  # with nothing to restore

    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
    with np.errstate(all="ignore"):  # the interpreter computes in NumPy, which warns of NaN and overflow
        yield
    for scope in reversed(patched.values()):
        scope.restore()
