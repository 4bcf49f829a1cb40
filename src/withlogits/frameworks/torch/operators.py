"""The operators that torch knows of: `torch.ops.withlogits`. Whatever transforms a program meets the losses as these.

Autograd in both directions, torch.func, torch.compile and torch.export all go through torch's dispatcher, which finds
for each operator: a kernel for the CPU and one for CUDA, the formulas for every other device, the shapes of its results
(for tracing), a rule for vmap, and its derivatives. The derivatives are made of these operators again, and of the
products with Hessians in `formulas`, so there is no end to them.

A derivative in both directions cannot be given to `torch.library.register_autograd` (it takes none for forward mode),
so an operator's autograd kernel is an `autograd.Function` applied inside the dispatcher. There torch.func has already
set aside its own level, and what lies below must still be differentiated for the levels that are left: hence gradient
modes are on again where a forward function hands its arguments down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from withlogits import engine, errors, formulas
from withlogits.frameworks.torch import cpu, cuda, namespace, private
from withlogits.frameworks.torch.cpu import or_nothing
from withlogits.frameworks.torch.families import (
    SIGMOID,
    SOFTMAX,
    Family,
    label_gradient_dtype,
    loss_dtype,
    losses_shape,
    rounded,
)
from withlogits.frameworks.torch.namespace import wide
from withlogits.options import SoftmaxOptions

library = torch.library.Library("withlogits", "DEF")
times = partial(formulas.times, namespace)


def _operator(
    schema: str,
    compute: Callable[..., Any],
    shapes: Callable[..., Any],
    decomposition: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Define an operator by what computes it on any device and what its results look like.

    Exporters (ONNX) write it as the operations of `decomposition`, or of `compute`.
    """
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    operator = getattr(torch.ops.withlogits, name).default
    check = _shape_check([argument.name for argument in operator._schema.arguments])
    library.impl(name, check(compute), "CompositeExplicitAutograd")
    library.impl(name, check(_on_cpu(cpu.KERNELS[name], compute)), "CPU")
    if name in cuda.KERNELS:
        library.impl(name, check(_on_cuda(cuda.KERNELS[name], compute, schema)), "CUDA")
    torch.library.register_fake(f"withlogits::{name}", shapes, lib=library)
    torch.library.register_vmap(f"withlogits::{name}", _batching(operator), lib=library)
    private.register_decomposition(operator, decomposition or compute)
    found: Callable[..., Any] = operator
    return found


def _on_cpu(kernel: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled kernel, or the formulas where there is no compiler."""

    def run(*args: Any) -> Any:
        return (kernel if engine.select().NAME == "compiled" else compute)(*args)

    return run


def _on_cuda(kernel: Callable[..., Any], compute: Callable[..., Any], schema: str) -> Callable[..., Any]:
    """The Triton kernel, or the formulas for what it does not take."""
    logits = schema.split(", ").index("Tensor logits") if "Tensor upstream" in schema else 0

    def run(*args: Any) -> Any:
        return (kernel if cuda.serves(args[logits]) else compute)(*args)

    return run


def _shape_check(names: list[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what makes a kernel check its arguments' shapes: those of a traced graph may fit no more."""
    if "labels" not in names:
        return lambda kernel: kernel
    logits, labels = names.index("logits"), names.index("labels")
    of_losses = [i for i, name in enumerate(names) if name in ("upstream", "sample_weight", "pos_weight")]
    of_classes = [i for i, name in enumerate(names) if name in SoftmaxOptions.PER_CLASS]
    axis, sparse = (names.index(name) if name in names else None for name in ("axis", "sparse"))

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            shape = losses = args[logits].shape
            expected = {labels: shape}
            if axis is not None and sparse is not None:
                at = args[axis]
                losses = shape[:at] + shape[at + 1 :]
                expected = {labels: losses if args[sparse] else shape}
                expected |= dict.fromkeys(of_classes, shape[at : at + 1])
            for i in of_losses:
                expected[i] = losses
            for i, wanted in expected.items():
                if args[i] is not None and args[i].shape != wanted:
                    raise errors.operand_shape(names[i], tuple(args[i].shape), tuple(wanted))
            return kernel(*args)

        return run

    return decorate


def _batching(operator: Any) -> Callable[..., Any]:
    """Return a rule for vmap: the batch becomes the first axis of every array; what is (C,) takes a loop."""
    names = [argument.name for argument in operator._schema.arguments]
    axis = names.index("axis") if "axis" in names else None

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        batch = info.batch_size
        of_classes = [i for i, name in enumerate(names) if name in SoftmaxOptions.PER_CLASS]
        if batch == 0 or any(in_dims[i] is not None for i in of_classes):
            each = [_taken(args, in_dims, i) for i in range(batch)]
            results = [operator(*one) for one in each or [_taken(args, in_dims, None)]]
            return _stacked(results, batch)
        moved = list(args)
        for i, (argument, dim) in enumerate(zip(args, in_dims, strict=True)):
            if isinstance(argument, Tensor) and i not in of_classes:
                first = 1 if names[i] == "stats" else 0  # (m, r) come first there
                if names[i] == "stats" and not argument.numel():
                    continue
                moved[i] = argument.unsqueeze(first).expand(
                    *argument.shape[:first], batch, *argument.shape[first:]
                ) if dim is None else argument.movedim(dim, first)  # fmt: skip
        if axis is not None:
            moved[axis] += 1
        result = operator(*moved)
        if not isinstance(result, tuple):
            return result, 0
        return result, tuple(_batch_axis(names, i, part) for i, part in enumerate(result))

    return rule


def _batch_axis(names: list[str], i: int, part: Tensor) -> int | None:
    """Where a result has its batch axis; what was not asked for has none."""
    if part.dim() == 1 and part.shape[0] == 0:
        return None
    return 1 if "upstream" not in names and i == 1 else 0


def _taken(args: tuple[Any, ...], in_dims: tuple[int | None, ...], i: int | None) -> list[Any]:
    """The arguments of one example; those of an empty batch have the shapes that one would have."""
    return [
        a if dim is None else a.select(dim, i) if i is not None else a.new_ones(a.shape[:dim] + a.shape[dim + 1 :])
        for a, dim in zip(args, in_dims, strict=True)
    ]


def _stacked(results: list[Any], batch: int) -> tuple[Any, Any]:
    if not isinstance(results[0], tuple):
        return torch.stack(results)[:batch], 0
    return tuple(torch.stack(part)[:batch] for part in zip(*results, strict=True)), (0,) * len(results[0])


class _Derivatives:
    """An operator's autograd kernel, made of a rule for each direction.

    `backward(saved, gradients)` gives a gradient for each argument that needs one (None for others); `forward(saved,
    tangents)` the results' tangents. `saved` are the arguments, followed by the results that `keeps` them.
    """

    def __init__(
        self,
        operator: Any,
        backward: Callable[..., tuple[Any, ...]],
        forward: Callable[..., Any],
        constant: tuple[int, ...] = (),
    ) -> None:
        self._function = type(
            f"{operator._opname}_function",
            (torch.autograd.Function,),
            {
                "forward": staticmethod(self._run),
                "backward": staticmethod(self._pull),
                "jvp": staticmethod(self._push),
            },
        )
        self._apply = private.apply_of(self._function)
        self._operator, self._backward, self._forward, self._constant = operator, backward, forward, constant
        library.impl(operator._opname, self.apply, "Autograd")

    def apply(self, *args: Any) -> Any:
        with private.single_level_functions():
            return self._apply(*args)

    def _run(self, ctx: Any, *args: Any) -> Any:
        with torch.enable_grad(), private.set_forward_grad(True), private.below_autograd():
            result = self._operator(*args)
        kept = tuple(result[i] for i in self._constant)
        ctx.mark_non_differentiable(*kept)
        everything = (*args, *kept)
        tensors = [a for a in everything if isinstance(a, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.others = [None if isinstance(a, Tensor) else (a,) for a in everything]
        ctx.arguments = len(args)
        return result

    @staticmethod
    def _saved(ctx: Any) -> list[Any]:
        tensors = iter(ctx.saved_tensors)
        return [next(tensors) if other is None else other[0] for other in ctx.others]

    def _pull(self, ctx: Any, *gradients: Any) -> Any:
        return self._backward(self._saved(ctx), gradients, ctx.needs_input_grad)

    def _push(self, ctx: Any, *tangents: Any) -> Any:
        with private.set_forward_grad(True):  # of the levels below; this one's is set aside
            saved = [unpack_dual(a, level=0).primal if isinstance(a, Tensor) else a for a in self._saved(ctx)]
            return self._forward(saved, tangents)


# ------------------------------------------------------------------------------------------------------------ losses


def _define(family: Family) -> tuple[Any, Any]:
    """Define a family's loss and its gradient as operators, with derivatives of every order."""
    n = family.operands

    def total(x: Tensor, args: Any) -> Tensor:
        """Sum what belongs to one loss."""
        return x.sum(args[n]) if family is SOFTMAX else x

    def losses_like(args: Any) -> dict[str, Any]:
        options = family.kind(*args[n:])
        return {"size": losses_shape(args[0], options), "dtype": loss_dtype(args[0])}

    def losses(*args: Any) -> Any:
        logits, loss = args[0], family.formula(args)
        return rounded(loss.losses(), loss_dtype(logits)), logits.new_empty(0)

    def losses_anywhere(*args: Any) -> Any:
        if family is SOFTMAX and args[0].is_cpu:
            cpu.check_range(family, args)
        return losses(*args)

    def shapes(*args: Any) -> Any:
        logits, like = args[0], losses_like(args)
        kept = family is SOFTMAX and cuda.serves(logits)
        stats = logits.new_empty((2, *like["size"]), dtype=torch.float32) if kept else logits.new_empty(0)
        loss = logits.new_empty(**like) if family is SOFTMAX else torch.empty_like(logits, dtype=like["dtype"])
        return loss, stats

    def gradients(upstream: Tensor, stats: Tensor, *rest: Any) -> Any:
        *args, for_logits, for_labels = rest
        return or_nothing(family.formula(args).gradients(upstream, for_logits, for_labels), args[0])

    def gradient_shapes(upstream: Tensor, stats: Tensor, *rest: Any) -> Any:
        logits, labels, *_, for_logits, for_labels = rest
        dx = torch.empty_like(logits) if for_logits else None
        dz = torch.empty_like(logits, dtype=label_gradient_dtype(labels, logits)) if for_labels else None
        return or_nothing((dx, dz), logits)

    loss = _operator(f"{family.name}({family.schema}) -> (Tensor, Tensor)", losses_anywhere, shapes, losses)
    gradient = _operator(
        f"{family.name}_backward(Tensor upstream, Tensor stats, {family.schema}, bool for_logits, bool for_labels) "
        "-> (Tensor, Tensor)",
        gradients,
        gradient_shapes,
    )

    def along(args: Any, dx: Tensor, v: Tensor | None, dz: Tensor, h: Tensor | None) -> Tensor:
        """Return the derivative of losses along the directions v and h."""
        parts = [total(times(wide(d), wide(g)), args) for g, d in ((dx, v), (dz, h)) if d is not None]
        return (parts[0] if len(parts) == 1 else parts[0] + parts[1]).to(loss_dtype(args[0]))

    def pull(saved: list[Any], upstream: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
        *args, stats = saved
        dx, dz = gradient(upstream[0], stats, *args, needed[0], needed[1])
        return dx if needed[0] else None, dz if needed[1] else None, *(None,) * (len(args) - 2)

    def push(saved: list[Any], tangents: Any) -> Any:
        (*args, stats), v, h = saved, tangents[0], tangents[1]
        dx, dz = gradient(args[0].new_ones(**losses_like(args)), stats, *args, v is not None, h is not None)
        return along(args, dx, v, dz, h), None

    def backward_pull(saved: list[Any], upstream: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
        u, stats, *args, for_logits, for_labels = saved
        v, h = (g if asked else None for g, asked in zip(upstream, (for_logits, for_labels), strict=True))
        du = dx = dz = None
        if needed[0]:
            gx, gz = gradient(torch.ones_like(u), stats, *args, for_logits, for_labels)
            du = along(args, gx, v, gz, h).to(u.dtype)
        if needed[2] or needed[3]:
            dx, dz = family.formula(args).hessian_product(u, v, h)
        return du, None, dx if needed[2] else None, dz if needed[3] else None, *(None,) * (len(saved) - 4)

    def backward_push(saved: list[Any], tangents: Any) -> Any:
        u, stats, *args, for_logits, for_labels = saved
        du, v, h = tangents[0], tangents[2], tangents[3]
        dx = dz = torch.zeros((), dtype=args[0].dtype, device=args[0].device)
        if v is not None or h is not None:
            dx, dz = family.formula(args).hessian_product(u, v, h)
        if du is not None:
            gx, gz = gradient(du, stats, *args, for_logits, for_labels)
            dx, dz = dx + gx if for_logits else dx, dz + gz if for_labels else dz
        return or_nothing((dx if for_logits else None, dz if for_labels else None), args[0])

    _Derivatives(loss, pull, push, constant=(1,))
    _Derivatives(gradient, backward_pull, backward_push)
    return loss, gradient


LOSSES = {family: _define(family)[0] for family in (SOFTMAX, SIGMOID)}


# ------------------------------------------------------------------------------------------------------- activations


def _softmax_map(x: Tensor, axis: int, kind: str) -> Tensor:
    found: Tensor = formulas.softmax_map(namespace, x, axis, kind)
    return found


def _elementwise(x: Tensor, kind: str) -> Tensor:
    found: Tensor = formulas.elementwise(namespace, x, kind)
    return found


def _softmax_map_shapes(x: Tensor, axis: int, kind: str) -> Tensor:
    if kind == "logsumexp":
        return x.new_empty([n for i, n in enumerate(x.shape) if i != axis])
    return torch.empty_like(x)


softmax_map = _operator("softmax_map(Tensor x, int axis, str kind) -> Tensor", _softmax_map, _softmax_map_shapes)
elementwise = _operator("elementwise(Tensor x, str kind) -> Tensor", _elementwise, lambda x, kind: torch.empty_like(x))


def _at_least_float32(x: Tensor) -> Tensor:
    """Return x in at least float32: products of half precision would be rounded twice."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _softmax_map_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    x, axis, kind = saved
    p, u = softmax_map(_at_least_float32(x), axis, "softmax"), _at_least_float32(gradients[0])
    if kind == "logsumexp":
        g = p * u.unsqueeze(axis)
    elif kind == "log_softmax":
        g = -formulas.excess(namespace, p.movedim(axis, -1), u.movedim(axis, -1)).movedim(-1, axis)
    else:
        g = p * _centred(p, u, axis)
    return g.to(x.dtype), None, None


def _softmax_map_push(saved: list[Any], tangents: Any) -> Any:
    x, axis, kind = saved
    p, v = softmax_map(_at_least_float32(x), axis, "softmax"), _at_least_float32(tangents[0])
    if kind == "logsumexp":
        t = (p * v).sum(axis)
    elif kind == "log_softmax":
        t = _centred(p, v, axis)
    else:
        t = p * _centred(p, v, axis)
    return t.to(x.dtype)


def _centred(p: Tensor, c: Tensor, axis: int) -> Tensor:
    """Return c − Σ p c."""
    differences, _ = formulas.centred(namespace, p.movedim(axis, -1), c.movedim(axis, -1))
    found: Tensor = differences.movedim(-1, axis)
    return found


def _slope(x: Tensor, kind: str) -> Tensor:
    """The derivative of an elementwise function."""
    x = _at_least_float32(x)
    if kind == "logit":
        return 1.0 / (x * (1.0 - x))
    yes, no = elementwise(x, "sigmoid"), elementwise(-x, "sigmoid")
    slope: Tensor = yes * no if kind == "sigmoid" else yes if kind == "softplus" else no
    return slope


def _elementwise_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    x, kind = saved
    return (_at_least_float32(gradients[0]) * _slope(x, kind)).to(x.dtype), None


def _elementwise_push(saved: list[Any], tangents: Any) -> Any:
    x, kind = saved
    return (_at_least_float32(tangents[0]) * _slope(x, kind)).to(x.dtype)


_Derivatives(softmax_map, _softmax_map_pull, _softmax_map_push)
_Derivatives(elementwise, _elementwise_pull, _elementwise_push)
