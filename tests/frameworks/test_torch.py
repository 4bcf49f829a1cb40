"""PyTorch tensors: the same values and gradients as NumPy arrays, torch's own rules of autograd, plain errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import withlogits as wl

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional
sparse_loss = wl.sparse_softmax_cross_entropy_with_logits
dense_loss = wl.softmax_cross_entropy_with_logits
sigmoid_loss = wl.sigmoid_cross_entropy_with_logits

N, C = 6, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, C)) * 4
INDICES = np.array([0, 4, 2, 2, 1, 3])
SOFT = RNG.dirichlet(np.ones(C), size=N)
BINARY = RNG.uniform(size=(N, C))

Option = dict[str, Any]
SOFTMAX_OPTIONS: list[Option] = [
    {},
    {"label_smoothing": 0.1},
    {"class_weight": np.array([0.5, 1.0, 2.0, 0.0, 1.5])},
    {"class_weight": np.array([0.5, 1.0, 2.0, 0.0, 1.5]), "label_smoothing": 0.2},
    {"temperature": 2.0},
    {"softcap": 3.0},
    {"z_loss": 0.01},
    {"sample_weight": np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])},
    {"softcap": 5.0, "temperature": 0.5, "z_loss": 0.1, "label_smoothing": 0.1},
]
SIGMOID_OPTIONS: list[Option] = [
    {},
    {"label_smoothing": 0.1},
    {"pos_weight": np.array([0.5, 1.0, 2.0, 3.0, 1.5])},
    {"pos_weight": 3.0, "sample_weight": BINARY[:, :1]},
    {"sample_weight": np.where(BINARY > 0.5, BINARY, 0.0)},
]
Case = tuple[Callable[..., Any], np.ndarray, Option]
CASES: list[Case] = [
    *((sparse_loss, INDICES, option) for option in [*SOFTMAX_OPTIONS, {"ignore_index": 2}]),
    *((dense_loss, SOFT, option) for option in SOFTMAX_OPTIONS),
    *((sigmoid_loss, BINARY, option) for option in SIGMOID_OPTIONS),
]
NAMES = [f"{loss.__name__.split('_')[0]}-{'-'.join(option) or 'plain'}" for loss, _, option in CASES]
REDUCTIONS = ["none", "sum", "mean"]


def tensors(option: Option, dtype: Any = torch.float64) -> Option:
    return {k: torch.tensor(v, dtype=dtype) if isinstance(v, np.ndarray) else v for k, v in option.items()}


def labels_of(labels: np.ndarray, dtype: Any = torch.float64) -> Any:
    return torch.tensor(labels) if labels.dtype.kind == "i" else torch.tensor(labels, dtype=dtype)


every_case = pytest.mark.parametrize(("loss", "labels", "option"), CASES, ids=NAMES)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


@every_reduction
@every_case
def test_the_value_and_the_gradient_are_those_of_numpy(
    loss: Any, labels: np.ndarray, option: Option, reduction: str
) -> None:
    for name, rtol in (("float64", 1e-14), ("float32", 3e-7)):
        x = X.astype(name)
        z = labels.astype(name) if labels.dtype.kind == "f" else labels
        value, gradient = wl.value_and_grad(loss)(labels=z, logits=x, reduction=reduction, **option)
        logits = torch.tensor(x, requires_grad=True)
        ours = loss(labels=torch.tensor(z), logits=logits, reduction=reduction, **tensors(option))
        assert ours.dtype == logits.dtype
        np.testing.assert_allclose(ours.detach().numpy(), value, rtol=rtol)
        ours.sum().backward()
        np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=rtol, atol=1e-300)
        both = wl.value_and_grad(loss)(labels=torch.tensor(z), logits=logits, reduction=reduction, **tensors(option))
        np.testing.assert_allclose(both[0].numpy(), value, rtol=rtol)
        np.testing.assert_allclose(both[1].numpy(), gradient, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@every_case
def test_derivatives_of_every_kind(loss: Any, labels: np.ndarray, option: Option, reduction: str) -> None:
    """First and second, backward and forward, for logits and, where they have one, labels, against differences."""
    option = tensors(option)
    logits = torch.tensor(X[:3], requires_grad=True)
    z = labels_of(labels[:3])
    option = {k: v[:3] if k == "sample_weight" else v for k, v in option.items()}
    inputs: tuple[Any, ...] = (logits,)
    if z.is_floating_point():
        inputs = (logits, z.requires_grad_())

    def of(x: Any, z: Any = z) -> Any:
        return loss(labels=z, logits=x, reduction=reduction, **option)

    assert torch.autograd.gradcheck(
        of, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(of, inputs, check_fwd_over_rev=True, check_rev_over_rev=True)


def activation(name: str) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = getattr(wl, name)
    return function


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softplus", "logit"])
def test_activations(name: str) -> None:
    x = X[:3] if name != "logit" else BINARY[:3]
    given = torch.tensor(x, requires_grad=True)
    np.testing.assert_allclose(activation(name)(given).detach().numpy(), activation(name)(x), rtol=1e-14)
    assert torch.autograd.gradcheck(activation(name), given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(activation(name), given, check_fwd_over_rev=True)
    half = given.detach().to(torch.bfloat16)
    assert activation(name)(half).dtype == torch.bfloat16
    assert (
        torch.compile(activation(name), fullgraph=True, backend="aot_eager")(given).shape == activation(name)(x).shape
    )


@every_case
def test_transforms(loss: Any, labels: np.ndarray, option: Option) -> None:
    """torch.func sees the same function as autograd does."""
    option, z, x = tensors(option), labels_of(labels), torch.tensor(X)

    def mean(x: Any) -> Any:
        return loss(labels=z, logits=x, reduction="mean", **option)

    expected = x.clone().requires_grad_()
    mean(expected).backward()
    func = torch.func
    torch.testing.assert_close(func.grad(mean)(x), expected.grad)
    torch.testing.assert_close(func.jacfwd(mean)(x), expected.grad)
    hessian = func.jacrev(func.jacrev(mean))(x)
    torch.testing.assert_close(func.hessian(mean)(x), hessian)
    torch.testing.assert_close(func.jacfwd(func.jacfwd(mean))(x), hessian)
    assert hessian.abs().max() > 0


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (0, None), (None, 0), (2, 1)])
@pytest.mark.parametrize("kind", ["sparse", "dense", "sigmoid"])
def test_vmap(kind: str, in_dims: tuple[int | None, int | None], reduction: str) -> None:
    loss = {"sparse": sparse_loss, "dense": dense_loss, "sigmoid": sigmoid_loss}[kind]
    batch = 3
    x = torch.tensor(RNG.normal(size=(batch, N, C)))
    z = torch.tensor(RNG.integers(0, C, size=(batch, N)) if kind == "sparse" else RNG.uniform(size=(batch, N, C)))

    def one(x: Any, z: Any) -> Any:
        return loss(labels=z, logits=x, reduction=reduction)

    given = [t[0] if dim is None else t.movedim(0, dim) for t, dim in zip((x, z), in_dims, strict=True)]
    mapped = torch.vmap(one, in_dims=in_dims)(*given)
    each = [one(x[0 if in_dims[0] is None else i], z[0 if in_dims[1] is None else i]) for i in range(batch)]
    torch.testing.assert_close(mapped, torch.stack(each))
    mapped = torch.vmap(torch.func.grad(lambda x, z: one(x, z).sum()), in_dims=in_dims)(*given)
    assert mapped.shape[0] == batch


def test_vmap_over_class_weights() -> None:
    weights, x = torch.rand(3, C, dtype=torch.float64), torch.tensor(X)
    y = torch.tensor(INDICES)

    def weighted(w: Any) -> Any:
        return torch.ops.withlogits.softmax_rows(x, y, w, None, 1, True, 0.0, None, 1.0, None, 0.0)[0]

    torch.testing.assert_close(torch.vmap(weighted)(weights), torch.stack([weighted(w) for w in weights]))


@every_case
def test_compile_without_a_graph_break(loss: Any, labels: np.ndarray, option: Option) -> None:
    option, z = tensors(option), labels_of(labels)
    if "sample_weight" in option:
        option["sample_weight"] = option["sample_weight"][:1]

    def mean(x: Any, z: Any) -> Any:
        return loss(labels=z, logits=x * 1.0, reduction="mean", **option)

    torch._dynamo.reset()
    compiled = torch.compile(mean, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (6, 5, 4):
        plain, traced = (torch.tensor(X[:rows], requires_grad=True) for _ in range(2))
        mean(plain, z[:rows]).backward()
        value = compiled(traced, z[:rows])
        value.backward()
        torch.testing.assert_close(value, mean(plain, z[:rows]))
        torch.testing.assert_close(traced.grad, plain.grad)


def test_compiled_once_for_all_batch_sizes() -> None:
    torch._dynamo.reset()
    counter = pytest.importorskip("torch._dynamo.testing").CompileCounter()
    compiled = torch.compile(
        lambda x, y: sparse_loss(labels=y, logits=x, reduction="mean"), fullgraph=True, dynamic=True, backend=counter
    )
    for rows in (3, 4, 5, 6):
        compiled(torch.tensor(X[:rows]), torch.tensor(INDICES[:rows]))
    assert counter.frame_count == 1


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return sparse_loss(labels=y, logits=x, reduction="mean", ignore_index=-100)

    x, y = torch.tensor(X), torch.tensor(INDICES)
    program = torch.export.export(Model(), (x, y), strict=strict)
    assert "withlogits.softmax_rows" in str(program.graph)
    torch.testing.assert_close(program.module()(x, y), Model()(x, y))


def operators() -> dict[str, tuple[Any, ...]]:
    sparse_loss(labels=torch.tensor(INDICES), logits=torch.tensor(X))  # loads them
    x, y, z = torch.tensor(X), torch.tensor(INDICES), torch.tensor(SOFT)
    rows, empty = torch.ones(N, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    softmax = (None, rows, 1)
    numbers = (0.1, None, 1.0, None, 0.0)
    return {
        "softmax_rows": (x, y, *softmax, True, *numbers),
        "softmax_rows_backward": (rows, empty, x, z, *softmax, False, *numbers, True, True),
        "sigmoid_elements": (x, z, None, None, 0.1),
        "sigmoid_elements_backward": (torch.ones_like(x), x, z, None, None, 0.1, True, True),
        "softmax_map": (x, 1, "log_softmax"),
        "elementwise": (x, "sigmoid"),
    }


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("name", list(operators()))
def test_operators_pass_the_checks_of_torch(name: str, differentiable: bool) -> None:
    args = operators()[name]
    if differentiable:
        logits = 2 if name == "softmax_rows_backward" else 1 if name == "sigmoid_elements_backward" else 0
        args = (*args[:logits], args[logits].clone().requires_grad_(), *args[logits + 1 :])
    torch.library.opcheck(getattr(torch.ops.withlogits, name).default, args)


# -------------------------------------------------------------------------------------------------- autograd, in eager


@pytest.mark.parametrize("rows", [N, 70_000])  # the second with a gradient from the shelf of used memory
@every_reduction
def test_a_second_backward_and_an_upstream(reduction: str, rows: int) -> None:
    x = torch.tensor(np.resize(X, (rows, C)).astype(np.float32), requires_grad=True)
    y = torch.tensor(np.resize(INDICES, rows))
    loss = sparse_loss(labels=y, logits=x, reduction=reduction)
    upstream = torch.full(loss.shape, 1.0)
    (first,) = torch.autograd.grad(loss, x, upstream, retain_graph=True)
    expected = first.clone()
    first.mul_(7.0)  # nobody's but the caller's
    (second,) = torch.autograd.grad(loss, x, upstream, retain_graph=True)
    assert torch.equal(second, expected)
    (scaled,) = torch.autograd.grad(loss, x, upstream * 4.0, retain_graph=True)
    torch.testing.assert_close(scaled, expected * 4.0)
    (last,) = torch.autograd.grad(loss, x, upstream * -3.0)
    torch.testing.assert_close(last, expected * -3.0)
    assert torch.equal(second, expected)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, x, upstream)


def test_logits_that_are_changed_after_the_loss_are_an_error() -> None:
    x = torch.tensor(X, requires_grad=True)
    logits = x * 1.0
    loss = sparse_loss(labels=torch.tensor(INDICES), logits=logits, reduction="mean")
    logits.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_gradient_work_where_none_is_asked() -> None:
    x, y = torch.tensor(X, requires_grad=True), torch.tensor(INDICES)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not sparse_loss(labels=y, logits=x, reduction="mean").requires_grad
    assert not sparse_loss(labels=y, logits=x.detach()).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype: Any) -> None:
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        logits = x @ torch.eye(C)
        loss = sparse_loss(labels=torch.tensor(INDICES), logits=logits, reduction="mean")
    assert logits.dtype == dtype
    assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad.dtype == torch.float32


def test_a_confident_row_keeps_the_digits_of_its_second_derivatives() -> None:
    for dtype, rtol in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        x = torch.tensor([[20.0, 0.5, -1.0]], dtype=dtype, requires_grad=True)
        (g,) = torch.autograd.grad(sparse_loss(labels=torch.tensor([0]), logits=x).sum(), x, create_graph=True)
        (h,) = torch.autograd.grad(g[0, 0], x)
        e = np.exp(np.longdouble([0.5, -1.0]) - 20)
        rest = e.sum() / (1 + e.sum())
        truth = np.array([rest * (1 - rest), *(-(1 - rest) * e / (1 + e.sum()))], dtype=np.float64)
        np.testing.assert_allclose(h[0].double().numpy(), truth, rtol=rtol)


def test_ties_have_the_second_derivative_of_the_formula() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    hessian = torch.func.hessian(lambda x: sparse_loss(labels=torch.tensor([1]), logits=x).sum())(x)[0, :, 0]
    torch.testing.assert_close(hessian, torch.eye(3, dtype=torch.float64) / 3 - 1 / 9)


# ---------------------------------------------------------------------------------------- where torch itself is wrong


def torch_and_ours(torch_loss: Any, our_loss: Any, logits: Any, labels: Any) -> tuple[Any, ...]:
    results = []
    for loss in (torch_loss, our_loss):
        x = logits.clone().requires_grad_()
        value = loss(x, labels)
        (gradient,) = torch.autograd.grad(value, x)
        results += [value.detach(), gradient]
    return tuple(results)


def ours(**options: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: sparse_loss(labels=y, logits=x, reduction="mean", **options)


def test_a_confident_row() -> None:
    theirs, g, value, gradient = torch_and_ours(
        functional.cross_entropy, ours(), torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    )
    assert theirs == 0.0
    assert g[0, 0] == 0.0
    assert value.item() == pytest.approx(4.1223072e-9, rel=1e-6)
    assert gradient[0, 0].item() == pytest.approx(-4.1223072e-9, rel=1e-6)


def test_nan_in_an_ignored_row() -> None:
    logits = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])
    _, g, value, gradient = torch_and_ours(
        functional.cross_entropy, ours(ignore_index=-100), logits, torch.tensor([0, -100])
    )
    assert g.isnan().any()
    assert value.isfinite()
    assert (gradient[1] == 0.0).all()


def test_everything_ignored() -> None:
    theirs, _, value, gradient = torch_and_ours(
        functional.cross_entropy, ours(ignore_index=-100), torch.tensor([[1.0, 2.0]]), torch.tensor([-100])
    )
    assert theirs.isnan()
    assert value == 0.0
    assert (gradient == 0.0).all()


def test_a_masked_class_with_a_soft_label() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    labels = torch.tensor([[0.5, 0.5, 0.0]])
    theirs, _, value, gradient = torch_and_ours(
        functional.cross_entropy,
        lambda x, z: dense_loss(labels=z, logits=x, reduction="mean"),
        logits,
        labels,
    )
    assert theirs.isnan()
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_half_precision_of_many_equal_logits() -> None:
    logits, y = torch.zeros(1, 131_072, dtype=torch.float16), torch.tensor([0])
    assert functional.cross_entropy(logits, y).isinf()
    assert sparse_loss(labels=y, logits=logits).item() == pytest.approx(np.log(131_072), rel=1e-6)


def test_the_scale_of_a_loss_reaches_float16_gradients_before_they_vanish() -> None:
    logits = torch.zeros(4096, 64, dtype=torch.float16, requires_grad=True)
    y = torch.zeros(4096, dtype=torch.int64)
    (sparse_loss(labels=y, logits=logits, reduction="mean") * 65536.0).backward()
    truth = 65536.0 / 4096 * np.where(np.arange(64) == 0, 1 / 64 - 1, 1 / 64)
    np.testing.assert_allclose(logits.grad[0].float().numpy(), truth, rtol=2**-11)


def test_the_tail_of_the_sigmoid() -> None:
    theirs, _, value, gradient = torch_and_ours(
        functional.binary_cross_entropy_with_logits,
        lambda x, z: sigmoid_loss(labels=z, logits=x, reduction="mean"),
        torch.tensor([-20.0]),
        torch.tensor([0.0]),
    )
    assert theirs == 0.0
    assert value.item() == pytest.approx(2.0611537e-9, rel=1e-6)
    assert gradient.item() == pytest.approx(2.0611537e-9, rel=1e-6)


# ------------------------------------------------------------------------------------------------- layouts and errors


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_every_integer_dtype(dtype: str) -> None:
    y = torch.tensor(INDICES).to(getattr(torch, dtype))
    assert torch.equal(
        sparse_loss(labels=y, logits=torch.tensor(X)), sparse_loss(labels=INDICES, logits=torch.tensor(X))
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["axis", "transposed", "expanded", "strided", "empty", "kept"])
def test_layouts(layout: str, dtype: str) -> None:
    kind = getattr(torch, dtype)
    x = torch.tensor(X).to(kind)
    y, axis = torch.tensor(INDICES), -1
    if layout == "axis":
        x, y, axis = torch.tensor(RNG.normal(size=(2, C, 3, 4))).to(kind), torch.randint(0, C, (2, 3, 4)), 1
    elif layout == "transposed":
        x = x.t().contiguous().t()
    elif layout == "expanded":
        x = x[:1].expand(N, C)
    elif layout == "strided":
        x = torch.stack([x, x + 1], -1)[..., 0]
    elif layout == "empty":
        x, y = x[:0], y[:0]
    else:
        y = y[:, None]
    results = []
    for logits in (x, x.contiguous()):
        leaf = logits.detach().requires_grad_()
        loss = sparse_loss(labels=y, logits=leaf, axis=axis)
        assert loss.shape == y.shape
        assert loss.dtype == (kind if dtype == "float64" else torch.float32)
        loss.sum().backward()
        assert leaf.grad.dtype == kind
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=0)


def test_a_negative_view_is_read_as_what_it_means() -> None:
    plain = torch.tensor(X)
    view = torch.complex(torch.zeros_like(plain), -plain).conj().imag
    assert view.is_neg()
    y = torch.tensor(INDICES)
    assert torch.equal(sparse_loss(labels=y, logits=view), sparse_loss(labels=y, logits=plain))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"labels": torch.tensor([0, 1])}, ValueError, "class indices of shape (6,) or (6, 1) are expected"),
        ({"labels": torch.tensor([0, 1, 2, 9, 1, 1])}, ValueError, "labels[3] = 9 is outside [0, 5)"),
        ({"labels": torch.zeros(N)}, TypeError, "pass labels.to(torch.int64) if they are indices stored as floats"),
        ({"logits": torch.zeros(N, C, dtype=torch.int64)}, TypeError, "pass logits.to(torch.float32)"),
        ({"labels": torch.zeros(N, dtype=torch.int64, device="meta")}, ValueError, "pass labels.to(logits.device)"),
        ({"class_weight": torch.ones(C, requires_grad=True)}, ValueError, "pass class_weight.detach()"),
        ({"sample_weight": torch.tensor(-1.0)}, ValueError, "sample_weight is -1.0, where a finite weight"),
        ({"logits": torch.zeros(N, C).to_sparse()}, TypeError, "pass logits.to_dense()"),
    ],
)  # fmt: skip
def test_errors(change: Option, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        sparse_loss(**{"labels": torch.tensor(INDICES), "logits": torch.tensor(X), **change})
    assert text in str(caught.value)


def test_out_takes_the_gradient() -> None:
    x, y = torch.tensor(X), torch.tensor(INDICES)
    out = torch.empty_like(x)
    value, gradient = wl.value_and_grad(sparse_loss)(labels=y, logits=x, out=out)
    assert gradient is out
    expected = wl.value_and_grad(sparse_loss)(labels=y, logits=x)
    assert torch.equal(value, expected[0])
    assert torch.equal(out, expected[1])
    with pytest.raises(ValueError, match="out must be of shape"):
        wl.value_and_grad(sparse_loss)(labels=y, logits=x, out=out[:2])
    with pytest.raises(ValueError, match="labels\\[0\\] = 7 is outside"):
        wl.value_and_grad(sparse_loss)(labels=y + 7, logits=x, out=out)
    assert torch.equal(out, expected[1])
    wl.value_and_grad(sparse_loss)(labels=y, logits=x, out=x)
    assert torch.equal(x, expected[1])


def test_all_64_bits_of_an_ignored_label_count() -> None:
    labels = torch.tensor([-1, 1]).view(torch.uint64)
    loss = sparse_loss(labels=labels, logits=torch.zeros(2, 3), ignore_index=2**64 - 1, reduction="mean")
    assert loss.item() == pytest.approx(np.log(3), rel=1e-6)


def test_a_sum_beyond_the_largest_number_is_infinite() -> None:
    logits = torch.tensor([[3e38, -3e38]] * 3)
    assert sparse_loss(labels=torch.ones(3, dtype=torch.int64), logits=logits, reduction="sum").isinf()
