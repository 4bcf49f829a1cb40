"""TensorFlow: `tf.nn`, inside `tf.function`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

from benchmarks.cases import POS_WEIGHT, Case, Inputs
from benchmarks.peers import Absent

ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "sigmoid": tf.sigmoid,
    "log_sigmoid": tf.math.log_sigmoid,
    "softplus": tf.math.softplus,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "logsumexp": functools.partial(tf.reduce_logsumexp, axis=-1),
}


class TensorFlowPeer:
    name = "tensorflow"
    version = tf.__version__
    note = "`tf.nn` in a `tf.function` (`jit_compile=False`, its default), gradient by `tf.GradientTape` inside it"

    def __init__(self, threads: int) -> None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError as error:
            # A second peer in one process finds the runtime running; that is fine if it has the same threads.
            if tf.config.threading.get_intra_op_parallelism_threads() != threads:
                raise Absent(f"its thread count cannot be set any more ({error})") from error
        # A call then comes back when its kernels are done. `.numpy()` would wait too, but copies the result first.
        tf.config.experimental.set_synchronous_execution(True)

    def prepare(self, case: Case, inputs: Inputs) -> Callable[[], Any]:
        if case.activation:
            if case.what not in ACTIVATIONS:
                raise Absent(f"it has no {case.what}")
            function, x = ACTIVATIONS[case.what], tf.constant(inputs.activated(case.what))
            return lambda: function(x)
        logits, labels = tf.constant(inputs.logits), tf.constant(inputs.labels(case.what))

        def loss(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
            if case.what == "sigmoid":
                return tf.nn.sigmoid_cross_entropy_with_logits(labels=z, logits=x)
            if case.what == "weighted":
                return tf.nn.weighted_cross_entropy_with_logits(labels=z, logits=x, pos_weight=POS_WEIGHT)
            if case.what == "softmax":
                return tf.nn.softmax_cross_entropy_with_logits(labels=z, logits=x)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=z, logits=x)

        reduce = tf.reduce_mean if case.reduction == "mean" else tf.reduce_sum

        def step(x: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = reduce(loss(x, z))
            return value, tape.gradient(value, x)

        traced = tf.function(step if case.gradient else loss, jit_compile=False)
        concrete = traced.get_concrete_function(logits, labels)
        return lambda: concrete(logits, labels)

    def read(self, case: Case, result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        value, gradient = result if case.gradient else (result, None)
        return value.numpy(), None if gradient is None else gradient.numpy()


def make(threads: int, variant: str = "") -> TensorFlowPeer:
    return TensorFlowPeer(threads)
