"""The softmax family in float64 arithmetic: every option, every layout, every element type.

A row x of C logits with target weights t, in the letters of the formulas:

    m = max x      k = how many x_j equal m      s = Σ over x_j < m of exp(x_j − m)
    S = (k − 1) + s      r = log1p(S)      G = 1/(1 + S) = exp(−r)
    loss = Σ t_j (m − x_j) + T r + λ (m + r)²
    d/dx_j = (T + 2λ(m + r)) exp(x_j − m) G − t_j, and where x_j has more than half
             −T S G + (T − t_j) + 2λ(m + r) G: nothing cancels, the tail of a confident row survives
             (used where S < 1: there p > 1/2, so it is the only maximum; below, T p − t is the better one)
    d/dz_j = w_j ((1 − ε)((m − x_j) + r) − κ), κ the part of a class-weighted mean that its denominator brings

Three passes over a row, the later ones from cache: the maximum; the sums; the gradient, from the exponentials that the
sums have kept. Lanes lie along the classes of long contiguous rows, and across rows otherwise (short ones are turned
into a tile first), with the same formulas; an index label with smoothing is a dense label whose z is made on the spot.
float64 logits take compensated sums throughout.

Rejected: an online maximum (one pass fewer, but the pair needs every maximum left out of s, and rescaling costs the
exactness of the scale); float32 arithmetic (a float32 difference x − m alone is wrong by 16 ulp of a confident loss;
the cases where speed pays for the extra care have their own kernel, `single.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from . import functions, simd
from .job import LANES, SOFTMAX_JOB, TILE, SoftmaxSpec
from .memory import AHEAD, KINDS, Access, Tile
from .rows import row_parts, turning
from .simd import F64, I1, I64, Value, fma, select, traced

BIAS = 64  # exponentials are kept times 2^64, so that a subnormal result is rounded once, at the end
UNBIAS = 2.0**-BIAS
INF = float("inf")
STEPS = 1 << 16  # that many steps of exponentials are kept for the gradient; of longer rows they are made again


def build(spec: SoftmaxSpec) -> Callable[[int, int, int], int]:
    lanes = spec.lanes
    along, tiled, strided = (spec.layout == layout for layout in ("along", "tiled", "strided"))
    across = tiled or spec.layout == "across"
    precise = spec.x == "float64"
    mapped, sized = spec.result in ("softmax", "log_softmax"), spec.result == "logsumexp"
    # float32 results need no more than EXP_SINGLE unless p − t or m + r cancels, and half-precision ones than EXP_HALF
    cancels = (spec.gradient and spec.labels != "index") or spec.label_gradient != "" or sized
    coefficients: tuple[float, ...] = functions.EXP_SINGLE
    if precise or cancels:
        coefficients = functions.EXP_HALF if KINDS[spec.x].size == 2 else functions.EXP_FULL
    full, sums_of = simd.vector(F64, lanes), simd.vector(F64, LANES)
    flags, numbers = simd.vector(I1, lanes), simd.vector(I64, lanes)
    x_access = Access(KINDS[spec.x], lanes, strided)
    z_access = Access(KINDS[spec.z], lanes, strided) if spec.labels == "dense" else None
    h_access = Access(KINDS[spec.label_gradient], lanes, strided) if spec.label_gradient else None
    x_tile = Tile(x_access.kind, lanes)
    z_tile, h_tile = (Tile(access.kind, lanes) if access else None for access in (z_access, h_access))
    stores = spec.gradient
    # The sums leave the maxima out by a term of 0, and no other term is 0: then the gradient need not read x again.
    marked = stores and not precise and not spec.transformed and h_access is None
    summed = spec.labels in ("dense", "smooth")

    def capped(x: Value, softcap: Value, inverse: Value) -> tuple[Value, Value | None]:
        """x' = softcap·tanh(x/softcap)/τ and its derivative; a softcap of 0 stands for none."""
        if not spec.transformed:
            return x, None
        bent, slope = functions.tanh(x / select(softcap == 0.0, 1.0, softcap))
        bent = select((softcap == 0.0) | (simd.absolute(x) == INF), x, bent * softcap)  # infinities keep their meaning
        return bent * inverse, select(softcap == 0.0, simd.constant(1.0, x.type), slope) * inverse

    def difference(x: Value, m: Value) -> tuple[Value, Value | None]:
        """x − m as the rounded difference and what rounding lost (float64 logits; exact enough otherwise)."""
        return functions.two_sum(x, -m) if precise else (x - m, None)

    def exponential(d: Value, e: Value | None) -> tuple[Value, Value]:
        return functions.exp_pair(d, e, coefficients, BIAS, to_zero=precise)

    def split(x: Value) -> list[Value]:
        """LANES lanes at a time, as sums are kept: wider sums would take the registers that the terms need."""
        return [simd.shuffle(x, x, list(range(i, i + LANES))) for i in range(0, x.type.count, LANES)]

    def folded(total: Value, x: Value) -> Value:
        """A step's lanes more."""
        for part in split(x):
            total = total + part
        return total

    def add(total: Value, lost: Value, x: Value, x_low: Value | None = None) -> tuple[Value, Value]:
        if not precise:
            return folded(total, x), lost
        total, error = functions.two_sum(total, x)
        return total, lost + error if x_low is None else lost + (error + x_low)

    def target(z: Value, w: Value | None, smoothing: Value, share: Value) -> Value:
        t = fma(z, 1.0 - smoothing, share)
        return t if w is None else t * w

    def weight_at(address: Value, mask: Value) -> Value | None:
        if not spec.weighted:
            return None
        if along:
            return simd.load_some(address, mask, simd.constant(0.0, full))
        return simd.splat(simd.load(address, F64), full)

    def label_at(za: Value, index: Value, y: Value, mask: Value) -> Value:
        if z_access is not None:
            return z_access.read(za, mask, 0.0)
        if spec.labels == "none":
            return simd.constant(0.0, full)
        position = simd.lane_numbers(numbers) + index if along else simd.splat(index, numbers)
        return select(position == y, simd.constant(1.0, full), 0.0)

    turned = [tile if tiled else None for tile in (x_tile, z_tile, h_tile)]
    (fill_x, _), (fill_z, _), (_, empty_h) = (turning(tile) for tile in turned)
    _, empty_g = turning(turned[0] if spec.gradient or mapped else None)

    @traced
    def tiles() -> tuple[Value, ...]:
        """For the logits, which their gradient takes the place of; the labels; their gradient."""
        return tuple(tile.scratch(TILE) if tile else simd.constant(0, I64) for tile in turned)

    @traced
    def lowest() -> Value:
        return simd.constant(-INF, full)

    @traced
    def highest(m: Value, xa: Value, mask: Value) -> Value:
        return simd.larger(x_access.read(xa, mask, -INF), m)  # NaN: the answer is m, and s will tell

    @traced
    def maximum(m: Value, softcap: Value, inverse: Value) -> Value:
        """The row's maximum, transformed (both transformations are monotone)."""
        return capped(simd.across(m, simd.larger) if along else m, softcap, inverse)[0]

    @traced
    def transformed(x: Value, softcap: Value, inverse: Value) -> Value:
        return capped(x, softcap, inverse)[0]

    @traced
    def unbiased(x: Value) -> Value:
        return x * UNBIAS

    @traced
    def nothing() -> tuple[Value, ...]:
        return tuple(simd.constant(0.0, sums_of) for _ in range(7))

    @traced
    def visit(
        s: Value, s_low: Value, k: Value, a: Value, a_low: Value, total: Value, total_low: Value,
        xa: Value, za: Value, wa: Value, ea: Value, index: Value, y: Value, mask: Value, m: Value,
        softcap: Value, inverse: Value, smoothing: Value, share: Value, x_ahead: Value, z_ahead: Value, keeping: Value,
    ) -> tuple[Value, ...]:  # fmt: skip
        """One step of the sums s, k, a = Σ t_j (m − x_j) and T = Σ t_j."""
        if along:  # the next row, while this one is computed
            for i in range(0, lanes * x_access.kind.size, 64):
                simd.prefetch(xa + x_ahead + i)
            for i in range(0, lanes * z_access.kind.size if z_access else 0, 64):
                simd.prefetch(za + z_ahead + i)
        x = capped(x_access.read(xa, mask, -INF), softcap, inverse)[0]
        d, e = difference(x, m)
        scale, t = exponential(d, e)
        at_maximum = x == m
        scale = select(at_maximum, 0.0, scale)
        if sized:  # an infinite maximum less itself is NaN
            t = select(at_maximum, 0.0, t)
        term = fma(scale, t, scale)
        if stores:
            simd.store_some(term, ea, simd.splat(keeping, flags))
        s, s_low = add(s, s_low, term, fma(scale, t, scale - term) if precise else None)
        k = folded(k, select(at_maximum, simd.constant(1.0, full), -0.0))  # x + −0 is x: the add becomes a masked one
        if summed:
            w = weight_at(wa, mask)
            weight = target(label_at(za, index, y, mask), w, smoothing, share)
            weight = select(mask, weight, 0.0)
            if precise:
                cost = select(weight == 0.0, 0.0, -weight * d)
                low = fma(-weight, d, -cost) - weight * e
                a, a_low = add(a, a_low, cost, select(low == low, low, 0.0))
                total, total_low = add(total, total_low, weight)
            else:  # T − t at the maximum is the sum of the others: T itself has lost the small ones
                for t_part, d_part in zip(split(weight), split(d), strict=True):
                    a = select(t_part == 0.0, a, fma(-t_part, d_part, a))
                total, total_low = folded(total, weight), folded(total_low, select(at_maximum, -0.0, weight))
        return s, s_low, k, a, a_low, total, total_low

    @traced
    def combined(*sums: Value) -> tuple[Value, ...]:
        """The sums of a row from those of its lanes."""
        if not along:
            return sums
        s, s_low, k, a, a_low, total, total_low = sums
        results: list[Value] = []
        for high, low in ((s, s_low), (a, a_low), (total, total_low)):
            total_high, lost = simd.lane(high, 0), simd.lane(low, 0)
            for i in range(1, LANES):
                if precise:
                    total_high, lost = add(total_high, lost, simd.lane(high, i), simd.lane(low, i))
                else:
                    total_high, lost = total_high + simd.lane(high, i), lost + simd.lane(low, i)
            results += [total_high, lost]
        return results[0], results[1], simd.across(k, lambda p, q: p + q), *results[2:]

    @traced
    def made_again(xa: Value, mask: Value, m: Value, softcap: Value, inverse: Value) -> Value:
        x = capped(x_access.read(xa, mask, -INF), softcap, inverse)[0]
        d, e = difference(x, m)
        scale, t = exponential(d, e)
        return select(x == m, 0.0, fma(scale, t, scale))

    @traced
    def recalled(ea: Value) -> Value:
        return simd.load(ea, full)

    def write(x: Value, address: Value, mask: Value, past_caches: Value) -> None:
        """Of a whole step where no cache would hold the result: past them, which spares reading its memory first."""
        if not along or lanes * x_access.kind.size % 64:
            x_access.write(x, address, mask)
            return
        for_caches = [address + (AHEAD + i) for i in range(0, lanes * x_access.kind.size, 64)]

        def through() -> None:
            for line in for_caches:
                simd.prefetch(line, to_write=True)
            x_access.write(x, address, mask)

        simd.either(past_caches, lambda: x_access.write_past_caches(x, address), through)

    @traced
    def give(
        e_x: Value, xa: Value, za: Value, wa: Value, ga: Value, ha: Value, index: Value, y: Value, mask: Value,
        m: Value,
        softcap: Value, inverse: Value, smoothing: Value, part: Value,
        counts: Value, total: Value, others: Value, factor: Value, top: Value, most: Value,
        r: Value, multiple: Value, kappa: Value, past_caches: Value,
    ) -> None:  # fmt: skip
        """One step of the gradients."""
        slope = None
        if not marked:
            x, slope = capped(x_access.read(xa, mask, -INF), softcap, inverse)
            d, e = difference(x, m)
        at_maximum = e_x == 0.0 if marked else x == m
        w = weight_at(wa, mask) if summed else None
        if spec.gradient:
            if summed:
                goal = target(label_at(za, index, y, mask), w, smoothing, part)
            else:
                goal = label_at(za, index, y, mask) * total
            g = fma(select(at_maximum, 1.0 / UNBIAS, e_x), factor * UNBIAS, -goal)
            rest = others if summed and not precise else (total - goal) + others
            g = select(at_maximum & most, rest + top, g)
            g = g * multiple
            if slope is not None:
                g = g * slope
            write(select(counts, g, 0.0), ga, mask, past_caches)
        if h_access is not None:
            h = (r - d if e is None else (r - e) - d) * (1.0 - smoothing) - kappa
            if w is not None:
                h = select(w == 0.0, 0.0, h * w)
            h_access.write(select(counts, h * multiple, 0.0), ha, mask)

    @traced
    def map_out(xa: Value, ga: Value, mask: Value, m: Value, r: Value, share: Value, past_caches: Value) -> None:
        x = x_access.read(xa, mask, -INF)
        d, e = difference(x, m)
        if spec.result == "log_softmax":
            out = d - r if e is None else d - (r - e)
        else:
            scale, t = exponential(d, e)
            out = fma(scale, t, scale) * (share * UNBIAS)
        write(out, ga, mask, past_caches)

    @traced
    def clear(ga: Value, ha: Value, mask: Value) -> None:
        zero = simd.constant(0.0, full)
        if spec.gradient:
            x_access.write(zero, ga, mask)
        if h_access is not None:
            h_access.write(zero, ha, mask)

    unpack, x_step = simd.reader(SOFTMAX_JOB.names), lanes if along else 1
    gives = spec.gradient or h_access is not None
    streams = along and (spec.gradient or mapped)
    heaped, steps, kept_step, near = stores, STEPS, lanes * 8, 1 << 16
    x_size, x_tile_step = x_tile.kind.size, x_tile.step
    z_size, z_tile_step = (z_tile.kind.size, z_tile.step) if z_tile else (0, 0)
    h_size, h_tile_step = (h_tile.kind.size, h_tile.step) if h_tile else (0, 0)
    parts = row_parts(spec)
    everything, first, rows_at, advance = parts.everything, parts.first, parts.rows_at, parts.advance
    row_sample, row_label, label_logit, label_weight = (
        parts.row_sample, parts.row_label, parts.label_logit, parts.label_weight
    )  # fmt: skip
    standing, wrong_labels, any_of, finish, factors = (
        parts.standing, parts.wrong_labels, parts.any_of, parts.finish, parts.factors
    )  # fmt: skip
    put_rows, judged, both, times, plus = parts.put_rows, parts.judged, parts.both, parts.times, parts.plus
    obtained, released, settle = parts.obtained, parts.released, parts.settle

    def kernel(job: int, start: int, stop: int) -> int:
        (
            classes, inner, x_outer, x_row, x_class, z_outer, z_row, z_class, g_outer, g_row, g_class,
            h_outer, h_row, h_class, s_outer, s_row, w_class, ignore, has_ignore, wide, streaming, allocate, release,
            smoothing, inverse, softcap, z_loss, x, z, g, h, samples, weights, loss, grad_scale, kappa,
        ) = unpack(job)  # fmt: skip
        whole = classes // lanes if along else classes
        rest = classes - whole * lanes if along else 0
        share = smoothing / classes
        memory = obtained(allocate, (whole + 1) * kept_step) if heaped and whole < steps else 0
        keeping = memory != 0
        x_ahead, z_ahead = (x_row, z_row) if classes <= near else (0, 0)
        x_next, z_next, g_next, h_next = x_step * x_class, x_step * z_class, x_step * g_class, x_step * h_class
        if tiled:
            x_next, z_next, g_next, h_next = x_tile_step, z_tile_step, x_tile_step, h_tile_step
        label_step = x_next if tiled else x_class
        x_at, z_at, h_at = tiles()
        wrong = 0
        i = start
        while i < stop:
            outer = i // inner
            row = i - outer * inner
            n = 1 if along else min(lanes, inner - row, stop - i)
            rows = first(n)
            each, last = (rows, rows) if across else (everything(), first(rest))
            x_first, z_first = x + outer * x_outer + row * x_row, z + outer * z_outer + row * z_row
            g_first, h_first = g + outer * g_outer + row * g_row, h + outer * h_outer + row * h_row
            if tiled:
                for j in range(0, classes, lanes):
                    there = first(classes - j)
                    fill_x(x_at + j * x_tile_step, x_first + j * x_size, x_row, n, there)
                    fill_z(z_at + j * z_tile_step, z_first + j * z_size, z_row, n, there)
                x0 = g0 = rows_at(x_at, x_row, n)
                z0, h0 = rows_at(z_at, z_row, n), rows_at(h_at, h_row, n)
            else:
                x0, z0 = rows_at(x_first, x_row, n), rows_at(z_first, z_row, n)
                g0, h0 = rows_at(g_first, g_row, n), rows_at(h_first, h_row, n)
            s_i = row_sample(samples + outer * s_outer + row * s_row, s_row, n)
            y = row_label(z_first, z_row, n)
            counts, valid = standing(y, s_i, classes, ignore, has_ignore)
            wrong += wrong_labels(counts, valid, rows)
            if any_of(counts):
                m = lowest()
                xa = x0
                for _ in range(whole):
                    m = highest(m, xa, each)
                    xa = advance(xa, x_next)
                if rest > 0:
                    m = highest(m, xa, last)
                top = maximum(m, softcap, inverse)

                s, s_low, k, a, a_low, total, total_low = nothing()
                xa, za, wa, ea, j = x0, z0, weights, memory, 0
                for _ in range(whole):
                    s, s_low, k, a, a_low, total, total_low = visit(
                        s, s_low, k, a, a_low, total, total_low,
                        xa, za, wa, ea, j, y, each, top, softcap, inverse, smoothing, share, x_ahead, z_ahead, keeping,
                    )  # fmt: skip
                    ea += kept_step
                    xa = advance(xa, x_next)
                    za = advance(za, z_next)
                    wa += x_step * w_class
                    j += x_step
                if rest > 0:
                    s, s_low, k, a, a_low, total, total_low = visit(
                        s, s_low, k, a, a_low, total, total_low,
                        xa, za, wa, ea, j, y, last, top, softcap, inverse, smoothing, share, x_ahead, z_ahead, keeping,
                    )  # fmt: skip
                sums = combined(s, s_low, k, a, a_low, total, total_low)
                x_y = transformed(label_logit(x0, y, label_step, valid, n), softcap, inverse)
                w_y = label_weight(weights, w_class, y, valid)
                cost, r, mass, below, part, most, others = finish(
                    unbiased(sums[0]),
                    unbiased(sums[1]),
                    sums[2],
                    sums[3],
                    sums[4],
                    sums[5],
                    sums[6],
                    top,
                    x_y,
                    w_y,
                    z_loss,
                )
                if sized:
                    cost = plus(top, r)
                item = 8 if wide != 0 else 4
                put_rows(judged(cost, s_i, counts, valid), loss + i * item, wide, rows)

                if gives or mapped:
                    past_caches = streams and streaming != 0 and g_first % 64 == 0
                    factor, beside = factors(mass, below, part, z_loss, top, r)
                    live, multiple = both(counts, valid), times(s_i, grad_scale)
                    xa, za, ga, ha, wa, ea, j = x0, z0, g0, h0, weights, memory, 0
                    for _ in range(whole):
                        if mapped:
                            map_out(xa, ga, each, top, r, part, past_caches)
                        else:
                            e_x = recalled(ea) if keeping else made_again(xa, each, top, softcap, inverse)
                            give(
                                e_x, xa, za, wa, ga, ha, j, y, each, top, softcap, inverse, smoothing, share,
                                live, mass, others, factor, beside, most, r, multiple, kappa, past_caches,
                            )  # fmt: skip
                        xa = advance(xa, x_next)
                        za = advance(za, z_next)
                        ga = advance(ga, g_next)
                        ha = advance(ha, h_next)
                        ea += kept_step
                        wa += x_step * w_class
                        j += x_step
                    if rest > 0:
                        if mapped:
                            map_out(xa, ga, last, top, r, part, False)
                        else:
                            e_x = recalled(ea) if keeping else made_again(xa, last, top, softcap, inverse)
                            give(
                                e_x, xa, za, wa, ga, ha, j, y, last, top, softcap, inverse, smoothing, share,
                                live, mass, others, factor, beside, most, r, multiple, kappa, False,
                            )  # fmt: skip
            else:
                item = 8 if wide != 0 else 4
                put_rows(times(s_i, 0.0), loss + i * item, wide, rows)
                ga, ha = g0, h0
                for _ in range(whole):
                    clear(ga, ha, each)
                    ga = advance(ga, g_next)
                    ha = advance(ha, h_next)
                if rest > 0:
                    clear(ga, ha, last)
            if tiled:
                for j in range(0, classes, lanes):
                    there = first(classes - j)
                    empty_g(x_at + j * x_tile_step, g_first + j * x_size, g_row, n, there)
                    empty_h(h_at + j * h_tile_step, h_first + j * h_size, h_row, n, there)
            i += n
        if heaped:
            released(release, memory)
        if streams and streaming != 0:
            settle()
        return wrong

    return kernel
