"""The losses as PyTorch modules: options are given once, at construction, and checked there.

`SigmoidCrossEntropy`, `SoftmaxCrossEntropy` and `SparseSoftmaxCrossEntropy` have the options of the functions of the
same names, with the same defaults, and their calls take `labels`, `logits` and `sample_weight` by keyword.

Weights are buffers: they follow the module to its device, and stand in its state_dict. A checkpoint then says which
loss it was trained with, and loading it into a module with other weights does not go unnoticed; torch's own losses keep
theirs in the same way. They are copies, so that loading a checkpoint never writes into the caller's tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Never, Unpack

from withlogits import errors

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise errors.not_installed(__name__, "PyTorch", "torch") from None

from torch import Tensor, nn

from withlogits import losses, shapes
from withlogits.frameworks.torch.checks import checked_weight
from withlogits.options import (
    REQUIRED,
    Options,
    Reduction,
    SigmoidOptions,
    SigmoidSettings,
    SoftmaxOptions,
    SoftmaxSettings,
    SparseSettings,
    by_keyword,
    defaults_of,
    field_names,
    integer_if_possible,
)

__all__ = ["SigmoidCrossEntropy", "SoftmaxCrossEntropy", "SparseSoftmaxCrossEntropy"]

AT_CALLS = ("labels", "logits", "sample_weight")  # what a call takes; "name" and "dim" no module has


class _Loss(nn.Module):
    """A loss whose options are given once; its text shows those that are not the defaults."""

    _function: ClassVar[Callable[..., Any]]
    _kind: ClassVar[type[Options]]
    _given: ClassVar[dict[str, Any]] = {}  # options that the function does not take
    _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        defaults = defaults_of(cls._function)
        cls._defaults = {name: default for name, default in defaults.items() if name not in (*AT_CALLS, "name", "dim")}
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=d) for name, d in cls._defaults.items()]
        )

    def _take(self, positional: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Check the options, and keep them as attributes and buffers."""
        title, names = type(self).__name__, tuple(self._defaults)
        if positional or not given.keys() <= self._defaults.keys():
            raise errors.wrong_call(title, names, self._defaults, given, positional=bool(positional))
        chosen = {**self._defaults, **given}
        if "axis" in chosen:
            # some tensor has to have such an axis: torch's have 64 at most; the sign is kept
            shapes.class_axis(chosen["axis"], (1,) * 64)
            chosen["axis"] = integer_if_possible(chosen["axis"])
        every = {**self._given, **chosen}
        fields = (*field_names(self._kind), "reduction")
        options = self._kind.checked(tuple(every[name] for name in fields))
        for name in chosen:
            if name in fields:
                setattr(self, name, getattr(options, name))
            else:
                self._register_weight(name, chosen[name])

    def _register_weight(self, name: str, given: Any) -> None:
        """Checked weights, copied, as a buffer."""
        weight = None
        if given is not None:
            beside = given if isinstance(given, Tensor) else torch.empty(0, device="cpu")
            weight = checked_weight(name, given, beside, plain=beside.is_cpu).clone()
            if not hasattr(given, "dtype") and weight.is_floating_point():  # numbers: float64 only where they need it
                narrow = weight.to(torch.float32)
                weight = narrow if narrow.is_meta or bool((narrow == weight).all()) else weight
            if name in SoftmaxOptions.PER_CLASS:
                classes = weight.shape[-1] if weight.dim() else 1
                if weight.shape != (classes,):
                    raise errors.class_weight_shape(name, tuple(weight.shape), classes)
        self.register_buffer(name, weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the weights; a device that has no float64 refuses those of numbers and lists, and takes float32."""
        try:
            return super()._apply(fn, recurse)
        except TypeError:
            for name, weight in self._buffers.items():
                self._buffers[name] = None if weight is None else weight.to(torch.float32)
            return super()._apply(fn, recurse)

    if TYPE_CHECKING:  # to type checkers torch's own takes and returns anything

        def __call__(self, *, labels: Tensor, logits: Tensor, sample_weight: Any = None) -> Tensor: ...

    @by_keyword
    def forward(
        self, *positional: Any, labels: Tensor = REQUIRED, logits: Tensor = REQUIRED, sample_weight: Any = None
    ) -> Tensor:
        """Return the loss in nats."""
        if positional or labels is REQUIRED or logits is REQUIRED:
            here = {"labels": labels, "logits": logits, "sample_weight": sample_weight}
            given = {name: value for name, value in here.items() if value is not REQUIRED and value is not None}
            title = f"{type(self).__name__}(...)"
            raise errors.wrong_call(title, AT_CALLS, {"sample_weight": None}, given, positional=bool(positional))
        options = {name: getattr(self, name) for name in self._defaults}
        loss: Tensor = type(self)._function(labels=labels, logits=logits, sample_weight=sample_weight, **options)
        return loss

    def extra_repr(self) -> str:
        """Return the options that are not the defaults; of weights the shape."""
        shown = []
        for name, default in self._defaults.items():
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
    ignore_index : int or NaN, optional
        Elements with this label do not count; with NaN, a NaN label is a missing one.
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

    _function = losses.sigmoid_cross_entropy_with_logits
    _kind = SigmoidOptions

    def __init__(self, *positional: Never, reduction: Reduction = "none", **options: Unpack[SigmoidSettings]) -> None:
        super().__init__()
        self._take(positional, {"reduction": reduction, **options})


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

    _function = losses.softmax_cross_entropy_with_logits
    _kind = SoftmaxOptions
    _given: ClassVar = {"sparse": False, "ignore_index": None}

    def __init__(self, *positional: Never, reduction: Reduction = "none", **options: Unpack[SoftmaxSettings]) -> None:
        super().__init__()
        self._take(positional, {"reduction": reduction, **options})


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

    _function = losses.sparse_softmax_cross_entropy_with_logits
    _kind = SoftmaxOptions
    _given: ClassVar = {"sparse": True}

    def __init__(self, *positional: Never, reduction: Reduction = "none", **options: Unpack[SparseSettings]) -> None:
        super().__init__()
        self._take(positional, {"reduction": reduction, **options})
