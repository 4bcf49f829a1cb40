"""The functions around the losses, as accurate as they are: from log-odds to probabilities and back, and logsumexp.

Each takes float16, bfloat16, float32 or float64 arrays of any shape and strides (lists and numbers become float64) and
returns an array of the same dtype; integers and complex numbers are a TypeError. NaN gives NaN.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from withlogits.dispatch import adapter

Array: TypeAlias = Any  # an array of the caller's framework, or what converts to a NumPy array


def logit(p: Array) -> Array:
    """The log-odds of a probability, log(p / (1 − p)): the inverse of `sigmoid`.

    0 gives −inf and 1 gives inf; outside [0, 1] the result is NaN. Relative accuracy holds near 0 and near 1/2, where
    the result is small.

    >>> import withlogits
    >>> withlogits.logit([0.0, 1e-20, 0.5, 0.75, 1.0])
    array([        -inf, -46.05170186,   0.        ,   1.09861229,          inf])
    """
    return adapter(p).elementwise(p, "logit")


def sigmoid(x: Array) -> Array:
    """The probability whose log-odds are x, 1 / (1 + exp(−x)).

    >>> import withlogits
    >>> withlogits.sigmoid([-1000.0, 0.0, 2.0])
    array([0.        , 0.5       , 0.88079708])
    """
    return adapter(x).elementwise(x, "sigmoid")


def log_sigmoid(x: Array) -> Array:
    """The logarithm of `sigmoid`, −log(1 + exp(−x)), which stays finite where the probability is 0 to the last bit.

    >>> import withlogits
    >>> withlogits.log_sigmoid([-1000.0, 0.0, 40.0])
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    return adapter(x).elementwise(x, "log_sigmoid")


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(−|x|)): what a logit x costs if the answer is "no".

    >>> import withlogits
    >>> withlogits.softplus([-40.0, 0.0, 1000.0])
    array([4.24835426e-18, 6.93147181e-01, 1.00000000e+03])
    """
    return adapter(x).elementwise(x, "softplus")


def softmax(x: Array, *, axis: int = -1) -> Array:
    """The probabilities of exclusive classes, exp(x_j) / Σ_i exp(x_i) along an axis.

    A logit of −inf has probability 0. A row with NaN or +inf, or of only −inf, gives NaN.

    >>> import withlogits
    >>> withlogits.softmax([[1000.0, 1000.0, -float("inf")]])
    array([[0.5, 0.5, 0. ]])
    """
    return adapter(x).softmax_map(x, axis, "softmax")


def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """The logarithm of `softmax`, x_j − logsumexp(x), which is exact where a probability is 1 to the last bit.

    >>> import withlogits
    >>> withlogits.log_softmax([20.0, 0.0, 0.0])
    array([-4.12230724e-09, -2.00000000e+01, -2.00000000e+01])
    """
    return adapter(x).softmax_map(x, axis, "log_softmax")


def logsumexp(x: Array, *, axis: int = -1) -> Array:
    """log Σ_j exp(x_j) along an axis, which the result does not have.

    The sum is m + r with m = max x and r = log Σ_j exp(x_j − m); where the two cancel, the error is one rounding of the
    larger.

    >>> import withlogits
    >>> withlogits.logsumexp([[1000.0, 1000.0], [0.0, -float("inf")]])  # shape (2,)
    array([1000.69314718,    0.        ])
    """
    return adapter(x).softmax_map(x, axis, "logsumexp")
