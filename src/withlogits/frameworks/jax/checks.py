"""The checks that need an array: dtypes, shapes, and values where they are there to be seen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from withlogits import errors, options, shapes
from withlogits.frameworks import numpy_array
from withlogits.frameworks.jax.namespace import is_floating, wide, wide_dtype
from withlogits.options import Options, SoftmaxOptions, changed
from withlogits.shapes import SoftmaxFit

Array = Any
WORDS = errors.Words(
    cast="{name}.astype(jax.numpy.{dtype})",
    convert="jax.numpy.asarray({name}, jax.numpy.{dtype})",
    reload="{name}.view(jax.numpy.bfloat16)",
    index="int32",
    constant="jax.lax.stop_gradient({name})",
)
FLOATS = frozenset(("float16", "bfloat16", "float32", "float64"))
IGNORED, OUTSIDE = -1, -2  # what index labels become that are ignored, and that are no class


def has_values(x: Array) -> bool:
    """Whether an array is there, in the memory of this process, and not a part of a program that is traced."""
    if isinstance(x, jax.core.Tracer):
        return False
    return not isinstance(x, jax.Array) or (x.is_fully_addressable and all(d.platform == "cpu" for d in x.devices()))


def as_array(name: str, given: Any) -> Array:
    """A JAX array, or what becomes one: a NumPy array still, so that no integer loses its upper bits."""
    return given if isinstance(given, jax.Array) else numpy_array(name, given, "JAX")


def checked_logits(name: str, given: Any) -> Array:
    array = as_array(name, given)
    if array.dtype.name not in FLOATS:
        raise errors.logits_dtype(name, array.dtype.name, WORDS)
    return jnp.asarray(array)


def checked_labels(given: Any, logits: Array, chosen: Options) -> Array:
    """Labels of a dtype that the loss takes."""
    labels = as_array("labels", given)
    if isinstance(chosen, SoftmaxOptions) and chosen.sparse:
        if labels.size == 0 and isinstance(given, (list, tuple)):
            labels = labels.astype(np.int32)  # NumPy takes an empty list for floating-point numbers
        if labels.dtype.kind not in "iu" or labels.dtype.itemsize > 8:
            raise shapes.index_labels_misfit(labels.shape, logits.shape, chosen.axis, labels.dtype.name, WORDS)
        return labels
    if not (labels.dtype.name in FLOATS or labels.dtype.kind in "biu"):
        raise errors.label_dtype(labels.dtype.name)
    return jnp.asarray(labels)


def fit_of(chosen: Options, labels: Array, logits: Array) -> SoftmaxFit | None:
    """How labels fit logits; None for the sigmoid family. Raises if they do not."""
    if isinstance(chosen, SoftmaxOptions):
        return shapes.softmax_fit(chosen, labels.shape, logits.shape, labels.dtype.name)
    shapes.check_sigmoid_labels(labels.shape, logits.shape)
    return None


def check_indices(labels: Array, classes: int, ignored: int | None, sample_weight: Array | None) -> None:
    """Raise for an index label that is no class, where that can be seen."""
    if has_values(labels) and (sample_weight is None or has_values(sample_weight)):
        given = np.asarray(labels), classes, ignored, None if sample_weight is None else np.asarray(sample_weight)
        errors.check_in_range(*given)


def indices(labels: Array, classes: int, ignored: int | None) -> Array:
    """Index labels of any integers as int32: IGNORED if they are, OUTSIDE if they are no class."""
    xp: Any = jnp if isinstance(labels, jax.Array) else np
    bounds = np.iinfo(labels.dtype)
    inside = labels >= 0
    if classes <= bounds.max:
        inside = inside & (labels < labels.dtype.type(classes))
    found = xp.where(inside, labels.astype(np.int32), np.int32(OUTSIDE))
    if ignored is not None and bounds.min <= ignored <= bounds.max:
        found = xp.where(labels == labels.dtype.type(ignored), np.int32(IGNORED), found)
    return found


def indexed(chosen: SoftmaxOptions, labels: Array, classes: int) -> tuple[SoftmaxOptions, Array]:
    """The options and labels of a sparse loss as the formulas take them; those of others as they are."""
    if not chosen.sparse:
        return chosen, labels
    found = indices(labels, classes, chosen.ignore_index)
    return chosen if chosen.ignore_index is None else changed(chosen, ignore_index=IGNORED), found


def checked_weights(
    names: tuple[str, ...], given: tuple[Any, ...], logits: Array, fit: SoftmaxFit | None
) -> tuple[Array | None, ...]:
    """The weights in the type of the arithmetic, None for those that are not given; they carry no gradient."""
    checked: list[Array | None] = []
    for name, each in zip(names, given or (None,) * len(names), strict=True):
        weight = None
        if each is not None:
            weight = as_array(name, each)
            if not (is_floating(weight) or weight.dtype.kind in "biu"):
                raise errors.number_dtype(name, weight.dtype.name)
            shapes.check_weight(name, weight.shape, logits.shape, fit)
            if has_values(weight):
                options.check_weight_values(name, np.asarray(weight, np.float64))
            weight = wide(weight) if isinstance(weight, jax.Array) else jnp.asarray(weight, wide_dtype())
        checked.append(weight)
    return tuple(checked)


def refuse_weight_gradients(names: tuple[str, ...], tangents: tuple[Any, ...]) -> None:
    """Raise for weights that a derivative is asked for."""
    for name, tangent in zip(names, tangents, strict=True):
        if tangent is not None and not isinstance(tangent, SymbolicZero):
            raise errors.weight_gradient(name, WORDS)
