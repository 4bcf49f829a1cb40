"""Launch the kernels: from options and arrays to tiles, strides and what is known at compile time.

Weights reach a kernel under their names in `options.WEIGHTS`; a new per-class array changes the kernels alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from withlogits.options import SigmoidOptions, SoftmaxOptions

from . import sigmoid, softmax
from .arithmetic import to_float32, transform_of
from .tiles import Tile, elementwise_layout, softmax_tile

Array = Any  # anything that Triton takes, with shape, stride() and element_size()
LOAD = 16  # bytes


class Inputs(NamedTuple):
    """The arrays of a loss; in the sigmoid family all have one shape of at most four axes."""

    logits: Array  # (outer, C, inner)
    labels: Array  # (outer, inner) if sparse, else (outer, C, inner)
    weights: tuple[Array | None, ...]  # as options.WEIGHTS: (C,) if in options.PER_CLASS, else (outer, inner)


def softmax_forward(
    options: SoftmaxOptions,
    inputs: Inputs,
    loss: Array,  # (outer, inner)
    stats: Array,  # (2, outer, inner)
) -> None:
    """Write s times the loss of each row, and to `stats` what `softmax_backward` needs to know of the row.

    That is the largest logit before any transformation (which is repeated exactly), or its class where there are class
    offsets, and 2^64·S with S = exp(r) − 1: r itself, rounded to float32, would cost p = exp(x − m − r) up to 8 ulp.
    """
    x, z, _ = inputs
    unit = _unit(x, None if options.sparse else z)
    config = _config(options, x, unit)
    # A lane of several logits needs more registers, and saves time where arithmetic takes longer than loads.
    simple = not (config.fast or config.dense or config.transforms)
    tile = softmax_tile(x.shape[1], 1 if simple else unit, _class_contiguous(x), forward=True)
    config = config._replace(one_tile=tile.classes >= x.shape[1])
    kernel = softmax.forward_transposed if _transposed(x) else softmax.softmax_forward
    _launch_softmax(kernel, options, inputs, config, tile, 1, {"loss": loss, "stats": stats})


def softmax_backward(
    options: SoftmaxOptions,
    inputs: Inputs,
    upstream: Array,  # (outer, inner)
    stats: Array,  # (2, outer, inner), as softmax_forward wrote it
    dx: Array | None,  # (outer, C, inner)
    dz: Array | None,  # (outer, C, inner)
) -> None:
    """Write u s dL/dx and u s dL/dz, each unless its array is None.

    With class offsets `dx` must not share memory with the logits: `stats` names the largest one by its class.
    """
    x, z, weights = inputs
    if dx is None and dz is None:
        return
    unit = _unit(x, None if options.sparse else z, dx, dz)
    config = _config(options, x, unit)
    tile = softmax_tile(x.shape[1], unit, _class_contiguous(x), forward=False)
    if softmax.sums_targets(config, **dict(zip(options.WEIGHTS, weights, strict=True))):
        config, chunks = config._replace(sums_targets=True), 1  # one program has the whole row
    else:
        chunks = -(-x.shape[1] // tile.classes)
    results = {"u": upstream, "stats": stats, "dx": dx, "dz": dz, "u_strides": _strides(upstream)}
    for name, array in (("dx", dx), ("dz", dz)):
        results |= {f"{name}_strides": _strides(array, unit), f"{name}_class": _class_stride(array)}
    kernel = softmax.backward_transposed if _transposed(x) else softmax.softmax_backward
    _launch_softmax(kernel, options, inputs, config, tile, chunks, results)


def sigmoid_forward(options: SigmoidOptions, inputs: Inputs, loss: Array) -> None:
    """Write s times the loss of each element."""
    _launch_sigmoid(sigmoid.sigmoid_forward, options, inputs, {"loss": loss})


def sigmoid_backward(
    options: SigmoidOptions, inputs: Inputs, upstream: Array, dx: Array | None, dz: Array | None
) -> None:
    """Write u s dL/dx and u s dL/dz, each unless its array is None."""
    if not (dx is None and dz is None):
        _launch_sigmoid(sigmoid.sigmoid_backward, options, inputs, {"u": upstream, "dx": dx, "dz": dz})


def _launch_softmax(
    kernel: Any,
    options: SoftmaxOptions,
    inputs: Inputs,
    config: softmax.Config,
    tile: Tile,
    chunks: int,
    others: dict[str, Any],
) -> None:
    x, z, weights = inputs
    named = dict(zip(options.WEIGHTS, weights, strict=True))
    outer, rows, classes = _shape(x)
    tiles = -(-rows // tile.rows)
    if not outer * tiles:
        return
    ignore = options.ignore_index or 0
    numbers = softmax.Numbers(
        ignore=ignore - (1 << 64) if ignore >= 1 << 63 else ignore,  # labels are compared by their 64 bits
        keep=to_float32(1.0 - options.label_smoothing),
        share=to_float32(options.label_smoothing / classes),
        z_loss=to_float32(options.z_loss),
    )
    kernel[(outer * tiles, chunks)](
        x=x, z=z, **named, **others,
        x_strides=_strides(x, config.unit), z_strides=_strides(z, 1 if options.sparse else config.unit),
        s_strides=_strides(named["sample_weight"]), x_class=_class_stride(x), z_class=_class_stride(z),
        groups=classes // config.unit, rows=rows, tiles=tiles, count=outer * rows,
        numbers=numbers, transform=transform_of(options.softcap, options.temperature),
        CONFIG=config._replace(rows=tile.rows, lanes=tile.lanes, vector=tile.vector), num_warps=tile.warps,
    )  # fmt: skip


def _launch_sigmoid(kernel: Any, options: SigmoidOptions, inputs: Inputs, others: dict[str, Array | None]) -> None:
    x, z, weights = inputs
    arrays = (x, z, *weights, *others.values())
    layout = elementwise_layout(x.shape, [(0,) * len(x.shape) if a is None else tuple(a.stride()) for a in arrays])
    if not layout.programs:
        return
    named = dict(zip(options.WEIGHTS, weights, strict=True))
    smoothing = (to_float32(1.0 - options.label_smoothing), to_float32(options.label_smoothing / 2.0))
    ignore = None if options.ignore_index is None else float(options.ignore_index)
    kernel[(layout.programs,)](
        x=x, z=z, **named, **others, sizes=layout.sizes, strides=layout.strides, smoothing=smoothing, ignore=ignore,
        ROWS=layout.rows, COLUMNS=layout.columns, num_warps=4,
    )  # fmt: skip


def _config(options: SoftmaxOptions, x: Array, unit: int) -> softmax.Config:
    return softmax.Config(
        sparse=options.sparse, smooth=options.label_smoothing != 0.0, ignoring=options.ignore_index is not None,
        capped=options.softcap is not None, tempered=options.temperature != 1.0, z_loss=options.z_loss != 0.0,
        fast=x.element_size() == 2, unit=unit,
    )  # fmt: skip


def _shape(x: Array) -> tuple[int, int, int]:
    """Return (outer, rows, C). The rows of a tile are along `inner`, or along `outer` where `inner` is 1."""
    outer, classes, inner = x.shape
    return (1, outer, classes) if inner == 1 else (outer, inner, classes)


def _strides(array: Array | None, unit: int = 1) -> tuple[int, int]:
    """Return the strides of the outer axis and of the rows of `_shape`, in units of so many elements."""
    if array is None:
        return (0, 0)
    outer, *_, inner = array.stride()
    return (0, outer // unit) if array.shape[-1] == 1 else (outer // unit, inner // unit)


def _class_stride(array: Array | None) -> int:
    """Return the stride of the class axis in elements, or 0 for an array without one."""
    return 0 if array is None or len(array.shape) == 2 else array.stride()[1]


def _class_contiguous(x: Array) -> bool:
    """Whether classes are closer to each other in memory than rows are."""
    return _strides(x)[1] == 0 or _class_stride(x) <= max(1, _strides(x)[1])


def _transposed(x: Array) -> bool:
    return bool(x.shape[-1] == 1 and not _class_contiguous(x))


def _unit(x: Array, *others: Array | None) -> int:
    """Return how many logits one load takes: 16 bytes of them if every row of every array is aligned, else 1."""
    unit = LOAD // int(x.element_size())
    for array in (x, *others):
        if array is not None:
            outer, rows = _strides(array)
            if _class_stride(array) != 1 or (outer | rows | array.shape[1]) % unit or array.data_ptr() % LOAD:
                return 1
    return unit
