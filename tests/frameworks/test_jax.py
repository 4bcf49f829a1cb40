"""JAX arrays: the values, gradients, dtypes and errors are those that withlogits has for NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
import withlogits
import withlogits.engine
from frameworks.cases import ACTIVATIONS, LOSSES, SOFTMAX_MAPS, assert_ulps

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")

from frameworks.jax_cases import array, derivatives, x64  # noqa: E402

value_and_grad = withlogits.value_and_grad
KERNELS = withlogits.engine.select().NAME == "compiled"
compiled = pytest.mark.skipif(not KERNELS, reason="llvmlite is not installed")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    function = getattr(withlogits, name)
    for options in ({}, {"axis": 0}, {"axis": None}) if name in SOFTMAX_MAPS else ({},):
        assert_ulps(function(array(x), **options), np.asarray(function(x, **options)), 4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 0.7, (3, 4))  # where the derivatives of logit are small
    v, c = rng.normal(0.0, 0.3, (3, 4)), rng.normal(size=(3, 1) if name == "logsumexp" else (3, 4))
    with x64(True):
        given = [array(each) for each in (x, v, c if name != "logsumexp" else c[:, 0])]
        found = derivatives(lambda t: (given[2] * getattr(withlogits, name)(given[0] + t * given[1])).sum())
    assert min(map(abs, found)) > 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_eager_calls_that_look_alike_are_compiled_once(name: str) -> None:
    """With the loss alone, and with its gradient."""
    options = {"pos_weight": 2.0} if name == "weighted" else {}

    def call(x: float) -> None:
        labels = np.array([1, 0], np.int32) if name == "sparse" else np.full((2, 3), 0.5, np.float32)
        given = {"labels": array(labels), "logits": array(np.full((2, 3), x, np.float32)), **options}
        LOSSES[name](**given)
        value_and_grad(LOSSES[name])(**given)

    call(1.0)
    jax.config.update("jax_no_tracing", True)
    try:
        call(2.0)
    finally:
        jax.config.update("jax_no_tracing", False)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_the_mixed_second_derivative(name: str) -> None:
    """Of labels and logits, by each first: the same, and the slope of the gradient, to 1e-16/step and step²."""
    rng, step = np.random.default_rng(2), 1e-6
    with x64(True):
        x, z = array(rng.normal(size=(2, 3))), array(rng.dirichlet(np.ones(3), 2))

        def loss(x: Any, z: Any) -> Any:
            return LOSSES[name](labels=z, logits=x, reduction="mean")

        by_logits, by_labels = jax.grad(loss, 0), jax.grad(loss, 1)
        mixed = jax.jit(jax.jacfwd(by_logits, 1))(x, z)
        np.testing.assert_allclose(jax.jit(jax.jacrev(by_logits, 1))(x, z), mixed, rtol=1e-12, atol=1e-15)
        turned = np.transpose(np.asarray(jax.jit(jax.jacfwd(by_labels, 0))(x, z)), (2, 3, 0, 1))
        np.testing.assert_allclose(turned, mixed, rtol=1e-12, atol=1e-15)
        move = np.zeros((2, 3))
        move[1, 2] = step
        slope = (by_logits(x, z + move) - by_logits(x, z - move)) / (2 * step)
        np.testing.assert_allclose(np.asarray(mixed)[:, :, 1, 2], slope, atol=1e-9)
        assert np.abs(slope).max() > 1e-3


def test_the_tail_is_kept_in_derivatives() -> None:
    """Of logits [20, 0, 0] the probability of the others is 4.12e-9: not 0, in derivatives of every order."""
    x, y = jax.numpy.array([20.0, 0.0, 0.0]), jax.numpy.array(0)
    rest = 2 * np.exp(-20.0) / (1 + 2 * np.exp(-20.0))

    def loss(x: Any) -> Any:
        return withlogits.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)

    first, second = jax.grad(loss)(x)[0], jax.hessian(loss)(x)[0, 0]
    third = jax.jacfwd(jax.hessian(loss))(x)[0, 0, 0]
    wanted = [-rest, rest * (1 - rest), rest * (1 - rest) * (2 * rest - 1)]
    np.testing.assert_allclose([first, second, third], wanted, rtol=1e-5)


def test_the_tail_is_kept_in_derivatives_of_activations() -> None:
    """Where p is 1 to the last bit: the derivative of log p is the probability of the others, e^−30."""
    x = jax.numpy.array([30.0, 0.0])
    others = float(np.exp(-30.0))
    for transform in (jax.jacrev, jax.jacfwd):
        slope = np.asarray(jax.jit(transform(withlogits.log_softmax))(x))
        np.testing.assert_allclose(slope, [[others, -others], [-1.0, 1.0]], rtol=1e-6)
        slope = np.asarray(transform(withlogits.softmax)(x))
        np.testing.assert_allclose(slope, [[others, -others], [-others, others]], rtol=1e-6)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_masked_row_has_no_derivatives(jitted: bool) -> None:
    x = jax.numpy.array([[np.nan, np.inf, 0.0], [1.0, 2.0, 3.0]])
    y = jax.numpy.array([-1, 2])

    def loss(x: Any) -> Any:
        function = withlogits.sparse_softmax_cross_entropy_with_logits
        return function(labels=y, logits=x, ignore_index=-1, reduction="mean")

    wrapped = jax.jit if jitted else lambda f: f
    assert np.isfinite(wrapped(loss)(x))
    assert (wrapped(jax.grad(loss))(x)[0] == 0.0).all()
    assert (wrapped(jax.hessian(loss))(x)[0] == 0.0).all()


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("bad", [-1, 3, 2**32 + 1])
def test_a_label_out_of_range(bad: int) -> None:
    """The error of NumPy when eager; NaN and no gradient where values are not there."""
    logits = np.zeros((2, 3), np.float32)
    labels = np.array([0, bad])
    errors = []
    for x in (logits, array(logits)):
        with pytest.raises(ValueError, match=r"^labels\[1\] = ") as raised:
            LOSSES["sparse"](labels=labels, logits=x)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    if bad == 2**32 + 1:
        return
    both = jax.jit(lambda y, x: value_and_grad(LOSSES["sparse"])(labels=y, logits=x))
    value, gradient = both(array(labels.astype(np.int32)), array(logits))
    assert np.isnan(value[1])
    assert np.isfinite(value[0])
    assert (gradient[1] == 0.0).all()
    assert gradient[0, 0] < 0.0


def test_errors_in_the_words_of_jax() -> None:
    logits, labels = jax.numpy.zeros((2, 3)), jax.numpy.array([0, 1])
    sparse = LOSSES["sparse"]
    with pytest.raises(TypeError, match=r"pass labels\.astype\(jax\.numpy\.int32\) if they are indices"):
        sparse(labels=labels.astype(float), logits=logits)
    with pytest.raises(TypeError, match=r"^labels have dtype float8_e4m3fn"):
        LOSSES["softmax"](labels=logits.astype("float8_e4m3fn"), logits=logits)
    with pytest.raises(TypeError, match=r"^out cannot be written into, since arrays of JAX are constant"):
        value_and_grad(sparse)(labels=labels, logits=logits, out=logits)
    with pytest.raises(TypeError, match=r"^name is 3, where a string or None is expected$"):
        sparse(labels=labels, logits=logits, name=3)
    with pytest.raises(TypeError, match=r"^labels are an array of JAX, where the logits are of NumPy"):
        sparse(labels=labels, logits=np.zeros((2, 3)))

    def of_weight(weight: Any) -> Any:
        return sparse(labels=labels, logits=logits, class_weight=weight, reduction="sum")

    with pytest.raises(ValueError, match=r"^class_weight requires a gradient.* pass jax\.lax\.stop_gradient\(class_"):
        jax.grad(of_weight)(jax.numpy.ones(3))


def test_an_exported_program_runs_in_another_process(tmp_path: Path) -> None:
    """With fixed shapes it calls the kernels, which the other process makes from what the program holds."""
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed, which jax.export writes with")
    from jax import export

    loss = jax.jit(lambda y, x: LOSSES["sparse"](labels=y, logits=x, reduction="mean"))
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 7, 5).astype(np.int32), rng.normal(size=(5, 7)).astype(np.float32)
    allowed = [export.DisabledSafetyCheck.custom_call("withlogits")] if KERNELS else []
    program = export.export(loss, disabled_checks=allowed)(labels, logits)
    (tmp_path / "program").write_bytes(program.serialize())
    np.savez(tmp_path / "arrays.npz", labels=labels, logits=logits)
    told = processes.run(
        f"""
        import numpy as np
        from jax import export
        import withlogits.compat.optax
        folder = {str(tmp_path)!r}
        arrays = np.load(folder + "/arrays.npz")
        program = export.deserialize(open(folder + "/program", "rb").read())
        print(float(program.call(arrays["labels"], arrays["logits"])).hex())
        """
    )
    assert told == float(loss(labels, logits)).hex() + "\n"


def test_rows_that_lie_on_several_devices_stay_there() -> None:
    told = processes.run(
        """
        import jax, numpy as np, withlogits
        from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

        rng = np.random.default_rng(0)
        x = jax.numpy.asarray(rng.normal(size=(8, 50)), jax.numpy.float32)
        y = jax.numpy.asarray(rng.integers(0, 50, 8), jax.numpy.int32)
        loss = withlogits.sparse_softmax_cross_entropy_with_logits
        mesh = Mesh(np.array(jax.devices()), ("d",))
        rows = NamedSharding(mesh, P("d"))
        for options in ({}, {"ignore_index": 3}, {"class_weight": np.ones(50)}, {"axis": 1}):
            def both(y, x):
                return jax.value_and_grad(lambda x: loss(labels=y, logits=x, reduction="mean", **options))(x)

            value, gradient = both(y, x)
            split = jax.jit(both)
            arrays = jax.device_put(y, rows), jax.device_put(x, rows)
            assert "all-gather" not in split.lower(*arrays).compile().as_text()
            other, sharded = split(*arrays)
            assert sharded.sharding.is_equivalent_to(rows, 2)
            assert abs(float(other) - float(value)) <= 4e-7 * float(value)
            np.testing.assert_allclose(sharded, gradient, rtol=4e-7)
        mean = jax.shard_map(
            lambda y, x: jax.lax.pmean(loss(labels=y, logits=x).mean(), "d"),
            mesh=mesh, in_specs=(P("d"), P("d")), out_specs=P(),
        )
        np.testing.assert_allclose(jax.grad(mean, 1)(y, x), jax.grad(lambda x: loss(labels=y, logits=x).mean())(x))
        explicit = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
        with jax.set_mesh(explicit):
            arrays = (jax.device_put(a, NamedSharding(explicit, P("d"))) for a in (y, x))
            print(jax.typeof(jax.jit(lambda y, x: both(y, x)[1])(*arrays)))
        """,
        env=processes.environment(XLA_FLAGS="--xla_force_host_platform_device_count=4"),
    )
    assert told == "float32[8@d,50]\n"


def test_vmap() -> None:
    rng = np.random.default_rng(0)
    x = array(rng.normal(size=(4, 3, 5)).astype(np.float32))
    y = array(rng.integers(0, 5, (4, 3)).astype(np.int32))

    def loss(y: Any, x: Any) -> Any:
        return LOSSES["sparse"](labels=y, logits=x, reduction="mean", class_weight=np.arange(1.0, 6.0))

    for axes, labels, logits in (((0, 0), y, x), ((None, 0), y[0], x), ((0, None), y, x[0])):
        got = jax.vmap(jax.value_and_grad(loss, 1), axes)(labels, logits)
        each = [
            jax.value_and_grad(loss, 1)(labels[i] if axes[0] == 0 else labels, logits[i] if axes[1] == 0 else logits)
            for i in range(4)
        ]
        for one, others in zip(got, zip(*each, strict=True), strict=True):
            assert_ulps(one, np.stack(others), 4)
