"""The compiled kernels as operations of JAX: one custom call of XLA, on the CPU; the formulas wherever that is not."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from withlogits import engine, formulas, shapes
from withlogits.formulas import SigmoidArrays, SoftmaxArrays
from withlogits.frameworks.jax import checks, namespace
from withlogits.options import Options, SoftmaxOptions, field_values

Array = Any
TARGET = "withlogits"
# From so many bytes on the gradient takes the memory of the logits: then a new array costs more than the copy that XLA
# makes of logits that are kept.
IN_PLACE = 1 << 22
Formula = Callable[..., tuple[Array, ...]]


@cache
def register() -> None:
    """Make the kernels known to XLA, which programs that were compiled elsewhere need too."""
    from withlogits.kernels.cpu import xla_plan

    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    jax.ffi.register_ffi_target(TARGET, new(xla_plan.handler(), None, None), platform="cpu")


def serves(options: Options, logits: Array, weights: tuple[Array | None, ...]) -> bool:
    """Whether there is a kernel, if the call is for a CPU."""
    if engine.select().NAME != "compiled" or not logits.size or not all(isinstance(n, int) for n in logits.shape):
        return False
    return isinstance(options, SoftmaxOptions) or all(weight is None for weight in weights)


class Call(NamedTuple):
    """What a kernel computes: a loss, with its gradient by the logits or without."""

    options: Options  # an axis is counted from the end
    gradient: bool
    names: tuple[str, ...]  # of the weights that are given
    formula: Formula  # the same by JAX's own operations, without a batch
    ndim: int  # of the logits
    batch: int = 0  # so many first axes of all arrays but those of classes are of losses that are reduced by themselves

    @property
    def axis(self) -> int | None:
        """The axis of the classes, if there is one."""
        return self.ndim + self.options.axis if isinstance(self.options, SoftmaxOptions) else None

    def batched_formula(self) -> Formula:
        axes = (0, 0, *[None if name in SoftmaxOptions.PER_CLASS else 0 for name in self.names])
        formula = self.formula
        for _ in range(self.batch):
            formula = jax.vmap(formula, axes)
        return formula

    def placed(self, axes: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return what stands for the axes of each argument and of each result, from what stands for the logits'."""
        of_rows, of_classes = axes, ()
        if self.axis is not None:
            of_rows, of_classes = axes[: self.axis] + axes[self.axis + 1 :], axes[self.axis : self.axis + 1]
        labels = of_rows if isinstance(self.options, SoftmaxOptions) and self.options.sparse else axes
        weights = [of_classes if name in SoftmaxOptions.PER_CLASS else of_rows for name in self.names]
        value = of_rows if self.options.reduction == "none" else axes[: self.batch]
        return [axes, labels, *weights], [value, axes] if self.gradient else [value]


@lru_cache(maxsize=1024)
def fused(call: Call) -> Any:
    """The function of logits, labels and weights that gives the loss, reduced, and the gradient of that."""
    parted = _parted(call)

    @custom_vmap
    def batched(*arrays: Array) -> tuple[Array, ...]:
        found: tuple[Array, ...] = jax.lax.platform_dependent(*arrays, cpu=parted, default=call.batched_formula())
        return found

    @batched.def_vmap
    def _(size: int, is_batched: Any, *arrays: Array) -> Any:
        of_classes = [name in SoftmaxOptions.PER_CLASS for name in ("", "", *call.names)]
        own_weights = any(b and per_class for b, per_class in zip(is_batched, of_classes, strict=True))
        if own_weights or size == 0:
            axes = tuple([0 if b else None for b in is_batched])
            found = jax.vmap(call.batched_formula(), in_axes=axes)(*arrays)
        else:
            every = [
                array if b or per_class else jnp.broadcast_to(array, (size, *array.shape))
                for array, b, per_class in zip(arrays, is_batched, of_classes, strict=True)
            ]
            found = fused(call._replace(ndim=call.ndim + 1, batch=call.batch + 1))(*every)
        return found, tuple([True] * len(found))

    return jax.jit(batched)


def _parted(call: Call) -> Any:
    """The call of the kernel, on each device that rows lie on."""

    @custom_partitioning
    def parted(*arrays: Array) -> tuple[Array, ...]:
        return _called(call, *arrays)

    def shardings(mesh: Any, args: Any) -> tuple[tuple[Any, ...], Any, Any]:
        """Return what the axes of the logits are split by, and the shardings of arguments and results."""
        spec = (*args[0].sharding.spec, *(None,) * call.ndim)[: call.ndim]
        spec = tuple([None if i == call.axis else part for i, part in enumerate(spec)])
        arguments, results = (
            tuple([NamedSharding(mesh, PartitionSpec(*parts)) for parts in each])  # type: ignore[no-untyped-call]
            for each in call.placed(spec)
        )
        return spec, arguments, results

    def inferred(mesh: Any, args: Any, _: Any) -> Any:
        return shardings(mesh, args)[2]

    def split(mesh: Any, args: Any, _: Any) -> Any:
        spec, arguments, results = shardings(mesh, args)
        parts = [part for part in spec[call.batch :] if part is not None]
        over = tuple([name for part in parts for name in (part if isinstance(part, tuple) else (part,))])
        local = partial(_called, call)
        if over and call.options.reduction != "none":
            count = math.prod([n for i, n in enumerate(args[0].shape) if i >= call.batch and i != call.axis])
            local = partial(_of_some_rows, call, over, count)
        return mesh, local, results, arguments

    names = tuple([f"a{i}" for i in range(call.ndim)])
    rule = " -> ".join([", ".join([" ".join(axes) for axes in each]) for each in call.placed(names)])
    keywords: dict[str, Any] = {"sharding_rule": rule}
    if call.axis is not None and "need_replication_factors" in signature(parted.def_partition).parameters:  # later JAX
        keywords["need_replication_factors"] = (names[call.axis],)
    parted.def_partition(split, infer_sharding_from_operands=inferred, **keywords)  # type: ignore[no-untyped-call]
    return parted


def _called(
    call: Call, x: Array, z: Array, *weights: Array, divisor: float | None = None, like: Any = None
) -> tuple[Array, ...]:
    """The results of the kernel; `divisor` is that of a mean, if these are some of its rows."""
    from withlogits.kernels.cpu.xla_plan import Recipe, prepare

    kinds = tuple([(name, w.dtype.name) for name, w in zip(call.names, weights, strict=True)])
    arrays = (x.shape, call.batch, x.dtype.name, z.dtype.name)
    family = "sigmoid" if call.axis is None else "softmax"
    key, recipe = prepare(Recipe(family, field_values(call.options), *arrays, call.gradient, divisor, kinds))
    if like is None:
        like = jax.eval_shape(call.batched_formula(), x, z, *weights)  # with the sharding and manual axes of this JAX
    in_place = call.gradient and x.size * x.dtype.itemsize >= IN_PLACE
    target: Any = jax.ffi.ffi_call(TARGET, like, input_output_aliases={0: 1} if in_place else None)
    return tuple(target(x, z, *weights, key=np.int64(key), recipe=recipe))


def _of_some_rows(
    call: Call, over: tuple[str, ...], count: int, x: Array, z: Array, *weights: Array
) -> tuple[Array, ...]:
    """A sum or mean of `count` rows, of which some lie here and some elsewhere along axes of the mesh."""
    from withlogits.kernels.cpu.plan import by_weights

    options, given = call.options, dict(zip(call.names, weights, strict=True))
    divisor = float(count) if options.reduction == "mean" else None
    if by_weights(options, "class_weight" in given, "sample_weight" in given):
        parts = row_weights(options, x, z, given)
        found = jax.lax.psum(total(parts, call.batch), over)  # type: ignore[no-untyped-call]
        share = jnp.expand_dims(1.0 / jnp.where(found == 0.0, 1.0, found), tuple(range(call.batch, parts.ndim)))
        given["sample_weight"] = jnp.broadcast_to(share, parts.shape) * given.get("sample_weight", 1.0)
        options, divisor = replace(options, reduction="sum"), None
    names = tuple([name for name in options.WEIGHTS if name in given])
    like = jax.eval_shape(call.batched_formula(), x, z, *weights)
    here = call._replace(options=options, names=names)
    value, *gradients = _called(here, x, z, *[given[name] for name in names], divisor=divisor, like=like)
    return jax.lax.psum(value, over), *gradients  # type: ignore[no-untyped-call]


def row_weights(options: Options, logits: Array, labels: Array, weights: dict[str, Array]) -> Array:
    """What each loss adds to the divisor of a mean, by the formulas."""
    arrays: SoftmaxArrays | SigmoidArrays
    if isinstance(options, SoftmaxOptions):
        options, labels = checks.indexed(options, labels, logits.shape[options.axis])
        shape = shapes.rows(logits.shape, options.axis % logits.ndim)
        arrays = SoftmaxArrays(logits, labels, **weights)
    else:
        shape, arrays = logits.shape, SigmoidArrays(logits, labels, **weights)
    found: Array = formulas.row_weights(namespace, arrays, options, jnp.zeros(shape, namespace.wide_dtype()))
    return found


def total(x: Array, batch: int = 0) -> Array:
    """The sum over all axes but the first ones, each by itself: some may be split over devices, and some not."""
    for _ in range(batch, x.ndim):
        x = formulas.total(namespace, x)[0][..., 0]
    return x
