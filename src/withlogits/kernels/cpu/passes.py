"""The row loop of the softmax family, which takes groups of rows through the passes of a kernel.

The kernels are `softmax_float32.py` and `softmax.py`; each has its own `Passes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from . import functions, simd
from .control import Job, Kernel, Variable
from .job import SOFTMAX_JOB, SoftmaxSpec
from .rows import Row, Rows, plus
from .simd import I64, Value, fma, select

NAN = float("nan")


class Passes(Protocol):
    """A kernel's arithmetic. Each pass keeps what the next ones need as numbers of its rows."""

    lanes: int  # elements of a step
    count: int  # rows of a group
    group_bytes: int  # of logits that go through all passes together

    def begin(self, rows: Rows, together: Value) -> None:
        """Before the first group."""

    def maximum(self, row: Row) -> None:
        """Keep the row's maximum, "m" (float64)."""

    def prepare(self, rows: Rows) -> None:
        """Between maximum and sums, for all rows of the group."""

    def sums(self, row: Row) -> None:
        """Keep the row's sums."""

    def collected(self, rows: Rows) -> Sums:
        """Return the sums of all rows, for the loss."""

    def label_logits(self, rows: Rows, y: Value) -> tuple[Value, Value | None]:
        """Return each row's logit of its label after all options, and what its rounding lost (None: nothing)."""

    def prepare_gradient(self, rows: Rows, losses: Losses, x_label: Value | None) -> None:
        """Between loss and gradient, for all rows of the group."""

    def gradient(self, row: Row) -> None:
        """Write the row's gradients, or its probabilities."""

    def clear(self, row: Row) -> None:
        """Write the gradients of a row that does not count: 0."""

    def end(self, rows: Rows) -> None:
        """After the last group."""


@dataclass
class Sums:
    """Of every row: s, k, a = Σ t_j (m − x_j), T = Σ t_j, and of float64 logits what their roundings lost.

    `others` is what T − t_j needs at the maximum: the sum of the other targets, or for float64 logits what T's rounding
    lost.
    """

    s: Value
    k: Value
    a: Value
    total: Value
    others: Value
    s_low: Value
    a_low: Value


@dataclass
class Losses:
    """Of every row: its loss and what the gradient needs, in the letters of `softmax.py`."""

    loss: Value
    r: Value
    total: Value  # T
    below: Value  # S·G
    share: Value  # G
    most: Value  # has the maximum more than half
    others: Value
    m: Value
    multiple: Value  # of the gradients, by sample weight and reduction

    def factors(self, z_loss: Value) -> tuple[Value, Value]:
        """Return what multiplies exp(x_j − m), and what stands at an only maximum beside T − t_j."""
        pull = z_loss * 2.0 * (self.m + self.r)  # in this order: 2 m may be infinite
        return (self.total + pull) * self.share, fma(pull, self.share, -self.total * self.below)


class Label(NamedTuple):
    """Of every row: the logit of its index label, what roundings of it and of the maximum lost, and its weight."""

    x: Value | None
    lost: Value | None
    weight: Value


def finish(spec: SoftmaxSpec, sums: Sums, m: Value, label: Label, z_loss: Value) -> Losses:
    """Return the losses of rows from their sums."""
    precise = spec.x == "float64"
    good = m - m == 0.0  # a row of only −inf, or with +inf, has no loss
    tail, share, r = _tail(sums, good, precise="float64" in (spec.x, spec.label_gradient))
    a, a_low, total, others = sums.a, sums.a_low, sums.total, sums.others
    if label.x is not None:
        total = label.weight
        if precise:
            d, e = functions.two_sum(label.x, -m)
            e = e if label.lost is None else e + label.lost
            a = select(total == 0.0, 0.0, -total * d)
            a_low = fma(-total, d, -a) - total * e
            a_low = select(a_low == a_low, a_low, 0.0)
        else:
            a = select(total == 0.0, 0.0, (m - label.x) * total)
    elif precise:
        rounded = total + others
        total, others = rounded, (total - rounded) + others
    size = m + r
    extra = select(z_loss == 0.0, 0.0, size * size * z_loss)
    loss = a + (a_low + fma(total, r, extra))
    if spec.result == "logsumexp":  # beside +inf, and among nothing but −inf, s is 0 unless there is NaN
        loss = select(good, size, m + sums.s)
    return Losses(loss, r, total, tail * share, share, tail < 1.0, others, m, multiple=total)


def _tail(sums: Sums, good: Value, precise: bool) -> tuple[Value, Value, Value]:
    """Return S = (k − 1) + s, G = 1/(1 + S) and r = log1p(S), to float64's last bit only if that is wanted."""
    if not precise:
        tail = select(good, (sums.k - 1.0) + sums.s, NAN)
        return tail, 1.0 / (tail + 1.0), functions.log1p_single(tail)
    tail, lost = functions.two_sum(sums.k - 1.0, sums.s)
    lost = select(lost + sums.s_low == lost + sums.s_low, lost + sums.s_low, 0.0)
    tail, lost = functions.two_sum(tail, lost)
    tail = select(good, tail, NAN)
    whole, missing = functions.two_sum(tail, simd.constant(1.0, tail.type))
    share = 1.0 / whole
    r = functions.log1p(tail, lost, share)
    # what the roundings of tail and of tail + 1 lost
    return tail, fma(-(missing + lost) * share, share, share), r


def kernel_of(spec: SoftmaxSpec, passes: Passes) -> Kernel:
    """Return the kernel that takes the rows of a job through these passes."""

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, SOFTMAX_JOB.names)
        rows = Rows(spec, job, passes.lanes, passes.count)
        wrong = Variable(simd.integer(0))
        together = rows.most_together(passes.group_bytes)
        passes.begin(rows, together)
        rows.groups(start, stop, together, lambda: _group(rows, passes, wrong))
        passes.end(rows)
        return wrong.value

    return kernel


def _group(rows: Rows, passes: Passes, wrong: Variable) -> None:
    """Take the group in hand through the passes; adds the number of its labels that are out of range to `wrong`."""
    spec, job, numbers = rows.spec, rows.job, rows.numbers
    sample, y = rows.sample_weights(), rows.indices()
    unmasked = (sample != 0.0) & ((y != job.ignore) | (job.has_ignore == 0))
    valid = (y >= 0) & (y < job.classes)
    label = select(valid, y, 0)
    wrong.value = wrong.value + simd.across(simd.convert(unmasked & ~valid & rows.first(), I64), plus)
    numbers.put("unmasked", unmasked)
    numbers.put("y", y)
    x_label, x_low = passes.label_logits(rows, label) if spec.labels == "index" else (None, None)

    rows.visit("unmasked", passes.maximum)
    passes.prepare(rows)
    rows.visit("unmasked", passes.sums)
    m, w_label = numbers.all("m"), rows.label_weights(label)
    lost = None if x_low is None else x_low - numbers.all("m_low")
    losses = finish(spec, passes.collected(rows), m, Label(x_label, lost, w_label), job.z_loss)
    rows.put_losses(select(unmasked, select(valid, losses.loss * sample, NAN), 0.0))

    if rows.writes or rows.h:
        losses.multiple = sample * job.grad_scale
        numbers.put("live", unmasked & valid)
        passes.prepare_gradient(rows, losses, x_label)
        rows.visit("live", passes.gradient, passes.clear)
