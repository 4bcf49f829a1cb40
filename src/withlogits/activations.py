"""Conversions between log-odds and probabilities, their logarithms, and logsumexp.

Each takes float16, bfloat16, float32 or float64 arrays of any shape and strides (lists and numbers become float64) and
returns an array of the same dtype; integers and complex numbers are a TypeError. NaN gives NaN.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from withlogits.dispatch import adapter
from withlogits.options import Tensor, as_written

Float = TypeVar("Float", bound=np.generic)  # bfloat16 is no np.floating to type checkers
Axes: TypeAlias = int | tuple[int, ...] | None


@overload
def logit(p: Tensor) -> Tensor: ...
@overload
def logit(p: NDArray[Float]) -> NDArray[Float]: ...
@overload
def logit(p: ArrayLike) -> Any: ...
@as_written
def logit(p: Any) -> Any:
    """Return the log-odds of a probability, log(p / (1 − p)): the inverse of `sigmoid`.

    0 gives −inf and 1 gives inf; outside [0, 1] the result is NaN. Relative accuracy holds near 0 and near 1/2, where
    the result is small.

    >>> import withlogits
    >>> withlogits.logit([0.0, 1e-20, 0.5, 0.75, 1.0])
    array([        -inf, -46.05170186,   0.        ,   1.09861229,          inf])
    """
    return adapter(p).elementwise(p, "logit")


@overload
def sigmoid(x: Tensor) -> Tensor: ...
@overload
def sigmoid(x: NDArray[Float]) -> NDArray[Float]: ...
@overload
def sigmoid(x: ArrayLike) -> Any: ...
@as_written
def sigmoid(x: Any) -> Any:
    """Return the probability whose log-odds are x, 1 / (1 + exp(−x)).

    >>> import withlogits
    >>> withlogits.sigmoid([-1000.0, 0.0, 2.0])
    array([0.        , 0.5       , 0.88079708])
    """
    return adapter(x).elementwise(x, "sigmoid")


@overload
def log_sigmoid(x: Tensor) -> Tensor: ...
@overload
def log_sigmoid(x: NDArray[Float]) -> NDArray[Float]: ...
@overload
def log_sigmoid(x: ArrayLike) -> Any: ...
@as_written
def log_sigmoid(x: Any) -> Any:
    """Return the logarithm of `sigmoid`, −log(1 + exp(−x)), which is finite where the probability rounds to 0.

    >>> import withlogits
    >>> withlogits.log_sigmoid([-1000.0, 0.0, 40.0])
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    return adapter(x).elementwise(x, "log_sigmoid")


@overload
def softplus(x: Tensor) -> Tensor: ...
@overload
def softplus(x: NDArray[Float]) -> NDArray[Float]: ...
@overload
def softplus(x: ArrayLike) -> Any: ...
@as_written
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)) = max(x, 0) + log1p(exp(−|x|)): the sigmoid loss of a logit x with label 0.

    >>> import withlogits
    >>> withlogits.softplus([-40.0, 0.0, 1000.0])
    array([4.24835426e-18, 6.93147181e-01, 1.00000000e+03])
    """
    return adapter(x).elementwise(x, "softplus")


@overload
def softmax(x: Tensor, *, axis: Axes = ...) -> Tensor: ...
@overload
def softmax(x: NDArray[Float], *, axis: Axes = ...) -> NDArray[Float]: ...
@overload
def softmax(x: ArrayLike, *, axis: Axes = ...) -> Any: ...
@as_written
def softmax(x: Any, *, axis: Axes = -1) -> Any:
    """Return the probabilities of exclusive classes, exp(x_j) / Σ_i exp(x_i).

    `axis` is the axis of the classes, a tuple of axes, or None for all: the probabilities sum to 1 over them. A logit
    of −inf has probability 0. A row with NaN or +inf, or of only −inf, gives NaN.

    >>> import withlogits
    >>> withlogits.softmax([[1000.0, 1000.0, -float("inf")]])
    array([[0.5, 0.5, 0. ]])
    """
    return adapter(x).softmax_map(x, axis, "softmax")


@overload
def log_softmax(x: Tensor, *, axis: Axes = ...) -> Tensor: ...
@overload
def log_softmax(x: NDArray[Float], *, axis: Axes = ...) -> NDArray[Float]: ...
@overload
def log_softmax(x: ArrayLike, *, axis: Axes = ...) -> Any: ...
@as_written
def log_softmax(x: Any, *, axis: Axes = -1) -> Any:
    """Return the logarithm of `softmax`, x_j − logsumexp(x), accurate where a probability rounds to 1.

    `axis` is the axis of the classes, a tuple of axes, or None for all.

    >>> import withlogits
    >>> withlogits.log_softmax([20.0, 0.0, 0.0])
    array([-4.12230724e-09, -2.00000000e+01, -2.00000000e+01])
    """
    return adapter(x).softmax_map(x, axis, "log_softmax")


@overload
def logsumexp(x: Tensor, *, axis: Axes = ..., keepdims: bool = ...) -> Tensor: ...
@overload
def logsumexp(x: NDArray[Float], *, axis: None, keepdims: Literal[False] = ...) -> Float: ...
@overload
def logsumexp(x: NDArray[Float], *, axis: None, keepdims: Literal[True]) -> NDArray[Float]: ...
@overload
def logsumexp(x: NDArray[Float], *, axis: int | tuple[int, ...] = ..., keepdims: bool = ...) -> NDArray[Float]: ...
@overload
def logsumexp(x: ArrayLike, *, axis: Axes = ..., keepdims: bool = ...) -> Any: ...
@as_written
def logsumexp(x: Any, *, axis: Axes = -1, keepdims: bool = False) -> Any:
    """Return log Σ_j exp(x_j) over an axis, a tuple of axes, or all of them (None).

    The result lacks these axes; with `keepdims` it has them with length 1. The sum is m + r with m = max x and
    r = log Σ_j exp(x_j − m); where the two cancel, the error is one rounding of the larger. It is −inf where all are
    −inf, and +inf where one is +inf and none is NaN.

    >>> import withlogits
    >>> withlogits.logsumexp([[1000.0, 1000.0], [0.0, -float("inf")]])  # shape (2,)
    array([1000.69314718,    0.        ])
    """
    return adapter(x).softmax_map(x, axis, "logsumexp", keepdims)
