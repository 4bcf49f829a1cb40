"""Private names of torch, each with the public way that stands in for it in releases that lack the name.

A stand-in is always right, and slower: the plain calls on CPU tensors then go through the operators like all others.
For a name in `REQUIRED` there is no public way, and without it the operators cannot be defined.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import torch
from torch.autograd import forward_ad as _forward_ad

from withlogits import errors


def _found(path: str, stand_in: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function at this path in torch, or its stand-in."""
    try:
        function: Callable[..., Any] = attrgetter(path)(torch)
    except AttributeError:
        return stand_in
    return function


def _required(path: str) -> Callable[..., Any]:
    """Return the function at this path in torch."""
    module, _, name = path.rpartition(".")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise errors.missing_in_torch(path, torch.__version__) from None
    return function


def _unknown(*_: Any) -> bool:
    """Answer "yes" to whether something is at work that only the operators understand."""
    return True


def _apply_publicly(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return the public `apply` of an autograd function."""
    apply: Callable[..., Any] = function.apply
    return apply


def _apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return what `Function.apply` calls once it knows that no transform of torch.func is at work."""
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return apply


# Name here: (path in torch, stand-in).
STAND_INS: dict[str, tuple[str, Callable[..., Any]]] = {
    "transforms_active": ("_C._are_functorch_transforms_active", _unknown),
    "dispatch_modes": ("_C._len_torch_dispatch_stack", _unknown),
    "is_batched": ("_C._functorch.is_legacy_batchedtensor", _unknown),
    "keeps_graph": ("_C._autograd._get_current_graph_task_keep_graph", _unknown),
    "is_tracing": ("_C._is_tracing", torch.jit.is_tracing),  # type: ignore[attr-defined]
}

transforms_active, dispatch_modes, is_batched, keeps_graph, is_tracing = (
    _found(*where) for where in STAND_INS.values()
)
# Its `_current_level` is negative outside of forward mode; without that name, forward mode is taken to be on.
# Whether torch.compile reads this code. What else torch's `is_compiling` tells of has dispatch modes.
is_compiling = torch.compiler.is_dynamo_compiling
forward_mode: Any = _forward_ad if hasattr(_forward_ad, "_current_level") else SimpleNamespace(_current_level=0)
apply_of = _apply_of if hasattr(super(torch.autograd.Function, torch.autograd.Function), "apply") else _apply_publicly

# Context managers: an autograd.Function may be applied below a level of torch.func; forward-mode derivatives are on or
# off; operators are called below their autograd kernels.
REQUIRED = (
    "torch._functorch.utils.enable_single_level_autograd_function",
    "torch.autograd.forward_ad._set_fwd_grad_enabled",
    "torch._C._AutoDispatchBelowAutograd",
)
single_level_functions, set_forward_grad, below_autograd = map(_required, REQUIRED)


def register_decomposition(operator: Any, decomposition: Callable[..., Any]) -> None:
    """Add to torch's table of decompositions, which exporters read; without the table an export stops at the operator.

    The public `torch.export.default_decompositions()` is made anew at each call.
    """
    try:
        from torch._decomp import register_decomposition as register
    except ImportError:
        return
    register(operator)(decomposition)
