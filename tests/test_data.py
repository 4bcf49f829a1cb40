"""The data that ships: the right bytes, the right form, nobody can change them, and the licence lies beside them."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest

from withlogits.data import load_digits


def test_the_digits_have_their_documented_form():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.float32
    assert labels.shape == (1797,)
    assert labels.dtype == np.int64
    assert images.min() == 0.0
    assert images.max() == 1.0
    np.testing.assert_array_equal(np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_the_digits_are_the_published_ones():
    images, labels = load_digits()
    sixteenths = (images * 16).astype(np.uint8)
    np.testing.assert_array_equal(sixteenths / np.float32(16), images)
    digest = hashlib.sha256(sixteenths.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_the_digits_equal_scikit_learns_copy():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = load_digits()
    other = datasets.load_digits()
    np.testing.assert_array_equal(images * 16, other.images)
    np.testing.assert_array_equal(labels, other.target)


def test_the_digits_are_read_only_and_loaded_once():
    images, labels = load_digits()
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 0
    assert load_digits()[0] is images


def test_the_file_is_small_and_holds_no_pickle():
    path = files("withlogits.data") / "digits.npz"
    assert len(path.read_bytes()) < 50_000
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        assert {name: stored[name].dtype for name in stored.files} == {"images": np.uint8, "labels": np.uint8}


def test_licence_and_citation_lie_beside_the_file():
    text = (files("withlogits.data") / "LICENSE-digits.txt").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0", "Changes:"):
        assert words in text
