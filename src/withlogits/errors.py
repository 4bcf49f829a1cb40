"""Every error text, once. Nothing here knows a framework: shapes are tuples, and dtypes are names.

A mistake that `withlogits.guide` has a code for is reported with that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

SPARSE = "sparse_softmax_cross_entropy_with_logits"
DENSE = "softmax_cross_entropy_with_logits"
SIGMOID = "sigmoid_cross_entropy_with_logits"
# The largest class index up to which every index is a value of the dtype.
EXACT_INDICES = {"float16": 2048, "bfloat16": 256}


def described(x: Any) -> str:
    """A short account of a wrong argument; never the whole of an array."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return repr(x)
    name: str = getattr(x, "__qualname__", f"an object of type {type(x).__name__}")
    return name


def be(name: str) -> str:
    return f"{name} are" if name in ("logits", "labels") else f"{name} is"


def have(name: str) -> str:
    return f"{name} have" if name in ("logits", "labels") else f"{name} has"


def entry(name: str, where: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in where)}]" if where else name


# --------------------------------------------------------------------------------------------- how a loss is called


# What other libraries call our arguments.
ELSEWHERE = {
    "input": "logits", "y_pred": "logits", "output": "logits", "target": "labels", "targets": "labels",
    "y_true": "labels", "weight": "class_weight", "dim": "axis", "reduce": "reduction", "ignore_class": "ignore_index",
}  # fmt: skip


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
            known = ELSEWHERE.get(word)
            meant = f", which is called {known} here" if known in keywords else ""
            return TypeError(f"{name} has no argument {word!r}{meant}; its arguments are {', '.join(keywords)}")
    absent = next(word for word in keywords if word not in defaults and word not in given)
    return TypeError(f"{name} lacks {absent}: {name}({shown})")


def not_a_loss(loss: object) -> TypeError:
    return TypeError(
        f"value_and_grad differentiates the losses of withlogits, and got {described(loss)}: pass one of "
        f"{SIGMOID}, weighted_cross_entropy_with_logits, {DENSE}, {SPARSE}, "
        "and its options to the function that comes back"
    )


def wrt(given: object) -> ValueError:
    return ValueError(f"wrt is {given!r}, where 'logits', 'labels' or ('logits', 'labels') is expected")


def gradient_of_indices() -> ValueError:
    return ValueError(
        f"the labels of {SPARSE} are class indices, which have no gradient: pass wrt='logits', "
        f"or distributions as labels to {DENSE}"
    )


# ----------------------------------------------------------------------------------------------------------- options


def number(name: str, given: object, expected: str = "a number") -> TypeError:
    text = f"{name} is {described(given)}, where {expected} is expected"
    if hasattr(given, "dtype") and not isinstance(given, (np.ndarray, np.generic)):  # traced, or with a gradient
        text += (
            ": options are Python numbers, which stay the same while a function is traced and have no gradient; pass "
            "one, in jax.jit by static_argnames"
        )
        text += ", or divide the logits by the array instead" if name == "temperature" else ""
    return TypeError(text)


def integer(name: str, given: object) -> TypeError:
    return number(name, given, "an integer")


def ignore_index(given: object) -> TypeError:
    return number("ignore_index", given, "an integer or None")


def thresholds(given: object) -> ValueError:
    return ValueError(f"thresholds is {given!r:.60}, where probabilities between 0 and 1 are expected: [0.3, 0.5]")


def thresholds_of_exclusive(loss: str) -> ValueError:
    return ValueError(
        f'thresholds are of independent classes (loss="sigmoid"), and the loss is {loss}, which predicts the largest '
        "logit: leave them out"
    )


def out_of_range(name: str, given: float, expected: str) -> ValueError:
    return ValueError(f"{name} is {given!r}, where {expected} is expected")


def two_axes(axis: object, dim: object) -> ValueError:
    return ValueError(f"axis={axis!r} and dim={dim!r} were both given; dim is an older name of axis: pass axis alone")


# ------------------------------------------------------------------------------------------------------------ dtypes


@dataclass(frozen=True, slots=True)
class Words:
    """How a conversion is written in the caller's library; each holds {name} and {dtype}, or {axis}."""

    cast: str
    convert: str  # the same for what may not be an array yet
    reload: str  # what to do about a bfloat16 that came back from a file as plain bytes
    index: str = "int64"  # the dtype of indices
    constant: str = "{name}.detach()"  # without its gradient
    argmax: str = "{name}.argmax(axis={axis})"


NUMPY = Words(
    cast="{name}.astype(numpy.{dtype})",
    convert="numpy.asarray({name}, numpy.{dtype})",
    reload="{name}.view(ml_dtypes.bfloat16)",
)


def logits_dtype(name: str, dtype: str, words: Words = NUMPY) -> TypeError:
    """`name` is what the caller calls the array: logits, x."""
    text = f"{have(name)} dtype {dtype}, where float16, bfloat16, float32 or float64 is expected; "
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
    cast = words.cast.format(name="labels", dtype=words.index)
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


# ------------------------------------------------------------------------------------------------------------ arrays


def no_array_of(name: str, given: object, framework: str) -> TypeError:
    return TypeError(f"{be(name)} {described(given)} of {framework}, where an array is expected")


def not_served(name: str, framework: str) -> TypeError:
    """For what belongs to Keras and to none of its backends."""
    return TypeError(
        f"{be(name)} of {framework}, and tensors of its backends are expected: pass the value of a variable; for a "
        "model that is being built take a loss of withlogits.compat.keras"
    )


def mixed(name: str, framework: str, logits_of: str) -> TypeError:
    return TypeError(
        f"{be(name)} an array of {framework}, where the logits are of {logits_of}: pass both as arrays of one library"
    )


def not_dense(name: str, kind: str) -> TypeError:
    padded = ", and sample_weight=0 for the padding"
    ways = {
        "nested": f"{name}.to_padded_tensor(0.0){padded}",
        "RaggedTensor": f"{name}.to_tensor(){padded}",
        "SparseTensor": f"tf.sparse.to_dense({name})",
    }
    what = kind if kind.endswith("Tensor") else f"{kind} tensor"
    way = ways.get(kind, f"{name}.to_dense()")
    return TypeError(f"{be(name)} a {what}, where a dense one is expected: pass {way}")


def other_device(name: str, device: str, logits_device: str) -> ValueError:
    return ValueError(f"{be(name)} on {device} and logits on {logits_device}: pass {name}.to(logits.device)")


def weight_gradient(name: str, words: Words = NUMPY) -> ValueError:
    return ValueError(
        f"{name} requires a gradient, which the losses do not give for weights: pass "
        f"{words.constant.format(name=name)}; "
        'to learn a weight of each loss, multiply it with the losses of reduction="none"'
    )


def masked(name: str) -> TypeError:
    return TypeError(
        f"{be(name)} a masked array, whose mask the loss would not see: "
        f"pass {name}.data, and sample_weight=0 for what is masked"
    )


def traced_values(name: str, by: str) -> TypeError:
    """For the array of a program that a framework records, which the guide would have to look into."""
    outside = "tf.function" if by == "TensorFlow" else "jax.jit and other transformations"
    return TypeError(
        f"{be(name)} traced by {by}, and have no values to look at: call this outside of {outside}, or wrap the loss "
        "with withlogits.checked, which leaves traced calls out"
    )


def none_given(name: str) -> TypeError:
    return TypeError(f"{be(name)} None, where an array is expected")


def call_name(given: object) -> TypeError:
    return TypeError(f"name is {described(given)}, where a string or None is expected")


def no_array(name: str, reason: object) -> TypeError:
    return TypeError(f"{name} cannot be made an array: {reason}")


# ------------------------------------------------------------------------------------------------------------ shapes


def no_classes(name: str) -> ValueError:
    return ValueError(f"{be(name)} a single number, where an axis of classes is needed: shape (C,) or more")


def axis_out_of_range(name: str, axis: int, shape: Shape) -> ValueError:
    return ValueError(f"axis {axis} is outside [{-len(shape)}, {len(shape)}) for {name} of shape {shape}")


def repeated_axis(axes: tuple[Any, ...]) -> ValueError:
    return ValueError(f"axis={axes} names an axis twice: pass each once")


def empty_classes(name: str, axis: int, shape: Shape) -> ValueError:
    return ValueError(f"{name} of shape {shape} without a class: axis {axis} has length 0")


def _shapes(labels: Shape, logits: Shape, axis: int | None = None) -> str:
    classes = "" if axis is None else f", classes on axis {axis}"
    return f"labels have shape {labels} and logits {logits}{classes}: "


def one_hot_labels(labels: Shape, logits: Shape, axis: int, words: Words) -> ValueError:
    argmax = words.argmax.format(name="labels", axis=axis)
    return ValueError(
        f"{_shapes(labels, logits, axis)}one-hot or soft labels belong to {DENSE}, yes/no labels to {SIGMOID}; "
        f"{SPARSE} takes class indices: pass {argmax} if they are one-hot (WL201)"
    )


def classes_elsewhere(labels: Shape, logits: Shape, axis: int, other: int) -> ValueError:
    return ValueError(
        f"{_shapes(labels, logits, axis)}the labels fit classes on another axis: pass axis={other} (WL211)"
    )


def index_shape(labels: Shape, logits: Shape, axis: int, rows: Shape, kept: Shape) -> ValueError:
    return ValueError(f"{_shapes(labels, logits, axis)}class indices of shape {rows} or {kept} are expected")


def index_labels(labels: Shape, logits: Shape, axis: int) -> ValueError:
    return ValueError(
        f"{_shapes(labels, logits, axis)}class indices belong to {SPARSE}; {DENSE} takes labels of the logits' shape, "
        "whose rows sum to 1 (WL202)"
    )


def index_labels_for_sigmoid(labels: Shape, logits: Shape) -> ValueError:
    return ValueError(
        f"{_shapes(labels, logits)}class indices belong to {SPARSE}; {SIGMOID} takes one label for each logit, in the "
        "logits' shape (WL202)"
    )


def transposed(labels: Shape, logits: Shape, axis: int | None = None) -> ValueError:
    return ValueError(f"{_shapes(labels, logits, axis)}the labels are transposed: pass labels.T (WL212)")


def trailing_one(labels: Shape, logits: Shape, longer: str) -> ValueError:
    return ValueError(
        f"{_shapes(labels, logits)}broadcast, they would be {np.broadcast_shapes(labels, logits)}; "
        f"pass {longer}[..., 0] (WL210)"
    )


def missing_axis(labels: Shape, logits: Shape, position: int) -> ValueError:
    index = ", ".join([":"] * position + ["None"])
    return ValueError(
        f"{_shapes(labels, logits)}the labels lack axis {position}, which has length 1 in the logits: "
        f"pass labels[{index}]"
    )


def turned_axes(
    labels: Shape, logits: Shape, turned: tuple[int, int], axis: int | None = None, missing: int | None = None
) -> ValueError:
    """For labels of which two axes are swapped; the axis `missing` of the logits, of length 1, they lack besides."""
    lacking, index = "", ""
    if missing is not None:
        lacking = f", and axis {missing} is missing"
        index = f"[{', '.join([':'] * missing + ['None'])}]"
    return ValueError(
        f"{_shapes(labels, logits, axis)}axes {turned[0]} and {turned[1]} of the labels look swapped{lacking}: "
        f"pass labels.swapaxes{turned}{index}"
    )


def label_shape(labels: Shape, logits: Shape, axis: int | None = None) -> ValueError:
    row = "" if axis is None else f", or one row for all, ({logits[axis]},)"
    return ValueError(f"{_shapes(labels, logits, axis)}labels of the logits' shape are expected{row}")


def class_weight_shape(name: str, shape: Shape, classes: int) -> ValueError:
    what = "weight" if name == "class_weight" else "number"
    return ValueError(f"{name} has shape {shape}, where ({classes},) is expected: one {what} for each class")


def weight_shape(name: str, shape: Shape, target: Shape, of: str) -> ValueError:
    text = f"{name} has shape {shape}, which does not broadcast to {target}, the shape of the {of}"
    if shape == (*target, 1):
        text += f": pass {name}[..., 0]"
    elif (*shape, 1) == target:
        text += f": pass {name}[..., None]"
    return ValueError(text)


# ------------------------------------------------------------------------------------------------------------ values


def weight_value(name: str, where: tuple[Any, ...], value: object, expected: str) -> ValueError:
    return ValueError(f"{entry(name, where)} is {value!r}, where {expected} is expected")


def wrong_labels(
    labels: NDArray[Any], classes: int, ignore_index: int | None, sample_weight: NDArray[Any] | None
) -> NDArray[np.bool_]:
    """Which index labels count and are no class."""
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if sample_weight is not None:
        wrong &= sample_weight != 0.0
    return wrong


def label_out_of_range(
    labels: NDArray[Any], classes: int, ignore_index: int | None = None, sample_weight: NDArray[Any] | None = None
) -> ValueError:
    """For index labels of which at least one counts and is no class: names the first."""
    wrong = wrong_labels(labels, classes, ignore_index, sample_weight)
    where = np.unravel_index(np.flatnonzero(wrong)[0], labels.shape)
    value = int(labels[where])
    from_one = value == classes and labels.min() >= 1 and labels.max() == classes
    return label_outside(where, value, classes, from_one)


def check_in_range(
    labels: NDArray[Any], classes: int, ignore_index: int | None, sample_weight: NDArray[Any] | None
) -> None:
    """Raise for the first index label that counts and is no class."""
    if wrong_labels(labels, classes, ignore_index, sample_weight).any():
        raise label_out_of_range(labels, classes, ignore_index, sample_weight)


def label_outside(where: tuple[Any, ...], value: int, classes: int, from_one: bool) -> ValueError:
    """For the label at `where`; `from_one` says that the labels look as if they count from 1 to C."""
    text = f"{entry('labels', where)} = {value} is outside [0, {classes}) for logits with {classes} class"
    if classes == 1:
        return ValueError(f"{text}; a single logit for each example is for {SIGMOID} (WL105)")
    text += "es; "
    if from_one:
        return ValueError(text + "labels that count from 1 are indices after labels - 1 (WL206)")
    padding = f"to skip padding pass ignore_index={value} (WL207)"
    if 0 <= value != 255:
        return ValueError(f"{text}the logits lack classes, or the labels want another numbering (WL206); {padding}")
    return ValueError(text + padding)


def out_array(expected: str, got: str) -> ValueError:
    return ValueError(f"out must be {expected}, and is {got}")


def out_without_logits() -> ValueError:
    return ValueError("out takes the gradient of the logits, which wrt does not name: add it there, or pass no out")


def out_overlaps(name: str) -> ValueError:
    return ValueError(
        f"out shares memory with {name}: pass an array of its own"
        + (", or the logits themselves to have them overwritten" if name == "logits" else "")
    )


# ------------------------------------------------------------------------------------------------------------- Keras


def from_probabilities(loss: str, activation: str) -> ValueError:
    """For `from_logits=False`, which is Keras's default."""
    return ValueError(
        f"{loss} got from_logits=False, and withlogits computes from logits, since probabilities have lost what a "
        f"confident loss is made of: pass from_logits=True, leave the {activation} out of the model's last layer, and "
        f"for probabilities take {activation}(logits)"
    )


# ------------------------------------------------------------------------------------------------------ frameworks


def operand_shape(name: str, shape: Shape, expected: Shape) -> ValueError:
    """For an array that a traced graph gives to an operator, and that does not fit the logits."""
    return ValueError(f"{have(name)} shape {shape}, where {expected} is expected")


def ragged_classes(axis: int) -> ValueError:
    """For the logits of a softmax in TensorFlow, of which rows differ in their number of classes."""
    return ValueError(
        f"axis {axis} of the logits is ragged, or before a ragged one, where all rows need the same classes: pass "
        "logits.to_tensor(-inf), where a class that a row lacks cannot occur"
    )


def constant_arrays(name: str) -> TypeError:
    """For an array of JAX that would be written into."""
    return TypeError(
        f"{name} cannot be written into, since arrays of JAX are constant: leave it out, and donate the logits to "
        "jax.jit"
    )


def too_old(library: str, version: str, needed: str) -> ImportError:
    return ImportError(f"withlogits needs {library} {needed} or later, and found {version}: install a later one")


def traced_value_and_grad() -> RuntimeError:
    """For `value_and_grad` under `torch.jit.trace`, which records no gradients."""
    return RuntimeError(
        "torch.jit.trace cannot record value_and_grad: trace the loss, and differentiate the traced function"
    )


def changed_in_place() -> RuntimeError:
    return RuntimeError(
        "logits or labels have been modified by an inplace operation since the loss was computed, and its gradient "
        "needs them: change a copy, or change them after the backward pass"
    )


def missing_in_torch(path: str, version: str) -> ImportError:
    """For a release of torch without a private name that has no public counterpart."""
    return ImportError(
        f"withlogits needs {path}, which torch {version} does not have: install an earlier torch, or a later withlogits"
    )


def not_installed(module: str, library: str, package: str) -> ModuleNotFoundError:
    """For the import of a module whose library is not there."""
    return ModuleNotFoundError(f"{module} needs {library}, which is not installed: pip install {package}", name=package)


def ambiguous_pos_weight(shape: Shape, logits: Shape) -> ValueError:
    spatial = ", ".join(["1"] * (len(logits) - 2))
    return ValueError(
        f"pos_weight has shape {shape}, which fits axis 1 and the last axis of logits of shape {logits}: pass "
        f"pos_weight.reshape({shape[0]}, {spatial}) for classes on axis 1, or pos_weight[None] for the last axis"
    )
