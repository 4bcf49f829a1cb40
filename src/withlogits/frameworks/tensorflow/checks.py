"""The checks that need a tensor: dtypes, shapes as far as they are known, values where they are there to be seen."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from withlogits import errors, options, shapes
from withlogits.errors import Shape
from withlogits.frameworks import numpy_array
from withlogits.memo import keep
from withlogits.options import Options, SoftmaxOptions
from withlogits.shapes import SoftmaxFit

Tensor = Any
WORDS = errors.Words(
    cast="tf.cast({name}, tf.{dtype})",
    convert="tf.cast({name}, tf.{dtype})",
    reload="",
    argmax="tf.argmax({name}, {axis})",
)
FLOATS = frozenset((tf.float16, tf.bfloat16, tf.float32, tf.float64))
INTEGERS = frozenset(getattr(tf, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64))
REALS = FLOATS | INTEGERS | {tf.bool}
FAR = 1 << 40
_fits: dict[Any, SoftmaxFit | None] = {}


class Unknown(int):
    """A length that only the running graph knows; errors show it as TensorFlow does."""

    def __repr__(self) -> str:
        return "None"


def has_values(x: Tensor) -> bool:
    """Whether a tensor is there, on the CPU, and not a node of a graph."""
    return not tf.is_symbolic_tensor(x) and ":CPU:" in x.device


def as_tensor(name: str, given: Any) -> Tensor:
    """A tensor, or what becomes one: variables, numbers, lists, NumPy arrays."""
    if isinstance(given, (tf.SparseTensor, tf.RaggedTensor)):
        raise errors.not_dense(name, type(given).__name__)
    if not isinstance(given, (tf.Tensor, tf.Variable)):
        given = numpy_array(name, given, "TensorFlow")  # whose floats are float64
    try:
        return tf.convert_to_tensor(given)
    except (TypeError, ValueError) as error:
        raise errors.no_array(name, error) from None


def checked_logits(name: str, given: Any) -> Tensor:
    logits = as_tensor(name, given)
    if logits.dtype not in FLOATS:
        raise errors.logits_dtype(name, logits.dtype.name, WORDS)
    return logits


def checked_labels(given: Any, logits: Tensor, chosen: Options) -> Tensor:
    labels = as_tensor("labels", given)
    if isinstance(chosen, SoftmaxOptions) and chosen.sparse:
        if isinstance(given, (list, tuple)) and not given:
            labels = tf.cast(labels, tf.int64)  # NumPy takes an empty list for floating-point numbers
        if labels.dtype not in INTEGERS:
            known = None not in (labels.shape.rank, logits.shape.rank)
            z, x = (tuple(labels.shape), tuple(logits.shape)) if known else ((), ())
            raise shapes.index_labels_misfit(z, x, chosen.axis, labels.dtype.name, WORDS)
    if labels.dtype not in REALS:
        raise errors.label_dtype(labels.dtype.name)
    return labels


def checked_weights(
    names: tuple[str, ...], given: tuple[Any, ...], logits: Tensor, fit: SoftmaxFit | None
) -> tuple[Tensor | None, ...]:
    """The weights as float64 tensors, None for those that are not given; they carry no gradient."""
    checked: list[Tensor | None] = []
    for name, each in zip(names, given or (None,) * len(names), strict=True):
        weight = None
        if each is not None:
            weight = tf.stop_gradient(as_tensor(name, each))
            if weight.dtype not in REALS:
                raise errors.number_dtype(name, weight.dtype.name)
            weight = tf.cast(weight, tf.float64)
            if has_values(weight):
                options.check_weight_values(name, weight.numpy())
            if None not in (weight.shape.rank, logits.shape.rank):
                check_weight(name, weight, logits, fit)
        checked.append(weight)
    return tuple(checked)


def check_weight(name: str, weight: Tensor, logits: Tensor, fit: SoftmaxFit | None) -> None:
    """Raise for a shape that does not fit; a length that is not known, here or there, is taken to fit."""
    shape = shape_of(logits)
    expected = shape if fit is None or name == "pos_weight" else fit.loss_shape
    if fit is not None and name in SoftmaxOptions.PER_CLASS:
        expected = shape[fit.axis : fit.axis + 1]
    known = list(weight.shape)
    for i, n in zip(range(1, len(known) + 1), reversed(expected), strict=False):
        known[-i] = n if known[-i] is None or isinstance(n, Unknown) else known[-i]
    shapes.check_weight(name, tuple([1 if n is None else n for n in known]), shape, fit)


def check_out(out: Any, wrt: tuple[str, ...], logits: Tensor) -> None:
    """`out` is a variable that takes the gradient of the logits, in their shape and dtype."""
    if "logits" not in wrt:
        raise errors.out_without_logits()
    if not isinstance(out, tf.Variable):
        raise errors.out_array("a tf.Variable", f"a {type(out).__name__}")
    if out.dtype != logits.dtype or not out.shape.is_compatible_with(logits.shape):
        raise errors.out_array(*(f"of shape {tuple(x.shape)} and dtype {x.dtype.name}" for x in (logits, out)))


def fit_of(chosen: Options, labels: Tensor, logits: Tensor) -> SoftmaxFit | None:
    """How labels fit logits, as far as their shapes are known; None for the sigmoid family. Raises if they do not."""
    key = chosen, labels.dtype, labels.shape, logits.shape
    if key in _fits:
        return _fits[key]
    x, z = _matched(chosen, labels, logits)
    if isinstance(chosen, SoftmaxOptions):
        return keep(_fits, key, shapes.softmax_fit(chosen, z, x, labels.dtype.name, WORDS))
    shapes.check_sigmoid_labels(z, x)
    return keep(_fits, key, None)


def is_exact(*tensors: Tensor) -> bool:
    """Whether nothing about the shapes is left to the running graph."""
    return all(tensor.shape.is_fully_defined() for tensor in tensors)


def shape_of(x: Tensor) -> Shape:
    return tuple([Unknown(FAR + i) if n is None else n for i, n in enumerate(x.shape)])


def _matched(chosen: Options, labels: Tensor, logits: Tensor) -> tuple[Shape, Shape]:
    """The shapes of logits and labels, in which what is unknown fits."""
    axis = chosen.axis if isinstance(chosen, SoftmaxOptions) else None
    indices = isinstance(chosen, SoftmaxOptions) and chosen.sparse
    if logits.shape.rank is None:
        rank = max(axis + 1, -axis) if isinstance(axis, int) else 1
        x: Shape = tuple([Unknown(FAR + i) for i in range(rank + 1)])
    else:
        x = shape_of(logits)
    position = axis % len(x) if isinstance(axis, int) and x and -len(x) <= axis < len(x) else None
    rows = x if position is None else shapes.rows(x, position)
    likely = rows if indices else x  # the shape that labels are taken to have
    if None in (logits.shape.rank, labels.shape.rank):
        return x, likely
    given = tuple(labels.shape)
    if indices and position is not None and len(given) == len(x):
        likely = shapes.rows_kept(x, position)
    elif not indices and position is not None and len(given) == 1 < len(x):
        likely = (x[position],)
    if len(given) != len(likely):
        return x, tuple([Unknown(2 * FAR + i) if n is None else n for i, n in enumerate(given)])
    z = tuple([mine if n is None else n for n, mine in zip(given, likely, strict=True)])
    learnt: dict[int, int] = {
        mine: n for n, mine in zip(z, likely, strict=True) if isinstance(mine, Unknown) and (indices or n != 1)
    }
    return tuple([learnt.get(n, n) for n in x]), z
