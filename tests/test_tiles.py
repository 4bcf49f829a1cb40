"""Blocks cover an array once, keep the classes together, stay within the budget, and follow its memory if they can."""

import itertools
import math

import numpy as np
import pytest

from withlogits.tiles import cut, size

SHAPES = [(), (1,), (7,), (5, 3), (1, 9), (4, 3, 5), (2, 1, 3, 4), (0, 3), (3, 0, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("budget", [1, 4, 12, 10**6])
@pytest.mark.parametrize("fortran", [False, True])
def test_every_element_is_in_one_block(shape, budget, fortran):
    for axis in (None, *range(len(shape))):
        seen = np.zeros(shape, int)
        tiling = cut(shape, axis, budget, fortran)
        for tile in tiling:
            seen[tile] += 1
            assert seen[(*tile, ...)].shape == size(shape, tile)
            row = shape[axis] if axis is not None else 1
            assert math.prod(size(shape, tile)) <= max(budget, row)
            assert axis is None or size(shape, tile)[axis] == shape[axis]
        assert (seen == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("budget", [1, 4, 12, 10**6])
@pytest.mark.parametrize("fortran", list(itertools.product([False, True], repeat=2)))
def test_sequential_blocks_are_those_that_follow_each_other_in_the_file(shape, budget, fortran):
    by_blocks, in_file = fortran
    positions = np.arange(math.prod(shape)).reshape(shape, order="F" if in_file else "C")
    for axis in (None, *range(len(shape))):
        tiling = cut(shape, axis, budget, by_blocks)
        read = [positions[(*tile, ...)].ravel("F" if in_file else "C") for tile in tiling]
        follows = bool(np.array_equal(np.concatenate(read), np.arange(positions.size))) if read else True
        if tiling.is_sequential(in_file):
            assert follows
        elif by_blocks == in_file and positions.size:
            assert not follows


def test_the_blocks_of_the_loss_are_sequential_whatever_the_axis():
    for axis, budget, fortran in itertools.product(range(3), (1, 6, 20, 1000), (False, True)):
        assert cut((4, 5, 6), axis, budget, fortran).without(axis).is_sequential(fortran)


def test_a_single_row_may_be_longer_than_the_budget():
    assert len(list(cut((3, 1000), 1, 10))) == 3
