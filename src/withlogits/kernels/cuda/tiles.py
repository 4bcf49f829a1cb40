"""The tile and the number of threads of a program, which follow from C, the size of a logit and the layout alone.

The number of rows does not enter, so a row is summed in the same order in every batch. Nothing is tuned by timing:
that would wait for the GPU, and two runs could differ. The figures follow from the machine: 16 bytes are the longest
load of a thread; the state of 16 logits fits a thread's registers, with some loads in flight; with 4 to 8 warps a
program, several programs share a multiprocessor, and one computes while another waits for memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LOGITS_PER_THREAD = 16
WARP = 32
SHORT = 32  # up to so many classes, one thread computes a row
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
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def softmax_tile(classes: int, vector: int, class_contiguous: bool, forward: bool) -> Tile:
    """Return the tile for rows of which `vector` logits can be loaded at once.

    `class_contiguous`: classes are closer to each other in memory than rows are.
    """
    if not class_contiguous:
        return Tile(64, min(16, power_of_two(classes)), 1, 4)
    if forward and classes <= SHORT:
        # The cache lines that one class of 32 rows loads hold the next classes too; threads exchange nothing.
        return Tile(128, 1, 1, 4)
    if classes <= LENGTHS[-1]:
        length = power_of_two(classes)
        rows = LENGTHS[1] // length
    else:
        # The longest tile of which the last one's unused part is at most an eighth of the row.
        length = next((n for n in LENGTHS if -classes % n * 8 <= classes), LENGTHS[-1])
        rows = 1
    return Tile(rows, length // vector, vector, max(4, rows * length // (LOGITS_PER_THREAD * WARP)))


class Layout(NamedTuple):
    """Arrays of one shape on four axes, and the tiles of a launch."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]  # of each array
    rows: int
    columns: int
    programs: int


def elementwise_layout(shape: Any, strides: list[Any]) -> Layout:
    """Return the layout with axes merged where all arrays allow it; it has four axes, the first ones of size 1."""
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
    # A square tile suits both arrays with contiguous columns and those with contiguous rows.
    transposed = any(step[2] == 1 != step[3] for step in steps)
    length = 4 * WARP * LOGITS_PER_THREAD
    columns = min(power_of_two(sizes[3]), 64 if transposed else 1024)
    rows = min(power_of_two(sizes[2]), length // columns)
    programs = sizes[0] * sizes[1] * -(-sizes[2] // rows) * -(-sizes[3] // columns)
    return Layout(tuple(sizes), tuple(tuple(step) for step in steps), rows, columns, programs)
