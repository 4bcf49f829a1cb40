"""SIMD values that write LLVM instructions.

A kernel is plain Python, run once at compile time on `Value`s whose operators write instructions instead of computing:
`x * a + b` on vectors means one multiply and one add, in that order, and nothing else. Loops and branches are the
context managers of `control.py`.

LLVM's own vectoriser is not used: accuracy rests on the exact order of operations (TwoSum, pairs), which it may only
change under flags that break them; and it picks 256-bit vectors where 512-bit ones are twice as fast.

Everything works on addresses (int64). There are no arrays and no run-time library: the object file stands alone and can
be called by anything that speaks C.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from llvmlite import ir

from .target import Target, host

T = TypeVar("T")
I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_SUFFIX = {I1: "i1", I8: "i8", I16: "i16", I32: "i32", I64: "i64", F16: "f16", F32: "f32", F64: "f64"}


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    return ir.VectorType(element, lanes)


def _element(llvm: ir.Type) -> ir.Type:
    return llvm.element if isinstance(llvm, ir.VectorType) else llvm


def _is_float(llvm: ir.Type) -> bool:
    return isinstance(_element(llvm), (ir.HalfType, ir.FloatType, ir.DoubleType))


def _like(llvm: ir.Type, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, llvm.count) if isinstance(llvm, ir.VectorType) else element


def _suffix(llvm: ir.Type) -> str:
    if isinstance(llvm, ir.VectorType):
        return f"v{llvm.count}{_SUFFIX[llvm.element]}"
    return "p0" if isinstance(llvm, ir.PointerType) else _SUFFIX[llvm]


_builder: list[ir.IRBuilder] = []
_target: list[Target] = []


@contextmanager
def writing(builder: ir.IRBuilder, target: Target | None = None) -> Iterator[None]:
    """Let values write their instructions with this builder, for this target (else the host)."""
    _builder.append(builder)
    _target.append(target or host())
    try:
        yield
    finally:
        _builder.pop()
        _target.pop()


def builder() -> ir.IRBuilder:
    return _builder[-1]


@contextmanager
def at_entry() -> Iterator[None]:
    """Write instructions that run once, when the kernel begins."""
    if _builder[-1].block is _builder[-1].function.entry_basic_block:
        yield
    else:
        with _builder[-1].goto_entry_block():
            yield


def target() -> Target:
    return _target[-1]


def _intrinsic(name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    module = _builder[-1].module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return _builder[-1].call(function, args)


class Value:
    """An SSA value while a function is traced: operators write instructions. Numbers beside it become splats."""

    __slots__ = ("v",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, v: ir.Value) -> None:
        self.v = v

    @property
    def type(self) -> ir.Type:
        return self.v.type

    def _with(self, other: Any) -> ir.Value:
        if isinstance(other, Value):
            if other.type == self.type:
                return other.v
            return splat(other, self.type).v
        return constant(other, self.type).v

    def _both(self, other: Any) -> tuple[ir.Value, ir.Value]:
        if isinstance(other, Value) and isinstance(other.type, ir.VectorType) and other.type != self.type:
            return other._with(self), other.v
        return self.v, self._with(other)

    def _op(self, other: Any, floating: str, integral: str, swap: bool = False) -> Value:
        a, b = self._both(other)
        name = floating if _is_float(a.type) else integral
        return Value(getattr(_builder[-1], name)(*((b, a) if swap else (a, b))))

    def __add__(self, o: Any) -> Value:
        return self._op(o, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, o: Any) -> Value:
        return self._op(o, "fsub", "sub")

    def __rsub__(self, o: Any) -> Value:
        return self._op(o, "fsub", "sub", swap=True)

    def __mul__(self, o: Any) -> Value:
        return self._op(o, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, o: Any) -> Value:
        return self._op(o, "fdiv", "sdiv")

    def __rtruediv__(self, o: Any) -> Value:
        return self._op(o, "fdiv", "sdiv", swap=True)

    def __neg__(self) -> Value:
        return Value(_builder[-1].fneg(self.v) if _is_float(self.type) else _builder[-1].neg(self.v))

    def __and__(self, o: Any) -> Value:
        return self._op(o, "", "and_")

    def __or__(self, o: Any) -> Value:
        return self._op(o, "", "or_")

    def __xor__(self, o: Any) -> Value:
        return self._op(o, "", "xor")

    def __invert__(self) -> Value:
        return Value(_builder[-1].not_(self.v))

    def __lshift__(self, o: Any) -> Value:
        return self._op(o, "", "shl")

    def __rshift__(self, o: Any) -> Value:
        """Arithmetic: keeps the sign."""
        return self._op(o, "", "ashr")

    def _compare(self, op: str, other: Any) -> Value:
        a, b = self._both(other)
        if _is_float(a.type):
            compare = _builder[-1].fcmp_unordered if op == "!=" else _builder[-1].fcmp_ordered
        else:
            compare = _builder[-1].icmp_signed
        return Value(compare(op, a, b))

    def __lt__(self, o: Any) -> Value:
        return self._compare("<", o)

    def __le__(self, o: Any) -> Value:
        return self._compare("<=", o)

    def __gt__(self, o: Any) -> Value:
        return self._compare(">", o)

    def __ge__(self, o: Any) -> Value:
        return self._compare(">=", o)

    def __eq__(self, o: Any) -> Value:  # type: ignore[override]
        return self._compare("==", o)

    def __ne__(self, o: Any) -> Value:  # type: ignore[override]
        return self._compare("!=", o)


def float32(number: float) -> float:
    """Return the number rounded to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0] if abs(number) != float("inf") else number
    return rounded


def float32_bits(number: float) -> int:
    """Return the bits of the number rounded to float32, as a signed integer."""
    word: int = struct.unpack("i", struct.pack("f", number))[0]
    return word


def constant(number: float | int, llvm: ir.Type) -> Value:
    element = _element(llvm)
    if isinstance(element, ir.FloatType):  # LLVM wants a float constant that is exactly a float32
        number = float32(number)
    item = float(number) if _is_float(element) else int(number)
    if isinstance(llvm, ir.VectorType):
        return Value(ir.Constant(llvm, [ir.Constant(element, item)] * llvm.count))
    return Value(ir.Constant(llvm, item))


def integer(number: Value | int) -> Value:
    """Return a number as a Value of 64 bits."""
    return number if isinstance(number, Value) else constant(number, I64)


def splat(scalar: Value, llvm: ir.VectorType) -> Value:
    """A scalar in every lane."""
    builder = _builder[-1]
    if scalar.type != llvm.element:
        raise TypeError(f"cannot splat {scalar.type} into {llvm}")
    first = builder.insert_element(ir.Constant(llvm, ir.Undefined), scalar.v, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, llvm.count), [ir.Constant(I32, 0)] * llvm.count)
    return Value(builder.shuffle_vector(first, ir.Constant(llvm, ir.Undefined), zeros))


def lane_numbers(llvm: ir.VectorType) -> Value:
    """0, 1, 2, … of an integer vector type."""
    return Value(ir.Constant(llvm, [ir.Constant(llvm.element, i) for i in range(llvm.count)]))


def shuffle(a: Value, b: Value, lanes: list[int]) -> Value:
    index = ir.Constant(ir.VectorType(I32, len(lanes)), [ir.Constant(I32, i) for i in lanes])
    return Value(_builder[-1].shuffle_vector(a.v, b.v, index))


def halves(x: Value) -> tuple[Value, Value]:
    n = x.type.count
    return shuffle(x, x, list(range(n // 2))), shuffle(x, x, list(range(n // 2, n)))


def join(low: Value, high: Value) -> Value:
    return shuffle(low, high, list(range(2 * low.type.count)))


def lane(x: Value, i: int) -> Value:
    return Value(_builder[-1].extract_element(x.v, ir.Constant(I32, i)))


def insert(x: Value, scalar: Value, i: int) -> Value:
    return Value(_builder[-1].insert_element(x.v, scalar.v, ir.Constant(I32, i)))


def across(x: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes combined by a tree whose shape depends on the number of lanes alone."""
    while x.type.count > 1:
        if x.type.count == 2:
            return combine(lane(x, 0), lane(x, 1))
        x = combine(*halves(x))
    return lane(x, 0)


def select(mask: Value, yes: Any, no: Any) -> Value:
    """One mask for all, or one a lane; a number or scalar beside a vector is splat."""
    if not isinstance(yes, Value):
        yes = constant(yes, no.type)
    elif isinstance(no, Value) and isinstance(no.type, ir.VectorType):
        yes = Value(no._with(yes))
    return Value(_builder[-1].select(mask.v, yes.v, yes._with(no)))


def either(condition: Value, yes: Callable[[], T], no: Callable[[], T]) -> T:
    """Return what one of two functions gives: a value or nothing. The other's instructions are jumped over."""
    builder = _builder[-1]
    with builder.if_else(condition.v) as (then, otherwise):
        with then:
            first, after_first = yes(), builder.block
        with otherwise:
            second, after_second = no(), builder.block

    if not isinstance(first, Value) or not isinstance(second, Value):
        return first
    result = builder.phi(first.type)
    result.add_incoming(first.v, after_first)
    result.add_incoming(second.v, after_second)
    return Value(result)  # type: ignore[return-value]


def larger(a: Value, b: Value) -> Value:
    """a where a > b, else b: one `max` instruction; with NaN on either side the answer is b."""
    a, b = (Value(v) for v in a._both(b))
    return Value(_builder[-1].select((a > b).v, a.v, b.v))


def smaller(a: Value, b: Value) -> Value:
    """a where a < b, else b; with NaN on either side the answer is b."""
    a, b = (Value(v) for v in a._both(b))
    return select(a < b, a, b)


def fma(a: Value, b: Any, c: Any) -> Value:
    """a·b + c with one rounding."""
    for other in (b, c):
        if isinstance(other, Value) and isinstance(other.type, ir.VectorType) and not isinstance(a.type, ir.VectorType):
            a = splat(a, other.type)
    return Value(_intrinsic(f"llvm.fma.{_suffix(a.type)}", a.type, a.v, a._with(b), a._with(c)))


def _mask_bits(mask: Value) -> Value:
    return Value(_builder[-1].bitcast(mask.v, ir.IntType(mask.type.count)))


def look_up(table: tuple[int, ...], index: Value) -> Value:
    """Return the table's number (32 bits) that the lowest bits of each lane's index name; it has a power of two."""
    if len(table) == 1:
        return constant(table[0], index.type)
    lanes, half = index.type.count, len(table) // 2
    if lanes > target().float32_lanes:
        low, high = (look_up(table, part) for part in halves(index))
        return join(low, high)
    if (lanes, len(table)) == (16, 32) and target().table_entries == 32:
        low, high = (_words(part) for part in (table[:half], table[half:]))
        return Value(_intrinsic("llvm.x86.avx512.vpermi2var.d.512", index.type, low, index.v, high))
    if (lanes, len(table)) == (8, 8) and target().table_entries == 8:
        return Value(_intrinsic("llvm.x86.avx2.permd", index.type, _words(table), index.v))
    return select((index & half) == 0, look_up(table[:half], index), look_up(table[half:], index))


def _words(numbers: tuple[int, ...]) -> ir.Value:
    return ir.Constant(vector(I32, len(numbers)), [ir.Constant(I32, number) for number in numbers])


def set_lanes(mask: Value) -> Value:
    """Return how many lanes of a mask hold."""
    raw = _mask_bits(mask)
    count = _intrinsic(f"llvm.ctpop.i{mask.type.count}", raw.type, raw.v)
    return Value(_builder[-1].zext(count, I64))


def any_lane(mask: Value) -> Value:
    """Return whether some lane of a mask holds."""
    return _mask_bits(mask) != 0


def absolute(x: Value) -> Value:
    return Value(_intrinsic(f"llvm.fabs.{_suffix(x.type)}", x.type, x.v))


def truncated(x: Value) -> Value:
    """Return floats rounded to whole numbers towards 0."""
    return Value(_intrinsic(f"llvm.trunc.{_suffix(x.type)}", x.type, x.v))


def copysign(x: Value, sign: Value) -> Value:
    return Value(_intrinsic(f"llvm.copysign.{_suffix(x.type)}", x.type, x.v, sign.v))


def bits(x: Value) -> Value:
    """The bits of a float as an integer, or of an integer as a float."""
    to = {F32: I32, F64: I64, F16: I16, I32: F32, I64: F64, I16: F16}[_element(x.type)]
    return Value(_builder[-1].bitcast(x.v, _like(x.type, to)))


def convert(x: Value, element: ir.Type, unsigned: bool = False) -> Value:
    """The same numbers in another type; floats round to nearest, integers widen by their sign unless `unsigned`."""
    source, to, builder = _element(x.type), _like(x.type, element), _builder[-1]
    if source == element:
        return x
    if _is_float(source) and _is_float(element):
        wider = element.intrinsic_name > source.intrinsic_name if source != F16 else True
        if element == F16:
            wider = False
        return Value((builder.fpext if wider else builder.fptrunc)(x.v, to))
    if _is_float(element):
        return Value((builder.uitofp if unsigned else builder.sitofp)(x.v, to))
    if _is_float(source):
        return Value(builder.fptosi(x.v, to))
    if element.width < source.width:
        return Value(builder.trunc(x.v, to))
    return Value((builder.zext if unsigned or source == I1 else builder.sext)(x.v, to))


def pointer(address: Value) -> ir.Value:
    return _builder[-1].inttoptr(address.v, ir.PointerType())


def load(address: Value, llvm: ir.Type) -> Value:
    """Unaligned, as the caller's array lies."""
    return Value(_builder[-1].load(pointer(address), align=1, typ=llvm))


def store(x: Value, address: Value) -> None:
    _builder[-1].store(x.v, pointer(address), align=1)


def stream(x: Value, address: Value, nbytes: int) -> None:
    """Written past the caches, to an address that is a multiple of the vector's size: memory is not read first."""
    written = _builder[-1].store(x.v, pointer(address), align=nbytes)
    written.set_metadata("nontemporal", _builder[-1].module.add_metadata([ir.Constant(I32, 1)]))


def fence() -> None:
    """Make everything streamed so far visible to every thread."""
    _builder[-1].fence("seq_cst")


def load_some(address: Value, mask: Value, otherwise: Value) -> Value:
    """The lanes where `mask` holds; memory behind the others is not touched."""
    name = f"llvm.masked.load.{_suffix(otherwise.type)}.p0"
    return Value(_masked(name, otherwise.type, [pointer(address)], mask.v, otherwise.v))


def store_some(x: Value, address: Value, mask: Value) -> None:
    _masked(f"llvm.masked.store.{_suffix(x.type)}.p0", ir.VoidType(), [x.v, pointer(address)], mask.v)


def _masked(name: str, result: ir.Type, head: list[ir.Value], *tail: ir.Value) -> ir.Value:
    args = [*head, ir.Constant(I32, 1), *tail]  # the alignment stands between the pointer and the mask
    return _intrinsic(name, result, *args)


def gather(addresses: Value, llvm: ir.VectorType) -> Value:
    """Lane i from its own address."""
    pointers = _builder[-1].inttoptr(addresses.v, ir.VectorType(ir.PointerType(), llvm.count))
    every, none = constant(1, vector(I1, llvm.count)).v, ir.Constant(llvm, ir.Undefined)
    return Value(_masked(f"llvm.masked.gather.{_suffix(llvm)}.v{llvm.count}p0", llvm, [pointers], every, none))


def scatter(x: Value, addresses: Value) -> None:
    """Lane i to its own address; of lanes with the same address the last wins."""
    n = x.type.count
    pointers = _builder[-1].inttoptr(addresses.v, ir.VectorType(ir.PointerType(), n))
    every = constant(1, vector(I1, n)).v
    _masked(f"llvm.masked.scatter.{_suffix(x.type)}.v{n}p0", ir.VoidType(), [x.v, pointers], every)


def scratch(nbytes: int) -> Value:
    """The address of memory that lasts as long as the kernel runs."""
    builder = _builder[-1]
    with at_entry():
        space = builder.alloca(ir.ArrayType(I8, nbytes))
        space.align = 64
        return Value(builder.ptrtoint(space, I64))


def prefetch(address: Value, to_write: bool = False) -> None:
    """Ask for the cache line of `address`, soon to be read (or written); never faults."""
    flags = [ir.Constant(I32, n) for n in (int(to_write), 2, 1)]
    _intrinsic("llvm.prefetch.p0", ir.VoidType(), pointer(address), *flags)


def _slot(address: Value) -> ir.Value:
    """llvmlite's atomics want to know what they point to."""
    return _builder[-1].inttoptr(address.v, I64.as_pointer())


def atomic_add(address: Value, amount: Any) -> Value:
    """The value before."""
    return Value(_builder[-1].atomic_rmw("add", _slot(address), integer(amount).v, "seq_cst"))


def atomic_load(address: Value) -> Value:
    return Value(_builder[-1].load_atomic(_slot(address), "seq_cst", 8))


def atomic_store(x: Value, address: Value) -> None:
    _builder[-1].store_atomic(x.v, _slot(address), "seq_cst", 8)


def call(function: Value, *args: Value) -> Value:
    """The C function of 64-bit integers at an address."""
    kind = ir.FunctionType(I64, [I64] * len(args))
    return Value(_builder[-1].call(_builder[-1].inttoptr(function.v, kind.as_pointer()), [a.v for a in args]))


def pause() -> None:
    """Tell the processor that this is a spin loop (a hint; nothing where there is none)."""
    if target().architecture == "x86_64":
        _intrinsic("llvm.x86.sse2.pause", ir.VoidType())
    elif target().architecture in ("aarch64", "arm64"):
        _intrinsic("llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))
