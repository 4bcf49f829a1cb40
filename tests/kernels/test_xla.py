"""The custom call of XLA without XLA: a frame as XLA makes it, and what the handler does with it."""

from __future__ import annotations

import ctypes
import json
import struct
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits.options import SoftmaxOptions, field_values

pytest.importorskip("llvmlite")
from withlogits.kernels.cpu import xla_plan
from withlogits.kernels.cpu.xla_plan import Recipe

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 300).astype(np.int32)
LOGITS = RNG.normal(0.0, 3.0, (300, 7)).astype(np.float32)


class Frame:
    """A call frame of version 0.1: its structures, kept alive, and the errors that the handler makes."""

    def __init__(self, arguments: list[Any], results: list[Any], key: int, recipe: str) -> None:
        self._kept: list[Any] = []
        self.errors: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
        create, refuse = kind(self._create), kind(lambda _: 1)
        forget = kind(lambda _: 0)
        self._kept += [create, refuse, forget]
        at = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (create, refuse, forget)]
        api = self.words([0] * 6 + [at[0], 0, at[2]] + [0] * 8 + [at[1], at[1]])  # no threads to be had
        text = recipe.encode()
        span = self.words([self.bytes(text), len(text)])
        scalar = self.words([5, self.words([key])])
        attributes = self.words([scalar, span])
        every = [self.words([self.words([self.buffer(array) for array in group])]) for group in (arguments, results)]
        lists = [ctypes.c_int64.from_address(each).value for each in every]
        frame = [
            168,
            0,
            api,
            0,
            0,
            40,
            0,
            len(arguments),
            0,
            lists[0],
            40,
            0,
            len(results),
            0,
            lists[1],
            48,
            0,
            2,
            0,
            0,
        ]
        self.address = self.words([*frame, attributes])

    def words(self, numbers: list[int]) -> int:
        return self.bytes(struct.pack(f"={len(numbers)}q", *numbers))

    def bytes(self, content: bytes) -> int:
        self._kept.append(ctypes.create_string_buffer(content, len(content)))
        return ctypes.addressof(self._kept[-1])

    def buffer(self, array: Any) -> int:
        return self.words([48, 0, 0, array.ctypes.data, array.ndim, 0])

    def _create(self, arguments: int) -> int:
        text = ctypes.c_int64.from_address(arguments + 16).value
        self.errors.append(ctypes.string_at(text))
        return 77

    def run(self) -> int:
        handle = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(xla_plan.handler())
        return int(handle(self.address))


def recipe(reduction: str, temperature: float, weights: tuple[tuple[str, str], ...]) -> Recipe:
    options = field_values(SoftmaxOptions(-1, True, temperature=temperature, reduction=reduction))
    return Recipe("softmax", options, LOGITS.shape, 0, "float32", "int32", True, None, weights)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("made", [True, False], ids=["here", "elsewhere"])
def test_a_call_fills_the_buffers(made: bool, reduction: str) -> None:
    """With float32 weights, which are copied as float64; a recipe that nobody prepared here is made when it is met."""
    weights = {"class_weight": RNG.random(7).astype(np.float32), "sample_weight": RNG.random(300).astype(np.float32)}
    temperature = 1.0 if made else 1.5
    given = recipe(reduction, temperature, tuple((name, "float32") for name in weights))
    if not made and reduction == "mean":
        given = given._replace(divisor=7.0)
    loss, gradient = np.zeros(300 if reduction == "none" else (), np.float32), np.zeros_like(LOGITS)
    text = json.dumps(given)
    key = xla_plan.prepare(given)[0] if made else xla_plan.key_of(text)
    frame = Frame([LOGITS, LABELS, *weights.values()], [loss, gradient], key, text)
    assert frame.run() == 0
    both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    if given.divisor is None:
        expected, slope = both(labels=LABELS, logits=LOGITS, reduction=reduction, temperature=temperature, **weights)
        np.testing.assert_array_equal(loss, expected)
        np.testing.assert_array_equal(gradient, slope)
    else:  # a part of the rows
        expected, slope = both(labels=LABELS, logits=LOGITS, reduction="sum", temperature=temperature, **weights)
        np.testing.assert_allclose(loss, expected / given.divisor, rtol=2.0**-22)
        np.testing.assert_allclose(gradient, slope / given.divisor, rtol=2.0**-22)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("names", [(), ("class_weight",), ("sample_weight",), ("class_weight", "sample_weight")])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_groups_of_rows_are_reduced_by_themselves(reduction: str, names: tuple[str, ...], kind: str) -> None:
    """To the bit as each of three groups alone, with one divisor for all or one of each."""
    given = {"class_weight": RNG.random(7).astype(kind), "sample_weight": RNG.random(300).astype(kind)}
    weights = {name: given[name] for name in names}
    groups = recipe(reduction, 1.0, tuple((name, kind) for name in names))._replace(shape=(3, 100, 7), batch=1)
    losses, gradient = np.zeros(3, np.float32), np.zeros_like(LOGITS)
    frame = Frame([LOGITS, LABELS, *weights.values()], [losses, gradient], *xla_plan.prepare(groups))
    assert frame.run() == 0
    both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    for loss, rows in zip(losses, np.split(np.arange(300), 3), strict=True):
        own = {name: w[rows] if name == "sample_weight" else w for name, w in weights.items()}
        expected, slope = both(labels=LABELS[rows], logits=LOGITS[rows], reduction=reduction, **own)
        assert loss == expected
        np.testing.assert_array_equal(gradient[rows], slope)


def test_no_memory_is_an_error_of_xla() -> None:
    """For the losses of 2^58 rows, which no address space holds."""
    given = recipe("mean", 1.0, ())._replace(shape=(1 << 58, 7))
    frame = Frame([LOGITS, LABELS], [np.zeros((), np.float32), np.zeros_like(LOGITS)], *xla_plan.prepare(given))
    assert frame.run() == 77
    assert frame.errors == [b"withlogits has no memory for the losses of this call"]


def test_a_recipe_that_cannot_be_read_is_an_error_of_xla() -> None:
    frame = Frame([LOGITS, LABELS], [np.zeros(300, np.float32)], 12345, "something else")
    assert frame.run() == 77
    assert frame.errors == [
        b"withlogits cannot make the kernel of this program: import withlogits and call a loss of JAX arrays first"
    ]


def test_the_version_of_the_interface_is_told() -> None:
    frame = Frame([], [], 1, "")
    metadata = frame.words([40, 0, 0, -1, -1])
    extension = frame.words([32, 1, 0, metadata])
    ctypes.c_int64.from_address(frame.address + 8).value = extension
    assert frame.run() == 0
    assert struct.unpack("=2i", ctypes.string_at(metadata + 24, 8)) == (0, 1)
    assert ctypes.c_int32.from_address(metadata + 32).value == 0
