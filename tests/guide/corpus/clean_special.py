"""Clean pairs with options, masks, and shapes that invite a false alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import withlogits
from guide.corpus.cases import Pair, one_hot
from guide.corpus.classifiers import data, numbers, outcome

PAIRS: list[tuple[str, Callable[[], Pair]]] = []


def entered(make: Callable[[], Pair]) -> Callable[[], Pair]:
    PAIRS.append((make.__name__.replace("_", " "), make))
    return make


@entered
def class_weights() -> Pair:
    y, logits = outcome("digits")
    return Pair(y, logits, {"loss": "sparse", "class_weight": np.linspace(0.5, 2, 10, dtype=np.float32)})


@entered
def sample_weights() -> Pair:
    y, logits = outcome("wine")
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(np.float32)
    return Pair(one_hot(y, 3), logits, {"loss": "softmax", "sample_weight": weight})


@entered
def smoothing_by_the_loss() -> Pair:
    return Pair(*outcome("twenty"), {"loss": "sparse", "label_smoothing": 0.1})


@entered
def soft_caps_and_z_loss() -> Pair:
    return Pair(*outcome("digits", "overtrained"), {"loss": "sparse", "softcap": 30.0, "z_loss": 1e-4})


@entered
def distilled_at_a_temperature() -> Pair:
    teacher, student = outcome("digits").logits, outcome("digits", "early").logits
    return Pair(withlogits.softmax(teacher / 2), student, {"loss": "softmax", "temperature": 2.0})


@entered
def distilled_labels_in_float16() -> Pair:
    labels = withlogits.softmax(outcome("twenty").logits).astype(np.float16)
    return Pair(labels, outcome("twenty", "early").logits, {"loss": "softmax"})


@entered
def a_positive_weight() -> Pair:
    return Pair(*outcome("canvases"), {"loss": "sigmoid", "pos_weight": np.full(10, 4, np.float32)})


@entered
def a_class_that_cannot_occur() -> Pair:
    y, logits = outcome("digits")
    logits = logits.copy()
    logits[:, 7] = -np.inf
    return Pair(y[y != 7], logits[y != 7], {"loss": "sparse"})


@entered
def a_mask_for_each_row() -> Pair:
    # Of twenty classes each row may only be one of the ten with its own paper.
    y, logits = outcome("twenty")
    other = (np.arange(20) // 10)[None] != (y // 10)[:, None]
    return Pair(y, np.where(other, -np.inf, logits).astype(np.float32), {"loss": "sparse"})


@entered
def a_mask_of_minus_ten_thousand() -> Pair:
    y, logits = outcome("twenty", "early")
    other = (np.arange(20) // 10)[None] != (y // 10)[:, None]
    return Pair(y, np.where(other, -1e4, logits).astype(np.float32), {"loss": "sparse"})


@entered
def as_many_rows_as_classes() -> Pair:
    y, logits = outcome("digits")
    return Pair(y[:10], logits[:10])


@entered
def as_many_rows_as_classes_in_one_hot() -> Pair:
    y, logits = outcome("twenty")
    return Pair(one_hot(y[:20], 20), logits[:20])


@entered
def every_digit_once() -> Pair:
    y, logits = outcome("digits")
    first = [int(np.flatnonzero(y == digit)[0]) for digit in range(10)]
    return Pair(np.eye(10, dtype=np.float32), logits[first], {"loss": "softmax"})


@entered
def sorted_labels() -> Pair:
    y, logits = outcome("digits", "early")
    order = np.argsort(y, kind="stable")
    return Pair(y[order], logits[order])


@entered
def some_classes_do_not_occur() -> Pair:
    y, logits = outcome("twenty")
    return Pair(y[y < 6], logits[y < 6])


@entered
def twice_as_sure() -> Pair:
    y, logits = outcome("digits", "overtrained")
    return Pair(y, 2 * logits, {"loss": "sparse"})


@entered
def four_times_as_sure() -> Pair:
    y, logits = outcome("tumours", "overtrained")
    return Pair(y, 4 * logits, {"loss": "sigmoid"})


@entered
def sure_and_right() -> Pair:
    y, logits = outcome("digits", "logistic")
    right = logits.argmax(1) == y
    return Pair(y[right], 5 * logits[right], {"loss": "sparse"})


@entered
def labels_that_take_turns() -> Pair:
    y, logits = outcome("tumours", "untrained")
    rows = np.stack([np.flatnonzero(y == 0)[:90], np.flatnonzero(y == 1)[:90]], 1).reshape(-1)
    return Pair(y[rows], np.stack([-logits[rows], logits[rows]], 1), {"loss": "sparse"})


@entered
def classes_on_the_first_axis() -> Pair:
    y, logits = outcome("digits")
    return Pair(y, logits.T, {"loss": "sparse", "axis": 0})


@entered
def how_dark_an_image_is() -> Pair:
    darkness = data("digits").held_out.mean(1)
    share = (darkness - darkness.min()) / np.ptp(darkness)
    noise = np.random.default_rng(0).normal(size=len(share))
    return Pair(share.astype(np.float32), (4 * share - 2 + 0.3 * noise).astype(np.float32), {"loss": "sigmoid"})


@entered
def eight_logits_between_zero_and_one() -> Pair:
    y, logits = outcome("tumours", "early")
    rows = np.flatnonzero((logits > 0) & (logits < 1))[:8]
    return Pair(y[rows], logits[rows], {"loss": "sigmoid"})


@entered
def every_example_twice() -> Pair:
    y, logits = outcome("twenty", "early")
    return Pair(np.repeat(y, 2), np.repeat(logits, 2, 0))


@entered
def a_majority_that_is_always_said() -> Pair:
    y, logits = outcome("digits", "untrained")
    rows = np.sort(np.concatenate([np.flatnonzero(y == 4), np.flatnonzero(y != 4)[::8]]))
    return Pair(y[rows], logits[rows] + 6 * (np.arange(10) == 4).astype(np.float32))


@entered
def two_classes_that_are_taken_for_one_another() -> Pair:
    # 8 and 9 have one picture each in the lesson, and it was the other's.
    y, logits = outcome("digits", "logistic")
    logits = logits.copy()
    logits[:, [8, 9]] = (logits[:, [8, 9]] + 0.9 * logits[:, [9, 8]]) / 2
    return Pair(y, logits)


@entered
def all_logits_above_zero() -> Pair:
    y, logits = outcome("digits")
    return Pair(y, logits - logits.min() + 1, {"loss": "sparse"})


@entered
def all_logits_below_zero() -> Pair:
    y, logits = outcome("digits", "early")
    return Pair(y, logits - logits.max() - 1, {"loss": "sparse"})


@entered
def a_prior_of_one_in_a_hundred() -> Pair:
    # The last bias begins at log(0.01 / 0.99), so that at first everything is unlikely.
    y, logits = outcome("canvases", "untrained")
    return Pair(y, logits / 10 - np.float32(np.log(99)), {"loss": "sigmoid"})


@entered
def cosines() -> Pair:
    # Scaled cosines of a row with the mean logits of each class: all of one size, none above the scale.
    y, logits = outcome("digits")
    rows = logits / np.linalg.norm(logits, axis=1, keepdims=True)
    means = np.stack([rows[y == digit].mean(0) for digit in range(10)])
    return Pair(y, 16 * rows @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T, {"loss": "sparse"})


@entered
def two_classes_with_two_logits() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y, np.stack([0 * logits, logits], 1))


@entered
def two_classes_with_two_logits_in_one_hot() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return Pair(one_hot(y, 2, np.int64), np.stack([-logits, logits], 1), {"loss": "softmax"})


@entered
def one_tumour_in_ten() -> Pair:
    y, logits = outcome("tumours")
    kept = np.sort(np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:18]]))
    return Pair(1 - y[kept], -logits[kept], {"loss": "sigmoid"})


@entered
def one_row_without_a_batch() -> Pair:
    y, logits = outcome("digits")
    return Pair(y[3], logits[3], {"loss": "sparse"})


@entered
def a_thousand_classes() -> Pair:
    return Pair(*numbers(3))


@entered
def all_digits_thrice() -> Pair:
    y, logits = outcome("digits")
    return Pair(np.tile(y, 3), np.tile(logits, (3, 1)))


@entered
def some_thousand_rows() -> Pair:
    y, logits = outcome("twenty", "logistic")
    return Pair(np.tile(y, 4), np.tile(logits, (4, 1)), {"loss": "sparse"})


@entered
def four_rows_that_are_all_ignored() -> Pair:
    _, logits = outcome("digits")
    return Pair(np.full(4, -100), logits[:4], {"loss": "sparse", "ignore_index": -100})


@entered
def a_canvas_without_a_digit() -> Pair:
    y, logits = outcome("canvases")
    none = np.flatnonzero(y.sum(1) == 0)[:2]
    return Pair(y[none], logits[none], {"loss": "sigmoid"})


@entered
def canvases_with_one_digit_each_by_chance() -> Pair:
    y, logits = outcome("canvases")
    one = np.flatnonzero(y.sum(1) == 1)[:3]
    return Pair(y[one], logits[one], {"loss": "sigmoid"})


@entered
def eight_zeros() -> Pair:
    y, logits = outcome("digits")
    zeros = np.flatnonzero(y == 0)[:8]
    return Pair(y[zeros], logits[zeros])


@entered
def probability_labels_that_sum_to_one_by_chance() -> Pair:
    y, logits = outcome("canvases")
    return Pair(np.where(y[:6] > 0, 0.9, 0.01).astype(np.float32), logits[:6], {"loss": "sigmoid"})


@entered
def the_same_row_thrice() -> Pair:
    y, logits = outcome("digits")
    return Pair(y[[3, 3, 3]], logits[[3, 3, 3]], {"loss": "sparse"})


@entered
def even_or_odd() -> Pair:
    y, logits = outcome("digits")
    odd = np.logaddexp.reduce(logits[:, 1::2], 1) - np.logaddexp.reduce(logits[:, 0::2], 1)
    return Pair(y % 2, odd)


@entered
def columns_of_a_wider_array() -> Pair:
    y, logits = outcome("twenty")
    rows = y < 10
    return Pair(y[rows], logits[rows][:, :10])


@entered
def no_row_at_all() -> Pair:
    y, logits = outcome("digits")
    return Pair(y[:0], logits[:0], {"loss": "sparse"})
