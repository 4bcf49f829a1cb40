"""The statistics of rows of logits and of their labels: `statistics.arrays.row_statistics` in one pass.

CHUNK rows at a time are scanned for what each row is like, and counted while that is in the nearest cache. NaN is
passed over by all but a row's total; of a row of nothing but NaN, top is −inf, low is inf and first is 0. A total is a
plain sum in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from . import functions, simd
from .counting import FLOATS, INTEGERS, count, count_figures
from .job import LANES, TILE
from .memory import KINDS, Access, Tile, widen
from .rows import turning
from .simd import F32, F64, I32, I64, Value, absolute, convert, select, traced
from .statistics import COUNTS, EXTREMES, ROWS_JOB, SUMS, RowsSpec

CHUNK = 64  # rows
CERTAIN = 40.0  # a logit beyond it is a probability of 0 or 1 to the last bit
INF = float("inf")
NEVER = -1  # the largest key: of rows that are in no sample
# A scan's results: CHUNK float64 each, one after another
TOP, LOW, TOTAL, FIRST, ABOVE, OWN = range(0, 6 * CHUNK, CHUNK)
# The keys of `statistics.arrays.row_keys`
FACTOR, MIXERS = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
SLOT = {name: 8 * LANES * i for i, name in enumerate((*EXTREMES, *SUMS))}
SLOT |= {name: 8 * (LANES * (len(EXTREMES) + len(SUMS)) + i) for i, name in enumerate(COUNTS)}


def build(spec: RowsSpec) -> Callable[[int, int, int], int]:
    dense, exclusive, room = bool(spec.z), bool(spec.loss), 6 * CHUNK * 8
    kind = KINDS[spec.x]
    scan_x, scan_z = scanner(spec.x, spec.x_layout), scanner(spec.z or spec.x, spec.z_layout)
    begin, count_labels, count_pair, count_row = (
        traced(_begin),
        traced(_count_labels),
        traced(_count_pairs),
        _row_counter(spec),
    )
    unpack = simd.reader(ROWS_JOB.names)

    @traced
    def scratch() -> Value:
        return simd.scratch(2 * room)

    @traced
    def clear(room: Value) -> None:
        for r in range(0, CHUNK, LANES):
            simd.store(simd.constant(0.0, FLOATS), room + 8 * (OWN + r))

    @traced
    def pick(row: Value, class_step: Value, room: Value, labels: Value, z: Value) -> None:
        """The row's own logit, of its class."""
        y = convert(simd.load(labels + 8 * FIRST, F64), I64) if dense else simd.load(z, I64)
        own = widen(simd.load(y * class_step + row, kind.llvm), kind, F64)
        simd.store(own, room + 8 * OWN)

    def kernel(job: int, start: int, stop: int) -> int:
        (
            rows, grain, out_step, classes, inner, x_outer, x_row, x_class, z_outer, z_row, z_class,
            x, z, loss, size, counted, keys, first, y_out, out_at, close, label_close,
        ) = unpack(job)  # fmt: skip
        logits = scratch()
        labels = logits + room
        clear(logits)
        clear(labels)
        for piece in range(start, stop):
            i, end, out = piece * grain, min(rows, piece * grain + grain), out_at + piece * out_step
            begin(out)
            while i < end:
                outer = i // inner
                row = i - outer * inner
                n = min(CHUNK, end - i, inner - row)
                x_at = x + outer * x_outer + row * x_row
                if dense:
                    scan_z(z + outer * z_outer + row * z_row, n, classes, z_row, z_class, labels)
                    for r in range(0, n, LANES):
                        count_labels(out, labels, r, n, label_close)
                if exclusive:
                    for r in range(n):
                        pick(x_at + r * x_row, x_class, logits + r * 8, labels + r * 8, z + (i + r) * 8)
                scan_x(x_at, n, classes, x_row, x_class, logits)
                for r in range(0, n, LANES):
                    if exclusive:
                        count_row(out, logits, labels, r, n, i, close, z, loss, size, counted, keys, first, y_out)
                    else:
                        count_pair(out, logits, labels, r, n, i, close, keys)
                i += n
        return 0

    return kernel


def _at(out: Value, name: str) -> Value:
    return out + SLOT[name]


def _of(room: Value, r: Value, what: int) -> Value:
    """LANES rows of a scan, from the r-th on."""
    return simd.load(room + 8 * what + r * 8, FLOATS)


def _add(address: Value, x: Value) -> None:
    simd.store(simd.load(address, FLOATS) + x, address)


def _begin(out: Value) -> None:
    """The extremes of nothing; all else is 0 already."""
    for name in EXTREMES:
        largest = name.endswith(("top", "highest_sum"))
        simd.store(simd.constant(-INF if largest else INF, FLOATS), _at(out, name))


def _extend(out: Value, name: str, choose: Callable[[Value, Value], Value], there: Value, x: Value) -> None:
    so_far = simd.load(_at(out, name), FLOATS)
    simd.store(select(there, choose(x, so_far), so_far), _at(out, name))


def _there(r: Value, n: Value) -> Value:
    return simd.lane_numbers(INTEGERS) + r < n


def _count_labels(out: Value, room: Value, r: Value, n: Value, close: Value) -> None:
    there = _there(r, n)
    low, top, total, above = (_of(room, r, what) for what in (LOW, TOP, TOTAL, ABOVE))
    good = there & (low >= 0.0) & (top <= 1.0)
    binary = good & (total == above)
    for name, x in (("label_low", low), ("label_lowest_sum", total)):
        _extend(out, name, simd.smaller, there, x)
    for name, x in (("label_top", top), ("label_highest_sum", total)):
        _extend(out, name, simd.larger, there, x)
    _add(_at(out, "label_total"), select(there, total, 0.0))
    _add(_at(out, "label_positive"), select(good, total, 0.0))
    for name, mask in {
        "label_binary": binary,
        "label_none": binary & (above == 0.0),
        "label_one": binary & (above == 1.0),
        "label_two": binary & (above == 2.0),
        "label_distributions": there & (low >= 0.0) & (absolute(total - 1.0) <= close),
        "label_negative": there & (low < 0.0),
        "label_odd": there & ~(absolute(total) < INF),
        "label_hot": there & (top == 1.0),
    }.items():
        count(_at(out, name), mask)


def _count_logits(out: Value, room: Value, r: Value, there: Value, close: Value) -> None:
    low, top, total = (_of(room, r, what) for what in (LOW, TOP, TOTAL))
    _extend(out, "low", simd.smaller, there, low)
    _extend(out, "top", simd.larger, there, top)
    _add(_at(out, "spread"), select(there & (absolute(top - low) < INF), top - low, 0.0))
    _add(_at(out, "total"), select(there, total, 0.0))
    count(_at(out, "odd_rows"), there & ~(absolute(total) < INF))
    count(_at(out, "sums_to_one"), there & (absolute(total - 1.0) <= close))


def _key(first: Value, second: Value) -> Value:
    h = simd.bits(first) + simd.bits(second) * _signed(FACTOR)
    for shift, factor in MIXERS:
        h = (h ^ ((h >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return h


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _count_pairs(
    out: Value, room: Value, labels: Value, r: Value, n: Value, i: Value, close: Value, keys: Value
) -> None:
    """Rows of independent classes."""
    there = _there(r, n)
    _count_logits(out, room, r, there, close)
    low, top, total = (_of(room, r, what) for what in (LOW, TOP, TOTAL))
    count(_at(out, "saturated"), there & ((absolute(low) > CERTAIN) | (absolute(top) > CERTAIN)))
    key = _key(total, _of(labels, r, TOTAL))
    simd.store_some(select(absolute(total) < INF, key, NEVER), keys + (i + r) * 8, there)


def _row_counter(spec: RowsSpec) -> Callable[..., Any]:
    """Counts rows of exclusive classes, and their figures in the bins of an evaluation."""

    def read(address: Value, i: Value, name: str, there: Value) -> Value:
        return Access(KINDS[name], LANES, False).read(address + i * KINDS[name].size, there, 0.0)

    @traced
    def count_rows(
        out: Value, room: Value, labels: Value, r: Value, n: Value, begin: Value, close: Value, z: Value,
        loss_at: Value, size_at: Value, counted: Value, keys: Value, first_out: Value, y_out: Value,
    ) -> None:  # fmt: skip
        there, i = _there(r, n), begin + r
        _count_logits(out, room, r, there, close)
        top, first, total = (_of(room, r, what) for what in (TOP, FIRST, TOTAL))
        loss, live = read(loss_at, i, spec.loss, there), there
        if spec.z:
            live, y = there & (_of(labels, r, TOP) > 0.0), _of(labels, r, FIRST)
            simd.store_some(_whole(y), y_out + i * 8, there)
        else:
            y = convert(simd.load_some(z + i * 8, there, simd.constant(0, INTEGERS)), F64)
        if spec.counted:
            live = there & (read(counted, i, "bool", there) != 0.0)
        if spec.size:
            rest = read(size_at, i, spec.size, there) - top
            certain = rest <= 2.0**-24
        else:  # the loss of one class is the row's logsumexp without that class's logit
            rest = loss - (top - _of(room, r, OWN))
            certain = rest <= absolute(loss) * 2.0**-22 + 2.0**-24
        finite, right = there & (absolute(loss) < INF), live & (first == y)
        _add(_at(out, "loss"), select(finite, loss, 0.0))
        for name, mask in {
            "counted": live,
            "right": right,
            "saturated": live & certain,
            "nan": there & (loss != loss),
            "infinite": there & (absolute(loss) == INF),
        }.items():
            count(_at(out, name), mask)
        simd.store_some(_whole(first), first_out + i * 8, there)
        simd.store_some(select(live & finite, _key(loss, total), NEVER), keys + i * 8, there)
        if spec.within:
            above = _of(room, r, ABOVE)
            for j, k in enumerate(spec.within):
                count(out + 8 * (spec.within_at + j), live & (above < float(k)))
            zero = simd.constant(0.0, FLOATS)
            count_figures(spec, out, live, functions.exp(simd.smaller(zero, -rest)), right, loss)

    found: Callable[..., Any] = count_rows
    return found


def _whole(x: Value) -> Value:
    """Float64 below 2^31 as integers, by those of 32 bits, to which processors without AVX-512 convert at once."""
    return convert(convert(x, I32), I64)


def scanner(name: str, layout: str) -> Callable[..., Any]:
    """Writes what rows are like to a room, from vectors along a row's classes or of a class in several rows.

    One pass is enough for `first`, since each lane remembers where its own maximum was. What float32 holds is compared
    in float32, in half the time.
    """
    along, tiled, kind = layout == "along", layout == "tiled", KINDS[name]
    narrow = name in ("float16", "bfloat16", "float32", "bool", "int8", "uint8", "int16", "uint16")
    element, integer, lanes = (F32, I32, 2 * LANES) if narrow else (F64, I64, 2 * LANES if along else LANES)
    full, double, numbers = (simd.vector(llvm, lanes) for llvm in (element, F64, integer))
    access, tile, size = Access(kind, lanes, False), Tile(kind, lanes), kind.size
    fill, _ = turning(tile if tiled else None)
    step = tile.step if tiled else lanes * size

    @traced
    def square() -> Value:
        return tile.scratch(TILE) if tiled else simd.constant(0, I64)

    @traced
    def first_lanes(n: Value) -> Value:
        return simd.lane_numbers(simd.vector(I64, lanes)) < n

    @traced
    def begin(room: Value) -> tuple[Value, ...]:
        zero, own = simd.constant(0, numbers), simd.load(room + 8 * OWN, F64 if along else double)
        at = simd.lane_numbers(numbers) if along else zero
        threshold = convert(simd.splat(own, double) if along else own, element)
        low, top, total = simd.constant(INF, full), simd.constant(-INF, full), simd.constant(0.0, double)
        return top, low, total, zero, zero, at, threshold

    @traced
    def visit(
        top: Value, low: Value, total: Value, first: Value, above: Value, at: Value, threshold: Value, x_at: Value,
        there: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """One step; `at` is each lane's place in its row."""
        x = access.read(x_at, there, float("nan"), element)
        first, above = select(x > top, at, first), above + convert(x > threshold, integer)
        total = total + convert(select(there, x, 0.0), F64)
        return simd.larger(x, top), simd.smaller(x, low), total, first, above, at + (lanes if along else 1)

    @traced
    def keep(room: Value, top: Value, low: Value, total: Value, first: Value, above: Value) -> None:
        if along:
            highest = simd.across(top, simd.larger)
            nowhere = simd.constant((1 << 31) - 1, numbers)
            first = simd.across(select(top == highest, first, nowhere), simd.smaller)
            total, above = (simd.across(x, lambda a, b: a + b) for x in (total, above))
            top, low = highest, simd.across(low, simd.smaller)
        for what, x in ((TOP, top), (LOW, low), (TOTAL, total), (FIRST, first), (ABOVE, above)):
            simd.store(convert(x, F64), room + 8 * what)

    @njit(error_model="numpy")
    def scan(x: int, rows: int, classes: int, row_step: int, class_step: int, room: int) -> None:
        turned, next_step = square(), step if along or tiled else class_step
        whole = classes // lanes if along else classes
        everything, last = first_lanes(lanes), first_lanes(classes - whole * lanes)
        for r in range(0, rows, 1 if along else lanes):
            n, x_at = min(lanes, rows - r), x + r * row_step
            there = everything if along else first_lanes(n)
            if tiled:
                for j in range(0, classes, lanes):
                    fill(turned + j * step, x_at + j * size, row_step, n, first_lanes(classes - j))
                x_at = turned
            top, low, total, first, above, at, threshold = begin(room + r * 8)
            for _ in range(whole):
                top, low, total, first, above, at = visit(top, low, total, first, above, at, threshold, x_at, there)
                x_at += next_step
            if along and whole * lanes < classes:
                top, low, total, first, above, at = visit(top, low, total, first, above, at, threshold, x_at, last)
            keep(room + r * 8, top, low, total, first, above)

    found: Callable[..., Any] = scan
    return found
