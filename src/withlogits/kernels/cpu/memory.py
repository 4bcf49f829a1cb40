"""How elements of every kind are read into vectors of float64 and written back, rounded once."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from . import simd
from .control import Variable, if_else, loop, when
from .simd import F16, F32, F64, I8, I16, I32, I64, Value

PAGE = 4096  # bytes: memory that can be read at one address can be read up to the next multiple of this
AHEAD = 1 << 12  # bytes from here to the memory that is asked for before it is read or written


@dataclass(frozen=True)
class Kind:
    """An element type as it lies in memory."""

    name: str
    llvm: ir.Type
    unsigned: bool = False

    @property
    def size(self) -> int:
        return KIND_BYTES[self.llvm]


KIND_BYTES = {I8: 1, I16: 2, I32: 4, I64: 8, F16: 2, F32: 4, F64: 8}
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


# Kinds of which float32 holds every number
FLOAT32_HOLDS = ("float32", "float16", "bfloat16", "bool", "int8", "uint8", "int16", "uint16")


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


Lanes = Value | None  # which lanes exist: all (None), the first n (an integer), or those of a mask


def some_lanes(lanes: Value, count: int) -> Value:
    """Return the mask of the lanes that exist."""
    if isinstance(lanes.type, ir.VectorType):
        return lanes
    return simd.lane_numbers(simd.vector(I32, count)) < simd.convert(simd.smaller(lanes, simd.integer(count)), I32)


def load_lanes(address: Value, llvm: ir.VectorType, lanes: Lanes) -> Value:
    """Load the lanes that exist (at least one); the others are 0, or what lies behind them on the same page."""
    if lanes is None:
        return simd.load(address, llvm)
    if isinstance(lanes.type, ir.VectorType) or simd.target().masks:
        return simd.load_some(address, some_lanes(lanes, llvm.count), simd.constant(0, llvm))
    size = KIND_BYTES[llvm.element]
    readable = (lanes >= llvm.count) | ((address & (PAGE - 1)) <= PAGE - size * llvm.count)

    def copied() -> Value:
        copy = simd.scratch(size * llvm.count)
        with loop(0, lanes) as i:
            simd.store(simd.load(i * size + address, llvm.element), i * size + copy)
        return simd.load(copy, llvm)

    return simd.either(readable, lambda: simd.load(address, llvm), copied)


def store_lanes(x: Value, address: Value, lanes: Lanes) -> None:
    """Store the lanes that exist and nothing else."""
    if lanes is None:
        simd.store(x, address)
        return
    if isinstance(lanes.type, ir.VectorType) or simd.target().masks:
        simd.store_some(x, address, some_lanes(lanes, x.type.count))
        return
    with if_else(lanes >= x.type.count) as (whole, part):
        with whole:
            simd.store(x, address)
        with part:
            _store_first(x, address, lanes)


def _store_first(x: Value, address: Value, n: Value) -> None:
    """Store the first n lanes in pieces of a power of two."""
    size, count = KIND_BYTES[x.type.element], x.type.count
    left, at = Variable(x), Variable(address)
    width = count // 2
    while width:
        with when((n & width) != 0):
            now = left.value
            simd.store(simd.shuffle(now, now, list(range(width))), at.value)
            left.value = simd.shuffle(now, now, [(i + width) % count for i in range(count)])
            at.value = at.value + width * size
        width //= 2


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

    def _raw(self, address: Value, lanes: Lanes) -> Value:
        llvm = simd.vector(self.kind.llvm, self.lanes)
        if not self.strided:
            return load_lanes(address, llvm, lanes)
        if self._wide:
            return simd.gather(address, llvm)
        result = simd.constant(0, llvm)
        for i in range(self.lanes):
            result = simd.insert(result, simd.load(simd.lane(address, i), self.kind.llvm), i)
        return result

    def read(self, address: Value, lanes: Lanes, otherwise: float = 0.0, element: ir.Type = F64) -> Value:
        """Return the lanes that exist, and `otherwise` in the others."""
        x = widen(self._raw(address, lanes), self.kind, element)
        if self.strided or lanes is None:
            return x
        return simd.select(some_lanes(lanes, self.lanes), x, simd.constant(otherwise, x.type))

    def write_past_caches(self, x: Value, address: Value) -> None:
        """Write all lanes, side by side, to an address that is a multiple of 64, or of their size if that is less."""
        raw = narrow(x, self.kind)
        lanes = min(64 // self.kind.size, self.lanes)
        for i in range(0, self.lanes, lanes):
            part = simd.shuffle(raw, raw, list(range(i, i + lanes)))
            simd.stream(part, address + i * self.kind.size, lanes * self.kind.size)

    def write(self, x: Value, address: Value, lanes: Lanes) -> None:
        raw = narrow(x, self.kind)
        if not self.strided:
            store_lanes(raw, address, lanes)
        elif self._wide:
            simd.scatter(raw, address)
        else:
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

    def fill(self, tile: Value, address: Value, row_step: Value, n: Value, classes: Lanes) -> None:
        """Fill a square from the first `classes` of `n` rows (None: all); lanes without a row repeat the last."""
        llvm = simd.vector(self.kind.llvm, self.lanes)
        at = self._rows(address, row_step, n)
        for a in at:  # the processor does not see by itself that rows under a mask follow one another
            simd.prefetch(a + AHEAD)
        for j, column in enumerate(transposed([load_lanes(a, llvm, classes) for a in at])):
            simd.store(column, tile + j * self.step)

    def empty(self, tile: Value, address: Value, row_step: Value, n: Value, classes: Lanes) -> None:
        """Write a square to the first `classes` of `n` rows; lanes without a row hold what the last does."""
        llvm = simd.vector(self.kind.llvm, self.lanes)
        columns = [simd.load(tile + j * self.step, llvm) for j in range(self.lanes)]
        for a, row in zip(self._rows(address, row_step, n), transposed(columns), strict=True):
            store_lanes(row, a, classes)

    def _rows(self, address: Value, row_step: Value, n: Value) -> list[Value]:
        """Return where each lane's row begins."""
        return [simd.smaller(simd.constant(i, n.type), n - 1) * row_step + address for i in range(self.lanes)]
