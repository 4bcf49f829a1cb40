"""The operators on CUDA tensors, by the Triton kernels, for logits of at most 32 bits.

float64 logits take the formulas, as everything does where Triton is not installed. Nothing here waits for the device.
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

from withlogits.frameworks.torch.families import SIGMOID, SOFTMAX, label_gradient_dtype, losses_shape
from withlogits.options import SigmoidOptions, SoftmaxOptions


@cache
def available() -> bool:
    """Whether Triton is installed; warns once if not."""
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
    """Whether the kernels take these logits."""
    return logits.is_cuda and logits.dtype != torch.float64 and available()


def softmax_rows(*args: Any) -> tuple[Tensor, Tensor]:
    """Return the losses of the rows, and the row statistics that their gradients need."""
    from withlogits.kernels import cuda as kernels

    logits, options = args[0], SoftmaxOptions(*args[SOFTMAX.count :])
    rows = losses_shape(logits, options)
    loss, stats = (logits.new_empty(shape, dtype=torch.float32) for shape in (rows, (2, *rows)))
    outer, _, inner = _row_shape(logits, options.axis)
    with torch.cuda.device_of(logits):
        inputs = _softmax_inputs(args, options)
        kernels.softmax_forward(options, inputs, loss.view(outer, inner), stats.view(2, outer, inner))
    return loss, stats


def softmax_rows_backward(upstream: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Return the gradients, each empty where it is not asked for."""
    from withlogits.kernels import cuda as kernels

    *args, for_logits, for_labels = rest
    options = SoftmaxOptions(*args[SOFTMAX.count :])
    outer, classes, inner = _row_shape(args[0], options.axis)

    def launch(dx: Tensor | None, dz: Tensor | None) -> None:
        u = upstream.to(torch.float32).reshape(outer, inner)
        inputs = _softmax_inputs(args, options)
        kernels.softmax_backward(options, inputs, u, stats.view(2, outer, inner), dx, dz)

    return _gradients(args, (outer, classes, inner), (for_logits, for_labels), launch)


def sigmoid_elements(*args: Any) -> tuple[Tensor, Tensor]:
    """Return the losses of the elements; their gradients need no statistics."""
    from withlogits.kernels import cuda as kernels

    logits, options = args[0], SigmoidOptions(*args[SIGMOID.count :])
    loss, written = _new(logits, torch.float32, _four_axes(logits).shape)
    with torch.cuda.device_of(logits):
        kernels.sigmoid_forward(options, _sigmoid_inputs(args), written)
    return _filled(loss, written), logits.new_empty(0)


def sigmoid_elements_backward(upstream: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Return the gradients, each empty where it is not asked for."""
    from withlogits.kernels import cuda as kernels

    *args, for_logits, for_labels = rest
    options = SigmoidOptions(*args[SIGMOID.count :])

    def launch(dx: Tensor | None, dz: Tensor | None) -> None:
        kernels.sigmoid_backward(options, _sigmoid_inputs(args), _four_axes(upstream.to(torch.float32)), dx, dz)

    return _gradients(args, _four_axes(args[0]).shape, (for_logits, for_labels), launch)


KERNELS: dict[str, Callable[..., Any]] = {
    kernel.__name__: kernel
    for kernel in (softmax_rows, softmax_rows_backward, sigmoid_elements, sigmoid_elements_backward)
}


def _row_shape(logits: Tensor, axis: int) -> tuple[int, int, int]:
    """Return (outer, C, inner): how many rows the axes before and after the class axis make."""
    shape = logits.shape
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _softmax_inputs(args: Any, options: SoftmaxOptions) -> Any:
    """Return an operator's arrays as (outer, C, inner) and (outer, inner): views, or copies where no strides fit."""
    from withlogits.kernels.cuda import Inputs

    logits, labels, *weights = args[: SOFTMAX.count]
    shape = outer, _, inner = _row_shape(logits, options.axis)
    taken = [
        None
        if weight is None
        else weight.to(torch.float32).contiguous()
        if name in options.PER_CLASS
        else weight.to(torch.float32).reshape(outer, inner)
        for name, weight in zip(options.WEIGHTS, weights, strict=True)
    ]
    labels = _not_boolean(labels).reshape((outer, inner) if options.sparse else shape)
    return Inputs(logits.reshape(shape), labels, tuple(taken))


def _sigmoid_inputs(args: Any) -> Any:
    """Return an operator's arrays with at most four axes."""
    from withlogits.kernels.cuda import Inputs

    logits, labels, *weights = args[: SIGMOID.count]
    taken = [None if weight is None else _four_axes(weight.to(torch.float32)) for weight in weights]
    return Inputs(_four_axes(logits), _four_axes(_not_boolean(labels)), tuple(taken))


def _four_axes(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() <= 4 else tensor.reshape(-1)


def _not_boolean(labels: Tensor) -> Tensor:
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels


def _gradients(
    args: Any, shape: tuple[int, ...], asked: tuple[bool, bool], launch: Callable[..., None]
) -> tuple[Tensor, ...]:
    """Return the gradients that `launch(dx, dz)` writes to arrays of this shape."""
    logits, labels = args[:2]
    dtypes = (logits.dtype, label_gradient_dtype(labels, logits))
    made = [
        _new(logits, dtype, shape) if wanted else (logits.new_empty(0), None)
        for dtype, wanted in zip(dtypes, asked, strict=True)
    ]
    with torch.cuda.device_of(logits):
        launch(*(written for _, written in made))
    return tuple(_filled(*one) for one in made)


def _new(like: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return a new result, and the array to write it to: a view, or other memory where no strides fit the shape."""
    result = torch.empty_like(like, dtype=dtype)
    try:
        return result, result.view(shape)
    except RuntimeError:
        return result, result.new_empty(shape)


def _filled(result: Tensor, written: Tensor | None) -> Tensor:
    """Return the result after it was written, here or in other memory."""
    if written is not None and written.data_ptr() != result.data_ptr():
        result.copy_(written.view(result.shape))
    return result
