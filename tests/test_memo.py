"""What one call leaves behind must not be taken for another's: calls that are nearly alike, one after the other."""

from __future__ import annotations

import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import memo, options
from withlogits.frameworks import numpy as front

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad

X = np.random.default_rng(0).normal(0.0, 2.0, (4, 3)).astype(np.float32)
Y = np.array([0, 2, 1, 1])
Z = np.random.default_rng(1).dirichlet(np.ones(3), 4).astype(np.float32)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in (
        (options, ("_softmax", "_sigmoid")),
        (front, ("_calls", "_maps")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, {})


def unaligned(array: Any) -> Any:
    copy = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Subclass(np.ndarray[Any, Any]):
    pass


def read_only(array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


# the same numbers in another form, which may be met with the same shape
FORMS: dict[str, Any] = {
    "as they are": lambda a: a,
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "the other byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "read-only": read_only,
    "not aligned": unaligned,
    "a subclass": lambda a: a.view(Subclass),
    "a list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_arrays_of_another_form(engine: Any, first: str, second: str) -> None:
    both = value_and_grad(softmax_loss, ("logits", "labels"))
    for of_logits, of_labels in ((first, second), (second, first), (first, first), (second, second)):
        logits, labels = FORMS[of_logits](X), FORMS[of_labels](Z)
        value, (gradient, by_label) = both(labels=labels, logits=logits)
        for array, of in ((gradient, of_logits), (by_label, of_labels), (value, of_logits)):
            assert type(array) is np.ndarray
            assert array.dtype == (np.float64 if of == "a list" else np.float32)
            assert array.dtype.isnative
            assert array.flags.writeable
        wide, wanted = both(labels=Z.astype(np.float64), logits=X.astype(np.float64))
        np.testing.assert_allclose(value, wide, rtol=1e-6)
        np.testing.assert_allclose(gradient, wanted[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(by_label, wanted[1], rtol=1e-6)
        np.testing.assert_allclose(sigmoid_loss(labels=labels, logits=logits), sigmoid_loss(labels=Z, logits=X), 1e-6)
        np.testing.assert_allclose(withlogits.softplus(logits), withlogits.softplus(X), rtol=1e-6)


@pytest.mark.parametrize("code", "bhilqBHILQ")
def test_class_indices_of_other_integers(engine: Any, code: str) -> None:
    expected = sparse_loss(labels=Y, logits=X)
    np.testing.assert_array_equal(sparse_loss(labels=Y.astype(code), logits=X), expected)
    # one case of int64 and uint64: what lies beyond int64 can be a label of the latter alone
    big = 2**64 - 1
    np.testing.assert_array_equal(sparse_loss(labels=Y.astype(code), logits=X, ignore_index=big), expected)
    labels = Y.astype(np.uint64)
    labels[0] = big
    assert sparse_loss(labels=labels, logits=X, ignore_index=big)[0] == 0.0


def test_dtypes_that_are_refused_after_their_like_was_served(engine: Any) -> None:
    sparse_loss(labels=Y, logits=X)
    softmax_loss(labels=Z, logits=X)
    withlogits.softplus(X)
    for dtype in (np.float64, np.bool_, "m8[s]"):
        with pytest.raises(TypeError, match=r"^labels have dtype"):
            sparse_loss(labels=Y.astype(dtype), logits=X)
    for call in (lambda x: sparse_loss(labels=Y, logits=x), lambda x: softmax_loss(labels=Z, logits=x)):
        for dtype in (np.int32, np.uint32, np.complex64):
            with pytest.raises(TypeError, match=r"^logits have dtype"):
                call(X.astype(dtype))
    with pytest.raises(TypeError, match=r"^x has dtype int32"):
        withlogits.softplus(X.astype(np.int32))
    with pytest.raises(TypeError, match=r"^p has dtype int32"):
        withlogits.logit(X.astype(np.int32))
    with pytest.raises(TypeError, match=r"masked array"):
        softmax_loss(labels=Z, logits=np.ma.masked_array(X))


@pytest.mark.parametrize("bad", [1.0, Decimal(1), Fraction(1), 1 + 0j, np.float64(1), np.bool_(True), np.array(1.0)])
def test_an_axis_that_only_equals_one(engine: Any, bad: Any) -> None:
    assert bad == 1
    expected = softmax_loss(labels=Z, logits=X, axis=1)
    for axis in (True, np.int64(1), np.array(1), 1):
        np.testing.assert_array_equal(softmax_loss(labels=Z, logits=X, axis=axis), expected)
        np.testing.assert_array_equal(softmax_loss(labels=Z, logits=X, dim=axis), expected)
        for word in ("axis", "dim"):
            with pytest.raises(TypeError, match=r"^axis is .*, where an integer is expected$"):
                softmax_loss(labels=Z, logits=X, **{word: bad})
    with pytest.raises(ValueError, match=r"were both given"):
        softmax_loss(labels=Z, logits=X, axis=1, dim=1)


def test_an_axis_out_of_range_is_refused_each_time(engine: Any) -> None:
    for axis in (1, True, np.int8(1), 1):
        softmax_loss(labels=Z, logits=X, axis=axis)
        with pytest.raises(ValueError, match=r"^axis 1 is outside"):
            softmax_loss(labels=Z[0], logits=X[0], axis=axis)


NUMBERS = [1, True, np.float32(1), np.int8(1), np.bool_(True), np.array(1.0), np.array(1), Decimal(1), Fraction(1)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n}")
@pytest.mark.parametrize("option", ["temperature", "softcap", "z_loss", "label_smoothing"])
def test_numbers_that_are_no_floats_are_taken_for_them(engine: Any, option: str, number: Any) -> None:
    both = value_and_grad(softmax_loss)
    expected = both(labels=Z, logits=X, **{option: 1.0})
    for given in (number, 1.0, number):
        got = both(labels=Z, logits=X, **{option: given})
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
        if option == "label_smoothing":
            sigmoid_loss(labels=Z, logits=X, label_smoothing=given)


@pytest.mark.parametrize("bad", [1 + 0j, "1", [1.0], np.ones(1), {}, object()], ids=lambda bad: type(bad).__name__)
@pytest.mark.parametrize("option", ["temperature", "softcap", "z_loss", "label_smoothing"])
def test_what_is_no_number_is_refused_after_its_like(engine: Any, option: str, bad: Any) -> None:
    for _ in range(2):
        softmax_loss(labels=Z, logits=X, **{option: 1.0})
        with pytest.raises(TypeError, match=f"^{option} is .*, where a number is expected$"):
            softmax_loss(labels=Z, logits=X, **{option: bad})
        if option == "label_smoothing":
            sigmoid_loss(labels=Z, logits=X, label_smoothing=1.0)
            with pytest.raises(TypeError, match=r"^label_smoothing is .*, where a number is expected$"):
                sigmoid_loss(labels=Z, logits=X, label_smoothing=bad)


def test_options_out_of_range_are_refused_each_time(engine: Any) -> None:
    for _ in range(2):
        for option, bad in (
            ("temperature", 0.0),
            ("softcap", float("nan")),
            ("z_loss", -1.0),
            ("label_smoothing", 1.5),
        ):
            with pytest.raises(ValueError, match=f"^{option} is"):
                softmax_loss(labels=Z, logits=X, **{option: bad})
        for bad_name in ("average", np.str_("mean"), ["mean"], None):
            sigmoid_loss(labels=Z, logits=X, reduction="mean")
            softmax_loss(labels=Z, logits=X, reduction="mean")
            for loss in (sigmoid_loss, softmax_loss):
                with pytest.raises(ValueError, match=r"^reduction is .*, where 'none', 'sum' or 'mean' is expected$"):
                    loss(labels=Z, logits=X, reduction=bad_name)


@pytest.mark.parametrize("bad", [1.0, Decimal(1), 1 + 0j])
def test_an_ignore_index_that_only_equals_one(engine: Any, bad: Any) -> None:
    for given in (1, True, np.int8(1)):
        assert (sparse_loss(labels=Y, logits=X, ignore_index=given)[2:] == 0.0).all()
        with pytest.raises(TypeError, match=r"^ignore_index is .*, where an integer or None is expected$"):
            sparse_loss(labels=Y, logits=X, ignore_index=bad)
    assert (sparse_loss(labels=Y, logits=X) > 0.0).all()


def test_weights_and_out_are_looked_at_each_time(engine: Any) -> None:
    """They are no part of what is kept, or by their strides alone."""
    for loss, weight in ((softmax_loss, np.array([1.0, 2.0, 0.0, 1.0])), (sigmoid_loss, np.float64(2.0))):
        both = value_and_grad(loss)
        plain = both(labels=Z, logits=X)
        weight = (
            np.array([1.0, 2.0, 0.0, 1.0]) if both.__name__ == "value_and_grad(" + softmax_loss.__name__ + ")" else 2.0
        )
        for given in (weight, np.float32(1.0), np.asarray(weight, np.float32), None):
            value, gradient = both(labels=Z, logits=X, sample_weight=given)
            factor = 1.0 if given is None else np.asarray(given, np.float64)
            np.testing.assert_allclose(value, plain[0] * factor, rtol=1e-6)
            shaped = factor[:, None] if np.ndim(factor) else factor
            np.testing.assert_allclose(gradient, plain[1] * shaped, rtol=1e-6, atol=1e-9)
        for out in (np.empty_like(X), np.empty((4, 6), np.float32)[:, ::2], np.empty((4, 3), np.float32, order="F")):
            value, gradient = both(labels=Z, logits=X, out=out)
            assert gradient is out
            np.testing.assert_array_equal(gradient, plain[1])
        for bad in (np.empty((3, 4), np.float32), np.empty((4, 3)), read_only(X), X.tolist()):
            with pytest.raises(ValueError, match=r"^out must be"):
                both(labels=Z, logits=X, out=bad)
        with pytest.raises(ValueError, match=r"^sample_weight"):
            both(labels=Z, logits=X, sample_weight=-1.0)
        np.testing.assert_array_equal(both(labels=Z, logits=X)[1], plain[1])


def test_a_factor_for_what_is_true_changes_from_call_to_call(engine: Any) -> None:
    plain = sigmoid_loss(labels=Z, logits=X)
    for factor in (3.0, 0.5, np.float32(2.0), [1.0, 2.0, 3.0], np.array([[2.0]] * 4), None):
        got = sigmoid_loss(labels=Z, logits=X, pos_weight=factor)
        q = 1.0 if factor is None else np.asarray(factor, np.float64)
        x, z = X.astype(np.float64), Z.astype(np.float64)
        np.testing.assert_allclose(got, q * z * np.logaddexp(0, -x) + (1 - z) * np.logaddexp(0, x), rtol=1e-6)
    for bad in (-1.0, float("nan"), float("inf"), np.array(-2.0)):
        with pytest.raises(ValueError, match=r"^pos_weight is .*, where a finite weight of 0 or more is expected$"):
            sigmoid_loss(labels=Z, logits=X, pos_weight=bad)
    np.testing.assert_array_equal(sigmoid_loss(labels=Z, logits=X), plain)


def test_results_are_arrays_of_their_own(engine: Any) -> None:
    both = value_and_grad(sparse_loss)
    first = both(labels=Y, logits=X)
    kept = first[0].copy(), first[1].copy()
    second = both(labels=Y, logits=-X)
    assert not np.shares_memory(first[1], second[1])
    np.testing.assert_array_equal(first[0], kept[0])
    np.testing.assert_array_equal(first[1], kept[1])


def test_names_of_arguments_are_looked_at_each_time() -> None:
    both = value_and_grad(sparse_loss)
    for _ in range(2):
        both(labels=Y, logits=X)
        both(logits=X, labels=Y, reduction="sum")
        for wrong in ({"labels": Y}, {"logits": X}, {"labels": Y, "logits": X, "dim": 1}, {}):
            with pytest.raises(TypeError, match=r"^value_and_grad\(sparse"):
                both(**wrong)
        with pytest.raises(TypeError, match=r"by keyword"):
            both(Y, labels=Y, logits=X)


def test_a_memo_is_bounded(engine: Any) -> None:
    for i in range(2 * memo.LIMIT + 10):
        softmax_loss(labels=Z, logits=X, temperature=1.0 + i)
        assert len(front._calls) <= memo.LIMIT
        assert len(options._softmax) <= memo.LIMIT


def test_two_threads_fill_and_clear_one_memo(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "LIMIT", 3)
    expected = {t: softmax_loss(labels=Z, logits=X, temperature=t) for t in (1.0, 2.0, 3.0, 4.0, 5.0)}
    failures: list[Any] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed)
        try:
            for t in order.choice(list(expected), 300).tolist():
                np.testing.assert_array_equal(softmax_loss(labels=Z, logits=X, temperature=t), expected[t])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
