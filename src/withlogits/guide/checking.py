"""A loss whose first call is diagnosed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from withlogits.guide.arrays import is_traced
from withlogits.guide.diagnosing import IGNORED, MASKS, TAKEN, diagnose, loss_name
from withlogits.guide.findings import sentence

KNOWN = frozenset((*TAKEN, *IGNORED, *MASKS, "axis"))


class GuideWarning(UserWarning):
    """What `checked` warns with."""


def checked(loss: Callable[..., Any], *, every: int | None = None, model: Any = None) -> Callable[..., Any]:
    """The same loss, whose first call is diagnosed: errors are raised, warnings are warned of.

    After that it costs a comparison a call. For PyTorch tensors the autograd graph of the logits is read too, and with
    `model`, logits that are cut off from its parameters are found. While torch traces the call (`torch.compile`,
    `torch.export`, `torch.jit.trace`), or TensorFlow (`tf.function`), or JAX (`jax.jit`, `jax.grad` and the other
    transformations), there are no values to look at: nothing is diagnosed, and a later call that is not traced counts
    as the first. `value_and_grad` takes the result as it takes the loss.

    Parameters
    ----------
    loss : function
        One of the losses of withlogits.
    every : int, optional
        Diagnose every so many calls again.
    model : torch.nn.Module, optional
        The model that is trained.

    Raises
    ------
    DiagnosisError
        A `ValueError`, from the call that was diagnosed, before the loss is computed.
    ValueError
        For what is no loss of withlogits, or an `every` below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> loss = withlogits.checked(withlogits.sparse_softmax_cross_entropy_with_logits)
    >>> loss(labels=np.array([1, 0]), logits=np.array([[0.5, 2.0], [1.5, -1.0]]), reduction="mean")
    np.float64(0.1402...)
    """
    name = loss_name(loss)
    if name is None or isinstance(loss, str):
        raise ValueError("checked wraps a loss of withlogits: pass the function itself")
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ValueError(f"every is {every!r}, where a whole number of at least 1 is expected")
    calls = 0

    def before(arguments: dict[str, Any]) -> None:
        nonlocal calls
        if _is_traced(arguments):
            return
        if calls == 0 or (every is not None and calls % every == 0):
            _check(name, arguments, model)
        calls += 1

    @wraps(loss)  # which AutoGraph's mark comes along with
    def call(*positional: Any, **arguments: Any) -> Any:
        if not positional:
            before(arguments)
        return loss(*positional, **arguments)

    call.before_call = before  # type: ignore[attr-defined]
    return call


def _is_traced(arguments: dict[str, Any]) -> bool:
    """Return whether a framework records this call, whose arrays may hold no values."""
    torch = sys.modules.get("torch")
    if torch is not None and (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return True
    return any(map(is_traced, arguments.values()))


def _check(name: str, arguments: dict[str, Any], model: Any) -> None:
    if "labels" not in arguments or "logits" not in arguments:
        return  # the loss itself says what is missing
    options = {key: value for key, value in arguments.items() if key in KNOWN and value is not None}
    if "dim" in options:
        options["axis"] = options.pop("dim")
    diagnosis = diagnose(arguments["labels"], arguments["logits"], loss=name, model=model, **options)
    diagnosis.raise_for_errors()
    for found in diagnosis.warnings:
        warnings.warn(sentence(found), GuideWarning, stacklevel=4)
