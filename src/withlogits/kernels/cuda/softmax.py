"""The softmax family on the GPU: one pass over the logits for the loss, one more for the gradients.

A row x of C logits with target weights t, in the letters of the formulas:

    m = max x      k = how many x_j equal m      s = Σ over x_j < m of exp(x_j − m)
    S = (k − 1) + s      r = log1p(S)      G = 1/(1 + S) = exp(−r)
    loss = Σ t_j (m − x_j) + T r + λ (m + r)²
    d/dx_j = (T + 2λ(m + r)) exp(x_j − m) G − t_j, and for the only maximum, where S < 1,
             −T S G + (T − t_j) + 2λ(m + r) G: nothing cancels
    d/dz_j = w_j (1 − ε) ((m − x_j) + r)

A program has ROWS rows, and goes through their classes in tiles of LANES × VECTOR. For its VECTOR logits each lane
finds m and S. Then it puts them together with those that it has from earlier tiles: of the two maxima the smaller one
goes into S as exp(smaller − larger), and the S that came with it is multiplied by that number. So no maximum is ever in
a sum of smaller numbers, and a logit costs one exponential. The sum Σ t_j (m − x_j) moves in the same way, by the
target weight of what is no longer the maximum. The lanes come together once, at the end. The order of all this depends
on C, the dtype and the layout, not on the rows beside.

Steps to here. (1) Two passes, the maximum and then the sums: the same numbers, but a row is read twice from DRAM where
it is too long for the caches. (2) One maximum for all lanes, corrected tile by tile: a reduction and two barriers in
each tile. (3) The row kept in registers: it is this one with a single tile (SINGLE), for rows up to the longest one.
(4) VECTOR 1 always: 31 instructions for a bfloat16 logit in place of 24, of which a GPU has time for about 20 while it
reads one; kept for float32, where it is 33 in place of 39, of about 39. (Counted in the code compiled for sm_90.)
Splitting a row among programs would fill a GPU with few long rows, and wants memory for their parts; where time is
long, rows are many.

Logits are of fp16, bf16 or fp32, labels of any type. x_j − m is a pair (`two_sum`), so the tail of a confident row is
right. The largest errors, in ulp of float32; the gradient of the logits counts in ulp of its larger term, and in ulp of
its dtype where that is of half precision:

    |                        | fp32 logits | half-precision logits |
    | loss of an index label |           2 |                     4 |
    | loss of many targets   |           4 |                     6 |
    | dL/dx                  |           4 |                     1 |
    | dL/dz                  |           2 |                     2 |

A temperature rounds the transformed logits y to 2^-34 of themselves, a softcap c to 2 ulp of float32, of which the loss
makes what it makes, and dL/dx at most 2^-22 T p_j (|y_j| + Σ p_i |y_i|) |dy_j/dx_j|; the softcap's slope adds 4 |x/c|
ulp to dL/dx. Gradients below the normal numbers may lose their digits. bf16 logits above 2.3e38 that differ give NaN.

NaN, +inf or only −inf in a row that counts gives NaN; −inf is a masked class, and 0·inf is 0. An index label outside
[0, C) gives NaN and a gradient of 0, and reads nothing. Rows of weight 0 (and gradients of upstream 0) are 0 whatever
they hold: their logits are not even read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import (
    FINITE,
    FROM_BIAS,
    LOG2E,
    TO_BIAS,
    bent,
    exp_biased,
    exp_half,
    log1p_wide,
    slope_of,
    two_sum,
    wide_sum,
)


@triton.jit
def row_numbers(rows, tiles, ROWS: tl.constexpr):
    """A program's outer index, its rows as (ROWS,), and which of them exist; 64 bits."""
    program = tl.program_id(0).to(tl.int64)
    outer = program // tiles
    row = (program - outer * tiles) * ROWS + tl.arange(0, ROWS)
    return outer, row, row < rows


@triton.jit
def row_starts(array, strides, outer, row, UNIT: tl.constexpr):
    """Where the rows of an array begin. Its strides are in units of UNIT elements.

    So the compiler knows that rows begin where a load of UNIT elements may.
    """
    outer_units, row_units = strides
    return array + (outer * outer_units + row * row_units) * UNIT


@triton.jit
def column_numbers(start, LANES: tl.constexpr, VECTOR: tl.constexpr):
    """The classes of a tile as (1, LANES, VECTOR)."""
    return start + tl.arange(0, LANES)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]


@triton.jit
def row_standing(z, z_strides, s, s_strides, outer, row, exists, classes, ignore, SPARSE: tl.constexpr,
                 IGNORE: tl.constexpr):  # fmt: skip
    """Of each row: its weight, its index label (−1 if it is no class), whether it counts, whether its label is right.

    Index labels are compared in 64 bits.
    """
    z_outer, z_row = z_strides
    s_outer, s_row = s_strides
    counts = exists
    sample = tl.full(row.shape, 1.0, tl.float32)
    if s is not None:
        sample = tl.load(s + outer * s_outer + row * s_row, mask=exists, other=0.0)
        counts = counts & (sample != 0.0)
    valid = exists
    label = tl.full(row.shape, -1, tl.int32)
    if SPARSE:
        y = tl.load(z + outer * z_outer + row * z_row, mask=exists, other=0).to(tl.int64)
        if IGNORE:
            counts = counts & (y != ignore)
        valid = (y >= 0) & (y < classes)
        label = tl.where(valid, y, -1).to(tl.int32)
    return sample, label, counts, valid


@triton.jit
def targets(z_rows, z_class, w, label, column, there, keep, share, SPARSE: tl.constexpr):
    """t_j = w_j ((1 − ε) z_j + ε/C) of a tile (ROWS, LANES, VECTOR), 0 outside; keep = 1 − ε, share = ε/C."""
    if SPARSE:
        t = tl.where(column == label[:, None, None], keep, 0.0) + share
    else:
        t = tl.load(z_rows + column.to(tl.int64) * z_class, mask=there, other=0).to(tl.float32) * keep + share
    if w is not None:
        t = t * tl.load(w + column, mask=there, other=0.0)
    return tl.where(there, t, 0.0)


@triton.jit
def whole_difference(d, left):
    """d + left of pairs, of which `left` may be some ulp of d; −inf stays −inf."""
    return tl.where(d == -float("inf"), d, d + left)


@triton.jit
def gathered(
    x_rows, x_class, z_rows, z_class, w, label, start, classes, live, keep, share,
    cap, inverse_cap, inverse_high, inverse_low,
    SPARSE: tl.constexpr, SUMMED: tl.constexpr, CAPPED: tl.constexpr, TEMPERED: tl.constexpr, FAST: tl.constexpr,
    LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Of each lane of a tile: m as given and transformed (a pair), 2^64·S, Σ t_j (m − x_j), Σ t_j; (ROWS, LANES)."""
    column = column_numbers(start, LANES, VECTOR)
    there = (column < classes) & live[:, None, None]
    x = tl.load(x_rows + column.to(tl.int64) * x_class, mask=there, other=-float("inf")).to(tl.float32)
    m = tl.max(x, axis=2)
    m_high, m_low = bent(m, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
    sums = tl.zeros_like(m)
    cost = tl.zeros_like(m)
    total = tl.zeros_like(m)
    if SUMMED:
        t = targets(z_rows, z_class, w, label, column, there, keep, share, SPARSE)
        total = tl.sum(t, axis=2)
    if VECTOR > 1:
        high, low = bent(x, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
        # Of two times −inf the difference is to be −inf as well, not NaN.
        d, left = two_sum(high, -tl.maximum(m_high, FINITE)[:, :, None])
        if CAPPED or TEMPERED:
            e = exp_biased(d, left + (low - m_low[:, :, None]), FAST)
        elif FAST:
            e = exp_half(x, m[:, :, None])
        else:
            e = exp_biased(d, left, FAST)
        highest = x == m[:, :, None]
        k = tl.sum(highest.to(tl.float32), axis=2)
        sums = tl.sum(tl.where(highest, 0.0, e), axis=2) + (k - 1.0) * TO_BIAS
        if SUMMED:
            if CAPPED or TEMPERED:
                d = whole_difference(d, left + (low - m_low[:, :, None]))
            cost = tl.sum(tl.where(t == 0.0, 0.0, -t * d), axis=2)
    return m, m_high, m_low, sums, cost, total


@triton.jit
def softmax_forward(
    x, z, w, s, loss, stats, x_strides, z_strides, s_strides, x_class, z_class,
    groups, rows, tiles, count, ignore, keep, share, z_loss, cap, inverse_cap, inverse_high, inverse_low,
    SPARSE: tl.constexpr, SMOOTH: tl.constexpr, IGNORE: tl.constexpr, CAPPED: tl.constexpr, TEMPERED: tl.constexpr,
    SQUARED: tl.constexpr, SINGLE: tl.constexpr, FAST: tl.constexpr,
    UNIT: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The loss of each row, and for its gradient m (before any transformation) and 2^64·S: count is how many rows."""
    classes = groups * UNIT
    outer, row, exists = row_numbers(rows, tiles, ROWS)
    sample, label, counts, valid = row_standing(
        z, z_strides, s, s_strides, outer, row, exists, classes, ignore, SPARSE, IGNORE
    )
    live = counts & valid
    x_rows = row_starts(x, x_strides, outer, row, UNIT)[:, None, None]
    z_rows = row_starts(z, z_strides, outer, row, UNIT)[:, None, None]
    SUMMED: tl.constexpr = SMOOTH or not SPARSE
    BENT: tl.constexpr = CAPPED or TEMPERED

    m, high, low, sums, cost, total = gathered(
        x_rows, x_class, z_rows, z_class, w, label, 0, classes, live, keep, share,
        cap, inverse_cap, inverse_high, inverse_low, SPARSE, SUMMED, CAPPED, TEMPERED, FAST, LANES, VECTOR,
    )  # fmt: skip
    if not SINGLE:
        for start in range(LANES * VECTOR, classes, LANES * VECTOR):
            new, new_high, new_low, new_sums, new_cost, new_total = gathered(
                x_rows, x_class, z_rows, z_class, w, label, start, classes, live, keep, share,
                cap, inverse_cap, inverse_high, inverse_low, SPARSE, SUMMED, CAPPED, TEMPERED, FAST, LANES, VECTOR,
            )  # fmt: skip
            larger = new > m  # never of NaN, which is the smaller one then, and makes the sum NaN
            d, left = two_sum(tl.where(larger, high, new_high), -tl.maximum(tl.where(larger, new_high, high), FINITE))
            if BENT:
                left += tl.where(larger, low - new_low, new_low - low)
            e = exp_biased(d, left, FAST)
            if VECTOR > 1:
                # A lane of nothing but −inf has taken its k for what it is not, but is multiplied by 0 here.
                sums = tl.where(larger, sums, new_sums) * (e * FROM_BIAS) + (tl.where(larger, new_sums, sums) + e)
            else:
                sums = sums * tl.where(larger, e * FROM_BIAS, 1.0) + e
            if SUMMED:
                if BENT:
                    d = whole_difference(d, left)
                lesser = tl.where(larger, total, new_total)
                cost += new_cost + tl.where(lesser == 0.0, 0.0, -lesser * d)
                total += new_total
            if BENT:
                low = tl.where(larger, new_low, low)
            high = tl.where(larger, new_high, high)
            m = tl.where(larger, new, m)

    top = tl.max(m, axis=1)
    top_high, top_low = bent(top, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
    d, left = two_sum(high, -top_high[:, None])
    if BENT:
        left += low - top_low[:, None]
    highest = m == top[:, None]
    e = tl.where(highest, 0.0, exp_biased(d, left, FAST))
    k = tl.sum(highest.to(tl.int32), axis=1)
    whole = wide_sum(sums * tl.where(highest, 1.0, e * FROM_BIAS) + e) + (k - 1).to(tl.float64) * TO_BIAS
    whole = tl.where(tl.abs(top) < float("inf"), whole, float("nan"))  # of a NaN in a lane the sum is NaN already
    r = log1p_wide(whole * FROM_BIAS)
    if SUMMED:
        if BENT:
            d = whole_difference(d, left)
        cost += tl.where(total == 0.0, 0.0, -total * d)
        value = wide_sum(cost) + wide_sum(total) * r
    else:
        at = label.to(tl.int64)
        x_y = tl.load(row_starts(x, x_strides, outer, row, UNIT) + at * x_class, mask=live, other=0.0)
        x_y = x_y.to(tl.float32)
        y_high, y_low = bent(x_y, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
        gap = top_high.to(tl.float64) - y_high.to(tl.float64)
        if BENT:
            gap += (top_low - y_low).to(tl.float64)
        value = gap + r
        if w is not None:
            w_y = tl.load(w + at, mask=live, other=0.0)
            value = tl.where(w_y == 0.0, 0.0, w_y * gap) + w_y * r
    if SQUARED:
        lse = top_high.to(tl.float64) + (top_low.to(tl.float64) + r)
        value += z_loss * lse * lse
    if s is not None:
        value *= sample
    value = tl.where(live, value, tl.where(counts, float("nan"), 0.0))
    place = outer * rows + row
    tl.store(loss + place, value.to(tl.float32), mask=exists)
    tl.store(stats + place, top, mask=exists)
    tl.store(stats + count + place, whole.to(tl.float32), mask=exists)


@triton.jit
def softmax_backward(
    u, stats, x, z, w, s, dx, dz, u_strides, x_strides, z_strides, s_strides, dx_strides, dz_strides,
    x_class, z_class, dx_class, dz_class,
    groups, rows, tiles, count, ignore, keep, share, z_loss, cap, inverse_cap, inverse_high, inverse_low,
    inverse,
    SPARSE: tl.constexpr, SMOOTH: tl.constexpr, IGNORE: tl.constexpr, CAPPED: tl.constexpr, TEMPERED: tl.constexpr,
    SQUARED: tl.constexpr, FAST: tl.constexpr,
    UNIT: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """u s dL/dx and u s dL/dz, rounded once, after the product; either may be None.

    Where the row's T is known beforehand each tile has a program (axis 1 of the grid) of its own. Otherwise one program
    goes through the row twice: the first time for T and, apart from it, the sum of the targets that do not stand at
    the maximum, which T − t would have lost.
    """
    u_outer, u_row = u_strides
    classes = groups * UNIT
    outer, row, exists = row_numbers(rows, tiles, ROWS)
    sample, label, counts, valid = row_standing(
        z, z_strides, s, s_strides, outer, row, exists, classes, ignore, SPARSE, IGNORE
    )
    upstream = tl.load(u + outer * u_outer + row * u_row, mask=exists, other=0.0)
    live = counts & valid & (upstream != 0.0)
    factor = (upstream * sample)[:, None, None]
    place = outer * rows + row
    # Triton 3.6 fails to compile these under the mask `live`; the forward pass wrote them for every row.
    top = tl.load(stats + place, mask=exists, other=0.0)
    whole = tl.load(stats + count + place, mask=exists, other=0.0).to(tl.float64) * FROM_BIAS
    x_rows = row_starts(x, x_strides, outer, row, UNIT)[:, None, None]
    z_rows = row_starts(z, z_strides, outer, row, UNIT)[:, None, None]
    STEP: tl.constexpr = LANES * VECTOR
    BENT: tl.constexpr = CAPPED or TEMPERED
    WEIGHTED: tl.constexpr = w is not None
    VISITED: tl.constexpr = not SPARSE or (SMOOTH and WEIGHTED)

    if VISITED:
        first = 0
        stop = classes
    else:
        first = tl.program_id(1) * STEP
        stop = first + STEP

    w_y = tl.full(row.shape, 1.0, tl.float32)
    if WEIGHTED and SPARSE:
        w_y = tl.load(w + label, mask=live, other=0.0)
    mass = w_y.to(tl.float64)  # T: of an index label without weights it is 1, smoothed or not
    others = tl.zeros_like(w_y)
    if VISITED:
        at_top = tl.zeros([ROWS, LANES], tl.float32)
        below = tl.zeros([ROWS, LANES], tl.float32)
        for start in range(0, classes, STEP):
            column = column_numbers(start, LANES, VECTOR)
            there = (column < classes) & live[:, None, None]
            value = tl.load(x_rows + column.to(tl.int64) * x_class, mask=there, other=0.0).to(tl.float32)
            t = targets(z_rows, z_class, w, label, column, there, keep, share, SPARSE)
            highest = value == top[:, None, None]
            at_top += tl.sum(tl.where(highest, t, 0.0), axis=2)
            below += tl.sum(tl.where(highest, 0.0, t), axis=2)
        mass = wide_sum(below)
        others = mass.to(tl.float32)
        mass += wide_sum(at_top)

    top_high, top_low = bent(top, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
    G = 1.0 / (1.0 + whole)
    r = log1p_wide(whole)
    beside = -mass * whole * G
    if SQUARED:
        squared = 2.0 * z_loss * (top_high.to(tl.float64) + (top_low.to(tl.float64) + r))
        mass += squared
        beside += squared * G
    slope_p = (mass * G * FROM_BIAS).to(tl.float32)[:, None, None]
    beside = beside.to(tl.float32)[:, None, None]
    most = (whole < 1.0)[:, None, None]
    r = r.to(tl.float32)[:, None, None]
    for start in range(first, stop, STEP):
        column = column_numbers(start, LANES, VECTOR)
        inside = (column < classes) & exists[:, None, None]
        there = inside & live[:, None, None]
        at = column.to(tl.int64)
        value = tl.load(x_rows + at * x_class, mask=there, other=0.0).to(tl.float32)
        high, low = bent(value, cap, inverse_cap, inverse_high, inverse_low, CAPPED, TEMPERED)
        d, left = two_sum(high, -top_high[:, None, None])
        if BENT:
            left += low - top_low[:, None, None]
        if dx is not None:
            if FAST:  # the rounding of d and of the product does not reach a result of half precision
                e = tl.exp2(d * LOG2E + 64.0)
            else:
                e = exp_biased(d, left, FAST)
            chosen = column == label[:, None, None]
            if VISITED:
                t = targets(z_rows, z_class, w, label, column, there, keep, share, SPARSE)
                rest = tl.zeros_like(t) + others[:, None, None]
            else:
                t = tl.where(chosen, keep * w_y[:, None, None], 0.0)
                rest = tl.where(chosen, 0.0, keep * w_y[:, None, None])
                if SMOOTH:
                    t += share
                    rest += share * (classes - 1)
            g = e * slope_p - t
            g = tl.where((value == top[:, None, None]) & most, rest + beside, g)
            if BENT:
                g *= slope_of(value, inverse_cap, inverse, CAPPED)
            g = tl.where(there, g * factor, 0.0)
            dx_rows = row_starts(dx, dx_strides, outer, row, UNIT)[:, None, None]
            tl.store(dx_rows + at * dx_class, g.to(dx.dtype.element_ty), mask=inside)
        if dz is not None:
            h = tl.where(d == -float("inf"), r - d, (r - tl.where(left == left, left, 0.0)) - d)
            if WEIGHTED:
                steep = keep * tl.load(w + column, mask=there, other=0.0)
            else:
                steep = tl.zeros_like(h) + keep
            h = tl.where((steep == 0.0) & (h == float("inf")), 0.0, steep * h)
            h = tl.where(there, h * factor, 0.0)
            dz_rows = row_starts(dz, dz_strides, outer, row, UNIT)[:, None, None]
            tl.store(dz_rows + at * dz_class, h.to(dz.dtype.element_ty), mask=inside)


# Of a transposed matrix the classes are N apart, and whether N is a multiple of 16, or where a part of a batch begins,
# would decide how threads share the lanes, and so in which order these are added up. There the compiler is not told.
COUNTS = ["rows", "tiles", "count"]
PLACES = ["x", "z", "s", "u", "loss", "stats", "dx", "dz", "x_class", "z_class", "dx_class", "dz_class"]
forward_transposed, backward_transposed = (
    triton.jit(kernel.fn, do_not_specialize=COUNTS, do_not_specialize_on_alignment=PLACES)
    for kernel in (softmax_forward, softmax_backward)
)
