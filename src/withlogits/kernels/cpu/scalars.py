"""Loads, stores and bit patterns of single numbers, for kernels that are plain scalar loops.

An address and an index make one pointer that LLVM can follow through a loop, so that it vectorises the loop where it
can. As with `simd`, compiled code has no arrays, and therefore needs no Numba runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .memory import KINDS, Kind

I32, I64, F32, F64 = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
NUMBERS = {I32: types.int32, I64: types.int64, F32: types.float32, F64: types.float64}


def _at(builder: Any, address: Any, index: Any, llvm: ir.Type) -> Any:
    return builder.gep(builder.inttoptr(address, ir.PointerType()), [index], source_etype=llvm)


def loader(kind: Kind, to: ir.Type) -> Callable[..., Any]:
    """A function (address, index) that reads one element of this kind as the float or integer type `to`."""

    def widened(builder: Any, raw: Any) -> Any:
        if kind.name == "bfloat16":
            raw = builder.bitcast(builder.shl(builder.zext(raw, I32), ir.Constant(I32, 16)), F32)
        if raw.type == to:
            return raw
        if isinstance(raw.type, ir.IntType):
            if isinstance(to, ir.IntType):
                return builder.zext(raw, to) if kind.unsigned else builder.sext(raw, to)
            return builder.uitofp(raw, to) if kind.unsigned else builder.sitofp(raw, to)
        return builder.fpext(raw, to)

    @intrinsic
    def load(context: Any, address: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return widened(builder, builder.load(_at(builder, args[0], args[1], kind.llvm), typ=kind.llvm, align=1))

        return NUMBERS[to](types.int64, types.int64), emit

    found: Callable[..., Any] = load
    return found


def storer(llvm: ir.Type) -> Callable[..., Any]:
    """A function (address, index, number) that writes one number of this type."""

    @intrinsic
    def store(context: Any, address: Any, index: Any, number: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[2], _at(builder, args[0], args[1], llvm), align=1)
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, NUMBERS[llvm]), emit

    found: Callable[..., Any] = store
    return found


def _cast(source: ir.Type, to: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def cast(context: Any, number: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], to)

        return NUMBERS[to](NUMBERS[source]), emit

    found: Callable[..., Any] = cast
    return found


load_float, load_integer = loader(KINDS["float64"], F64), loader(KINDS["int64"], I64)
store_float, store_integer = storer(F64), storer(I64)
bits32, bits64, float32_of, float64_of = _cast(F32, I32), _cast(F64, I64), _cast(I32, F32), _cast(I64, F64)
