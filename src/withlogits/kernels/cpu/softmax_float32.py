"""The cases that speed is asked of, for logits of at most float32: float32 arithmetic that keeps its errors.

They are index labels, and the loss alone of dense ones (its gradient T p − t cancels where labels and probabilities
agree, which takes the float64 arithmetic of `softmax.py`; the loss itself never does).

The formulas are those of `softmax.py`; what differs is how exp(x_j − m) stays good to 0.5 ulp of float32 and more:

- x_j is reduced by itself, x_j = n_j ln2 + ρ_j, never x_j − m: that difference, rounded to float32, would be wrong by
  16 ulp of a confident row's loss. With N = rint(m/ln2) each term is 2^(n_j − N)(1 + t_j), t_j = e^ρ_j − 1, an exact
  power of two and a small number; the row's own factor F = exp(N ln2 − m) is taken once, in float64. With a table of
  powers of two n_j counts parts of ln2, and t_j is smaller still (`functions.exp_reduced_float32`).
- a term is rounded to float32 (V), what that lost is kept beside it, and V is summed in float64: adding up in float32,
  in whatever tree, loses up to half an ulp of the largest term at every step, which a row of one large and many tiny
  terms shows.
- beyond |m| = FAR, where n_j would not fit, m is subtracted after all; there the difference is exact.
- what dense labels weigh, t_j (m − x_j), is taken and summed in float64.

V is kept during the second pass, so that the third pass is one multiplication: in a scratch, or for the longest rows
in the gradient's own memory. Half-precision gradients across rows make V again. A gradient too large for any cache is
written past them, which saves reading its memory first.

Layout "tiled" turns 16 short rows into a tile of C × 16 numbers first, works on that as on rows that lie across, and
turns the gradient back.
"""

from __future__ import annotations

from collections.abc import Callable

from . import functions, simd
from .control import Kernel, Variable, if_else, loop
from .job import TILE, SoftmaxSpec
from .memory import KINDS, Access, Lanes, Tile, some_lanes
from .passes import Losses, Sums, kernel_of
from .rows import INF, Cursor, Row, Rows, plus
from .simd import F32, F64, I32, I64, Value, fma, select
from .target import Target

BIAS = 100  # terms are kept times 2^100, so that the smallest that counts, and its error, are normal numbers
UNBIAS = 2.0**-BIAS
SMALLEST = 2.0 ** (BIAS - 125)
FLOOR = -124.0  # exp of less is nothing: 2^28 such terms do not make half the smallest float32

SEVERAL = 4  # vectors of one row in flight: one alone is a chain of instructions that wait for each other
KEPT = 1 << 19  # classes of a row whose exponentials are kept in a scratch
SUMS = ("s", "k", "a", "total")


def term(x: Value, floor: Value, rounder: Value, but: Value | None = None) -> tuple[Value, Value]:
    """Return exp(x − m)·2^BIAS/F as V, 0 in the lanes `but`, and what its rounding lost: together within 1.5e-8."""
    scale, t, lost = functions.exp_reduced_float32(simd.larger(floor, x), rounder, simd.target().table_entries)
    if but is not None:
        scale = select(but, 0.0, scale)
    return functions.exp_pair_float32(scale, t, lost)


def build(spec: SoftmaxSpec, target: Target) -> Kernel:
    """Return the kernel of a loss or activation."""
    return kernel_of(spec, Passes(spec, target))


class Passes:
    """The passes over the rows of a group, in float32."""

    group_bytes = 1 << 16

    def __init__(self, spec: SoftmaxSpec, target: Target) -> None:
        self._spec = spec
        self._along, self._dense = spec.layout == "along", spec.labels == "dense"
        self.lanes = self.count = target.float32_lanes
        self._full, self._double = simd.vector(F32, self.lanes), simd.vector(F64, self.lanes)
        self._plain = Access(KINDS["float32"], self.lanes, False)
        # V fits where the gradient will be
        self._in_place = spec.gradient and spec.x == "float32" and spec.layout in ("along", "across")
        self._keeps = spec.gradient and (self._in_place or spec.layout in ("along", "tiled"))

    def begin(self, rows: Rows, together: Value) -> None:
        self._ahead = [(array, together * array.row_step) for array in (rows.x, rows.z) if array]
        self._row_bytes = (rows.whole + 1) * (4 * self.lanes)
        self._owned = self._scratch = simd.integer(0)
        if self._keeps and self._along:
            wanted = together * self._row_bytes + 64
            self._owned = simd.either(
                rows.classes <= KEPT, lambda: simd.call(rows.job.allocate, wanted), lambda: simd.integer(0)
            )
            self._scratch = (self._owned + 63) & -64  # 0 if there is no memory to be had
            self._nowhere = simd.scratch(4 * self.lanes * SEVERAL)
        if self._keeps and rows.tiled:
            self._tile = Tile(KINDS["float32"], self.lanes).scratch(TILE)

    def end(self, rows: Rows) -> None:
        if self._keeps and self._along:
            simd.call(rows.job.release, self._owned)
            simd.either(rows.job.stream != 0, simd.fence, lambda: None)

    def label_logits(self, rows: Rows, y: Value) -> tuple[Value, Value | None]:
        return rows.label_logits(y), None

    def maximum(self, row: Row) -> None:
        lowest = simd.constant(-INF, self._full)
        m = [Variable(lowest) for _ in range(SEVERAL)]  # one maximum after the other waits for the one before

        def step(j: Value, lanes: Lanes, i: int = 0) -> None:
            m[i].value = simd.larger(row.x.read(j + i, lanes, -INF, F32), m[i].value)  # NaN: the answer is m

        def several(j: Value) -> None:
            for i in range(SEVERAL):
                step(j, row.rows.each, i)

        row.rows.steps(step, several, SEVERAL)
        top = simd.larger(simd.larger(m[0].value, m[1].value), simd.larger(m[2].value, m[3].value))
        row.put("m", simd.convert(simd.across(top, simd.larger) if self._along else top, F64))

    def prepare(self, rows: Rows) -> None:
        """Keep what terms need: the shift, the floor, the rounding constant that knows N; F; the maximum's V."""
        m = rows.numbers.all("m")
        shift = select(simd.absolute(m) > functions.FAR, m, 0.0)
        near = m - shift
        n = fma(near, functions.LOG2E, functions.ROUNDER) - functions.ROUNDER
        rest = fma(n, functions.LN2, -near)
        t = fma(rest * rest, functions.horner(rest, functions.EXP_FLOAT32), rest)
        # 127 + BIAS: what the exponent's bits of 2^(n_j − N + BIAS) begin with
        entries = simd.target().table_entries
        rounder = simd.convert(functions.ROUNDER_FLOAT32 + entries * ((127.0 + BIAS) - n), F32)
        floor = simd.convert(near + FLOOR, F32)
        most = term(simd.convert(near, F32), floor, rounder)[0]
        numbers = {"m32": simd.convert(m, F32), "shift": simd.convert(shift, F32), "floor": floor, "rounder": rounder}
        for name, value in (numbers | {"v_most": most, "f": t + 1.0}).items():
            rows.numbers.put(name, value)

    def _kept(self, row: Row) -> Cursor:
        """Return where V is: in the tile, in the scratch's row, or, without one, in the gradient's place."""
        step: Value | int = 4 * self.lanes
        if not self._along:
            return Cursor(self._plain, self._tile, step) if row.rows.tiled else row.g
        missing = row.g.at if self._in_place else self._nowhere
        if not self._in_place:
            step = select(self._scratch != 0, simd.integer(step), 0)
        assert row.turn is not None
        at = select(self._scratch != 0, row.turn * self._row_bytes + self._scratch, missing)
        return Cursor(self._plain, at, step)

    def sums(self, row: Row) -> None:
        """Take the sums s and k, and of dense labels a = Σ t_j (m − x_j) and T = Σ t_j."""
        m, shift, floor, rounder = (row.number(name) for name in ("m32", "shift", "floor", "rounder"))
        zero = simd.constant(0.0, self._double)
        s, s_low, a, total = (Variable(v) for v in (zero, simd.constant(0.0, self._full), zero, zero))
        k = Variable(simd.constant(0, I64) if self._along else simd.constant(0.0, self._full))
        kept = self._kept(row) if self._keeps else None

        def visit(j: Value, lanes: Lanes, steps: int) -> None:
            """So many steps side by side; several only where nothing is shifted."""
            x = row.x.read(j, lanes, -INF, F32, steps)
            at_maximum = x == m
            v, low = term(x - shift if steps == 1 else x, floor, rounder, at_maximum)
            if kept is not None:
                kept.write(v, j, lanes if self._in_place else None)
            z = row.z.read(j, lanes, 0.0, F64, steps) if row.rows.z else None
            if self._along:
                for array, ahead in self._ahead:
                    array.cursor(row.turn).prefetch(j, ahead, steps)
            for i in range(steps):
                part = list(range(i * self.lanes, (i + 1) * self.lanes))
                here, at = (simd.shuffle(each, each, part) for each in (x, at_maximum))
                s.value = s.value + simd.convert(simd.shuffle(v, v, part), F64)
                s_low.value = s_low.value + simd.shuffle(low, low, part)
                k.value = k.value + simd.set_lanes(at) if self._along else select(at, k.value + 1.0, k.value)
                if z is not None:
                    labels = simd.shuffle(z, z, part)
                    weights = row.class_weights(j + i, lanes)
                    a.value, total.value = self._costs(row, a.value, total.value, here, m, labels, weights, lanes)

        row.rows.steps(
            lambda j, lanes: visit(j, lanes, 1),
            (lambda j: visit(j, None, SEVERAL)) if self._along else None,
            SEVERAL,
            allowed=shift == 0.0 if self._along else None,
        )
        results = {"s": s.value + simd.convert(s_low.value, F64), "k": simd.convert(k.value, F64)}
        if self._dense:
            results |= {"a": a.value, "total": total.value}
        for name, value in results.items():
            row.put(name, simd.across(value, plus) if self._along and name != "k" else value)

    def _costs(
        self, row: Row, a: Value, total: Value, x: Value, m: Value, z: Value, w: Value | None, lanes: Lanes
    ) -> tuple[Value, Value]:
        """Return Σ t_j (m − x_j) and T with some lanes more."""
        t = row.targets(z, w)
        if lanes is not None:
            t = select(some_lanes(lanes, self.lanes), t, 0.0)
        d = simd.convert(m, F64) - simd.convert(x, F64)
        return select(t != 0.0, fma(t, d, a), a), total + t

    def collected(self, rows: Rows) -> Sums:
        zero = simd.constant(0.0, self._double)
        s, k, f = (rows.numbers.all(name) for name in ("s", "k", "f"))
        a, total = (rows.numbers.all(name) if self._dense else zero for name in ("a", "total"))
        return Sums(s * f * UNBIAS, k, a, total, others=zero, s_low=zero, a_low=zero)

    def prepare_gradient(self, rows: Rows, losses: Losses, x_label: Value | None) -> None:
        factor, beside = losses.factors(rows.job.z_loss)
        assert x_label is not None
        # (T + 2λ(m + r)) p_y − T, in float64
        scale, t = functions.exp_pair(x_label - losses.m, coefficients=functions.EXP_FLOAT32, to_zero=False)
        at_label = fma(scale, t, scale) * factor - losses.total
        at_label = select((x_label == losses.m) & losses.most, beside, at_label) * losses.multiple
        rows.numbers.put("at_label", simd.convert(at_label, F32))
        rows.numbers.put("factor", simd.convert(factor * rows.numbers.all("f") * losses.multiple, F32))

    def gradient(self, row: Row) -> None:
        if not self._keeps:
            self._gradient(row, self._made_again(row))
        elif self._in_place or not self._along:
            self._gradient(row, self._from_kept(row))
        else:
            with if_else(self._scratch != 0) as (kept, again):
                with kept:
                    self._gradient(row, self._from_kept(row))
                with again:
                    self._gradient(row, self._made_again(row))

    def _gradient(self, row: Row, probability: Callable[[Value, Lanes], Value]) -> None:
        """Write p, and the label's gradient in its place."""
        at_label, y, live = row.number("at_label"), row.number("y"), row.flag("live")
        start: Value | int = 0
        if self._keeps and self._along:  # whole steps of a gradient that no cache would hold
            past_caches = (row.rows.job.stream != 0) & (self._scratch != 0) & ((row.g.at & 63) == 0)
            start = select(past_caches, row.rows.whole, 0)
            with loop(0, start) as j:
                row.g.write_past_caches(probability(j, None), j)

        def step(j: Value, lanes: Lanes) -> None:
            g = probability(j, lanes)
            if not self._along:
                g = select(simd.convert(y, I32) == simd.convert(j, I32), at_label, g)
                g = select(live, g, 0.0)
            row.g.write(g, j, lanes)

        row.rows.steps(step, start=start)
        if self._along:
            one = simd.splat(at_label, simd.vector(F32, 1))
            Access(row.g.access.kind, 1, False).write(one, y * row.g.access.kind.size + row.g.at, None)

    def _scaled(self, v: Value, factor: Value) -> Value:
        # below the smallest normal float32 it is 0: the processor takes 100 times longer for such numbers
        return select(v < SMALLEST, 0.0, v * UNBIAS) * factor

    def _from_kept(self, row: Row) -> Callable[[Value, Lanes], Value]:
        kept, most, factor = self._kept(row), row.number("v_most"), row.number("factor")

        def probability(j: Value, lanes: Lanes) -> Value:
            v = kept.read(j, lanes if self._in_place else None, 1.0, F32)
            return self._scaled(select(v == 0.0, most, v), factor)  # the sums left the maxima out by a V of 0

        return probability

    def _made_again(self, row: Row) -> Callable[[Value, Lanes], Value]:
        shift, floor, rounder, factor = (row.number(name) for name in ("shift", "floor", "rounder", "factor"))

        def probability(j: Value, lanes: Lanes) -> Value:
            return self._scaled(term(row.x.read(j, lanes, -INF, F32) - shift, floor, rounder)[0], factor)

        return probability

    def clear(self, row: Row) -> None:
        zero = simd.constant(0.0, self._full)
        row.rows.steps(lambda j, lanes: row.g.write(zero, j, lanes))
