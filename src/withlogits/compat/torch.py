"""PyTorch's own cross-entropies, with its signatures, defaults and rules, on the kernels of withlogits.

`cross_entropy`, `binary_cross_entropy_with_logits`, `CrossEntropyLoss` and `BCEWithLogitsLoss` stand in for those of
`torch.nn.functional` and `torch.nn`; `patch` puts the two functions there. What torch accepts is accepted, what it
refuses is refused with its own error, and the result has its dtype and is divided as it divides.

What differs, since torch has no answer there or a wrong one:

- The mean of nothing, of rows without a class, or of rows whose class weights are all 0, is 0 with gradient 0, not NaN.
- A row with `ignore_index`, and what has weight 0, costs 0 and has gradient 0 even if it holds NaN.
- A logit of −inf that a soft target, or a class weight of 0, gives no weight costs nothing, where torch says NaN.
- Confident losses and their gradients keep their digits: 4e-9 where torch says 0.
- Half precision is computed in float32 at least, and rounded once.
- Class indices may have any integer dtype, and class weights any real one.
- A class weight that asks for a gradient, and a negative `label_smoothing`, are errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from withlogits import errors

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise errors.not_installed(__name__, "PyTorch", "torch") from None

from torch import Tensor
from torch.nn import _reduction
from torch.overrides import handle_torch_function, has_torch_function_variadic

from withlogits.compat.patching import Patch, Places
from withlogits.frameworks import torch as front
from withlogits.frameworks.torch import traced
from withlogits.options import REDUCTIONS, sigmoid_options, softmax_options, weights_in_order

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Patch",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "patch",
]

# torch's own: they say what is wrong with a call that torch refuses, and come back when a patch is undone.
_functional: Any = torch.nn.functional
_softmax_of_torch: Callable[..., Tensor] = _functional.cross_entropy
_sigmoid_of_torch: Callable[..., Tensor] = _functional.binary_cross_entropy_with_logits

_NEW_WORDS = {_reduction.get_enum(reduction): reduction for reduction in sorted(REDUCTIONS)}


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of class indices or class probabilities, called as torch's.

    For a row x of C logits, with w = `weight` and ε = `label_smoothing`; an index stands for its one-hot row::

        t_j  = w_j ((1 − ε) target_j + ε/C)
        loss = Σ_j t_j (logsumexp(x) − x_j)

    Parameters
    ----------
    input : Tensor
        The logits, (C,), (N, C) or (N, C, d1, ...).
    target : Tensor
        Indices in [0, C), in the shape of the input without its class axis; or probabilities, in the input's shape.
    weight : Tensor, optional
        A factor for each class, (C,).
    size_average, reduce : bool, optional
        torch's old words for `reduction`.
    ignore_index : int
        Rows with this index do not count; not for probabilities.
    reduction : {"mean", "sum", "none"}
        "mean" divides as torch does: for indices by Σ w_y over the rows that count, for probabilities by the number of
        rows.
    label_smoothing : float
        The share of each target that is spread over all classes; from 0 to 1.

    Returns
    -------
    Tensor
        The loss in nats, in the dtype in which torch gives it.

    Raises
    ------
    RuntimeError, ValueError, IndexError, TypeError
        What torch raises for the same call. If withlogits can say more, its error is the cause.

    References
    ----------
    `torch.nn.functional.cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from withlogits.compat.torch import cross_entropy
    >>> cross_entropy(torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0]))  # torch says 0
    tensor(4.1223e-09)
    """
    if has_torch_function_variadic(input, target, weight):
        return handle_torch_function(
            cross_entropy, (input, target, weight), input, target, weight=weight, size_average=size_average,
            ignore_index=ignore_index, reduce=reduce, reduction=reduction, label_smoothing=label_smoothing,
        )  # fmt: skip
    if size_average is not None or reduce is not None or reduction not in REDUCTIONS:
        reduction = _in_new_words(size_average, reduce, reduction)
    try:
        return _of_either(input, target, weight, ignore_index, reduction, label_smoothing)
    except (AttributeError, TypeError, ValueError) as error:
        call = (input, target, weight, None, ignore_index, None, reduction, label_smoothing)
        raise _torchs(error, _softmax_of_torch, call) from _cause(error)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Sigmoid cross-entropy of each element, called as torch's.

    Elementwise, with z = `target`, q = `pos_weight` and softplus(x) = log(1 + exp(x))::

        loss = weight (q z softplus(−x) + (1 − z) softplus(x))

    Parameters
    ----------
    input : Tensor
        The logits, any shape.
    target : Tensor
        How true each is, from 0 to 1, in the input's shape; floating-point.
    weight : Tensor, optional
        A factor for each loss, broadcastable to the input.
    size_average, reduce : bool, optional
        torch's old words for `reduction`.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements, whatever they weigh, as torch does.
    pos_weight : Tensor, optional
        A factor for the loss of what is true, broadcastable to the input.

    Returns
    -------
    Tensor
        The loss in nats, in the dtype in which torch gives it: the target's.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        What torch raises for the same call. If withlogits can say more, its error is the cause.

    References
    ----------
    `torch.nn.functional.binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import torch
    >>> from withlogits.compat.torch import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(torch.tensor([-20.0]), torch.tensor([0.0]))  # torch says 0
    tensor(2.0612e-09)
    """
    if has_torch_function_variadic(input, target, weight, pos_weight):
        return handle_torch_function(
            binary_cross_entropy_with_logits, (input, target, weight, pos_weight), input, target, weight=weight,
            size_average=size_average, reduce=reduce, reduction=reduction, pos_weight=pos_weight,
        )  # fmt: skip
    if size_average is not None or reduce is not None or reduction not in REDUCTIONS:
        reduction = _in_new_words(size_average, reduce, reduction)
    try:
        return _of_answers(input, target, weight, reduction, pos_weight)
    except (AttributeError, TypeError, ValueError) as error:
        call = (input, target, weight, None, None, reduction, pos_weight)
        raise _torchs(error, _sigmoid_of_torch, call) from _cause(error)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss` in all but its arithmetic, which is that of `cross_entropy` here.

    Examples
    --------
    >>> import torch
    >>> from withlogits.compat.torch import CrossEntropyLoss
    >>> CrossEntropyLoss(label_smoothing=0.1)(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2]))
    tensor(0.5076)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of `input`, the logits, under `target`."""
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """`torch.nn.BCEWithLogitsLoss` in all but its arithmetic: see `binary_cross_entropy_with_logits` here.

    Examples
    --------
    >>> import torch
    >>> from withlogits.compat.torch import BCEWithLogitsLoss
    >>> BCEWithLogitsLoss(reduction="none")(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    tensor([0.1269, 0.3133])
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of `input`, the logits, under `target`."""
        return binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


# ------------------------------------------------------------------------------------------------------------- losses


class _Refused(TypeError):
    """For what withlogits would take, and torch refuses."""


@traced.checks_shapes
def _of_either(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, label_smoothing: float
) -> Tensor:
    """`cross_entropy` of class probabilities, which have the input's shape, or indices."""
    shape, of_labels = input.shape, target.shape
    axis = 0 if len(shape) == 1 else 1
    if shape == of_labels:
        return _of_probabilities(input, target, axis, weight, ignore_index, reduction, label_smoothing)
    if axis and len(of_labels) != len(shape) - 1:  # (N, 1) for logits (N, C), or one row of labels for all
        raise _Refused
    if 0 in shape[axis : axis + 1]:
        return _of_no_class(input, target, axis, weight, reduction, ignore_index)
    loss = _softmax(True, target, input, axis, weight, ignore_index, reduction, label_smoothing)
    return loss if loss.dtype is input.dtype else _in_dtype(input.dtype, loss)


def _of_probabilities(
    input: Tensor,
    target: Tensor,
    axis: int,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """`cross_entropy` of class probabilities."""
    if ignore_index >= 0 or not target.is_floating_point():
        raise _Refused
    dtype = torch.promote_types(input.dtype, target.dtype)
    if weight is not None:
        dtype = torch.promote_types(dtype, weight.dtype)
    if dtype is torch.float64:
        input = input.to(dtype)
    if 0 in input.shape[axis : axis + 1]:
        return _in_dtype(dtype, _of_no_class(input, target, axis, weight, reduction, None))
    by_number = weight is not None and reduction == "mean"  # of the rows, whatever they weigh
    how = "sum" if by_number else reduction
    loss = _softmax(False, target, input, axis, weight, None, how, label_smoothing)
    return _in_dtype(dtype, loss / max(input.numel() // input.shape[axis], 1) if by_number else loss)


def _of_no_class(
    input: Tensor, target: Tensor, axis: int, weight: Tensor | None, reduction: str, ignore_index: int | None
) -> Tensor:
    """`cross_entropy` of zero classes: 0 for each row, and NaN where an index that is not ignored cannot be refused."""
    if not input.is_floating_point() or input.device != target.device or (weight is not None and weight.shape != (0,)):
        raise _Refused
    if ignore_index is None:
        loss = (input * target).sum(axis)
    else:
        loss = input.sum(axis)
        if target.shape != loss.shape or target.is_floating_point() or input.dim() > 2:
            raise _Refused
        wrong = target != ignore_index
        if target.is_cpu and front.eager.no_transforms() and bool(wrong.any()):
            raise _Refused
        loss = torch.where(wrong, torch.nan, loss)
    return loss if reduction == "none" else loss.sum()


def _softmax(
    sparse: bool,
    labels: Tensor,
    logits: Tensor,
    axis: int,
    weight: Tensor | None,
    ignore_index: int | None,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """The loss, for class weights of any sign."""
    options = softmax_options((axis, sparse, label_smoothing, ignore_index, 1.0, None, 0.0, reduction))
    weight = None if weight is None else _constant(weight)
    loss: Tensor
    try:
        weights = () if weight is None else weights_in_order(options, class_weight=weight)
        loss = front.loss(options, labels, logits, weights)[0]
    except ValueError:
        classes = logits.shape[axis : axis + 1]
        if weight is None or weight.shape != classes or not _of_any_sign(logits, classes, weight):
            raise
        loss = traced.loss(options, labels, logits, *weights_in_order(options, class_weight=weight))
    return loss


@traced.checks_shapes
def _of_answers(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, pos_weight: Tensor | None
) -> Tensor:
    """`binary_cross_entropy_with_logits`, for weights of any sign."""
    if not target.is_floating_point():
        raise _Refused
    logits = input.to(torch.float64) if target.dtype is torch.float64 else input
    weight, pos_weight = (None if w is None else _constant(w) for w in (weight, pos_weight))
    if pos_weight is not None and pos_weight.dim() == 1 and logits.dim() > 3:
        pos_weight = pos_weight[None]  # for torch the last axis is meant
    by_number = weight is not None and reduction == "mean"  # of the elements, whatever they weigh
    how = "sum" if by_number else reduction
    options = sigmoid_options((0.0, None, how))
    try:
        weights = () if weight is None and pos_weight is None else (pos_weight, weight)
        loss = front.loss(options, target, logits, weights)[0]
    except ValueError:
        if target.shape != logits.shape or not _of_any_sign(
            logits, logits.shape, *[w for w in (weight, pos_weight) if w is not None]
        ):
            raise
        weight, pos_weight = (None if w is None else w.expand(logits.shape) for w in (weight, pos_weight))
        loss = traced.loss(options, target, logits, pos_weight, weight)
    return _in_dtype(target.dtype, loss / max(logits.numel(), 1) if by_number else loss)


def _constant(weight: Tensor) -> Tensor:
    """A weight as it is meant: what asks for a gradient asks in vain where gradients are off."""
    if not isinstance(weight, Tensor):  # withlogits takes lists and numbers
        raise _Refused
    return weight.detach() if weight.requires_grad and not torch.is_grad_enabled() else weight


def _of_any_sign(logits: Tensor, shape: torch.Size, *weights: Tensor) -> bool:
    """Whether these are weights that torch takes and withlogits does not: some are negative, or not finite."""
    for weight in weights:
        if weight.device != logits.device or weight.layout is not torch.strided or weight.is_complex():
            return False
        if weight.requires_grad or weight.dim() > len(shape):
            return False
        if any(mine not in (1, theirs) for mine, theirs in zip(weight.shape[::-1], shape[::-1], strict=False)):
            return False
    return any(not bool(((weight >= 0) & (weight < torch.inf)).all()) for weight in weights)


def _in_dtype(dtype: torch.dtype, loss: Tensor) -> Tensor:
    """As torch returns it: under autocast not in half precision."""
    if loss.dtype is dtype:
        return loss
    if dtype.itemsize == 2 and torch.is_autocast_enabled(loss.device.type):
        return loss.to(torch.float32)
    return loss.to(dtype)


def _in_new_words(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that torch reads out of its old words; its warnings, and its error for no word at all."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    return _NEW_WORDS[_reduction.get_enum(reduction)]


# ------------------------------------------------------------------------------------------------------------- errors


def _torchs(error: Exception, theirs: Callable[..., Tensor], call: tuple[Any, ...]) -> Exception:
    """The error that torch has for this call; `error` itself if it has none.

    Off the CPU what is wrong is never a value, and torch is not shown any: a class out of range ends a CUDA context.
    """
    input, target, *rest = call
    if isinstance(target, Tensor) and not target.is_cpu:
        target = torch.zeros_like(target)
    try:
        theirs(input, target, *rest)
    except Exception as found:
        return found
    return error


def _cause(error: Exception) -> Exception | None:
    return None if isinstance(error, _Refused) else error


# ------------------------------------------------------------------------------------------------------------- patch

_places = Places(
    (_functional, "cross_entropy", cross_entropy),
    (_functional, "binary_cross_entropy_with_logits", binary_cross_entropy_with_logits),
)


def patch() -> Patch:
    """Put `cross_entropy` and `binary_cross_entropy_with_logits` into `torch.nn.functional`, until undone.

    `torch.nn.CrossEntropyLoss` and `torch.nn.BCEWithLogitsLoss` look their functions up there at each call: all of
    them, made before or after, compute by withlogits from then on, and remain torch's classes. Only a name that was
    imported before (``from torch.nn.functional import cross_entropy``) keeps torch's function.

    Returns
    -------
    Patch
        Call it to undo, or use it in ``with``. Patches nest: torch's functions come back with the last one.

    Examples
    --------
    >>> import torch
    >>> from withlogits.compat.torch import patch
    >>> loss = torch.nn.CrossEntropyLoss()
    >>> logits, labels = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    >>> with patch():
    ...     loss(logits, labels)
    tensor(4.1223e-09)
    >>> loss(logits, labels)
    tensor(0.)
    >>> undo = patch()
    >>> loss(logits, labels)
    tensor(4.1223e-09)
    >>> undo()
    """
    return Patch(_places)
