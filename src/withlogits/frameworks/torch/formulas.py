"""Every formula in torch operations: for devices without a kernel of ours, and for second derivatives everywhere.

The letters are those of `withlogits.reference`. Each family has three functions: the losses, their gradient (first
derivatives times an upstream u), and the product of their Hessian with a pair of directions (v for the logits, h for
the labels). The first two are called below autograd. The third is made of operations that torch differentiates, so all
higher derivatives follow; its softmax is torch's, since autograd would not see through the choice of a maximum.

Arithmetic is float64 where the device has it, else float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_FLOAT64 = frozenset(("mps", "xpu"))  # kinds of devices of which some lack it


class Softmax(NamedTuple):
    """The plain options of a softmax loss."""

    axis: int
    sparse: bool
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    temperature: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0


def wide(x: Tensor) -> Tensor:
    """In the type of the arithmetic; a whole number that float64 cannot hold is no label."""
    return x.to(wide_dtype(x))


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the type of the arithmetic on the device of x."""
    return torch.float32 if x.device.type in NO_FLOAT64 else torch.float64


def summed(x: Tensor) -> Tensor:
    """The sum of all, in the type of the arithmetic."""
    return x.sum(dtype=wide_dtype(x))


def loss_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def label_gradient_dtype(labels: Tensor, logits: Tensor) -> torch.dtype:
    return labels.dtype if labels.dtype.is_floating_point else loss_dtype(logits)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Half precision is the float32 result, rounded once more."""
    return x.to(dtype) if dtype == torch.float64 else x.to(torch.float32).to(dtype)


def as_signed(labels: Tensor) -> Tensor:
    """Index labels as int64; uint64 keeps its 64 bits."""
    if labels.dtype == torch.uint64:
        return labels.view(torch.int64)
    return labels.to(torch.int64)


def times(weight: Tensor | float, x: Tensor) -> Tensor:
    """The product in which 0 · inf is 0: what has no weight costs nothing."""
    weight = torch.as_tensor(weight, dtype=x.dtype, device=x.device)
    return weight * torch.where((weight == 0.0) & torch.isinf(x), 0.0, x)


# ----------------------------------------------------------------------------------------------------------- softmax


class _Rows(NamedTuple):
    """A loss's arrays with the classes last: those of rows that do not count are 0."""

    x: Tensor  # (..., C) logits as they were given
    y: Tensor  # (..., C) after softcap and temperature
    slope: Tensor  # dy/dx
    t: Tensor  # (..., C) target weights
    total: Tensor  # (..., 1) their sum
    steep: Tensor | float  # (C,) dt/dz
    factor: Tensor  # (..., 1) what each loss is multiplied by; 0 if it does not count
    wrong: Tensor | None  # (..., 1) label out of range


def _rows(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, options: Softmax
) -> _Rows:
    x = wide(logits).movedim(options.axis, -1)
    classes = x.shape[-1]
    factor = x.new_ones(x.shape[:-1]) if sample_weight is None else wide(sample_weight)
    wrong = None
    if options.sparse:
        index = as_signed(labels)
        if options.ignore_index is not None:
            factor = torch.where(index == options.ignore_index, 0.0, factor)
        wrong = ((index < 0) | (index >= classes)).unsqueeze(-1) & (factor != 0.0).unsqueeze(-1)
        z = (index.unsqueeze(-1) == torch.arange(classes, device=x.device)).to(x.dtype)
    else:
        z = wide(labels).movedim(options.axis, -1)
    factor = factor.unsqueeze(-1)
    counts = factor != 0.0
    x, z = torch.where(counts, x, 0.0), torch.where(counts, z, 0.0)
    w: Tensor | float = 1.0 if class_weight is None else wide(class_weight)
    t = w * ((1.0 - options.label_smoothing) * z + options.label_smoothing / classes)
    y, slope = x, torch.full((), 1.0 / options.temperature, dtype=x.dtype, device=x.device)
    if options.softcap is not None:
        y = torch.where(torch.isfinite(x), options.softcap * torch.tanh(x / options.softcap), x)
        slope = slope * _square_of_sech(x / options.softcap)
    y = y / options.temperature
    return _Rows(x, y, slope, t, t.sum(-1, keepdim=True), w * (1.0 - options.label_smoothing), factor, wrong)


class _Pair(NamedTuple):
    """What the formulas need of a row of logits; all but `gap` and `e` are (..., 1)."""

    gap: Tensor  # m − y_j
    left: Tensor  # what its rounding left
    e: Tensor  # exp(y_j − m)
    m: Tensor
    whole: Tensor  # k + s
    r: Tensor


def _pair(y: Tensor) -> _Pair:
    """The pair (m, r); NaN where a row holds NaN or +inf, or only −inf."""
    m = y.amax(-1, keepdim=True)
    m = torch.where(torch.isfinite(m), m, torch.nan)
    gap = m - y
    back = gap - m
    left = (m - (gap - back)) - (y + back)
    left = torch.where(torch.isfinite(left), left, 0.0)
    highest = y == m
    e = torch.exp(-gap) * (1.0 - left)
    k = highest.sum(-1, keepdim=True).to(y.dtype)
    s = torch.where(highest, 0.0, e).sum(-1, keepdim=True)
    return _Pair(gap, left, e, m, k + s, torch.log1p((k - 1.0) + s))


def softmax_rows(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, options: Softmax
) -> Tensor:
    """The loss of each row, times its sample weight."""
    rows = _rows(logits, labels, class_weight, sample_weight, options)
    t, factor, row = rows.t, rows.factor, _pair(rows.y)
    loss = (times(t, row.gap) + times(t, row.left)).sum(-1, keepdim=True) + times(rows.total, row.r)
    if options.z_loss:
        loss = loss + options.z_loss * (row.m + row.r) ** 2
    loss = torch.where(factor != 0.0, times(factor, loss), 0.0)
    if rows.wrong is not None:
        loss = torch.where(rows.wrong, torch.nan, loss)
    return rounded(loss.squeeze(-1), loss_dtype(logits))


def softmax_rows_backward(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    options: Softmax,
    for_logits: bool,
    for_labels: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of Σ u loss for the logits and for dense labels."""
    _, y, slope, t, total, steep, factor, wrong = _rows(logits, labels, class_weight, sample_weight, options)
    row = _pair(y)
    share = wide(upstream).unsqueeze(-1) * factor
    live = share != 0.0
    if wrong is not None:
        live = live & ~wrong
    dx = dz = None
    if for_logits:
        p = row.e / row.whole
        g = _less(p, row.r, t, total)
        if options.z_loss:
            g = g + 2.0 * options.z_loss * (row.m + row.r) * p
        dx = rounded(torch.where(live, g * slope * share, 0.0).movedim(-1, options.axis), logits.dtype)
    if for_labels:
        h = times(steep, row.gap + (row.r + row.left))
        dz = torch.where(live, times(share, h), 0.0).movedim(-1, options.axis)
        dz = rounded(dz, label_gradient_dtype(labels, logits))
    return dx, dz


def _less(p: Tensor, r: Tensor, t: Tensor, total: Tensor) -> Tensor:
    """T p − t; from 1 − p = −expm1(−r) where that is the smaller, at an only maximum."""
    return torch.where(p > 0.5, total * torch.expm1(-r) + (total - t), total * p - t)


def softmax_hessian(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    options: Softmax,
    v: Tensor | None,
    h: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The Hessian of Σ u loss, in logits and labels, times the directions v and h: a part for each.

    p ⊙ (c − Σ p c) takes c less its value at the maximum, which changes nothing but the rounding: a confident row's
    second derivatives keep their digits.
    """
    x, y, slope, t, total, steep, factor, wrong = _rows(logits, labels, class_weight, sample_weight, options)
    share = wide(upstream).unsqueeze(-1) * factor
    if wrong is not None:
        share = torch.where(wrong, 0.0, share)
    live = share != 0.0
    p, top = torch.softmax(y, -1), y.argmax(-1, keepdim=True)
    lse = torch.logsumexp(y, -1, keepdim=True)
    for_x, for_z = torch.zeros_like(x), torch.zeros_like(x)
    if v is not None:
        v = wide(v).movedim(options.axis, -1)
        c = v * slope
        highest = c.gather(-1, top)
        mean = (p * (c - highest)).sum(-1, keepdim=True)
        centred = (c - highest) - mean
        for_y = (total + 2.0 * options.z_loss * lse) * p * centred
        if options.z_loss:
            for_y = for_y + 2.0 * options.z_loss * (mean + highest) * p
        for_x = for_y * slope
        if options.softcap is not None:
            bend = -2.0 / options.softcap * torch.tanh(x / options.softcap) * slope
            for_x = for_x + v * bend * (2.0 * options.z_loss * lse * p - less_share(p, t, top, -1))
        for_z = -steep * centred
    if h is not None:
        for_x = for_x - less_share(p, wide(h).movedim(options.axis, -1) * steep, top, -1) * slope
    for_x = torch.where(live, for_x * share, 0.0).movedim(-1, options.axis)
    for_z = torch.where(live, for_z * share, 0.0).movedim(-1, options.axis)
    return rounded(for_x, logits.dtype), rounded(for_z, label_gradient_dtype(labels, logits))


def less_share(p: Tensor, w: Tensor, top: Tensor, axis: int) -> Tensor:
    """w − p Σ w for probabilities p of which the largest is at `top`: there 1 − p is the sum of the others, and keeps
    its digits.
    """
    at_top = torch.zeros_like(p, dtype=torch.bool).scatter(axis, top, True)
    rest = torch.where(at_top, 0.0, p).sum(axis, keepdim=True)
    others = torch.where(at_top, 0.0, w).sum(axis, keepdim=True)
    return torch.where(at_top, w * rest - p * others, w - p * w.sum(axis, keepdim=True))


# ----------------------------------------------------------------------------------------------------------- sigmoid


class _Elements(NamedTuple):
    """A sigmoid loss's arrays; those of elements that do not count are 0."""

    x: Tensor
    q: Tensor | float
    positive: Tensor  # q times the smoothed label
    negative: Tensor  # its complement
    factor: Tensor
    keep: float  # 1 − ε


def _elements(
    logits: Tensor, labels: Tensor, pos_weight: Tensor | None, sample_weight: Tensor | None, label_smoothing: float
) -> _Elements:
    x, z, keep = wide(logits), wide(labels), 1.0 - label_smoothing
    factor = torch.ones_like(x) if sample_weight is None else wide(sample_weight)
    counts = factor != 0.0
    x, z = torch.where(counts, x, 0.0), torch.where(counts, z, 0.0)
    q: Tensor | float = 1.0 if pos_weight is None else wide(pos_weight)
    positive = q * (keep * z + label_smoothing / 2.0)
    return _Elements(x, q, positive, keep * (1.0 - z) + label_smoothing / 2.0, factor, keep)


def sigmoid_elements(
    logits: Tensor, labels: Tensor, pos_weight: Tensor | None, sample_weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """The loss of each element, times its sample weight."""
    x, _, positive, negative, factor, _ = _elements(logits, labels, pos_weight, sample_weight, label_smoothing)
    loss = times(positive, softplus_of(-x)) + times(negative, softplus_of(x))
    return rounded(torch.where(factor != 0.0, times(factor, loss), 0.0), loss_dtype(logits))


def sigmoid_elements_backward(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    for_logits: bool,
    for_labels: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of Σ u loss for the logits and for the labels."""
    x, q, positive, negative, factor, keep = _elements(logits, labels, pos_weight, sample_weight, label_smoothing)
    share = wide(upstream) * factor
    dx = dz = None
    if for_logits:
        dx = rounded(
            torch.where(share != 0.0, (negative * sigmoid_of(x) - positive * sigmoid_of(-x)) * share, 0.0), logits.dtype
        )
    if for_labels:
        # q softplus(−x) − softplus(x), with the part that both share taken out: q = 1 leaves exactly −x
        h = times(q, torch.clamp_min(-x, 0.0)) - torch.clamp_min(x, 0.0) + (q - 1.0) * torch.log1p(torch.exp(-x.abs()))
        dz = torch.where(share != 0.0, times(keep, h) * share, 0.0)
        dz = rounded(dz, label_gradient_dtype(labels, logits))
    return dx, dz


def sigmoid_hessian(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    v: Tensor | None,
    h: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The Hessian of Σ u loss, in logits and labels, times the directions v and h: a part for each."""
    x, q, positive, negative, factor, keep = _elements(logits, labels, pos_weight, sample_weight, label_smoothing)
    share = wide(upstream) * factor
    yes, no = torch.sigmoid(x), torch.sigmoid(-x)
    mixed = -keep * (yes + q * no)
    for_x, for_z = torch.zeros_like(x), torch.zeros_like(x)
    if v is not None:
        for_x, for_z = (positive + negative) * yes * no * wide(v), mixed * wide(v)
    if h is not None:
        for_x = for_x + mixed * wide(h)
    for_x, for_z = torch.where(share != 0.0, for_x * share, 0.0), torch.where(share != 0.0, for_z * share, 0.0)
    return rounded(for_x, logits.dtype), rounded(for_z, label_gradient_dtype(labels, logits))


# ------------------------------------------------------------------------------------------------------- activations


def softmax_map(x: Tensor, axis: int, kind: str) -> Tensor:
    """softmax, log_softmax or logsumexp (which drops the axis), in the dtype of x."""
    row = _pair(wide(x).movedim(axis, -1))
    if kind == "logsumexp":
        return rounded((row.m + row.r).squeeze(-1), x.dtype)
    result = row.e / row.whole if kind == "softmax" else -(row.gap + (row.r + row.left))
    return rounded(result.movedim(-1, axis), x.dtype)


def elementwise(x: Tensor, kind: str) -> Tensor:
    """sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    formula = {"sigmoid": sigmoid_of, "log_sigmoid": log_sigmoid_of, "softplus": softplus_of, "logit": logit_of}[kind]
    return rounded(formula(wide(x)), x.dtype)


def softplus_of(x: Tensor) -> Tensor:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(−|x|))."""
    return torch.clamp_min(x, 0.0) + torch.log1p(torch.exp(-x.abs()))


def log_sigmoid_of(x: Tensor) -> Tensor:
    """−softplus(−x)."""
    return -softplus_of(-x)


def sigmoid_of(x: Tensor) -> Tensor:
    """1/(1 + e) for x ≥ 0 and e/(1 + e) below, e = exp(−|x|)."""
    e = torch.exp(-x.abs())
    return torch.where(x < 0.0, e, 1.0) / (1.0 + e)


def logit_of(p: Tensor) -> Tensor:
    """log(p / (1 − p)); between 1/4 and 3/4 by log1p, where 2p − 1 is exact and the result may be tiny."""
    lower = torch.where(p < 0.25, torch.log(p / (1.0 - p)), -torch.log1p((1.0 - 2.0 * p) / p))
    upper = torch.where(p > 0.75, -torch.log((1.0 - p) / p), torch.log1p((2.0 * p - 1.0) / (1.0 - p)))
    return torch.where(p < 0.5, lower, upper)


def _square_of_sech(x: Tensor) -> Tensor:
    """1/cosh²(x) = 1 − tanh²(x), without the cancellation."""
    e = torch.exp(-2.0 * x.abs())
    return 4.0 * e / (1.0 + e) ** 2
