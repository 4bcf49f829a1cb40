"""The sum of float64 numbers that lie side by side: of the losses of rows, and of what a mean divides by.

Blocks of BLOCK numbers are added up in LANES chains, and their sums in pairs, pairs of pairs, …: the error grows with
the logarithm of how many there are. What is left of a block is added up in order. The order depends on the number of
terms alone, and infinities and NaN add up as in IEEE arithmetic.
"""

from __future__ import annotations

from . import simd
from .control import Kernel, Variable, loop, repeat
from .job import LANES, TotalSpec
from .simd import F64, Value
from .target import Target

BLOCK = 128
CHAINS = 4  # vectors that are added to in turns, so that no addition waits for the one before
LEVELS = 64  # of pairs, more than there are numbers


def build(spec: TotalSpec, target: Target) -> Kernel:
    """Return the kernel that puts the sum of the numbers at an address in the place of the first."""

    def kernel(at: Value, _start: Value, count: Value) -> Value:
        simd.store(summed(at, count), at)
        return simd.integer(0)

    return kernel


def summed(at: Value, count: Value) -> Value:
    """Return the sum of so many numbers."""
    waiting, height = simd.scratch(8 * LEVELS), Variable(simd.integer(0))  # sums of blocks that have no pair yet
    vector = simd.vector(F64, LANES)
    blocks = count / BLOCK

    def pop(last: Value) -> Value:
        height.value = height.value - 1
        return simd.load(waiting + height.value * 8, F64) + last

    with loop(0, blocks) as i:
        parts = [simd.load(at + i * (8 * BLOCK) + 8 * first, vector) for first in range(0, BLOCK, LANES)]
        chains = parts[:CHAINS]
        for j, part in enumerate(parts[CHAINS:]):
            chains[j % CHAINS] = chains[j % CHAINS] + part
        while len(chains) > 1:
            chains = [a + b for a, b in zip(chains[::2], chains[1::2], strict=True)]
        total, earlier = Variable(simd.across(chains[0], lambda a, b: a + b)), Variable(i)
        with repeat(lambda: (earlier.value & 1) != 0):
            total.value = pop(total.value)
            earlier.value = earlier.value >> 1
        simd.store(total.value, waiting + height.value * 8)
        height.value = height.value + 1
    total = Variable(simd.constant(0.0, F64))
    with loop(blocks * BLOCK, count) as i:
        total.value = total.value + simd.load(at + i * 8, F64)
    with repeat(lambda: height.value != 0):
        total.value = pop(total.value)
    return total.value
