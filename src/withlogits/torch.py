"""The losses as PyTorch modules: options are given once, at construction, and checked there.

`SigmoidCrossEntropy`, `SoftmaxCrossEntropy` and `SparseSoftmaxCrossEntropy` have the options of the functions of the
same names, with the same defaults, and their calls take `labels`, `logits` and `sample_weight` by keyword.

Weights are buffers: they follow the module to its device, and stand in its state_dict. A checkpoint then says which
loss it was trained with, and loading it into a module with other weights does not go unnoticed; torch's own losses keep
theirs in the same way. They are copies, so that loading a checkpoint never writes into the caller's tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from withlogits import arguments

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise arguments.not_installed(__name__, "PyTorch", "torch") from None

from torch import Tensor, nn

from withlogits import losses
from withlogits.frameworks import torch as front

__all__ = ["SigmoidCrossEntropy", "SoftmaxCrossEntropy", "SparseSoftmaxCrossEntropy"]

Forward = TypeVar("Forward", bound=Callable[..., Tensor])


def _by_keyword(forward: Forward) -> Forward:
    """Make a positional call of the module a TypeError that shows the right call."""
    names, defaults = arguments.keywords_of(forward), arguments.defaults_of(forward)

    @wraps(forward)
    def call(self: nn.Module, *args: Any, **given: Any) -> Tensor:
        if args:
            title = f"{type(self).__name__}(...)"
            raise arguments.wrong_call(title, names, defaults, given, positional=True)
        return forward(self, **given)

    return call  # type: ignore[return-value]


class _Loss(nn.Module):
    """A module whose text shows the options that are not the defaults."""

    def _register_weight(self, name: str, given: Any) -> None:
        """Checked weights, copied, as a buffer."""
        weight = None
        if given is not None:
            beside = given if isinstance(given, Tensor) else torch.empty(0)
            weight = front.checked_weight(name, given, beside, plain=beside.is_cpu).clone()
            if not hasattr(given, "dtype") and weight.is_floating_point():  # numbers: float64 only where they need it
                narrow = weight.to(torch.float32)
                weight = narrow if narrow.is_meta or bool((narrow == weight).all()) else weight
            if name == "class_weight":
                arguments.class_weight_shape(tuple(weight.shape), weight.shape[-1] if weight.dim() else 1)
        self.register_buffer(name, weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the weights; a device that has no float64 refuses those of numbers and lists, and takes float32."""
        try:
            return super()._apply(fn, recurse)
        except TypeError:
            for name, weight in self._buffers.items():
                self._buffers[name] = None if weight is None else weight.to(torch.float32)
            return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """The options that are not the defaults; of weights the shape."""
        shown = []
        for name, default in arguments.defaults_of(type(self).__init__).items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                shown.append(f"{name}=tensor of shape {tuple(value.shape)}")
            elif value != default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


class SigmoidCrossEntropy(_Loss):
    """The loss of independent yes/no questions: `withlogits.sigmoid_cross_entropy_with_logits` as a module.

    Elementwise, with softplus(x) = log(1 + exp(x)), q = `pos_weight` and ε = `label_smoothing`::

        z    = (1 − ε) labels + ε/2
        loss = q z softplus(−x) + (1 − z) softplus(x)

    Called with `labels` and `logits` of one shape, and `sample_weight`, broadcastable to it. The loss has that shape
    too, or none if reduced; it is float64 for float64 logits and float32 otherwise.

    Parameters
    ----------
    pos_weight : Tensor or float, optional
        Factor of the loss of what is true, broadcastable to the logits; a buffer.
    label_smoothing : float
        Moves the labels this far from 0 and 1 towards 1/2; from 0 to 1.
    reduction : {"none", "sum", "mean"}
        "mean" is over elements, weighted by `sample_weight`.

    Raises
    ------
    TypeError
        For positional arguments, and dtypes that are no real numbers.
    ValueError
        For options out of their range, and shapes that differ.

    Examples
    --------
    >>> import torch
    >>> from withlogits.torch import SigmoidCrossEntropy
    >>> loss = SigmoidCrossEntropy(pos_weight=3.0, reduction="mean")
    >>> loss
    SigmoidCrossEntropy(pos_weight=tensor of shape (), reduction='mean')
    >>> loss(labels=torch.tensor([1.0, 0.0]), logits=torch.tensor([0.0, 0.0]))
    tensor(1.3863)
    """

    pos_weight: Tensor | None

    def __init__(self, *, pos_weight: Any = None, label_smoothing: float = 0.0, reduction: str = "none") -> None:
        super().__init__()
        options = arguments.checked_sigmoid_options(label_smoothing, reduction, ())
        self.label_smoothing, self.reduction = options.label_smoothing, options.reduction
        self._register_weight("pos_weight", pos_weight)

    @_by_keyword
    def forward(self, *, labels: Tensor, logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss in nats."""
        loss: Tensor = losses.sigmoid_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            pos_weight=self.pos_weight,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            reduction=self.reduction,
        )
        return loss


class SoftmaxCrossEntropy(_Loss):
    """The loss of exclusive classes for labels that are distributions: `softmax_cross_entropy_with_logits`.

    For a row x of C logits, with w = `class_weight`, ε = `label_smoothing`, τ = `temperature`, c = `softcap` and
    λ = `z_loss`::

        x    ← c tanh(x/c), then x/τ
        t_j  = w_j ((1 − ε) labels_j + ε/C)
        loss = Σ_j t_j (logsumexp(x) − x_j) + λ logsumexp(x)²

    Called with `labels` and `logits`, both (..., C, ...), and `sample_weight`, broadcastable to the loss: the shape of
    the logits without the class axis, or none if reduced. The loss is float64 for float64 logits and float32 otherwise.

    Parameters
    ----------
    axis : int
        The axis of the classes. torch's own losses have them on axis 1.
    class_weight : Tensor, optional
        A factor for each class, (C,); a buffer.
    label_smoothing : float
        The share of each label that is spread over all classes; from 0 to 1.
    temperature : float
        What the logits are divided by.
    softcap : float, optional
        The logits are bent into (−c, c).
    z_loss : float
        Weight of the penalty that keeps logsumexp near 0.
    reduction : {"none", "sum", "mean"}
        "mean" divides by the weights of the rows that count, class weights included.

    Raises
    ------
    TypeError
        For positional arguments, and dtypes that are no real numbers.
    ValueError
        For options out of their range, and shapes that do not fit.

    Examples
    --------
    >>> import torch
    >>> from withlogits.torch import SoftmaxCrossEntropy
    >>> loss = SoftmaxCrossEntropy()
    >>> loss(labels=torch.tensor([[1.0, 0.0, 0.0]]), logits=torch.tensor([[20.0, 0.0, 0.0]]))
    tensor([4.1223e-09])
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        axis: int = -1,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        reduction: str = "none",
    ) -> None:
        super().__init__()
        options = arguments.checked_softmax_options(
            False, _axis(axis), None, label_smoothing, None, temperature, softcap, z_loss, reduction, ()
        )
        self.axis, self.label_smoothing = options.axis, options.label_smoothing
        self.temperature, self.softcap, self.z_loss = options.temperature, options.softcap, options.z_loss
        self.reduction = options.reduction
        self._register_weight("class_weight", class_weight)

    @_by_keyword
    def forward(self, *, labels: Tensor, logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss in nats."""
        loss: Tensor = losses.softmax_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            axis=self.axis,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            sample_weight=sample_weight,
            reduction=self.reduction,
        )
        return loss


class SparseSoftmaxCrossEntropy(_Loss):
    """The loss of exclusive classes for labels that are class numbers: `sparse_softmax_cross_entropy_with_logits`.

    For a row x of C logits and label y, ``loss = logsumexp(x) − x_y``; the options change it as they change that of
    `SoftmaxCrossEntropy` for the one-hot row of y, and are described there.

    Called with `labels`, integers in [0, C) of the shape of the logits without the class axis, or with length 1 there;
    `logits` (..., C, ...); and `sample_weight`, broadcastable to the loss, which has the shape of the labels, or none
    if reduced. The loss is float64 for float64 logits and float32 otherwise.

    Parameters
    ----------
    axis, class_weight, label_smoothing, temperature, softcap, z_loss, reduction
        As for `SoftmaxCrossEntropy`.
    ignore_index : int, optional
        Rows with this label do not count; it need not be a class.

    Raises
    ------
    TypeError
        For positional arguments, labels that are no integers, logits that are no real numbers.
    ValueError
        For options out of their range, shapes that do not fit, and on the CPU a label outside [0, C).

    Examples
    --------
    >>> import torch
    >>> from withlogits.torch import SparseSoftmaxCrossEntropy
    >>> loss = SparseSoftmaxCrossEntropy(ignore_index=-1, reduction="mean")
    >>> loss
    SparseSoftmaxCrossEntropy(ignore_index=-1, reduction='mean')
    >>> loss(labels=torch.tensor([0, -1]), logits=torch.tensor([[20.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    tensor(4.1223e-09)
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        axis: int = -1,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        reduction: str = "none",
    ) -> None:
        super().__init__()
        options = arguments.checked_softmax_options(
            True, _axis(axis), None, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction, ()
        )
        self.axis, self.label_smoothing, self.ignore_index = options.axis, options.label_smoothing, options.ignore_index
        self.temperature, self.softcap, self.z_loss = options.temperature, options.softcap, options.z_loss
        self.reduction = options.reduction
        self._register_weight("class_weight", class_weight)

    @_by_keyword
    def forward(self, *, labels: Tensor, logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss in nats."""
        loss: Tensor = losses.sparse_softmax_cross_entropy_with_logits(
            labels=labels,
            logits=logits,
            axis=self.axis,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            sample_weight=sample_weight,
            reduction=self.reduction,
        )
        return loss


def _axis(axis: int) -> int:
    """An integer, that some tensor may have as an axis: torch's have 64 at most. The sign is kept."""
    arguments.class_axis(axis, (1,) * 64)
    return axis
