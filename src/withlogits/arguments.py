"""What a caller may pass. Every check that needs no more than shapes, dtypes and numbers, and every error text, once.

Nothing here knows a framework: shapes are tuples, dtypes are names, and the front ends ask. A mistake that
`withlogits.guide` has a code for is told with it.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import CodeType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from withlogits.memo import keep

FEW = 64  # up to so many numbers, Python looks at them in half the time that NumPy takes to begin

P = ParamSpec("P")
R = TypeVar("R")
Shape = tuple[int, ...]

REDUCTIONS = frozenset(("none", "sum", "mean"))
SPARSE = "sparse_softmax_cross_entropy_with_logits"
DENSE = "softmax_cross_entropy_with_logits"
SIGMOID = "sigmoid_cross_entropy_with_logits"
# The largest class index up to which every index is a value of the dtype.
EXACT_INDICES = {"float16": 2048, "bfloat16": 256}


# --------------------------------------------------------------------------------------------- how a loss is called


def by_keyword(function: Callable[P, R]) -> Callable[P, R]:
    """Make a positional call a TypeError that shows the right call."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if args:
            raise wrong_call(function.__name__, keywords_of(function), defaults_of(function), kwargs, positional=True)
        return function(**kwargs)  # type: ignore[call-arg]

    return call


def keywords_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a loss's arguments, in order."""
    code: CodeType = inspect.unwrap(function).__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a loss that may be left out, and what they then are."""
    return dict(inspect.unwrap(function).__kwdefaults__)


def wrong_call(
    name: str, keywords: tuple[str, ...], defaults: Mapping[str, Any], given: Mapping[str, Any], positional: bool
) -> TypeError:
    """For a call with positional arguments, or with a name too many or too few."""
    shown = ", ".join(f"{word}=..." for word in keywords if word not in defaults or word in given)
    if positional:
        return TypeError(
            f"{name} takes its arguments by keyword, since labels and logits are easily swapped: {name}({shown})"
        )
    for word in given:
        if word not in keywords:
            return TypeError(f"{name} has no argument {word!r}; its arguments are {', '.join(keywords)}")
    absent = next(word for word in keywords if word not in defaults and word not in given)
    return TypeError(f"{name} lacks {absent}: {name}({shown})")


def not_a_loss(loss: object) -> TypeError:
    return TypeError(
        f"value_and_grad differentiates the losses of withlogits, and got {described(loss)}: pass one of "
        f"{SIGMOID}, weighted_cross_entropy_with_logits, {DENSE}, {SPARSE}, "
        "and its options to the function that comes back"
    )


def wrt_names(wrt: object, sparse: bool) -> tuple[str, ...]:
    """The names in `wrt` as a tuple, checked."""
    names: tuple[Any, ...] = wrt if isinstance(wrt, tuple) else (wrt,)
    if not names or any(name not in ("logits", "labels") for name in names) or len(set(names)) < len(names):
        raise ValueError(f"wrt is {wrt!r}, where 'logits', 'labels' or ('logits', 'labels') is expected")
    if sparse and "labels" in names:
        raise ValueError(
            f"the labels of {SPARSE} are class indices, which have no gradient: pass wrt='logits', "
            f"or distributions as labels to {DENSE}"
        )
    return names


# ----------------------------------------------------------------------------------------------------- plain options


def known_reduction(reduction: Any) -> str:
    """One of the three."""
    if type(reduction) is str and reduction in REDUCTIONS:
        return reduction
    raise ValueError(f"reduction is {reduction!r}, where 'none', 'sum' or 'mean' is expected")


def fraction(name: str, x: Any) -> float:
    """A number in [0, 1]."""
    number = x if type(x) is float else _real(name, x)
    if 0.0 <= number <= 1.0:
        return number
    raise ValueError(f"{name} is {number!r}, where a number from 0 to 1 is expected")


def positive(name: str, x: Any) -> float:
    """A finite number above 0."""
    number = x if type(x) is float else _real(name, x)
    if 0.0 < number < math.inf:
        return number
    raise ValueError(f"{name} is {number!r}, where a finite number above 0 is expected")


def not_negative(name: str, x: Any) -> float:
    """A finite number, 0 or more."""
    number = x if type(x) is float else _real(name, x)
    if 0.0 <= number < math.inf:
        return number
    raise ValueError(f"{name} is {number!r}, where a finite number of 0 or more is expected")


def _real(name: str, x: Any) -> float:
    try:
        if isinstance(x, (str, bytes)) or np.ndim(x):
            raise TypeError
        return float(x)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {described(x)}, where a number is expected") from None


def index_to_ignore(x: Any) -> int:
    try:
        return operator.index(x)
    except TypeError:
        raise TypeError(f"ignore_index is {described(x)}, where an integer or None is expected") from None


@dataclass(frozen=True, eq=False, slots=True)
class SoftmaxOptions:
    """The plain options of a softmax loss, checked; those of like calls are one object, by which they are known."""

    sparse: bool
    axis: Any  # as it was given: whether it is one depends on the logits
    label_smoothing: float
    ignore_index: int | None
    temperature: float
    softcap: float | None
    z_loss: float
    reduction: str
    wrt: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class SigmoidOptions:
    """The plain options of a sigmoid loss, checked; those of like calls are one object, by which they are known."""

    label_smoothing: float
    reduction: str
    wrt: tuple[str, ...]


_softmax_options: dict[tuple[Any, ...], SoftmaxOptions] = {}
_sigmoid_options: dict[tuple[Any, ...], SigmoidOptions] = {}


def softmax_options(
    sparse: bool,
    axis: Any,
    dim: Any,
    label_smoothing: Any,
    ignore_index: Any,
    temperature: Any,
    softcap: Any,
    z_loss: Any,
    reduction: Any,
    wrt: tuple[str, ...],
) -> SoftmaxOptions:
    """The options of a softmax loss, checked once for all calls that have the same.

    What has been checked is found by its value, and 1 == 1.0 == True: so only options of the exact types are looked up.
    """
    given = (sparse, axis, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction, wrt)
    if (
        type(axis) is int
        and dim is None
        and type(label_smoothing) is float
        and (ignore_index is None or type(ignore_index) is int)
        and type(temperature) is float
        and (softcap is None or type(softcap) is float)
        and type(z_loss) is float
        and type(reduction) is str
    ):
        known = _softmax_options.get(given)
        if known is not None:
            return known
    options = checked_softmax_options(
        sparse, axis, dim, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction, wrt
    )
    if type(options.axis) is not int:
        return options
    checked = (
        options.sparse, options.axis, options.label_smoothing, options.ignore_index, options.temperature,
        options.softcap, options.z_loss, options.reduction, options.wrt,
    )  # fmt: skip
    return _softmax_options.get(checked) or keep(_softmax_options, checked, options)


def checked_softmax_options(
    sparse: bool,
    axis: Any,
    dim: Any,
    label_smoothing: Any,
    ignore_index: Any,
    temperature: Any,
    softcap: Any,
    z_loss: Any,
    reduction: Any,
    wrt: tuple[str, ...],
) -> SoftmaxOptions:
    """The options of a softmax loss, checked for this call alone."""
    return SoftmaxOptions(
        sparse,
        _as_int(axis if dim is None else one_axis(axis, dim)),
        fraction("label_smoothing", label_smoothing),
        None if ignore_index is None else index_to_ignore(ignore_index),
        positive("temperature", temperature),
        None if softcap is None else positive("softcap", softcap),
        not_negative("z_loss", z_loss),
        known_reduction(reduction),
        wrt,
    )


def sigmoid_options(label_smoothing: Any, reduction: Any, wrt: tuple[str, ...]) -> SigmoidOptions:
    """The options of a sigmoid loss, checked once for all calls that have the same: see `softmax_options`."""
    given = (label_smoothing, reduction, wrt)
    if type(label_smoothing) is float and type(reduction) is str:
        known = _sigmoid_options.get(given)
        if known is not None:
            return known
    options = checked_sigmoid_options(label_smoothing, reduction, wrt)
    checked = (options.label_smoothing, options.reduction, options.wrt)
    return _sigmoid_options.get(checked) or keep(_sigmoid_options, checked, options)


def checked_sigmoid_options(label_smoothing: Any, reduction: Any, wrt: tuple[str, ...]) -> SigmoidOptions:
    """The options of a sigmoid loss, checked for this call alone."""
    return SigmoidOptions(fraction("label_smoothing", label_smoothing), known_reduction(reduction), wrt)


def _as_int(axis: Any) -> Any:
    """What is no integer is left as it is, and told of together with the shape: the arrays are looked at first."""
    try:
        return operator.index(axis)
    except TypeError:
        return axis


def one_axis(axis: Any, dim: Any) -> Any:
    """`axis`, or its older name `dim`."""
    if dim is None:
        return axis
    if axis != -1:
        raise ValueError(
            f"axis={axis!r} and dim={dim!r} were both given; dim is an older name of axis: pass axis alone"
        )
    return dim


def class_axis(axis: Any, shape: Shape, name: str = "logits") -> int:
    """The axis counted from the front, of logits (or x) that have classes there."""
    try:
        position = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis is {described(axis)}, where an integer is expected") from None
    rank = len(shape)
    if rank == 0:
        raise ValueError(f"{_is(name)} a single number, where an axis of classes is needed: shape (C,) or more")
    if not -rank <= position < rank:
        raise ValueError(f"axis {position} is outside [{-rank}, {rank}) for {name} of shape {shape}")
    position %= rank
    if shape[position] == 0:
        raise ValueError(f"{name} of shape {shape} without a class: axis {position} has length 0")
    return position


# ------------------------------------------------------------------------------------------------------------ dtypes


@dataclass(frozen=True, slots=True)
class Words:
    """How a conversion is written in the caller's library; each holds {name} and {dtype}."""

    cast: str
    convert: str  # the same for what may not be an array yet
    reload: str  # what to do about a bfloat16 that came back from a file as plain bytes


NUMPY = Words(
    cast="{name}.astype(numpy.{dtype})",
    convert="numpy.asarray({name}, numpy.{dtype})",
    reload="{name}.view(ml_dtypes.bfloat16)",
)


def logits_dtype(name: str, dtype: str, words: Words = NUMPY) -> TypeError:
    """`name` is what the caller calls the array: logits, x."""
    text = f"{_has(name)} dtype {dtype}, where float16, bfloat16, float32 or float64 is expected; "
    if dtype == "void16":
        return TypeError(text + f"NumPy reloads a saved bfloat16 like this: pass {words.reload.format(name=name)}")
    if dtype.startswith("complex"):
        return TypeError(text + f"a loss of complex numbers is not defined: pass {name}.real if that is meant")
    wider = "float64" if dtype.startswith(("float", "longdouble")) and not dtype.startswith("float8") else "float32"
    convert = f"pass {words.convert.format(name=name, dtype=wider)}"
    if name == "logits" and dtype.startswith(("int", "uint", "bool")):
        convert = f"if labels and logits were not swapped, {convert}"
    return TypeError(text + convert)


def index_dtype(dtype: str, words: Words = NUMPY) -> TypeError:
    """For labels of the sparse loss that are no integers."""
    text = f"labels have dtype {dtype}, and {SPARSE} takes class indices, which are integers: "
    cast = words.cast.format(name="labels", dtype="int64")
    if dtype.startswith(("float", "bfloat")):
        text += f"pass {cast} if they are indices stored as floats (WL208), or give probabilities to {DENSE}"
        if dtype in EXACT_INDICES:
            text += f" ({dtype} cannot hold every index above {EXACT_INDICES[dtype]})"
        return TypeError(text)
    if dtype == "bool":
        return TypeError(text + f"pass {cast}, with False as class 0 and True as class 1")
    return TypeError(text + f"pass {cast}")


def label_dtype(dtype: str) -> TypeError:
    """For labels of the other losses that are no real numbers."""
    return TypeError(f"labels have dtype {dtype}, where booleans, integers or real floating-point numbers are expected")


def number_dtype(name: str, dtype: str) -> TypeError:
    return TypeError(f"{name} has dtype {dtype}, where real numbers are expected")


# Packages whose arrays are known by the home of their type, without an import. Some convert themselves when asked,
# which would drop a gradient or copy from a device without a word.
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "jaxlib": "JAX", "tensorflow": "TensorFlow", "keras": "Keras"}
SERVED = frozenset(("PyTorch",))


def known_array(name: str, given: Any, logits_of: str) -> None:
    """Raise for an array of another framework than that of the logits."""
    for base in type(given).__mro__:
        framework = FRAMEWORKS.get(base.__module__.partition(".")[0])
        if framework is None:
            continue
        if framework not in SERVED:
            raise not_served(name, framework)
        if name in ("logits", "x", "p"):  # those have chosen the front end
            raise TypeError(f"{_is(name)} {described(given)} of {framework}, where an array is expected")
        raise mixed(name, framework, logits_of)


def not_served(name: str, framework: str) -> TypeError:
    return TypeError(
        f"{name}: withlogits does not serve arrays of {framework} yet; pass NumPy arrays for now, for an array on the "
        f"CPU that carries no gradient numpy.asarray({name})"
    )


def mixed(name: str, framework: str, logits_of: str) -> TypeError:
    return TypeError(
        f"{_is(name)} an array of {framework}, where the logits are of {logits_of}: pass both as arrays of one library"
    )


def not_dense(name: str, kind: str) -> TypeError:
    return TypeError(
        f"{_is(name)} a {kind} tensor, where a dense one is expected: pass {name}."
        + ("to_padded_tensor(0.0), and sample_weight=0 for the padding" if kind == "nested" else "to_dense()")
    )


def other_device(name: str, device: str, logits_device: str) -> ValueError:
    return ValueError(f"{_is(name)} on {device} and logits on {logits_device}: pass {name}.to(logits.device)")


def weight_gradient(name: str) -> ValueError:
    return ValueError(
        f"{name} requires a gradient, which the losses do not give for weights: pass {name}.detach(); "
        'to learn a weight of each loss, multiply it with the losses of reduction="none"'
    )


def masked(name: str) -> TypeError:
    return TypeError(
        f"{_is(name)} a masked array, whose mask the loss would not see: "
        f"pass {name}.data, and sample_weight=0 for what is masked"
    )


def no_array(name: str, reason: object) -> TypeError:
    return TypeError(f"{name} cannot be made an array: {reason}")


# ------------------------------------------------------------------------------------------------------------ shapes


def sparse_keeps_axis(labels: Shape, logits: Shape, axis: int) -> bool:
    """Whether index labels keep the class axis with length 1, as (N, 1) for logits (N, C); raises if neither fits."""
    rows = logits[:axis] + logits[axis + 1 :]
    if labels == rows:
        return False
    kept = (*logits[:axis], 1, *logits[axis + 1 :])
    if labels == kept:
        return True
    got = f"labels have shape {labels} and logits {logits}, classes on axis {axis}: "
    if labels == logits:
        raise ValueError(
            f"{got}one-hot or soft labels belong to {DENSE}, yes/no labels to {SIGMOID}; "
            f"{SPARSE} takes class indices: pass labels.argmax(axis={axis}) if they are one-hot (WL201)"
        )
    for other in range(len(logits)):
        if labels == logits[:other] + logits[other + 1 :]:
            raise ValueError(f"{got}the labels fit classes on another axis: pass axis={other} (WL211)")
    raise ValueError(f"{got}class indices of shape {rows} or {kept} are expected")


def dense_broadcasts(labels: Shape, logits: Shape, axis: int, integers: bool) -> bool:
    """Whether one label row, (C,) or (1, C), stands for all rows; raises if the labels fit in no way."""
    if labels == logits:
        return False
    classes = logits[axis]
    rows = logits[:axis] + logits[axis + 1 :]
    got = f"labels have shape {labels} and logits {logits}, classes on axis {axis}: "
    # integers (C,) for logits (C, C) may be indices as well as one row of labels, and are not guessed at
    if labels in (rows, (*logits[:axis], 1, *logits[axis + 1 :])) and (integers or labels != (classes,)):
        raise ValueError(
            f"{got}class indices belong to {SPARSE}; {DENSE} takes labels of the logits' shape, whose rows sum to 1 "
            "(WL202)"
        )
    if labels == (classes,) and axis == len(logits) - 1:
        return True
    if labels == tuple(classes if i == axis else 1 for i in range(len(logits))):
        return True
    if labels == logits[::-1]:
        raise ValueError(f"{got}the labels are transposed: pass labels.T (WL212)")
    raise ValueError(f"{got}labels of the logits' shape are expected, or one row for all, ({classes},)")


def sigmoid_shapes(labels: Shape, logits: Shape) -> ValueError:
    """For sigmoid labels that have not the logits' shape; nothing else will do."""
    got = f"labels have shape {labels} and logits {logits}: "
    if labels == (*logits, 1):
        return ValueError(
            f"{got}broadcast, they would be {np.broadcast_shapes(labels, logits)}; pass labels[..., 0] (WL210)"
        )
    if (*labels, 1) == logits:
        return ValueError(
            f"{got}broadcast, they would be {np.broadcast_shapes(labels, logits)}; pass logits[..., 0] (WL210)"
        )
    if len(logits) > 1 and labels == logits[:-1]:
        return ValueError(
            f"{got}class indices belong to {SPARSE}; {SIGMOID} takes one label for each logit, in the logits' shape "
            "(WL202)"
        )
    if labels == logits[::-1]:
        return ValueError(f"{got}the labels are transposed: pass labels.T (WL212)")
    return ValueError(f"{got}labels of the logits' shape are expected")


def class_weight_shape(shape: Shape, classes: int) -> None:
    if shape != (classes,):
        raise ValueError(f"class_weight has shape {shape}, where ({classes},) is expected: one weight for each class")


def weight_shape(name: str, shape: Shape, target: Shape, of: str) -> None:
    """`shape` must broadcast to `target`, which is the shape of the loss or the logits (`of`)."""
    if len(shape) <= len(target) and all(
        mine in (1, theirs) for mine, theirs in zip(shape, target[len(target) - len(shape) :], strict=True)
    ):
        if name == "pos_weight":
            refuse_ambiguous_pos_weight(shape, target)
        return
    text = f"{name} has shape {shape}, which does not broadcast to {target}, the shape of the {of}"
    if shape == (*target, 1):
        text += f": pass {name}[..., 0]"
    elif (*shape, 1) == target:
        text += f": pass {name}[..., None]"
    raise ValueError(text)


# ------------------------------------------------------------------------------------------------------------ values


def weight_values(name: str, weight: NDArray[Any]) -> None:
    """Weights must be finite and 0 or more."""
    if weight.size <= FEW:
        few: list[float] = weight.ravel().tolist()
        if all(0.0 <= w < math.inf for w in few):
            return
    elif weight.min() >= 0.0 and weight.max() < math.inf:  # NaN is neither
        return
    bad = np.flatnonzero(~((weight >= 0.0) & (weight < np.inf)))[0]
    entry = _entry(name, np.unravel_index(bad, weight.shape))
    raise ValueError(f"{entry} is {weight.flat[bad].item()!r}, where a finite weight of 0 or more is expected")


def label_out_of_range(
    labels: NDArray[Any], classes: int, ignore_index: int | None = None, sample_weight: NDArray[Any] | None = None
) -> ValueError:
    """For index labels of which at least one counts and is no class: names the first."""
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if sample_weight is not None:
        wrong &= sample_weight != 0.0
    where = np.unravel_index(np.flatnonzero(wrong)[0], labels.shape)
    value = int(labels[where])
    from_one = value == classes and labels.min() >= 1 and labels.max() == classes
    return label_outside(where, value, classes, from_one)


def label_outside(where: tuple[Any, ...], value: int, classes: int, from_one: bool) -> ValueError:
    """For the label at `where`; `from_one` says that the labels look as if they count from 1 to C."""
    text = f"{_entry('labels', where)} = {value} is outside [0, {classes}) for logits with {classes} class"
    if classes == 1:
        return ValueError(f"{text}; a single logit for each example is for {SIGMOID} (WL105)")
    text += "es; "
    if from_one:
        return ValueError(text + "labels that count from 1 are indices after labels - 1 (WL206)")
    return ValueError(text + f"to skip padding pass ignore_index={value} (WL207)")


def out_array(expected: str, got: str) -> ValueError:
    return ValueError(f"out must be {expected}, and is {got}")


def out_without_logits() -> ValueError:
    return ValueError("out takes the gradient of the logits, which wrt does not name: add it there, or pass no out")


def out_overlaps(name: str) -> ValueError:
    return ValueError(
        f"out shares memory with {name}: pass an array of its own"
        + (", or the logits themselves to have them overwritten" if name == "logits" else "")
    )


def _is(name: str) -> str:
    return f"{name} are" if name in ("logits", "labels") else f"{name} is"


def _has(name: str) -> str:
    return f"{name} have" if name in ("logits", "labels") else f"{name} has"


def _entry(name: str, where: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in where)}]" if where else name


def described(x: Any) -> str:
    """A short account of a wrong argument; never the whole of an array."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return repr(x)
    name: str = getattr(x, "__qualname__", f"an object of type {type(x).__name__}")
    return name


def operand_shape(name: str, shape: Shape, expected: Shape) -> ValueError:
    """For an array that a traced graph gives to an operator, and that does not fit the logits."""
    return ValueError(f"{_has(name)} shape {shape}, where {expected} is expected")


def traced_value_and_grad() -> RuntimeError:
    """For `value_and_grad` under `torch.jit.trace`, which records no gradients."""
    return RuntimeError(
        "torch.jit.trace cannot record value_and_grad: trace the loss, and differentiate the traced function"
    )


def not_installed(module: str, library: str, extra: str) -> ModuleNotFoundError:
    """For the import of a module whose library is not there."""
    return ModuleNotFoundError(
        f"{module} needs {library}, which is not installed: pip install 'withlogits[{extra}]'", name=extra
    )


def refuse_ambiguous_pos_weight(shape: Shape, logits: Shape) -> None:
    """Raise where a weight for each class fits the width of images (N, C, H, W) just as well.

    Sequences, (N, T, C), are let be: their length may be C by chance, and their last axis is that of the classes.
    """
    if len(shape) == 1 and len(logits) > 3 and 1 < shape[0] == logits[1] == logits[-1]:
        spatial = ", ".join(["1"] * (len(logits) - 2))
        raise ValueError(
            f"pos_weight has shape {shape}, which fits axis 1 and the last axis of logits of shape {logits}: pass "
            f"pos_weight.reshape({shape[0]}, {spatial}) for classes on axis 1, or pos_weight[None] for the last axis"
        )
