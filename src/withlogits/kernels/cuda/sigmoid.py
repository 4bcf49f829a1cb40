"""The sigmoid family on the GPU, element by element: one read of each array, one write of each result.

    e = exp(−|x|)   u = log1p(e)   a = max(−x, 0)   b = max(x, 0)
    P = q z'   z' = (1 − ε) z + ε/2   Q = (1 − ε)(1 − z) + ε/2
    loss = P softplus(−x) + Q softplus(x) = P a + Q b + (P + Q) u      (a or b is 0, so one large product at most)
    d/dx = Q σ(x) − P σ(−x)      σ(|x|) = 1/(1 + e)   σ(−|x|) = e/(1 + e)
    d/dz = (1 − ε)(q softplus(−x) − softplus(x)) = (1 − ε)(q a − b + (q − 1) u)

A program computes a tile (ROWS, COLUMNS) of the last two axes, so that broadcast and transposed arrays are read in
place. A flat index taken apart by divisions was rejected: the compiler no longer sees that elements are contiguous, and
loads them one by one.

Logits are of fp16, bf16 or fp32, labels of any type, arithmetic is float32. The loss is within 4 ulp; the gradients
are within 4 ulp of float32 of their larger term, before they are rounded to the dtype of the result. Nothing overflows,
and results below the normal numbers are rounded like others. An infinite logit costs nothing where its weight is 0;
NaN gives NaN. Elements of weight 0 or an ignored label (and gradients of upstream 0) are 0 whatever they hold.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import FROM_BIAS, exp_biased, log1p_biased

HALFWAY = tl.constexpr(2.0**-32)


@triton.jit
def element_indices(sizes, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the indices of a program's elements on four axes, the last two (ROWS, 1) and (1, COLUMNS), and a mask."""
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
def offset(indices, strides):
    i, j, row, column = indices
    i_step, j_step, row_step, column_step = strides
    return (i * i_step + j * j_step) + (row * row_step + column * column_step)


@triton.jit
def target_weights(z, pos_weight, smoothing):
    """Return P and Q of a tile. 1 − z is computed before float64 labels are rounded."""
    keep, half = smoothing
    rest = (1.0 - z.to(tl.float64)).to(tl.float32) if z.dtype == tl.float64 else 1.0 - z.to(tl.float32)
    positive = z.to(tl.float32) * keep + half
    if pos_weight is not None:
        positive *= pos_weight
    return positive, rest * keep + half


@triton.jit
def is_ignored(z, ignore):
    """Whether labels are the number `ignore`, or NaN if that is; a whole number that float32 rounds is another one."""
    label = z if z.dtype == tl.float64 else z.to(tl.float32)
    return (label == ignore) | ((label != label) & (ignore != ignore))


@triton.jit
def sigmoid_forward(
    x, z, pos_weight, sample_weight, loss, sizes, strides, smoothing, ignore, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Write s times the loss of each element. `strides` are those of the arrays, in order; smoothing = (1 − ε, ε/2).

    Elements with the label `ignore`, unless it is None, have loss and gradient 0.
    """
    at, mask = element_indices(sizes, ROWS, COLUMNS)
    value = tl.load(x + offset(at, strides[0]), mask=mask, other=0.0).to(tl.float32)
    label = tl.load(z + offset(at, strides[1]), mask=mask, other=0)
    q = pos_weight
    if pos_weight is not None:
        q = tl.load(pos_weight + offset(at, strides[2]), mask=mask, other=0.0)
    positive, negative = target_weights(label, q, smoothing)
    size = tl.abs(value)
    u = log1p_biased(exp_biased(-size, None, False))
    side = tl.where(value < 0.0, positive, negative)
    result = tl.where(side == 0.0, 0.0, side * size) + (positive + negative) * u * FROM_BIAS
    if sample_weight is not None:
        sample = tl.load(sample_weight + offset(at, strides[3]), mask=mask, other=0.0)
        result = tl.where(sample == 0.0, 0.0, result * sample)
    if ignore is not None:
        result = tl.where(is_ignored(label, ignore), 0.0, result)
    tl.store(loss + offset(at, strides[4]), result, mask=mask)


@triton.jit
def sigmoid_backward(
    x, z, pos_weight, sample_weight, u, dx, dz, sizes, strides, smoothing, ignore,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write u s dL/dx and u s dL/dz, rounded once, after the product; either may be None."""
    at, mask = element_indices(sizes, ROWS, COLUMNS)
    value = tl.load(x + offset(at, strides[0]), mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(u + offset(at, strides[4]), mask=mask, other=0.0)
    active = factor != 0.0
    if sample_weight is not None:
        sample = tl.load(sample_weight + offset(at, strides[3]), mask=mask, other=0.0)
        active = active & (sample != 0.0)
        factor *= sample
    if ignore is not None:
        active = active & ~is_ignored(tl.load(z + offset(at, strides[1]), mask=mask, other=0), ignore)
    q = pos_weight
    if pos_weight is not None:
        q = tl.load(pos_weight + offset(at, strides[2]), mask=mask, other=0.0)
    size = tl.abs(value)
    e = exp_biased(-size, None, False)
    if dx is not None:
        label = tl.load(z + offset(at, strides[1]), mask=mask, other=0)
        positive, negative = target_weights(label, q, smoothing)
        share = tl.div_rn(1.0, e * FROM_BIAS + 1.0)
        small = e * share * HALFWAY  # still times 2^32, until the upstream has made it large enough
        share = share * 2.0**32
        up = tl.where(value < 0.0, small, share)
        down = tl.where(value < 0.0, share, small)
        g = tl.where(active, (negative * up - positive * down) * factor * HALFWAY, 0.0)
        tl.store(dx + offset(at, strides[5]), g.to(dx.dtype.element_ty), mask=mask)
    if dz is not None:
        h = -value
        keep = tl.zeros_like(h) + smoothing[0]
        if pos_weight is not None:
            a = tl.where(q == 0.0, 0.0, q * size)
            h = tl.where(value < 0.0, a, -size) + (q - 1.0) * log1p_biased(e) * FROM_BIAS
        h = tl.where((keep == 0.0) & (tl.abs(h) == float("inf")), 0.0, h * keep)
        h = tl.where(active, h * factor, 0.0)
        tl.store(dz + offset(at, strides[6]), h.to(dz.dtype.element_ty), mask=mask)
