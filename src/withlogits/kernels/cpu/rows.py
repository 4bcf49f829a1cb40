"""What the kernels of the softmax family share: a row's labels and weights, and its loss from its sums."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from llvmlite import ir

from . import functions, simd
from .job import SoftmaxSpec
from .memory import KINDS, Access, Kind, Tile
from .simd import F64, I1, I64, Value, fma, select, traced

NAN, INF = float("nan"), float("inf")


def turning(tile: Tile | None) -> tuple[Callable[..., None], Callable[..., None]]:
    """Traced functions that fill a square of a tile, and empty one; without a tile they do nothing."""

    @traced
    def fill(at: Value, address: Value, row_step: Value, n: Value, mask: Value) -> None:
        if tile:
            tile.fill(at, address, row_step, n, mask)

    @traced
    def empty(at: Value, address: Value, row_step: Value, n: Value, mask: Value) -> None:
        if tile:
            tile.empty(at, address, row_step, n, mask)

    return fill, empty


def row_parts(spec: SoftmaxSpec) -> SimpleNamespace:
    """Traced functions for the rows in hand: one row whose lanes are classes, or a row in each lane.

    A number a row is a scalar in the first case and a vector in the second; the formulas do not care. (Kernels that
    work in float32 take 16 rows together even where lanes lie along the classes, and finish them at once.)
    """
    lanes, along = spec.lanes, spec.layout == "along" and not spec.single
    across = spec.layout in ("across", "tiled")
    precise = spec.x == "float64"
    numbers, flags = simd.vector(I64, lanes), simd.vector(I1, lanes)
    rows_in_hand = 1 if along else lanes
    every_row = simd.vector(I1, rows_in_hand)
    x_kind, double = KINDS[spec.x], KINDS["float64"]

    def each_row(kind: Kind, addresses: Value, element: ir.Type) -> Value:
        return Access(kind, lanes, True).read(addresses, simd.constant(1, flags), 0.0, element)

    def one_for_all(kind: Kind, address: Value, element: ir.Type) -> Value:
        return simd.splat(lane_of(kind, address, element), simd.vector(element, lanes))

    def lane_of(kind: Kind, address: Value, element: ir.Type) -> Value:
        one = Access(kind, 1, False).read(address, simd.constant(1, simd.vector(I1, 1)), 0.0, element)
        return simd.lane(one, 0)

    def number_a_row(kind: Kind, address: Value, step: Value, n: Value, element: ir.Type) -> Value:
        """Gathered only if the numbers do not lie side by side: that takes several times longer."""
        if along:
            return lane_of(kind, address, element)
        numbers_in_hand: Value = simd.either(
            (step == kind.size) & (n == lanes),
            lambda: Access(kind, lanes, False).read(address, simd.constant(1, flags), 0.0, element),
            lambda: each_row(kind, own(step, n) + address, element),
        )
        return numbers_in_hand

    def own(step: Value, n: Value) -> Value:
        """Each row's offset; lanes without a row repeat the last."""
        return step * 0 if along else simd.smaller(simd.lane_numbers(numbers), n - 1) * step

    @traced
    def obtained(allocate: Value, nbytes: Value) -> Value:
        return simd.call(allocate, nbytes)

    @traced
    def released(release: Value, address: Value) -> None:
        simd.call(release, address)

    @traced
    def settle() -> None:
        simd.settle()

    @traced
    def everything() -> Value:
        return simd.constant(1, flags)

    @traced
    def first(n: Value) -> Value:
        return simd.lane_numbers(numbers) < n

    @traced
    def rows_at(base: Value, step: Value, n: Value) -> Value:
        """Where the lanes begin: one address, or one a row."""
        return base if along or across else own(step, n) + base

    @traced
    def advance(address: Value, step: Value) -> Value:
        return address + step

    @traced
    def row_sample(address: Value, step: Value, n: Value) -> Value:
        if along:
            return lane_of(double, address, F64)
        weights: Value = simd.either(
            step == 0, lambda: one_for_all(double, address, F64), lambda: number_a_row(double, address, step, n, F64)
        )
        return weights

    @traced
    def row_label(address: Value, step: Value, n: Value) -> Value:
        if spec.labels in ("index", "smooth"):
            return number_a_row(KINDS[spec.z], address, step, n, I64)
        return simd.constant(0, I64 if along else numbers)

    @traced
    def label_logit(xa: Value, y: Value, step: Value, valid: Value, n: Value) -> Value:
        """The label's own logit; where the label is no class, that of class 0."""
        at = select(valid, y, 0) * step
        if across:
            at = at + own(simd.constant(x_kind.size, I64), n)
        return lane_of(x_kind, at + xa, F64) if along else each_row(x_kind, at + xa, F64)

    @traced
    def label_weight(address: Value, step: Value, y: Value, valid: Value) -> Value:
        at = select(valid, y, 0) * step + address
        if along:
            return lane_of(double, at, F64)
        weights: Value = simd.either(
            step == 0, lambda: one_for_all(double, address, F64), lambda: each_row(double, at, F64)
        )
        return weights

    @traced
    def standing(y: Value, sample: Value, classes: Value, ignore: Value, has_ignore: Value) -> tuple[Value, Value]:
        """Does the row count; if so, is its label a class."""
        counts = (sample != 0.0) & ((y != ignore) | (has_ignore == 0))
        return counts, (y >= 0) & (y < classes)

    @traced
    def finish(
        s: Value, s_low: Value, k: Value, a: Value, a_low: Value, total: Value, total_low: Value,
        m: Value, x_label: Value, w_label: Value, z_loss: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """Loss, r, T, S·G, G, whether the maximum has more than half, and what T − t_j needs there.

        That is the sum of the other targets, or for float64 logits, whose sums are pairs, what T's rounding lost.
        """
        tail, lost = functions.two_sum(k - 1.0, s)
        lost = select(lost + s_low == lost + s_low, lost + s_low, 0.0)
        tail, lost = functions.two_sum(tail, lost)
        if spec.result != "logsumexp":  # which is ±inf of an infinite maximum
            tail = select(m - m == 0.0, tail, NAN)  # a row of only −inf, or with +inf, has no loss
        whole, missing = functions.two_sum(tail, simd.constant(1.0, tail.type))
        share = 1.0 / whole
        r = functions.log1p(tail, lost, share)
        if precise:  # what the roundings of tail and of tail + 1 lost
            share = fma(-(missing + lost) * share, share, share)
        if spec.labels == "index":
            total = w_label
            if precise:
                d, e = functions.two_sum(x_label, -m)
                a = select(total == 0.0, 0.0, -total * d)
                a_low = fma(-total, d, -a) - total * e
                a_low = select(a_low == a_low, a_low, 0.0)
            else:
                a = select(total == 0.0, 0.0, (m - x_label) * total)
        elif precise:
            rounded = total + total_low
            total, total_low = rounded, (total - rounded) + total_low
        size = m + r
        extra = select(z_loss == 0.0, 0.0, size * size * z_loss)
        return a + (a_low + fma(total, r, extra)), r, total, tail * share, share, tail < 1.0, total_low

    @traced
    def factors(total: Value, below: Value, share: Value, z_loss: Value, m: Value, r: Value) -> tuple[Value, ...]:
        """What multiplies exp(x_j − m), and what stands at an only maximum beside T − t_j."""
        pull = z_loss * 2.0 * (m + r)  # in this order: 2 m may be infinite
        return (total + pull) * share, fma(pull, share, -total * below)

    @traced
    def put_rows(value: Value, address: Value, wide: Value, mask: Value) -> None:
        """A result a row, side by side: float64, or rounded once to float32."""
        if along:
            value, mask = simd.splat(value, simd.vector(F64, 1)), simd.splat(simd.lane(mask, 0), every_row)
        for kind, chosen in (("float64", wide != 0), ("float32", wide == 0)):
            Access(KINDS[kind], rows_in_hand, False).write(value, address, mask & chosen)

    @traced
    def judged(loss: Value, sample: Value, counts: Value, valid: Value) -> Value:
        return select(counts, select(valid, loss * sample, NAN), 0.0)

    @traced
    def wrong_labels(counts: Value, valid: Value, mask: Value) -> Value:
        wrong = counts & ~valid
        return simd.convert(wrong, I64) if along else simd.across(simd.convert(wrong & mask, I64), lambda p, q: p + q)

    @traced
    def any_of(flag: Value) -> Value:
        return flag if along else simd.across(flag, lambda p, q: p | q)

    @traced
    def both(p: Value, q: Value) -> Value:
        return p & q

    @traced
    def times(p: Value, q: Value) -> Value:
        return p * q

    @traced
    def plus(p: Value, q: Value) -> Value:
        return p + q

    return SimpleNamespace(**{name: part for name, part in locals().items() if callable(part)})
