"""What one program works on, and how many threads it has: decided by C, the size of a logit and the layout alone.

The number of rows does not enter, so that a row's sum is added up in the same order in every batch. Nothing is tuned by
timing calls: that would stop the GPU to look at a clock, and let two runs differ. The figures follow from the machine:
16 bytes are the longest load of a thread; 16 logits a thread keep their state in its registers and some loads under
way; 4 to 8 warps a program leave room for several programs on each multiprocessor, of which one computes while
another waits for memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

EACH = 16  # logits a thread
WARP = 32
SHORT = 32  # classes up to which a thread takes a row
LENGTHS = (4096, 2048, 1024)  # of tiles of one row


class Tile(NamedTuple):
    """ROWS × (LANES × VECTOR) logits; each thread's VECTOR is one load."""

    rows: int
    lanes: int
    vector: int
    warps: int

    @property
    def classes(self) -> int:
        return self.lanes * self.vector


def power_of_two(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << (n - 1).bit_length()


def softmax_tile(classes: int, vector: int, along: bool, forward: bool) -> Tile:
    """`vector` logits can be loaded at once; `along`: classes are nearer to each other in memory than rows are."""
    if not along:
        return Tile(64, min(16, power_of_two(classes)), 1, 4)
    if forward and classes <= SHORT:
        # Rows lie so close that what one class of 32 rows brings along is in the cache for the next class. Nothing has
        # to be passed between threads.
        return Tile(128, 1, 1, 4)
    if classes <= LENGTHS[-1]:
        length = power_of_two(classes)
        rows = LENGTHS[1] // length
    else:
        # The longest tile of which the last one's unused part is at most an eighth of the row.
        length = next((n for n in LENGTHS if -classes % n * 8 <= classes), LENGTHS[-1])
        rows = 1
    return Tile(rows, length // vector, vector, max(4, rows * length // (EACH * WARP)))


class Layout(NamedTuple):
    """Arrays of one shape, on four axes."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]  # of each array
    rows: int
    columns: int
    programs: int


def elementwise_layout(shape: Any, strides: list[Any]) -> Layout:
    """The axes as few as they can be, for all arrays alike: four of them, those in front of size 1."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = [array[axis] for array in strides]
        if sizes and all(step[-1] == size * new for step, new in zip(steps, here, strict=True)):
            sizes[-1] *= size
            for step, new in zip(steps, here, strict=True):
                step[-1] = new
        else:
            sizes.append(size)
            for step, new in zip(steps, here, strict=True):
                step.append(new)
    front = 4 - len(sizes)
    sizes = [1] * front + sizes
    steps = [[0] * front + step for step in steps]
    # A tile that is as high as wide serves an array whose columns are neighbours as well as one whose rows are.
    turned = any(step[2] == 1 != step[3] for step in steps)
    length = 4 * WARP * EACH
    columns = min(power_of_two(sizes[3]), 64 if turned else 1024)
    rows = min(power_of_two(sizes[2]), length // columns)
    programs = sizes[0] * sizes[1] * -(-sizes[2] // rows) * -(-sizes[3] // columns)
    return Layout(tuple(sizes), tuple(tuple(step) for step in steps), rows, columns, programs)
