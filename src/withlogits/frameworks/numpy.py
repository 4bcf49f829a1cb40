"""The adapter of NumPy arrays, and of lists, numbers and whatever converts itself to one.

A call is looked up by what its arrays look like (type, shape, strides, dtype) and its options. What it meets for the
first time is converted, checked and planned; the next call of its kind goes to the kernel at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import engine, errors, options, shapes
from withlogits.frameworks import numpy_array
from withlogits.frameworks import numpy_namespace as namespace
from withlogits.frameworks.axes import over_axes
from withlogits.kernels.cpu import buffers
from withlogits.kernels.cpu.layout import BEHIND, Layout, address, dense_strides, handle
from withlogits.kernels.cpu.plan import Allocator, Plan, Quick
from withlogits.memo import keep
from withlogits.options import EXACT, NUMBERS, Options, SoftmaxOptions

Array = NDArray[Any]

_floats: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("float16", "float32", "float64")}
_integers = frozenset(np.dtype(code) for code in "bhilqBHILQ")
_others = _integers | {np.dtype(np.bool_)}
_looks = attrgetter("__class__", "shape", "strides", "dtype")
_float64 = frozenset((np.dtype(np.float64),))
_weights = _float64 | {np.dtype(np.float32)}
_calls: dict[Any, _Call] = {}
_maps: dict[Any, Callable[[Array], Array]] = {}


class NumpyMemory:
    """What the planner asks of NumPy arrays."""

    address, handle, behind = staticmethod(address), staticmethod(handle), BEHIND
    strides = staticmethod(attrgetter("strides"))

    @staticmethod
    def layout(array: Array) -> Layout:
        return Layout(array.shape, array.strides, _known_name(array.dtype))

    @staticmethod
    def allocator(shape: tuple[int, ...], dtype: str, like: Layout | None = None) -> Allocator:
        kind = _floats[dtype]
        strides = dense_strides(shape, kind.itemsize, None if like is None else like.strides)
        empty = np.empty if kind.itemsize * int(np.prod(shape)) < buffers.SMALLEST else buffers.empty
        order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
        make = partial(empty, tuple(shape[axis] for axis in order), kind)
        if order == sorted(order):
            return Allocator(make, Layout(shape, strides, dtype))
        places = [order.index(axis) for axis in range(len(shape))]
        return Allocator(lambda: make().transpose(places), Layout(shape, strides, dtype))

    @staticmethod
    def number(array: Array) -> Any:
        return array[()]

    @staticmethod
    def scalar(x: float, dtype: str) -> Any:
        number = np.float32 if dtype == "float32" else np.float64
        if abs(x) > 3.4e38:
            with np.errstate(over="ignore"):
                return number(x)
        return number(x)

    @staticmethod
    def cast(array: Array, dtype: str) -> Array:
        return array.astype(_floats[dtype], copy=False)

    @staticmethod
    def numpy(array: Array) -> Array:
        return array


class _Call:
    """A loss of arrays that look alike, planned."""

    __slots__ = ("_fit", "_logits", "_names", "_plan", "_scalar", "_summed", "_weighted", "_wrt", "quick")

    def __init__(self, chosen: Options, wrt: tuple[str, ...], labels: Array, logits: Array) -> None:
        self._wrt, self._logits, self._names = wrt, NumpyMemory.layout(logits), chosen.WEIGHTS
        fit = None
        if isinstance(chosen, SoftmaxOptions):
            fit = shapes.softmax_fit(chosen, labels.shape, logits.shape, labels.dtype.name)
        self._fit = fit
        shape = logits.shape if fit is None else fit.loss_shape
        self._scalar = shape == () and chosen.reduction == "none"
        # one row of labels for all: its gradient is summed over the rows, and rounded only then
        self._summed = labels.dtype if fit is not None and fit.one_row and "labels" in wrt else None
        label_layout = NumpyMemory.layout(labels)
        if self._summed is not None:
            label_layout = NumpyMemory.layout(labels.astype(np.float64))
        self._plan: Plan = engine.select().plan_loss(chosen, NumpyMemory, label_layout, self._logits)
        self.quick = self._new_quick(())
        self._weighted: dict[tuple[Any, ...], Quick | None] = {}

    def weighted(self, weights: tuple[Any, ...]) -> Quick | None:
        """Return `quick` for weights that look like these; None if there is none."""
        try:
            looks = tuple([weight if weight is None else _looks(weight) for weight in weights])
        except AttributeError:
            return None
        if looks in self._weighted:
            return self._weighted[looks]
        return keep(self._weighted, looks, self._new_quick(weights))

    def _new_quick(self, weights: tuple[Any, ...]) -> Quick | None:
        """Return what computes a small loss and its gradient by the logits."""
        if "labels" in self._wrt or self._scalar:
            return None
        layouts: list[Layout | None] = []
        for name, weight in zip(self._names, weights, strict=False):
            if weight is not None and not (type(weight) is np.ndarray and weight.dtype in _weights):
                return None
            if weight is not None:
                shapes.check_weight(name, weight.shape, self._logits.shape, self._fit)
            layouts.append(None if weight is None else NumpyMemory.layout(weight))
        return self._plan.quick("logits" in self._wrt, tuple(layouts))

    def __call__(self, labels: Array, logits: Array, weights: tuple[Any, ...], out: Any) -> tuple[Any, tuple[Any, ...]]:
        """The loss and the gradients."""
        wrt, shape, fit = self._wrt, self._logits.shape, self._fit
        given = dict(zip(self._names, weights or (None,) * len(self._names), strict=True))
        checked: list[Array | None] = []
        for name, weight in given.items():
            array = None
            if weight is not None:
                array = _weight(name, weight, keep_float32=fit is None and name == "sample_weight")
                shapes.check_weight(name, array.shape, shape, fit)
            checked.append(array)
        if out is not None:
            _check_out(out, wrt, logits, labels=labels, **given)
        if self._summed is not None:
            labels = labels.astype(np.float64)
        arrays = (labels, logits, *checked)
        value, gradient, label_gradient = self._plan.evaluate(arrays, "logits" in wrt, "labels" in wrt, out)
        if self._summed is not None and label_gradient is not None:
            dtype = self._summed if self._summed.kind not in "biu" else value.dtype
            label_gradient = _summed_to(label_gradient, labels.shape).astype(dtype)
        if self._scalar:
            value = value[()]
        if shape == ():
            gradient = gradient if gradient is None or gradient is out else gradient[()]
            label_gradient = None if label_gradient is None else label_gradient[()]
        return value, tuple([gradient if name == "logits" else label_gradient for name in wrt])


def loss(
    options: Options,
    labels: Any,
    logits: Any,
    weights: tuple[Any, ...] = (),
    wrt: tuple[str, ...] = (),
    out: Any = None,
    name: str | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """A loss and the gradients that `wrt` names; NumPy has no profiler that would want `name`."""
    try:
        call = _calls[options, wrt, _looks(labels), _looks(logits)]
    except (AttributeError, KeyError, TypeError):
        labels, logits, call = _prepared(options, wrt, labels, logits)
    quick = call.quick
    if weights:
        weights = tuple([np.asarray(w, np.float64) if type(w) in NUMBERS and abs(w) < EXACT else w for w in weights])
        quick = call.weighted(weights)
    if quick is None or out is not None:
        return call(labels, logits, weights, out)
    value, gradient = quick(labels, logits, weights)
    return value, (gradient,) if wrt else ()


def _prepared(options: Options, wrt: tuple[str, ...], labels: Any, logits: Any) -> tuple[Array, Array, _Call]:
    """Labels and logits, converted and checked, and what computes their loss."""
    logits = _logits("logits", logits)
    if isinstance(options, SoftmaxOptions) and options.sparse:
        labels = _index_labels(labels, logits, options.axis)
    else:
        labels = _labels(labels)
    key = options, wrt, _looks(labels), _looks(logits)
    return labels, logits, _calls.get(key) or keep(_calls, key, _Call(options, wrt, labels, logits))


def softmax_map(x: Any, axis: Any, kind: str, keepdims: bool = False) -> Any:
    """softmax, log_softmax or logsumexp over an axis, several (a tuple) or all (None)."""
    try:
        if not keepdims:
            return _maps[kind, axis, _looks(x)](x)
    except (AttributeError, KeyError, TypeError):
        pass
    x = _logits("x", x)
    if keepdims or axis is None or isinstance(axis, tuple):
        result = over_axes(namespace, x, axis, keepdims, kind, softmax_map)
        return result if result.ndim else result[()]
    plan = engine.select().plan_softmax_map(kind, axis, NumpyMemory, NumpyMemory.layout(x))
    result = (keep(_maps, (kind, axis, _looks(x)), plan) if x.ndim > 1 and type(axis) is int else plan)(x)
    return result if result.ndim else result[()]


def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    try:
        return _maps[kind, None, _looks(x)](x)
    except (AttributeError, KeyError, TypeError):
        x = _logits("p" if kind == "logit" else "x", x)
    plan = engine.select().plan_elementwise(kind, NumpyMemory, NumpyMemory.layout(x))
    result = (keep(_maps, (kind, None, _looks(x)), plan) if x.ndim else plan)(x)
    return result if result.ndim else result[()]


def plain_array(name: str, given: Any) -> Array:
    """As a plain, native, aligned array."""
    array = numpy_array(name, given, "NumPy")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.aligned:
        array = array.copy()
    _known_name(array.dtype)
    return array


@lru_cache(64)
def _known_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, and remember bfloat16, whose package need not be installed."""
    if dtype.name == "bfloat16":
        _floats["bfloat16"] = dtype
    return dtype.name


def _logits(name: str, given: Any) -> Array:
    array = plain_array(name, given)
    if array.dtype.name not in _floats:
        raise errors.logits_dtype(name, array.dtype.name)
    return array


def _index_labels(given: Any, logits: Array, axis: int) -> Array:
    array = plain_array("labels", given)
    if array.size == 0 and isinstance(given, (list, tuple)):
        return array.astype(np.int64)  # NumPy takes an empty list for floating-point numbers
    if array.dtype not in _integers:
        raise shapes.index_labels_misfit(array.shape, logits.shape, axis, array.dtype.name, errors.NUMPY)
    return array


def _labels(given: Any) -> Array:
    array = plain_array("labels", given)
    if _is_real(array):
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float64)  # longdouble
    raise errors.label_dtype(array.dtype.name)


def _is_real(array: Array) -> bool:
    return array.dtype in _others or array.dtype.name in _floats


def _weight(name: str, given: Any, keep_float32: bool = False) -> Array:
    """Finite weights of 0 or more, aligned; float64, or float32 if that is kept."""
    kinds = _weights if keep_float32 else _float64
    if type(given) is np.ndarray and given.dtype in kinds and given.flags.carray:
        array = given
    else:
        array = plain_array(name, given)
        if not _is_real(array) and array.dtype.kind != "f":
            raise errors.number_dtype(name, array.dtype.name)
        float32 = keep_float32 and array.dtype == np.float32
        array = np.asarray(array, np.float32 if float32 else np.float64, order="C")
    options.check_weight_values(name, array)
    return array


def _check_out(out: Any, wrt: tuple[str, ...], logits: Array, **others: Any) -> None:
    """`out` takes the gradient of the logits: theirs in shape and dtype, and its memory theirs exactly or nobody's."""
    if "logits" not in wrt:
        raise errors.out_without_logits()
    if type(out) is not np.ndarray:
        raise errors.out_array("a numpy.ndarray", f"a {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype:
        raise errors.out_array(*(f"of shape {array.shape} and dtype {array.dtype}" for array in (logits, out)))
    flags = out.flags
    if not flags.behaved:
        raise errors.out_array("writable and aligned", "read-only" if flags.aligned else "not aligned")
    if not flags.forc and _overlaps_itself(out):
        raise errors.out_array("without overlap in its own memory", f"a view with strides {out.strides}")
    if out is not logits and np.shares_memory(out, logits) and not _same_places(out, logits):
        raise errors.out_overlaps("logits")
    for name, other in others.items():
        if isinstance(other, np.ndarray) and np.shares_memory(out, other):
            raise errors.out_overlaps(name)


def _same_places(a: Array, b: Array) -> bool:
    """For arrays of one shape and dtype: whether each element of one lies where it does in the other."""
    return a.strides == b.strides and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may share an address: some stride steps less than the axes inside it cover."""
    covered = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < covered:
            return True
        covered += stride * (length - 1)
    return False


def _summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a row that was broadcast: summed over the axes that it did not have."""
    row = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(i for i, n in enumerate(row) if n == 1)
    summed: Array = gradient.sum(axis=axes, keepdims=True)
    return summed.reshape(shape)
