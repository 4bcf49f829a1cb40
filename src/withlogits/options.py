"""The options of the losses: their names, defaults and checks, and the names of the weights, in one place.

The public function makes an options object, which goes through every layer; operator schemas, kernel plans and lists of
keywords are derived from its fields. Equal options are the same object, which is the key of cached plans.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import CodeType
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from withlogits import errors
from withlogits.memo import keep

REQUIRED: Any = inspect.Parameter.empty  # the default of required arguments; `inspect` shows them without one

Reduction: TypeAlias = Literal["none", "sum", "mean"]
REDUCTIONS = frozenset(("none", "sum", "mean"))
Wrt: TypeAlias = Literal["logits", "labels"]


class _Tensor(Protocol):
    """An array with autograd, which NumPy's are not."""

    @property
    def requires_grad(self) -> bool: ...


Tensor = TypeVar("Tensor", bound=_Tensor)

FEW = 64  # up to so many numbers, a Python loop is faster than a NumPy call
NUMBERS, EXACT = frozenset((int, float)), 2.0**53  # Python's, which below so much are float64 numbers
EXACT_LABELS = 2.0**24  # below, a whole number is no other label's value, in whichever type labels are read
SUFFIX = {"int": "int", "bool": "bool", "float": "float", "int | None": "int?", "float | None": "float?"}


@dataclass(frozen=True, eq=False, slots=True)
class SoftmaxOptions:
    """The validated options of a softmax loss."""

    axis: Any  # checked against the shape of the logits later
    sparse: bool  # whether the labels are class indices
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    temperature: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0
    reduction: Reduction = "none"

    # The arrays that accompany labels and logits; of these, those of shape (C,)
    WEIGHTS: ClassVar = ("class_weight", "sample_weight", "class_offset")
    PER_CLASS: ClassVar = ("class_weight", "class_offset")

    @classmethod
    def checked(cls, given: tuple[Any, ...]) -> SoftmaxOptions:
        """Return the options of these values, in the order of the fields."""
        axis, sparse, smoothing, ignore_index, temperature, softcap, z_loss, reduction = given
        return cls(
            integer_if_possible(axis),
            sparse,
            fraction("label_smoothing", smoothing),
            None if ignore_index is None else index_to_ignore(ignore_index),
            positive("temperature", temperature),
            None if softcap is None else positive("softcap", softcap),
            not_negative("z_loss", z_loss),
            known_reduction(reduction),
        )


@dataclass(frozen=True, eq=False, slots=True)
class SigmoidOptions:
    """The validated options of a sigmoid loss."""

    label_smoothing: float = 0.0
    ignore_index: float | None = None  # a whole number, or `math.nan`
    reduction: Reduction = "none"

    WEIGHTS: ClassVar = ("pos_weight", "sample_weight")

    @classmethod
    def checked(cls, given: tuple[Any, ...]) -> SigmoidOptions:
        """Return the options of these values, in the order of the fields."""
        smoothing, ignore_index, reduction = given
        return cls(
            fraction("label_smoothing", smoothing),
            None if ignore_index is None else label_to_ignore(ignore_index),
            known_reduction(reduction),
        )


class SigmoidSettings(TypedDict, total=False):
    """Options of the sigmoid loss, for type checkers."""

    pos_weight: Any
    label_smoothing: float
    ignore_index: float | None


class SoftmaxSettings(TypedDict, total=False):
    """Options of the softmax losses, for type checkers."""

    axis: int
    class_weight: Any
    class_offset: Any
    label_smoothing: float
    temperature: float
    softcap: float | None
    z_loss: float


class SparseSettings(SoftmaxSettings, total=False):
    """Options of the sparse softmax loss, for type checkers."""

    ignore_index: int | None


class _AtCalls(TypedDict, total=False):
    name: str | None
    sample_weight: Any


class WeightedKeywords(TypedDict, total=False):
    """Keywords of the weighted sigmoid loss, for type checkers."""

    name: str | None
    pos_weight: Any
    ignore_index: float | None


class SigmoidKeywords(SigmoidSettings, _AtCalls, total=False):
    """Keywords of the sigmoid loss, for type checkers."""


class SoftmaxKeywords(SoftmaxSettings, _AtCalls, total=False):
    """Keywords of the dense softmax loss, for type checkers."""

    dim: int | None


class SparseKeywords(SparseSettings, _AtCalls, total=False):
    """Keywords of the sparse softmax loss, for type checkers."""


Options: TypeAlias = SoftmaxOptions | SigmoidOptions
Function = TypeVar("Function", bound=Callable[..., Any])
AnyOptions = TypeVar("AnyOptions", bound=Options)

_softmax: dict[tuple[Any, ...], SoftmaxOptions] = {}
_sigmoid: dict[tuple[Any, ...], SigmoidOptions] = {}


def softmax_options(given: tuple[Any, ...]) -> SoftmaxOptions:
    """Return the options of a softmax loss for values in the order of the fields; equal values give the same object.

    Only values of the exact types are looked up, since 1 == 1.0 == True.
    """
    axis, _, smoothing, ignore_index, temperature, softcap, z_loss, reduction = given
    if (
        type(axis) is int
        and type(smoothing) is float
        and (ignore_index is None or type(ignore_index) is int)
        and type(temperature) is float
        and (softcap is None or type(softcap) is float)
        and type(z_loss) is float
        and type(reduction) is str
    ):
        found = _softmax.get(given)
        if found is not None:
            return found
    options = SoftmaxOptions.checked(given)
    return _one_object(_softmax, options) if type(options.axis) is int else options


def sigmoid_options(given: tuple[Any, ...]) -> SigmoidOptions:
    """Return the options of a sigmoid loss for values in the order of the fields; equal values give the same object."""
    smoothing, ignore_index, reduction = given
    if type(smoothing) is float and (ignore_index is None or type(ignore_index) in NUMBERS) and type(reduction) is str:
        found = _sigmoid.get(given if ignore_index == ignore_index else (smoothing, "NaN", reduction))
        if found is not None:
            return found
    return _one_object(_sigmoid, SigmoidOptions.checked(given))


def _one_object(memo: dict[tuple[Any, ...], AnyOptions], options: AnyOptions) -> AnyOptions:
    # a text for NaN, which is not equal to itself, and which torch.compile cannot write down as a part of a key
    values = tuple(["NaN" if value != value else value for value in field_values(options)])
    return memo.get(values) or keep(memo, values, options)


def changed(options: AnyOptions, **values: Any) -> AnyOptions:
    """Return options with other values for some; equal ones are the same object here too."""
    memo: Any = _softmax if isinstance(options, SoftmaxOptions) else _sigmoid
    found: AnyOptions = _one_object(memo, replace(options, **values))
    return found


def field_names(options: type[Options] | Options, without: str = "reduction") -> tuple[str, ...]:
    """Return the names of the options that determine the loss of a row: all but the reduction."""
    return tuple(f.name for f in fields(options) if f.name != without)


def field_values(options: Options, without: str = "") -> tuple[Any, ...]:
    """Return the values of the options, in the order of the fields."""
    return tuple([getattr(options, f.name) for f in fields(options) if f.name != without])


def weights_in_order(options: Options, **given: Any) -> tuple[Any, ...]:
    """The arrays that accompany labels and logits, in the order of `WEIGHTS`; None for those that are not given."""
    return tuple([given.get(name) for name in options.WEIGHTS])


def operator_schema(options: type[Options]) -> str:
    """Return the options as arguments in the schema of a torch operator."""
    kinds = {
        f.name: "int" if f.name == "axis" else SUFFIX[str(f.type)] for f in fields(options) if f.name != "reduction"
    }
    return ", ".join(f"{kind} {name}" for name, kind in kinds.items())


def as_written(function: Function) -> Function:
    """Keep a function from being rewritten by TensorFlow's AutoGraph, which lets those with this attribute be."""
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


def by_keyword(function: Function) -> Function:
    """Show a function without the places where it catches positional arguments and unknown names."""
    as_written(function)
    given = inspect.signature(function)
    shown = [p for p in given.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    function.__signature__ = given.replace(parameters=shown)  # type: ignore[attr-defined]
    return function


def keywords_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a loss's arguments, in order."""
    code: CodeType = inspect.unwrap(function).__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the optional arguments of a loss with their defaults."""
    given = inspect.unwrap(function).__kwdefaults__
    return {name: value for name, value in given.items() if value is not REQUIRED}


# ------------------------------------------------------------------------------------------------------------ checks


def known_reduction(reduction: Any) -> Reduction:
    """Return the reduction; raise unless it is one of the three."""
    if type(reduction) is str and reduction in REDUCTIONS:
        return reduction  # type: ignore[return-value]
    raise errors.out_of_range("reduction", reduction, "'none', 'sum' or 'mean'")


def fraction(name: str, x: Any) -> float:
    """Return the number; raise unless it is in [0, 1]."""
    return _within(name, x, lambda number: 0.0 <= number <= 1.0, "a number from 0 to 1")


def positive(name: str, x: Any) -> float:
    """Return the number; raise unless it is finite and above 0."""
    return _within(name, x, lambda number: 0.0 < number < math.inf, "a finite number above 0")


def not_negative(name: str, x: Any) -> float:
    """Return the number; raise unless it is finite and 0 or more."""
    return _within(name, x, lambda number: 0.0 <= number < math.inf, "a finite number of 0 or more")


def _within(name: str, x: Any, allowed: Callable[[float], bool], expected: str) -> float:
    try:
        # torch.compile does not follow np.ndim; of a tensor whose gradient is wanted, that would be lost
        if isinstance(x, (str, bytes)) or getattr(x, "ndim", 0) != 0 or getattr(x, "requires_grad", False):
            raise TypeError
        number = float(x)
    except OverflowError:  # an integer beyond the largest float
        number = math.inf if x > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):  # the last of torch.func.vmap
        raise errors.number(name, x) from None
    if not allowed(number):
        raise errors.out_of_range(name, number, expected)
    return number


def index_to_ignore(x: Any) -> int:
    """Return the integer; any is allowed, since it need not be a class."""
    try:
        return operator.index(x)
    except TypeError:
        raise errors.ignore_index(x) from None


def label_to_ignore(x: Any) -> float:
    """Return the whole number, as an int, or NaN, which is `math.nan`; it need not be a value that labels can have."""
    expected = "a whole number between -2^24 and 2^24, NaN or None"
    number = _within("ignore_index", x, lambda n: n != n or (abs(n) < EXACT_LABELS and n == math.floor(n)), expected)
    return math.nan if number != number else int(number)


def any_label_to_ignore(x: Any) -> float | None:
    """Return an integer, as the sparse losses take it, or a whole number or NaN, as the sigmoid losses do."""
    try:
        return None if x is None else index_to_ignore(x)
    except TypeError:
        return label_to_ignore(x)


def number_of(name: str, x: Any, most: int | None = None) -> int:
    """Return a number of things: 1 or more, and at most so many."""
    try:
        number = operator.index(x)
    except TypeError:
        raise errors.integer(name, x) from None
    if number < 1 or (most is not None and number > most):
        raise errors.out_of_range(name, number, "1 or more" if most is None else f"1 to {most}")
    return number


def integer_if_possible(axis: Any) -> Any:
    """Return `axis` as a Python int, or as it is: `shapes.class_axis` raises for what is no integer."""
    try:
        return operator.index(axis)
    except TypeError:
        return axis


def one_axis(axis: Any, dim: Any) -> Any:
    """Return `axis`, or the value of its older name `dim`."""
    if dim is None:
        return axis
    if axis != -1:
        raise errors.two_axes(axis, dim)
    return dim


def wrt_names(wrt: object, sparse: bool) -> tuple[str, ...]:
    """Return the names in `wrt` as a tuple."""
    names: tuple[Any, ...] = wrt if isinstance(wrt, tuple) else (wrt,)
    if not names or any(name not in ("logits", "labels") for name in names) or len(set(names)) < len(names):
        raise errors.wrt(wrt)
    if sparse and "labels" in names:
        raise errors.gradient_of_indices()
    return names


# The least value of an array beside labels and logits, and what an error says is expected; weights by default.
RANGES: dict[str, tuple[float, str]] = {"class_offset": (-math.inf, "a finite number or -inf")}


def check_weight_values(name: str, weight: NDArray[Any]) -> None:
    """Raise unless all weights are finite and 0 or more, or in the range that `RANGES` has for them."""
    least, expected = RANGES.get(name, (0.0, "a finite weight of 0 or more"))
    if weight.size <= FEW:
        few: list[float] = weight.ravel().tolist()
        if all(least <= w < math.inf for w in few):
            return
    elif weight.min() >= least and weight.max() < math.inf:  # NaN is neither
        return
    bad = np.flatnonzero(~((weight >= least) & (weight < np.inf)))[0]
    raise errors.weight_value(name, np.unravel_index(bad, weight.shape), weight.flat[bad].item(), expected)
