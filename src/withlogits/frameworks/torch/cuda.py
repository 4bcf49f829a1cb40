"""The Triton kernels on torch tensors: the operators on CUDA, for logits of at most 32 bits.

float64 takes the formulas, and so does everything where Triton cannot be had. Nothing here waits for the device.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from withlogits.frameworks.torch.families import label_gradient_dtype
from withlogits.options import SoftmaxOptions, field_names


@cache
def available() -> bool:
    """Whether there is Triton; said once if not."""
    if importlib.util.find_spec("triton") is not None:
        return True
    warnings.warn(
        "withlogits computes on CUDA with torch operations, many times slower than it could, since triton cannot be "
        "found; install it with: pip install triton",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def serves(logits: Tensor) -> bool:
    """Whether the kernels take these."""
    return logits.is_cuda and logits.dtype != torch.float64 and available()


def softmax_rows(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    """The losses of the rows, and what the gradient needs of each row."""
    from withlogits.kernels import cuda as kernels

    rows = [n for i, n in enumerate(logits.shape) if i != options[0]]
    chosen = SoftmaxOptions(*options)
    loss, stats = (logits.new_empty(shape, dtype=torch.float32) for shape in (rows, (2, *rows)))
    outer, inner = _around(logits, chosen.axis)
    with _on(logits):
        kernels.softmax_forward(
            _three(logits, chosen.axis),
            _labels(labels, chosen),
            _single(class_weight, contiguous=True),
            _rows(sample_weight, outer, inner),
            loss.view(outer, inner),
            stats.view(2, outer, inner),
            **_named(chosen),
        )
    return loss, stats


def softmax_rows_backward(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """The gradients, each empty where it is not asked for."""
    from withlogits.kernels import cuda as kernels

    *options, for_logits, for_labels = rest
    chosen = SoftmaxOptions(*options)
    outer, inner = _around(logits, chosen.axis)
    shape = (outer, logits.shape[chosen.axis], inner)
    dx, dx_view = _made(logits, logits.dtype, shape, for_logits)
    dz, dz_view = _made(logits, label_gradient_dtype(labels, logits), shape, for_labels)
    with _on(logits):
        kernels.softmax_backward(
            _rows(upstream, outer, inner),
            stats.view(2, outer, inner),
            _three(logits, chosen.axis),
            _labels(labels, chosen),
            _single(class_weight, contiguous=True),
            _rows(sample_weight, outer, inner),
            dx_view,
            dz_view,
            **_named(chosen),
        )
    return _finished(dx, dx_view), _finished(dz, dz_view)


def sigmoid_elements(
    logits: Tensor, labels: Tensor, pos_weight: Tensor | None, sample_weight: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The losses of the elements; the gradient needs nothing more of them."""
    from withlogits.kernels import cuda as kernels

    loss, view = _made(logits, torch.float32, _four(logits).shape, True)
    with _on(logits):
        kernels.sigmoid_forward(
            _four(logits),
            _four(_plain(labels)),
            _four(_single(pos_weight)),
            _four(_single(sample_weight)),
            view,
            label_smoothing=label_smoothing,
        )
    return _finished(loss, view), logits.new_empty(0)


def sigmoid_elements_backward(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    for_logits: bool,
    for_labels: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients, each empty where it is not asked for."""
    from withlogits.kernels import cuda as kernels

    shape = _four(logits).shape
    dx, dx_view = _made(logits, logits.dtype, shape, for_logits)
    dz, dz_view = _made(logits, label_gradient_dtype(labels, logits), shape, for_labels)
    with _on(logits):
        kernels.sigmoid_backward(
            _four(_single(upstream)),
            _four(logits),
            _four(_plain(labels)),
            _four(_single(pos_weight)),
            _four(_single(sample_weight)),
            dx_view,
            dz_view,
            label_smoothing=label_smoothing,
        )
    return _finished(dx, dx_view), _finished(dz, dz_view)


KERNELS: dict[str, Callable[..., Any]] = {
    kernel.__name__: kernel
    for kernel in (softmax_rows, softmax_rows_backward, sigmoid_elements, sigmoid_elements_backward)
}


def _on(tensor: Tensor) -> Any:
    """The device that Triton launches on is the current one."""
    return torch.cuda.device_of(tensor)


def _around(logits: Tensor, axis: int) -> tuple[int, int]:
    """How many rows the axes before and after that of the classes make."""
    return math.prod(logits.shape[:axis]), math.prod(logits.shape[axis + 1 :])


def _three(tensor: Tensor, axis: int) -> Tensor:
    """(outer, C, inner): a view, or a copy where no strides can say it."""
    outer, inner = _around(tensor, axis)
    return tensor.reshape(outer, tensor.shape[axis], inner)


def _four(tensor: Any) -> Any:
    """At most four axes."""
    return tensor if tensor is None or tensor.dim() <= 4 else tensor.reshape(-1)


def _labels(labels: Tensor, options: SoftmaxOptions) -> Tensor:
    if not options.sparse:
        return _three(_plain(labels), options.axis)
    shape = labels.shape
    return labels.reshape(math.prod(shape[: options.axis]), math.prod(shape[options.axis :]))


def _plain(labels: Tensor) -> Tensor:
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels


def _rows(weight: Tensor | None, outer: int, inner: int) -> Tensor | None:
    return None if weight is None else weight.to(torch.float32).reshape(outer, inner)


def _single(weight: Tensor | None, contiguous: bool = False) -> Tensor | None:
    if weight is None:
        return None
    return weight.to(torch.float32).contiguous() if contiguous else weight.to(torch.float32)


def _named(options: SoftmaxOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in field_names(options) if name != "axis"}


def _made(like: Tensor, dtype: torch.dtype, shape: tuple[int, ...], wanted: bool) -> tuple[Tensor, Tensor | None]:
    """A result, and how the kernel writes it: in place, or beside it where no strides can say its shape."""
    if not wanted:
        return like.new_empty(0), None
    result = torch.empty_like(like, dtype=dtype)
    try:
        return result, result.view(shape)
    except RuntimeError:
        return result, result.new_empty(shape)


def _finished(result: Tensor, written: Tensor | None) -> Tensor:
    if written is not None and written.data_ptr() != result.data_ptr():
        result.copy_(written.view(result.shape))
    return result
