"""The guide and the evaluation of JAX arrays: what is found of NumPy's, and fixes in JAX's words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")

import jax.numpy as jnp  # noqa: E402

import withlogits  # noqa: E402
from guide.corpus import CLEAN, MISTAKES, Case, Pair, fits, mended  # noqa: E402
from withlogits.guide import DiagnosisError, GuideWarning  # noqa: E402

LOSS = withlogits.sparse_softmax_cross_entropy_with_logits
LOGITS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
LABELS = LOGITS.argmax(axis=1).astype(np.int32)
DTYPES = (jnp.float32, jnp.bfloat16)


def in_jax(pair: Pair) -> Pair | None:
    """The pair as arrays of JAX; None for a bfloat16 that NumPy saved as plain bytes."""
    with jax.enable_x64(True):
        arrays = []
        for x in (pair.labels, pair.logits):
            array = np.asarray(x)
            if array.dtype == np.dtype("V2"):
                return None
            arrays.append(jnp.asarray(array))
        return Pair(arrays[0], arrays[1], pair.options, None if pair.healed is None else in_jax(pair.healed))


def named(cases: tuple[Case, ...]) -> list[Any]:
    return [pytest.param(case, id=f"{case.code} {case.name}".strip()) for case in cases if not case.torch]


@pytest.mark.parametrize("case", named(MISTAKES))
def test_a_mistake_is_found_and_its_fix_helps(case: Case) -> None:
    pair = case.pair()
    of_jax = in_jax(pair)
    if of_jax is None:
        pytest.skip("JAX has no arrays of plain bytes")
    with jax.enable_x64(True):
        found = of_jax.diagnosis()
        assert found.codes == pair.diagnosis().codes
        assert not re.search(r"(?<!jax\.)numpy\.(?!bincount|maximum)", "".join(each.fix for each in found))
        finding = next(each for each in found if each.code == case.code)
        assert fits(finding.severity, case.severity)
        assert case.code not in mended(of_jax, finding.fix).diagnosis().codes


@pytest.mark.parametrize("case", named(CLEAN[::7]))
def test_a_clean_pair_stays_clean(case: Case) -> None:
    of_jax = in_jax(case.pair())
    assert of_jax is not None
    assert not of_jax.diagnosis()


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_the_fixes_of_probabilities(dtype: Any) -> None:
    """Each gives logits that nothing is wrong with, in the dtype of JAX's default."""
    labels, logits = jnp.asarray(LABELS), jnp.asarray(LOGITS)
    yes = jnp.asarray(LOGITS > 0.0)
    for loss, z, x, code in (
        ("sparse", labels, jax.nn.softmax(logits), "WL101"),
        ("sigmoid", yes, jax.nn.sigmoid(4.0 * logits), "WL102"),
        ("sigmoid", yes, jax.nn.log_softmax(logits), "WL103"),
    ):
        x = x.astype(dtype)
        found = withlogits.diagnose(z, x, loss=loss)
        assert code in found.codes
        fix = next(each.fix for each in found if each.code == code)
        names = {"labels": z, "logits": x, "jax": jax}
        exec(fix, names)
        assert isinstance(names["logits"], jax.Array)
        assert bool(jnp.isfinite(names["logits"]).all())
        assert code not in withlogits.diagnose(z, names["logits"], loss=loss).codes


def test_the_subject_and_the_words_for_labels() -> None:
    found = withlogits.diagnose(jnp.asarray(LABELS, jnp.bfloat16), jnp.asarray(LOGITS, jnp.bfloat16))
    assert found.subject == "logits (64, 4) bfloat16, labels (64,) bfloat16"
    assert [each.fix for each in found if each.code == "WL208"] == ["labels = labels.astype(int)"]
    assert withlogits.recommend(jnp.array([3.0, 0.0, 2.0])).transform == "labels = labels.astype(int)"


def test_options_may_be_arrays_of_jax() -> None:
    weight = np.ones(4, np.float32)
    of_numpy = withlogits.diagnose(LABELS, LOGITS, loss="sparse", class_weight=weight)
    assert (
        withlogits.diagnose(
            jnp.asarray(LABELS), jnp.asarray(LOGITS), loss="sparse", class_weight=jnp.asarray(weight)
        ).codes
        == of_numpy.codes
    )


@pytest.mark.parametrize("name", ["logits", "labels"])
def test_what_is_traced_has_no_values(name: str) -> None:
    given = {"labels": jnp.asarray(LABELS), "logits": jnp.asarray(LOGITS)}

    def look(traced: Any) -> Any:
        withlogits.diagnose(**{**given, name: traced})

    text = (
        f"{name} are traced by JAX, and have no values to look at: call this outside of jax.jit and other "
        "transformations, or wrap the loss with withlogits.checked, which leaves traced calls out"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        jax.jit(look)(given[name])


def test_checked_diagnoses_the_first_call_with_values() -> None:
    loss = withlogits.checked(LOSS)
    labels, wrong = jnp.asarray(LABELS), jax.nn.softmax(jnp.asarray(LOGITS))

    def mean(logits: Any) -> Any:
        return loss(labels=labels, logits=logits, reduction="mean")

    jax.jit(mean)(wrong)
    jax.grad(mean)(wrong)
    jax.vmap(mean)(wrong[None])
    with pytest.raises(DiagnosisError, match=r"^WL101, probabilities passed as logits"):
        mean(wrong)
    assert mean(jnp.asarray(LOGITS)) == LOSS(labels=labels, logits=jnp.asarray(LOGITS), reduction="mean")
    with pytest.warns(GuideWarning, match=r"^WL107"):
        withlogits.checked(LOSS)(labels=labels, logits=jnp.asarray(LOGITS[:1].repeat(64, axis=0)))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_evaluation_and_meter(dtype: Any) -> None:
    labels, logits = jnp.asarray(LABELS), jnp.asarray(LOGITS, dtype)
    right = withlogits.evaluate(LABELS, np.asarray(logits))
    found = withlogits.evaluate(labels, logits)
    assert found == right
    first, second = withlogits.Meter(), withlogits.Meter()
    first.update(labels[:40], logits[:40])
    second.update(labels[40:], logits[40:], first=40)
    first.merge(second)
    assert first.compute().accuracy == right.accuracy
    assert first.compute().loss == pytest.approx(right.loss, rel=1e-12)
    wrong = withlogits.Meter()
    wrong.update(labels, jax.nn.softmax(logits))
    assert "jax.numpy.log(logits)" in wrong.diagnose().findings[0].fix


def test_a_nan_is_found_and_counted() -> None:
    logits = jnp.asarray(LOGITS).at[3, 1].set(jnp.nan)
    found = withlogits.diagnose(jnp.asarray(LABELS), logits)
    assert found.codes == withlogits.diagnose(LABELS, np.asarray(logits)).codes
    assert found.errors
    assert np.isnan(withlogits.evaluate(jnp.asarray(LABELS), logits).loss)
