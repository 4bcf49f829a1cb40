"""The public losses: signature, documentation, options, and one call of the adapter of the caller's arrays.

All of them compute −Σ t log p for target weights t and the probabilities p that the logits stand for, in nats, without
ever forming p. What they share:

- Arguments go by keyword; a positional call is a TypeError that shows the right call.
- Logits are float16, bfloat16, float32 or float64, of any rank and strides. The loss is float64 for float64 logits and
  float32 otherwise; gradients have the dtype of what they belong to. No array is changed.
- `reduction` is "none", "sum" or "mean". With s the sample weight, the mean is Σ sᵢ lossᵢ / Σ sᵢ Wᵢ over the unmasked;
  Wᵢ = Σ_j w_j z_j is the class weight of row i, and 1 without `class_weight`. The mean of nothing is 0.
- A row or element with `sample_weight` 0 or label `ignore_index` has loss and gradient exactly 0, even if it holds NaN.
- NaN in the logits gives NaN. A logit of −inf is a class that cannot occur: free, unless a label wants it (then inf).
- `name` labels the call in the framework's profiler, where there is one.
- PyTorch tensors give PyTorch tensors on the same device, differentiable by logits and labels as often as wanted.
  Where a look at the values would make the host wait for a device, a label out of range gives NaN and no gradient
  instead of an error, and weights are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from withlogits import errors
from withlogits.dispatch import adapters
from withlogits.options import (
    REQUIRED,
    Reduction,
    SigmoidKeywords,
    SoftmaxKeywords,
    SparseKeywords,
    Tensor,
    WeightedKeywords,
    by_keyword,
    defaults_of,
    keywords_of,
    one_axis,
    sigmoid_options,
    softmax_options,
)

# The way on from here (docs/design.md): checks in options.py and shapes.py, their texts in errors.py, formulas in
# formulas.py, kernels in kernels/cpu and kernels/cuda.


@overload
def sigmoid_cross_entropy_with_logits(
    *, labels: Any, logits: Tensor, reduction: Reduction = ..., **options: Unpack[SigmoidKeywords]
) -> Tensor: ...
@overload
def sigmoid_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["none"] = ..., **options: Unpack[SigmoidKeywords]
) -> NDArray[Any]: ...
@overload
def sigmoid_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["sum", "mean"], **options: Unpack[SigmoidKeywords]
) -> np.floating[Any]: ...
@by_keyword
def sigmoid_cross_entropy_with_logits(
    *positional: Any,
    labels: Any = REQUIRED,
    logits: Any = REQUIRED,
    name: str | None = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: float | None = None,
    sample_weight: Any = None,
    reduction: Reduction = "none",
    **unknown: Any,
) -> Any:
    """Return the loss of independent yes/no questions: several classes may be true of one example at once.

    Elementwise, with softplus(x) = log(1 + exp(x)), q = `pos_weight` and ε = `label_smoothing`::

        z    = (1 − ε) labels + ε/2
        loss = q z softplus(−x) + (1 − z) softplus(x)

    Parameters
    ----------
    labels : array
        How true each is, from 0 to 1: the shape of the logits exactly; boolean, integer or floating-point.
    logits : array
        Log-odds of "yes", any shape.
    name : str, optional
        For the framework's profiler.
    pos_weight : array or float, optional
        Factor of the loss of what is true, broadcastable to the logits; above 1, a missed "yes" costs more.
    label_smoothing : float
        Moves the labels this far from 0 and 1 towards 1/2; from 0 to 1.
    ignore_index : int or NaN, optional
        Elements with this label do not count; with NaN, a NaN label is a missing one.
    sample_weight : array, optional
        Factor of each element's loss, broadcastable to the logits.
    reduction : {"none", "sum", "mean"}
        "mean" is over elements, weighted by `sample_weight`.

    Returns
    -------
    array
        The loss in nats, in the shape of the logits, or a number if reduced.

    Raises
    ------
    TypeError
        For positional arguments, and dtypes that are no real numbers.
    ValueError
        For shapes that differ, and options out of their range.

    References
    ----------
    `tf.nn.sigmoid_cross_entropy_with_logits`; D. R. Cox, "The regression analysis of binary sequences", 1958.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> labels = np.array([[1.0, 0.0, 1.0]])
    >>> logits = np.array([[2.0, -1.0, 20.0]])
    >>> withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)  # shape (1, 3)
    array([[1.26928011e-01, 3.13261688e-01, 2.06115362e-09]])
    >>> labels[0, 1] = np.nan  # not known
    >>> withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits, ignore_index=np.nan)
    array([[1.26928011e-01, 0.00000000e+00, 2.06115362e-09]])
    """
    if positional or unknown or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(sigmoid_cross_entropy_with_logits, positional, locals())
    weights = () if pos_weight is None and sample_weight is None else (pos_weight, sample_weight)
    options = sigmoid_options((label_smoothing, ignore_index, reduction))
    return adapters[type(logits)].loss(options, labels, logits, weights, (), None, name)[0]


@overload
def weighted_cross_entropy_with_logits(
    *, labels: Any, logits: Tensor, **options: Unpack[WeightedKeywords]
) -> Tensor: ...
@overload
def weighted_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, **options: Unpack[WeightedKeywords]
) -> NDArray[Any]: ...
@by_keyword
def weighted_cross_entropy_with_logits(
    *positional: Any,
    labels: Any = REQUIRED,
    logits: Any = REQUIRED,
    pos_weight: Any = REQUIRED,
    name: str | None = None,
    ignore_index: float | None = None,
    **unknown: Any,
) -> Any:
    """Return the sigmoid loss in which "yes" weighs `pos_weight` times: TensorFlow's name for it.

    ``loss = q z softplus(−x) + (1 − z) softplus(x)``, elementwise, with q = `pos_weight`: the same as
    `sigmoid_cross_entropy_with_logits` with that argument, where everything is described, `ignore_index` too.

    References
    ----------
    `tf.nn.weighted_cross_entropy_with_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> withlogits.weighted_cross_entropy_with_logits(
    ...     labels=np.array([1.0, 0.0]), logits=np.array([0.0, 0.0]), pos_weight=3.0
    ... )
    array([2.07944154, 0.69314718])
    """
    if positional or unknown or labels is REQUIRED or logits is REQUIRED or pos_weight is REQUIRED:
        raise _wrong_call(weighted_cross_entropy_with_logits, positional, locals())
    weights = () if pos_weight is None else (pos_weight, None)
    options = sigmoid_options((0.0, ignore_index, "none"))
    return adapters[type(logits)].loss(options, labels, logits, weights, (), None, name)[0]


@overload
def softmax_cross_entropy_with_logits(
    *, labels: Any, logits: Tensor, reduction: Reduction = ..., **options: Unpack[SoftmaxKeywords]
) -> Tensor: ...
@overload
def softmax_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["none"] = ..., **options: Unpack[SoftmaxKeywords]
) -> NDArray[Any]: ...
@overload
def softmax_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["sum", "mean"], **options: Unpack[SoftmaxKeywords]
) -> np.floating[Any]: ...
@by_keyword
def softmax_cross_entropy_with_logits(
    *positional: Any,
    labels: Any = REQUIRED,
    logits: Any = REQUIRED,
    axis: int = -1,
    dim: int | None = None,
    name: str | None = None,
    class_weight: Any = None,
    class_offset: Any = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Any = None,
    reduction: Reduction = "none",
    **unknown: Any,
) -> Any:
    """Return the loss of exclusive classes, for labels that are distributions: one-hot, smoothed, mixed, distilled.

    For a row x of C logits, with w = `class_weight`, o = `class_offset`, ε = `label_smoothing`, τ = `temperature`,
    c = `softcap` and λ = `z_loss`::

        x    ← x + o, then c tanh(x/c), then x/τ
        t_j  = w_j ((1 − ε) labels_j + ε/C)
        loss = Σ_j t_j (logsumexp(x) − x_j) + λ logsumexp(x)²

    computed as Σ_j t_j (m − x_j) + (Σ t) r with m = max x and r = log Σ_j exp(x_j − m), of which every term is ≥ 0: the
    loss of a confident row keeps its digits.

    Parameters
    ----------
    labels : array
        A distribution for each row: the shape of the logits; or (C,) or (1, C), one for all rows. Rows that do not sum
        to 1 are taken as they are.
    logits : array
        Unnormalised log-probabilities, shape (..., C, ...) of rank 1 or more.
    axis : int
        The axis of the classes.
    dim : int, optional
        TensorFlow 1's word for `axis`.
    name : str, optional
        For the framework's profiler.
    class_weight : array, optional
        A factor for each class, (C,).
    class_offset : array, optional
        A number for each class, (C,), added to the logits before `softcap` and `temperature`: log π for logits to be
        adjusted to class frequencies π, −log Q for classes that were sampled with probability Q; −inf removes a class.
    label_smoothing : float
        The share of each label that is spread over all classes; from 0 to 1.
    temperature : float
        What the logits are divided by.
    softcap : float, optional
        Squashes the logits smoothly into (−c, c).
    z_loss : float
        Weight of the penalty that keeps logsumexp near 0.
    sample_weight : array, optional
        A factor for each row's loss, broadcastable to its shape.
    reduction : {"none", "sum", "mean"}
        "mean" divides by the weights of the rows that count, class weights included.

    Returns
    -------
    array
        The loss in nats, in the shape of the logits without the class axis, or a number if reduced.

    Raises
    ------
    TypeError
        For positional arguments, and dtypes that are no real numbers.
    ValueError
        For shapes that do not fit, and options out of their range.

    References
    ----------
    `tf.nn.softmax_cross_entropy_with_logits`; smoothing: Szegedy et al., "Rethinking the Inception architecture", 2016;
    z-loss: Chowdhery et al., "PaLM", 2022; softcap: Gemma Team, "Gemma 2", 2024; class offsets: Menon et al.,
    "Long-tail learning via logit adjustment", 2021, and Ren et al., "Balanced meta-softmax", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> labels = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    >>> logits = np.array([[20.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    >>> withlogits.softmax_cross_entropy_with_logits(labels=labels, logits=logits)  # shape (2,)
    array([4.12230724e-09, 8.61994804e-01])
    """
    if positional or unknown or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(softmax_cross_entropy_with_logits, positional, locals())
    weights: tuple[Any, ...] = ()
    if not (class_weight is None and sample_weight is None and class_offset is None):
        weights = (class_weight, sample_weight, class_offset)
    if dim is not None:
        axis = one_axis(axis, dim)
    options = softmax_options((axis, False, label_smoothing, None, temperature, softcap, z_loss, reduction))
    return adapters[type(logits)].loss(options, labels, logits, weights, (), None, name)[0]


@overload
def sparse_softmax_cross_entropy_with_logits(
    *, labels: Any, logits: Tensor, reduction: Reduction = ..., **options: Unpack[SparseKeywords]
) -> Tensor: ...
@overload
def sparse_softmax_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["none"] = ..., **options: Unpack[SparseKeywords]
) -> NDArray[Any]: ...
@overload
def sparse_softmax_cross_entropy_with_logits(
    *, labels: ArrayLike, logits: ArrayLike, reduction: Literal["sum", "mean"], **options: Unpack[SparseKeywords]
) -> np.floating[Any]: ...
@by_keyword
def sparse_softmax_cross_entropy_with_logits(
    *positional: Any,
    labels: Any = REQUIRED,
    logits: Any = REQUIRED,
    axis: int = -1,
    name: str | None = None,
    class_weight: Any = None,
    class_offset: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Any = None,
    reduction: Reduction = "none",
    **unknown: Any,
) -> Any:
    """Return the loss of exclusive classes, for labels that are class numbers.

    For a row x of C logits and label y, ``loss = logsumexp(x) − x_y``, computed as (m − x_y) + r: the loss that
    `softmax_cross_entropy_with_logits` has for the one-hot row of y, to the last bit in float64 and within 1 ulp in
    float32, where index labels have a faster path. The options are described there.

    Parameters
    ----------
    labels : array
        Integers in [0, C): the shape of the logits without the class axis, or with length 1 there, as (N,) or (N, 1)
        for logits (N, C).
    logits : array
        Unnormalised log-probabilities, shape (..., C, ...) of rank 1 or more.
    ignore_index : int, optional
        Rows with this label do not count; it need not be a class.

    Returns
    -------
    array
        The loss in nats, in the shape of the labels, or a number if reduced.

    Raises
    ------
    TypeError
        For positional arguments, labels that are no integers, logits that are no real numbers.
    ValueError
        For a label outside [0, C), naming the first; for shapes that do not fit, and options out of their range.

    References
    ----------
    `tf.nn.sparse_softmax_cross_entropy_with_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> logits = np.array([[20.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    >>> labels = np.array([0, 2, -1])
    >>> withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, ignore_index=-1)  # shape (3,)
    array([4.12230724e-09, 8.61994804e-01, 0.00000000e+00])
    """
    if positional or unknown or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(sparse_softmax_cross_entropy_with_logits, positional, locals())
    weights: tuple[Any, ...] = ()
    if not (class_weight is None and sample_weight is None and class_offset is None):
        weights = (class_weight, sample_weight, class_offset)
    options = softmax_options((axis, True, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction))
    return adapters[type(logits)].loss(options, labels, logits, weights, (), None, name)[0]


def _wrong_call(function: Callable[..., Any], positional: tuple[Any, ...], given: dict[str, Any]) -> TypeError:
    """For a call with positional arguments or unknown names, or without one that is required."""
    keywords, defaults = keywords_of(function), defaults_of(function)
    named = {name: given[name] for name in keywords if given[name] is not defaults.get(name, REQUIRED)}
    named |= given["unknown"]
    return errors.wrong_call(function.__name__, keywords, defaults, named, positional=bool(positional))
