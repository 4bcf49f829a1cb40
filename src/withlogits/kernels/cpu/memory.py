"""How elements of every kind are read into vectors of float64 and written back, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from . import simd
from .simd import F16, F32, F64, I8, I16, I32, I64, Value

AHEAD = 1 << 12  # bytes from here to the memory that is asked for before it is read or written


@dataclass(frozen=True)
class Kind:
    """An element type as it lies in memory."""

    name: str
    llvm: ir.Type
    unsigned: bool = False

    @property
    def size(self) -> int:
        return {F16: 2, F32: 4, F64: 8}[self.llvm] if not isinstance(self.llvm, ir.IntType) else self.llvm.width // 8


KINDS = {
    kind.name: kind
    for kind in (
        Kind("float16", F16),
        Kind("bfloat16", I16, unsigned=True),
        Kind("float32", F32),
        Kind("float64", F64),
        Kind("bool", I8, unsigned=True),
        *(Kind(f"int{llvm.width}", llvm) for llvm in (I8, I16, I32, I64)),
        *(Kind(f"uint{llvm.width}", llvm, unsigned=True) for llvm in (I8, I16, I32, I64)),
    )
}


def from_bfloat16(raw: Value) -> Value:
    return simd.bits(simd.convert(raw, I32, unsigned=True) << 16)


def to_bfloat16(x: Value) -> Value:
    """float32 rounded to the nearest even bfloat16; NaN stays NaN."""
    raw = simd.bits(x)
    rounded = raw + 0x7FFF + ((raw >> 16) & 1)
    return simd.convert(simd.select(x == x, rounded, 0x7FC00000) >> 16, I16)


def widen(raw: Value, kind: Kind, element: ir.Type) -> Value:
    if kind.name == "bfloat16":
        return simd.convert(from_bfloat16(raw), element)
    if kind.name == "float16":
        return simd.convert(simd.convert(raw, F32), element)
    return simd.convert(raw, element, kind.unsigned)


def narrow(x: Value, kind: Kind) -> Value:
    if kind.name == "float64":
        return x
    single = simd.convert(x, F32)
    if kind.name == "bfloat16":
        return to_bfloat16(single)
    return simd.convert(single, kind.llvm)


@dataclass(frozen=True)
class Access:
    """Reading and writing one array's lanes.

    `address` is a scalar where lanes lie side by side, a vector of addresses where they do not (`strided`). Strided
    lanes without work repeat the last lane that has some, so they may be read and written without a mask.
    """

    kind: Kind
    lanes: int
    strided: bool

    @property
    def _wide(self) -> bool:
        """Do processors gather elements of this size."""
        return self.kind.size >= 4 and self.lanes > 1

    def _raw(self, address: Value, mask: Value) -> Value:
        llvm = simd.vector(self.kind.llvm, self.lanes)
        zero = simd.constant(0, llvm)
        if not self.strided:
            return simd.load_some(address, mask, zero)
        if self._wide:
            return simd.gather(address, llvm)
        return self._one_by_one(address, lambda at: simd.load(at, self.kind.llvm), zero)

    def _one_by_one(self, addresses: Value, read: Callable[[Value], Value], into: Value) -> Value:
        for i in range(self.lanes):
            into = simd.insert(into, read(simd.lane(addresses, i)), i)
        return into

    def read(self, address: Value, mask: Value, otherwise: float, element: ir.Type = F64) -> Value:
        x = widen(self._raw(address, mask), self.kind, element)
        if self.strided:
            return x
        return simd.select(mask, x, simd.constant(otherwise, x.type))

    def write_past_caches(self, x: Value, address: Value) -> None:
        """All lanes, side by side, to an address that is a multiple of 64, or of their size if that is less."""
        raw = narrow(x, self.kind)
        lanes = min(64 // self.kind.size, self.lanes)
        for i in range(0, self.lanes, lanes):
            part = simd.shuffle(raw, raw, list(range(i, i + lanes)))
            simd.stream(part, address + i * self.kind.size, lanes * self.kind.size)

    def write(self, x: Value, address: Value, mask: Value) -> None:
        raw = narrow(x, self.kind)
        if not self.strided:
            simd.store_some(raw, address, mask)
            return
        if self._wide:
            simd.scatter(raw, address)
            return
        for i in range(self.lanes):
            simd.store(simd.lane(raw, i), simd.lane(address, i))


def transposed(rows: list[Value]) -> list[Value]:
    """As many vectors as they have lanes, a power of two: lane j of vector i becomes lane i of vector j."""
    lanes, rows = len(rows), list(rows)
    step = 1
    while step < lanes:
        for i in range(lanes):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i] = simd.shuffle(a, b, [lanes + k - step if k & step else k for k in range(lanes)])
                rows[i + step] = simd.shuffle(a, b, [lanes + k if k & step else k + step for k in range(lanes)])
        step *= 2
    return rows


@dataclass(frozen=True)
class Tile:
    """`lanes` short rows of one array, turned so that each class's elements lie side by side.

    A tile is read and written in squares of `lanes` classes. That is several times faster than gathering a class's
    elements one by one from rows that are apart.
    """

    kind: Kind
    lanes: int

    @property
    def step(self) -> int:
        """Bytes from class to class."""
        return self.lanes * self.kind.size

    def scratch(self, classes: int) -> Value:
        return simd.scratch(classes * self.step)

    def fill(self, tile: Value, address: Value, row_step: Value, n: Value, mask: Value) -> None:
        """A square from `n` rows of an array; lanes without a row repeat the last. `mask`: which classes there are."""
        zero = simd.constant(0, simd.vector(self.kind.llvm, self.lanes))
        at = [simd.smaller(simd.constant(i, n.type), n - 1) * row_step + address for i in range(self.lanes)]
        for a in at:  # the processor does not see by itself that rows under a mask follow one another
            simd.prefetch(a + AHEAD)
        for j, column in enumerate(transposed([simd.load_some(a, mask, zero) for a in at])):
            simd.store(column, tile + j * self.step)

    def empty(self, tile: Value, address: Value, row_step: Value, n: Value, mask: Value) -> None:
        """A square to `n` rows of an array."""
        llvm = simd.vector(self.kind.llvm, self.lanes)
        flags = simd.vector(simd.I1, self.lanes)
        columns = [simd.load(tile + j * self.step, llvm) for j in range(self.lanes)]
        for i, row in enumerate(transposed(columns)):
            there = simd.splat(simd.constant(i, n.type) < n, flags)
            simd.store_some(row, row_step * i + address, mask & there)
