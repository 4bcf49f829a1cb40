"""The calls of kernels that XLA makes: their recipes, and the records that its handler finds them by."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import threading
from functools import cache
from typing import Any, NamedTuple

from withlogits.options import SigmoidOptions, SoftmaxOptions

from . import compiler, pool
from .job import (
    ARGUMENT,
    COPY,
    OWN,
    PATCH,
    RECORD,
    RESULT,
    ROW_WEIGHTS_JOB,
    SCALE,
    SIGMOID_JOB,
    SOFTMAX_JOB,
    STEP,
    XLA_RECORDS,
    XLA_TABLE,
    Fields,
    XlaSpec,
)
from .layout import ITEM_SIZES, Layout, dense_strides, without
from .plan import ONE_AT, SMALL, Kernel, by_weights, heap, loss_dtype
from .sigmoid_plan import Parts as SigmoidParts
from .sigmoid_plan import sigmoid_kernel
from .softmax_plan import Parts as SoftmaxParts
from .softmax_plan import softmax_kernel, weights_kernel
from .target import host
from .xla import HEAD

CHUNKS = 8  # for each thread
_lock = threading.Lock()


class Recipe(NamedTuple):
    """A call of a kernel on arrays that lie side by side, as JSON: what a program that was compiled carries."""

    family: str  # "softmax" or "sigmoid"
    options: tuple[Any, ...]  # their fields; an axis is counted from the end
    shape: tuple[int, ...]  # of the logits
    batch: int  # so many axes of it are of losses that are reduced by themselves; arrays of classes have none of them
    dtype: str
    labels: str  # their dtype
    gradient: bool
    divisor: float | None  # of a mean, if this is a part of its rows; else it is theirs
    weights: tuple[tuple[str, str], ...]  # the names of those that are given, and their dtypes


def key_of(recipe: str) -> int:
    """Return the number under which a recipe's record is found, other than 0."""
    return int.from_bytes(hashlib.sha256(recipe.encode()).digest()[:7], "little") + 1


@cache
def handler() -> int:
    """Return the address of the function that XLA calls with a frame."""
    target = host()
    entry, table = compiler.address(XlaSpec("handle")), ctypes.addressof(_table())
    name = f"withlogits_handle_{entry:x}"
    text = f"""
    define i64 @{name}(i64 %frame) {{
        %handle = inttoptr i64 {entry} to i64 (i64, i64, i64)*
        %answer = call i64 %handle(i64 %frame, i64 {table}, i64 0)
        ret i64 %answer
    }}
    """
    return compiler.loaded(compiler.optimized(text, target), name, target)


def prepare(recipe: Recipe) -> tuple[int, str]:
    """Make the record of a call; return its key and its text."""
    text = json.dumps(recipe)
    _record(text)
    return key_of(text), text


@cache
def _table() -> Any:
    """The table of this process: functions, then keys and records."""
    values = {
        "allocate": heap()[0],
        "release": heap()[1],
        "serve": compiler.address(XlaSpec("serve")),
        "yield": pool.yield_address(),
        "resolve": ctypes.cast(_resolve, ctypes.c_void_p).value or 0,
        "mask": XLA_RECORDS - 1,
        "unknown": ctypes.addressof(_UNKNOWN),
        "no_memory": ctypes.addressof(_NO_MEMORY),
    }
    return (ctypes.c_int64 * (len(XLA_TABLE) + 2 * XLA_RECORDS))(*[values[name] for name in XLA_TABLE])


@cache
def _record(text: str) -> int:
    """Return the address of the record of a recipe, which stays for good."""
    recipe = Recipe(*_tuples(json.loads(text)))
    content = (_softmax if recipe.family == "softmax" else _sigmoid)(recipe).content()
    record = ctypes.addressof(compiler.for_ever(ctypes.create_string_buffer(content, len(content))))
    _publish(key_of(text), record)
    return record


def _tuples(x: Any) -> Any:
    return tuple(map(_tuples, x)) if isinstance(x, list) else x


def _publish(key: int, record: int) -> None:
    table, first = _table(), len(XLA_TABLE)
    with _lock:
        place = key & (XLA_RECORDS - 1)
        for _ in range(XLA_RECORDS // 2):
            if table[first + 2 * place] in (0, key):
                table[first + 2 * place + 1] = record  # before the key, by which it is found
                table[first + 2 * place] = key
                return
            place = (place + 1) & (XLA_RECORDS - 1)
    raise RuntimeError("this process has compiled more kinds of calls than there is room for")


class Patch(NamedTuple):
    """Where the content of a slot comes from: see `job.PATCH`."""

    kind: int
    which: int = 0
    step: int = 0
    length: int = 0
    place: int = 0


class Step(NamedTuple):
    """A kernel, and its slots that calls fill: a number that stays the same, or a patch."""

    kernel: Kernel
    fields: Fields
    slots: dict[str, Any]

    def content(self) -> bytes:
        kernel, first = self.kernel, len(self.fields.planned)
        names = [name.rstrip(".") for name in self.fields.filled]
        slots = [self.slots.get(name, 0) for name in names]
        job = kernel.head + self.fields.fill(*[0 if isinstance(slot, Patch) else slot for slot in slots])
        patches = [(i, *slot) for i, slot in enumerate(slots, first) if isinstance(slot, Patch)]
        chunk = kernel.count
        if kernel.work >= SMALL:
            pieces = pool.available() * CHUNKS * kernel.multiple
            chunk = min(chunk, -(-kernel.count // pieces) * kernel.multiple)
        head = {"kernel": kernel.at, "count": kernel.count, "chunk": chunk, "words": len(job) // 8}
        head["patches"] = len(patches)
        return STEP.head(head) + job + b"".join(PATCH.plan(*patch) for patch in patches)


class Steps(NamedTuple):
    """What a call does in each run, and how much of its own memory this needs."""

    loss: Step
    weights: Step | None
    runs: int
    values: int  # of a run
    terms: int  # of a value, or 0
    wide: bool
    divisor: float
    numbers: int  # float64

    def content(self) -> bytes:
        """Return the record."""
        loss, weights = self.loss.content(), b"" if self.weights is None else self.weights.content()
        words = max(len(loss), len(weights))
        head: dict[str, float] = {
            "nbytes": HEAD + 128 + words + 8 * self.numbers,
            "own": -(-(HEAD + words) // 64) * 64,
            "weights": 8 * len(RECORD.names) if weights else 0,
            "loss": 8 * len(RECORD.names) + len(weights),
        }
        return RECORD.head({**self._asdict(), **head}) + weights + loss


class _Arrays:
    """The arguments of a call, and its own numbers."""

    def __init__(self, recipe: Recipe, run_axes: int) -> None:
        """`run_axes` are those of the logits that runs go over."""
        self.recipe, self._run_axes = recipe, run_axes
        self._copies: dict[str, Patch] = {}
        self.numbers = 0

    def patch(self, kind: int, index: int, count: int, dtype: str) -> Patch:
        """Of an argument or result of so many elements in a run."""
        return Patch(kind, index, count * ITEM_SIZES[dtype] if self._run_axes else 0)

    def own(self, count: int) -> Patch:
        """Of so many float64 numbers."""
        place, self.numbers = self.numbers, self.numbers + count
        return Patch(OWN, place=8 * place)

    def weight(self, name: str, count: int) -> Any:
        """Of float64 numbers, the address of a 1 if there are none."""
        names = [each for each, _ in self.recipe.weights]
        if name not in names:
            return ONE_AT
        dtype = dict(self.recipe.weights)[name]
        found = self._copies.get(name)  # those of the step before
        if found is None:
            varied = name not in SoftmaxOptions.PER_CLASS
            found = self.patch(ARGUMENT, 2 + names.index(name), count if varied else 0, dtype)
            if dtype == "float32":
                own = self.own(count)
                found, self._copies[name] = found._replace(kind=COPY, length=count, place=own.place), own
        return found


def _softmax(recipe: Recipe) -> Steps:
    options = SoftmaxOptions(*recipe.options)
    given = [name for name, _ in recipe.weights]
    reduced, groups = options.reduction != "none", math.prod(recipe.shape[: recipe.batch])
    weighted = "class_weight" in given
    # one kernel for the rows of all groups, unless each has its own divisor
    divided = recipe.divisor is None and by_weights(options, weighted, "sample_weight" in given)
    run_axes = recipe.batch if divided else 0
    logits = _dense(recipe.shape[run_axes:], recipe.dtype)
    axis = options.axis % len(logits.shape)
    rows, classes = without(logits.shape, axis), logits.shape[axis]
    count = math.prod(rows)
    labels = _dense(rows if options.sparse else logits.shape, recipe.labels)
    sample = dense_strides(rows, 8) if "sample_weight" in given else None
    arrays = _Arrays(recipe, run_axes)
    size, runs = count * classes, groups if run_axes else 1
    terms = count * runs // groups if reduced else 0
    loss = "float64" if reduced else loss_dtype(recipe.dtype)
    losses = arrays.own(count) if reduced else arrays.patch(RESULT, 0, count, loss)
    z = arrays.patch(ARGUMENT, 1, count if options.sparse else size, recipe.labels)
    weights = None
    if divided:
        slots = {"z": z, "out": losses, "s": arrays.weight("sample_weight", count)}
        slots["class_weight"] = arrays.weight("class_weight", classes)
        weights = Step(weights_kernel(options, axis, logits, labels, weighted, sample), ROW_WEIGHTS_JOB, slots)
    slots = {"x": arrays.patch(ARGUMENT, 0, size, recipe.dtype), "z": z, "loss": losses, "grad_scale": Patch(SCALE)}
    slots |= {"s": arrays.weight("sample_weight", count)}
    slots |= {name: arrays.weight(name, classes) for name in SoftmaxOptions.PER_CLASS}
    if recipe.gradient:
        slots["g"] = arrays.patch(RESULT, 1, size, recipe.dtype)
    per_class = tuple(name for name in SoftmaxOptions.PER_CLASS if name in given)
    parts = SoftmaxParts(logits, labels, logits.strides if recipe.gradient else None, None, sample, per_class, loss)
    step = Step(softmax_kernel(options, axis, "loss", parts), SOFTMAX_JOB, slots)
    divisor = recipe.divisor or float(terms) if options.reduction == "mean" else 1.0
    wide = loss_dtype(recipe.dtype) == "float64"
    return Steps(step, weights, runs, groups // runs, terms, wide, divisor, arrays.numbers)


def _sigmoid(recipe: Recipe) -> Steps:
    options = SigmoidOptions(*recipe.options)
    reduced = options.reduction != "none"
    run_axes = recipe.batch if reduced else 0  # whose sums of blocks are their own
    runs, logits = math.prod(recipe.shape[:run_axes]), _dense(recipe.shape[run_axes:], recipe.dtype)
    loss, size = loss_dtype(recipe.dtype), math.prod(logits.shape)
    labels, losses = _dense(logits.shape, recipe.labels), None if reduced else _dense(logits.shape, loss)
    weight = dict(recipe.weights).get("sample_weight")
    sample = None if weight is None else _dense(logits.shape, weight)
    parts = SigmoidParts(logits, labels, losses, logits if recipe.gradient else None, sample_weight=sample)
    kernel, arrays = sigmoid_kernel("loss", options, parts), _Arrays(recipe, run_axes)
    slots: dict[str, Any] = {
        "x": arrays.patch(ARGUMENT, 0, size, recipe.dtype),
        "z": arrays.patch(ARGUMENT, 1, size, recipe.labels),
        "pos_weight": 1.0,
        "grad_scale": Patch(SCALE),
    }
    if weight is not None:
        slots["s"] = arrays.patch(ARGUMENT, 2, size, weight)
    weights = None
    if reduced:
        slots["sums"] = arrays.own(kernel.count)
        if recipe.divisor is None and by_weights(options):
            weights = Step(sigmoid_kernel("weights", options, parts), SIGMOID_JOB, {**slots, "x": 0, "grad_scale": 0.0})
    else:
        slots["o"] = arrays.patch(RESULT, 0, size, loss)
    if recipe.gradient:
        slots["g"] = arrays.patch(RESULT, 1, size, recipe.dtype)
    divisor = recipe.divisor or float(size) if options.reduction == "mean" else 1.0
    terms = kernel.count if reduced else 0
    return Steps(Step(kernel, SIGMOID_JOB, slots), weights, runs, 1, terms, loss == "float64", divisor, arrays.numbers)


def _dense(shape: tuple[int, ...], dtype: str) -> Layout:
    return Layout(shape, dense_strides(shape, ITEM_SIZES[dtype]), dtype)


_UNKNOWN = ctypes.create_string_buffer(
    b"withlogits cannot make the kernel of this program: import withlogits and call a loss of JAX arrays first"
)
_NO_MEMORY = ctypes.create_string_buffer(b"withlogits has no memory for the losses of this call")


def _resolved(text: int, length: int) -> int:
    """For a program that was compiled in another process."""
    try:
        return _record(ctypes.string_at(text, length).decode())
    except Exception:  # there is nobody to raise it to but XLA
        return 0


_resolve = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(_resolved)
