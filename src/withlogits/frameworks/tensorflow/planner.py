"""What an operation does for inputs of given dtypes and shapes: the planner that `kernels.cpu.op` asks.

The inputs of `WithlogitsLoss` are logits, labels and the weights that its `call` names; those of `WithlogitsGradient`
have the upstream gradient before them, and behind them the gradient of the logits if the loss has made it already.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from operator import attrgetter
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.frameworks.tensorflow import calls
from withlogits.kernels import cpu
from withlogits.kernels.cpu import buffers, compiler, pool
from withlogits.kernels.cpu.job import SmallSpec
from withlogits.kernels.cpu.layout import Layout, address, dense_strides
from withlogits.kernels.cpu.op_layout import (
    ADDRESSES,
    KEY,
    KEY_WORDS,
    MOST_INPUTS,
    NOTHING,
    PLAN,
    PLAN_FIELDS,
    SPARE,
    STATE,
    TEXT,
    WRONG,
)
from withlogits.kernels.cpu.plan import Allocator, Plan, loss_dtype
from withlogits.kernels.cpu.small_plan import Limits, Small
from withlogits.options import changed, check_weight_values

Array = NDArray[Any]
Given = tuple[tuple[np.dtype[Any], errors.Shape], ...]
SMALL = Limits(pool.WAKE, pool.WAKE, pool.WAKE)  # what is not worth waking a thread for
MOST_KEPT = 512  # plans; what comes later is forgotten after its call
# TensorFlow's numbers of the dtypes
DTYPES = {
    1: np.dtype(np.float32), 2: np.dtype(np.float64), 3: np.dtype(np.int32), 4: np.dtype(np.uint8),
    5: np.dtype(np.int16), 6: np.dtype(np.int8), 9: np.dtype(np.int64), 10: np.dtype(np.bool_),
    14: np.dtype(ml_dtypes.bfloat16), 17: np.dtype(np.uint16), 19: np.dtype(np.float16), 22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
}  # fmt: skip
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class ArrayMemory:
    """What the kernels' planner asks of arrays that lie in the memory of tensors; none is allocated."""

    handle = address = staticmethod(address)
    behind = -1
    strides = staticmethod(attrgetter("strides"))

    @staticmethod
    def layout(array: Array) -> Layout:
        return _layout(array.dtype, array.shape)

    @staticmethod
    def allocator(shape: tuple[int, ...], dtype: str, like: Layout | None = None) -> Allocator:
        layout = Layout(shape, (), dtype)
        return Allocator(tuple, layout._replace(strides=dense_strides(shape, layout.itemsize)))

    @staticmethod
    def number(array: Array) -> Any:
        return array

    @staticmethod
    def scalar(x: float, dtype: str) -> Any:
        return x

    @staticmethod
    def cast(array: Array, dtype: str) -> Array:
        return array

    @staticmethod
    def numpy(array: Array) -> Array:
        return array


class OpPlan:
    """One operation for inputs of given dtypes and shapes."""

    def __init__(self, text: str, outputs: int, given: Given) -> None:
        self.options, call = calls.options_of(text)
        self._strict, self._names, self._given = call["strict"], tuple(call["weights"]), given
        self._of_gradient = len(given) > 2 + len(self._names)
        self._first = 1 if self._of_gradient else 0
        logits, labels = (_layout(*each) for each in given[self._first : self._first + 2])
        self._logits = logits
        self._plan: Plan = cpu.plan_loss(self.options, ArrayMemory, labels, logits)
        self._fit = getattr(self._plan, "fit", None)
        weights = dict(zip(self._names, given[self._first + 2 :], strict=False))
        for name, (_, shape) in weights.items():
            shapes.check_weight(name, shape, logits.shape, self._fit)
        value = self._plan.losses.layout.shape if self.options.reduction == "none" else ()
        gradient = (NUMBERS[given[self._first][0]], logits.shape, self._first)
        self._makes = outputs > 1 and call["made"]
        self._made = len(given) - 1 if len(given) > self._first + 2 + len(weights) else -1
        if self._of_gradient:
            self.outputs = [(*gradient[:2], self._first if self._made < 0 else self._made)]
        else:
            self.outputs = [(NUMBERS[np.dtype(loss_dtype(logits.dtype))], value, -1)]
            self.outputs += [gradient if self._makes else (gradient[0], (0,), -1)] * (outputs - 1)
        self._sizes = [math.prod(shape) for _, shape in given]
        self._kept: list[Any] = []
        self.words = self._words(weights)
        self.at = ctypes.addressof(self.words)

    def _words(self, weights: dict[str, Any]) -> Any:
        """What the compiled side reads."""
        fields: dict[str, int] = dict.fromkeys(PLAN_FIELDS, 0)
        fields |= {"outputs": len(self.outputs), "made": self._made, "wide": self._given[0][0].itemsize == 8}
        fields["made_bytes"] = self._logits.itemsize * math.prod(self._logits.shape)
        for i, (number, shape, source) in enumerate(self.outputs):
            axes = self._hold((ctypes.c_int64 * max(1, len(shape)))(*shape))
            size = math.prod(shape) * DTYPES[number].itemsize
            described = {"type": number, "axes": len(shape), "shape": axes, "bytes": size, "from": source}
            fields |= {f"{name}{i}": value for name, value in described.items()}
        small, slots = self._small(weights)
        if small is not None:
            head = small.head()
            fields["kernel"] = compiler.address(SmallSpec(small.family, ArrayMemory.behind))
            fields["head"] = self._hold(ctypes.create_string_buffer(head, len(head)))
            fields["head_words"] = len(head) // 8
            fields |= {f"slot{i}": place for i, place in enumerate(slots)}
        return (ctypes.c_int64 * len(PLAN_FIELDS))(*fields.values())

    def _small(self, weights: dict[str, Any]) -> tuple[Small | None, list[int]]:
        """What runs a small call, and where the addresses of its filled slots are; None if there is no such way.

        The gradient is that of a sum with the upstream gradient as the weights of the losses.
        """
        names = self.options.WEIGHTS
        places = {name: i for i, name in enumerate(self._names, self._first + 2)}
        plan, value = self._plan, MOST_INPUTS
        gradient = MOST_INPUTS + 1 if self._makes else NOTHING
        if self._of_gradient:
            if self.options.reduction != "none" or "sample_weight" in weights:
                return None, []
            plan = cpu.plan_loss(
                changed(self.options, reduction="sum"), ArrayMemory, *[_layout(*each) for each in self._given[2:0:-1]]
            )
            weights, places = {**weights, "sample_weight": self._given[0]}, {**places, "sample_weight": 0}
            value, gradient = SPARE, MOST_INPUTS
        layouts = tuple([_layout(*weights[name]) if name in weights else None for name in names]) if weights else ()
        small = plan.small(gradient != NOTHING, layouts, SMALL)
        if small is not None and self._of_gradient:
            small = small._replace(weights=tuple([each._replace(least=-math.inf) for each in small.weights]))
        return small, [self._first, self._first + 1, gradient, value, *[places.get(name, NOTHING) for name in names]]

    def keep(self, key: bytes) -> None:
        """Let the compiled side find this plan by its key."""
        self.words[PLAN_FIELDS.index("key_words")] = len(key) // 8
        self.words[PLAN_FIELDS.index("key")] = self._hold(ctypes.create_string_buffer(key, len(key)))
        self.words[PLAN_FIELDS.index("kept")] = 1

    def _hold(self, memory: Any) -> int:
        self._kept.append(memory)
        return ctypes.addressof(memory)

    def run(self, request: int) -> None:
        """Compute what is no small call."""
        inputs = self._arrays(request)
        outputs = [
            _array(_word(request, ADDRESSES + 8 * (MOST_INPUTS + i)), DTYPES[number], shape)
            for i, (number, shape, _) in enumerate(self.outputs)
        ]
        for each in outputs:
            buffers.advise_large_pages(address(each), each.nbytes)
        logits, labels, *rest = inputs[self._first :]
        weights = dict(zip(self._names, rest, strict=False))
        for name, weight in weights.items():
            check_weight_values(name, weight)
        if self._of_gradient:
            return self._gradient(inputs[0], labels, logits, weights, outputs[0])
        arrays = (labels, logits, *[weights.get(name) for name in self.options.WEIGHTS])
        losses = outputs[0] if self.options.reduction == "none" else None
        gradient = outputs[1] if self._makes else None
        value = self._plan.compute(arrays, losses, gradient, None, self._strict)
        if losses is None:
            with np.errstate(over="ignore"):
                outputs[0][...] = value
        return None

    def _gradient(self, upstream: Array, labels: Array, logits: Array, weights: dict[str, Array], out: Array) -> None:
        scale = 1.0
        if self.options.reduction == "none":
            share = np.asarray(upstream, np.float64)
            if "sample_weight" in weights:
                share = np.asarray(share * weights["sample_weight"])  # of two arrays without axes, NumPy makes a number
            weights = {**weights, "sample_weight": share}
        else:
            scale = float(upstream[()])
        arrays = (labels, logits, *[weights.get(name) for name in self.options.WEIGHTS])
        if self.options.reduction == "mean":
            divisor = self._plan.divisor(arrays)
            scale = scale / divisor if divisor else 0.0
        if scale == 0.0:
            out[...] = 0.0
        else:
            self._plan.fill(arrays, out, None, scale, self._strict)

    def refused(self, request: int) -> Exception | None:
        """What to raise for a small call whose weights or labels are not allowed."""
        wrong = _word(request, WRONG)
        if wrong > 0 and (self._of_gradient or not self._strict):
            return None
        if self._of_gradient:  # the upstream gradient is no weight: it holds NaN or infinity
            self.run(request)
            return None
        _, labels, *rest = self._arrays(request)[self._first :]
        weights = dict(zip(self._names, rest, strict=False))
        try:
            for name, weight in weights.items():
                check_weight_values(name, weight)
        except ValueError as error:
            return error
        return self._plan.label_out_of_range(labels, weights.get("sample_weight"))

    def _arrays(self, request: int) -> list[Array]:
        return [_array(_word(request, ADDRESSES + 8 * i), *each) for i, each in enumerate(self._given)]


_plans: dict[tuple[bytes, bytes], OpPlan] = {}  # that are kept
_by_address: dict[int, OpPlan] = {}


def make_plan(request: int) -> int:
    """Return the address of the plan for a request."""
    text = ctypes.string_at(_word(request, STATE) + TEXT)
    key = ctypes.string_at(request + KEY, 8 * _word(request, KEY_WORDS))
    plan = _plans.get((text, key))
    if plan is None:
        outputs, *words = np.frombuffer(key, np.int64).tolist()
        plan = OpPlan(text.decode(), outputs, tuple(_read(iter(words))))
        if len(_plans) < MOST_KEPT:
            plan.keep(key)
            _plans[text, key] = plan
        _by_address[plan.at] = plan
    return plan.at


def of_request(request: int) -> OpPlan:
    return _by_address[_word(request, PLAN)]


def forget(request: int) -> None:
    """Drop a plan that is not kept."""
    _by_address.pop(_word(request, PLAN), None)


def _read(words: Any) -> Any:
    """The dtype and shape of each input."""
    for number in words:
        rank = next(words)
        yield DTYPES[number], tuple(itertools.islice(words, rank))


def _word(at: int, offset: int) -> int:
    found: int = ctypes.c_int64.from_address(at + offset).value
    return found


def _layout(dtype: np.dtype[Any], shape: errors.Shape) -> Layout:
    return Layout(shape, dense_strides(shape, dtype.itemsize), dtype.name)


def _array(at: int, dtype: np.dtype[Any], shape: errors.Shape) -> Array:
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * size).from_address(at)
    return np.ndarray(shape, dtype, memory)
