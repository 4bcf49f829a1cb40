"""The sigmoid family on the GPU, element by element: one read of each array, one write of each result.

    e = exp(−|x|)   u = log1p(e)   a = max(−x, 0)   b = max(x, 0)
    P = q z'   z' = (1 − ε) z + ε/2   Q = (1 − ε)(1 − z) + ε/2
    loss = P softplus(−x) + Q softplus(x) = P a + Q b + (P + Q) u      (a or b is 0, so one large product at most)
    d/dx = Q σ(x) − P σ(−x)      σ(|x|) = 1/(1 + e)   σ(−|x|) = e/(1 + e)
    d/dz = (1 − ε)(q softplus(−x) − softplus(x)) = (1 − ε)(q a − b + (q − 1) u)

A program has a tile (ROWS, COLUMNS) of the last two axes, so that an array that is broadcast, or transposed, is read
where it lies. A flat index taken apart by divisions was rejected: the compiler no longer sees that neighbours are
neighbours, and loads them one by one.

Logits are of fp16, bf16 or fp32, labels of any type, arithmetic is float32. The loss is within 4 ulp; the gradients
are within 4 ulp of float32 of their larger term, before they are rounded to the dtype of the result. Nothing overflows,
and results below the normal numbers are rounded like others. An infinite logit costs nothing where its weight is 0;
NaN gives NaN. Elements of weight 0 (and gradients of upstream 0) are 0 whatever they hold.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import FROM_BIAS, exp_biased, log1p_biased

HALFWAY = tl.constexpr(2.0**-32)


@triton.jit
def places(sizes, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The indices of a program's elements on four axes, the last two as (ROWS, 1) and (1, COLUMNS); which exist."""
    _, second, rows, columns = sizes
    across = tl.cdiv(columns, COLUMNS)
    down = tl.cdiv(rows, ROWS)
    program = tl.program_id(0).to(tl.int64)
    block = program // across
    column = (program - block * across) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    outer = block // down
    row = (block - outer * down) * ROWS + tl.arange(0, ROWS)[:, None]
    i = outer // second
    return (i, outer - i * second, row, column), (row < rows) & (column < columns)


@triton.jit
def offset(place, strides):
    i, j, row, column = place
    i_step, j_step, row_step, column_step = strides
    return (i * i_step + j * j_step) + (row * row_step + column * column_step)


@triton.jit
def weights(z, q, keep, half):
    """P and Q of a tile; keep = 1 − ε, half = ε/2. 1 − z is taken before float64 labels lose their digits."""
    rest = (1.0 - z.to(tl.float64)).to(tl.float32) if z.dtype == tl.float64 else 1.0 - z.to(tl.float32)
    positive = z.to(tl.float32) * keep + half
    if q is not None:
        positive *= q
    return positive, rest * keep + half


@triton.jit
def sigmoid_forward(
    x, z, q, s, loss, sizes, x_strides, z_strides, q_strides, s_strides, loss_strides, keep, half,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """s times the loss of each element."""
    place, exists = places(sizes, ROWS, COLUMNS)
    value = tl.load(x + offset(place, x_strides), mask=exists, other=0.0).to(tl.float32)
    label = tl.load(z + offset(place, z_strides), mask=exists, other=0)
    pos_weight = q
    if q is not None:
        pos_weight = tl.load(q + offset(place, q_strides), mask=exists, other=0.0)
    positive, negative = weights(label, pos_weight, keep, half)
    size = tl.abs(value)
    u = log1p_biased(exp_biased(-size, None, False))
    side = tl.where(value < 0.0, positive, negative)
    result = tl.where(side == 0.0, 0.0, side * size) + (positive + negative) * u * FROM_BIAS
    if s is not None:
        sample = tl.load(s + offset(place, s_strides), mask=exists, other=0.0)
        result = tl.where(sample == 0.0, 0.0, result * sample)
    tl.store(loss + offset(place, loss_strides), result, mask=exists)


@triton.jit
def sigmoid_backward(
    u, x, z, q, s, dx, dz, sizes, u_strides, x_strides, z_strides, q_strides, s_strides, dx_strides, dz_strides,
    keep, half, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """u s dL/dx and u s dL/dz, rounded once, after the product; either may be None."""
    place, exists = places(sizes, ROWS, COLUMNS)
    value = tl.load(x + offset(place, x_strides), mask=exists, other=0.0).to(tl.float32)
    factor = tl.load(u + offset(place, u_strides), mask=exists, other=0.0)
    live = factor != 0.0
    if s is not None:
        sample = tl.load(s + offset(place, s_strides), mask=exists, other=0.0)
        live = live & (sample != 0.0)
        factor *= sample
    pos_weight = q
    if q is not None:
        pos_weight = tl.load(q + offset(place, q_strides), mask=exists, other=0.0)
    size = tl.abs(value)
    e = exp_biased(-size, None, False)
    if dx is not None:
        label = tl.load(z + offset(place, z_strides), mask=exists, other=0)
        positive, negative = weights(label, pos_weight, keep, half)
        share = tl.div_rn(1.0, e * FROM_BIAS + 1.0)
        small = e * share * HALFWAY  # still times 2^32, until the upstream has made it large enough
        share = share * 2.0**32
        up = tl.where(value < 0.0, small, share)
        down = tl.where(value < 0.0, share, small)
        g = tl.where(live, (negative * up - positive * down) * factor * HALFWAY, 0.0)
        tl.store(dx + offset(place, dx_strides), g.to(dx.dtype.element_ty), mask=exists)
    if dz is not None:
        h = -value
        if q is not None:
            a = tl.where(pos_weight == 0.0, 0.0, pos_weight * size)
            h = tl.where(value < 0.0, a, -size) + (pos_weight - 1.0) * log1p_biased(e) * FROM_BIAS
        h = tl.where((keep == 0.0) & (tl.abs(h) == float("inf")), 0.0, h * keep)
        h = tl.where(live, h * factor, 0.0)
        tl.store(dz + offset(place, dz_strides), h.to(dz.dtype.element_ty), mask=exists)
