"""`value_and_grad`: a loss and its gradient in one pass over the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, overload

from numpy.typing import ArrayLike, NDArray

from withlogits import errors
from withlogits.dispatch import adapter
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
)
from withlogits.memo import keep
from withlogits.options import (
    Options,
    SigmoidOptions,
    SoftmaxOptions,
    Tensor,
    Wrt,
    as_written,
    defaults_of,
    field_names,
    keywords_of,
    one_axis,
    sigmoid_options,
    softmax_options,
    wrt_names,
)


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
    """Return a function that computes a loss and its gradient, in one pass over the logits.

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

    @as_written
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
            value, gradients = adapter(logits).loss(options, given["labels"], logits, (), names)
            return value, gradients[0] if alone else gradients
        every = {**base, **given}
        if every["dim"] is not None:
            every["axis"] = one_axis(every["axis"], every["dim"])
        weights = () if weight_names.isdisjoint(given) else weights_of(every)
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
