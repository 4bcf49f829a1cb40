"""Loss, gradient and Hessian product of both families, and the activations, in array code for every framework.

`xp` is a framework's namespace table, such as `frameworks.numpy_namespace`: the few functions that are not operators of
its arrays. Arithmetic is in the table's widest type (float64 where the device has it); results are rounded once.

For a row x of C logits and target weights t, with `softcap` and `temperature` applied:

    m = max x      k = how many x_j equal m      s = Σ over x_j < m of exp(x_j − m)
    r = log1p((k − 1) + s)                       logsumexp(x) = m + r, kept as the pair (m, r)
    T = Σ t_j      loss = Σ t_j (m − x_j) + T r + λ (m + r)²
    p_j = exp(x_j − m) / (k + s)
    d loss/d x_j = T p_j − t_j + 2λ (m + r) p_j

What float64 logits need: x/τ and the difference m − x_j are pairs (an error of ε·|m − x_j| would be that of
exp(x_j − m) too), sums are exact before their last rounding, p_j divides by k + s (r near 10 would bring it an error of
10 ε), and T p_j − t_j takes 1 − p_j from the other classes where p_j > 1/2. `softcap` costs the error of one tanh: at
most 2 ulp of the capped logits, which the loss sees as logits that are off by so much.

Every function can be differentiated and traced: no branch depends on values, m is a constant (the softmax does not
depend on it), and whatever holds rounding errors has no derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any  # of the framework whose table `xp` is
Pair = tuple[Array, Array]  # an unevaluated sum: the rounded value, and what rounding lost


class SoftmaxArrays(NamedTuple):
    """The arrays of a softmax loss: logits (..., C) with classes at `axis`; index labels and weights without it."""

    logits: Array
    labels: Array
    class_weight: Array | None = None  # (C,)
    sample_weight: Array | None = None
    class_offset: Array | None = None  # (C,), added to the logits before softcap and temperature


class SigmoidArrays(NamedTuple):
    """The arrays of a sigmoid loss; the weights broadcast to the logits' shape."""

    logits: Array
    labels: Array
    pos_weight: Array | None = None
    sample_weight: Array | None = None


# --------------------------------------------------------------------------------------------- arithmetic with pairs


def lost(xp: Any, error: Array) -> Array:
    """Return a rounding error as a constant; next to infinities and NaN nothing is lost."""
    return xp.stop_gradient(xp.where(xp.isfinite(error), error, 0.0))


def add(xp: Any, a: Array, b: Array) -> Pair:
    """Return a + b as a pair (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, lost(xp, (a - (total - part)) + (b - part))


def multiply(xp: Any, a: Array, b: Array) -> Pair:
    """Return a · b as a pair (Dekker's product of halves: exact without fused multiply-add)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(xp, a), _halves(xp, b)
    return product, lost(xp, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)


def divide(xp: Any, a: Array, a_lost: Array | float, b: Array) -> Pair:
    """Return (a + a_lost) / b as a pair."""
    quotient = a / b
    product, product_lost = multiply(xp, quotient, b)
    return add(xp, quotient, lost(xp, (((a - product) - product_lost) + a_lost) / b))


def _halves(xp: Any, x: Array) -> Pair:
    """Return two numbers of half the digits that add up to x (Veltkamp's splitting)."""
    scaled = x * (2.0**27 + 1.0 if x.dtype == xp.float64 else 2.0**12 + 1.0)
    high = scaled - (scaled - x)
    return high, x - high


def total(xp: Any, terms: Array) -> Pair:
    """Return the sum over the last axis as a pair, (..., 1), with an error far below that of its last rounding.

    The leading parts of the terms are multiples of one grid, coarse enough that their sum is exact in any order.
    """
    if terms.shape[-1] == 0:
        return xp.sum(terms), xp.sum(terms)
    grid = xp.stop_gradient(2.0 * xp.length(terms, terms.dtype) * xp.max(abs(terms)))
    fine = xp.isfinite(grid)
    leading = xp.where(fine, (terms + grid) - grid, terms)
    rest = xp.stop_gradient(xp.where(fine, terms - leading, 0.0))
    return add(xp, xp.sum(leading), xp.sum(rest))


def times(xp: Any, weight: Array | float, x: Array) -> Array:
    """Return the product in which 0 · inf is 0: what has no weight costs nothing."""
    weight = xp.constant(weight, x)
    return weight * xp.where(xp.equal(weight, 0.0) & xp.isinf(x), 0.0, x)


# ----------------------------------------------------------------------------------------------------- dtypes, labels


def loss_dtype(xp: Any, logits: Array) -> Any:
    return xp.float64 if logits.dtype == xp.float64 else xp.float32


def label_gradient_dtype(xp: Any, labels: Array, logits: Array) -> Any:
    return labels.dtype if xp.is_floating(labels) else loss_dtype(xp, logits)


def rounded(xp: Any, x: Array, dtype: Any) -> Array:
    """Return x in `dtype`; half precision is the float32 result, rounded once more."""
    return xp.astype(x if dtype == xp.float64 else xp.astype(x, xp.float32), dtype)


def row_factors(xp: Any, arrays: SoftmaxArrays | SigmoidArrays, options: Any, rows: Array) -> Array:
    """Return what each loss, of a row or an element, is multiplied by, in the shape of `rows`; 0 masks it."""
    factor = xp.wide(xp.ones_like(rows) if arrays.sample_weight is None else arrays.sample_weight)
    elements = isinstance(arrays, SigmoidArrays)
    if not (elements or options.sparse) or options.ignore_index is None:
        return factor
    ignored = options.ignore_index
    labels = xp.wide(arrays.labels) if elements else xp.as_index(arrays.labels)
    missing = xp.equal(labels, ignored) if ignored == ignored else ~xp.equal(labels, labels)
    return xp.where(missing, 0.0, factor)


def row_weights(xp: Any, arrays: SoftmaxArrays | SigmoidArrays, options: Any, rows: Array) -> Array:
    """Return sᵢ Wᵢ of each loss, of which a mean's denominator is the sum; W is the class weight of the labels."""
    factor = row_factors(xp, arrays, options, rows)
    if isinstance(arrays, SigmoidArrays) or arrays.class_weight is None:
        return factor
    w = xp.wide(arrays.class_weight)
    if options.sparse:
        return factor * xp.take(w, xp.as_index(arrays.labels))
    z = xp.where(xp.equal(factor[..., None], 0.0), 0.0, xp.wide(xp.moveaxis(arrays.labels, options.axis, -1)))
    return factor * xp.sum(z * w)[..., 0]


class _Loss:
    """What both families share: how gradients become results."""

    xp: Any
    arrays: Any
    factor: Array  # what each loss is multiplied by; 0 masks it
    valid: Array  # where losses contribute, with a label in range
    axis: int | None = None  # of the classes, which stand last here; None: `factor` has the logits' shape

    def _results(
        self, upstream: Array, for_logits: Array | None, for_labels: Array | None
    ) -> tuple[Array | None, Array | None]:
        """Return gradients times upstream and factor, in the results' dtypes: exactly 0 where nothing contributes."""
        xp, logits = self.xp, self.arrays.logits
        share = xp.wide(upstream) if self.axis is None else xp.wide(upstream)[..., None]
        share = share * self.factor
        live = ~xp.equal(share, 0.0) & self.valid

        def result(g: Array | None, dtype: Any) -> Array | None:
            if g is None:
                return None
            g = xp.where(live, g * share, 0.0)
            return rounded(xp, g if self.axis is None else xp.moveaxis(g, -1, self.axis), dtype)

        label_dtype = label_gradient_dtype(xp, self.arrays.labels, logits)
        return result(for_logits, logits.dtype), result(for_labels, label_dtype)


# ------------------------------------------------------------------------------------------------------------ softmax


class Row(NamedTuple):
    """What the formulas need of rows of logits, (..., C); a row's own numbers are (..., 1)."""

    gap: Array  # m − x_j
    gap_lost: Array
    p: Array
    m: Array
    m_lost: Array | float
    r: Array
    rest: Array  # s/(k + s), which is 1 − p_j at an only maximum

    @property
    def logsumexp(self) -> Array:
        return self.m + (self.r + self.m_lost)

    @property
    def minus_log_p(self) -> Array:
        return self.gap + (self.r + self.gap_lost)


def row_of(xp: Any, x: Array, x_lost: Array | None = None) -> Row:
    """Return the numbers of rows, of which x may be the rounded half of a pair.

    They are NaN where a row holds NaN or +inf, or only −inf.
    """
    m = xp.stop_gradient(xp.max(x))
    m = xp.where(xp.isfinite(m), m, float("nan"))
    highest = xp.equal(x, m)
    m_lost: Array | float = 0.0
    gap, gap_lost = add(xp, m, -x)
    if x_lost is not None:  # equal rounded values may differ in what rounding lost
        m_lost = xp.max(xp.where(highest, x_lost, -float("inf")))
        highest = highest & xp.equal(x_lost, m_lost)
        gap, gap_lost = add(xp, gap, lost(xp, gap_lost + (m_lost - x_lost)))
    e = xp.exp(-gap) * (1.0 - gap_lost)
    k = xp.sum(xp.where(highest, e, 0.0))  # each is 1, and has a derivative
    s, s_lost = total(xp, xp.where(highest, 0.0, e))
    whole = k + s
    r = xp.log1p((k - 1.0) + s) + s_lost / whole
    return Row(gap, gap_lost, e / whole, m, m_lost, r, s / whole)


def excess(xp: Any, p: Array, w: Array, rest: Array | None = None) -> Array:
    """Return p Σ w − w, made of the other classes where p > 1/2; `rest` is 1 − p there."""
    top = p > 0.5
    if rest is None:
        rest = xp.sum(xp.where(top, 0.0, p))
    others, others_lost = total(xp, xp.where(top, 0.0, w))
    whole = (others + xp.sum(xp.where(top, w, 0.0))) + others_lost
    return xp.where(top, p * others - w * rest, p * whole - w)


def centred(xp: Any, p: Array, c: Array) -> tuple[Array, Array]:
    """Return c − Σ p c and Σ p c; c is shifted by its value at p > 1/2, so that confident rows keep their digits."""
    shift = xp.sum(xp.where(p > 0.5, c, 0.0))
    differences = xp.where(p > 0.5, 0.0, c - shift)
    mean = xp.sum(p * differences)
    return differences - mean, mean + shift


def sech_squared(xp: Any, x: Array) -> Array:
    """Return 1/cosh²(x) = 1 − tanh²(x), without the cancellation."""
    e = xp.exp(-2.0 * _size(xp, x))
    return 4.0 * e / (1.0 + e) ** 2


class Softmax(_Loss):
    """Softmax cross-entropy of `arrays`, with the attributes of `options`; its arrays have the classes last."""

    def __init__(self, xp: Any, arrays: SoftmaxArrays, options: Any) -> None:
        self.xp, self.arrays, self.options, self.axis = xp, arrays, options, options.axis
        x = self._wide(arrays.logits)
        self.factor = row_factors(xp, arrays, options, x[..., 0])[..., None]
        self.unmasked = self.valid = ~xp.equal(self.factor, 0.0)
        if options.sparse:
            index = xp.as_index(arrays.labels)[..., None]
            classes = xp.length(x, index.dtype)
            self.valid = self.unmasked & (index >= 0) & (index < classes)
            z = xp.wide(xp.equal(index, xp.arange(classes, x)))
        else:
            z = self._wide(arrays.labels)
        self.x, z = xp.where(self.unmasked, x, 0.0), xp.where(self.unmasked, z, 0.0)
        self.x_lost: Array | None = None
        if arrays.class_offset is not None:
            self.x, self.x_lost = add(xp, self.x, xp.wide(arrays.class_offset))
        self.w = 1.0 if arrays.class_weight is None else xp.wide(arrays.class_weight)
        self.dt_dz = self.w * (1.0 - options.label_smoothing)
        self.t = self.w * ((1.0 - options.label_smoothing) * z + options.label_smoothing / xp.length(x, x.dtype))
        y, y_lost, self.slope = self._transformed()
        self.row = row_of(xp, y, y_lost)

    def losses(self) -> Array:
        """Return the loss of each row, times its sample weight; NaN where the label is out of range."""
        xp, row, z_loss = self.xp, self.row, self.options.z_loss
        cost, cost_lost = total(xp, times(xp, self.t, row.gap))
        cost_lost = cost_lost + xp.sum(times(xp, self.t, row.gap_lost))
        extra = total(xp, self.t)[0] * row.r
        if z_loss:
            extra = extra + z_loss * row.logsumexp**2
        loss = xp.where(self.valid, times(xp, self.factor, cost + (cost_lost + extra)), float("nan"))
        return xp.where(self.unmasked, loss, 0.0)[..., 0]

    def gradients(
        self, upstream: Array, for_logits: bool, for_labels: bool, mean: Array | None = None
    ) -> tuple[Array | None, Array | None]:
        """Return the gradients of Σ u loss for the logits and for dense labels.

        `mean` is the value of a mean whose denominator depends on the labels through class weights.
        """
        row, z_loss = self.row, self.options.z_loss
        dx = dz = None
        if for_logits:
            g = excess(self.xp, row.p, self.t, row.rest)
            if z_loss:
                g = g + 2.0 * z_loss * row.logsumexp * row.p
            dx = g * self.slope
        if for_labels:
            dz = times(self.xp, self.dt_dz, row.minus_log_p)
            if mean is not None:
                dz = dz - times(self.xp, self.w, mean)
        return self._results(upstream, dx, dz)

    def hessian_product(self, upstream: Array, v: Array | None, h: Array | None) -> tuple[Array | None, Array | None]:
        """Return the Hessian of Σ u loss, in logits and labels, times the directions v and h: a part for each."""
        xp, row, slope, z_loss = self.xp, self.row, self.slope, self.options.z_loss
        for_x, for_z = xp.zeros_like(self.x), xp.zeros_like(self.x)
        if v is not None:
            v = self._wide(v)
            differences, mean = centred(xp, row.p, v * slope)
            curvature = total(xp, self.t)[0] + 2.0 * z_loss * row.logsumexp
            for_x = (curvature * row.p * differences + 2.0 * z_loss * mean * row.p) * slope
            if (softcap := self.options.softcap) is not None:
                slope_slope = -2.0 / softcap * xp.tanh(self.x / softcap) * slope
                g = excess(xp, row.p, self.t, row.rest) + 2.0 * z_loss * row.logsumexp * row.p
                for_x = for_x + v * slope_slope * g
            for_z = -self.dt_dz * differences
        if h is not None:
            for_x = for_x + excess(xp, row.p, self._wide(h) * self.dt_dz, row.rest) * slope
        return self._results(upstream, for_x, for_z)

    def _transformed(self) -> tuple[Array, Array | None, Array | float]:
        """Return the logits after softcap and temperature as a pair (None: exact), and their derivative."""
        xp, x, softcap, temperature = self.xp, self.x, self.options.softcap, self.options.temperature
        y, y_lost, slope = x, self.x_lost, 1.0
        if softcap is not None:
            cap = xp.constant(softcap, x)
            inner, inner_lost = divide(xp, x, 0.0 if y_lost is None else y_lost, cap)
            slope = sech_squared(xp, inner)
            y, y_lost = multiply(xp, cap, xp.tanh(inner))
            y = xp.where(xp.isfinite(x), y, x)  # −inf stays a class that cannot occur
            y, y_lost = add(xp, y, lost(xp, y_lost + cap * inner_lost * slope))
        if temperature != 1.0:
            y, y_lost = divide(xp, y, 0.0 if y_lost is None else y_lost, xp.constant(temperature, x))
            slope = slope / temperature
        return y, y_lost, slope

    def _wide(self, array: Array) -> Array:
        return self.xp.wide(self.xp.moveaxis(array, self.options.axis, -1))


# ------------------------------------------------------------------------------------------------------------ sigmoid


class Sigmoid(_Loss):
    """Sigmoid cross-entropy of `arrays`, element by element.

    The smoothed label and its complement are both built from z: 1 − z' would lose the digits of a small ε.
    """

    def __init__(self, xp: Any, arrays: SigmoidArrays, options: Any) -> None:
        self.xp, self.arrays, smoothing = xp, arrays, options.label_smoothing
        self.factor = row_factors(xp, arrays, options, arrays.logits)
        self.valid = ~xp.equal(self.factor, 0.0)
        self.x, z = (xp.where(self.valid, xp.wide(array), 0.0) for array in (arrays.logits, arrays.labels))
        self.q = 1.0 if arrays.pos_weight is None else xp.wide(arrays.pos_weight)
        self.keep = 1.0 - smoothing
        self.positive = self.q * (self.keep * z + smoothing / 2.0)
        self.negative = self.keep * (1.0 - z) + smoothing / 2.0

    def losses(self) -> Array:
        """Return the loss of each element, times its sample weight."""
        xp, x = self.xp, self.x
        loss = times(xp, self.positive, softplus(xp, -x)) + times(xp, self.negative, softplus(xp, x))
        return xp.where(self.valid, times(xp, self.factor, loss), 0.0)

    def gradients(self, upstream: Array, for_logits: bool, for_labels: bool) -> tuple[Array | None, Array | None]:
        """Return the gradients of Σ u loss for the logits and for the labels."""
        xp, x, q = self.xp, self.x, self.q
        dx = dz = None
        if for_logits:
            dx = self.negative * sigmoid(xp, x) - self.positive * sigmoid(xp, -x)
        if for_labels:
            # q softplus(−x) − softplus(x), with the part that both share taken out: q = 1 leaves exactly −x
            h = times(xp, q, _above_zero(xp, -x)) - _above_zero(xp, x) + (q - 1.0) * softplus(xp, -_size(xp, x))
            dz = times(xp, self.keep, h)
        return self._results(upstream, dx, dz)

    def hessian_product(self, upstream: Array, v: Array | None, h: Array | None) -> tuple[Array | None, Array | None]:
        """Return the Hessian of Σ u loss, in logits and labels, times the directions v and h: a part for each."""
        xp, x = self.xp, self.x
        yes, no = sigmoid(xp, x), sigmoid(xp, -x)
        mixed = -self.keep * (yes + self.q * no)
        for_x, for_z = xp.zeros_like(x), xp.zeros_like(x)
        if v is not None:
            for_x, for_z = (self.positive + self.negative) * yes * no * xp.wide(v), mixed * xp.wide(v)
        if h is not None:
            for_x = for_x + mixed * xp.wide(h)
        return self._results(upstream, for_x, for_z)


# -------------------------------------------------------------------------------------------------------- activations


def softmax_map(xp: Any, x: Array, axis: int, kind: str) -> Array:
    """Return softmax, log_softmax or logsumexp (which drops the axis), in the dtype of x.

    A logsumexp is −inf of nothing but −inf, and +inf of a row with +inf; softmax and log_softmax are NaN there.
    """
    wide = xp.wide(xp.moveaxis(x, axis, -1))
    row = row_of(xp, wide)
    if kind == "logsumexp":
        m = xp.max(wide)
        return rounded(xp, xp.where(xp.isinf(m), m, row.logsumexp)[..., 0], x.dtype)
    return rounded(xp, xp.moveaxis(row.p if kind == "softmax" else -row.minus_log_p, -1, axis), x.dtype)


def elementwise(xp: Any, x: Array, kind: str) -> Array:
    """Return sigmoid, log_sigmoid, softplus or logit of each element, in the dtype of x."""
    return rounded(xp, ELEMENTWISE[kind](xp, xp.wide(x)), x.dtype)


def softplus(xp: Any, x: Array) -> Array:
    """Return log(1 + exp(x)) = max(x, 0) + log1p(exp(−|x|))."""
    return _above_zero(xp, x) + xp.log1p(xp.exp(-_size(xp, x)))


def log_sigmoid(xp: Any, x: Array) -> Array:
    """Return −softplus(−x)."""
    return -softplus(xp, -x)


def sigmoid(xp: Any, x: Array) -> Array:
    """Return 1/(1 + e) for x ≥ 0 and e/(1 + e) below, e = exp(−|x|)."""
    e = xp.exp(-_size(xp, x))
    return xp.where(x < 0.0, e, 1.0) / (1.0 + e)


def logit(xp: Any, p: Array) -> Array:
    """Return log(p / (1 − p)); between 1/4 and 3/4 by log1p, where 2p − 1 is exact and the result may be tiny."""
    lower = xp.where(p < 0.25, xp.log(p / (1.0 - p)), -xp.log1p((1.0 - 2.0 * p) / p))
    upper = xp.where(p > 0.75, -xp.log((1.0 - p) / p), xp.log1p((2.0 * p - 1.0) / (1.0 - p)))
    return xp.where(p < 0.5, lower, upper)


ELEMENTWISE: dict[str, Callable[[Any, Array], Array]] = {
    "sigmoid": sigmoid,
    "log_sigmoid": log_sigmoid,
    "softplus": softplus,
    "logit": logit,
}


def _size(xp: Any, x: Array) -> Array:
    """Return |x|, whose derivative at 0 is 1: with that, sigmoid and softplus have theirs of every order at 0 too."""
    return xp.where(x < 0.0, -x, x)


def _above_zero(xp: Any, x: Array) -> Array:
    """Return max(x, 0); NaN stays."""
    return xp.where(x < 0.0, 0.0, x)
