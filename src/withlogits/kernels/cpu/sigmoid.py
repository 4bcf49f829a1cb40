"""The sigmoid family and its functions, element by element.

    e = exp(−|x|)   u = log1p(e)   a = max(−x, 0)   b = max(x, 0)
    P = q z'   z' = (1 − ε) z + ε/2   Q = 1 − z' = (1 − ε)(1 − z) + ε/2
    loss = P softplus(−x) + Q softplus(x) = P a + Q b + (P + Q) u      (a or b is 0, so one large product at most)
    d/dx = Q σ(x) − P σ(−x)      σ(|x|) = 1/(1 + e)   σ(−|x|) = e/(1 + e)
    d/dz = (1 − ε)(q softplus(−x) − softplus(x)) = (1 − ε)(q a − b + (q − 1) u)

0·inf is 0: an infinite logit costs nothing where its weight is 0.

Where a label is 0 or 1 and nothing is smoothed, nothing cancels: with y = x for 0 and −x for 1, the loss is
softplus(y) and its gradient ±σ(y), each times its weight. Logits of at most float32 take float32 arithmetic there, in
half the time: e and u are kept as pairs of which the second part is what rounding the first lost, so that the loss is
within 1 ulp. Other labels take float64 arithmetic. An element's result depends on its own label alone, not on those
beside it; a step whose labels are all of one sort takes that arithmetic only.

A label that is ignored takes the place of a 0, so that it takes the arithmetic of those beside it, and its element's
results become 0 whatever came out.

A job is cut into blocks of BLOCK columns of one row; each block's sum is kept apart, so that sums do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

from . import functions, simd
from .control import Job, Kernel, Variable, loop, when
from .job import BLOCK, LANES, SIGMOID_JOB, SigmoidSpec
from .memory import AHEAD, FLOAT32_HOLDS, KINDS, Access, some_lanes
from .simd import F32, F64, I32, I64, Value, fma, select
from .target import Target

INF = float("inf")
AT_ONCE = 4  # vectors side by side, so that one long chain of instructions need not wait for itself
WRITTEN = ("o", "g", "h")  # the letters of the arrays that are results
# What they are before they are written, of at most float32 logits
ELEMENT = {"o": F32, "g": F32, "h": F64, "sum": F64, "sum_low": F32}
EXACT = ("float32", "float16", "bfloat16", "bool", "int8", "uint8", "int16", "uint16")  # kinds that float32 holds

Parts = Callable[[Value], tuple[Value, Value]]
CrossEntropy = Callable[..., tuple[Value, Value, Value]]


def formulas(spec: SigmoidSpec) -> tuple[Parts, Callable[[Value], Value], CrossEntropy]:
    """What writes the instructions of the formulas above: the parts of x, a division's stand-in, the cross-entropy."""
    precise = spec.x == "float64"
    graded = spec.gradient or spec.label_gradient != ""

    def parts(x: Value) -> tuple[Value, Value]:
        """e = exp(−|x|) and u = log1p(e)."""
        d = -simd.absolute(x)
        if not precise:
            # the loss needs no more than EXP_FLOAT32; a gradient does, since σ − z cancels
            coefficients: tuple[float, ...] = functions.EXP_FLOAT32
            if graded:
                coefficients = functions.EXP_HALF if KINDS[spec.x].size == 2 else functions.EXP_FULL
            scale, t = functions.exp_pair(d, None, coefficients, to_zero=False)
            e = fma(scale, t, scale)
            # with pos_weight the label gradient's terms cancel
            exact = spec.label_gradient and spec.q
            return e, functions.log1p(e) if exact else functions.log1p_float32(e)
        scale, t = functions.exp_pair(d, None, functions.EXP_FULL, 64)
        e = fma(scale, t, scale)
        low = fma(scale, t, scale - e)
        return e * 2.0**-64, functions.log1p(e * 2.0**-64, low * 2.0**-64)

    def inverse(d: Value) -> Value:
        return 1.0 / d if precise else functions.reciprocal(d)

    def product(weight: Value, x: Value) -> Value:
        return select(weight == 0.0, 0.0, weight * x)

    def cross_entropy(
        x: Value, e: Value, u: Value, z: Value, q: Value | None, smoothing: Value
    ) -> tuple[Value, Value, Value]:
        """Loss and gradients, from the parts of x."""
        half = smoothing * 0.5
        target = fma(z, 1.0 - smoothing, half)
        positive = target if q is None else product(target, q)
        negative = fma(1.0 - z, 1.0 - smoothing, half)  # not 1 − z', which would lose the digits of a small ε
        size = simd.absolute(x)
        side = select(x < 0.0, positive, negative)
        large = product(side, size)
        both = positive + negative
        if precise:  # what the roundings of 1 − z' and of the product lost
            lost = fma(side, size, -large)
            lost = lost + select(x < 0.0, 0.0, ((1.0 - (1.0 - z)) - z) * (1.0 - smoothing) * size)
            loss = large + fma(both, u, select(lost == lost, lost, 0.0))
        else:
            loss = fma(both, u, large)
        gradient = label_gradient = loss
        if graded:
            share = inverse(e + 1.0)
            small = e * share
            up, down = select(x < 0.0, small, share), select(x < 0.0, share, small)
            gradient = fma(negative, up, -positive * down)
            label_gradient = -x if q is None else select(x < 0.0, product(q, size), -size) + product(q - 1.0, u)
            label_gradient = label_gradient * (1.0 - smoothing)
        return loss, gradient, label_gradient

    return parts, inverse, cross_entropy


def build(spec: SigmoidSpec, target: Target) -> Kernel:
    """Return the kernel of a loss or activation of the sigmoid family."""
    elements = _Elements(spec, target)

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, SIGMOID_JOB.names)
        blocks = (job.columns + (BLOCK - 1)) / BLOCK
        with loop(start, stop) as i:
            row = i / blocks
            begin = (i - row * blocks) * BLOCK
            end = simd.smaller(begin + BLOCK, job.columns)
            elements.block(job, row, begin, end, job.sums + 8 * i)
        if spec.streaming:
            simd.fence()
        return simd.integer(0)

    return kernel


class _Elements:
    """The elements of a block: read, computed, written, and summed up."""

    def __init__(self, spec: SigmoidSpec, target: Target) -> None:
        self._spec = spec
        self._float32 = bool(spec.z) and spec.x != "float64"
        self._lanes = LANES if spec.strided else AT_ONCE * (target.float32_lanes if self._float32 else LANES)
        self._full, self._numbers = simd.vector(F64, self._lanes), simd.vector(I64, self._lanes)
        result = spec.x if spec.result != "loss" else "float64" if spec.x == "float64" else "float32"
        gradient = spec.x if spec.gradient else ""
        kinds = {"x": spec.x, "z": spec.z, "o": result if spec.kept else "", "g": gradient, "h": spec.label_gradient}
        kinds |= {"q": "float64" if spec.q == "many" else "", "s": spec.s}
        apart = {"q": True, "s": not spec.s_along}
        self._arrays = {
            letter: Access(KINDS[kind], self._lanes, apart.get(letter, spec.strided))
            for letter, kind in kinds.items()
            if kind
        }
        self._summed = spec.result in ("loss", "weights") and not spec.kept
        # sums of losses, and of what their roundings to float32 lost; or of weights
        self._sums = ["sum"] if self._summed else []
        if self._float32 and self._summed and spec.result == "loss":
            self._sums.append("sum_low")

    def block(self, job: Job, row: Value, begin: Value, end: Value, sum_at: Value) -> None:
        spec, lanes = self._spec, self._lanes
        starts = {name: row * getattr(job, f"{name}_row") + getattr(job, name) for name in self._arrays}
        counting = spec.result == "weights" and not spec.s  # to at most BLOCK
        kinds = {"sum": F32} if counting else ELEMENT
        total = {name: Variable(simd.constant(0.0, simd.vector(kinds[name], lanes))) for name in self._sums}
        whole = begin if spec.strided else begin + (end - begin) / lanes * lanes
        if spec.streaming:
            aligned = [(starts[name] & 63) == 0 for name in WRITTEN if name in starts]
            for other in aligned[1:]:
                aligned[0] = aligned[0] & other
            whole = select(aligned[0], whole, begin) if aligned else whole
        with loop(begin, whole, lanes) as j:
            self._step(job, starts, j, None, total, spec.streaming)
        with loop(whole, end, lanes) as j:
            self._step(job, starts, j, simd.smaller(end - j, simd.integer(lanes)), total, False)
        if self._summed:
            sums = [simd.across(simd.convert(each.value, F64), lambda p, q: p + q) for each in total.values()]
            simd.store(sum(sums[1:], sums[0]), sum_at)

    def _step(
        self,
        job: Job,
        starts: dict[str, Value],
        j: Value,
        n: Value | None,
        total: dict[str, Variable],
        past_caches: bool,
    ) -> None:
        """Do the elements from column j on, or the first n of them."""
        arrays = self._arrays
        at: dict[str, Value] = {}
        for name, access in arrays.items():
            column = getattr(job, f"{name}_column") if access.strided else access.kind.size
            at[name] = j * column + starts[name]
            if access.strided:  # lanes without an element repeat the last
                numbers = simd.lane_numbers(self._numbers)
                at[name] = (numbers if n is None else simd.smaller(numbers, n - 1)) * column + at[name]
            elif name not in WRITTEN or not past_caches:
                for i in range(0, self._lanes * access.kind.size, 64):
                    simd.prefetch(at[name] + (AHEAD + i), to_write=name in WRITTEN)
        read = {
            name: access.read(at[name], n, 0.0, F32 if self._float32 and access.kind.name in FLOAT32_HOLDS else F64)
            for name, access in arrays.items()
            if name not in WRITTEN
        }
        for name, value in self._results(job, read).items():
            if name in total:
                exists = None if n is None else some_lanes(n, self._lanes)
                total[name].value = total[name].value + (value if exists is None else select(exists, value, 0.0))
            elif past_caches:
                arrays[name].write_past_caches(value, at[name])
            else:
                arrays[name].write(value, at[name], n)

    def _results(self, job: Job, read: dict[str, Value]) -> dict[str, Value]:
        """Return what is to be written, by the arrays' letters, and what is to be summed up."""
        spec = self._spec
        if not spec.z:
            return {"o": activation(spec, read["x"])}
        if not spec.ignored:
            return self._of_labels(job, read)
        z = read["z"]
        missing = z != z if spec.ignored == "nan" else z == simd.convert(job.ignore, z.type.element)
        if spec.result == "weights":
            one = simd.constant(1.0, simd.vector(F32, self._lanes))
            found = {"sum": simd.convert(read["s"], F64) if "s" in read else one}
        else:
            found = self._of_labels(job, {**read, "z": select(missing, 0.0, z)})
        return {name: select(missing, 0.0, value) for name, value in found.items()}

    def _of_labels(self, job: Job, read: dict[str, Value]) -> dict[str, Value]:
        """Return the same for labels that count."""
        spec = self._spec
        wide = {name: simd.convert(value, F64) for name, value in read.items()}
        if spec.q == "one":
            wide["q"] = simd.splat(job.pos_weight, self._full)
        if not self._float32:
            return self._finished(job, wide, *self._in_float64(job, wide))
        z = read["z"]
        plain = job.smoothing == 0.0
        hard = (z == 0.0) | (z == 1.0)
        names = [name for name in WRITTEN if name in self._arrays] + self._sums
        found = {name: Variable(simd.constant(0.0, simd.vector(ELEMENT[name], self._lanes))) for name in names}
        with when(simd.any_lane(hard) & plain):
            for name, value in self._in_float32(job, read["x"], z == 1.0, wide).items():
                found[name].value = simd.convert(value, ELEMENT[name])
        cancels = bool(spec.label_gradient and spec.q)  # in the labels' gradient
        with when(simd.any_lane(~hard) | ~plain | cancels):
            exact = self._finished(job, wide, *self._in_float64(job, wide))
            for name in names:
                value = simd.convert(exact.get(name, simd.constant(0.0, self._full)), ELEMENT[name])
                found[name].value = value if cancels and name == "h" else select(hard & plain, found[name].value, value)
        return {name: variable.value for name, variable in found.items()}

    def _in_float64(self, job: Job, read: dict[str, Value]) -> tuple[Value, Value, Value]:
        """Return loss and gradients."""
        parts, _, cross_entropy = formulas(self._spec)
        e, u = parts(read["x"])
        return cross_entropy(read["x"], e, u, read["z"], read.get("q"), job.smoothing)

    def _finished(
        self, job: Job, read: dict[str, Value], loss: Value, gradient: Value, label_gradient: Value
    ) -> dict[str, Value]:
        """Weight by the samples; the gradients by the reduction, too."""
        spec = self._spec
        if "s" in read:
            sample = read["s"]
            loss, gradient, label_gradient = (
                select(sample == 0.0, 0.0, value * sample) for value in (loss, gradient, label_gradient)
            )
        results = {"o": loss} if spec.kept else {"sum": loss} if self._summed else {}
        if spec.gradient:
            results["g"] = gradient * job.grad_scale
        if spec.label_gradient:
            results["h"] = label_gradient * job.grad_scale
        return results

    def _in_float32(self, job: Job, x: Value, yes: Value, wide: dict[str, Value]) -> dict[str, Value]:
        """Return the same of labels that are 0 or 1: softplus(y) and σ(y) for y = x or −x, weights in float64."""
        spec = self._spec
        turned = select(yes, simd.constant(-(1 << 31), simd.vector(I32, self._lanes)), 0)
        y = simd.bits(simd.bits(x) ^ turned)
        entries = 32 if simd.target().table_entries == 32 else 1  # with 8 the loss would be within 1.01 ulp only
        e, e_low = functions.exp_float32(-simd.absolute(x), entries)
        high, low = functions.log1p_pair_float32(e, e_low)
        high, lost = functions.two_sum(simd.larger(y, simd.constant(0.0, y.type)), high)
        low = lost + low
        share = functions.inverse_float32(e, e_low)
        slope = select(y < 0.0, fma(e, share, e_low * share), share)
        slope = simd.bits(simd.bits(slope) ^ turned)
        if not ("q" in wide or "s" in wide):
            results = {"o": high + low} if spec.kept else {}
            if self._summed:
                results |= {"sum": high, "sum_low": low}
            if spec.gradient:
                results["g"] = slope * simd.convert(job.grad_scale, F32)
            if spec.label_gradient:
                results["h"] = wide["x"] * -job.grad_scale
            return results
        loss, gradient = simd.convert(high, F64) + simd.convert(low, F64), simd.convert(slope, F64)
        if "q" in wide:
            weight = select(yes, wide["q"], 1.0)
            loss, gradient = (select(weight == 0.0, 0.0, value * weight) for value in (loss, gradient))
        return self._finished(job, wide, loss, gradient, -wide["x"])


def activation(spec: SigmoidSpec, x: Value) -> Value:
    """Return sigmoid, softplus, log_sigmoid or logit of x."""
    if spec.result == "logit":
        return log_odds(x)
    parts, inverse, _ = formulas(spec)
    e, u = parts(x)
    if spec.result == "sigmoid":
        return select(x < 0.0, e, 1.0) * inverse(e + 1.0)
    if spec.result == "softplus":
        return simd.larger(simd.constant(0.0, x.type), x) + u
    return select(x < 0.0, x, 0.0) - u


def log_odds(p: Value) -> Value:
    """Return log(p/(1 − p)) through the ratio f and what rounding f lost."""
    tiny = p < 2.0**-1000
    p = select(tiny, p * 2.0**54, p)
    other = select(tiny, 1.0, 1.0 - p)
    f = p / other
    lost = fma(-f, other, p) - f * select(tiny, 0.0, (1.0 - other) - p)
    result = functions.log(f, lost / other) - select(tiny, simd.constant(54.0 * functions.LN2, p.type), 0.0)
    result = select(p == 0.0, -INF, select(p == 1.0, INF, result))
    return select((p >= 0.0) & (p <= 1.0), result, float("nan"))
