"""JAX's transformations of reduced losses: each beside the loss without it, and the programs that XLA makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
import withlogits
import withlogits.engine
from frameworks.cases import LOSSES

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")

from frameworks.jax_cases import array  # noqa: E402

value_and_grad = withlogits.value_and_grad
KERNELS = withlogits.engine.select().NAME == "compiled"
compiled = pytest.mark.skipif(not KERNELS, reason="llvmlite is not installed")
RNG = np.random.default_rng(0)
X = RNG.normal(0.0, 3.0, (3, 4, 50)).astype(np.float32)  # three batches of four rows
Y = RNG.integers(0, 50, (3, 4)).astype(np.int32)
Y[0, :2] = 7
Z = RNG.dirichlet(np.ones(50), (3, 4)).astype(np.float32)
S = RNG.random((3, 4)).astype(np.float32)
W = RNG.random(50).astype(np.float32)
# the loss, the names of the labels and the weights that are mapped with the logits, and the options
LABELS = {"sparse": Y, "softmax": Z, "sigmoid": Z}
REDUCED: dict[str, tuple[str, dict[str, Any]]] = {
    "sum": ("sparse", {"reduction": "sum"}),
    "mean": ("sparse", {"reduction": "mean"}),
    "mean of counted": ("sparse", {"reduction": "mean", "ignore_index": 7}),
    "class-weighted mean": ("sparse", {"reduction": "mean", "class_weight": W}),
    "sample-weighted mean": ("sparse", {"reduction": "mean", "sample_weight": S}),
    "dense mean": ("softmax", {"reduction": "mean"}),
    "dense, weighted mean": ("softmax", {"reduction": "mean", "class_weight": W, "sample_weight": S}),
    "sigmoid mean": ("sigmoid", {"reduction": "mean"}),
    "sigmoid sum": ("sigmoid", {"reduction": "sum"}),
}


def reduced(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The loss and its gradient as a function of arrays, and these arrays."""
    loss, options = REDUCED[name]
    rest = {key: value for key, value in options.items() if key != "sample_weight"}
    given = (X, LABELS[loss], *([S] if "sample_weight" in options else []))

    def both(x: Any, y: Any, s: Any = None) -> Any:
        weights = {} if s is None else {"sample_weight": s}
        return value_and_grad(LOSSES[loss])(labels=y, logits=x, **rest, **weights)

    return both, given


@compiled
@pytest.mark.parametrize("name", REDUCED)
def test_vmap_reduces_each_by_itself(name: str) -> None:
    """To the bit what NumPy gives for each; nested too, and with labels for all."""
    both, given = reduced(name)
    arrays = tuple(array(each) for each in given)
    each = [both(*(a[i] for a in given)) for i in range(3)]
    value, gradient = jax.jit(jax.vmap(both))(*arrays)
    np.testing.assert_array_equal(value, [v for v, _ in each])
    np.testing.assert_array_equal(gradient, np.stack([g for _, g in each]))

    rows = [[both(*(a[i, j : j + 1] for a in given)) for j in range(4)] for i in range(3)]
    value, gradient = jax.vmap(jax.vmap(both))(*(a[:, :, None] for a in arrays))
    np.testing.assert_array_equal(value, [[v for v, _ in row] for row in rows])
    np.testing.assert_array_equal(gradient, np.stack([np.stack([g for _, g in row]) for row in rows]))

    value, _ = jax.vmap(both, (0, *[None] * (len(given) - 1)))(arrays[0], *(a[1] for a in arrays[1:]))
    np.testing.assert_array_equal(value, [both(given[0][i], *(a[1] for a in given[1:]))[0] for i in range(3)])


@pytest.mark.parametrize("name", ["mean", "sample-weighted mean", "sigmoid mean"])
def test_vmap_over_nothing(name: str) -> None:
    both, given = reduced(name)
    value, gradient = jax.vmap(both)(*(array(each[:0]) for each in given))
    assert (value.shape, gradient.shape) == ((0,), (0, 4, 50))


def test_vmap_over_class_weights_and_another_axis() -> None:
    """The formulas compute it, in float32: logsumexp, its factors and a sum of four, 8 ulp."""
    weights = RNG.random((3, 50)).astype(np.float32)

    def mean(x: Any, y: Any, w: Any) -> Any:
        return LOSSES["sparse"](labels=y, logits=x, class_weight=w, reduction="mean")

    found = jax.vmap(mean, (2, 0, 0))(array(np.moveaxis(X, 0, 2)), array(Y), array(weights))
    np.testing.assert_allclose(found, [mean(X[i], Y[i], weights[i]) for i in range(3)], rtol=2.0**-20)


def test_scan_and_remat() -> None:
    def total(loss: Any) -> Any:
        def step(before: Any, arrays: Any) -> Any:
            return before + loss(*arrays), None

        return lambda x: jax.lax.scan(step, jax.numpy.float32(0.0), (x, array(Y)))[0]

    def mean(x: Any, y: Any) -> Any:
        return LOSSES["sparse"](labels=y, logits=x, reduction="mean", ignore_index=7)

    each = [
        value_and_grad(LOSSES["sparse"])(labels=Y[i], logits=X[i], reduction="mean", ignore_index=7) for i in (0, 1, 2)
    ]
    for loss in (mean, jax.checkpoint(mean)):
        value, gradient = jax.jit(jax.value_and_grad(total(loss)))(array(X))
        np.testing.assert_allclose(value, sum(v for v, _ in each), rtol=2.0**-22)
        np.testing.assert_allclose(gradient, np.stack([g for _, g in each]), rtol=2.0**-22)


@compiled
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in REDUCED if not name.startswith("sample")])
def test_a_program_is_one_call(name: str, dtype: str) -> None:
    """No operation of XLA's goes over rows or logits: the reduction, the divisor and a gradient of 1 need none."""
    loss, options = REDUCED[name]
    options = {key: value for key, value in options.items() if key != "sample_weight"}

    def value(x: Any, y: Any) -> Any:
        return LOSSES[loss](labels=y, logits=x, **options)

    for function in (value, jax.value_and_grad(value)):
        text = jax.jit(function).lower(array(X[0]).astype(dtype), array(LABELS[loss][0])).compile().as_text()
        body = text[text.index("\nENTRY") :]
        made = [re.findall(r" ([a-z-]+)\(", line)[0] for line in body.splitlines() if " = " in line]
        beside = ("parameter", "constant", "tuple", "get-tuple-element")
        assert [each for each in made if each not in beside] == ["custom-call"]


@compiled
def test_another_platform_gets_no_kernel() -> None:
    traced = jax.jit(reduced("mean")[0]).trace(array(X), array(Y))
    assert "withlogits" in traced.lower(lowering_platforms=("cpu",)).as_text("hlo")
    assert 'custom_call_target="withlogits"' not in traced.lower(lowering_platforms=("cuda",)).as_text("hlo")


@compiled
@pytest.mark.parametrize("shape", [(8, 50), (1100, 1000)], ids=["small", "large"])
def test_logits_that_are_kept_are_not_changed(shape: tuple[int, int]) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    y = (np.arange(shape[0]) % shape[1]).astype(np.int32)
    given, labels = array(x), array(y)
    for both in (reduced("mean")[0], jax.jit(reduced("mean")[0])):
        value, gradient = both(given, labels)
        expected = reduced("mean")[0](x, y)
        np.testing.assert_array_equal(given, x)
        np.testing.assert_array_equal(value, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])


@compiled
def test_the_gradient_takes_the_memory_of_donated_logits() -> None:
    x = RNG.normal(size=(1100, 1000)).astype(np.float32)
    y = (np.arange(1100) % 1000).astype(np.int32)
    given = array(x) + 0
    at = given.unsafe_buffer_pointer()
    _, gradient = jax.jit(reduced("mean")[0], donate_argnums=0)(given, array(y))
    assert given.is_deleted()
    assert gradient.unsafe_buffer_pointer() == at
    np.testing.assert_array_equal(gradient, reduced("mean")[0](x, y)[1])


@compiled
def test_an_upstream_gradient_other_than_one() -> None:
    """Is multiplied with: by a power of 2 without a rounding."""
    _, expected = reduced("mean")[0](X, Y)
    scaled = jax.jit(jax.grad(lambda x: 4.0 * LOSSES["sparse"](labels=array(Y), logits=x, reduction="mean")))(array(X))
    np.testing.assert_array_equal(scaled, 4.0 * expected)


@compiled
def test_large_sums_on_the_threads_of_xla() -> None:
    """Weights that are copied, a divisor, losses: each on several threads, and to the bit what NumPy gives."""
    x, y = RNG.normal(size=(30_000, 7)).astype(np.float32), RNG.integers(0, 7, 30_000).astype(np.int32)
    options = {"reduction": "mean", "ignore_index": 3, "class_weight": W[:7], "sample_weight": RNG.random(30_000)}
    options["sample_weight"] = options["sample_weight"].astype(np.float32)
    expected = value_and_grad(LOSSES["sparse"])(labels=y, logits=x, **options)
    both = jax.jit(
        lambda x, y, s: value_and_grad(LOSSES["sparse"])(labels=y, logits=x, **{**options, "sample_weight": s})
    )
    for _ in range(20):
        for one, other in zip(both(array(x), array(y), array(options["sample_weight"])), expected, strict=True):
            np.testing.assert_array_equal(one, other)


DEVICES = """
    import jax, jax.numpy as jnp, numpy as np, withlogits
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

    sparse, dense = withlogits.sparse_softmax_cross_entropy_with_logits, withlogits.softmax_cross_entropy_with_logits
    sigmoid = withlogits.sigmoid_cross_entropy_with_logits
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, 3, (4, 6, 50)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 50, (4, 6)), jnp.int32).at[1].set(7)
    z = jnp.asarray(rng.random((4, 6, 50)), jnp.float32)
    s = jnp.asarray(rng.random((4, 6)), jnp.float32).at[0, 0].set(0.0)
    w = jnp.arange(1.0, 51.0)
    losses = {
        "none": lambda x, y, z, s: sparse(labels=y, logits=x, sample_weight=s).sum(),
        "sum": lambda x, y, z, s: sparse(labels=y, logits=x, ignore_index=7, reduction="sum"),
        "mean": lambda x, y, z, s: sparse(labels=y, logits=x, reduction="mean"),
        "counted": lambda x, y, z, s: sparse(labels=y, logits=x, ignore_index=7, sample_weight=s, reduction="mean"),
        "class first": lambda x, y, z, s: sparse(
            labels=y, logits=jnp.moveaxis(x, 2, 1), ignore_index=7, class_weight=w, reduction="mean", axis=1),
        "dense": lambda x, y, z, s: dense(labels=z, logits=x, class_weight=w, reduction="mean"),
        "sigmoid": lambda x, y, z, s: sigmoid(labels=z, logits=x, reduction="mean"),
        "missing": lambda x, y, z, s: sigmoid(
            labels=jnp.where(z < 0.3, jnp.nan, z), logits=x, ignore_index=float("nan"), reduction="mean"),
        "mapped": lambda x, y, z, s: jax.vmap(
            lambda x, y: sparse(labels=y, logits=x, ignore_index=7, reduction="mean"))(x, y).sum(),
        "mapped over rows": lambda x, y, z, s: jax.vmap(
            lambda x, y: sparse(labels=y, logits=x, z_loss=0.1, reduction="mean"), 1)(x, y).sum(),
        "mapped sigmoid": lambda x, y, z, s: jax.vmap(
            lambda x, z: sigmoid(labels=jnp.where(z < 0.3, -1, z), logits=x, ignore_index=-1, reduction="mean"), 1)(
                x, z).sum(),
    }
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
    explicit = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    for rows in (P("a", "b"), P(("a", "b")), P(None, "b")):
        for name, loss in losses.items():
            both = jax.jit(jax.value_and_grad(loss))
            expected = jax.value_and_grad(loss)(x, y, z, s)
            split = [jax.device_put(a, NamedSharding(mesh, rows)) for a in (x, y, z, s)]
            text = both.lower(*split).compile().as_text()
            assert "all-gather" not in text and '"withlogits"' in text, (name, rows)
            found = both(*split)
            for one, other in zip(found, expected):
                np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-8, err_msg=f"{name} {rows}")
            assert found[1].sharding.is_equivalent_to(NamedSharding(mesh, rows), 3), (name, rows)
            with jax.set_mesh(explicit):
                split = [jax.device_put(a, NamedSharding(explicit, rows)) for a in (x, y, z, s)]
                found = both(*split)
                assert jax.typeof(found[1]).sharding.spec[: len(rows)] == tuple(rows), (name, rows)
                np.testing.assert_allclose(found[1], expected[1], rtol=2e-6, atol=1e-8, err_msg=f"{name} {rows}")

    # classes over devices: whole rows are gathered first
    split = jax.device_put(x, NamedSharding(mesh, P("a", None, "b"))), y, z, s
    for name, loss in losses.items():
        for one, other in zip(jax.jit(jax.value_and_grad(loss))(*split), jax.value_and_grad(loss)(x, y, z, s)):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-8, err_msg=name)

    # one wrong label on one of four devices
    split = [jax.device_put(a, NamedSharding(mesh, P("a", "b"))) for a in (x, y.at[3, 5].set(77))]
    value, gradient = jax.jit(jax.value_and_grad(lambda x, y: sparse(labels=y, logits=x, reduction="mean")))(*split)
    assert np.isnan(value) and np.isfinite(gradient).all() and (np.asarray(gradient)[3, 5] == 0).all()

    def mean(x, y):
        return sparse(labels=y, logits=x, ignore_index=7, reduction="mean")

    each = [jax.value_and_grad(mean)(x[i], y[i]) for i in range(4)]
    for one, others in zip(jax.pmap(jax.value_and_grad(mean))(x, y), zip(*each)):
        np.testing.assert_array_equal(one, np.stack(others))

    def of_shard(x, y):
        return jax.lax.psum(mean(x, y), ("a", "b"))

    mapped = jax.shard_map(of_shard, mesh=mesh, in_specs=(P(("a", "b")),) * 2, out_specs=P())
    np.testing.assert_array_equal(jax.jit(jax.grad(mapped))(x, y), np.stack([g for _, g in each]))
    print("all")
"""


def test_several_devices() -> None:
    env = processes.environment(XLA_FLAGS="--xla_force_host_platform_device_count=4")
    program = DEVICES if KERNELS else DEVICES.replace(""" and '"withlogits"' in text""", "")
    assert processes.run(program, env=env) == "all\n"


CACHED = """
    import jax, jax.numpy as jnp, withlogits
    jax.config.update("jax_compilation_cache_dir", PATH)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    both = jax.jit(jax.value_and_grad(lambda x, y: withlogits.sparse_softmax_cross_entropy_with_logits(
        labels=y, logits=x, reduction="mean")))
    print(float(both(jnp.arange(12.0).reshape(3, 4), jnp.array([1, 2, 3]))[0]).hex())
"""


def test_the_persistent_compilation_cache(tmp_path: Path) -> None:
    """A program holds no address: what one process compiled another one takes, and computes the same."""
    script = CACHED.replace("PATH", repr(str(tmp_path)))
    first = processes.run(script, env=processes.environment())
    programs = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name.endswith("-cache")}
    assert any(name.startswith("jit_") for name in programs)
    assert processes.run(script, env=processes.environment()) == first
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name.endswith("-cache")}
    assert after == programs
