"""The cases that speed is asked of, for logits of at most float32: float32 arithmetic that keeps its errors.

They are index labels, and the loss alone of dense ones (its gradient T p − t cancels where labels and probabilities
agree, which takes the float64 arithmetic of `softmax.py`; the loss itself never does).

The formulas are those of `softmax.py`; what differs is how exp(x_j − m) stays good to 0.5 ulp of float32 and more:

- x_j is reduced by itself, x_j = n_j ln2 + ρ_j, never x_j − m: that difference, rounded to float32, would be wrong by
  16 ulp of a confident row's loss. With N = rint(m/ln2) each term is 2^(n_j − N)(1 + t_j), t_j = e^ρ_j − 1, an exact
  power of two and a small number; the row's own factor F = exp(N ln2 − m) is taken once, in float64.
- a term is rounded to float32 (V), what that lost is kept beside it, and V is summed in float64: adding up in float32,
  in whatever tree, loses up to half an ulp of the largest term at every step, which a row of one large and many tiny
  terms shows.
- beyond |m| = 2^20, where n_j would not fit, m is subtracted after all; there the difference is exact.
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
from .job import SOFTMAX_JOB, TILE, SoftmaxSpec
from .memory import KINDS, Access, Tile
from .rows import INF, row_parts, turning
from .simd import F32, F64, I1, I32, I64, Value, fma, select, traced

BIAS = 100  # terms are kept times 2^100, so that the smallest that counts, and its error, are normal numbers
UNBIAS = 2.0**-BIAS
SMALLEST = 2.0 ** (BIAS - 125)
FLOOR = -124.0  # exp of less is nothing: 2^28 such terms do not make half the smallest float32
ROUNDER = 1.5 * 2.0**23
FAR = 2.0**20
GROUP = 1 << 16  # bytes of logits that go through all three passes together

SEVERAL = 4
KEPT = 1 << 19  # classes of a row whose exponentials are kept in a scratch

# a number a row, 16 rows: what one pass leaves for the next
M, SHIFT, FLOOR_AT, ROUNDER_AT, S_AT, K_AT, A_AT, TOTAL, MOST, FACTOR, LABEL, LIVE, COUNTS, Y_AT, SLOTS = range(15)


def build(spec: SoftmaxSpec) -> Callable[[int, int, int], int]:
    lanes = spec.lanes
    along, tiled, scattered = (spec.layout == layout for layout in ("along", "tiled", "strided"))
    across = tiled or spec.layout == "across"
    dense = spec.labels == "dense"
    single, double, flags = (simd.vector(kind, lanes) for kind in (F32, F64, I1))
    x_access = Access(KINDS[spec.x], lanes, scattered)
    z_access = Access(KINDS[spec.z], lanes, scattered)
    wide_z = Access(z_access.kind, SEVERAL * lanes, False)
    x_tile, z_tile, v_tile = (Tile(kind, lanes) for kind in (x_access.kind, z_access.kind, KINDS["float32"]))
    plain = Access(KINDS["float32"], lanes, False)
    wide_access, wide_plain = (Access(kind, SEVERAL * lanes, False) for kind in (x_access.kind, plain.kind))
    in_place = spec.x == "float32" and not scattered  # V fits where the gradient will be
    keeps = spec.gradient and (in_place or along or tiled)

    x_turned = x_tile if tiled else None
    z_turned = z_tile if tiled and dense else None
    v_turned = v_tile if tiled and keeps else None
    (fill_x, empty_g), (fill_z, _) = turning(x_turned), turning(z_turned)

    @traced
    def tiles() -> tuple[Value, ...]:
        """For the logits, which the gradient takes the place of; the labels; V."""
        return tuple(t.scratch(TILE) if t else simd.constant(0, I64) for t in (x_turned, z_turned, v_turned))

    @traced
    def lowest() -> Value:
        return simd.constant(-INF, single)

    @traced
    def highest(m: Value, xa: Value, mask: Value) -> Value:
        return simd.larger(x_access.read(xa, mask, -INF, F32), m)  # NaN: the answer is m, and s will tell

    @traced
    def highest_of_four(
        m: Value, m1: Value, m2: Value, m3: Value, xa: Value, step: Value, mask: Value
    ) -> tuple[Value, ...]:
        """Four at a time: one maximum after the other waits for the one before."""
        found = []
        for i, so_far in enumerate((m, m1, m2, m3)):
            found.append(simd.larger(x_access.read(xa + step * i, mask, -INF, F32), so_far))
        return tuple(found)

    @traced
    def maximum(m: Value, m1: Value, m2: Value, m3: Value) -> Value:
        m = simd.larger(simd.larger(m, m1), simd.larger(m2, m3))
        return simd.across(m, simd.larger) if along else m

    def term(x: Value, floor: Value, rounder: Value, but: Value | None) -> tuple[Value, Value]:
        """exp(x − m)·2^BIAS/F as V, 0 in the lanes `but`, and what V's rounding lost: within 2.4e-8 of it together."""
        x = simd.larger(floor, x)
        z = fma(x, functions.LOG2E, rounder)
        t, lost = functions.expm1_reduced_single(x, z - rounder)
        scale = simd.bits(simd.bits(z) << 23)
        if but is not None:
            scale = select(but, 0.0, scale)
        v = fma(scale, t, scale)
        return v, fma(scale, lost, fma(scale, t, scale - v))

    @traced
    def frame(m: Value) -> tuple[Value, ...]:
        """What a row's terms need: the shift, the floor, the rounding constant that knows N; F; the maximum's V."""
        shift = select(simd.absolute(m) > FAR, m, 0.0)
        near = m - shift
        n = fma(near, functions.LOG2E, functions.ROUNDER) - functions.ROUNDER
        rest = fma(n, functions.LN2_LOW, fma(n, functions.LN2_HIGH, -near))
        t = fma(rest * rest, functions.horner(rest, functions.EXP_FULL), rest)
        # 127 + BIAS: what the exponent's bits of 2^(n_j − N + BIAS) begin with
        rounder = (ROUNDER + 127.0 + BIAS) - n
        v_most = term(simd.convert(near, F32), simd.convert(near + FLOOR, F32), simd.convert(rounder, F32), None)[0]
        return shift, near + FLOOR, rounder, t + 1.0, v_most

    def costs(
        a: Value, total: Value, x: Value, m: Value, z: Value, wa: Value, mask: Value, smoothing: Value, share: Value
    ) -> tuple[Value, Value]:
        """Σ t_j (m − x_j) and T, a vector's lanes more."""
        t = fma(z, 1.0 - smoothing, share)
        if spec.weighted:
            t = t * (simd.load_some(wa, mask, simd.constant(0.0, t.type)) if along else simd.load(wa, F64))
        t = select(mask, t, 0.0)
        d = simd.convert(m, F64) - simd.convert(x, F64)
        return select(t != 0.0, fma(t, d, a), a), total + t

    @traced
    def nothing() -> tuple[Value, ...]:
        k = simd.constant(0, I64) if along else simd.constant(0.0, single)
        zero = simd.constant(0.0, double)
        return zero, simd.constant(0.0, single), k, zero, zero

    @traced
    def visit(
        s: Value, s_low: Value, k: Value, a: Value, total: Value,
        xa: Value, za: Value, wa: Value, va: Value, mask: Value,
        m: Value, shift: Value, floor: Value, rounder: Value, smoothing: Value, share: Value,
        x_ahead: Value, z_ahead: Value, keeping: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """One step of the sums s and k, and of a = Σ t_j (m − x_j) and T = Σ t_j."""
        x = x_access.read(xa, mask, -INF, F32)
        at_maximum = x == m
        v, low = term(x - shift, floor, rounder, at_maximum)
        if keeps:
            plain.write(v, va, mask & keeping)
        s_low = s_low + low
        k = k + simd.set_lanes(at_maximum) if along else select(at_maximum, k + 1.0, k)
        if along:
            simd.prefetch(xa + x_ahead)
        if dense:
            if along:
                simd.prefetch(za + z_ahead)
            a, total = costs(a, total, x, m, z_access.read(za, mask, 0.0), wa, mask, smoothing, share)
        return s + simd.convert(v, F64), s_low, k, a, total

    @traced
    def visit_several(
        s: Value, s_low: Value, k: Value, a: Value, total: Value, xa: Value, za: Value, wa: Value, va: Value,
        m: Value, floor: Value, rounder: Value, smoothing: Value, share: Value, x_ahead: Value, z_ahead: Value,
        keeping: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """SEVERAL steps of `visit` side by side: one alone is a chain of 15 instructions that wait for each other."""
        all_lanes, all_several = (simd.constant(1, simd.vector(I1, n * lanes)) for n in (1, SEVERAL))
        x = wide_access.read(xa, all_several, -INF, F32)
        at_maximum = x == m
        v, low = term(x, floor, rounder, at_maximum)
        if keeps:
            wide_plain.write(v, va, all_several & keeping)
        z = wide_z.read(za, all_several, 0.0) if dense else x
        for i in range(SEVERAL):
            part = list(range(i * lanes, (i + 1) * lanes))
            if i * 64 < SEVERAL * lanes * x_access.kind.size:
                simd.prefetch(xa + x_ahead + i * 64)
            if dense and i * 64 < SEVERAL * lanes * z_access.kind.size:
                simd.prefetch(za + z_ahead + i * 64)
            s = s + simd.convert(simd.shuffle(v, v, part), F64)
            s_low = s_low + simd.shuffle(low, low, part)
            k = k + simd.set_lanes(simd.shuffle(at_maximum, at_maximum, part))
            if dense:
                mine, wanted = simd.shuffle(x, x, part), simd.shuffle(z, z, part)
                a, total = costs(a, total, mine, m, wanted, wa + i * 8 * lanes, all_lanes, smoothing, share)
        return s, s_low, k, a, total

    @traced
    def row_sums(s: Value, s_low: Value, k: Value, a: Value, total: Value) -> tuple[Value, ...]:
        s, k = s + simd.convert(s_low, F64), simd.convert(k, F64)
        if not along:
            return s, k, a, total
        s, a, total = (simd.across(each, lambda p, q: p + q) for each in (s, a, total))
        return s, k, a, total

    @traced
    def keep(value: Value, slots: Value, slot: Value, r: Value) -> None:
        """A number of row r, or of all rows in hand, as float64."""
        simd.store(simd.convert(value, F64), slots + (slot * (8 * lanes) + r * 8))

    @traced
    def kept(slots: Value, slot: Value, r: Value) -> Value:
        return simd.load(slots + (slot * (8 * lanes) + r * 8), F64 if along else double)

    @traced
    def kept_single(slots: Value, slot: Value, r: Value) -> Value:
        return simd.convert(simd.load(slots + (slot * (8 * lanes) + r * 8), F64 if along else double), F32)

    @traced
    def all_kept(slots: Value, slot: Value) -> Value:
        return simd.load(slots + slot * (8 * lanes), double)

    @traced
    def slots_of_rows() -> Value:
        return simd.scratch(SLOTS * lanes * 8)

    @traced
    def keep_integers(values: Value, slots: Value, slot: Value) -> None:
        simd.store(values, slots + slot * (8 * lanes))

    @traced
    def kept_integer(slots: Value, slot: Value, r: Value) -> Value:
        return simd.load(slots + (slot * (8 * lanes) + r * 8), I64)

    @traced
    def as_number(flag: Value) -> Value:
        return select(flag, simd.constant(1.0, double), 0.0)

    @traced
    def unscaled(s: Value, f: Value) -> Value:
        return s * f * UNBIAS

    @traced
    def zeros() -> Value:
        return simd.constant(0.0, double)

    @traced
    def label_gradient(x_y: Value, m: Value, total: Value, factor: Value, beside: Value, only: Value) -> Value:
        """(T + 2λ(m + r)) p_y − T, in float64."""
        p = functions.exp(x_y - m) * factor - total
        return select((x_y == m) & only, beside, p)

    @traced
    def scaled(factor: Value, f: Value, multiple: Value) -> Value:
        return factor * f * multiple

    def probability(v: Value, factor: Value) -> Value:
        # below the smallest normal float32 it is 0: the processor takes 100 times longer for such numbers
        return select(v < SMALLEST, 0.0, v * UNBIAS) * factor

    def from_kept(v: Value, v_most: Value, factor: Value) -> Value:
        return probability(select(v == 0.0, v_most, v), factor)  # the sums left the maxima out by a V of 0

    def give(g: Value, ga: Value, index: Value, y: Value, mask: Value, counts: Value, at_label: Value) -> None:
        """One step of the gradient; where lanes lie along the classes, the label's entry is written afterwards."""
        if not along:
            g = select(simd.convert(y, I32) == simd.convert(index, I32), at_label, g)
            g = select(counts, g, 0.0)
        x_access.write(g, ga, mask)

    @traced
    def give_kept(
        va: Value, ga: Value, index: Value, y: Value, mask: Value, counts: Value, at_label: Value,
        v_most: Value, factor: Value,
    ) -> None:  # fmt: skip
        v = plain.read(va, mask, 1.0, F32) if keeps else v_most
        give(from_kept(v, v_most, factor), ga, index, y, mask, counts, at_label)

    @traced
    def give_again(
        xa: Value, ga: Value, index: Value, y: Value, mask: Value, counts: Value, at_label: Value,
        shift: Value, floor: Value, rounder: Value, factor: Value,
    ) -> None:  # fmt: skip
        v = term(x_access.read(xa, mask, -INF, F32) - shift, floor, rounder, None)[0]
        give(probability(v, factor), ga, index, y, mask, counts, at_label)

    @traced
    def put_label(at_label: Value, ga: Value) -> None:
        if along:
            one = simd.splat(at_label, simd.vector(F32, 1))
            Access(x_access.kind, 1, False).write(one, ga, simd.constant(1, simd.vector(I1, 1)))

    @traced
    def clear(ga: Value, mask: Value) -> None:
        x_access.write(simd.constant(0.0, single), ga, mask)

    @traced
    def kept_at(scratch: Value, row_bytes: Value, ga: Value, turn: Value) -> Value:
        """Where V is: in the tile, in the scratch's row, or, without one, in the gradient's place."""
        if v_turned:
            return scratch
        return select(scratch != 0, turn * row_bytes + scratch, ga) if along and keeps else ga

    @traced
    def give_past_caches(ga: Value, va: Value, v_most: Value, factor: Value) -> None:
        """`give` for a gradient that no cache would hold."""
        if along and keeps:
            x_access.write_past_caches(from_kept(simd.load(va, single), v_most, factor), ga)

    unpack, x_step, gives = simd.reader(SOFTMAX_JOB.names), lanes if along else 1, spec.gradient
    parts = row_parts(spec)
    everything, first, rows_at, advance = parts.everything, parts.first, parts.rows_at, parts.advance
    row_sample, row_label, label_logit, label_weight = (
        parts.row_sample, parts.row_label, parts.label_logit, parts.label_weight
    )  # fmt: skip
    standing, wrong_labels, finish, factors = parts.standing, parts.wrong_labels, parts.finish, parts.factors
    put_rows, judged, both, times = parts.put_rows, parts.judged, parts.both, parts.times
    obtained, released, settle = parts.obtained, parts.released, parts.settle
    several_lanes, heaped, most_kept = SEVERAL, along and keeps, KEPT
    x_size, x_tile_step, z_tile_step, v_step, group = x_access.kind.size, x_tile.step, z_tile.step, lanes * 4, GROUP
    z_size = z_access.kind.size
    m_slot, shift_slot, floor_slot, rounder_slot, s_slot, k_slot = M, SHIFT, FLOOR_AT, ROUNDER_AT, S_AT, K_AT
    a_slot, total_slot = A_AT, TOTAL
    most_slot, factor_slot, label_slot, live_slot, counts_slot, y_slot = MOST, FACTOR, LABEL, LIVE, COUNTS, Y_AT

    def kernel(job: int, start: int, stop: int) -> int:
        (
            classes, inner, x_outer, x_row, x_class, z_outer, z_row, z_class, g_outer, g_row, g_class,
            h_outer, h_row, h_class, s_outer, s_row, w_class, ignore, has_ignore, wide, streaming, allocate, release,
            smoothing, inverse, softcap, z_loss, x, z, g, h, samples, loss, weights, grad_scale, kappa,
        ) = unpack(job)  # fmt: skip
        whole = classes // lanes if along else classes
        rest = classes - whole * lanes if along else 0
        fours = whole // 4
        x_next, z_next, g_next = x_step * x_class, x_step * z_class, x_step * g_class
        if tiled:
            x_next, z_next, g_next = x_tile_step, z_tile_step, x_tile_step
        label_step = x_next if tiled else x_class
        w_next = x_step * w_class
        v_next = v_step if tiled or along else g_next
        share = smoothing / classes
        item = 8 if wide != 0 else 4
        together = min(lanes, max(1, group // (classes * x_size))) if along else lanes
        x_ahead, z_ahead = together * x_row, together * z_row
        slots = slots_of_rows()
        x_at, z_at, scratch = tiles()
        v_row = (whole + 1) * v_step
        owned = 0
        if heaped and classes <= most_kept:
            owned = obtained(allocate, together * v_row + 64)
            scratch = (owned + 63) // 64 * 64  # 0 if there is no memory to be had
        keeping = scratch != 0 or in_place
        wrong = 0
        i = start
        while i < stop:
            outer = i // inner
            row = i - outer * inner
            n = min(together, inner - row, stop - i)
            turns = n if along else 1
            rows = first(n)
            each, last = (rows, rows) if across else (everything(), first(rest))
            x_first, g_first = x + outer * x_outer + row * x_row, g + outer * g_outer + row * g_row
            z_first = z + outer * z_outer + row * z_row
            if tiled:
                for j in range(0, classes, lanes):
                    there = first(classes - j)
                    fill_x(x_at + j * x_tile_step, x_first + j * x_size, x_row, n, there)
                    fill_z(z_at + j * z_tile_step, z_first + j * z_size, z_row, n, there)
                x_rows = x0 = g0 = rows_at(x_at, x_row, n)
                z0 = rows_at(z_at, z_row, n)
            else:
                x_rows = rows_at(x_first, x_row, n)
                x0, g0, z0 = (
                    (x_first, g_first, z_first)
                    if along
                    else (x_rows, rows_at(g_first, g_row, n), rows_at(z_first, z_row, n))
                )
            s_i = row_sample(samples + outer * s_outer + row * s_row, s_row, n)
            y = row_label(z_first, z_row, n)
            counts, valid = standing(y, s_i, classes, ignore, has_ignore)
            wrong += wrong_labels(counts, valid, rows)
            live = both(counts, valid)
            x_y = label_logit(x_rows, y, label_step, valid, n)
            w_y = label_weight(weights, w_class, y, valid)
            keep(as_number(counts), slots, counts_slot, 0)

            for turn in range(turns):
                m0, m1, m2, m3 = lowest(), lowest(), lowest(), lowest()
                xa = advance(x0, turn * x_row)
                if not along or kept(slots, counts_slot, turn) != 0.0:
                    for _ in range(fours):
                        m0, m1, m2, m3 = highest_of_four(m0, m1, m2, m3, xa, x_next, each)
                        xa = advance(xa, 4 * x_next)
                    for _ in range(whole - 4 * fours):
                        m0 = highest(m0, xa, each)
                        xa = advance(xa, x_next)
                    if rest > 0:
                        m0 = highest(m0, xa, last)
                keep(maximum(m0, m1, m2, m3), slots, m_slot, turn)

            top = all_kept(slots, m_slot)
            shifts, floors, rounders, f, v_most = frame(top)
            keep(shifts, slots, shift_slot, 0)
            keep(floors, slots, floor_slot, 0)
            keep(rounders, slots, rounder_slot, 0)
            keep(v_most, slots, most_slot, 0)

            for turn in range(turns):
                s, s_low, k, a, total = nothing()
                if not along or kept(slots, counts_slot, turn) != 0.0:
                    m, shift = kept_single(slots, m_slot, turn), kept_single(slots, shift_slot, turn)
                    floor, rounder = kept_single(slots, floor_slot, turn), kept_single(slots, rounder_slot, turn)
                    xa, za, wa = advance(x0, turn * x_row), advance(z0, turn * z_row), weights
                    va = kept_at(scratch, v_row, advance(g0, turn * g_row), turn)
                    several = 0
                    if along and shift == 0.0:
                        several = whole // several_lanes
                        for _ in range(several):
                            s, s_low, k, a, total = visit_several(
                                s, s_low, k, a, total, xa, za, wa, va, m, floor, rounder, smoothing, share,
                                x_ahead, z_ahead, keeping,
                            )  # fmt: skip
                            xa = advance(xa, several_lanes * x_next)
                            za = advance(za, several_lanes * z_next)
                            wa += several_lanes * w_next
                            va = advance(va, several_lanes * v_next)
                    for _ in range(whole - several * several_lanes):
                        s, s_low, k, a, total = visit(
                            s, s_low, k, a, total, xa, za, wa, va, each, m, shift, floor, rounder, smoothing, share,
                            x_ahead, z_ahead, keeping,
                        )  # fmt: skip
                        xa = advance(xa, x_next)
                        za = advance(za, z_next)
                        wa += w_next
                        va = advance(va, v_next)
                    if rest > 0:
                        s, s_low, k, a, total = visit(
                            s, s_low, k, a, total, xa, za, wa, va, last, m, shift, floor, rounder, smoothing, share,
                            x_ahead, z_ahead, keeping,
                        )  # fmt: skip
                s_sum, k_sum, a_sum, t_sum = row_sums(s, s_low, k, a, total)
                keep(s_sum, slots, s_slot, turn)
                keep(k_sum, slots, k_slot, turn)
                keep(a_sum, slots, a_slot, turn)
                keep(t_sum, slots, total_slot, turn)

            nil = zeros()
            cost, r, mass, below, part, most_of_it, _ = finish(
                unscaled(all_kept(slots, s_slot), f), nil, all_kept(slots, k_slot), all_kept(slots, a_slot), nil,
                all_kept(slots, total_slot), nil, top, x_y, w_y, z_loss,
            )  # fmt: skip
            put_rows(judged(cost, s_i, counts, valid), loss + i * item, wide, rows)

            if gives:
                factor, beside = factors(mass, below, part, z_loss, top, r)
                multiple = times(s_i, grad_scale)
                keep(times(label_gradient(x_y, top, mass, factor, beside, most_of_it), multiple), slots, label_slot, 0)
                keep(scaled(factor, f, multiple), slots, factor_slot, 0)
                keep(as_number(live), slots, live_slot, 0)
                keep_integers(y, slots, y_slot)
                for turn in range(turns):
                    xa, ga = advance(x0, turn * x_row), advance(g0, turn * g_row)
                    g_begin = ga
                    if not along or kept(slots, live_slot, turn) != 0.0:
                        shift, floor = kept_single(slots, shift_slot, turn), kept_single(slots, floor_slot, turn)
                        rounder, by = kept_single(slots, rounder_slot, turn), kept_single(slots, factor_slot, turn)
                        at_label, most = kept_single(slots, label_slot, turn), kept_single(slots, most_slot, turn)
                        va = kept_at(scratch, v_row, ga, turn)
                        j = 0
                        past = whole if heaped and streaming != 0 and scratch != 0 and g_begin % 64 == 0 else 0
                        for _ in range(past):
                            give_past_caches(ga, va, most, by)
                            ga = advance(ga, g_next)
                            va = advance(va, v_next)
                        for _ in range(whole - past):
                            if keeps and keeping:
                                give_kept(va, ga, j, y, each, live, at_label, most, by)
                            else:
                                give_again(xa, ga, j, y, each, live, at_label, shift, floor, rounder, by)
                            xa = advance(xa, x_next)
                            ga = advance(ga, g_next)
                            va = advance(va, v_next)
                            j += 1
                        if rest > 0:
                            if keeps and keeping:
                                give_kept(va, ga, j, y, last, live, at_label, most, by)
                            else:
                                give_again(xa, ga, j, y, last, live, at_label, shift, floor, rounder, by)
                        put_label(at_label, advance(g_begin, kept_integer(slots, y_slot, turn) * g_class))
                    else:
                        for _ in range(whole):
                            clear(ga, each)
                            ga = advance(ga, g_next)
                        if rest > 0:
                            clear(ga, last)
                if tiled:
                    for j in range(0, classes, lanes):
                        empty_g(x_at + j * x_tile_step, g_first + j * x_size, g_row, n, first(classes - j))
            i += n
        if heaped:
            released(release, owned)
            if streaming != 0:
                settle()
        return wrong

    return kernel
