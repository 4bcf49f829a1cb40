"""What the kernels of the softmax family share: a row's labels and weights, and its loss from its sums."""

from __future__ import annotations

from types import SimpleNamespace

from llvmlite import ir

from . import functions, simd
from .job import SoftmaxSpec
from .memory import KINDS, Access, Kind
from .simd import F64, I1, I64, Value, fma, select, traced

NAN, INF = float("nan"), float("inf")


def row_parts(spec: SoftmaxSpec) -> SimpleNamespace:
    """Traced functions for the rows in hand: one row whose lanes are classes, or a row in each lane.

    A number a row is a scalar in the first case and a vector in the second; the formulas do not care. (Kernels that
    work in float32 take 16 rows together even where lanes lie along the classes, and finish them at once.)
    """
    lanes, along = spec.lanes, spec.layout == "along" and not spec.single
    across = spec.layout == "across"
    precise = spec.x == "float64"
    numbers, flags = simd.vector(I64, lanes), simd.vector(I1, lanes)
    rows_in_hand = 1 if along else lanes
    every_row = simd.vector(I1, rows_in_hand)
    x_kind = KINDS[spec.x]

    def each_row(kind: Kind, addresses: Value, element: ir.Type) -> Value:
        if along:
            addresses = simd.splat(addresses, simd.vector(I64, 1))
        values = Access(kind, rows_in_hand, True).read(addresses, simd.constant(1, every_row), 0.0, element)
        return simd.lane(values, 0) if along else values

    def own(step: Value, n: Value) -> Value:
        """Each row's offset; lanes without a row repeat the last."""
        return step * 0 if along else simd.smaller(simd.lane_numbers(numbers), n - 1) * step

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
        return each_row(KINDS["float64"], own(step, n) + address, F64)

    @traced
    def row_label(address: Value, step: Value, n: Value) -> Value:
        if spec.labels in ("index", "smooth"):
            return each_row(KINDS[spec.z], own(step, n) + address, I64)
        return simd.constant(0, I64 if along else numbers)

    @traced
    def label_logit(xa: Value, y: Value, step: Value, valid: Value, n: Value) -> Value:
        """The label's own logit; where the label is no class, that of class 0."""
        at = select(valid, y, 0) * step
        if across:
            at = at + own(simd.constant(x_kind.size, I64), n)
        return each_row(x_kind, at + xa, F64)

    @traced
    def label_weight(address: Value, step: Value, y: Value, valid: Value) -> Value:
        return each_row(KINDS["float64"], select(valid, y, 0) * step + address, F64)

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
        good = m - m == 0.0  # a row of only −inf, or with +inf, has no loss
        tail = select(good, tail, NAN)
        r = functions.log1p(tail, lost)
        whole, missing = functions.two_sum(tail, simd.constant(1.0, tail.type))
        share = 1.0 / whole
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
        pull = (m + r) * 2.0 * z_loss
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
