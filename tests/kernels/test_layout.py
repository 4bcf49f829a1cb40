"""Arrays as rows that two strides address: every element once, in C order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withlogits.kernels.cpu.layout import address, merged, two_levels, without


def visited(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> list[list[int]]:
    """The byte offset of each element of each array, as a kernel would walk them."""
    outer, inner, steps, offsets = two_levels(shape, strides)
    found: list[list[int]] = [[] for _ in strides]
    for block in offsets:
        for i in range(outer):
            for j in range(inner):
                for places, start, (outer_step, inner_step) in zip(found, block, steps, strict=True):
                    places.append(start + i * outer_step + j * inner_step)
    return found


def expected(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    return [sum(i * s for i, s in zip(index, strides, strict=True)) for index in np.ndindex(*shape)]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_every_element_is_met_once_in_order(data: Any) -> None:
    """For several arrays of one shape, with any strides: contiguous, transposed, stepped, negative, broadcast."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=5)))
    arrays = []
    for _ in range(data.draw(st.integers(1, 3))):
        array = np.zeros([n * 2 for n in shape], data.draw(st.sampled_from(["int8", "float32", "float64"])))
        array = array[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -2]))) for _ in shape)]
        array = array[tuple(slice(0, n) for n in shape)]
        order = data.draw(st.permutations(range(len(shape))))
        back = np.argsort(order)
        array = np.zeros([shape[i] for i in order], array.dtype).transpose(back) if data.draw(st.booleans()) else array
        if shape and data.draw(st.booleans()):
            array = np.broadcast_to(array[:1], shape)
        arrays.append(array)
    strides = [array.strides for array in arrays]
    for places, own in zip(visited(shape, strides), strides, strict=True):
        assert places == expected(shape, own)


@pytest.mark.parametrize(
    ("shape", "strides", "blocks"),
    [
        ((2, 3, 4), [(48, 16, 4)], 1),  # contiguous: one axis
        ((2, 3, 4), [(96, 16, 4)], 1),  # a slice along the first axis: two
        ((2, 3, 4), [(4, 8, 24)], 2),  # Fortran order: nothing can be merged, and the first axis is walked
        ((2, 3, 4), [(48, 16, 4), (0, 0, 0)], 1),
        ((2, 3, 4), [(480, 80, 8)], 2),
        ((5, 2, 3, 4), [(4800, 480, 80, 8)], 10),
    ],
)
def test_blocks_are_few(shape: Any, strides: Any, blocks: int) -> None:
    assert len(two_levels(shape, strides)[3]) == blocks


def test_axes_of_one_element_do_not_matter() -> None:
    assert merged((1, 6, 1), [(999, 4, -7)]) == ([6], [[4]])
    assert merged((), [()]) == ([], [[]])


def test_addresses_are_those_of_numpy() -> None:
    whole = np.zeros((4, 5), np.float32)
    for array in (whole, whole[1:], whole[::-1, ::2], whole.T, np.broadcast_to(whole[0], (3, 5)), np.zeros(())):
        assert address(array) == array.ctypes.data


def test_without() -> None:
    assert without((1, 2, 3), 1) == (1, 3)
