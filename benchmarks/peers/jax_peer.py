"""JAX: optax's losses under `jax.jit`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cases import POS_WEIGHT, Case, Inputs
from benchmarks.peers import Absent

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "log_sigmoid": jax.nn.log_sigmoid,
    "softplus": jax.nn.softplus,
    "logit": jax.scipy.special.logit,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logsumexp": functools.partial(jax.nn.logsumexp, axis=-1),
}


class JaxPeer:
    name = "jax"
    version = f"{jax.__version__}, optax {optax.__version__}"
    note = "`optax` losses under `jax.jit`, gradient by `jax.value_and_grad`, timed to `block_until_ready`"

    def __init__(self, threads: int) -> None:
        # XLA's CPU client takes as many threads as the process may use cores and has no setting for it.
        if len(os.sched_getaffinity(0)) != threads:
            raise Absent(f"XLA uses every core of the process, and {threads} threads were asked for")
        self._cpu = jax.devices("cpu")[0]

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.activation:
            function, x = jax.jit(ACTIVATIONS[case.what]), jax.device_put(inputs.activated(case.what), self._cpu)
            return lambda: jax.block_until_ready(function(x))
        logits = jax.device_put(inputs.logits, self._cpu)
        # JAX keeps integers in 32 bits unless told otherwise.
        labels = jax.device_put(np.asarray(inputs.labels(case.what)), self._cpu)
        losses = {
            "sparse": optax.softmax_cross_entropy_with_integer_labels,
            "softmax": optax.softmax_cross_entropy,
            "sigmoid": optax.sigmoid_binary_cross_entropy,
            "weighted": _weighted,
        }
        loss = losses[case.what]
        call = jax.jit(
            jax.value_and_grad(lambda x, z: getattr(loss(x, z), case.reduction)()) if case.gradient else loss
        )
        # Not `call.lower(...).compile()`: what that returns is called through Python, `call` itself is not.
        return lambda: jax.block_until_ready(call(logits, labels))

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        value, gradient = result if case.gradient else (result, None)
        return np.asarray(value), None if gradient is None else np.asarray(gradient)


def _weighted(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """optax has no weight for the positives; this is its own sigmoid loss with the weight put in."""
    labels = labels.astype(logits.dtype)
    return -POS_WEIGHT * labels * jax.nn.log_sigmoid(logits) - (1.0 - labels) * jax.nn.log_sigmoid(-logits)


def make(threads: int, variant: str = "") -> JaxPeer:
    jnp.zeros(1).block_until_ready()  # starts the client, so that its start is in nobody's time
    return JaxPeer(threads)
