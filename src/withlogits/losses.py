"""The public losses: signature, documentation, options, and one call of the adapter of the caller's arrays.

All of them compute −Σ t log p for target weights t and the probabilities p that the logits stand for, in nats, without
ever forming p. What they share:

- Arguments go by keyword; a positional call is a TypeError that shows the right call.
- Logits are float16, bfloat16, float32 or float64, of any rank and strides. The loss is float64 for float64 logits and
  float32 otherwise; gradients have the dtype of what they belong to. No array is changed.
- `reduction` is "none", "sum" or "mean". With s the sample weight, the mean is Σ sᵢ lossᵢ / Σ sᵢ Wᵢ over what counts;
  Wᵢ = Σ_j w_j z_j is the class weight of row i, and 1 without `class_weight`. The mean of nothing is 0.
- What has `sample_weight` 0, or carries `ignore_index`, costs exactly 0 and has gradient 0, even if it holds NaN.
- NaN in the logits gives NaN. A logit of −inf is a class that cannot occur: free, unless a label wants it (then inf).
- `name` labels the call in the framework's profiler, where there is one.
- PyTorch tensors give PyTorch tensors on the same device, differentiable by logits and labels as often as wanted.
  Where a look at the values would make the host wait for a device, a label out of range gives NaN and no gradient
  instead of an error, and weights are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from withlogits import errors
from withlogits.dispatch import adapter
from withlogits.memo import keep
from withlogits.options import (
    REQUIRED,
    Options,
    Reduction,
    SigmoidKeywords,
    SigmoidOptions,
    SoftmaxKeywords,
    SoftmaxOptions,
    SparseKeywords,
    Tensor,
    WeightedKeywords,
    Wrt,
    by_keyword,
    defaults_of,
    field_names,
    keywords_of,
    one_axis,
    sigmoid_options,
    softmax_options,
    wrt_names,
)


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
    sample_weight: Any = None,
    reduction: Reduction = "none",
) -> Any:
    """The loss of independent yes/no questions: several classes may be true of one example at once.

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
        Factor of the loss of what is true, broadcastable to the logits; > 1 makes a missed "yes" dearer.
    label_smoothing : float
        Moves the labels this far from 0 and 1 towards 1/2; from 0 to 1.
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
    """
    if positional or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(sigmoid_cross_entropy_with_logits, positional, locals())
    weights = None if pos_weight is None and sample_weight is None else (pos_weight, sample_weight)
    options = sigmoid_options((label_smoothing, reduction))
    return adapter(logits).loss(options, labels, logits, weights, (), None, name)[0]


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
) -> Any:
    """The sigmoid loss in which "yes" weighs `pos_weight` times: TensorFlow's name for it.

    ``loss = q z softplus(−x) + (1 − z) softplus(x)``, elementwise, with q = `pos_weight`: the same as
    `sigmoid_cross_entropy_with_logits` with that argument, where everything is described.

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
    if positional or labels is REQUIRED or logits is REQUIRED or pos_weight is REQUIRED:
        raise _wrong_call(weighted_cross_entropy_with_logits, positional, locals())
    weights = None if pos_weight is None else (pos_weight, None)
    return adapter(logits).loss(sigmoid_options((0.0, "none")), labels, logits, weights, (), None, name)[0]


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
) -> Any:
    """The loss of exclusive classes, for labels that are distributions: one-hot, smoothed, mixed, distilled.

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
        The logits are bent into (−c, c).
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
    if positional or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(softmax_cross_entropy_with_logits, positional, locals())
    weights = None
    if not (class_weight is None and sample_weight is None and class_offset is None):
        weights = (class_weight, sample_weight, class_offset)
    if dim is not None:
        axis = one_axis(axis, dim)
    options = softmax_options((axis, False, label_smoothing, None, temperature, softcap, z_loss, reduction))
    return adapter(logits).loss(options, labels, logits, weights, (), None, name)[0]


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
) -> Any:
    """The loss of exclusive classes, for labels that are class numbers.

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
    if positional or labels is REQUIRED or logits is REQUIRED:
        raise _wrong_call(sparse_softmax_cross_entropy_with_logits, positional, locals())
    weights = None
    if not (class_weight is None and sample_weight is None and class_offset is None):
        weights = (class_weight, sample_weight, class_offset)
    options = softmax_options((axis, True, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction))
    return adapter(logits).loss(options, labels, logits, weights, (), None, name)[0]


def _wrong_call(function: Callable[..., Any], positional: tuple[Any, ...], given: dict[str, Any]) -> TypeError:
    """For a call with positional arguments, or without one that is required."""
    keywords, defaults = keywords_of(function), defaults_of(function)
    named = {name: given[name] for name in keywords if given[name] is not defaults.get(name, REQUIRED)}
    return errors.wrong_call(function.__name__, keywords, defaults, named, positional=bool(positional))


class ValueAndGrad(Protocol):
    """A loss with its gradient by one array, as `value_and_grad` makes it."""

    @overload
    def __call__(self, *, labels: Any, logits: Tensor, **given: Any) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, *, labels: ArrayLike, logits: ArrayLike, **given: Any) -> tuple[Any, NDArray[Any]]: ...


class ValueAndGrads(Protocol):
    """A loss with its gradients by several arrays, as `value_and_grad` makes it."""

    @overload
    def __call__(self, *, labels: Any, logits: Tensor, **given: Any) -> tuple[Tensor, tuple[Tensor, ...]]: ...
    @overload
    def __call__(
        self, *, labels: ArrayLike, logits: ArrayLike, **given: Any
    ) -> tuple[Any, tuple[NDArray[Any], ...]]: ...


@overload
def value_and_grad(loss: Callable[..., Any], wrt: Wrt = ...) -> ValueAndGrad: ...
@overload
def value_and_grad(loss: Callable[..., Any], wrt: tuple[Wrt, ...]) -> ValueAndGrads: ...
def value_and_grad(loss: Callable[..., Any], wrt: Any = "logits") -> Any:
    """A function that gives a loss and its gradient, in one pass over the logits.

    Parameters
    ----------
    loss : function
        One of the four losses of this library.
    wrt : "logits", "labels" or a tuple of them
        What to differentiate by. Class indices have no gradient. Of PyTorch tensors, value and gradient carry no graph.

    Returns
    -------
    function
        It takes the arguments of the loss by keyword, and `out`: an array for the gradient of the logits, with their
        shape and dtype, which may be the logits themselves (they are then overwritten; nothing else ever is).
        It returns (value, gradient), or (value, (gradient, ...)) if `wrt` is a tuple. With reduction "none" the
        gradient is that of the sum of the losses.

    Raises
    ------
    TypeError
        For another function than these losses; at the call, what the loss raises.
    ValueError
        For another `wrt`; at the call, what the loss raises, and for an `out` that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    >>> value, gradient = both(labels=np.array([0]), logits=np.array([[20.0, 0.0, 0.0]]), reduction="mean")
    >>> value, gradient  # the label's gradient is −4.12e-9, not 0
    (np.float64(4.12230724e-09), array([[-4.12230723e-09,  2.06115361e-09,  2.06115361e-09]]))
    """
    before = getattr(loss, "before_call", None)  # what `checked` does ahead of each call
    try:
        family = _FAMILIES[loss if before is None else loss.__wrapped__]  # type: ignore[attr-defined]
    except (KeyError, TypeError):
        raise errors.not_a_loss(loss) from None
    names = wrt_names(wrt, sparse=family.given.get("sparse", False))
    title = f"value_and_grad({loss.__name__})"
    keywords = (*keywords_of(loss), "out")
    defaults = {**defaults_of(loss), "out": None}
    known, required = frozenset(keywords), frozenset(keywords) - defaults.keys()
    alone = not isinstance(wrt, tuple)
    base = {**family.given, **defaults}
    make_options, values_of, weights_of, weight_names = (
        family.options,
        family.values_of,
        family.weights_of,
        family.weights,
    )
    right: dict[tuple[str, ...], bool] = {}  # the names of calls that were right
    simple: dict[str, Options] = {}  # the options of calls with labels and logits, and a reduction at most

    def call(*args: Any, **given: Any) -> tuple[Any, Any]:
        """The loss and its gradient, for the arguments of the loss, by keyword, and `out`."""
        if args or tuple(given) not in right:
            if args or not required <= given.keys() <= known:
                raise errors.wrong_call(title, keywords, defaults, given, positional=bool(args))
            keep(right, tuple(given), True)
        if before is not None:
            before(given)
        logits, options, reduction = given["logits"], None, None
        if len(given) == 2:
            reduction = "none"
        elif len(given) == 3 and type(given.get("reduction")) is str:
            reduction = given["reduction"]
        if reduction is not None:
            options = simple.get(reduction)
        if options is not None:
            value, gradients = adapter(logits).loss(options, given["labels"], logits, None, names)
            return value, gradients[0] if alone else gradients
        every = {**base, **given}
        if every["dim"] is not None:
            every["axis"] = one_axis(every["axis"], every["dim"])
        weights = None if weight_names.isdisjoint(given) else weights_of(every)
        options = make_options(values_of(every))
        if reduction is not None:
            simple[options.reduction] = options
        value, gradients = adapter(logits).loss(
            options, given["labels"], logits, weights, names, every["out"], every["name"]
        )
        return value, gradients[0] if alone else gradients

    call.__name__ = call.__qualname__ = title
    return call


class _Family(NamedTuple):
    """How the keywords of a loss become options and weights."""

    options: Callable[[tuple[Any, ...]], Options]
    values_of: Callable[[dict[str, Any]], tuple[Any, ...]]
    weights_of: Callable[[dict[str, Any]], tuple[Any, ...]]
    weights: frozenset[str]
    given: dict[str, Any]  # what the loss does not ask its caller for


def _family(make: Callable[[tuple[Any, ...]], Options], kind: type[Options], **given: Any) -> _Family:
    names = (*field_names(kind), "reduction")

    def values(every: dict[str, Any]) -> tuple[Any, ...]:  # torch.compile does not follow itemgetter
        return tuple([every[name] for name in names])

    def weights(every: dict[str, Any]) -> tuple[Any, ...]:
        return tuple([every[name] for name in kind.WEIGHTS])

    return _Family(make, values, weights, frozenset(kind.WEIGHTS), {"dim": None, **given})


_FAMILIES: dict[Callable[..., Any], _Family] = {
    sigmoid_cross_entropy_with_logits: _family(sigmoid_options, SigmoidOptions),
    weighted_cross_entropy_with_logits: _family(
        sigmoid_options, SigmoidOptions, label_smoothing=0.0, sample_weight=None, reduction="none"
    ),
    softmax_cross_entropy_with_logits: _family(softmax_options, SoftmaxOptions, sparse=False, ignore_index=None),
    sparse_softmax_cross_entropy_with_logits: _family(softmax_options, SoftmaxOptions, sparse=True),
}
