"""What each row of an array is like, in one pass: what a diagnosis and a score of a row begin with.

For a row x of C numbers, in float64, of elements of any kind:

    top = max x_j    low = min x_j    total = Σ x_j    first = the first j with x_j = top
    above = how many x_j > t

where t is 0, or the row's own element x_y, which is then kept too (`own`).

NaN is passed over by all but `total`, which it makes NaN; of a row of nothing but NaN, top is −inf, low is inf and
first is 0. `total` is a plain sum in float64, within C/8 roundings of the exact one; everything else is exact. What
float32 holds is compared in float32, in half the time.

Lanes lie along the classes of long contiguous rows, and across rows otherwise, as in `softmax.py`. One pass is enough
for `first`, since each lane remembers where its own maximum was.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from . import simd
from .job import FACTS, FACTS_JOB, TILE, FactsSpec
from .memory import KINDS, Access, Tile
from .rows import turning
from .simd import F32, F64, I1, I32, I64, Value, select, traced

INF, NAN = float("inf"), float("nan")


def build(spec: FactsSpec) -> Callable[[int, int, int], int]:
    unpack, scan = simd.reader(FACTS_JOB.names), scanning(spec)

    def kernel(job: int, start: int, stop: int) -> int:
        classes, inner, x_outer, x_row, x_class, out_step, x, y, out = unpack(job)
        scan(classes, inner, x_outer, x_row, x_class, out_step, x, y, out, start, stop)
        return 0

    return kernel


def scanning(spec: FactsSpec) -> Callable[..., None]:
    """A function that kernels call, which looks at the rows from `start` to `stop`."""
    lanes = spec.lanes
    along, tiled = spec.layout == "along", spec.layout == "tiled"
    element, counting = (F32, I32) if spec.single else (F64, I64)
    full, double, numbers, counts = (simd.vector(kind, lanes) for kind in (element, F64, I64, counting))
    access, apart = Access(KINDS[spec.x], lanes, False), Access(KINDS[spec.x], lanes, True)
    alone, alone_flag = Access(KINDS[spec.x], 1, False), simd.vector(I1, 1)
    tile = Tile(access.kind, lanes)
    fill, _ = turning(tile if tiled else None)

    @traced
    def square() -> Value:
        return tile.scratch(TILE) if tiled else simd.constant(0, I64)

    @traced
    def first_lanes(n: Value) -> Value:
        return simd.lane_numbers(numbers) < n

    @traced
    def threshold(y: Value, xa: Value, row_step: Value, class_step: Value, n: Value) -> Value:
        """0, or each row's element at the number that stands at y; lanes without a row repeat the last row's first."""
        if not spec.picked:
            return simd.constant(0.0, full)
        if along:
            at = xa + simd.load(y, I64) * class_step
            return simd.splat(simd.lane(alone.read(at, simd.constant(1, alone_flag), 0.0, element), 0), full)
        own = simd.load_some(y, first_lanes(n), simd.constant(0, numbers))
        at = simd.smaller(simd.lane_numbers(numbers), n - 1) * row_step + own * class_step + xa
        return apart.read(at, simd.constant(1, simd.vector(I1, lanes)), 0.0, element)

    @traced
    def nothing() -> tuple[Value, ...]:
        zero = simd.constant(0, counts)
        at = simd.lane_numbers(counts) if along else zero
        return simd.constant(-INF, full), simd.constant(INF, full), simd.constant(0.0, double), zero, zero, at

    @traced
    def visit(
        top: Value, low: Value, total: Value, first: Value, above: Value, at: Value, xa: Value, mask: Value, t: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """One step; `at` is each lane's place in its row."""
        x = access.read(xa, mask, NAN, element)
        first = select(x > top, at, first)
        above = above + simd.convert(x > t, counting)
        total = total + simd.convert(select(mask, x, 0.0), F64)
        return simd.larger(x, top), simd.smaller(x, low), total, first, above, at + (lanes if along else 1)

    @traced
    def keep(
        top: Value, low: Value, total: Value, first: Value, above: Value, t: Value, out: Value, step: Value,
        rows: Value,
    ) -> None:  # fmt: skip
        results = [top, low, total, first, above]
        if along:
            highest = simd.across(top, simd.larger)
            nowhere = simd.constant((1 << 31) - 1, counts)
            where = simd.across(select(top == highest, first, nowhere), simd.smaller)
            total, above = (simd.across(x, lambda a, b: a + b) for x in (total, above))
            results, t = [highest, simd.across(low, simd.smaller), total, where, above], simd.lane(t, 0)
        assert len(results) == len(FACTS)
        for i, result in enumerate([*results, t] if spec.picked else results):
            wide = simd.convert(result, F64)
            if along:
                simd.store(wide, out + step * i)
            else:
                simd.store_some(wide, out + step * i, rows)

    size, tile_step, x_step = access.kind.size, tile.step, lanes if along else 1

    @njit(error_model="numpy")
    def scan(
        classes: int, inner: int, x_outer: int, x_row: int, x_class: int, out_step: int, x: int, y: int, out: int,
        start: int, stop: int,
    ) -> None:  # fmt: skip
        whole = classes // lanes if along else classes
        rest = classes - whole * lanes if along else 0
        x_next = tile_step if tiled else x_step * x_class
        turned = square()
        everything, last = first_lanes(lanes), first_lanes(rest)
        i = start
        while i < stop:
            outer = i // inner
            row = i - outer * inner
            n = 1 if along else min(lanes, inner - row, stop - i)
            rows = first_lanes(n)
            each = everything if along else rows
            xa = x + outer * x_outer + row * x_row
            t = threshold(y + i * 8, xa, x_row, x_class, n)
            if tiled:
                for j in range(0, classes, lanes):
                    fill(turned + j * tile_step, xa + j * size, x_row, n, first_lanes(classes - j))
                xa = turned
            top, low, total, first, above, at = nothing()
            for _ in range(whole):
                top, low, total, first, above, at = visit(top, low, total, first, above, at, xa, each, t)
                xa += x_next
            if rest > 0:
                top, low, total, first, above, at = visit(top, low, total, first, above, at, xa, last, t)
            keep(top, low, total, first, above, t, out + i * 8, out_step, rows)
            i += n

    scanned: Callable[..., None] = scan
    return scanned
