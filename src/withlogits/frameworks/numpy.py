"""The front end for NumPy arrays, and for lists, numbers and whatever converts itself to one.

Each function brings its arrays into the form that the engines promise to understand (native, aligned, checked) and
makes one call. What depends on shapes, strides, dtypes and options alone (checks, and the engine's plan) is done once
for all calls in which these are the same, and then looked up: a call on 32 rows of 10 must not cost more than its
mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import arguments, engine
from withlogits.arguments import SoftmaxOptions
from withlogits.memo import keep

Array = NDArray[Any]

_floats: set[np.dtype[Any]] = {
    np.dtype(np.float16),
    np.dtype(np.float32),
    np.dtype(np.float64),
}  # and bfloat16, once met
_doubles = frozenset((np.dtype(np.float64),))
_weights = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_integers: set[np.dtype[Any]] = {np.dtype(code) for code in "bhilqBHILQ"}
_reals: set[np.dtype[Any]] = {*_floats, *_integers, np.dtype(np.bool_)}


class _SoftmaxCase:
    """What shapes, strides, dtypes and options decide about a softmax loss; making one checks them."""

    __slots__ = (
        "_broadcast",
        "_double",
        "as_is",
        "axis",
        "ignore_index",
        "loss_shape",
        "rows",
        "run",
        "shape",
        "summed",
    )

    def __init__(self, chosen: Any, options: SoftmaxOptions, logits: Array, labels: Array) -> None:
        self.shape = shape = logits.shape
        self.axis = axis = arguments.class_axis(options.axis, shape)
        self.rows = self.loss_shape = shape[:axis] + shape[axis + 1 :]
        self.ignore_index = options.ignore_index
        self._broadcast = False
        if options.sparse:
            largest = 2**64 if labels.dtype == np.uint64 else 2**63
            if self.ignore_index is not None and not -(2**63) <= self.ignore_index < largest:
                self.ignore_index = None  # no label can be it
            if labels.shape != self.rows and arguments.sparse_keeps_axis(labels.shape, shape, axis):
                self.loss_shape = labels.shape
        elif labels.shape != shape:
            self._broadcast = arguments.dense_broadcasts(labels.shape, shape, axis, labels.dtype.kind in "iu")
        self.summed = self._broadcast and "labels" in options.wrt
        # whether the labels go to the engine, and the loss comes back, in the shapes they have
        self.as_is = not self._broadcast and self.loss_shape == self.rows != ()
        self.run = chosen.plan_softmax_loss(
            logits,
            self.adapted(labels),
            axis=axis,
            sparse=options.sparse,
            label_smoothing=options.label_smoothing,
            ignore_index=self.ignore_index,
            temperature=options.temperature,
            softcap=options.softcap,
            z_loss=options.z_loss,
            reduction=options.reduction,
            wrt=options.wrt,
        )

    @property
    def squeezed(self) -> bool:
        """Do index labels keep the class axis, with length 1."""
        return self.loss_shape != self.rows

    def adapted(self, labels: Array) -> Array:
        """In the shape that the engines take."""
        if self._broadcast:  # one row for all; its gradient is summed over the rows, and rounded only then
            return np.broadcast_to(labels.astype(np.float64) if self.summed else labels, self.shape)
        return labels.squeeze(self.axis) if self.squeezed else labels


_softmax_cases: dict[tuple[Any, ...] | None, _SoftmaxCase] = {}
_sigmoid_cases: dict[tuple[Any, ...] | None, Callable[..., Any]] = {}
_maps: dict[tuple[Any, ...], Callable[[Array], Array]] = {}


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
    """Softmax cross-entropy of dense or index labels; NumPy has no profiler that would want `name`."""
    options = arguments.softmax_options(
        sparse, axis, dim, label_smoothing, ignore_index, temperature, softcap, z_loss, reduction, wrt
    )
    chosen = engine.select()
    case = _softmax_cases.get(_key(chosen, options, logits, labels))
    if case is None:
        logits = _logits("logits", logits)
        labels = _index_labels(labels) if options.sparse else _labels(labels)
        key = _key(chosen, options, logits, labels)
        case = _softmax_cases.get(key) or keep(_softmax_cases, key, _SoftmaxCase(chosen, options, logits, labels))
    classes_on, given_labels, given_weight = case.axis, labels, sample_weight
    if not case.as_is:
        labels = case.adapted(labels)
    if class_weight is not None:
        class_weight = _weight("class_weight", class_weight)
        arguments.class_weight_shape(class_weight.shape, case.shape[classes_on])
    if sample_weight is not None:
        sample_weight = _sample_weight(sample_weight, case.loss_shape)
        if case.squeezed:
            sample_weight = sample_weight.squeeze(classes_on)
    if out is not None:
        _check_out(out, options.wrt, logits, labels=given_labels, class_weight=class_weight, sample_weight=given_weight)
    try:
        value, gradients = case.run(logits, labels, class_weight, sample_weight, out)
    except ValueError:
        if not case.squeezed:
            raise
        weight = None if sample_weight is None else np.expand_dims(sample_weight, classes_on)
        raise arguments.label_out_of_range(given_labels, case.shape[classes_on], case.ignore_index, weight) from None
    if case.as_is:
        return value, gradients
    if case.summed:
        dtype = given_labels.dtype if given_labels.dtype.kind not in "biu" else value.dtype
        gradients = tuple(
            _summed_to(g, given_labels.shape).astype(dtype) if name == "labels" else g
            for name, g in zip(options.wrt, gradients, strict=True)
        )
    if options.reduction == "none":
        value = value.reshape(case.loss_shape) if case.loss_shape else value[()]
    return value, gradients


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
    """Sigmoid cross-entropy; NumPy has no profiler that would want `name`."""
    options = arguments.sigmoid_options(label_smoothing, reduction, wrt)
    chosen = engine.select()
    run = _sigmoid_cases.get(_key(chosen, options, logits, labels))
    if run is None:
        logits, labels = _logits("logits", logits), _labels(labels)
        if labels.shape != logits.shape:
            raise arguments.sigmoid_shapes(labels.shape, logits.shape)
        key = _key(chosen, options, logits, labels)
        run = _sigmoid_cases.get(key) or keep(
            _sigmoid_cases,
            key,
            chosen.plan_sigmoid_loss(
                logits,
                labels,
                label_smoothing=options.label_smoothing,
                reduction=options.reduction,
                wrt=options.wrt,
            ),
        )
    given_weight = sample_weight
    if pos_weight is not None:
        pos_weight = _weight("pos_weight", pos_weight)
        arguments.weight_shape("pos_weight", pos_weight.shape, logits.shape, "logits")
    if sample_weight is not None:
        sample_weight = _sample_weight(sample_weight, logits.shape)
    if out is not None:
        _check_out(out, options.wrt, logits, labels=labels, pos_weight=pos_weight, sample_weight=given_weight)
    value, gradients = run(logits, labels, pos_weight, sample_weight, out)
    if not logits.ndim:
        gradients = tuple(g if g is out else g[()] for g in gradients)
        value = value[()]
    return value, gradients


def softmax_map(x: Any, axis: Any, kind: str) -> Any:
    """softmax, log_softmax or logsumexp along an axis."""
    if type(x) is not np.ndarray or x.dtype not in _floats or not x.flags.aligned:
        x = _logits("x", x)
    result = engine.select().softmax_map(x, axis=arguments.class_axis(axis, x.shape, "x"), kind=kind)
    return result if result.ndim else result[()]


def elementwise(x: Any, kind: str) -> Any:
    """sigmoid, log_sigmoid, softplus or logit of each element."""
    chosen, run = engine.select(), None
    if type(x) is np.ndarray and x.flags.aligned:
        run = _maps.get((chosen, kind, x.shape, x.strides, x.dtype))
    if run is None:
        x = _logits("p" if kind == "logit" else "x", x)
        key = (chosen, kind, x.shape, x.strides, x.dtype)
        run = _maps.get(key) or keep(_maps, key, chosen.plan_elementwise(x, kind=kind))
    result = run(x)
    return result if result.ndim else result[()]


def _key(chosen: Any, options: Any, logits: Any, labels: Any) -> tuple[Any, ...] | None:
    """All that a case depends on; None, under which nothing is kept, for arrays that are to be converted first."""
    if (
        type(logits) is not np.ndarray
        or type(labels) is not np.ndarray
        or not logits.flags.aligned
        or not labels.flags.aligned
    ):
        return None
    return chosen, options, logits.shape, logits.strides, logits.dtype, labels.shape, labels.strides, labels.dtype


def plain_array(name: str, given: Any) -> Array:
    """As a plain, native, aligned array."""
    arguments.known_array(name, given, "NumPy")
    if isinstance(given, np.ma.MaskedArray):
        raise arguments.masked(name)
    try:
        array: Array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise arguments.no_array(name, error) from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.aligned:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        _floats.add(array.dtype)
        _reals.add(array.dtype)
    return array


def _logits(name: str, given: Any) -> Array:
    array = plain_array(name, given)
    if array.dtype not in _floats:
        raise arguments.logits_dtype(name, array.dtype.name)
    return array


def _index_labels(given: Any) -> Array:
    array = plain_array("labels", given)
    if array.size == 0 and isinstance(given, (list, tuple)):
        return array.astype(np.int64)  # NumPy takes an empty list for floating-point numbers
    if array.dtype not in _integers:
        raise arguments.index_dtype(array.dtype.name)
    return array


def _labels(given: Any) -> Array:
    array = plain_array("labels", given)
    if array.dtype in _reals:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float64)  # longdouble
    raise arguments.label_dtype(array.dtype.name)


def _weight(name: str, given: Any, keep_single: bool = False) -> Array:
    """Finite weights of 0 or more, contiguous and aligned; float64, or float32 if that is kept."""
    if type(given) is float:
        array = np.array(given)
    elif type(given) is np.ndarray and given.dtype in (_weights if keep_single else _doubles) and given.flags.carray:
        array = given
    else:
        array = plain_array(name, given)
        if array.dtype not in _reals and array.dtype.kind != "f":
            raise arguments.number_dtype(name, array.dtype.name)
        single = keep_single and array.dtype == np.float32
        array = np.asarray(array, np.float32 if single else np.float64, order="C")
    arguments.weight_values(name, array)
    return array


def _sample_weight(given: Any, shape: tuple[int, ...]) -> Array:
    weight = _weight("sample_weight", given, keep_single=True)
    if weight.shape == shape:
        return weight
    arguments.weight_shape("sample_weight", weight.shape, shape, "loss")
    return np.broadcast_to(weight, shape)


def _check_out(out: Any, wrt: tuple[str, ...], logits: Array, **others: Any) -> None:
    """`out` takes the gradient of the logits: theirs in shape and dtype, and its memory theirs exactly or nobody's."""
    if "logits" not in wrt:
        raise arguments.out_without_logits()
    if type(out) is not np.ndarray:
        raise arguments.out_array("a numpy.ndarray", f"a {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype:
        raise arguments.out_array(*(f"of shape {array.shape} and dtype {array.dtype}" for array in (logits, out)))
    flags = out.flags
    if not flags.behaved:
        raise arguments.out_array("writable and aligned", "read-only" if flags.aligned else "not aligned")
    if not flags.forc and _overlaps_itself(out):
        raise arguments.out_array("without overlap in its own memory", f"a view with strides {out.strides}")
    if out is not logits and np.shares_memory(out, logits) and not _same_places(out, logits):
        raise arguments.out_overlaps("logits")
    for name, other in others.items():
        if isinstance(other, np.ndarray) and np.shares_memory(out, other):
            raise arguments.out_overlaps(name)


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
