"""Where torch's own losses return a wrong number: what they return, which is asserted too, and what ours do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from torch.nn import functional  # noqa: E402

from frameworks.torch_cases import INTEGERS, LOSSES, Case, differentiated  # noqa: E402

NAN, INF = torch.nan, torch.inf


def theirs(labels: Any, logits: Any, **options: Any) -> list[Any]:
    return differentiated(lambda z, x: functional.cross_entropy(x, z, **options), labels, logits)


def binary(labels: Any, logits: Any, **options: Any) -> list[Any]:
    def loss(z: Any, x: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(x, z, **options)

    return differentiated(loss, labels, logits)


def ours(loss: str, labels: Any, logits: Any, **options: Any) -> list[Any]:
    return differentiated(Case(loss, "", options), labels, logits)


def leaf(values: Any, dtype: Any = torch.float32) -> Any:
    return torch.as_tensor(values, dtype=dtype).clone().requires_grad_()


def truth(row: Any, **options: Any) -> Any:
    return oracle.softmax(row.detach().double().numpy(), **options)


@pytest.mark.parametrize(("dtype", "top"), [(torch.float32, 20.0), (torch.float64, 40.0)])
def test_the_tail_of_a_confident_row(dtype: Any, top: float) -> None:
    """torch: 0, and 0 for the label's gradient."""
    name = str(dtype).removeprefix("torch.")
    x, y = leaf([[top, 0.0, 0.0]], dtype), torch.tensor([0])
    loss, gradient = theirs(y, x)
    assert loss == 0.0
    assert gradient[0, 0] == 0.0
    loss, gradient = ours("sparse", y, x, reduction="mean")
    right = truth(x[0], label=0)
    assert oracle.ulp_error(loss, right.loss, name) <= 1
    assert oracle.worst(gradient[0].numpy(), right.gradient, name) <= 2
    z = leaf([[1.0, 0.0, 0.0]], dtype)
    assert theirs(z, x)[2][0, 0] == 0.0
    assert oracle.worst(ours("softmax", z, x)[2][0].numpy(), right.label_gradient, name) <= 1


def test_the_tail_of_a_yes_and_a_no() -> None:
    """torch (#195529): loss 0 where the answer is no, gradient 0 where it is yes."""
    x, z = leaf([-20.0, 20.0]), torch.tensor([0.0, 1.0])
    loss, gradient = binary(z, x, reduction="none")
    assert loss[0] == 0.0
    assert gradient[1] == 0.0
    loss, gradient = ours("sigmoid", z, x)
    for i in range(2):
        right = oracle.sigmoid_loss(x[i].item(), z[i].item())
        assert oracle.ulp_error(loss[i], right.loss, "float32") <= 1
        assert oracle.ulp_error(gradient[i], right.gradient[0], "float32") <= 1


def test_many_equal_halves() -> None:
    """torch: infinite for 131,072 equal float16 logits."""
    x, y = torch.zeros(1, 131_072, dtype=torch.float16), torch.tensor([7])
    assert functional.cross_entropy(x, y) == INF
    assert LOSSES["sparse"](labels=y, logits=x)[0].item() == np.float32(np.log(131_072))


def test_bfloat16_is_computed_in_float32() -> None:
    """torch: losses of rows of 50,000 are off by up to 0.03, being bfloat16 themselves."""
    x = torch.randn(8, 50_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = torch.arange(8)
    right = functional.cross_entropy(x.double(), y, reduction="none")
    wrong = functional.cross_entropy(x, y, reduction="none")
    assert wrong.dtype == torch.bfloat16
    assert (wrong - right).abs().max() > 0.02
    loss = LOSSES["sparse"](labels=y, logits=x)
    assert loss.dtype == torch.float32
    assert (loss - right).abs().max() < 2e-6


def test_a_loss_scale_in_float16() -> None:
    """torch: the customary 65,536 is infinite in float16, and the gradients NaN; ours are scaled, then rounded once."""
    logits = (torch.randn(512, 256, generator=torch.Generator().manual_seed(0)) * 2).half()
    y = torch.arange(512) % 256
    mine, other, exact = (leaf(logits, dtype) for dtype in (torch.float16, torch.float16, torch.float64))
    (functional.cross_entropy(other, y) * 65536.0).backward()
    assert other.grad.isnan().any()
    (LOSSES["sparse"](labels=y, logits=mine, reduction="mean") * 65536.0).backward()
    (functional.cross_entropy(exact, y) * 65536.0).backward()
    torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=1.01 * 2**-11, atol=2**-24)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_that_cannot_occur(smoothing: float) -> None:
    """torch: NaN for a soft label of 0, where 0 · inf is 0; a smoothed label wants every class, and is infinite."""
    x = leaf([[-INF, 0.0, 1.0]])
    z, y = torch.tensor([[0.0, 0.25, 0.75]]), torch.tensor([2])
    loss, _ = theirs(z, x, label_smoothing=smoothing)
    assert loss == INF if smoothing else loss.isnan()
    if smoothing:  # then every class has a share, and the truth of a soft or of a smoothed label is infinite
        assert ours("softmax", z, x, label_smoothing=smoothing)[0] == INF
        return
    loss, gradient = ours("softmax", z, x)
    right = truth(x[0], labels=z[0].numpy())
    assert oracle.ulp_error(loss, right.loss, "float32") <= 1
    assert oracle.worst(gradient[0].numpy(), right.gradient, "float32") <= 2
    assert ours("sparse", y, x)[0].isfinite()


def test_nan_in_a_row_that_is_ignored() -> None:
    """torch: NaN gradients there."""
    x, y = leaf([[NAN, 0.0, 0.0], [1.0, 2.0, 3.0]]), torch.tensor([-100, 1])
    assert theirs(y, x)[1][0].isnan().any()
    loss, gradient = ours("sparse", y, x, ignore_index=-100, reduction="mean")
    assert (gradient[0] == 0.0).all()
    expected, other = ours("sparse", y[1:], x.detach()[1:].requires_grad_(), reduction="mean")
    assert torch.equal(loss, expected)
    assert torch.equal(gradient[1:], other)


def test_everything_ignored() -> None:
    """torch (#70348, #116349): the mean of nothing is NaN."""
    x, y = leaf(torch.ones(2, 3)), torch.tensor([-100, -100])
    loss, gradient = theirs(y, x)
    assert loss.isnan()
    loss, gradient = ours("sparse", y, x, ignore_index=-100, reduction="mean")
    assert loss == 0.0
    assert (gradient == 0.0).all()


@pytest.mark.parametrize("dtype", [d for d in INTEGERS if d not in (torch.int64, torch.uint8)], ids=str)
def test_labels_of_small_integers(dtype: Any) -> None:
    """torch: rejected, all but int64 and uint8."""
    x, y = leaf([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1])
    with pytest.raises((RuntimeError, TypeError)):
        functional.cross_entropy(x, y.to(dtype))
    for got, expected in zip(ours("sparse", y.to(dtype), x), ours("sparse", y, x), strict=True):
        assert torch.equal(got, expected)


def test_one_rule_for_a_class_weighted_mean() -> None:
    """torch (#61309, #107680): over Σ w for indices, over N for the same labels one-hot."""
    x, y, w = leaf([[1.0, 2.0, 0.0], [0.0, 0.5, 3.0]]), torch.tensor([0, 2]), torch.tensor([0.5, 1.0, 4.0])
    z = functional.one_hot(y, 3).float()
    by_index, by_row = theirs(y, x, weight=w)[0], theirs(z, x, weight=w)[0]
    torch.testing.assert_close(by_row, by_index * (4.5 / 2))
    ours_ = [
        ours(name, labels, x, class_weight=w, reduction="mean") for name, labels in (("sparse", y), ("softmax", z))
    ]
    torch.testing.assert_close(ours_[0][0], by_index)
    for got, expected in zip(*ours_, strict=True):
        torch.testing.assert_close(got, expected, rtol=3e-7, atol=1e-8)


def test_rows_of_an_ignored_class_leave_the_mean() -> None:
    """As with torch, smoothing and class weights included; of the softmax it stays a class (torch#63004)."""
    x, y, w = (
        leaf([[1.0, 2.0, 0.0], [0.0, 0.5, 3.0], [4.0, 0.0, 1.0]]),
        torch.tensor([0, 2, 1]),
        torch.tensor([0.5, 1.2, 0.7]),
    )
    options = {"ignore_index": 2, "label_smoothing": 0.2}
    mine = ours("sparse", y, x, class_weight=w, reduction="mean", **options)
    for got, expected in zip(mine, theirs(y, x, weight=w, **options), strict=True):
        torch.testing.assert_close(got, expected)
    kept = torch.tensor([0, 2])
    alone = ours("sparse", y[kept], x.detach()[kept].requires_grad_(), class_weight=w, label_smoothing=0.2,
                 reduction="mean")  # fmt: skip
    torch.testing.assert_close(mine[0], alone[0])
    torch.testing.assert_close(mine[1][kept], alone[1])
    assert (mine[1][1] == 0.0).all()
    assert mine[1][0, 2].item() != 0.0


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_labels_that_are_not_distributions(loss: str) -> None:
    """TensorFlow: p − z, whatever the labels sum to. Torch is right here, and so are we."""
    x, z = leaf([[1.0, 2.0, 0.0]], torch.float64), torch.tensor([[0.5, 3.0, 0.25]], dtype=torch.float64)
    mine = ours(loss, z, x, reduction="sum")
    other = theirs(z, x) if loss == "softmax" else binary(z, x, reduction="sum")
    for got, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(got, expected)


def test_the_weighted_gradient_at_exactly_zero() -> None:
    """TensorFlow: 1 for z = 0. Torch's pos_weight is right here, and so are we."""
    x, z = leaf([0.0, 0.0]), torch.tensor([0.0, 1.0])
    assert ours("weighted", z, x, pos_weight=3.0)[1].tolist() == [0.5, -1.5]
    assert binary(z, x, pos_weight=torch.tensor(3.0), reduction="sum")[1].tolist() == [0.5, -1.5]


def test_a_masked_row_of_second_derivatives() -> None:
    """torch: NaN from a soft label of 0 on a class that cannot occur, and so for all that follows."""
    z = torch.tensor([[0.0, 0.25, 0.75]])

    def second(loss: Any) -> Any:
        x = leaf([[-INF, 0.0, 1.0]])
        (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
        return torch.autograd.grad(gradient[0, 1], x)[0]

    assert functional.cross_entropy(torch.tensor([[-INF, 0.0, 1.0]]), z).isnan()
    mine = second(lambda x: LOSSES["softmax"](labels=z, logits=x).sum())
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(mine[0].numpy(), [0.0, p * (1 - p), -p * (1 - p)], rtol=1e-6)
