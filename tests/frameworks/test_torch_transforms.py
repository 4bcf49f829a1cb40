"""Under torch's transforms losses are what they are without: torch.func, compile, export, tracing, meta tensors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch import func  # noqa: E402
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn import functional  # noqa: E402

from frameworks.torch_cases import (  # noqa: E402
    ACTIVATIONS,
    CASES,
    EVERY,
    FEW,
    LOSSES,
    SOFTMAX_MAPS,
    Case,
    differentiated,
    ours,
)

few_cases = pytest.mark.parametrize("case", FEW, ids=str)
assert_close = torch.testing.assert_close


# ---------------------------------------------------------------------------------------------------------- torch.func


def theirs(loss: str) -> Any:
    """Torch's own loss, which is right for these ordinary numbers in float64; it has no jvp of a jvp of the binary."""
    if loss == "sigmoid":
        return lambda z, x: (functional.softplus(x) - z * x).mean()
    return lambda z, x: functional.cross_entropy(x, z, reduction="mean")


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")  # torch's linearize, always
@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_func_gives_what_it_gives_of_torchs_own_losses(loss: str) -> None:
    labels, logits = Case(loss, "").tensors()
    v, w = torch.randn(2, 4, 3, dtype=torch.float64)
    ways: dict[str, Any] = {
        "grad": lambda f: func.grad(f)(logits),
        "grad_and_value": lambda f: func.grad_and_value(f)(logits),
        "vjp": lambda f: func.vjp(f, logits)[1](torch.tensor(0.7, dtype=torch.float64)),
        "jvp": lambda f: func.jvp(f, (logits,), (v,)),
        "jacrev": lambda f: func.jacrev(f)(logits),
        "jacfwd": lambda f: func.jacfwd(f)(logits),
        "hessian": lambda f: func.hessian(f)(logits),
        "jacrev of jacrev": lambda f: func.jacrev(func.jacrev(f))(logits),
        "jacfwd of jacfwd": lambda f: func.jacfwd(func.jacfwd(f))(logits),
        "jacrev of jacfwd": lambda f: func.jacrev(func.jacfwd(f))(logits),
        "jvp of jvp": lambda f: func.jvp(lambda x: func.jvp(f, (x,), (v,))[1], (logits,), (w,)),
        "jvp of grad": lambda f: func.jvp(func.grad(f), (logits,), (v,)),
        "grad of jvp": lambda f: func.grad(lambda x: func.jvp(f, (x,), (v,))[1])(logits),
        "linearize": lambda f: func.linearize(f, logits)[1](v),
    }
    own, other = Case(loss, "", {"reduction": "mean"}), theirs(loss)
    for name, way in ways.items():
        assert_close(way(lambda x: own(labels, x)), way(lambda x: other(labels, x)), msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_jacobian_and_hessian_is_autograds(case: Case) -> None:
    labels, logits = case.tensors()
    args = (logits,) if case.loss == "sparse" else (logits, labels)
    which = tuple(range(len(args)))

    def of(x: Any, z: Any = labels) -> Any:
        return case(z, x)

    def total(x: Any, z: Any = labels) -> Any:
        return case(z, x).sum()

    expected = torch.autograd.functional.jacobian(of, args)
    assert_close(func.jacrev(of, which)(*args), expected)
    assert_close(func.jacfwd(of, which)(*args), expected)
    assert_close(func.grad(total, which)(*args), torch.autograd.functional.jacobian(total, args))
    second = torch.autograd.functional.hessian(total, args)
    assert_close(func.hessian(total, which)(*args), second)
    assert_close(func.jacrev(func.jacrev(total, which), which)(*args), second)
    assert_close(func.jacfwd(func.jacfwd(total, which), which)(*args), second)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), case=st.sampled_from([c for c in CASES if c.shape == (4, 3)]), seed=st.integers(0, 999))
def test_vmap_over_anything(data: Any, case: Case, seed: int) -> None:
    """Logits, labels and weights, each mapped over some axis or over none: the same as one by one."""
    batch = data.draw(st.sampled_from([1, 2, 3]), "batch")
    some = [case.tensors(seed=seed + i) for i in range(batch)]
    scale = torch.linspace(0.5, 2.0, batch, dtype=torch.float64)
    names = [n for n in ("class_weight", "sample_weight", "pos_weight") if n in case.options]
    weights = [[torch.as_tensor(case.options[n]) * s for s in scale] for n in names]
    columns = [[z for z, _ in some], [x for _, x in some], *weights]
    dims = [data.draw(st.sampled_from([None, *range(column[0].dim() + 1)])) for column in columns]
    if all(dim is None for dim in dims):
        dims[1] = 0
    stacked = [c[0] if d is None else torch.stack(c, d) for c, d in zip(columns, dims, strict=True)]

    def one(z: Any, x: Any, *given: Any) -> Any:
        return case(z, x, **dict(zip(names, given, strict=True)))

    def gradient(z: Any, x: Any, *given: Any) -> Any:
        return func.grad(lambda a: one(z, a, *given).sum())(x)

    for function in (one, gradient):
        each = [function(*(c[0 if d is None else i] for c, d in zip(columns, dims, strict=True))) for i in range(batch)]
        assert_close(torch.vmap(function, tuple(dims))(*stacked), torch.stack(each))


@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_vmap_of_one_in_vmap_and_over_nothing(loss: str, reduction: str) -> None:
    case = Case(loss, "", {"reduction": reduction}, (2, 5, 4, 3))
    labels, logits = case.tensors()
    flat = Case(loss, "", {"reduction": reduction})
    for inner in (flat, func.grad(lambda z, x: flat(z, x).sum(), argnums=1)):
        got = torch.vmap(torch.vmap(inner, (0, 0)), (0, 0))(labels, logits)
        assert_close(got, torch.stack([torch.stack([inner(z, x) for z, x in zip(a, b, strict=True)])
                                       for a, b in zip(labels, logits, strict=True)]))  # fmt: skip
        turned = torch.vmap(torch.vmap(inner, (0, 1)), (1, 2))(labels, logits.movedim((1, 2), (2, 1)).transpose(0, 1))
        assert_close(turned, got.transpose(0, 1))
        z, x = labels[0], logits[0]
        assert_close(torch.vmap(inner, (0, None))(z, x[0]), torch.stack([inner(a, x[0]) for a in z]))
        assert_close(torch.vmap(inner, (None, 0))(z[0], x), torch.stack([inner(z[0], b) for b in x]))
        if reduction == "none":  # torch divides no number by another under an empty vmap
            shape = inner(labels[0, 0], logits[0, 0]).shape
            assert torch.vmap(inner)(labels[0][:0], logits[0][:0]).shape == (0, *shape)


@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_vmap_over_weights_alone(loss: str) -> None:
    labels, logits = Case(loss, "").tensors()
    weights = torch.linspace(0.0, 2.0, 9, dtype=torch.float64).view(3, 3)

    def weighted(w: Any) -> Any:
        return Case(loss, "")(labels, logits, **{"pos_weight" if loss == "sigmoid" else "class_weight": w})

    assert_close(torch.vmap(weighted)(weights), torch.stack([weighted(w) for w in weights]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_under_vmap(name: str) -> None:
    x = torch.rand(2, 3, 4, dtype=torch.float64)
    function = getattr(withlogits, name)
    for dim in range(3):
        for options in ({}, {"axis": 0}) if name in SOFTMAX_MAPS else ({},):
            mapped = torch.vmap(lambda a, o=options: function(a, **o), dim)(x)
            assert_close(mapped, torch.stack([function(a, **options) for a in x.unbind(dim)]))


def test_an_error_in_a_transform_is_ours() -> None:
    case = Case("sparse", "")
    with pytest.raises(ValueError, match=r"class indices of shape \(4,\) or \(4, 1\) are expected"):
        func.grad(lambda x: case(torch.zeros(5, dtype=torch.int64), x).sum())(torch.zeros(4, 3))


# ------------------------------------------------------------------------------------------------- compile and export


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_without_a_graph_break(case: Case) -> None:
    torch._dynamo.reset()
    labels, logits = case.tensors(np.float32, grad=True)
    compiled = torch.compile(case.of_tensors(), fullgraph=True, backend="aot_eager")
    expected = differentiated(case, labels, logits)
    for got, other in zip(differentiated(compiled, labels, logits), expected, strict=True):
        assert_close(got, other, rtol=1e-6, atol=1e-7)
        assert got.dtype == other.dtype
    if case in FEW:  # without gradients another graph is made of the same code
        with torch.no_grad():
            assert_close(compiled(labels, logits), expected[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_compiled_without_a_graph_break(name: str) -> None:
    torch._dynamo.reset()
    function = getattr(withlogits, name)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    expected = differentiated(lambda _, a: function(a), x.detach(), x)
    assert_close(differentiated(lambda _, a: compiled(a), x.detach(), x), expected)


# What one number more than in another case changes is a constant of the graph; some cases have several such numbers.
ONE_NUMBER = ("smoothed, mean", "temperature, mean", "softcap, mean", "z-loss, mean", "class weights, smoothed, mean")


@pytest.mark.parametrize(
    ("case", "dynamic", "graphs"),
    [
        *((c, None, 2) for c in EVERY if c.name in ("plain, none", "plain, mean")),
        *(
            (c, True, 1)
            for c in EVERY
            if (c.shape, c.labels, c.options.get("reduction")) == ((4, 3), "full", "mean") and c.name not in ONE_NUMBER
        ),
    ],
    ids=str,
)
def test_one_graph_serves_all_batch_sizes(case: Case, dynamic: bool | None, graphs: int) -> None:
    """Or two, where the first size is not known to be one of many."""
    torch._dynamo.reset()
    options = case.of_tensors().options
    if "sample_weight" in options:
        options["sample_weight"] = options["sample_weight"][:1]

    def loss(z: Any, x: Any) -> Any:
        return case.function(labels=z, logits=x * 2.0, **options)

    counter, made = CompileCounterWithBackend("aot_eager"), set()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=counter)
    for rows in (5, 4, 6, 7, 40):
        labels, logits = replace(case, shape=(rows, 3)).tensors(grad=True)
        expected = differentiated(loss, labels, logits)
        assert_close(differentiated(compiled, labels, logits), expected)
        made.add(counter.frame_count)  # which counts what torch starts anew, too
    assert len(made) == graphs


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="there is no C++ compiler")
def test_inductor() -> None:
    torch._dynamo.reset()
    case = Case("sparse", "", {"reduction": "mean", "label_smoothing": 0.1})
    labels, logits = case.tensors(np.float32, grad=True)
    compiled = torch.compile(lambda z, x: case(z, x * 2.0) + 1.0, fullgraph=True)
    expected = differentiated(lambda z, x: case(z, x * 2.0) + 1.0, labels, logits)
    assert_close(differentiated(compiled, labels, logits), expected)


@pytest.mark.parametrize("strict", [False, True])
@few_cases
def test_exported(case: Case, strict: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, labels: Any, logits: Any) -> Any:
            return case(labels, logits)

    case = case.of_tensors()
    labels, logits = case.tensors(np.float32)
    rows = torch.export.Dim("rows", min=2, max=100)
    free = case.shape == (4, 3) and "sample_weight" not in case.options
    program = torch.export.export(
        Model(), (labels, logits), dynamic_shapes=({0: rows}, {0: rows}) if free else None, strict=strict
    )
    operator = "sigmoid_elements" if case.loss == "sigmoid" else "softmax_rows"
    assert f"withlogits.{operator}" in str(program.graph)
    assert_close(program.module()(labels, logits), case(labels, logits))
    if free:
        again = torch.cat([labels, labels]), torch.cat([logits, logits])
        assert_close(program.module()(*again), case(*again))


# -------------------------------------------------------------------------------------- operators, tracing, no memory


def samples(dtype: Any) -> dict[str, tuple[Any, ...]]:
    wide = torch.promote_types(dtype, torch.float32)
    x, rows, index = torch.randn(4, 3).to(dtype), torch.ones(4, dtype=wide), torch.tensor([0, 2, 1, -1])
    z, w, s, nothing = torch.rand(4, 3).to(dtype), torch.rand(3), torch.rand(4), torch.empty(0, dtype=dtype)
    options = (0.1, -1, 1.5, 3.0, 0.2)
    return {
        "softmax_rows": (x, index, w, s, torch.rand(3), 1, True, *options),
        "softmax_rows_backward": (rows, nothing, x, z, w, s, None, 1, False, *options, True, True),
        "sigmoid_elements": (x, z, torch.rand(4, 3), s[:, None].expand(4, 3), 0.1, -1.0),
        "sigmoid_elements_backward": (torch.ones(4, 3, dtype=wide), nothing, x, z, None, None, 0.1, None, True, True),
        "softmax_map": (x, 1, "log_softmax"),
        "elementwise": (x, "softplus"),
    }


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", samples(torch.float32))
def test_torchs_own_checks_of_the_operators(name: str, dtype: Any, differentiable: bool) -> None:
    withlogits.softmax(torch.zeros(1))  # which loads them
    args = [
        a.clone().requires_grad_() if differentiable and isinstance(a, torch.Tensor) and a.dtype == dtype and a.numel()
        and a.shape == (4, 3) else a for a in samples(dtype)[name]
    ]  # fmt: skip
    result = torch.library.opcheck(getattr(torch.ops.withlogits, name).default, args)
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", samples(torch.float32))
def test_torchs_own_checks_of_transposed_arrays(name: str, dtype: Any) -> None:
    """Strides of results are those that tracing predicts; compiled code refuses others."""
    withlogits.softmax(torch.zeros(1))
    args = [a.t().contiguous().t() if isinstance(a, torch.Tensor) and a.dim() == 2 else a for a in samples(dtype)[name]]
    result = torch.library.opcheck(getattr(torch.ops.withlogits, name).default, args, test_utils="test_faketensor")
    assert set(result.values()) == {"SUCCESS"}


@few_cases
def test_traced_by_make_fx(case: Case) -> None:
    labels, logits = case.tensors()

    def both(z: Any, x: Any) -> Any:
        x = x.detach().requires_grad_()
        value = case(z, x)
        return value, torch.autograd.grad(value.sum(), x)[0]

    for mode in ("real", "fake", "symbolic"):
        traced = make_fx(both, tracing_mode=mode)(labels, logits)
        assert ours([node.target for node in traced.graph.nodes if node.op == "call_function"])
        assert_close(traced(labels, logits), both(labels, logits))


@few_cases
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_shapes_without_memory(case: Case, dtype: Any) -> None:
    """On fake tensors and on the device "meta": the shapes, strides and dtypes of the results, and no numbers."""
    labels, logits = case.tensors(dtype, grad=True)
    expected = [(t.shape, t.stride(), t.dtype) for t in differentiated(case, labels, logits)]
    with FakeTensorMode() as mode:
        wrap = mode.from_tensor
        weights = {n: wrap(v) if isinstance(v, torch.Tensor) else v for n, v in case.of_tensors().options.items()}
        faked = differentiated(replace(case, options=weights), wrap(labels), wrap(logits))
    assert [(t.shape, t.stride(), t.dtype) for t in faked] == expected
    on_meta = [t.detach().to("meta").requires_grad_(t.requires_grad) for t in (labels, logits)]
    got = differentiated(case.of_tensors("meta"), *on_meta)
    assert [(t.shape, t.stride(), t.dtype) for t in got] == expected
    assert {t.device.type for t in got} == {"meta"}


@pytest.mark.parametrize("weight", [[1.0, 2.0, 0.5], torch.tensor([1.0, 2.0, 0.5])], ids=["list", "tensor"])
def test_the_weighted_mean_of_a_single_row(weight: Any) -> None:
    """Its label has no axis, and is not to be read by the host."""
    torch._dynamo.reset()
    sparse = withlogits.sparse_softmax_cross_entropy_with_logits
    labels, logits = torch.tensor(1), torch.randn(3)

    def loss(x: Any, y: Any) -> Any:
        return sparse(labels=y, logits=x, class_weight=weight, reduction="mean")

    class Model(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return loss(x, y)

    value = loss(logits, labels)
    gradient = withlogits.value_and_grad(sparse)(labels=labels, logits=logits, class_weight=weight, reduction="mean")[1]
    assert_close(func.vmap(func.grad(loss))(logits[None], labels[None])[0], gradient)
    assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(logits, labels), value)
    assert_close(make_fx(loss)(logits, labels)(logits, labels), value)
    for strict in (True, False) if isinstance(weight, list) else (False,):
        assert_close(torch.export.export(Model(), (logits, labels), strict=strict).module()(logits, labels), value)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_out_is_compiled(loss: str, own: bool) -> None:
    torch._dynamo.reset()
    labels, logits = Case(loss, "").tensors(np.float32)
    step = withlogits.value_and_grad(LOSSES[loss])

    def both(z: Any, x: Any, out: Any) -> Any:
        return step(labels=z, logits=x, out=out, reduction="mean")

    expected = step(labels=labels, logits=logits, reduction="mean")
    given = logits.clone()
    out = given if own else torch.empty_like(logits)
    value, gradient = torch.compile(both, fullgraph=True, backend="aot_eager")(labels, given, out)
    assert gradient is out
    assert_close((value, gradient), expected)
    with pytest.raises(ValueError, match="out must be of shape"):
        torch.compile(both, backend="eager")(labels, logits, out[:1])
