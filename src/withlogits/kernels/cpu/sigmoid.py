"""The sigmoid family and its functions, element by element in float64 arithmetic.

    e = exp(−|x|)   u = log1p(e)   a = max(−x, 0)   b = max(x, 0)
    P = q z'   z' = (1 − ε) z + ε/2   Q = 1 − z' = (1 − ε)(1 − z) + ε/2
    loss = P softplus(−x) + Q softplus(x) = P a + Q b + (P + Q) u      (a or b is 0, so one large product at most)
    d/dx = Q σ(x) − P σ(−x)      σ(|x|) = 1/(1 + e)   σ(−|x|) = e/(1 + e)
    d/dz = (1 − ε)(q softplus(−x) − softplus(x)) = (1 − ε)(q a − b + (q − 1) u)

0·inf is 0: an infinite logit costs nothing where its weight is 0.

A job is cut into blocks of BLOCK columns of one row; each block's sum is kept apart, so that sums do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

from . import functions, simd
from .job import BLOCK, LANES, SIGMOID_JOB, SigmoidSpec
from .memory import AHEAD, KINDS, Access
from .simd import F64, I64, Value, fma, select, traced

INF = float("inf")
WIDE = 4 * LANES  # side by side, so that one long chain of instructions need not wait for itself


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
            # the loss needs no more than EXP_SINGLE; a gradient does, since σ − z cancels
            coefficients: tuple[float, ...] = functions.EXP_SINGLE
            if graded:
                coefficients = functions.EXP_HALF if KINDS[spec.x].size == 2 else functions.EXP_FULL
            scale, t = functions.exp_pair(d, None, coefficients, to_zero=False)
            e = fma(scale, t, scale)
            # with pos_weight the label gradient's terms cancel
            exact = spec.label_gradient and spec.q
            return e, functions.log1p(e) if exact else functions.log1p_single(e)
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


def build(spec: SigmoidSpec) -> Callable[[int, int, int], int]:
    precise = spec.x == "float64"
    summed = spec.result == "loss" and not spec.kept
    lanes = LANES if spec.strided else WIDE
    full, numbers, flags = (simd.vector(kind, lanes) for kind in (F64, I64, simd.I1))
    result_kind = spec.x if spec.result != "loss" else "float64" if precise else "float32"

    def access(kind: str, strided: bool = spec.strided) -> Access | None:
        return Access(KINDS[kind], lanes, strided) if kind else None

    x_at, z_at, o_at = Access(KINDS[spec.x], lanes, spec.strided), access(spec.z), access(result_kind)
    h_at, q_at, s_at = access(spec.label_gradient), access("float64", True), access(spec.s, not spec.s_along)

    parts, inverse, cross_entropy = formulas(spec)

    def log_odds(p: Value) -> Value:
        """log(p/(1 − p)) through the ratio f and what rounding f lost."""
        tiny = p < 2.0**-1000
        p = select(tiny, p * 2.0**54, p)
        other = select(tiny, 1.0, 1.0 - p)
        f = p / other
        lost = fma(-f, other, p) - f * select(tiny, 0.0, (1.0 - other) - p)
        result = functions.log(f, lost / other) - select(tiny, simd.constant(54.0 * functions.LN2, p.type), 0.0)
        result = select(p == 0.0, -INF, select(p == 1.0, INF, result))
        return select((p >= 0.0) & (p <= 1.0), result, float("nan"))

    def mapped(x: Value) -> Value:
        if spec.result == "logit":
            return log_odds(x)
        e, u = parts(x)
        if spec.result == "sigmoid":
            return select(x < 0.0, e, 1.0) * inverse(e + 1.0)
        if spec.result == "softplus":
            return simd.larger(simd.constant(0.0, x.type), x) + u
        return select(x < 0.0, x, 0.0) - u

    def spread(address: Value, step: Value, n: Value) -> Value:
        """An address for each lane; lanes without an element repeat the last."""
        return simd.smaller(simd.lane_numbers(numbers), n - 1) * step + address

    @traced
    def lanes_from(address: Value, step: Value, n: Value) -> Value:
        return spread(address, step, n) if spec.strided else address

    @traced
    def weights_from(address: Value, step: Value, n: Value) -> Value:
        return spread(address, step, n)

    @traced
    def samples_from(address: Value, step: Value, n: Value) -> Value:
        return address if spec.s_along else spread(address, step, n)

    @traced
    def first(n: Value) -> Value:
        return simd.lane_numbers(numbers) < n

    @traced
    def zero() -> Value:
        return simd.constant(0.0, full)

    def write(access: Access, x: Value, address: Value, mask: Value, past_caches: bool) -> None:
        if past_caches:
            access.write_past_caches(x, address)
        else:
            access.write(x, address, mask)

    def one_step(
        past_caches: bool,
        total: Value, x: Value, z: Value, o: Value, g: Value, h: Value, q: Value, s: Value, mask: Value,
        pos_weight: Value, smoothing: Value, grad_scale: Value,
    ) -> Value:  # fmt: skip
        reach = simd.constant(1, flags) if spec.strided else mask
        if not spec.strided:
            for i in range(0, lanes * x_at.kind.size, 64):
                simd.prefetch(x + (AHEAD + i))
                if z_at is not None:
                    simd.prefetch(z + (AHEAD + i))
                if s_at is not None and spec.s_along:
                    simd.prefetch(s + (AHEAD + i))
                if spec.kept and not past_caches:
                    simd.prefetch(o + (AHEAD + i), to_write=True)
                if spec.gradient and not past_caches:
                    simd.prefetch(g + (AHEAD + i), to_write=True)
        logits = x_at.read(x, reach, 0.0)
        if z_at is None:
            assert o_at is not None
            write(o_at, mapped(logits), o, reach, past_caches)
            return total
        weight = {"": None, "one": simd.splat(pos_weight, full)}.get(spec.q)
        if spec.q == "many":
            assert q_at is not None
            weight = q_at.read(q, reach, 0.0)
        e, u = parts(logits)
        loss, gradient, label_gradient = cross_entropy(logits, e, u, z_at.read(z, reach, 0.0), weight, smoothing)
        multiple = grad_scale
        if s_at is not None:
            sample = s_at.read(s, reach, 0.0)
            loss = select(sample == 0.0, 0.0, loss * sample)
            gradient = select(sample == 0.0, 0.0, gradient * sample)
            label_gradient = select(sample == 0.0, 0.0, label_gradient * sample)
        if spec.kept:
            assert o_at is not None
            write(o_at, loss, o, reach, past_caches)
        if spec.gradient:
            write(x_at, gradient * multiple, g, reach, past_caches)
        if h_at is not None:
            write(h_at, label_gradient * multiple, h, reach, past_caches)
        return total + select(mask, loss, 0.0) if summed else total

    @traced
    def step(*values: Value) -> Value:
        return one_step(False, *values)

    @traced
    def step_past_caches(*values: Value) -> Value:
        """For a whole vector; of results too large for any cache, where they begin at multiples of 64."""
        return one_step(spec.streaming, *values)

    @traced
    def settle() -> None:
        simd.settle()

    @traced
    def put_sum(total: Value, address: Value) -> None:
        simd.store(simd.across(total, lambda p, q: p + q), address)

    slots, block, streaming = simd.reader(SIGMOID_JOB.names), BLOCK, spec.streaming
    # masks cost time without AVX-512, most of all for elements below 4 bytes, which are then read one by one
    whole = not streaming and not spec.strided

    def kernel(job: int, start: int, stop: int) -> int:
        (
            columns, x_row, x_column, z_row, z_column, o_row, o_column, g_row, g_column, h_row, h_column,
            q_row, q_column, s_row, s_column, smoothing, x, z, o, g, h, q, s, sums, pos_weight, grad_scale,
        ) = slots(job)  # fmt: skip
        blocks = (columns + block - 1) // block
        for i in range(start, stop):
            row = i // blocks
            j = (i - row * blocks) * block
            end = min(j + block, columns)
            total = zero()
            if whole or (
                streaming
                and (o + row * o_row) % 64 == 0
                and (g + row * g_row) % 64 == 0
                and (h + row * h_row) % 64 == 0
            ):
                while j + lanes <= end:
                    total = step_past_caches(
                        total, x + row * x_row + j * x_column, z + row * z_row + j * z_column,
                        o + row * o_row + j * o_column, g + row * g_row + j * g_column, h + row * h_row + j * h_column,
                        weights_from(q + row * q_row + j * q_column, q_column, lanes),
                        samples_from(s + row * s_row + j * s_column, s_column, lanes),
                        first(lanes), pos_weight, smoothing, grad_scale,
                    )  # fmt: skip
                    j += lanes
            while j < end:
                n = min(lanes, end - j)
                total = step(
                    total,
                    lanes_from(x + row * x_row + j * x_column, x_column, n),
                    lanes_from(z + row * z_row + j * z_column, z_column, n),
                    lanes_from(o + row * o_row + j * o_column, o_column, n),
                    lanes_from(g + row * g_row + j * g_column, g_column, n),
                    lanes_from(h + row * h_row + j * h_column, h_column, n),
                    weights_from(q + row * q_row + j * q_column, q_column, n),
                    samples_from(s + row * s_row + j * s_column, s_column, n),
                    first(n), pos_weight, smoothing, grad_scale,
                )  # fmt: skip
                j += lanes
            if summed:
                put_sum(total, sums + 8 * i)
        if streaming:
            settle()
        return 0

    return kernel
