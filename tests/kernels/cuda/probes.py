"""One kernel that applies a function of `arithmetic` to an array; defined where it is interpreted like the others."""

from __future__ import annotations

import triton
import triton.language as tl

from withlogits.kernels.cuda import arithmetic
from withlogits.kernels.cuda.arithmetic import (
    FROM_BIAS,
    exp_biased,
    exp_half,
    log1p_biased,
    log1p_wide,
    transform_slope,
    transformed,
)

assert arithmetic


@triton.jit
def probe(x, y, out, left_over, count, transform, WHAT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = i < count
    value = tl.load(x + i, mask=there, other=0.0)
    other = tl.load(y + i, mask=there, other=0.0)
    rest = tl.zeros_like(value)
    if WHAT == "exp":
        result = exp_biased(value, None, False)
    elif WHAT == "exp corrected":
        result = exp_biased(value, other, False)
    elif WHAT == "exp fast":
        result = exp_biased(value, other, True)
    elif WHAT == "exp half":
        result = exp_half(value.to(tl.float32), other.to(tl.float32))
    elif WHAT == "log1p":
        result = log1p_biased(value)
    elif WHAT == "log1p wide":
        result = log1p_wide(value.to(tl.float64) * FROM_BIAS)
    elif WHAT == "capped":
        result, rest = transformed(value, transform, True, False)
    elif WHAT == "tempered":
        result, rest = transformed(value, transform, False, True)
    elif WHAT == "both":
        result, rest = transformed(value, transform, True, True)
    else:
        result = transform_slope(value, transform, True)
    tl.store(out + i, result.to(out.dtype.element_ty), mask=there)
    tl.store(left_over + i, rest.to(left_over.dtype.element_ty), mask=there)
