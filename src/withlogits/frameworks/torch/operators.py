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
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from withlogits import arguments, engine
from withlogits.frameworks.torch import cpu, cuda, formulas, private
from withlogits.frameworks.torch.cpu import or_nothing
from withlogits.frameworks.torch.formulas import Softmax, label_gradient_dtype, loss_dtype, times

library = torch.library.Library("withlogits", "DEF")

SOFTMAX = (
    "int axis, bool sparse, float label_smoothing, int? ignore_index, float temperature, float? softcap, float z_loss"
)


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
    library.impl(name, check(_on_cpu(getattr(cpu, name), compute)), "CPU")
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
        return (kernel if engine.select().NAME == "numba" else compute)(*args)

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
    axis, sparse, class_weight = (
        names.index(name) if name in names else None for name in ("axis", "sparse", "class_weight")
    )

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            shape = losses = args[logits].shape
            expected = {labels: shape}
            if axis is not None and sparse is not None and class_weight is not None:
                at = args[axis]
                losses = shape[:at] + shape[at + 1 :]
                expected = {labels: losses if args[sparse] else shape, class_weight: shape[at : at + 1]}
            for i in of_losses:
                expected[i] = losses
            for i, wanted in expected.items():
                if args[i] is not None and args[i].shape != wanted:
                    raise arguments.operand_shape(names[i], tuple(args[i].shape), tuple(wanted))
            return kernel(*args)

        return run

    return decorate


def _batching(operator: Any) -> Callable[..., Any]:
    """A rule for vmap: the batch becomes the first axis of every array; class weights for each example take a loop."""
    names = [argument.name for argument in operator._schema.arguments]
    axis = names.index("axis") if "axis" in names else None

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        batch = info.batch_size
        weight = names.index("class_weight") if "class_weight" in names else None
        if batch == 0 or (weight is not None and in_dims[weight] is not None):
            each = [_taken(args, in_dims, i) for i in range(batch)]
            results = [operator(*one) for one in each or [_taken(args, in_dims, None)]]
            return _stacked(results, batch)
        moved = list(args)
        for i, (argument, dim) in enumerate(zip(args, in_dims, strict=True)):
            if isinstance(argument, Tensor) and i != weight:
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
        self._operator, self._backward, self._forward, self._constant = operator, backward, forward, constant
        library.impl(operator._opname, self.apply, "Autograd")

    def apply(self, *args: Any) -> Any:
        with enable_single_level_autograd_function():
            return super(torch.autograd.Function, self._function).apply(*args)  # type: ignore[misc]

    def _run(self, ctx: Any, *args: Any) -> Any:
        with torch.enable_grad(), _set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
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
        with _set_fwd_grad_enabled(True):  # of the levels below; this one's is set aside
            saved = [unpack_dual(a, level=0).primal if isinstance(a, Tensor) else a for a in self._saved(ctx)]
            return self._forward(saved, tangents)


def _wanted(tangent: Tensor | None, asked: bool) -> Tensor | None:
    return tangent if asked else None


# ----------------------------------------------------------------------------------------------------------- softmax


def _softmax_anywhere(logits: Tensor, labels: Tensor, class_weight: Any, sample_weight: Any, *options: Any) -> Any:
    chosen = Softmax(*options)
    if chosen.sparse and logits.device.type == "cpu":
        cpu.check_range(labels, logits.shape[chosen.axis], chosen.ignore_index, sample_weight)
    return formulas.softmax_rows(logits, labels, class_weight, sample_weight, chosen), logits.new_empty(0)


def _softmax_decomposed(logits: Tensor, labels: Tensor, class_weight: Any, sample_weight: Any, *options: Any) -> Any:
    rows = formulas.softmax_rows(logits, labels, class_weight, sample_weight, Softmax(*options))
    return rows, logits.new_empty(0)


def _softmax_backward_anywhere(
    upstream: Tensor, stats: Tensor, logits: Tensor, labels: Tensor, class_weight: Any, sample_weight: Any, *rest: Any
) -> Any:
    *options, for_logits, for_labels = rest
    return or_nothing(
        formulas.softmax_rows_backward(
            upstream, logits, labels, class_weight, sample_weight, Softmax(*options), for_logits, for_labels
        ),
        logits,
    )


def _rows_shape(logits: Tensor, axis: int) -> list[int]:
    return [n for i, n in enumerate(logits.shape) if i != axis]


def _softmax_shapes(logits: Tensor, labels: Tensor, class_weight: Any, sample_weight: Any, axis: int, *_: Any) -> Any:
    rows = _rows_shape(logits, axis)
    stats = logits.new_empty((2, *rows), dtype=torch.float32) if cuda.serves(logits) else logits.new_empty(0)
    return logits.new_empty(rows, dtype=loss_dtype(logits)), stats


def _gradient_shapes(logits: Tensor, labels: Tensor, for_logits: bool, for_labels: bool) -> Any:
    dx = torch.empty_like(logits) if for_logits else None
    dz = torch.empty_like(logits, dtype=label_gradient_dtype(labels, logits)) if for_labels else None
    return or_nothing((dx, dz), logits)


def _softmax_backward_shapes(
    upstream: Tensor, stats: Tensor, logits: Tensor, labels: Tensor, class_weight: Any, sample_weight: Any, *rest: Any
) -> Any:
    return _gradient_shapes(logits, labels, *rest[-2:])


softmax_rows = _operator(
    "softmax_rows(Tensor logits, Tensor labels, Tensor? class_weight, Tensor? sample_weight, "
    f"{SOFTMAX}) -> (Tensor, Tensor)",
    _softmax_anywhere,
    _softmax_shapes,
    _softmax_decomposed,
)
softmax_rows_backward = _operator(
    "softmax_rows_backward(Tensor upstream, Tensor stats, Tensor logits, Tensor labels, Tensor? class_weight, "
    f"Tensor? sample_weight, {SOFTMAX}, bool for_logits, bool for_labels) -> (Tensor, Tensor)",
    _softmax_backward_anywhere,
    _softmax_backward_shapes,
)


def _softmax_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    *args, stats = saved
    none = (None,) * (len(args) - 2)
    dx, dz = softmax_rows_backward(gradients[0], stats, *args, needed[0], needed[1])
    return dx if needed[0] else None, dz if needed[1] else None, *none


def _softmax_push(saved: list[Any], tangents: Any) -> Any:
    (*args, stats), v, h = saved, tangents[0], tangents[1]
    logits, axis = args[0], args[4]
    ones = logits.new_ones(_rows_shape(logits, axis), dtype=loss_dtype(logits))
    dx, dz = softmax_rows_backward(ones, stats, *args, v is not None, h is not None)
    return _along(dx, v, dz, h, lambda x: x.sum(axis)).to(ones.dtype), None


def _softmax_hessian(upstream: Tensor, args: list[Any], v: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
    logits, labels, class_weight, sample_weight, *options = args
    return formulas.softmax_hessian(upstream, logits, labels, class_weight, sample_weight, Softmax(*options), v, h)


def _along(dx: Tensor, v: Tensor | None, dz: Tensor, h: Tensor | None, total: Callable[[Tensor], Tensor]) -> Any:
    """The derivative of losses along the directions v and h."""
    parts = [total(times(formulas.wide(d), formulas.wide(g))) for g, d in ((dx, v), (dz, h)) if d is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _softmax_backward_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    upstream, stats, *args, for_logits, for_labels = saved
    v, h = _wanted(gradients[0], for_logits), _wanted(gradients[1], for_labels)
    du = dx = dz = None
    if needed[0]:
        ones = torch.ones_like(upstream)
        gx, gz = softmax_rows_backward(ones, stats, *args, for_logits, for_labels)
        du = _along(gx, v, gz, h, lambda x: x.sum(args[4])).to(upstream.dtype)
    if needed[2] or needed[3]:
        dx, dz = _softmax_hessian(upstream, args, v, h)
    return du, None, dx if needed[2] else None, dz if needed[3] else None, *(None,) * (len(saved) - 4)


def _softmax_backward_push(saved: list[Any], tangents: Any) -> Any:
    upstream, stats, *args, for_logits, for_labels = saved
    du, v, h = tangents[0], tangents[2], tangents[3]
    dx = dz = torch.zeros((), dtype=args[0].dtype, device=args[0].device)
    if v is not None or h is not None:
        dx, dz = _softmax_hessian(upstream, args, v, h)
    if du is not None:
        gx, gz = softmax_rows_backward(du, stats, *args, for_logits, for_labels)
        dx, dz = dx + gx if for_logits else dx, dz + gz if for_labels else dz
    return or_nothing((dx if for_logits else None, dz if for_labels else None), args[0])


_Derivatives(softmax_rows, _softmax_pull, _softmax_push, constant=(1,))
_Derivatives(softmax_rows_backward, _softmax_backward_pull, _softmax_backward_push)


# ----------------------------------------------------------------------------------------------------------- sigmoid


def _sigmoid_backward_anywhere(upstream: Tensor, logits: Tensor, *rest: Any) -> Any:
    return or_nothing(formulas.sigmoid_elements_backward(upstream, logits, *rest), logits)


sigmoid_elements = _operator(
    "sigmoid_elements(Tensor logits, Tensor labels, Tensor? pos_weight, Tensor? sample_weight, float label_smoothing) "
    "-> Tensor",
    formulas.sigmoid_elements,
    lambda logits, *_: torch.empty_like(logits, dtype=loss_dtype(logits)),
)
sigmoid_elements_backward = _operator(
    "sigmoid_elements_backward(Tensor upstream, Tensor logits, Tensor labels, Tensor? pos_weight, "
    "Tensor? sample_weight, float label_smoothing, bool for_logits, bool for_labels) -> (Tensor, Tensor)",
    _sigmoid_backward_anywhere,
    lambda upstream, logits, labels, q, s, eps, *wanted: _gradient_shapes(logits, labels, *wanted),
)


def _sigmoid_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    dx, dz = sigmoid_elements_backward(gradients[0], *saved, needed[0], needed[1])
    return dx if needed[0] else None, dz if needed[1] else None, None, None, None


def _sigmoid_push(saved: list[Any], tangents: Any) -> Any:
    v, h = tangents[0], tangents[1]
    ones = torch.ones_like(saved[0], dtype=loss_dtype(saved[0]))
    dx, dz = sigmoid_elements_backward(ones, *saved, v is not None, h is not None)
    return _along(dx, v, dz, h, lambda x: x).to(ones.dtype)


def _sigmoid_backward_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    upstream, *args, for_logits, for_labels = saved
    v, h = _wanted(gradients[0], for_logits), _wanted(gradients[1], for_labels)
    du = dx = dz = None
    if needed[0]:
        gx, gz = sigmoid_elements_backward(torch.ones_like(upstream), *args, for_logits, for_labels)
        du = _along(gx, v, gz, h, lambda x: x).to(upstream.dtype)
    if needed[1] or needed[2]:
        dx, dz = _sigmoid_hessian(upstream, args, v, h)
    return du, dx if needed[1] else None, dz if needed[2] else None, *(None,) * 5


def _sigmoid_backward_push(saved: list[Any], tangents: Any) -> Any:
    upstream, *args, for_logits, for_labels = saved
    du, v, h = tangents[0], tangents[1], tangents[2]
    dx = dz = torch.zeros((), dtype=args[0].dtype, device=args[0].device)
    if v is not None or h is not None:
        dx, dz = _sigmoid_hessian(upstream, args, v, h)
    if du is not None:
        gx, gz = sigmoid_elements_backward(du, *args, for_logits, for_labels)
        dx, dz = dx + gx if for_logits else dx, dz + gz if for_labels else dz
    return or_nothing((dx if for_logits else None, dz if for_labels else None), args[0])


def _sigmoid_hessian(upstream: Tensor, args: list[Any], v: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
    logits, labels, pos_weight, sample_weight, label_smoothing = args
    return formulas.sigmoid_hessian(upstream, logits, labels, pos_weight, sample_weight, label_smoothing, v, h)


_Derivatives(sigmoid_elements, _sigmoid_pull, _sigmoid_push)
_Derivatives(sigmoid_elements_backward, _sigmoid_backward_pull, _sigmoid_backward_push)


# ------------------------------------------------------------------------------------------------------- activations

softmax_map = _operator(
    "softmax_map(Tensor x, int axis, str kind) -> Tensor",
    formulas.softmax_map,
    lambda x, axis, kind: x.new_empty(_rows_shape(x, axis)) if kind == "logsumexp" else torch.empty_like(x),
)
elementwise = _operator(
    "elementwise(Tensor x, str kind) -> Tensor", formulas.elementwise, lambda x, kind: torch.empty_like(x)
)


def _single(x: Tensor) -> Tensor:
    """In at least float32: products of half precision would be rounded twice."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _softmax_map_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    x, axis, kind = saved
    p, u = softmax_map(_single(x), axis, "softmax"), _single(gradients[0])
    if kind == "logsumexp":
        g = p * u.unsqueeze(axis)
    elif kind == "log_softmax":
        g = formulas.less_share(p, u, x.argmax(axis, keepdim=True), axis)
    else:
        g = p * _centred(p, u, x, axis)
    return g.to(x.dtype), None, None


def _softmax_map_push(saved: list[Any], tangents: Any) -> Any:
    x, axis, kind = saved
    p, v = softmax_map(_single(x), axis, "softmax"), _single(tangents[0])
    if kind == "logsumexp":
        t = (p * v).sum(axis)
    elif kind == "log_softmax":
        t = _centred(p, v, x, axis)
    else:
        t = p * _centred(p, v, x, axis)
    return t.to(x.dtype)


def _centred(p: Tensor, c: Tensor, x: Tensor, axis: int) -> Tensor:
    """c − Σ p c; see `formulas.softmax_hessian`."""
    c = c - c.gather(axis, x.argmax(axis, keepdim=True))
    return c - (p * c).sum(axis, keepdim=True)


def _slope(x: Tensor, kind: str) -> Tensor:
    """The derivative of an elementwise function."""
    x = _single(x)
    if kind == "logit":
        return 1.0 / (x * (1.0 - x))
    yes, no = elementwise(x, "sigmoid"), elementwise(-x, "sigmoid")
    slope: Tensor = yes * no if kind == "sigmoid" else yes if kind == "softplus" else no
    return slope


def _elementwise_pull(saved: list[Any], gradients: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    x, kind = saved
    return (_single(gradients[0]) * _slope(x, kind)).to(x.dtype), None


def _elementwise_push(saved: list[Any], tangents: Any) -> Any:
    x, kind = saved
    return (_single(tangents[0]) * _slope(x, kind)).to(x.dtype)


_Derivatives(softmax_map, _softmax_map_pull, _softmax_map_push)
_Derivatives(elementwise, _elementwise_pull, _elementwise_push)
