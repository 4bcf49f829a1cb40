"""The front end for PyTorch tensors, on every device and under every transform of torch.

Plain CPU tensors go straight to the kernels (`eager`); all others, and whatever is traced, mapped or differentiated by
torch.func, go through the operators (`operators`, `traced`), which know what runs where.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from withlogits import arguments, engine
from withlogits.arguments import SigmoidOptions, SoftmaxOptions
from withlogits.frameworks.torch import cpu, eager, formulas, operators, private, traced
from withlogits.frameworks.torch.formulas import Softmax, loss_dtype
from withlogits.memo import keep

WORDS = arguments.Words(cast="{name}.to(torch.{dtype})", convert="{name}.to(torch.{dtype})", reload="")

FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
INTEGERS = frozenset(getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64))
REALS = FLOATS | INTEGERS | {torch.bool}


class _Form(NamedTuple):
    """What shapes, dtypes and options say about a softmax loss, once they are checked."""

    options: Softmax
    loss_shape: tuple[int, ...]
    squeezed: bool  # index labels keep the class axis, with length 1
    broadcast: bool  # one label row stands for all


_forms: dict[tuple[Any, ...], _Form] = {}
# Of tensors that go to the kernels as they are, without weights: what computes each kind of call
_looks = attrgetter("__class__", "is_cpu", "layout", "dtype", "shape")
_calls: dict[tuple[Any, ...], Callable[[Tensor, Tensor], Tensor]] = {}


def softmax_loss(
    sparse: bool,
    wrt: tuple[str, ...],
    labels: Any,
    logits: Any,
    axis: Any,
    dim: Any,
    name: str | None,
    class_weight: Any,
    label_smoothing: Any,
    ignore_index: Any,
    temperature: Any,
    softcap: Any,
    z_loss: Any,
    sample_weight: Any,
    reduction: Any,
    out: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """Softmax cross-entropy of dense or index labels."""
    given = (sparse, axis, dim, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction, wrt)
    if name is not None:
        with torch.profiler.record_function(name):
            return _softmax_loss(given, labels, logits, class_weight, sample_weight, out)
    if class_weight is None and sample_weight is None and not wrt and eager.no_transforms():
        call = _known(arguments.softmax_options(*given), logits, labels)
        if call is not None:
            return call(logits, labels), ()
    return _softmax_loss(given, labels, logits, class_weight, sample_weight, out)


@traced.checks_shapes
def _softmax_loss(
    given: tuple[Any, ...], labels: Any, logits: Any, class_weight: Any, sample_weight: Any, out: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Every check, and whatever way there is."""
    labels = _tensor("labels", labels, logits)
    plain = _are_plain(logits, labels)
    if plain:
        options = arguments.softmax_options(*given)
        key = (options, logits.shape, logits.dtype, labels.shape, labels.dtype)
        form = _forms.get(key) or keep(_forms, key, _form(options, logits, labels))
    else:
        options = arguments.checked_softmax_options(*given)
        form = _form(options, logits, labels)
    wrt, reduction = options.wrt, options.reduction
    if class_weight is not None:
        class_weight = checked_weight("class_weight", class_weight, logits, plain)
        arguments.class_weight_shape(tuple(class_weight.shape), logits.shape[form.options.axis])
    if sample_weight is not None:
        sample_weight = _expanded("sample_weight", sample_weight, logits, plain, form.loss_shape, "loss")
    if out is not None:
        _check_out(out, wrt, logits, labels=labels, class_weight=class_weight, sample_weight=sample_weight)
    # the denominator of such a mean depends on the labels too
    entangled = class_weight is not None and not options.sparse and reduction == "mean"
    entangled = entangled and (labels.requires_grad or "labels" in wrt)
    if not wrt:
        return _softmax(logits, labels, class_weight, sample_weight, form, options, plain and not entangled), ()
    if plain and not entangled and not (form.broadcast and "labels" in wrt):
        return _softmax_value_and_grad(logits, labels, class_weight, sample_weight, form, options, out)

    def loss(labels: Tensor, logits: Tensor) -> Tensor:
        return _softmax(logits, labels, class_weight, sample_weight, form, options, False)

    return _value_and_grad(loss, wrt, labels, logits, out)


def _softmax(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    form: _Form,
    options: SoftmaxOptions,
    plain: bool,
) -> Tensor:
    """The loss of arguments that are checked."""
    axis, reduction = form.options.axis, options.reduction
    given_labels = labels
    if form.squeezed:
        labels = labels.squeeze(axis)
        sample_weight = None if sample_weight is None else sample_weight.squeeze(axis)
    elif form.broadcast:
        if labels.dtype.is_floating_point:
            labels = labels.to(loss_dtype(logits))  # its gradient is summed over the rows, and rounded only then
        labels = labels.expand(logits.shape)
    if plain:
        plan = cpu.softmax_plan(logits, labels, form.options)
        if labels is given_labels and class_weight is None and sample_weight is None:
            _prepare(options, plan, logits, labels)
        value = eager.loss(plan, logits, labels, cpu.doubles(class_weight), cpu.double(sample_weight), reduction)
    else:
        value = traced.softmax(logits, labels, class_weight, sample_weight, form.options, reduction)
    return value.unsqueeze(axis) if form.squeezed and reduction == "none" else value


def _softmax_value_and_grad(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    form: _Form,
    options: SoftmaxOptions,
    out: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of plain tensors, in one pass."""
    axis = form.options.axis
    if form.squeezed:
        labels = labels.squeeze(axis)
        sample_weight = None if sample_weight is None else sample_weight.squeeze(axis)
    elif form.broadcast:
        labels = labels.expand(logits.shape)
    plan = cpu.softmax_plan(logits, labels, form.options)
    class_weight, sample_weight = cpu.doubles(class_weight), cpu.double(sample_weight)
    if out is not None and options.sparse:
        plan.check_range(labels, sample_weight)  # before anything is written into the caller's own memory
    asked = ("logits" in options.wrt, "labels" in options.wrt)
    to = None if out is None else out.detach()
    value, dx, dz, _ = eager.value_and_gradients(
        plan, logits, labels, class_weight, sample_weight, options.reduction, *asked, to
    )
    if form.squeezed and options.reduction == "none":
        value = value.unsqueeze(axis)
    return value, _in_order(options.wrt, dx, dz, out)


def sigmoid_loss(
    wrt: tuple[str, ...],
    labels: Any,
    logits: Any,
    name: str | None,
    pos_weight: Any,
    label_smoothing: Any,
    sample_weight: Any,
    reduction: Any,
    out: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """Sigmoid cross-entropy."""
    given = (label_smoothing, reduction, wrt)
    if name is not None:
        with torch.profiler.record_function(name):
            return _sigmoid_loss(given, labels, logits, pos_weight, sample_weight, out)
    if pos_weight is None and sample_weight is None and not wrt and eager.no_transforms():
        call = _known(arguments.sigmoid_options(*given), logits, labels)
        if call is not None:
            return call(logits, labels), ()
    return _sigmoid_loss(given, labels, logits, pos_weight, sample_weight, out)


@traced.checks_shapes
def _sigmoid_loss(
    given: tuple[Any, ...], labels: Any, logits: Any, pos_weight: Any, sample_weight: Any, out: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Every check, and whatever way there is."""
    labels = _tensor("labels", labels, logits)
    plain = _are_plain(logits, labels)
    options = arguments.sigmoid_options(*given) if plain else arguments.checked_sigmoid_options(*given)
    _check_logits("logits", logits)
    _check_labels(labels, logits)
    if labels.shape != logits.shape:
        raise arguments.sigmoid_shapes(tuple(labels.shape), tuple(logits.shape))
    if pos_weight is not None:
        pos_weight = checked_weight("pos_weight", pos_weight, logits, plain)
        arguments.weight_shape("pos_weight", tuple(pos_weight.shape), tuple(logits.shape), "logits")
        if pos_weight.dim() or not plain:  # the kernels take one number for all as such
            pos_weight = pos_weight.expand(logits.shape)
    if sample_weight is not None:
        sample_weight = _expanded("sample_weight", sample_weight, logits, plain, tuple(logits.shape), "loss")
    wrt, reduction, smoothing = options.wrt, options.reduction, options.label_smoothing
    if out is not None:
        _check_out(out, wrt, logits, labels=labels, pos_weight=pos_weight, sample_weight=sample_weight)
    if not plain:

        def loss(labels: Tensor, logits: Tensor) -> Tensor:
            return traced.sigmoid(logits, labels, pos_weight, sample_weight, smoothing, reduction)

        return _value_and_grad(loss, wrt, labels, logits, out) if wrt else (loss(labels, logits), ())
    plan = cpu.sigmoid_plan(logits, labels, smoothing)
    pos_weight, sample_weight = cpu.double(pos_weight), cpu.weight(sample_weight)
    if not wrt:
        if pos_weight is None and sample_weight is None:
            _prepare(options, plan, logits, labels)
        return eager.loss(plan, logits, labels, pos_weight, sample_weight, reduction), ()
    asked = ("logits" in wrt, "labels" in wrt)
    to = None if out is None else out.detach()
    value, dx, dz, _ = eager.value_and_gradients(plan, logits, labels, pos_weight, sample_weight, reduction, *asked, to)
    return value, _in_order(wrt, dx, dz, out)


@traced.checks_shapes
def softmax_map(x: Any, axis: Any, kind: str) -> Any:
    """softmax, log_softmax or logsumexp along an axis."""
    _check_logits("x", x)
    return operators.softmax_map(x, arguments.class_axis(axis, tuple(x.shape), "x"), kind)


@traced.checks_shapes
def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    _check_logits("p" if kind == "logit" else "x", x)
    return operators.elementwise(x, kind)


def _key(options: SoftmaxOptions | SigmoidOptions, logits: Any, labels: Any) -> tuple[Any, ...]:
    return options, engine.select(), *_looks(logits), logits.stride(), *_looks(labels), labels.stride()


def _known(
    options: SoftmaxOptions | SigmoidOptions, logits: Any, labels: Any
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What computed such a call before."""
    try:
        call = _calls.get(_key(options, logits, labels))
    except (AttributeError, RuntimeError):  # no tensor, or one that has no shape or no strides
        return None
    return None if call is None or logits.is_neg() or labels.is_neg() else call


def _prepare(options: SoftmaxOptions | SigmoidOptions, plan: eager.Plan, logits: Tensor, labels: Tensor) -> None:
    """For the next call of this kind, on plain tensors."""
    key = _key(options, logits, labels)
    if key not in _calls:
        keep(_calls, key, eager.prepared(plan, options.reduction))


# ------------------------------------------------------------------------------------------------------------- checks


def _are_plain(logits: Any, labels: Any) -> bool:
    """Whether the kernels may read these where they lie: strided CPU tensors, and no transform of torch at work."""
    return (
        eager.no_transforms()
        and type(logits) in eager.PLAIN
        and type(labels) in eager.PLAIN
        and logits.is_cpu
        and labels.is_cpu
        and logits.layout is torch.strided
        and labels.layout is torch.strided
        and not logits.is_neg()
        and not labels.is_neg()
        and not logits.is_nested
        and eager.compiled()
    )


def _form(options: SoftmaxOptions, logits: Tensor, labels: Tensor) -> _Form:
    """What there is to check about a softmax loss's logits and labels."""
    _check_logits("logits", logits)
    shape, label_shape = tuple(logits.shape), tuple(labels.shape)
    axis = arguments.class_axis(options.axis, shape)
    rows = shape[:axis] + shape[axis + 1 :]
    ignored = options.ignore_index
    squeezed = broadcast = False
    if options.sparse:
        _check_dense("labels", labels)
        _check_device("labels", labels, logits)
        if labels.dtype not in INTEGERS:
            raise arguments.index_dtype(dtype_name(labels.dtype), WORDS)
        squeezed = arguments.sparse_keeps_axis(label_shape, shape, axis)
        if ignored is not None and not -(2**63) <= ignored < 2**63:
            # the operators compare 64 bits; what has more is no label
            ignored = ignored - 2**64 if labels.dtype == torch.uint64 and 0 < ignored < 2**64 else None
    else:
        _check_labels(labels, logits)
        broadcast = arguments.dense_broadcasts(label_shape, shape, axis, labels.dtype in INTEGERS)
    plain_options = Softmax(
        axis, options.sparse, options.label_smoothing, ignored, options.temperature, options.softcap, options.z_loss
    )
    return _Form(plain_options, label_shape if squeezed else rows, squeezed, broadcast)


def _tensor(name: str, given: Any, logits: Tensor) -> Tensor:
    """A tensor, or what becomes one beside the logits: numbers, lists, NumPy arrays."""
    if isinstance(given, Tensor):
        return given
    number = isinstance(given, (int, float))
    plain = number or isinstance(given, (list, tuple))
    if not plain:  # of which torch.compile does not see the ancestry
        arguments.known_array(name, given, "PyTorch")
    try:
        # torch's default dtype would round a float: numbers and lists of them are float64, as with NumPy
        wide = formulas.wide_dtype(logits)
        if number and not logits.is_cpu:  # a copy of one would wait for the device
            dtype = wide if isinstance(given, float) else None
            return torch.full((), given, dtype=dtype, device=logits.device)
        made = torch.as_tensor(given, device=logits.device)
        if plain and made.is_floating_point():
            made = torch.as_tensor(given, dtype=wide, device=logits.device)
        return made
    except (TypeError, ValueError, RuntimeError) as error:
        raise arguments.no_array(name, error) from None


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.").replace("_", " ")
        raise arguments.not_dense(name, kind)


def _check_device(name: str, tensor: Tensor, logits: Tensor) -> None:
    if tensor.device != logits.device:
        raise arguments.other_device(name, str(tensor.device), str(logits.device))


def _check_logits(name: str, logits: Tensor) -> None:
    _check_dense(name, logits)
    if logits.dtype not in FLOATS:
        raise arguments.logits_dtype(name, dtype_name(logits.dtype), WORDS)


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    _check_dense("labels", labels)
    _check_device("labels", labels, logits)
    if labels.dtype not in REALS:
        raise arguments.label_dtype(dtype_name(labels.dtype))


def dtype_name(dtype: torch.dtype) -> str:
    """As it is named in error texts."""
    return str(dtype).removeprefix("torch.")


def checked_weight(name: str, given: Any, logits: Tensor, plain: bool) -> Tensor:
    """Finite weights of 0 or more; their values are looked at where that makes nobody wait."""
    weight = _tensor(name, given, logits)
    _check_dense(name, weight)
    if weight.device != logits.device:
        if weight.dim():
            _check_device(name, weight, logits)
        weight = weight.to(logits.device)
    if weight.dtype not in REALS:
        raise arguments.number_dtype(name, dtype_name(weight.dtype))
    if weight.requires_grad:
        raise arguments.weight_gradient(name)
    if weight.dtype not in (torch.float32, torch.float64):
        narrow = weight.dtype in FLOATS or weight.itemsize < 4  # float32 holds all of these
        weight = weight.to(torch.float32 if narrow else formulas.wide_dtype(logits))
    if plain:
        arguments.weight_values(name, weight.numpy())
    return weight


def _expanded(name: str, given: Any, logits: Tensor, plain: bool, shape: tuple[int, ...], of: str) -> Tensor:
    weight = checked_weight(name, given, logits, plain)
    if tuple(weight.shape) == shape:
        return weight
    arguments.weight_shape(name, tuple(weight.shape), shape, of)
    return weight.expand(shape)


# ---------------------------------------------------------------------------------------------- values and gradients


def _value_and_grad(
    loss: Callable[[Tensor, Tensor], Tensor], wrt: tuple[str, ...], labels: Tensor, logits: Tensor, out: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """By torch's own differentiation of the operators."""
    if not torch.compiler.is_compiling() and private.is_tracing():
        raise arguments.traced_value_and_grad()
    if eager.no_transforms():  # as from the kernels, value and gradient carry no graph
        labels, logits = labels.detach(), logits.detach()
    if "labels" in wrt and not labels.dtype.is_floating_point:
        labels = labels.to(loss_dtype(logits))
    given = {"labels": labels, "logits": logits}

    def of_wrt(*varied: Tensor) -> Tensor:
        both = {**given, **dict(zip(wrt, varied, strict=True))}
        return loss(both["labels"], both["logits"])

    value, pull, *_ = torch.func.vjp(of_wrt, *(given[name] for name in wrt))
    gradients = pull(torch.ones_like(value))
    if out is not None:
        out.detach().copy_(gradients[wrt.index("logits")])
        gradients = tuple(out if name == "logits" else g for name, g in zip(wrt, gradients, strict=True))
    return value, gradients


def _in_order(wrt: tuple[str, ...], dx: Tensor | None, dz: Tensor | None, out: Tensor | None) -> tuple[Any, ...]:
    if out is not None:
        torch.autograd.graph.increment_version(out)
        dx = out
    return tuple(dx if name == "logits" else dz for name in wrt)


def _check_out(out: Any, wrt: tuple[str, ...], logits: Tensor, **others: Tensor | None) -> None:
    """`out` takes the gradient of the logits: theirs in shape and dtype, and its memory theirs exactly or nobody's."""
    if "logits" not in wrt:
        raise arguments.out_without_logits()
    if not isinstance(out, Tensor):
        raise arguments.out_array("a torch.Tensor", f"a {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype or out.device != logits.device:
        raise arguments.out_array(_described(logits), _described(out))
    if out.requires_grad and out is not logits:
        raise arguments.out_array("a tensor that takes no part in autograd", "one that requires a gradient")
    if any(n > 1 and step == 0 for n, step in zip(out.shape, out.stride(), strict=True)):
        raise arguments.out_array("without overlap in its own memory", f"a view with strides {out.stride()}")
    if torch.compiler.is_compiling():  # where tensors have no addresses
        return
    if out is not logits and _overlap(out, logits) and not _same_places(out, logits):
        raise arguments.out_overlaps("logits")
    for name, other in others.items():
        if other is not None and _overlap(out, other):
            raise arguments.out_overlaps(name)


def _described(tensor: Tensor) -> str:
    return f"of shape {tuple(tensor.shape)} and dtype {dtype_name(tensor.dtype)} on {tensor.device}"


def _same_places(a: Tensor, b: Tensor) -> bool:
    return a.stride() == b.stride() and a.data_ptr() == b.data_ptr()


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the stretches of memory from the first to the last element meet."""
    if not a.numel() or not b.numel():
        return False
    (first, after), (other, behind) = _stretch(a), _stretch(b)
    return first < behind and other < after


def _stretch(tensor: Tensor) -> tuple[int, int]:
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize
