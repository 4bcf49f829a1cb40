"""The compiled kernels as operations of JAX: one custom call of XLA, on the CPU; the formulas wherever that is not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, lru_cache
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from withlogits import engine
from withlogits.options import Options, SoftmaxOptions, field_values

Array = Any
TARGET = "withlogits"
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


@lru_cache(maxsize=1024)
def rows(options: Options, gradient: bool, scale: float, names: tuple[str, ...], formula: Formula) -> Any:
    """The function of logits, labels and the weights of these names that gives the losses of rows, and the gradient.

    The class axis of `options` is counted from the end, so that axes may come before. `formula` is what it computes.
    """
    axis = options.axis if isinstance(options, SoftmaxOptions) else None

    def local(x: Array, z: Array, *weights: Array) -> tuple[Array, ...]:
        from withlogits.kernels.cpu.xla_plan import Recipe, prepare

        kinds = tuple([(name, w.dtype.name) for name, w in zip(names, weights, strict=True)])
        values = field_values(options, without="reduction")
        family = "sigmoid" if axis is None else "softmax"
        key, recipe = prepare(Recipe(family, values, x.shape, x.dtype.name, z.dtype.name, gradient, scale, kinds))
        out = jax.eval_shape(formula, x, z, *weights)  # with the sharding and manual axes of this JAX
        call: Any = jax.ffi.ffi_call(TARGET, out, input_output_aliases={0: 1} if gradient else None)
        found: tuple[Array, ...] = tuple(call(x, z, *weights, key=np.int64(key), recipe=recipe))
        return found

    @custom_partitioning
    def parted(x: Array, z: Array, *weights: Array) -> tuple[Array, ...]:
        return local(x, z, *weights)

    def shardings(mesh: Any, of_logits: Any, ndim: int) -> tuple[Any, Any, Any]:
        spec = list(tuple(of_logits.spec) + (None,) * ndim)[:ndim]
        if axis is not None:
            spec[axis] = None
        whole = tuple(spec)
        if axis is not None:
            del spec[axis]
        found = [NamedSharding(mesh, PartitionSpec(*parts)) for parts in (whole, spec, ())]  # type: ignore[no-untyped-call]
        return found[0], found[1], found[2]

    def inferred(mesh: Any, args: Any, results: Any) -> Any:
        whole, of_rows, _ = shardings(mesh, args[0].sharding, len(args[0].shape))
        return (of_rows, whole) if gradient else (of_rows,)

    def split(mesh: Any, args: Any, results: Any) -> Any:
        ndim = len(args[0].shape)
        whole, of_rows, everywhere = shardings(mesh, args[0].sharding, ndim)
        of_labels = whole if len(args[1].shape) == ndim else of_rows
        of_weights = [of_rows if name == "sample_weight" else everywhere for name in names]
        return mesh, local, ((of_rows, whole) if gradient else (of_rows,)), (whole, of_labels, *of_weights)

    rule = _sharding_rule(options, gradient, names)
    if axis is not None and "need_replication_factors" in signature(parted.def_partition).parameters:  # of later JAX
        rule["need_replication_factors"] = ("c",)
    parted.def_partition(split, infer_sharding_from_operands=inferred, **rule)  # type: ignore[no-untyped-call]

    def anywhere(x: Array, z: Array, *weights: Array) -> tuple[Array, ...]:
        found: tuple[Array, ...] = jax.lax.platform_dependent(x, z, *weights, cpu=parted, default=formula)
        return found

    @custom_vmap
    def batched(*arrays: Array) -> tuple[Array, ...]:
        return anywhere(*arrays)

    @batched.def_vmap
    def _(size: int, is_batched: Any, *arrays: Array) -> Any:
        per_class = [b for b, name in zip(is_batched[2:], names, strict=True) if name in SoftmaxOptions.PER_CLASS]
        if any(per_class):  # rows with weights of their own
            axes = tuple([0 if b else None for b in is_batched])
            found = jax.vmap(formula, in_axes=axes)(*arrays)
        else:
            whole = [
                array if b or name in SoftmaxOptions.PER_CLASS else jnp.broadcast_to(array, (size, *array.shape))
                for array, b, name in zip(arrays, is_batched, ("", "", *names), strict=True)
            ]
            found = batched(*whole)
        return found, tuple([True] * len(found))

    return jax.jit(batched)


def _sharding_rule(options: Options, gradient: bool, names: tuple[str, ...]) -> dict[str, Any]:
    """How the axes of arguments and results belong together: rows may be spread over devices, the classes may not."""
    whole = of_rows = labels = "..."
    if isinstance(options, SoftmaxOptions):
        after = [f"t{i}" for i in range(-options.axis - 1)]
        whole, of_rows = " ".join(["...", "c", *after]), " ".join(["...", *after])
        labels = of_rows if options.sparse else whole
    weights = [of_rows if name == "sample_weight" else "c" for name in names]
    rule = f"{', '.join([whole, labels, *weights])} -> {', '.join([of_rows, whole] if gradient else [of_rows])}"
    return {"sharding_rule": rule}
