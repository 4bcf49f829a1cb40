"""Labels as data sets hold them: what `recommend` says of them first is a line that runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits
from withlogits import recommend

NAMES = ["cat", "dog", "eel", "cat"]
TAGS = [["sea", "dog"], ["dog"], [], ["cat", "sea", "dog"]]


def made(labels: Any) -> Any:
    """The labels after the line was run."""
    names = {"labels": labels, "numpy": np, "withlogits": withlogits}
    exec(recommend(labels).transform, names)
    return names["labels"]


@pytest.mark.parametrize("labels", [NAMES, tuple(NAMES), np.array(NAMES), np.array(NAMES, object)])
def test_names(labels: Any) -> None:
    found = recommend(labels)
    assert (found.loss, "3 classes in 4 labels" in found.why) == ("sparse", True)
    np.testing.assert_array_equal(made(labels), [0, 1, 2, 0])


def test_two_names_are_two_classes() -> None:
    assert recommend(["no", "yes", "no"]).loss == "sparse"
    np.testing.assert_array_equal(made(np.array([["a", "b"], ["b", "b"]])), [[0, 1], [1, 1]])


@pytest.mark.parametrize("labels", [TAGS, [set(tags) for tags in TAGS], [(1, 2), (2,), (), (0, 1, 2)]])
def test_lists_of_tags(labels: Any) -> None:
    found = recommend(labels)
    assert (found.loss, "several classes may be true at once" in found.why) == ("sigmoid", True)
    got = made(labels)
    assert got.shape == (4, 3)
    assert got.sum(axis=1).tolist() == [2, 1, 0, 3]
    assert np.isfinite(withlogits.sigmoid_cross_entropy_with_logits(labels=got, logits=np.zeros((4, 3)))).all()


def test_a_sparse_matrix() -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed: pip install scipy")
    table = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    for labels in (sparse.csr_matrix(table), sparse.coo_array(table)):
        assert recommend(labels).loss == "sigmoid"
        np.testing.assert_array_equal(made(labels), table)


def test_columns_and_tables_of_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: pip install pandas")
    numbers = pandas.Series([2, 0, 1, 5])
    assert (recommend(numbers).loss, recommend(numbers).transform) == ("sparse", "labels = labels.to_numpy()")
    for labels in (pandas.Series(NAMES), pandas.Series(NAMES, dtype="category"), pandas.Categorical(NAMES)):
        found = recommend(labels)
        assert (found.loss, "3 classes in 4 labels" in found.why) == ("sparse", True)
        np.testing.assert_array_equal(made(labels), [0, 1, 2, 0])
    missing = recommend(pandas.Series(["cat", None, "dog"]))
    assert missing.call.endswith("ignore_index=-1)")
    np.testing.assert_array_equal(made(pandas.Series(["cat", None, "dog"])), [0, -1, 1])
    table = pandas.DataFrame({"beach": [1, 0, 1], "dog": [1, 1, 0]})
    assert recommend(table).loss == "sigmoid"
    np.testing.assert_array_equal(made(table), table.to_numpy())


@pytest.mark.parametrize("labels", [np.array([1 + 2j]), np.array(["2020-01-01"], "datetime64[D]"), [object()]])
def test_what_is_none_of_these(labels: Any) -> None:
    with pytest.raises(TypeError, match=r"^labels"):
        recommend(labels)
