"""WL301 to WL305: labels and logits each as they should be, that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from guide.corpus.cases import Pair, cast, mistake, one_hot
from guide.corpus.classifiers import counting, outcome, pixels, runs, text

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def numbered_by(names: list[str]) -> Any:
    """The number that each class gets if the names are sorted as words."""
    return np.argsort(np.argsort(np.array(names), kind="stable"))


# WL301


@mistake("WL301")
def digits_in_the_order_of_their_names() -> Pair:
    y, logits = outcome("digits")
    return Pair(numbered_by(WORDS)[y], logits)


@mistake("WL301")
def twenty_classes_sorted_as_words() -> Pair:
    y, logits = outcome("twenty", "logistic")
    return Pair(numbered_by([str(number) for number in range(20)])[y], logits)  # 0, 1, 10, 11, …, 19, 2, 3, …


@mistake("WL301")
def wine_one_class_on_in_one_hot_labels() -> Pair:
    y, logits = outcome("wine")
    return Pair(one_hot((y + 1) % 3, 3), logits, {"loss": "softmax"})


@mistake("WL301")
def two_kinds_of_iris_and_the_third_went_round() -> Pair:
    y, logits = outcome("iris", "logistic")
    return Pair((y + 2) % 3, cast(logits, "float64"), {"loss": "sparse"})


@mistake("WL301", torch=True)
def ten_to_nineteen_before_zero_to_nine_as_tensors() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast((y + 10) % 20, "torch.int64"), cast(logits, "torch.bfloat16"), {"loss": "sparse"})


@mistake("WL301")
def steps_in_the_order_of_their_names() -> Pair:
    y, logits = runs()
    return Pair(numbered_by(WORDS)[y], cast(logits, "bfloat16"), {"loss": "sparse"})


@mistake("WL301")
def colours_of_a_mask_in_another_order() -> Pair:
    y, logits = pixels()
    return Pair((y + 1) % 3, np.moveaxis(logits, -1, 1), {"loss": "sparse", "axis": 1})


# WL302


@mistake("WL302")
def counting_without_a_shift() -> Pair:
    return Pair(*counting())


@mistake("WL302")
def counting_with_two_shifts() -> Pair:
    y, logits = counting()
    return Pair(y[:, 2:], logits[:, :-2], {"loss": "sparse"})


@mistake("WL302", torch=True)
def letters_without_a_shift_as_tensors() -> Pair:
    here, logits = text()
    return Pair(cast(here, "torch.int64"), cast(logits, "torch.float32"), {"loss": "sparse"})


@mistake("WL302")
def letters_with_two_shifts_in_bfloat16() -> Pair:
    here, logits = text()
    return Pair(here[:, 2:], cast(logits[:, :-2], "bfloat16"), {"loss": "sparse"})


@mistake("WL302")
def a_shift_where_none_is_due() -> Pair:
    y, logits = runs(stay=0.2)
    return Pair(y[:, 1:], logits[:, :-1], {"loss": "sparse"})


@mistake("WL302")
def a_shift_where_none_is_due_and_labels_that_seldom_change() -> Pair:
    y, logits = runs()
    return Pair(y[:, 1:], logits[:, :-1])


@mistake("WL302")
def one_hot_steps_a_step_late() -> Pair:
    y, logits = runs(stay=0.2)
    return Pair(one_hot(y[:, :-1], 10), logits[:, 1:], {"loss": "softmax"})


@mistake("WL302")
def padded_counting_without_a_shift() -> Pair:
    y, logits = counting()
    labels = y.copy()
    labels[::2, 10:] = -100
    return Pair(labels, logits, {"loss": "sparse", "ignore_index": -100})


# WL303


@mistake("WL303")
def benign_taken_for_malignant() -> Pair:
    y, logits = outcome("tumours")
    return Pair(1 - y, logits)


@mistake("WL303")
def a_logistic_regression_of_the_other_class() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return Pair((1 - y).astype(np.float32)[:, None], logits[:, None].astype(np.float64), {"loss": "sigmoid"})


@mistake("WL303", torch=True)
def tensors_of_the_other_class() -> Pair:
    y, logits = outcome("tumours", "overtrained")
    return Pair(cast(y.astype(np.float32), "torch.float32"), cast(-logits, "torch.bfloat16"), {"loss": "sigmoid"})


@mistake("WL303")
def absent_taken_for_present() -> Pair:
    y, logits = outcome("canvases")
    return Pair(1 - y, logits, {"loss": "sigmoid"})


@mistake("WL303")
def log_odds_of_no() -> Pair:
    y, logits = outcome("canvases", "logistic")
    return Pair(y, cast(-logits, "bfloat16"))


@mistake("WL303")
def ink_taken_for_paper() -> Pair:
    y, logits = pixels()
    ink = logits[..., 2] - np.logaddexp(logits[..., 0], logits[..., 1])
    return Pair((y != 2).astype(np.uint8), ink, {"loss": "sigmoid"})


@mistake("WL303")
def even_taken_for_odd() -> Pair:
    y, logits = outcome("digits")
    even = np.logaddexp.reduce(logits[:, 0::2], 1) - np.logaddexp.reduce(logits[:, 1::2], 1)
    return Pair(y % 2, even, {"loss": "sigmoid"})


@mistake("WL303")
def a_moderate_score_of_the_other_answer() -> Pair:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 2500)
    return Pair(1 - truth, 1.5 * (2 * truth - 1) + 0.9 * rng.normal(size=2500), {"loss": "sigmoid"})


@mistake("WL303")
def two_logits_in_the_other_order() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y, np.stack([logits, -logits], 1), {"loss": "sparse"})


# WL304


@mistake("WL304", "note")
def digits_four_times_too_sure() -> Pair:
    y, logits = outcome("digits")
    return Pair(y, logits * np.float32(4))


@mistake("WL304", "note")
def digits_five_times_too_humble() -> Pair:
    y, logits = outcome("digits", "logistic")
    return Pair(one_hot(y, 10), logits / np.float32(5), {"loss": "softmax"})


@mistake("WL304", "note")
def canvases_six_times_too_sure() -> Pair:
    y, logits = outcome("canvases")
    return Pair(y, logits * np.float32(6), {"loss": "sigmoid"})


@mistake("WL304", "note", torch=True)
def twenty_classes_with_half_a_temperature_as_tensors() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast(y, "torch.int64"), cast(logits / 0.25, "torch.bfloat16"), {"loss": "sparse"})


@mistake("WL304", "note")
def tumours_eight_times_too_humble() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y, logits / np.float32(8), {"loss": "sigmoid"})


@mistake("WL304", "note")
def letters_learned_by_heart() -> Pair:
    here, logits = text()
    return Pair(here[:, 1:], logits[:, :-1].astype(np.float64) * 3, {"loss": "sparse"})


# WL305


def shuffled(y: Any, seed: int = 0) -> Any:
    """The same labels in another order."""
    return np.random.default_rng(seed).permutation(y.reshape(-1)).reshape(y.shape)


@mistake("WL305")
def digits_sorted_by_their_labels() -> Pair:
    y, logits = outcome("digits")
    return replace(Pair(np.sort(y), logits), healed=Pair(y, logits))


@mistake("WL305")
def digits_of_a_shuffled_file() -> Pair:
    y, logits = outcome("digits", "logistic")
    return replace(Pair(shuffled(y), cast(logits, "bfloat16"), {"loss": "sparse"}), healed=Pair(y, logits))


@mistake("WL305")
def one_hot_labels_of_a_shuffled_file() -> Pair:
    y, logits = outcome("digits")
    return replace(Pair(one_hot(shuffled(y, 1), 10), logits, {"loss": "softmax"}), healed=Pair(one_hot(y, 10), logits))


@mistake("WL305")
def twenty_classes_read_from_the_end() -> Pair:
    y, logits = outcome("twenty")
    return replace(Pair(y[::-1], logits), healed=Pair(y, logits))


@mistake("WL305", torch=True)
def a_loader_that_shuffles() -> Pair:
    y, logits = outcome("twenty", "logistic")
    wrong = Pair(cast(shuffled(y, 2), "torch.int64"), cast(logits, "torch.float32"))
    return replace(wrong, healed=Pair(cast(y, "torch.int64"), cast(logits, "torch.float32")))


@mistake("WL305")
def parts_in_the_order_in_which_they_were_done() -> Pair:
    y, logits = outcome("digits")
    parts = np.array_split(y, 7)
    return replace(Pair(np.concatenate([parts[i] for i in (3, 0, 6, 1, 5, 2, 4)]), logits), healed=Pair(y, logits))
