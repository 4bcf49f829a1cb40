"""Loops, branches and variables of kernels, as context managers that write LLVM's blocks.

    total = Variable(constant(0.0, F64))
    with loop(0, n) as i:
        with when(i != skipped):
            total.value = total.value + load(at + 8 * i, F64)

Variables are stack slots, which LLVM turns into registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from llvmlite import ir

from . import simd
from .simd import F64, I64, Value, integer, load
from .target import Target

Kernel = Callable[[Value, Value, Value], Value]
Branch = AbstractContextManager[None]


class Variable:
    """A value that loops and branches may change."""

    def __init__(self, value: Value) -> None:
        builder = simd.builder()
        with simd.at_entry():
            self._slot = builder.alloca(value.type)
        self._type = value.type
        self.value = value

    @property
    def value(self) -> Value:
        return Value(simd.builder().load(self._slot, typ=self._type))

    @value.setter
    def value(self, value: Value) -> None:
        simd.builder().store(value.v, self._slot)


@contextmanager
def repeat(condition: Callable[[], Value]) -> Iterator[None]:
    """Run the body as long as the condition holds; it is looked at before each time."""
    builder = simd.builder()
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(condition().v, body, end)
    builder.position_at_end(body)
    yield
    builder.branch(head)
    builder.position_at_end(end)


@contextmanager
def loop(start: Value | int, stop: Value | int, step: Value | int = 1) -> Iterator[Value]:
    """Run the body for i = start, start + step, … below stop."""
    i, stop = Variable(integer(start)), integer(stop)
    with repeat(lambda: i.value < stop):
        now = i.value
        yield now
        i.value = now + step


@contextmanager
def when(condition: Value) -> Iterator[None]:
    """Run the body if the condition holds."""
    with simd.builder().if_then(condition.v):
        yield


@contextmanager
def if_else(condition: Value) -> Iterator[tuple[Branch, Branch]]:
    """Give two context managers: what to run if the condition holds, and what otherwise."""
    with simd.builder().if_else(condition.v) as branches:
        yield branches


class Job:
    """The slots of a job as attributes; a name with a dot (left out of the attribute's) is a float64."""

    def __init__(self, address: Value, names: tuple[str, ...]) -> None:
        for i, name in enumerate(names):
            setattr(self, name.rstrip("."), load(address + 8 * i, F64 if name.endswith(".") else I64))

    def __getattr__(self, name: str) -> Value:
        raise AttributeError(name)


def written(kernel: Kernel, name: str, target: Target) -> str:
    """Return the LLVM assembly of a kernel as the C function `name(job, start, stop)`."""
    module = ir.Module(name)
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 3), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with simd.writing(builder, target):
        builder.ret(kernel(*(Value(argument) for argument in function.args)).v)
    # LLVM must not make calls of memset or memcpy from loops: the object file stands alone
    head = f'@"{name}"(i64 %".1", i64 %".2", i64 %".3")'
    return str(module).replace(head, head + ' nounwind "no-builtins"', 1)
