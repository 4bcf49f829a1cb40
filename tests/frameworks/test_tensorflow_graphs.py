"""TensorFlow's ways to differentiate, trace, map, save and distribute: each gives what formulas and differences say."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
import withlogits
import withlogits.engine
from frameworks.tensorflow_cases import assert_ulps, differentiated, tf
from withlogits import reference

N, C = 4, 5
X = np.random.default_rng(0).normal(0.0, 2.0, (N, C))
Y = np.array([0, 4, 2, 2])
Z = np.random.default_rng(1).dirichlet(np.ones(C), N)
DIRECTION = np.random.default_rng(2).normal(size=(N, C))
OPTIONS = {
    "plain": {},
    "mean": {"reduction": "mean"},
    "all": {
        "class_weight": np.array([0.5, 2.0, 1.5, 1.0, 0.0]), "sample_weight": np.array([1.0, 0.5, 0.0, 3.0]),
        "label_smoothing": 0.2, "temperature": 1.7, "softcap": 4.0, "z_loss": 0.1, "reduction": "mean",
    },
}  # fmt: skip


def sparse(logits: Any, labels: Any = Y, **options: Any) -> Any:
    return withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, **options)


def dense(logits: Any, labels: Any = Z, **options: Any) -> Any:
    return withlogits.softmax_cross_entropy_with_logits(labels=labels, logits=logits, **options)


def sigmoid(logits: Any, labels: Any = Z, **options: Any) -> Any:
    return withlogits.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits, **options)


def textbook(logits: Any, labels: Any) -> Any:
    """The softmax loss, for TensorFlow to differentiate; in float64 it keeps enough digits here."""
    return -tf.reduce_sum(labels * tf.nn.log_softmax(logits), -1)


LOSSES = {"sparse": sparse, "softmax": dense, "sigmoid": sigmoid}


@pytest.fixture(params=["kernels", "formulas"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The losses are computed in this way."""
    if request.param == "formulas":
        monkeypatch.setattr(withlogits.engine, "select", lambda: reference)
    elif withlogits.engine.select().NAME != "compiled":
        pytest.skip("there is no llvmlite, so there are no kernels")
    return str(request.param)


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def pushed(function: Callable[[Any], Any], x: Any, direction: Any) -> Any:
    with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
        value = function(x)
    return accumulator.jvp(value)


def difference(function: Callable[[Any], Any], x: Any, direction: Any, h: float = 1e-5) -> Any:
    """Along a direction, with an error of h² and of 1e-16/h: about 1e-10 of values near 1."""
    return (function(x + h * direction) - function(x - h * direction)) / (2 * h)


def close(a: Any, b: Any, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("options", "in_function"), [("plain", False), ("mean", True), ("all", False)])
@pytest.mark.parametrize("loss", LOSSES)
def test_three_orders_against_differences(loss: str, options: str, in_function: bool, way: str) -> None:
    given = OPTIONS[options]
    if loss == "sigmoid":
        renamed = {"class_weight": "pos_weight"}
        known = {"class_weight", "label_smoothing", "reduction"}
        given = {renamed.get(name, name): value for name, value in given.items() if name in known}
    x, v = tf.constant(X), tf.constant(DIRECTION)

    def value(x: Any) -> Any:
        return tf.reduce_sum(LOSSES[loss](x, **given))

    def first(x: Any) -> Any:
        return gradient(value, x)

    def second(x: Any) -> Any:
        return gradient(lambda x: tf.reduce_sum(first(x) * v), x)

    def third(x: Any) -> Any:
        return gradient(lambda x: tf.reduce_sum(second(x) * v), x)

    compiled = tf.function if in_function else lambda f, **_: f
    orders = [compiled(f, autograph=False) for f in (first, second, third)]
    close(tf.reduce_sum(orders[0](x) * v), difference(value, x, v))
    close(orders[1](x), difference(first, x, v))
    close(orders[2](x), difference(second, x, v))
    close(pushed(compiled(value, autograph=False), x, v), tf.reduce_sum(first(x) * v))
    close(pushed(first, x, v), second(x))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_jacobian_and_hessian(reduction: str, way: str) -> None:
    x, eye = tf.constant(X), tf.constant(np.eye(C)[Y])

    def jacobian(function: Callable[[Any], Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.jacobian(value, x)

    def reduced(value: Any) -> Any:
        return value if reduction == "none" else tf.reduce_mean(value)

    def ours(x: Any) -> Any:
        return sparse(x, reduction=reduction)

    def theirs(x: Any) -> Any:
        return reduced(textbook(x, eye))

    close(jacobian(ours), jacobian(theirs), 1e-13)
    close(jacobian(lambda x: gradient(ours, x)), jacobian(lambda x: gradient(theirs, x)), 1e-13)
    hessians = [
        tf.function(lambda x, f=f: tf.hessians(tf.reduce_sum(f(x)), x)[0], autograph=False) for f in (ours, theirs)
    ]
    close(hessians[0](x), hessians[1](x), 1e-13)


def test_the_mixed_hessian(way: str) -> None:
    """By logits and labels, in both orders; tf.nn's is wrong, and its second derivative by labels says nothing."""
    x, z, v = tf.constant(X), tf.constant(Z), tf.constant(DIRECTION)

    def mixed(loss: Callable[[Any, Any], Any], flip: bool) -> Any:
        with tf.GradientTape() as outer:
            outer.watch([x, z])
            with tf.GradientTape() as inner:
                inner.watch([x, z])
                value = tf.reduce_sum(loss(x, z))
            by = inner.gradient(value, z if flip else x)
            along = tf.reduce_sum(by * v)
        return outer.gradient(along, x if flip else z)

    for flip in (False, True):
        close(mixed(dense, flip), mixed(textbook, flip), 1e-13)
    theirs = mixed(lambda x, z: tf.nn.softmax_cross_entropy_with_logits(z, x), False)
    assert theirs is None or np.abs(theirs - mixed(textbook, False)).max() > 0.1


def test_a_persistent_tape_and_another_upstream(way: str) -> None:
    x = tf.constant(X, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        value = sparse(x, reduction="mean")
        twice = 2.0 * value
    right = gradient(lambda x: sparse(x, reduction="mean"), x)
    for _ in range(2):
        assert_ulps(tape.gradient(value, x), right, 0)
        assert_ulps(tape.gradient(twice, x), 2.0 * right, 0)
    assert_ulps(tape.gradient(value, x, output_gradients=tf.constant(0.0)), 0.0 * right, 0)


def test_derivatives_through_a_function(way: str) -> None:
    """The tape is outside of the function, which was made without it."""
    x, eye = tf.constant(X), tf.constant(np.eye(C)[Y])
    ours = tf.function(lambda x: sparse(x, reduction="mean"), autograph=False)
    theirs = tf.function(lambda x: tf.reduce_mean(textbook(x, eye)), autograph=False)
    close(gradient(ours, x), gradient(theirs, x), 1e-14)
    twice = [gradient(lambda x, f=f: tf.reduce_sum(gradient(f, x) ** 2), x) for f in (ours, theirs)]
    close(*twice, 1e-14)


def test_the_tail_and_masked_rows_in_derivatives(way: str) -> None:
    """tf.nn: the gradient of a confident right answer is 0. Masked rows hold NaN, and have derivatives of exactly 0."""
    x, y = tf.constant([[20.0, 0.0, 0.0], [np.nan, 0.0, np.inf]]), tf.constant([0, 1])
    ignored = tf.constant([0, -1])

    def loss(x: Any) -> Any:
        return sparse(x, ignored, ignore_index=-1)

    first = gradient(loss, x)
    second = gradient(lambda x: tf.reduce_sum(gradient(loss, x) * [[1.0, 2.0, 3.0]]), x)
    assert float(first[0, 0]) == pytest.approx(-2 * np.exp(-20.0), rel=1e-6)
    np.testing.assert_array_equal(first[1], 0.0)
    np.testing.assert_array_equal(second[1], 0.0)
    p = np.exp(-20.0)
    assert float(second[0, 1]) == pytest.approx(p * (2 - 1) - p * p * 3, rel=1e-6)
    theirs = gradient(lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(y[:1], x), x[:1])
    assert float(theirs[0, 0]) == 0.0


def test_variables_and_the_optimiser(way: str) -> None:
    v = tf.Variable(X)
    assert_ulps(gradient(lambda v: sparse(v), v), gradient(sparse, tf.constant(X)), 0)
    assert_ulps(sparse(v), sparse(tf.constant(X)), 0)


def test_vectorized_map_and_data(way: str) -> None:
    x, y = tf.constant(X), tf.constant(Y)
    right = sparse(x)
    each = tf.vectorized_map(lambda pair: sparse(pair[0][None], pair[1][None])[0], (x, y))
    close(each, right, 1e-15)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(2).map(lambda x, y: sparse(x, y), num_parallel_calls=2)
    assert_ulps(tf.concat(list(data), 0), right, 0 if way == "kernels" else 4)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_ragged_tensors(reduction: str, way: str) -> None:
    x = tf.RaggedTensor.from_row_lengths(tf.constant(X), [1, 3])
    y = tf.RaggedTensor.from_row_lengths(tf.constant(Y), [1, 3])
    weight = tf.RaggedTensor.from_row_lengths(tf.constant([1.0, 0.0, 2.0, 1.0]), [1, 3])
    value = sparse(x, y, sample_weight=weight, reduction=reduction)
    flat = value.flat_values if reduction == "none" else value
    assert_ulps(flat, sparse(tf.constant(X), Y, sample_weight=weight.flat_values, reduction=reduction), 0)
    if reduction == "none":
        assert value.row_lengths().numpy().tolist() == [1, 3]
    both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    assert_ulps(both(labels=y, logits=x)[1].flat_values, gradient(sparse, tf.constant(X)), 0)


def test_ragged_tensors_that_do_not_fit() -> None:
    x = tf.RaggedTensor.from_row_lengths(tf.constant(X), [1, 3])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"partition|row_splits"):
        sparse(x, tf.RaggedTensor.from_row_lengths(tf.constant(Y), [2, 2]))
    with pytest.raises(ValueError, match="axis 1 of the logits is ragged, or before a ragged one"):
        dense(tf.ragged.constant([[1.0, 2.0], [3.0]]), tf.ragged.constant([[0.5, 0.5], [1.0]]))


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_half_precision_of_small_upstreams(policy: str, way: str) -> None:
    """A loss scale reaches the gradient before it is rounded: in float16 a mean's would vanish without."""
    x = tf.cast(np.zeros((1 << 12, 4)), policy)
    x = x - tf.cast([8.0, 0.0, 0.0, 0.0], policy)
    labels, scale = tf.zeros(1 << 12, tf.int32), 2.0**15
    scaled = gradient(lambda x: scale * sparse(x, labels, reduction="mean"), x)
    right = gradient(lambda x: scale * sparse(x, labels, reduction="mean"), tf.cast(x, tf.float64))
    assert scaled.dtype == policy
    close(tf.cast(scaled, tf.float64), right, 2.0**-8)


def test_the_same_bits_each_time(way: str) -> None:
    x = tf.random.stateless_normal((300, 700), (1, 2))
    y = tf.random.stateless_uniform((300,), (3, 4), 0, 700, tf.int32)
    step = tf.function(
        lambda x, y: differentiated(lambda y, x: sparse(x, y, reduction="mean"), y, x, ("logits",)), autograph=False
    )
    first = step(x, y)
    for _ in range(3):
        for a, b in zip(step(x, y), first, strict=True):
            assert_ulps(a, b, 0)
    assert_ulps(sparse(x[:7], y[:7]), sparse(x, y)[:7], 0)  # a row's loss does not depend on its batch


def test_jit_compile() -> None:
    """XLA takes no operation of ours: the formulas are traced."""
    x = tf.constant(X, tf.float32)
    for loss in (sparse, dense, sigmoid):
        step = tf.function(lambda x, f=loss: (f(x), gradient(f, x)), jit_compile=True, autograph=False)
        for a, b in zip(step(x), (loss(x), gradient(loss, x)), strict=True):
            close(a, b, 1e-6)


def test_the_logits_of_the_caller_stay() -> None:
    """In a graph the gradient may take the memory of logits that nobody else reads, and of no others."""

    @functools.partial(tf.function, autograph=False)
    def step(w: Any) -> Any:
        h = w * 2.0
        alone = gradient(lambda h: sparse(h, reduction="mean"), h)
        return alone, h, w

    x = tf.constant(X, tf.float32)
    alone, h, w = step(x)
    assert_ulps(h, 2.0 * x, 0)
    assert_ulps(w, np.float32(X), 0)
    assert_ulps(alone, gradient(lambda h: sparse(h, reduction="mean"), 2.0 * x), 0)


def test_many_shapes() -> None:
    """More shapes than an operation keeps plans for, and each again."""
    logits = tf.constant(np.random.default_rng(0).normal(size=(90, 3)))
    labels = tf.zeros(90, tf.int32)
    right = sparse(logits, labels)
    for _ in range(2):
        for n in range(91):
            assert_ulps(sparse(logits[:n], labels[:n]), right[:n], 0)


def test_name_in_the_graph() -> None:
    made = tf.function(lambda x: sparse(x, name="my_loss"), autograph=False).get_concrete_function(tf.constant(X))
    assert any(operation.name.startswith("my_loss/") for operation in made.graph.get_operations())
    assert_ulps(sparse(tf.constant(X), name="my_loss"), sparse(tf.constant(X)), 0)


def test_the_operations_are_in_the_graph() -> None:
    """And name what they compute; nothing in them belongs to this process."""
    if withlogits.engine.select().NAME != "compiled":
        pytest.skip("there is no llvmlite, so there are no kernels")
    made = tf.function(lambda x: sparse(x, temperature=0.1), autograph=False).get_concrete_function(tf.constant(X))
    (op,) = [each for each in made.graph.get_operations() if each.type == "WithlogitsLoss"]
    assert b'"temperature": 0.1' in op.get_attr("call")
    assert op.outputs[0].shape == (N,)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_graph_makes_loss_and_gradient_at_once(loss: str, reduction: str) -> None:
    """Where the upstream gradient is 1 and no one can ask for a derivative by it; a loss alone makes no gradient."""
    if withlogits.engine.select().NAME != "compiled":
        pytest.skip("there is no llvmlite, so there are no kernels")

    def value(x: Any) -> Any:
        return LOSSES[loss](x, reduction=reduction)

    def unused(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            return value(x), tape

    def scaled(x: Any) -> Any:
        return gradient(lambda x: 3.0 * value(x), x)

    x, v = tf.constant(X), tf.constant(DIRECTION)
    operations, made = {}, {}
    for function in (lambda x: gradient(value, x), lambda x: unused(x)[0], scaled):
        traced = tf.function(function, autograph=False).get_concrete_function(x)
        ours = [each for each in traced.graph.get_operations() if each.type.startswith("Withlogits")]
        operations[function] = [each.type for each in ours]
        made[function] = b'"made": true' in ours[0].get_attr("call")
        close(traced(x), function(x), 1e-15)
    assert list(operations.values()) == [["WithlogitsLoss"]] * 2 + [["WithlogitsLoss", "WithlogitsGradient"]]
    assert list(made.values()) == [True] + [reduction == "mean"] * 2

    def along(x: Any) -> Any:
        return tf.reduce_sum(gradient(value, x) * v)

    second = tf.function(lambda x: gradient(along, x), autograph=False)
    close(second(x), gradient(along, x), 1e-14)
    close(second(x), difference(lambda x: gradient(value, x), x, v))


def test_derivatives_by_an_upstream_of_ones() -> None:
    """In a graph, with a tape on the upstream gradient, as forward mode has it, and without any tape."""
    x, v = tf.constant(X), tf.constant(DIRECTION)
    right = tf.reduce_sum(gradient(sparse, x) * v, -1)

    def by_tapes(x: Any) -> Any:
        upstream = tf.ones(N, tf.float64)
        with tf.GradientTape() as outer:
            outer.watch(upstream)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = sparse(x)
            along = tf.reduce_sum(inner.gradient(value, x, output_gradients=upstream) * v)
        return outer.gradient(along, upstream)

    def by_graph(x: Any) -> Any:
        upstream = tf.ones(N, tf.float64)
        (found,) = tf.gradients(sparse(x), x, grad_ys=upstream)
        return tf.gradients(found, upstream, grad_ys=v)[0]

    for function in (by_tapes, by_graph, lambda x: pushed(sparse, x, v)):
        close(tf.function(function, autograph=False)(x), right, 1e-14)


def test_autograph_leaves_our_code_alone() -> None:
    """A function that AutoGraph rewrites calls the losses as they are written."""
    converted = tf.autograph.to_graph(sparse.__wrapped__ if hasattr(sparse, "__wrapped__") else sparse)
    assert_ulps(tf.function(converted)(tf.constant(X)), sparse(tf.constant(X)), 0)
    for function in (
        withlogits.sparse_softmax_cross_entropy_with_logits,
        withlogits.softmax,
        withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits),
        withlogits.checked(withlogits.sigmoid_cross_entropy_with_logits),
    ):
        assert hasattr(function, "autograph_info__")


def test_graphs_of_tensorflow_1(way: str) -> None:
    with tf.Graph().as_default():
        x, y = tf.compat.v1.placeholder(tf.float64, [None, C]), tf.compat.v1.placeholder(tf.int32, [None])
        value = sparse(x, y)
        by = tf.compat.v1.gradients(value, x)[0]
        with tf.compat.v1.Session() as session:
            got = session.run([value, by], {x: X, y: Y})
    close(got[0], sparse(tf.constant(X)), 1e-14)
    close(got[1], gradient(sparse, tf.constant(X)), 1e-14)


SAVE = """
    import numpy as np, tensorflow as tf, withlogits as wl
    module = tf.Module()
    @tf.function(input_signature=[tf.TensorSpec((None, 5)), tf.TensorSpec((None,), tf.int32)])
    def loss(x, y):
        return wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x, temperature=0.3, reduction="mean")
    module.loss = loss
    tf.saved_model.save(module, {path!r})
"""
LOAD = """
    import numpy as np, tensorflow as tf, withlogits as wl
    import withlogits.frameworks.tensorflow
    loss = tf.saved_model.load({path!r}).loss
    x, y = tf.constant(np.arange(15.0).reshape(3, 5) % 4, tf.float32), tf.constant([0, 4, 2])
    results = []
    for f in (loss, lambda x, y: wl.sparse_softmax_cross_entropy_with_logits(
        labels=y, logits=x, temperature=0.3, reduction="mean")):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = f(x, y)
        results.append((value, tape.gradient(value, x)))
    print(all(bool(tf.reduce_all(a == b)) for a, b in zip(*results)))
"""


def test_a_saved_model_in_a_fresh_process(tmp_path: Path) -> None:
    if withlogits.engine.select().NAME != "compiled":
        pytest.skip("there is no llvmlite, so there are no kernels")
    env = processes.environment(TF_CPP_MIN_LOG_LEVEL="3")
    processes.run(SAVE.format(path=str(tmp_path / "model")), env=env)
    assert processes.run(LOAD.format(path=str(tmp_path / "model")), env=env).splitlines()[-1] == "True"


MIRRORED = """
    import numpy as np, tensorflow as tf, withlogits as wl
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x, y = tf.constant(np.arange(40.0).reshape(8, 5) % 7, tf.float32), tf.constant(np.arange(8) % 5)
    with strategy.scope():
        w = tf.Variable(tf.eye(5))
    def per_replica(context):
        i = context.replica_id_in_sync_group
        return x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]
    @tf.function
    def step(inputs):
        def replica(x, y):
            with tf.GradientTape() as tape:
                loss = wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x @ w, reduction="mean")
            return loss, tape.gradient(loss, w)
        loss, gradient = strategy.run(replica, args=inputs)
        return strategy.reduce("MEAN", loss, axis=None), strategy.reduce("MEAN", gradient, axis=None)
    inputs = (strategy.experimental_distribute_values_from_function(lambda c: per_replica(c)[0]),
              strategy.experimental_distribute_values_from_function(lambda c: per_replica(c)[1]))
    loss, gradient = step(inputs)
    with tf.GradientTape() as tape:
        whole = wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x @ w, reduction="mean")
    right = tape.gradient(whole, w)
    print(np.allclose(loss, whole, 1e-6), np.allclose(gradient, right, 1e-5, 1e-7))
"""


def test_a_mirrored_strategy_on_two_devices() -> None:
    env = processes.environment(TF_CPP_MIN_LOG_LEVEL="3")
    assert processes.run(MIRRORED, env=env).splitlines()[-1] == "True True"


LEFT_AT_WORK = """
    import tensorflow as tf, withlogits as wl
    x, y = tf.random.normal((512, 1000)), tf.zeros(512, tf.int32)
    data = tf.data.Dataset.from_tensors((x, y)).repeat().map(
        lambda x, y: wl.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x), num_parallel_calls=2
    ).prefetch(4)
    losses = iter(data)
    print(float(next(losses)[0]) > 0.0)
"""


def test_the_interpreter_ends_while_threads_are_at_work() -> None:
    env = processes.environment(TF_CPP_MIN_LOG_LEVEL="3")
    assert processes.run(LEFT_AT_WORK, env=env) == "True\n"


def test_keras_fit() -> None:
    """A loss of Keras's form; mixed precision, whole graphs and eager steps learn the same."""
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend than TensorFlow")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(128, 8)).astype(np.float32)
    b = a[:, :3].argmax(1)

    def ours(y: Any, x: Any) -> Any:
        return withlogits.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(y, tf.int32), logits=x)

    def fitted(loss: Any, **options: Any) -> list[float]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(0.5), loss, **options)
        return model.fit(a, b, batch_size=32, epochs=3, verbose=0, shuffle=False).history["loss"]

    right = fitted(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for options in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        np.testing.assert_allclose(fitted(ours, **options), right, rtol=1e-5)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        np.testing.assert_allclose(fitted(ours), right, rtol=2e-2)
    finally:
        keras.mixed_precision.set_global_policy("float32")
