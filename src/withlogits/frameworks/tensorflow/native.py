"""The compiled kernels as TensorFlow operations, registered through its C interface; no compiler is needed.

`WithlogitsLoss` gives the loss and, if asked, the gradient of the logits with it, in one pass. `WithlogitsGradient`
gives that gradient for any upstream. Their derivatives are registered by name: a SavedModel has them wherever
withlogits has been imported.
"""

from __future__ import annotations

import atexit
import ctypes
import time
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf

from withlogits import engine
from withlogits.frameworks.tensorflow import planner, private
from withlogits.kernels.cpu import compiler
from withlogits.kernels.cpu.op_layout import CONTEXT, FORGET, FUNCTIONS, MAKE_PLAN, REFUSED, STATUS, TABLE, OpSpec
from withlogits.kernels.cpu.target import host

Tensor = Any
INVALID_ARGUMENT, INTERNAL = 3, 13
PATIENCE = 10.0  # seconds, at the interpreter's end
LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_framework.2.dylib")
REALS = "bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, half, bfloat16, float, double"
ATTRIBUTES = (
    "T: {half, bfloat16, float, double}", f"Tlabels: {{{REALS}}}", "Tloss: {float, double}",
    "Tweights: list({float, double}) >= 0", "call: string",
)  # fmt: skip
ARRAYS = ("logits: T", "labels: Tlabels", "weights: Tweights")
# Attributes, inputs and outputs
OPERATIONS = {
    "WithlogitsLoss": ((*ATTRIBUTES, "gradients: int >= 0"), ARRAYS, ("loss: Tloss", "gradient: gradients * T")),
    "WithlogitsGradient": (
        (*ATTRIBUTES, "mades: int >= 0"), ("upstream: Tloss", *ARRAYS, "made: mades * T"), ("gradient: T",),
    ),
}  # fmt: skip
_kept: list[Any] = []  # what the runtime has the address of


def operations() -> dict[str, Any] | None:
    """The functions that make the operations; None where there are no kernels, or no way to register them."""
    return _registered() if engine.select().NAME == "compiled" else None


@cache
def _registered() -> dict[str, Any] | None:
    library = next((at for name in LIBRARIES if (at := Path(tf.sysconfig.get_lib()) / name).exists()), None)
    if library is None:
        return None
    runtime = ctypes.CDLL(str(library))
    try:
        table = _table(runtime)
        create = _with_argument(compiler.address(OpSpec("create")), ctypes.addressof(table))
        compute = compiler.address(OpSpec("compute"))
        for name, (attributes, inputs, outputs) in OPERATIONS.items():
            _register(runtime, name, (attributes, inputs, outputs), (create, compute))
        return private.wrappers(tuple(OPERATIONS))
    except AttributeError:  # a release without some function
        return None


def _table(runtime: Any) -> Any:
    """The addresses that the compiled functions call."""
    own, attribute = ctypes.CDLL(None), ctypes.create_string_buffer(b"call")
    planned = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(_answerer(runtime))
    words = [_address(getattr(runtime if name.startswith("TF_") else own, name)) for name in FUNCTIONS]
    table = (ctypes.c_int64 * len(TABLE))(*words, _address(planned), 0, ctypes.addressof(attribute))
    _kept.extend((table, attribute, planned))
    atexit.register(_close, table, _address(own.sched_yield))
    return table


def _close(table: Any, nothing: int) -> None:
    """Keep the runtime's threads out of an interpreter that ends, and wait for those inside.

    They could not get its lock any more, and whoever waits for their operations would wait for ever.
    """
    planner_at, active = (list(TABLE).index(name) for name in ("planner", "active"))
    table[planner_at] = nothing  # a function that returns 0
    end = time.monotonic() + PATIENCE
    while table[active] and time.monotonic() < end:
        time.sleep(0.001)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _answerer(runtime: Any) -> Any:
    """What answers the compiled side; an error becomes the operation's."""

    def fail(request: int, error: BaseException) -> None:
        context, status = (ctypes.c_void_p.from_address(request + at) for at in (CONTEXT, STATUS))
        code = INVALID_ARGUMENT if isinstance(error, (TypeError, ValueError)) else INTERNAL
        runtime.TF_SetStatus(status, code, str(error).encode())
        runtime.TF_OpKernelContext_Failure(context, status)

    def answer(what: int, request: int) -> int:
        try:
            if what == MAKE_PLAN:
                return planner.make_plan(request)
            if what == FORGET:
                planner.forget(request)
            elif what == REFUSED:
                refused = planner.of_request(request).refused(request)
                if refused is not None:
                    raise refused
            else:
                planner.of_request(request).run(request)
        except BaseException as error:
            fail(request, error)
        return 0

    return answer


def _register(runtime: Any, name: str, definition: Any, functions: tuple[int, int]) -> None:
    """Tell the runtime of an operation and of its kernel for the CPU."""
    pointer = ctypes.c_void_p
    for maker in (runtime.TF_NewOpDefinitionBuilder, runtime.TF_NewKernelBuilder, runtime.TF_NewStatus):
        maker.restype = pointer
    adders = (
        runtime.TF_OpDefinitionBuilderAddAttr,
        runtime.TF_OpDefinitionBuilderAddInput,
        runtime.TF_OpDefinitionBuilderAddOutput,
    )
    status = pointer(runtime.TF_NewStatus())
    op = pointer(runtime.TF_NewOpDefinitionBuilder(name.encode()))
    for add, texts in zip(adders, definition, strict=True):
        for text in texts:
            add(op, text.encode())
    # shapes depend on the options, which the C interface does not show here: `Loss` sets what is known of them
    unknown = pointer(_address(runtime.TF_ShapeInferenceContextSetUnknownShape))
    runtime.TF_OpDefinitionBuilderSetShapeInferenceFunction(op, unknown)
    runtime.TF_RegisterOpDefinition(op, status)
    free = pointer(_address(ctypes.CDLL(None).free))
    create, compute = map(pointer, functions)
    kernel = pointer(runtime.TF_NewKernelBuilder(name.encode(), b"CPU", create, compute, free))
    runtime.TF_RegisterKernelBuilder(name.encode(), kernel, status)


def _with_argument(function: int, argument: int) -> int:
    """The address of f(a) = function(a, argument, 0); made anew in each process, since addresses differ."""
    name = "withlogits_op_create"
    text = f"""
        target triple = "{host().triple}"
        define i64 @{name}(i64 %a) {{
            %f = inttoptr i64 {function} to ptr
            %r = call i64 %f(i64 %a, i64 {argument}, i64 0)
            ret i64 %r
        }}
    """
    return compiler.loaded(compiler.optimized(text, host()), name, host())
