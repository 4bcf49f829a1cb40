"""Labels as data sets hold them (names, categories, columns of a table, sparse matrices), as arrays of numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from withlogits.guide.arrays import Given, given

TAGS = (
    "names = sorted(set().union(*labels)); "
    "labels = numpy.array([[name in tags for name in names] for tags in labels], numpy.float32)"
)
NUMBERED = "labels = numpy.unique(labels, return_inverse=True)[1].reshape(numpy.shape(labels))"


class Read(NamedTuple):
    """Labels as numbers, the line that makes them, and how many classes have a name."""

    labels: Given
    line: str = ""
    classes: int | None = None


def read(labels: Any) -> Read:
    """Labels as numbers, whatever they are."""
    if type(labels).__module__.partition(".")[0] == "pandas":
        return _from_pandas(labels)
    if hasattr(labels, "toarray"):  # a sparse matrix of SciPy
        return Read(given("labels", labels.toarray()), "labels = labels.toarray()")
    if isinstance(labels, (list, tuple)):
        found = _from_tags(labels)
        if found is not None:
            return found
    if isinstance(labels, (list, tuple, np.ndarray)) and _are_names(labels):
        names, numbers = np.unique(labels, return_inverse=True)
        return Read(given("labels", numbers.reshape(np.shape(labels))), NUMBERED, len(names))
    return Read(given("labels", labels))


def _from_pandas(labels: Any) -> Read:
    """A column, a table, or categories; a missing one has the number -1."""
    if hasattr(labels, "codes"):
        return Read(given("labels", np.asarray(labels.codes)), "labels = labels.codes", len(labels.categories))
    line = "labels = labels.cat.codes.to_numpy()"
    if labels.ndim == 1 and labels.dtype != "category" and _are_names(labels.dropna().to_numpy()):
        labels, line = labels.astype("category"), 'labels = labels.astype("category").cat.codes.to_numpy()'
    if labels.ndim == 1 and labels.dtype == "category":
        return Read(given("labels", labels.cat.codes.to_numpy()), line, len(labels.cat.categories))
    return Read(given("labels", labels.to_numpy()), "labels = labels.to_numpy()")


def _from_tags(labels: Any) -> Read | None:
    """A list of names or numbers for each example, of different lengths: its tags."""
    if not labels or not all(isinstance(tags, (list, tuple, set, frozenset)) for tags in labels):
        return None
    if len({len(tags) for tags in labels}) == 1 and isinstance(labels[0], (list, tuple)):
        return None
    flat = [name for tags in labels for name in tags]
    if not flat or not (_are_names(flat) or all(isinstance(name, int) for name in flat)):
        return None
    names = sorted(set(flat))
    return Read(given("labels", np.array([[name in tags for name in names] for tags in labels])), TAGS, len(names))


def _are_names(labels: Any) -> bool:
    """Whether these are texts."""
    try:
        array = np.asarray(labels)
    except ValueError:  # rows of different lengths
        return False
    return array.size > 0 and (array.dtype.kind == "U" or all(isinstance(name, str) for name in array.flat))
