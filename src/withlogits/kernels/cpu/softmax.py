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
the cases where speed pays for the extra care have their own kernel, `softmax_float32.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import functions, simd
from .control import Kernel, Variable
from .job import LANES, SoftmaxSpec
from .memory import AHEAD, KINDS, Access, Lanes, some_lanes
from .passes import Losses, Sums, kernel_of
from .rows import INF, Cursor, Row, Rows, plus
from .simd import F32, F64, I32, Value, fma, select
from .target import Target

BIAS = 64  # exponentials are kept times 2^64, so that a subnormal result is rounded once, at the end
UNBIAS = 2.0**-BIAS
STEPS = 1 << 16  # that many steps of exponentials are kept for the gradient; of longer rows they are made again
NEAR = 1 << 16  # classes of rows of which the next one is asked for while one is computed
SUMS = ("s", "s_low", "k", "a", "a_low", "total", "total_low")


def build(spec: SoftmaxSpec, target: Target) -> Kernel:
    """Return the kernel of a loss or activation."""
    return kernel_of(spec, Passes(spec, target))


class Logit(NamedTuple):
    """A logit after all options, what its rounding lost, and its derivative by the logit as given; None: 0, and 1."""

    x: Value
    low: Value | None
    slope: Value | None


class Passes:
    """The passes over the rows of a group, in float64."""

    group_bytes = 1 << 13

    def __init__(self, spec: SoftmaxSpec, target: Target) -> None:
        self._spec = spec
        self._along = spec.layout == "along"
        self._precise = spec.x == "float64"
        self._offset = "class_offset" in spec.per_class
        self._mapped = spec.result in ("softmax", "log_softmax")
        self.count = self.lanes = self._part = LANES
        if self._along and not self._precise:  # several vectors: one alone is a chain of instructions that wait
            self._part, self.lanes = target.float64_lanes, 4 * target.float64_lanes
        self._full, self._parts = simd.vector(F64, self.lanes), simd.vector(F64, self._part)
        # float32 results need no more than EXP_FLOAT32 unless p − t or m + r cancels, half-precision ones than EXP_HALF
        cancels = (spec.gradient and spec.labels != "index") or spec.label_gradient != "" or spec.result == "logsumexp"
        self._coefficients: tuple[float, ...] = functions.EXP_FLOAT32
        if self._precise or cancels:
            self._coefficients = functions.EXP_HALF if KINDS[spec.x].size == 2 else functions.EXP_FULL
        # The sums leave the maxima out by a term of 0, and no other term is 0: the gradient need not read x again.
        self._marked = spec.gradient and not self._precise and not spec.transformed and not spec.label_gradient
        self._summed = spec.labels in ("dense", "smooth")
        self._kept = Access(KINDS["float64"], self.lanes, False)

    def begin(self, rows: Rows, together: Value) -> None:
        job = rows.job
        self._softcap, self._smoothing = job.softcap, job.smoothing
        self._temperature, self._inverse = job.temperature, job.inverse_temperature
        near = rows.classes <= NEAR
        self._ahead = [(a, select(near, together * a.row_step, 0)) for a in (rows.x, rows.z) if a]
        if not self._spec.gradient:
            return
        self._row_bytes = (rows.whole + 1) * (8 * self.lanes)
        wanted = self._row_bytes * (together if self._along else 1) + 64
        self._owned = simd.either(
            rows.whole < STEPS, lambda: simd.call(rows.job.allocate, wanted), lambda: simd.integer(0)
        )
        self._keeping = self._owned != 0
        # without memory the exponentials of every step go to one place, and are made again for the gradient
        self._memory = select(self._keeping, (self._owned + 63) & -64, simd.scratch(8 * self.lanes))
        self._kept_step = select(self._keeping, simd.integer(8 * self.lanes), 0)

    def end(self, rows: Rows) -> None:
        if self._spec.gradient:
            simd.call(rows.job.release, self._owned)
        if rows.writes and self._along:
            simd.either(rows.job.stream != 0, simd.fence, lambda: None)

    def _logit(self, x: Value, offset: Value | None = None) -> Logit:
        """Return softcap·tanh((x + o)/softcap)/τ; a softcap of 0 stands for none; infinities keep their meaning."""
        if not self._spec.transformed:
            return Logit(x, None, None)
        none, low = self._softcap == 0.0, simd.constant(0.0, x.type)
        if offset is not None:
            x, low = functions.two_sum(x, offset)
        cap = select(none, 1.0, self._softcap)
        inner = x / cap
        tanh, slope = functions.tanh(inner)
        keep, capped = (simd.absolute(x) == INF) | none, tanh * cap
        if self._precise:
            low = select(keep, low, (fma(-inner, cap, x) + low) * slope + fma(tanh, cap, -capped))
        x, slope = select(keep, x, capped), select(none, simd.constant(1.0, x.type), slope) * self._inverse
        if not self._precise:
            return Logit(x * self._inverse, None, slope)
        y = x / self._temperature
        low = (fma(-y, self._temperature, x) + low) / self._temperature
        return Logit(y, select(low == low, low, 0.0), slope)

    def _read(self, row: Row, j: Value, lanes: Lanes) -> Logit:
        """Return the logits of a step: all that passes know of options that change logits."""
        offset = row.of_classes("class_offset", j, lanes) if self._offset else None
        return self._logit(row.x.read(j, lanes, -INF), offset)

    def label_logits(self, rows: Rows, y: Value) -> tuple[Value, Value | None]:
        return self._logit(rows.label_logits(y), rows.of_labels("class_offset", y) if self._offset else None)[:2]

    def maximum(self, row: Row) -> None:
        """Take the maximum, before the transformations where these are monotone."""
        if self._offset:
            self._put_maximum(row, self._largest(row))
            return
        element = F64 if self._precise else F32
        m = Variable(simd.constant(-INF, simd.vector(element, self.lanes)))

        def step(j: Value, lanes: Lanes) -> None:
            m.value = simd.larger(row.x.read(j, lanes, -INF, element), m.value)  # NaN: the answer is m, and s will tell

        row.rows.steps(step)
        top = self._logit(simd.convert(simd.across(m.value, simd.larger) if self._along else m.value, F64))
        self._put_maximum(row, top)

    def _largest(self, row: Row) -> Logit:
        """Return the maximum of the logits after all options; of pairs, by their second parts where the first agree."""
        high, low = (Variable(simd.constant(number, self._full)) for number in (-INF, 0.0))

        def larger(a: Logit, b: Logit) -> Logit:
            if a.low is None or b.low is None:
                return Logit(simd.larger(a.x, b.x), None, None)
            over = (a.x > b.x) | ((a.x == b.x) & (a.low > b.low))  # NaN: the answer is b, and s will tell
            return Logit(select(over, a.x, b.x), select(over, a.low, b.low), None)

        def step(j: Value, lanes: Lanes) -> None:
            top = larger(self._read(row, j, lanes), Logit(high.value, low.value if self._precise else None, None))
            high.value = top.x
            if top.low is not None:
                low.value = top.low

        row.rows.steps(step)
        top = Logit(high.value, low.value if self._precise else None, None)
        if not self._along:
            return top

        def part(x: Logit, start: int, count: int) -> Logit:
            lanes = list(range(start, start + count))
            return Logit(
                simd.shuffle(x.x, x.x, lanes), None if x.low is None else simd.shuffle(x.low, x.low, lanes), None
            )

        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            top = larger(part(top, 0, lanes), part(top, lanes, lanes))
        return Logit(simd.lane(top.x, 0), None if top.low is None else simd.lane(top.low, 0), None)

    def _put_maximum(self, row: Row, top: Logit) -> None:
        row.put("m", top.x)
        if top.low is not None:
            row.put("m_low", top.low)

    def _maximum(self, row: Row) -> Logit:
        return Logit(row.number("m"), row.number("m_low") if self._precise and self._spec.transformed else None, None)

    def prepare(self, rows: Rows) -> None:
        pass

    def _difference(self, x: Logit, m: Logit) -> tuple[Value, Value | None]:
        """Return x − m as the rounded difference and what rounding lost (float64 logits; exact enough otherwise)."""
        if not self._precise:
            return x.x - m.x, None
        d, e = functions.two_sum(x.x, -m.x)
        return d, e if x.low is None or m.low is None else e + (x.low - m.low)

    def _is_maximum(self, x: Logit, m: Logit) -> Value:
        same = x.x == m.x
        return same if x.low is None or m.low is None else same & (x.low == m.low)

    def _exponential(self, d: Value, e: Value | None) -> tuple[Value, Value]:
        return functions.exp_pair(d, e, self._coefficients, BIAS, to_zero=self._precise)

    def _split(self, x: Value) -> list[Value]:
        """Cut into single vectors, as sums are kept: wider sums would take the registers that the terms need."""
        n = self._part
        return [simd.shuffle(x, x, list(range(i, i + n))) for i in range(0, x.type.count, n)]

    def _folded(self, total: Value, x: Value) -> Value:
        for part in self._split(x):
            total = total + part
        return total

    def _add(self, total: Value, lost: Value, x: Value, x_low: Value | None = None) -> tuple[Value, Value]:
        if not self._precise:
            return self._folded(total, x), lost
        total, error = functions.two_sum(total, x)
        return total, lost + error if x_low is None else lost + (error + x_low)

    def _labels(self, row: Row, j: Value, y: Value, lanes: Lanes) -> Value:
        """Return the labels of a step; an index label is one-hot."""
        if row.rows.z:
            return row.z.read(j, lanes)
        if self._spec.labels == "none":
            return simd.constant(0.0, self._full)
        if self._along:
            place = y - j * self.lanes
            place = simd.convert(select((place >= 0) & (place < self.lanes), place, -1), I32)
            here = simd.lane_numbers(simd.vector(I32, self.lanes)) == place
        else:
            here = y == j
        return select(here, simd.constant(1.0, self._full), 0.0)

    def _kept_at(self, row: Row) -> Cursor:
        at = self._memory if row.turn is None else row.turn * select(self._keeping, self._row_bytes, 0) + self._memory
        return Cursor(self._kept, at, self._kept_step)

    def sums(self, row: Row) -> None:
        """Take the sums s, k, a = Σ t_j (m − x_j) and T = Σ t_j."""
        m, y = self._maximum(row), row.number("y")
        totals = {name: Variable(simd.constant(0.0, self._parts)) for name in SUMS}
        kept = self._kept_at(row) if self._spec.gradient else None

        def step(j: Value, lanes: Lanes) -> None:
            s, s_low, k, a, a_low, total, total_low = (totals[name].value for name in SUMS)
            if self._along:  # the next rows, while these are computed
                for array, ahead in self._ahead:
                    array.cursor(row.turn).prefetch(j, ahead)
            x = self._read(row, j, lanes)
            d, e = self._difference(x, m)
            at_maximum = self._is_maximum(x, m)
            if self._spec.result == "logsumexp":  # an infinite maximum is no NaN
                d = select(at_maximum, 0.0, d)
            scale, t = self._exponential(d, e)
            scale = select(at_maximum, 0.0, scale)
            term = fma(scale, t, scale)
            if kept is not None:
                kept.write(term, j, None)
            s, s_low = self._add(s, s_low, term, fma(scale, t, scale - term) if self._precise else None)
            # x + −0 is x: the add becomes a masked one
            k = self._folded(k, select(at_maximum, simd.constant(1.0, self._full), -0.0))
            if self._summed:
                weight = row.targets(self._labels(row, j, y, lanes), row.class_weights(j, lanes))
                if lanes is not None:
                    weight = select(some_lanes(lanes, self.lanes), weight, 0.0)
                if self._precise:
                    cost = select(weight == 0.0, 0.0, -weight * d)
                    low = fma(-weight, d, -cost) - weight * e
                    a, a_low = self._add(a, a_low, cost, select(low == low, low, 0.0))
                    total, total_low = self._add(total, total_low, weight)
                else:  # T − t at the maximum is the sum of the others: T itself has lost the small ones
                    for t_part, d_part in zip(self._split(weight), self._split(d), strict=True):
                        a = select(t_part == 0.0, a, fma(-t_part, d_part, a))
                    total = self._folded(total, weight)
                    total_low = self._folded(total_low, select(at_maximum, -0.0, weight))
            for name, value in zip(SUMS, (s, s_low, k, a, a_low, total, total_low), strict=True):
                totals[name].value = value

        row.rows.steps(step)
        for name, value in self._combined({name: total.value for name, total in totals.items()}).items():
            row.put(name, value)

    def _combined(self, sums: dict[str, Value]) -> dict[str, Value]:
        """Return the sums of a row from those of its lanes."""
        if not self._along:
            return sums
        result = {"k": simd.across(sums["k"], plus)}
        for name in ("s", "a", "total"):
            high, low = sums[name], sums[f"{name}_low"]
            total, lost = simd.lane(high, 0), simd.lane(low, 0)
            for i in range(1, self._part):
                if self._precise:
                    total, lost = self._add(total, lost, simd.lane(high, i), simd.lane(low, i))
                else:
                    total, lost = total + simd.lane(high, i), lost + simd.lane(low, i)
            result |= {name: total, f"{name}_low": lost}
        return result

    def collected(self, rows: Rows) -> Sums:
        s, s_low, k, a, a_low, total, total_low = (rows.numbers.all(name) for name in SUMS)
        return Sums(s * UNBIAS, k, a, total, total_low, s_low * UNBIAS, a_low)

    def prepare_gradient(self, rows: Rows, losses: Losses, x_label: Value | None) -> None:
        factor, beside = losses.factors(rows.job.z_loss)
        numbers = {"factor": factor, "beside": beside, "mass": losses.total, "most": losses.most, "r": losses.r}
        numbers |= {"others": losses.others, "share": losses.share, "multiple": losses.multiple}
        for name, value in numbers.items():
            rows.numbers.put(name, value)
        self._past_caches = (rows.job.stream != 0) & ((rows.g.first & 63) == 0) if self._along and rows.g else None

    def gradient(self, row: Row) -> None:
        """Write the gradients, or the probabilities."""
        row.rows.steps(self._mapping(row) if self._mapped else self._differentiation(row))

    def _differentiation(self, row: Row) -> Callable[[Value, Lanes], None]:
        m, y, multiple = self._maximum(row), row.number("y"), row.number("multiple")
        factor, beside, mass, most = row.number("factor"), row.number("beside"), row.number("mass"), row.flag("most")
        others, r, live = row.number("others"), row.number("r"), row.flag("live")
        kept = self._kept_at(row) if self._spec.gradient else None

        def by_logits(j: Value, lanes: Lanes, at_maximum: Value | None) -> Value:
            def again() -> Value:
                x = self._read(row, j, lanes)
                scale, t = self._exponential(*self._difference(x, m))
                return select(self._is_maximum(x, m), 0.0, fma(scale, t, scale))

            assert kept is not None
            term = simd.either(self._keeping, lambda: kept.read(j, None), again)
            if at_maximum is None:
                at_maximum = term == 0.0
            labels = self._labels(row, j, y, lanes)
            goal = row.targets(labels, row.class_weights(j, lanes)) if self._summed else labels * mass
            g = fma(select(at_maximum, 1.0 / UNBIAS, term), factor * UNBIAS, -goal)
            rest = others if self._summed and not self._precise else (mass - goal) + others
            return select(at_maximum & most, rest + beside, g) * multiple

        def by_labels(d: Value, e: Value | None, w: Value | None) -> Value:
            h = (r - d if e is None else (r - e) - d) * (1.0 - self._smoothing) - row.rows.job.kappa
            if w is not None:
                h = select(w == 0.0, 0.0, h * w)
            return h * multiple

        def step(j: Value, lanes: Lanes) -> None:
            slope = d = e = at_maximum = None
            if not self._marked:
                x = self._read(row, j, lanes)
                slope = x.slope
                d, e = self._difference(x, m)
                at_maximum = self._is_maximum(x, m)
            if row.rows.g:
                g = by_logits(j, lanes, at_maximum)
                self._write(row.g, select(live, g if slope is None else g * slope, 0.0), j, lanes)
            if row.rows.h:
                assert d is not None
                h = by_labels(d, e, row.class_weights(j, lanes) if self._summed else None)
                row.h.write(select(live, h, 0.0), j, lanes)

        return step

    def _mapping(self, row: Row) -> Callable[[Value, Lanes], None]:
        m, r, share = self._maximum(row), row.number("r"), row.number("share")

        def step(j: Value, lanes: Lanes) -> None:
            d, e = self._difference(self._read(row, j, lanes), m)
            if self._spec.result == "log_softmax":
                result = d - r if e is None else d - (r - e)
            else:
                scale, t = self._exponential(d, e)
                result = fma(scale, t, scale) * (share * UNBIAS)
            self._write(row.g, result, j, lanes)

        return step

    def _write(self, cursor: Cursor, x: Value, j: Value, lanes: Lanes) -> None:
        """Write whole steps that no cache would hold past the caches, which spares reading their memory first."""
        if self._past_caches is None or lanes is not None or self.lanes * cursor.access.kind.size % 64:
            cursor.write(x, j, lanes)
            return

        def through() -> None:
            cursor.prefetch(j, AHEAD, to_write=True)
            cursor.write(x, j, lanes)

        simd.either(self._past_caches, lambda: cursor.write_past_caches(x, j), through)

    def clear(self, row: Row) -> None:
        zero = simd.constant(0.0, self._full)

        def step(j: Value, lanes: Lanes) -> None:
            for array in (row.rows.g, row.rows.h):
                if array:
                    array.cursor(row.turn).write(zero, j, lanes)

        row.rows.steps(step)
