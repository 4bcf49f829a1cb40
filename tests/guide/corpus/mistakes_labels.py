"""WL201 to WL214: logits as they should be, and labels that do not go with them or with the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

import withlogits
from guide.corpus.cases import Pair, cast, mistake, one_hot
from guide.corpus.classifiers import Outcome, data, network, numbers, outcome, pixels, runs, text

PADDING = 3  # steps at the end of a row


def first_axis(logits: Any) -> Any:
    """(N, ..., C) -> (N, C, ...), as a convolution gives it."""
    return np.moveaxis(logits, -1, 1)


def padded(value: int) -> Outcome:
    """Rows of digits, of which every third ends early."""
    labels, logits = runs()
    labels = labels.copy()
    labels[::3, -PADDING:] = value
    return Outcome(labels, logits)


# WL201


@mistake("WL201", "error")
def one_hot_digits_and_the_sparse_loss() -> Pair:
    y, logits = outcome("digits")
    return Pair(one_hot(y, 10, np.int64), logits, {"loss": "sparse"})


@mistake("WL201", "error")
def one_hot_wine_in_float_and_the_sparse_loss() -> Pair:
    y, logits = outcome("wine", "logistic")
    return Pair(one_hot(y, 3), logits, {"loss": withlogits.sparse_softmax_cross_entropy_with_logits})


@mistake("WL201", "error")
def one_hot_booleans_and_the_sparse_loss() -> Pair:
    y, logits = outcome("twenty", "early")
    return Pair(one_hot(y, 20, np.bool_), cast(logits, "bfloat16"), {"loss": "sparse"})


@mistake("WL201", "error", torch=True)
def one_hot_steps_and_the_sparse_loss() -> Pair:
    y, logits = runs()
    return Pair(cast(one_hot(y, 10, np.int64), "torch.int64"), cast(logits, "torch.float32"), {"loss": "sparse"})


@mistake("WL201", "error")
def one_hot_pixels_and_the_sparse_loss() -> Pair:
    y, logits = pixels()
    return Pair(first_axis(one_hot(y, 3, np.uint8)), first_axis(logits), {"loss": "sparse", "axis": 1})


@mistake("WL201", "error")
def a_small_batch_of_one_hot_labels_and_the_sparse_loss() -> Pair:
    y, logits = outcome("iris")
    return Pair(one_hot(y[:16], 3, np.int32), logits[:16], {"loss": "sparse"})


# WL202


@mistake("WL202", "error")
def digits_as_numbers_and_the_softmax_loss() -> Pair:
    y, logits = outcome("digits")
    return Pair(y, logits, {"loss": "softmax"})


@mistake("WL202", "error")
def digits_as_numbers_and_the_sigmoid_loss() -> Pair:
    y, logits = outcome("digits", "early")
    return Pair(y.astype(np.int32), logits, {"loss": "sigmoid"})


@mistake("WL202", "error")
def pixels_as_numbers_and_the_softmax_loss() -> Pair:
    y, logits = pixels()
    return Pair(y.astype(np.uint8), first_axis(logits), {"loss": "softmax", "axis": 1})


@mistake("WL202", "error")
def steps_as_numbers_and_the_softmax_loss() -> Pair:
    y, logits = runs()
    return Pair(y, cast(logits, "float16"), {"loss": withlogits.softmax_cross_entropy_with_logits})


@mistake("WL202", "error", torch=True)
def tensors_of_numbers_and_the_softmax_loss() -> Pair:
    y, logits = outcome("wine")
    return Pair(cast(y, "torch.int64"), cast(logits, "torch.float32"), {"loss": "softmax"})


@mistake("WL202", "error")
def twenty_numbers_and_the_softmax_loss() -> Pair:
    y, logits = outcome("twenty", "logistic")
    return Pair(y[:20], logits[:20], {"loss": "softmax"})  # as many rows as classes


# WL203


@mistake("WL203")
def several_digits_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases")
    return Pair(y, logits, {"loss": "softmax"})


@mistake("WL203")
def several_digits_as_integers_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases", "untrained")
    return Pair(y.astype(np.int64), logits, {"loss": "softmax"})


@mistake("WL203")
def several_digits_as_booleans_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases", "logistic")
    return Pair(y > 0, cast(logits, "bfloat16"), {"loss": withlogits.softmax_cross_entropy_with_logits})


@mistake("WL203", torch=True)
def several_digits_as_tensors_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases", "early")
    return Pair(cast(y, "torch.float32"), cast(logits, "torch.float32"), {"loss": "softmax"})


@mistake("WL203")
def sixteen_canvases_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases")
    return Pair(y[:16], logits[:16].astype(np.float64), {"loss": "softmax"})


@mistake("WL203")
def tags_that_are_mostly_one_and_the_softmax_loss() -> Pair:
    y, logits = outcome("canvases")
    order = np.argsort(y.sum(1) != 1, kind="stable")[:300]  # four rows in five have one digit
    return Pair(y[order], logits[order], {"loss": "softmax"})


# WL204


@mistake("WL204", "warning")
def one_digit_and_the_sigmoid_loss() -> Pair:
    y, logits = outcome("digits")
    return Pair(one_hot(y, 10), logits, {"loss": "sigmoid"})


@mistake("WL204", "warning")
def wine_and_the_sigmoid_loss() -> Pair:
    y, logits = outcome("wine", "logistic")
    return Pair(one_hot(y, 3, np.int64), logits, {"loss": withlogits.sigmoid_cross_entropy_with_logits})


@mistake("WL204", "warning")
def twenty_classes_and_the_sigmoid_loss() -> Pair:
    y, logits = outcome("twenty", "untrained")
    return Pair(one_hot(y, 20, np.bool_), cast(logits, "bfloat16"), {"loss": "sigmoid"})


@mistake("WL204", "warning", torch=True)
def steps_and_the_sigmoid_loss() -> Pair:
    y, logits = runs()
    return Pair(cast(one_hot(y, 10), "torch.float32"), cast(logits, "torch.float32"), {"loss": "sigmoid"})


@mistake("WL204", "warning")
def letters_and_the_sigmoid_loss() -> Pair:
    here, logits = text()
    return Pair(one_hot(here[:, 1:], logits.shape[-1]), logits[:, :-1], {"loss": "sigmoid"})


@mistake("WL204", "warning")
def digits_and_the_weighted_loss() -> Pair:
    y, logits = outcome("digits", "logistic")
    loss = withlogits.weighted_cross_entropy_with_logits
    return Pair(one_hot(y, 10), logits, {"loss": loss, "pos_weight": 9.0})


# WL205


@mistake("WL205")
def smoothing_that_only_adds() -> Pair:
    y, logits = outcome("digits")
    return Pair(one_hot(y, 10) * np.float32(0.9) + np.float32(0.1), logits, {"loss": "softmax"})


@mistake("WL205")
def a_mixup_of_weights_that_do_not_sum_to_one() -> Pair:
    y, logits = outcome("twenty")
    share = np.random.default_rng(0).beta(0.4, 0.4, len(y)).astype(np.float32)[:, None]
    labels = share * one_hot(y, 20) + share * one_hot(np.roll(y, 1), 20)
    return Pair(labels, logits, {"loss": "softmax"})


@mistake("WL205")
def the_logits_of_a_teacher() -> Pair:
    teacher, student = outcome("digits").logits, outcome("digits", "early")
    good = Pair(withlogits.softmax(teacher), student.logits, {"loss": "softmax"})
    return Pair(teacher, student.logits, {"loss": "softmax"}, good)


@mistake("WL205", "error", torch=True)
def the_log_probabilities_of_a_teacher() -> Pair:
    teacher, student = outcome("digits").logits, outcome("digits", "early")
    labels = cast(withlogits.log_softmax(teacher), "torch.float32")
    return Pair(labels, cast(student.logits, "torch.float32"), {"loss": "softmax"})


@mistake("WL205", "error")
def answers_that_are_missing_as_minus_one() -> Pair:
    y, logits = outcome("canvases")
    return Pair(np.where(np.random.default_rng(0).random(y.shape) < 0.2, -1, y), logits, {"loss": "sigmoid"})


@mistake("WL205", "error", torch=True)
def answers_that_are_missing_as_255() -> Pair:
    y, logits = outcome("canvases")
    labels = np.where(np.random.default_rng(0).random(y.shape) < 0.2, 255, y).astype(np.uint8)
    return Pair(cast(labels, "torch.uint8"), cast(logits, "torch.float32"), {"loss": "sigmoid"})


@mistake("WL205")
def the_three_best_guesses_of_a_teacher() -> Pair:
    _, logits = outcome("digits", "early")
    p = withlogits.softmax(outcome("digits", "early", 1).logits)
    return Pair(np.where(p >= np.sort(p)[:, -3:-2], p, 0), logits, {"loss": "softmax"})


@mistake("WL205", torch=True)
def one_hot_rows_times_a_weight() -> Pair:
    y, logits = outcome("wine")
    rows = one_hot(y, 3) * np.array([0.5, 2.0, 3.0], np.float32)
    return Pair(cast(rows, "torch.float32"), cast(logits, "torch.float32"), {"loss": "softmax"})


@mistake("WL205")
def the_sum_of_three_teachers() -> Pair:
    _, logits = outcome("wine")
    labels = sum(withlogits.softmax(outcome("wine", state).logits) for state in ("early", "trained", "logistic"))
    return Pair(labels, logits.astype(np.float64), {"loss": "softmax"})


# WL206


@mistake("WL206", "error")
def wine_counted_from_one() -> Pair:
    y, logits = outcome("wine")
    return Pair(y + 1, logits)


@mistake("WL206", "error")
def digits_counted_from_one() -> Pair:
    y, logits = outcome("digits", "untrained")
    return Pair((y + 1).astype(np.int32), cast(logits, "bfloat16"), {"loss": "sparse"})


@mistake("WL206", "error")
def digits_counted_from_one_beside_padding() -> Pair:
    y, logits = outcome("digits")
    labels = np.where(np.arange(y.size) % 9 == 0, -100, y + 1)
    return Pair(labels, logits, {"loss": "sparse", "ignore_index": -100})


@mistake("WL206", "error", torch=True)
def twenty_classes_counted_from_one() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast(y + 1, "torch.int64"), cast(logits, "torch.float32"), {"loss": "sparse"})


@mistake("WL206", "error")
def a_slip_of_the_pen() -> Pair:
    y, logits = outcome("digits")
    wrong = y.copy()
    wrong[11] = 77
    return Pair(wrong, logits, {"loss": "sparse"}, Pair(y, logits, {"loss": "sparse"}))


@mistake("WL206", "error")
def twenty_classes_into_a_model_of_ten() -> Pair:
    y, _ = outcome("twenty")
    logits = outcome("twenty").logits
    return Pair(y, logits[:, :10], {"loss": "sparse"}, Pair(y, logits, {"loss": "sparse"}))


@mistake("WL206", "error")
def pixels_counted_from_one() -> Pair:
    y, logits = pixels()
    return Pair((y + 1).astype(np.uint8), first_axis(logits), {"axis": 1})


# WL207


@mistake("WL207")
def steps_padded_with_minus_100() -> Pair:
    return Pair(*padded(-100))


@mistake("WL207")
def steps_padded_with_minus_1() -> Pair:
    y, logits = padded(-1)
    return Pair(y.astype(np.int32), cast(logits, "bfloat16"), {"loss": "sparse"})


@mistake("WL207")
def a_border_of_255() -> Pair:
    y, logits = pixels()
    labels = y.astype(np.uint8)
    labels[:, [0, -1]] = 255
    labels[:, :, [0, -1]] = 255
    return Pair(labels, first_axis(logits), {"loss": "sparse", "axis": 1})


@mistake("WL207")
def steps_padded_with_the_number_of_classes() -> Pair:
    return Pair(*padded(10), {"loss": "sparse"})


@mistake("WL207", torch=True)
def tensors_padded_with_minus_100() -> Pair:
    here, logits = text()
    labels = here[:, 1:].copy()
    labels[::2, 40:] = -100
    return Pair(cast(labels, "torch.int64"), cast(logits[:, :-1], "torch.float32"), {"loss": "sparse"})


@mistake("WL207")
def digits_without_a_label() -> Pair:
    y, logits = outcome("digits")
    labels = y.copy()
    labels[::4] = -1
    return Pair(labels, logits, {"loss": "sparse"})


# WL208


@mistake("WL208")
def digits_as_floats() -> Pair:
    y, logits = outcome("digits")
    return Pair(y.astype(np.float32), logits, {"loss": "sparse"})


@mistake("WL208")
def wine_as_read_from_a_table() -> Pair:
    y, logits = outcome("wine", "logistic")
    return Pair(y.astype(np.float64), logits)


@mistake("WL208", torch=True)
def tensors_of_floats() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast(y, "torch.float32"), cast(logits, "torch.float32"), {"loss": "sparse"})


@mistake("WL208")
def a_thousand_classes_in_bfloat16() -> Pair:
    y, logits = numbers(3)
    few = y < 900
    return Pair(cast(y[few], "bfloat16"), logits[few], {"loss": "sparse"}, Pair(y[few], logits[few]))


@mistake("WL208")
def ten_thousand_classes_in_float16() -> Pair:
    y, logits = numbers(4, 16)
    return Pair(y.astype(np.float16), logits, {"loss": "sparse"}, Pair(y, logits))


@mistake("WL208")
def steps_as_floats() -> Pair:
    y, logits = runs()
    return Pair(y.astype(np.float32), logits, {"loss": "sparse"})


@mistake("WL208", "error")
def truth_values_and_two_classes() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y > 0, np.stack([-logits / 2, logits / 2], -1), {"loss": "sparse"})


# WL209


@mistake("WL209")
def tumours_as_minus_one_and_one() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return Pair(2 * y - 1, logits, {"loss": "sigmoid"})


@mistake("WL209")
def canvases_as_minus_one_and_one() -> Pair:
    y, logits = outcome("canvases")
    return Pair(2 * y - 1, cast(logits, "bfloat16"), {"loss": "sigmoid"})


@mistake("WL209")
def a_mask_of_0_and_255() -> Pair:
    y, logits = pixels()
    ink = logits[..., 2] - np.logaddexp(logits[..., 0], logits[..., 1])
    return Pair(((y == 2) * 255).astype(np.uint8), ink, {"loss": "sigmoid"})


@mistake("WL209", "error")
def a_mask_of_0_and_255_and_two_classes() -> Pair:
    y, logits = pixels()
    ink = logits[..., 2] - np.logaddexp(logits[..., 0], logits[..., 1])
    return Pair(((y == 2) * 255).astype(np.uint8), np.stack([-ink / 2, ink / 2], -1), {"loss": "sparse"})


@mistake("WL209", "error")
def votes_for_each_digit() -> Pair:
    teacher, student = outcome("digits").logits, outcome("digits", "early")
    votes = np.random.default_rng(0).multinomial(51, withlogits.softmax(teacher.astype(np.float64)))
    return Pair(votes, student.logits, {"loss": "softmax"})


@mistake("WL209", "error")
def one_number_for_all() -> Pair:
    y, logits = outcome("canvases")
    return Pair(np.full(y.shape, 1.5), logits, {"loss": "sigmoid"}, Pair(y, logits, {"loss": "sigmoid"}))


@mistake("WL209", torch=True)
def tumours_as_0_and_100() -> Pair:
    y, logits = outcome("tumours")
    return Pair(cast(100.0 * y[:, None], "torch.float32"), cast(logits[:, None], "torch.float32"), {"loss": "sigmoid"})


@mistake("WL209")
def the_opinions_of_a_teacher_in_per_cent() -> Pair:
    _, logits = outcome("canvases")
    labels = 100 * withlogits.sigmoid(outcome("canvases", "logistic").logits)
    return Pair(labels, logits, {"loss": "sigmoid"})


@mistake("WL209")
def tumours_as_minus_one_and_one_and_no_loss_named() -> Pair:
    y, logits = outcome("tumours")
    return Pair((2 * y - 1).astype(np.float32), logits)


@mistake("WL209")
def how_often_a_digit_is_there() -> Pair:
    y, logits = outcome("canvases")
    counts = y * np.random.default_rng(0).integers(1, 4, y.shape)
    return Pair(counts, logits, {"loss": "sigmoid"}, Pair(y, logits, {"loss": "sigmoid"}))


# WL210


@mistake("WL210", "error")
def one_column_of_logits_and_a_row_of_labels() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y, logits[:, None], {"loss": "sigmoid"})


@mistake("WL210", "error")
def one_column_of_labels_and_a_row_of_logits() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return Pair(y[:, None].astype(np.float32), logits, {"loss": "sigmoid"})


@mistake("WL210", "error", torch=True)
def one_column_as_tensors() -> Pair:
    y, logits = outcome("tumours")
    return Pair(cast(y, "torch.float32"), cast(logits[:, None], "torch.bfloat16"), {"loss": "sigmoid"})


@mistake("WL210", "error")
def one_column_and_no_loss_named() -> Pair:
    y, logits = outcome("tumours", "early")
    return Pair(y.astype(np.float32), logits[:, None])


@mistake("WL210", "error")
def one_output_at_each_step() -> Pair:
    y, logits = runs()
    even = logits[..., 0::2].max(-1, keepdims=True) - logits[..., 1::2].max(-1, keepdims=True)  # (N, T, 1)
    return Pair((y % 2 == 0).astype(np.int64), even, {"loss": "sigmoid"})


@mistake("WL210", "error")
def a_small_batch_in_one_column() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y[:8] > 0, logits[:8, None], {"loss": withlogits.sigmoid_cross_entropy_with_logits})


# WL211


@mistake("WL211", "error")
def pixels_of_a_convolution() -> Pair:
    y, logits = pixels()
    return Pair(y, first_axis(logits), {"loss": "sparse"})


@mistake("WL211", "error")
def pixels_of_a_convolution_and_no_loss_named() -> Pair:
    y, logits = pixels()
    return Pair(y.astype(np.uint8), cast(first_axis(logits), "bfloat16"))


@mistake("WL211", "error")
def an_axis_that_is_not_there_any_more() -> Pair:
    y, logits = pixels()
    return Pair(y, logits, {"loss": "sparse", "axis": 1})


@mistake("WL211", "error", torch=True)
def steps_in_the_layout_of_pytorch() -> Pair:
    y, logits = runs()
    return Pair(cast(y, "torch.int64"), cast(first_axis(logits), "torch.float32"), {"loss": "sparse"})


@mistake("WL211", "error")
def letters_with_the_classes_before_the_steps() -> Pair:
    here, logits = text()
    return Pair(here[:, 1:], first_axis(logits[:, :-1]), {"loss": "sparse"})


@mistake("WL211", "error")
def one_hot_labels_with_the_classes_elsewhere() -> Pair:
    y, logits = pixels()
    return Pair(first_axis(one_hot(y, 3)), logits, {"loss": "softmax"})


# WL212


@mistake("WL212", "error")
def one_hot_digits_transposed() -> Pair:
    y, logits = outcome("digits")
    return Pair(one_hot(y, 10).T, logits, {"loss": "softmax"})


@mistake("WL212", "error")
def canvases_transposed() -> Pair:
    y, logits = outcome("canvases")
    return Pair(y.T, logits, {"loss": "sigmoid"})


@mistake("WL212", "error")
def one_hot_wine_transposed_and_no_loss_named() -> Pair:
    y, logits = outcome("wine")
    return Pair(one_hot(y, 3).T.copy(), logits)


@mistake("WL212", "error", torch=True)
def tensors_transposed() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast(one_hot(y, 20).T, "torch.float32"), cast(logits, "torch.float32"), {"loss": "softmax"})


@mistake("WL212", "error")
def logits_of_one_column_for_each_example() -> Pair:
    y, logits = outcome("digits", "early")
    return Pair(one_hot(y, 10, np.int64), logits.T, {"loss": "softmax"})


@mistake("WL212", "error")
def a_small_batch_transposed() -> Pair:
    y, logits = outcome("iris")
    return Pair(one_hot(y[:16], 3).T, logits[:16], {"loss": "softmax"})


# WL213


@mistake("WL213")
def digits_that_nobody_shuffled() -> Pair:
    y, logits = outcome("digits")
    zeros = np.flatnonzero(y == 0)
    return Pair(y[zeros], logits[zeros], {}, Pair(y, logits))


@mistake("WL213")
def everything_is_padding() -> Pair:
    y, logits = runs()
    options = {"loss": "sparse", "ignore_index": -100}
    return Pair(np.full_like(y, -100), logits, options, Pair(y, logits, options))


@mistake("WL213")
def labels_that_were_never_read() -> Pair:
    y, logits = outcome("tumours")
    return Pair(np.zeros_like(y), logits, {"loss": "sigmoid"}, Pair(y, logits, {"loss": "sigmoid"}))


@mistake("WL213", torch=True)
def tensors_of_zeros() -> Pair:
    y, logits = outcome("twenty")
    x = cast(logits, "torch.float32")
    return Pair(cast(0 * y, "torch.int64"), x, {"loss": "sparse"}, Pair(cast(y, "torch.int64"), x))


@mistake("WL213")
def no_digit_on_any_canvas() -> Pair:
    y, logits = outcome("canvases")
    return Pair(0 * y, logits, {"loss": "sigmoid"}, Pair(y, logits, {"loss": "sigmoid"}))


@mistake("WL213")
def masks_that_are_all_paper() -> Pair:
    y, logits = pixels()
    return Pair(0 * y, first_axis(logits), {"axis": 1}, Pair(y, first_axis(logits), {"axis": 1}))


@mistake("WL213")
def one_one_hot_column() -> Pair:
    y, logits = outcome("wine")
    return Pair(one_hot(0 * y + 2, 3), logits, {"loss": "softmax"}, Pair(one_hot(y, 3), logits, {"loss": "softmax"}))


# WL214


def thinned(labels: Any, rare: Any, keep: int) -> Any:
    """The rows without most of what is rare."""
    which = np.flatnonzero(rare)
    return np.delete(np.arange(len(labels)), which[keep:])


@mistake("WL214", "note")
def few_malignant_tumours() -> Pair:
    y, logits = outcome("tumours")
    rows = thinned(y, y == 0, 2)
    return Pair(1 - y[rows], -logits[rows], {"loss": "sigmoid"})


@mistake("WL214", "note")
def few_malignant_tumours_in_the_test_of_a_logistic_regression() -> Pair:
    y, logits = outcome("tumours", "logistic")
    rows = thinned(y, y == 0, 1)
    return Pair((1 - y[rows]).astype(np.float32)[:, None], -logits[rows, None])


@mistake("WL214", "note", torch=True)
def few_malignant_tumours_as_tensors() -> Pair:
    y, logits = outcome("tumours", "early")
    rows = thinned(y, y == 0, 2)
    return Pair(cast(1.0 - y[rows], "torch.float32"), cast(-logits[rows], "torch.float32"), {"loss": "sigmoid"})


@mistake("WL214", "note")
def half_of_the_digits_are_rare() -> Pair:
    y, logits = data("digits").y, network("digits").logits(data("digits").x)
    last = [np.flatnonzero(y == digit)[:1] for digit in range(5, 10)]
    rows = np.sort(np.concatenate([np.flatnonzero(y < 5), *last]))
    return Pair(y[rows], logits[rows], {"loss": "sparse"})


@mistake("WL214", "note")
def a_strip_of_pixels_with_hardly_any_ink() -> Pair:
    y, logits = pixels()
    rows = thinned(y.reshape(-1), y.reshape(-1) == 2, 30)
    return Pair(y.reshape(1, -1)[:, rows], first_axis(logits.reshape(1, -1, 3)[:, rows]), {"loss": "sparse", "axis": 1})


@mistake("WL214", "note")
def canvases_that_are_mostly_empty() -> Pair:
    y, logits = outcome("canvases")
    rows = thinned(y, y.any(1), 20)
    return Pair(y[rows], logits[rows])


@mistake("WL214", "note")
def letters_of_a_text() -> Pair:
    here, logits = text()
    return Pair(one_hot(here[:, 1:], logits.shape[-1]), logits[:, :-1], {"loss": "softmax"})
