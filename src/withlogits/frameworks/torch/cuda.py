"""The operators on CUDA tensors, by the Triton kernels, for logits of at most 32 bits.

float64 logits take the formulas, as everything does where Triton is not installed. Nothing here waits for the device.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from withlogits.frameworks.torch.families import SIGMOID, SOFTMAX, Family, label_gradient_dtype, losses_shape


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


def _losses(family: Family, *args: Any) -> tuple[Tensor, Tensor]:
    """Return the losses, and the row statistics that their gradients need, of which the sigmoid family has none."""
    from withlogits.kernels import cuda as kernels

    logits = args[0]
    options, inputs, shape = _adapted(family, args)
    with torch.cuda.device_of(logits):
        if family is SIGMOID:
            loss, written = _new(logits, torch.float32, shape)
            kernels.sigmoid_forward(options, inputs, written)
            return _filled(loss, written), logits.new_empty(0)
        rows = losses_shape(logits, options)
        loss, stats = (logits.new_empty(size, dtype=torch.float32) for size in (rows, (2, *rows)))
        kernels.softmax_forward(options, inputs, loss.view(shape), stats.view(2, *shape))
        return loss, stats


def _gradients(family: Family, upstream: Tensor, stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Return the gradients for logits and labels, each empty where it is not asked for."""
    from withlogits.kernels import cuda as kernels

    *args, for_logits, for_labels = rest
    logits, labels = args[:2]
    options, inputs, shape = _adapted(family, args)
    asked = ((logits.dtype, for_logits), (label_gradient_dtype(labels, logits), for_labels))
    made = [
        _new(logits, dtype, inputs.logits.shape) if wanted else (logits.new_empty(0), None) for dtype, wanted in asked
    ]
    written = [memory for _, memory in made]
    with torch.cuda.device_of(logits):
        u = upstream.to(torch.float32).reshape(shape)
        if family is SOFTMAX:
            kernels.softmax_backward(options, inputs, u, stats.view(2, *shape), *written)
        else:
            kernels.sigmoid_backward(options, inputs, u, *written)
    return tuple(_filled(*one) for one in made)


KERNELS: dict[str, Callable[..., Any]] = {
    f"{family.name}{suffix}": partial(kernel, family)
    for family in (SOFTMAX, SIGMOID)
    for suffix, kernel in (("", _losses), ("_backward", _gradients))
}


def _adapted(family: Family, args: Any) -> tuple[Any, Any, tuple[int, ...]]:
    """Return an operator's options, its arrays in the kernels' shapes, and that shape of the losses.

    Arrays are views, or copies where no strides fit: (outer, C, inner) and (outer, inner), or at most four axes.
    """
    from withlogits.kernels.cuda import Inputs

    logits, labels, *weights = args[: family.operands]
    options: Any = family.kind(*args[family.operands :])
    shape: tuple[int, ...] = tuple(logits.shape)
    if family is SOFTMAX:
        axis = options.axis
        shape = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    elif len(shape) > 4:
        shape = (logits.numel(),)
    of_losses = shape[::2] if family is SOFTMAX else shape
    per_class = getattr(options, "PER_CLASS", ())
    taken = [
        None
        if weight is None
        else weight.to(torch.float32).contiguous()
        if name in per_class
        else weight.to(torch.float32).reshape(of_losses)
        for name, weight in zip(options.WEIGHTS, weights, strict=True)
    ]
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    labels = labels.reshape(of_losses if getattr(options, "sparse", False) else shape)
    return options, Inputs(logits.reshape(shape), labels, tuple(taken)), of_losses


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
