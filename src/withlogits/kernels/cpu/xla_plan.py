"""The calls of kernels that XLA makes: their recipes, and the records that its handler finds them by."""

from __future__ import annotations

import ast
import ctypes
import hashlib
import struct
import threading
from functools import cache
from typing import Any, NamedTuple

from withlogits.options import SigmoidOptions, SoftmaxOptions, field_names

from . import compiler, pool
from .job import PATCH, RECORD, SIGMOID_JOB, SOFTMAX_JOB, XLA_RECORDS, XLA_TABLE, Fields, XlaSpec
from .layout import Layout, dense_strides
from .plan import ONE_AT, SMALL, Kernel, heap, loss_dtype
from .sigmoid_plan import Parts as SigmoidParts
from .sigmoid_plan import sigmoid_kernel
from .softmax_plan import Parts as SoftmaxParts
from .softmax_plan import softmax_kernel
from .target import host

CHUNKS = 8  # for each thread
_lock = threading.Lock()


class Recipe(NamedTuple):
    """A call of a kernel on arrays that lie side by side, in literals: what a program that was compiled carries."""

    family: str  # "softmax" or "sigmoid"
    options: tuple[Any, ...]  # the fields of the options but the reduction
    shape: tuple[int, ...]  # of the logits
    dtype: str
    labels: str  # their dtype
    gradient: bool
    scale: float  # of the gradient
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
    text = repr(tuple(recipe))
    _record(text)
    return key_of(text), text


@cache
def _table() -> Any:
    """The table of this process: functions, then keys and records."""
    slots = (ctypes.c_int64 * (len(XLA_TABLE) + 2 * XLA_RECORDS))()
    values = {
        "allocate": heap()[0],
        "release": heap()[1],
        "serve": compiler.address(XlaSpec("serve")),
        "yield": pool.yield_address(),
        "resolve": ctypes.cast(_resolve, ctypes.c_void_p).value or 0,
        "mask": XLA_RECORDS - 1,
        "text": ctypes.addressof(_TEXT),
    }
    for name, value in values.items():
        slots[XLA_TABLE[name] // 8] = value
    return slots


@cache
def _record(text: str) -> int:
    """Return the address of the record of a recipe, which stays for good."""
    recipe = Recipe(*ast.literal_eval(text))
    kernel, fields, slots, patches = _call(recipe)
    job = kernel.head + fields.fill(*slots)
    chunk = kernel.count
    if kernel.work >= SMALL:
        pieces = pool.available() * CHUNKS * kernel.multiple
        chunk = min(chunk, -(-kernel.count // pieces) * kernel.multiple)
    head = {
        "kernel": kernel.at, "count": kernel.count, "chunk": chunk, "words": len(job) // 8,
        "patches": len(patches), "copied": sum(patch[3] for patch in patches),
    }  # fmt: skip
    numbers = [head[name] for name in RECORD if name in head]
    assert list(head) == [name for name in RECORD if name != "job"]
    content = struct.pack(f"={len(numbers)}q", *numbers) + job
    content += b"".join(struct.pack(f"={PATCH}q", *patch) for patch in patches)
    record = ctypes.addressof(compiler.for_ever(ctypes.create_string_buffer(content, len(content))))
    _publish(key_of(text), record)
    return record


def _publish(key: int, record: int) -> None:
    table, first = _table(), XLA_TABLE["records"] // 8
    with _lock:
        place = key & (XLA_RECORDS - 1)
        for _ in range(XLA_RECORDS // 2):
            if table[first + 2 * place] in (0, key):
                table[first + 2 * place + 1] = record  # before the key, by which it is found
                table[first + 2 * place] = key
                return
            place = (place + 1) & (XLA_RECORDS - 1)
    raise RuntimeError("this process has compiled more kinds of calls than there is room for")


def _call(recipe: Recipe) -> tuple[Kernel, Fields, list[Any], list[tuple[int, ...]]]:
    """Return the kernel, the slots of its job, and the patches."""
    softmax = recipe.family == "softmax"
    kind: Any = SoftmaxOptions if softmax else SigmoidOptions
    options = kind(**dict(zip((*field_names(kind), "reduction"), (*recipe.options, "none"), strict=True)))
    logits = _dense(recipe.shape, recipe.dtype)
    given = dict(recipe.weights)
    arguments = {"x": 0, "z": 1, **{name: i for i, name in enumerate(given, 2)}}
    loss = loss_dtype(recipe.dtype)
    lengths: dict[str, int] = {}
    if softmax:
        axis = options.axis % len(recipe.shape)
        rows = recipe.shape[:axis] + recipe.shape[axis + 1 :]
        labels = _dense(rows if options.sparse else recipe.shape, recipe.labels)
        count = 1
        for n in rows:
            count *= n
        lengths = {name: recipe.shape[axis] if name in SoftmaxOptions.PER_CLASS else count for name in given}
        per_class = tuple(name for name in SoftmaxOptions.PER_CLASS if name in given)
        sample = dense_strides(rows, 8) if "sample_weight" in given else None
        parts = SoftmaxParts(logits, labels, logits.strides if recipe.gradient else None, None, sample, per_class, loss)
        kernel, fields = softmax_kernel(options, axis, "loss", parts), SOFTMAX_JOB
        arguments["s"] = arguments.get("sample_weight", -1)
        results = {"loss": 0, "g": 1}
    else:
        labels = _dense(recipe.shape, recipe.labels)
        parts_of = SigmoidParts(logits, labels, _dense(recipe.shape, loss), logits if recipe.gradient else None)
        kernel, fields = sigmoid_kernel("loss", options.label_smoothing, parts_of), SIGMOID_JOB
        results = {"o": 0, "g": 1}
    slots: list[Any] = []
    patches: list[tuple[int, ...]] = []
    copied = 0
    for slot, dotted in enumerate(fields.filled, len(fields.planned)):
        name = dotted.rstrip(".")
        value: Any = {"grad_scale": recipe.scale, "pos_weight": 1.0, "kappa": 0.0}.get(name, 0)
        if name in results and (name != "g" or recipe.gradient):
            patches.append((slot, 1, results[name], 0, 0))
        elif arguments.get(name, -1) >= 0:
            weight = "sample_weight" if name == "s" else name
            narrow = given.get(weight) == "float32"
            n = lengths[weight] if narrow else 0
            patches.append((slot, 2 if narrow else 0, arguments[name], n, copied))
            copied += n
        elif softmax and (name == "s" or name in SoftmaxOptions.PER_CLASS):
            value = ONE_AT
        slots.append(value)
    return kernel, fields, slots, patches


def _dense(shape: tuple[int, ...], dtype: str) -> Layout:
    return Layout(shape, dense_strides(shape, Layout(shape, (), dtype).itemsize), dtype)


_TEXT = ctypes.create_string_buffer(
    b"withlogits cannot make the kernel of this program: import withlogits and call a loss of JAX arrays first"
)


def _resolved(text: int, length: int) -> int:
    """For a program that was compiled in another process."""
    try:
        return _record(ctypes.string_at(text, length).decode())
    except Exception:  # there is nobody to raise it to but XLA
        return 0


_resolve = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(_resolved)
