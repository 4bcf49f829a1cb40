"""The softmax family on the GPU: one pass over the logits for the loss, one more for the gradients.

A row x of C logits with target weights t, in the letters of the formulas:

    m = max x      k = how many x_j equal m      s = Σ over x_j < m of exp(x_j − m)
    S = (k − 1) + s      r = log1p(S)      G = 1/(1 + S) = exp(−r)
    loss = Σ t_j (m − x_j) + T r + λ (m + r)²
    d/dx_j = (T + 2λ(m + r)) exp(x_j − m) G − t_j, and for the only maximum, where S < 1,
             −T S G + (T − t_j) + 2λ(m + r) G: nothing cancels
    d/dz_j = w_j (1 − ε) ((m − x_j) + r)

A program computes `rows` rows, in tiles of lanes × vector classes. Each lane finds m and S of its `vector` logits and
merges them with those of earlier tiles: the smaller of the two maxima enters S as exp(smaller − larger), and the S that
belongs to it is multiplied by that number. So a sum of smaller numbers never contains a maximum, and a logit needs one
exponential. The sum Σ t_j (m − x_j) is corrected likewise, by the target weights below the new maximum. The lanes are
reduced once, at the end. The order of all sums depends on C, the dtype and the layout, not on other rows.

Alternatives. (1) Two passes, the maximum and then the sums: the same numbers, but a row longer than the caches is read
twice from DRAM. (2) One maximum for all lanes, corrected tile by tile: a reduction and two barriers in each tile.
(3) The row kept in registers: this is the case of one tile. (4) vector = 1 always: 31 instructions in place of 24 for a
bfloat16 logit, where a GPU has time for about 20 while it reads one; used for float32, with 33 in place of 39, of about
39. (Counted in the code compiled for sm_90.) (5) Splitting a row among programs: would fill a GPU with few long rows,
but needs memory for the parts, and long calls have many rows.

Logits are of fp16, bf16 or fp32, labels of any type. x_j − m is a pair (`two_sum`), so the tail of a confident row is
right. The largest errors, in ulp of float32; those of dL/dx are in ulp of its larger term, and for half precision in
ulp of its dtype:

    |                        | fp32 logits | half-precision logits |
    | loss of an index label |           2 |                     4 |
    | loss of many targets   |           4 |                     6 |
    | dL/dx                  |           4 |                     1 |
    | dL/dz                  |           2 |                     2 |

A temperature rounds the transformed logits y to a relative 2^-34, a softcap c to 2 ulp of float32. These roundings add
their propagated error to the loss, and at most 2^-22 T p_j (|y_j| + Σ p_i |y_i|) |dy_j/dx_j| to dL/dx; the softcap's
slope adds 4 |x/c| ulp to dL/dx. Gradients below the normal numbers may lose digits. bf16 logits above 2.3e38 that
differ give NaN.

With class offsets x_j stands for x_j + o_j, kept as a pair, and differences of pairs are exact to 2^-45 of the larger
number. Only the softcap's slope is taken at the rounded sum, which adds 2 |x/c| ulp to dL/dx. A sum that overflows
float32 is infinite. m is the maximum of the pairs, and `stats` holds the class that has it, of which the backward pass
forms the pair again; so that pass must not write dL/dx over the logits.

NaN, +inf or only −inf in an unmasked row gives NaN; −inf is a masked class, and 0·inf is 0. An index label outside
[0, C) gives NaN and a gradient of 0, and reads nothing. Rows of weight 0 (and gradients of upstream 0) are 0 whatever
they hold: their logits are not read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arithmetic import (
    FINITE,
    FROM_BIAS,
    LOG2E,
    TO_BIAS,
    exp_biased,
    exp_half,
    log1p_wide,
    transform_slope,
    transformed,
    two_sum,
    wide_sum,
)


class Config(NamedTuple):
    """What a compiled kernel is specialized for."""

    sparse: bool
    smooth: bool
    ignoring: bool
    capped: bool
    tempered: bool
    z_loss: bool
    fast: bool  # half-precision logits
    unit: int  # rows begin at multiples of so many elements
    rows: int = 1  # of a tile
    lanes: int = 1
    vector: int = 1
    one_tile: bool = False  # the forward pass has the whole row in one tile
    sums_targets: bool = False  # the backward pass reads the row for T before it writes gradients

    @property
    def transforms(self) -> bool:
        """Whether logits are transformed."""
        return self.capped or self.tempered

    @property
    def dense(self) -> bool:
        """Whether every class may have a target weight."""
        return self.smooth or not self.sparse

    @property
    def step(self) -> int:
        """The classes of a tile."""
        return self.lanes * self.vector


def sums_targets(config: Config, class_weight: Any, **_: Any) -> bool:
    """Whether a row's T is known only from the targets of all classes."""
    return not config.sparse or (config.smooth and class_weight is not None)


class Numbers(NamedTuple):
    """Numbers that the losses and target weights depend on."""

    ignore: int
    keep: float  # 1 − ε
    share: float  # ε/C
    z_loss: float


@triton.jit
def row_indices(rows, tiles, ROWS: tl.constexpr):
    """Return a program's outer index and its rows as (ROWS,), in 64 bits, and which of them exist."""
    program = tl.program_id(0).to(tl.int64)
    outer = program // tiles
    row = (program - outer * tiles) * ROWS + tl.arange(0, ROWS)
    return outer, row, row < rows


@triton.jit
def row_pointers(array, strides, outer, row, UNIT: tl.constexpr):
    """Return where the rows of an array begin.

    Strides are in units of UNIT elements, so the compiler knows that a load of UNIT elements is aligned there.
    """
    outer_units, row_units = strides
    return array + (outer * outer_units + row * row_units) * UNIT


@triton.jit
def column_indices(start, CONFIG: tl.constexpr):
    """Return the classes of a tile as (1, lanes, vector)."""
    lane = tl.arange(0, CONFIG.lanes)[None, :, None]
    return start + lane * CONFIG.vector + tl.arange(0, CONFIG.vector)[None, None, :]


@triton.jit
def row_labels(labels, weights, outer, row, exists, classes, ignore, CONFIG: tl.constexpr):
    """Return of each row: its weight, its index label (−1 if it is no class), whether it is unmasked, and valid.

    Labels and weights are (array, strides). Index labels are compared in 64 bits.
    """
    z, z_strides = labels
    s, s_strides = weights
    unmasked = exists
    sample = tl.full(row.shape, 1.0, tl.float32)
    if s is not None:
        sample = tl.load(row_pointers(s, s_strides, outer, row, 1), mask=exists, other=0.0)
        unmasked = unmasked & (sample != 0.0)
    valid = exists
    label = tl.full(row.shape, -1, tl.int32)
    if CONFIG.sparse:
        y = tl.load(row_pointers(z, z_strides, outer, row, 1), mask=exists, other=0).to(tl.int64)
        if CONFIG.ignoring:
            unmasked = unmasked & (y != ignore)
        valid = (y >= 0) & (y < classes)
        label = tl.where(valid, y, -1).to(tl.int32)
    return sample, label, unmasked, valid


@triton.jit
def add_offset(x, class_offset, at, mask):
    """Return x + o as a pair; its second part is 0 where there are no offsets or the sum is infinite."""
    lost = tl.zeros_like(x)
    if class_offset is not None:
        x, lost = two_sum(x, tl.load(class_offset + at, mask=mask, other=0.0))
        lost = tl.where(tl.abs(x) == float("inf"), 0.0, lost)
    return x, lost


@triton.jit
def transformed_sum(x, lost, transform, CONFIG: tl.constexpr, OFFSET: tl.constexpr):
    """Return the transformed logit x + lost as a pair."""
    high, low = transformed(x, transform, CONFIG.capped, CONFIG.tempered)
    if OFFSET:
        low += lost * transform_slope(x, transform, CONFIG.capped)
    return high, low


@triton.jit
def difference(high, low, top_high, top_low, CONFIG: tl.constexpr, OFFSET: tl.constexpr):
    """Return the difference of two transformed logits, which are pairs, as a pair; −inf where the first is."""
    d, error = two_sum(high, -top_high)
    if CONFIG.transforms or OFFSET:
        error += low - top_low
    if OFFSET:  # sums that are equal when rounded leave the whole difference to `error`
        d, error = two_sum(d, tl.where(d == -float("inf"), 0.0, error))
    return d, error


@triton.jit
def target_weights(z_rows, z_class, class_weight, label, column, mask, numbers, CONFIG: tl.constexpr):
    """Return t_j = w_j ((1 − ε) z_j + ε/C) of a tile (rows, lanes, vector), 0 outside of `mask`."""
    if CONFIG.sparse:
        t = tl.where(column == label[:, None, None], numbers.keep, 0.0) + numbers.share
    else:
        z = tl.load(z_rows + column.to(tl.int64) * z_class, mask=mask, other=0).to(tl.float32)
        t = z * numbers.keep + numbers.share
    if class_weight is not None:
        t = t * tl.load(class_weight + column, mask=mask, other=0.0)
    return tl.where(mask, t, 0.0)


@triton.jit
def pair_value(d, error):
    """Return d + error of a pair whose error may be some ulp of d; −inf stays −inf."""
    return tl.where(d == -float("inf"), d, d + error)


@triton.jit
def tile_statistics(logits, targets, start, classes, active, numbers, transform, CONFIG: tl.constexpr):
    """Return of each lane: m with offset and transformed (pairs), its class, 2^64·S, Σ t_j (m − x_j), Σ t_j.

    All are (rows, lanes). `logits` is (pointers to rows, stride of classes, offsets), `targets` is (pointers, stride,
    class weights, index labels).
    """
    x_rows, x_class, class_offset = logits
    OFFSET: tl.constexpr = class_offset is not None
    z_rows, z_class, class_weight, label = targets
    column = column_indices(start, CONFIG)
    mask = (column < classes) & active[:, None, None]
    x = tl.load(x_rows + column.to(tl.int64) * x_class, mask=mask, other=-float("inf")).to(tl.float32)
    x, lost = add_offset(x, class_offset, column, mask)
    m = tl.max(x, axis=2)
    is_max = x == m[:, :, None]
    m_lost = tl.zeros_like(m)
    m_class = tl.zeros_like(m).to(tl.int32)
    if OFFSET:
        m_lost = tl.max(tl.where(is_max, lost, -float("inf")), axis=2)
        is_max = is_max & (lost == m_lost[:, :, None])
        m_class = tl.min(tl.where(is_max, column, classes), axis=2)
    m_high, m_low = transformed_sum(m, m_lost, transform, CONFIG, OFFSET)
    sums = tl.zeros_like(m)
    gaps = tl.zeros_like(m)
    total = tl.zeros_like(m)
    if CONFIG.dense:
        t = target_weights(z_rows, z_class, class_weight, label, column, mask, numbers, CONFIG)
        total = tl.sum(t, axis=2)
    if CONFIG.vector > 1:
        high, low = transformed_sum(x, lost, transform, CONFIG, OFFSET)
        # The difference of −inf and −inf must be −inf as well, not NaN.
        finite = tl.maximum(m_high, FINITE)
        d, error = difference(high, low, finite[:, :, None], m_low[:, :, None], CONFIG, OFFSET)
        if CONFIG.fast and not (CONFIG.transforms or OFFSET):
            e = exp_half(x, m[:, :, None])
        else:
            e = exp_biased(d, error, CONFIG.fast)
        k = tl.sum(is_max.to(tl.float32), axis=2)
        sums = tl.sum(tl.where(is_max, 0.0, e), axis=2) + (k - 1.0) * TO_BIAS
        if CONFIG.dense:
            if CONFIG.transforms:
                d = pair_value(d, error)
            gaps = tl.sum(tl.where(t == 0.0, 0.0, -t * d), axis=2)
    return m, m_lost, m_class, m_high, m_low, sums, gaps, total


@triton.jit
def softmax_forward(
    x, z, class_weight, sample_weight, class_offset, loss, stats, x_strides, z_strides, s_strides, x_class,
    z_class, groups, rows, tiles, count, numbers, transform, CONFIG: tl.constexpr,
):  # fmt: skip
    """Write the loss of each row, and the m (before any transformation) and 2^64·S of all `count` rows.

    With offsets the bits of an integer, the class of the maximum, stand for m. C = groups · unit.
    """
    OFFSET: tl.constexpr = class_offset is not None
    classes = groups * CONFIG.unit
    outer, row, exists = row_indices(rows, tiles, CONFIG.rows)
    sample, label, unmasked, valid = row_labels(
        (z, z_strides), (sample_weight, s_strides), outer, row, exists, classes, numbers.ignore, CONFIG
    )
    active = unmasked & valid
    x_start = row_pointers(x, x_strides, outer, row, CONFIG.unit)
    x_rows = x_start[:, None, None]
    z_rows = row_pointers(z, z_strides, outer, row, CONFIG.unit)[:, None, None]

    logits = (x_rows, x_class, class_offset)
    targets = (z_rows, z_class, class_weight, label)
    m, lost, m_class, high, low, sums, gaps, total = tile_statistics(
        logits, targets, 0, classes, active, numbers, transform, CONFIG
    )
    if not CONFIG.one_tile:
        for start in range(CONFIG.step, classes, CONFIG.step):
            new, new_lost, new_class, new_high, new_low, new_sums, new_gaps, new_total = tile_statistics(
                logits, targets, start, classes, active, numbers, transform, CONFIG
            )
            larger = new > m  # false for NaN, which makes the sum NaN as the smaller one
            if OFFSET:
                larger = larger | ((new == m) & (new_lost > lost))
                lost = tl.where(larger, new_lost, lost)
                m_class = tl.where(larger, new_class, m_class)
            lesser_high = tl.where(larger, high, new_high)
            lesser_low = tl.where(larger, low, new_low)
            high = tl.where(larger, new_high, high)
            low = tl.where(larger, new_low, low)
            d, error = difference(lesser_high, lesser_low, tl.maximum(high, FINITE), low, CONFIG, OFFSET)
            e = exp_biased(d, error, CONFIG.fast)
            if CONFIG.vector > 1:
                # The S of a lane with only −inf is wrong, but is multiplied by 0 here.
                sums = tl.where(larger, sums, new_sums) * (e * FROM_BIAS) + (tl.where(larger, new_sums, sums) + e)
            else:
                sums = sums * tl.where(larger, e * FROM_BIAS, 1.0) + e
            if CONFIG.dense:
                if CONFIG.transforms:
                    d = pair_value(d, error)
                lesser = tl.where(larger, total, new_total)
                gaps += new_gaps + tl.where(lesser == 0.0, 0.0, -lesser * d)
                total += new_total
            m = tl.where(larger, new, m)

    top = tl.max(m, axis=1)
    is_max = m == top[:, None]
    top_lost = tl.zeros_like(top)
    if OFFSET:
        top_lost = tl.max(tl.where(is_max, lost, -float("inf")), axis=1)
        is_max = is_max & (lost == top_lost[:, None])
    top_high, top_low = transformed_sum(top, top_lost, transform, CONFIG, OFFSET)
    d, error = difference(high, low, top_high[:, None], top_low[:, None], CONFIG, OFFSET)
    e = tl.where(is_max, 0.0, exp_biased(d, error, CONFIG.fast))
    k = tl.sum(is_max.to(tl.int32), axis=1)
    scaled_sum = wide_sum(sums * tl.where(is_max, 1.0, e * FROM_BIAS) + e) + (k - 1).to(tl.float64) * TO_BIAS
    scaled_sum = tl.where(tl.abs(top) < float("inf"), scaled_sum, float("nan"))  # a NaN in a lane made it NaN already
    r = log1p_wide(scaled_sum * FROM_BIAS)
    if CONFIG.dense:
        if CONFIG.transforms:
            d = pair_value(d, error)
        gaps += tl.where(total == 0.0, 0.0, -total * d)
        value = wide_sum(gaps) + wide_sum(total) * r
    else:
        at = label.to(tl.int64)
        x_y = tl.load(x_start + at * x_class, mask=active, other=0.0).to(tl.float32)
        x_y, lost_y = add_offset(x_y, class_offset, at, active)
        y_high, y_low = transformed_sum(x_y, lost_y, transform, CONFIG, OFFSET)
        gap = top_high.to(tl.float64) - y_high.to(tl.float64)
        if CONFIG.transforms or OFFSET:
            gap += (top_low - y_low).to(tl.float64)
        value = gap + r
        if class_weight is not None:
            w_y = tl.load(class_weight + at, mask=active, other=0.0)
            value = tl.where(w_y == 0.0, 0.0, w_y * gap) + w_y * r
    if CONFIG.z_loss:
        lse = top_high.to(tl.float64) + (top_low.to(tl.float64) + r)
        value += numbers.z_loss * lse * lse
    if sample_weight is not None:
        value *= sample
    value = tl.where(active, value, tl.where(unmasked, float("nan"), 0.0))
    place = outer * rows + row
    tl.store(loss + place, value.to(tl.float32), mask=exists)
    if OFFSET:  # no lane of a row of NaN has the maximum, and a lane beyond the row may have one of −inf
        top_class = tl.minimum(tl.min(tl.where(is_max, m_class, classes), axis=1), classes - 1)
        top = top_class.to(tl.float32, bitcast=True)
    tl.store(stats + place, top, mask=exists)
    tl.store(stats + count + place, scaled_sum.to(tl.float32), mask=exists)


@triton.jit
def softmax_backward(
    x, z, class_weight, sample_weight, class_offset, u, stats, dx, dz, x_strides, z_strides, s_strides, u_strides,
    dx_strides, dz_strides, x_class, z_class, dx_class, dz_class, groups, rows, tiles, count, numbers, transform,
    CONFIG: tl.constexpr,
):  # fmt: skip
    """Write u s dL/dx and u s dL/dz, rounded once, after the product; either may be None.

    Where the row's T is known beforehand each tile has a program (axis 1 of the grid) of its own. Otherwise one program
    reads the row twice: first for T and, separately, the sum of the targets below the maximum, which T − t would lose.
    """
    OFFSET: tl.constexpr = class_offset is not None
    classes = groups * CONFIG.unit
    outer, row, exists = row_indices(rows, tiles, CONFIG.rows)
    sample, label, unmasked, valid = row_labels(
        (z, z_strides), (sample_weight, s_strides), outer, row, exists, classes, numbers.ignore, CONFIG
    )
    upstream = tl.load(row_pointers(u, u_strides, outer, row, 1), mask=exists, other=0.0)
    active = unmasked & valid & (upstream != 0.0)
    factor = (upstream * sample)[:, None, None]
    place = outer * rows + row
    # Triton 3.6 fails to compile these under the mask `active`; the forward pass wrote them for every row.
    top = tl.load(stats + place, mask=exists, other=0.0)
    S = tl.load(stats + count + place, mask=exists, other=0.0).to(tl.float64) * FROM_BIAS
    x_start = row_pointers(x, x_strides, outer, row, CONFIG.unit)
    x_rows = x_start[:, None, None]
    z_rows = row_pointers(z, z_strides, outer, row, CONFIG.unit)[:, None, None]
    top_lost = tl.zeros_like(top)
    if OFFSET:
        top_class = top.to(tl.int32, bitcast=True).to(tl.int64)
        top = tl.load(x_start + top_class * x_class, mask=active, other=0.0).to(tl.float32)
        top, top_lost = add_offset(top, class_offset, top_class, active)

    if CONFIG.sums_targets:
        first = 0
        stop = classes
    else:
        first = tl.program_id(1) * CONFIG.step
        stop = first + CONFIG.step

    w_y = tl.full(row.shape, 1.0, tl.float32)
    if class_weight is not None and CONFIG.sparse:
        w_y = tl.load(class_weight + label, mask=active, other=0.0)
    T = w_y.to(tl.float64)  # of an index label without weights it is 1, smoothed or not
    below = tl.zeros_like(w_y)
    if CONFIG.sums_targets:
        ROWS: tl.constexpr = CONFIG.rows
        LANES: tl.constexpr = CONFIG.lanes
        lanes_top = tl.zeros([ROWS, LANES], tl.float32)
        lanes_below = tl.zeros([ROWS, LANES], tl.float32)
        for start in range(0, classes, CONFIG.step):
            column = column_indices(start, CONFIG)
            mask = (column < classes) & active[:, None, None]
            value = tl.load(x_rows + column.to(tl.int64) * x_class, mask=mask, other=0.0).to(tl.float32)
            value, lost = add_offset(value, class_offset, column, mask)
            t = target_weights(z_rows, z_class, class_weight, label, column, mask, numbers, CONFIG)
            is_max = value == top[:, None, None]
            if OFFSET:
                is_max = is_max & (lost == top_lost[:, None, None])
            lanes_top += tl.sum(tl.where(is_max, t, 0.0), axis=2)
            lanes_below += tl.sum(tl.where(is_max, 0.0, t), axis=2)
        T = wide_sum(lanes_below)
        below = T.to(tl.float32)
        T += wide_sum(lanes_top)

    top_high, top_low = transformed_sum(top, top_lost, transform, CONFIG, OFFSET)
    G = 1.0 / (1.0 + S)
    r = log1p_wide(S)
    max_term = -T * S * G  # with T − t_j, the gradient of the only maximum
    if CONFIG.z_loss:
        slope = 2.0 * numbers.z_loss * (top_high.to(tl.float64) + (top_low.to(tl.float64) + r))
        T += slope
        max_term += slope * G
    p_factor = (T * G * FROM_BIAS).to(tl.float32)[:, None, None]
    max_term = max_term.to(tl.float32)[:, None, None]
    one_max = (S < 1.0)[:, None, None]
    r = r.to(tl.float32)[:, None, None]
    for start in range(first, stop, CONFIG.step):
        column = column_indices(start, CONFIG)
        inside = (column < classes) & exists[:, None, None]
        mask = inside & active[:, None, None]
        at = column.to(tl.int64)
        value = tl.load(x_rows + at * x_class, mask=mask, other=0.0).to(tl.float32)
        value, lost = add_offset(value, class_offset, column, mask)
        high, low = transformed_sum(value, lost, transform, CONFIG, OFFSET)
        d, error = difference(high, low, top_high[:, None, None], top_low[:, None, None], CONFIG, OFFSET)
        is_max = value == top[:, None, None]
        if OFFSET:
            is_max = is_max & (lost == top_lost[:, None, None])
        if dx is not None:
            if CONFIG.fast:  # the rounding of d and of the product does not reach a result of half precision
                e = tl.exp2(d * LOG2E + 64.0)
            else:
                e = exp_biased(d, error, CONFIG.fast)
            if CONFIG.sums_targets:
                t = target_weights(z_rows, z_class, class_weight, label, column, mask, numbers, CONFIG)
                rest = tl.zeros_like(t) + below[:, None, None]
            else:
                chosen = column == label[:, None, None]
                t = tl.where(chosen, numbers.keep * w_y[:, None, None], 0.0)
                rest = tl.where(chosen, 0.0, numbers.keep * w_y[:, None, None])
                if CONFIG.smooth:
                    t += numbers.share
                    rest += numbers.share * (classes - 1)
            g = e * p_factor - t
            g = tl.where(is_max & one_max, rest + max_term, g)
            if CONFIG.transforms:
                g *= transform_slope(value, transform, CONFIG.capped)
            g = tl.where(mask, g * factor, 0.0)
            dx_rows = row_pointers(dx, dx_strides, outer, row, CONFIG.unit)[:, None, None]
            tl.store(dx_rows + at * dx_class, g.to(dx.dtype.element_ty), mask=inside)
        if dz is not None:
            h = tl.where(d == -float("inf"), r - d, (r - tl.where(error == error, error, 0.0)) - d)
            label_weight = tl.zeros_like(h) + numbers.keep
            if class_weight is not None:
                label_weight = numbers.keep * tl.load(class_weight + column, mask=mask, other=0.0)
            h = tl.where((label_weight == 0.0) & (h == float("inf")), 0.0, label_weight * h)
            h = tl.where(mask, h * factor, 0.0)
            dz_rows = row_pointers(dz, dz_strides, outer, row, CONFIG.unit)[:, None, None]
            tl.store(dz_rows + at * dz_class, h.to(dz.dtype.element_ty), mask=inside)


# In a transposed matrix the classes are N elements apart. Were the kernel specialized for the alignment of N or of a
# part of a batch, threads would share the lanes otherwise, and a row's sums would depend on its batch.
COUNTS = ["rows", "tiles", "count"]
PLACES = ["x", "z", "sample_weight", "u", "loss", "stats", "dx", "dz", "x_class", "z_class", "dx_class", "dz_class"]
forward_transposed, backward_transposed = (
    triton.jit(kernel.fn, do_not_specialize=COUNTS, do_not_specialize_on_alignment=PLACES)
    for kernel in (softmax_forward, softmax_backward)
)
