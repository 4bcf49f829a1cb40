"""Small real data that ships with the package."""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_digits"]


@cache
def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 1,797 handwritten digits: the test images of UCI's Optical Recognition of Handwritten Digits.

    Thirteen people wrote them, none of whom wrote the data set's training images. An image counts, in each of 8 × 8
    cells of 4 × 4 pixels, the pixels with ink: 0 to 16, divided by 16 here. The arrays are read-only and the same at
    every call.

    Returns
    -------
    images : ndarray of float32, shape (1797, 8, 8)
        Multiples of 1/16 in [0, 1]; 1 is ink.
    labels : ndarray of int64, shape (1797,)
        The digit, 0 to 9; each occurs 174 to 183 times.

    Notes
    -----
    Alpaydin, E. & Kaynak, C. (1998). Optical Recognition of Handwritten Digits [Dataset]. UCI Machine Learning
    Repository. https://doi.org/10.24432/C50P49. Licensed under CC BY 4.0; LICENSE-digits.txt lies beside the file.

    Examples
    --------
    >>> from withlogits.data import load_digits
    >>> images, labels = load_digits()
    >>> images.shape, images.dtype.name
    ((1797, 8, 8), 'float32')
    >>> labels[:5]
    array([0, 1, 2, 3, 4])
    """
    with (files(__name__) / "digits.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        images = stored["images"].astype(np.float32) / np.float32(16)
        labels = stored["labels"].astype(np.int64)
    images.flags.writeable = False
    labels.flags.writeable = False
    return images, labels
