"""Calls from Numba functions to straight-line functions of SIMD values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from .simd import F32, F64, I1, I8, I16, I32, I64, Value, writing

_NUMBA = {I1: types.boolean, I8: types.int8, I16: types.int16, I32: types.int32, I64: types.int64}
_NUMBA |= {F32: types.float32, F64: types.float64}


class Vector(types.Type):  # type: ignore[misc]
    """The Numba type of an LLVM vector, as a kernel's local variable holds it."""

    def __init__(self, llvm: ir.VectorType) -> None:
        self.llvm = llvm
        super().__init__(name=f"Vector({llvm})")

    @property
    def key(self) -> str:
        return str(self.llvm)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _numba_type(llvm: ir.Type) -> types.Type:
    return Vector(llvm) if isinstance(llvm, ir.VectorType) else _NUMBA[llvm]


def _llvm_type(numba: types.Type) -> ir.Type:
    if isinstance(numba, Vector):
        return numba.llvm
    for llvm, known in _NUMBA.items():
        if known == numba:
            return llvm
    raise TypeError(f"a traced function takes vectors, integers, floats and booleans; got {numba}")


def _trace(function: Callable[..., Any], builder: ir.IRBuilder, args: Any) -> Any:
    with writing(builder):
        result = function(*(Value(a) for a in args))
    return tuple(v.v for v in result) if isinstance(result, tuple) else (None if result is None else result.v)


def _result_type(function: Callable[..., Any], args: tuple[types.Type, ...]) -> types.Type:
    """The Numba type of the result, found by tracing once into a module that is thrown away."""
    scratch = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [_llvm_type(a) for a in args]), "scratch")
    result = _trace(function, ir.IRBuilder(scratch.append_basic_block()), scratch.args)
    if result is None:
        return types.none
    if isinstance(result, tuple):
        return types.Tuple([_numba_type(v.type) for v in result])
    return _numba_type(result.type)


def register(function: Callable[..., Any]) -> Callable[..., Any]:
    """Teach Numba to type and lower calls of `function`; returns `function`."""

    class _Typing(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            assert not kws, "traced functions take positional arguments"
            plain = tuple(types.unliteral(a) for a in args)
            return signature(_result_type(function, plain), *plain)

    infer_global(function, types.Function(_Typing))

    @lower_builtin(function, types.VarArg(types.Any))
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = _trace(function, builder, args)
        if result is None:
            return context.get_dummy_value()
        if isinstance(result, tuple):
            return context.make_tuple(builder, sig.return_type, result)
        return result

    return function
