"""WL101 to WL109: the right loss, and something else than logits in it."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np

import withlogits
from guide.corpus.cases import Pair, cast, like, mistake, one_hot
from guide.corpus.classifiers import (
    SPARSE,
    Outcome,
    counting,
    data,
    fitted,
    network,
    outcome,
    pixels,
    runs,
    table,
    text,
)
from withlogits.demo.network import Network


def instead(labels: Any, wrong: Any, right: Any, **options: Any) -> Pair:
    """The wrong logits, and what they should have been."""
    return Pair(labels, wrong, options, Pair(labels, right, options))


# WL101


@mistake("WL101")
def digits_after_a_softmax() -> Pair:
    y, logits = outcome("digits")
    return instead(y, withlogits.softmax(logits), logits)


@mistake("WL101")
def predict_proba_with_one_hot_labels() -> Pair:
    y, logits = outcome("wine", "logistic")
    return instead(one_hot(y, 3), fitted("wine").predict_proba(data("wine").held_out), logits, loss="softmax")


@mistake("WL101")
def twenty_classes_after_a_softmax_in_bfloat16() -> Pair:
    y, logits = outcome("twenty")
    return instead(y, cast(withlogits.softmax(logits), "bfloat16"), cast(logits, "bfloat16"))


@mistake("WL101")
def an_untrained_softmax_in_float16() -> Pair:
    y, logits = outcome("digits", "untrained")
    return instead(y, withlogits.softmax(logits).astype(np.float16), logits.astype(np.float16), loss="sparse")


@mistake("WL101", torch=True)
def steps_after_a_softmax_as_tensors() -> Pair:
    y, logits = runs()
    right = cast(logits, "torch.float32")
    return instead(cast(y, "torch.int64"), right.softmax(-1), right)


@mistake("WL101")
def pixels_after_a_softmax_over_the_second_axis() -> Pair:
    y, logits = pixels()
    right = np.moveaxis(logits, -1, 1)
    return instead(y, withlogits.softmax(right, axis=1), right, axis=1)


@mistake("WL101")
def eight_rows_after_a_softmax() -> Pair:
    y, logits = outcome("digits")
    return instead(y[:8], withlogits.softmax(logits[:8]), logits[:8], loss="sparse")


# WL102


@mistake("WL102")
def tumours_after_a_sigmoid() -> Pair:
    y, logits = outcome("tumours")
    return instead(y, withlogits.sigmoid(logits), logits)


@mistake("WL102")
def predict_proba_of_tumours() -> Pair:
    y, logits = outcome("tumours", "logistic")
    wrong = fitted("tumours").predict_proba(data("tumours").held_out)[:, 1]
    return instead(y.astype(np.float32), wrong, logits, loss=withlogits.sigmoid_cross_entropy_with_logits)


@mistake("WL102")
def canvases_after_a_sigmoid() -> Pair:
    y, logits = outcome("canvases")
    return instead(y, withlogits.sigmoid(logits), logits)


@mistake("WL102")
def canvases_after_a_sigmoid_in_bfloat16() -> Pair:
    y, logits = outcome("canvases", "logistic")
    return instead(y, cast(withlogits.sigmoid(logits), "bfloat16"), cast(logits, "bfloat16"), loss="sigmoid")


@mistake("WL102", torch=True)
def tumours_after_a_sigmoid_in_one_column() -> Pair:
    y, logits = outcome("tumours", "overtrained")
    right = cast(logits[:, None], "torch.float32")
    return instead(cast(y[:, None].astype(np.float32), "torch.float32"), right.sigmoid(), right)


@mistake("WL102")
def tumours_after_a_sigmoid_in_float16_with_a_weight() -> Pair:
    y, logits = outcome("tumours")
    wrong = withlogits.sigmoid(logits).astype(np.float16)
    return instead(y[:64], wrong[:64], logits[:64].astype(np.float16), loss="sigmoid", pos_weight=2.0)


# WL103


@mistake("WL103", "note")
def digits_after_a_log_softmax() -> Pair:
    y, logits = outcome("digits")
    return instead(y, withlogits.log_softmax(logits), logits)


@mistake("WL103", "note")
def predict_log_proba_of_wine() -> Pair:
    y, logits = outcome("wine", "logistic")
    return instead(one_hot(y, 3), fitted("wine").predict_log_proba(data("wine").held_out), logits)


@mistake("WL103", "note", torch=True)
def letters_after_a_log_softmax_as_tensors() -> Pair:
    here, logits = text()
    right = cast(logits[:, :-1], "torch.float32")
    return instead(cast(here[:, 1:], "torch.int64"), right.log_softmax(-1), right, loss="sparse")


@mistake("WL103", "note")
def pixels_after_a_log_softmax() -> Pair:
    y, logits = pixels()
    right = np.moveaxis(logits, -1, 1)
    return instead(y, withlogits.log_softmax(right, axis=1), right, axis=1)


@mistake("WL103")
def independent_digits_after_a_log_softmax() -> Pair:
    y, logits = outcome("canvases")
    return instead(y, withlogits.log_softmax(logits), logits, loss="sigmoid")


@mistake("WL103")
def independent_digits_after_a_log_softmax_in_bfloat16() -> Pair:
    y, logits = outcome("canvases", "logistic")
    return instead(y, cast(withlogits.log_softmax(logits), "bfloat16"), cast(logits, "bfloat16"))


@mistake("WL103")
def independent_digits_after_a_log_sigmoid() -> Pair:
    y, logits = outcome("canvases", "logistic")
    return instead(y, withlogits.log_sigmoid(logits), logits, loss="sigmoid")


@mistake("WL103")
def predict_log_proba_of_tumours() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return instead(y, fitted("tumours").predict_log_proba(data("tumours").held_out)[:, 1], logits, loss="sigmoid")


# WL104


@mistake("WL104", "error")
def one_hot_labels_in_the_place_of_logits() -> Pair:
    y, logits = outcome("digits")
    return Pair(logits, one_hot(y, 10), {"loss": "softmax"})


@mistake("WL104", "error")
def class_numbers_in_the_place_of_logits() -> Pair:
    y, logits = outcome("digits", "early")
    return Pair(logits, y, {"loss": "sparse"})


@mistake("WL104", "error")
def class_numbers_in_the_place_of_logits_and_no_loss_named() -> Pair:
    y, logits = outcome("wine")
    return Pair(logits, y.astype(np.int32))


@mistake("WL104", "error", torch=True)
def the_order_of_pytorch() -> Pair:
    y, logits = outcome("twenty")
    return Pair(cast(logits, "torch.float32"), cast(y, "torch.int64"), {"loss": "sparse"})


@mistake("WL104", "error")
def tumours_swapped() -> Pair:
    y, logits = outcome("tumours")
    return Pair(logits, y.astype(np.float32), {"loss": "sigmoid"})


@mistake("WL104", "error")
def canvases_swapped() -> Pair:
    y, logits = outcome("canvases")
    return Pair(cast(logits, "bfloat16"), y.astype(np.int64), {"loss": "sigmoid"})


@mistake("WL104", "error")
def steps_swapped() -> Pair:
    y, logits = runs()
    return Pair(logits, y, {"loss": "sparse"})


# WL105


@mistake("WL105")
def sparse_softmax_over_the_one_output_of_tumours() -> Pair:
    y, logits = outcome("tumours")
    return Pair(y, logits[:, None], {"loss": "sparse"}, Pair(y, logits, {"loss": "sigmoid"}))


@mistake("WL105")
def softmax_over_the_one_output_of_tumours() -> Pair:
    y, logits = outcome("tumours", "logistic")
    return Pair(y[:, None].astype(np.float32), logits[:, None], {"loss": "softmax"}, Pair(y, logits))


@mistake("WL105")
def softmax_over_one_untrained_output() -> Pair:
    y, logits = outcome("tumours", "untrained")
    labels = y[:40, None]
    return Pair(labels, logits[:40, None], {"loss": withlogits.softmax_cross_entropy_with_logits}, Pair(y, logits))


@mistake("WL105", torch=True)
def softmax_over_one_output_as_tensors() -> Pair:
    y, logits = outcome("tumours")
    labels = cast(y[:, None].astype(np.float32), "torch.float32")
    right = cast(logits[:, None], "torch.bfloat16")
    return Pair(labels, right, {"loss": "softmax"}, Pair(labels, right, {"loss": "sigmoid"}))


@mistake("WL105")
def ink_or_paper_as_one_map() -> Pair:
    y, logits = pixels()
    ink = (logits[..., 2] - np.logaddexp(logits[..., 0], logits[..., 1]))[:, None]  # (N, 1, H, W)
    labels = (y == 2).astype(np.int64)[:, None]
    return Pair(labels, ink, {"loss": "softmax", "axis": 1}, Pair(labels, ink, {"loss": "sigmoid"}))


@mistake("WL105")
def one_question_at_each_step() -> Pair:
    y, logits = runs()
    even = logits[..., 0::2].max(-1, keepdims=True) - logits[..., 1::2].max(-1, keepdims=True)  # (N, T, 1)
    labels = (y % 2 == 0).astype(np.float32)[..., None]
    return Pair(labels, even, {"loss": "softmax"}, Pair(labels, even, {"loss": "sigmoid"}))


# WL106


@cache
def diverged() -> Outcome:
    """A network whose learning rate is absurd: after some steps everything is NaN."""
    x, y, held_out, truth = data("digits")
    model = Network(64, 48, 10, 0)
    with np.errstate(all="ignore"):
        for _ in range(60):
            _, gradients = model.loss_and_gradients(SPARSE, x[:200], y[:200])
            for parameter, gradient in zip(model.parameters, gradients, strict=True):
                parameter -= np.float32(1e10) * gradient
        return Outcome(truth, model.logits(held_out))


@mistake("WL106", "error")
def a_training_that_diverged() -> Pair:
    y, logits = diverged()
    return instead(y, logits, outcome("digits").logits)


@mistake("WL106", "error")
def one_nan_among_the_logits() -> Pair:
    y, logits = outcome("wine")
    wrong = logits.copy()
    wrong[17, 1] = np.nan
    return instead(one_hot(y, 3), wrong, logits)


@mistake("WL106", "error")
def an_overflow_of_float16() -> Pair:
    y, logits = outcome("digits")
    with np.errstate(over="ignore"):
        return instead(y, (logits * np.float32(20_000)).astype(np.float16), logits.astype(np.float16))


@mistake("WL106", "error")
def a_division_by_the_spread_of_a_constant_pixel() -> Pair:
    x, _, held_out, y = data("digits")
    with np.errstate(all="ignore"):
        divided = held_out / (x.std(0) * (x.std(0) > 0.03))  # the corners never have ink
        return instead(y, network("digits").logits(divided), outcome("digits").logits)


@mistake("WL106", "error")
def not_a_number_in_a_yes_or_no() -> Pair:
    y, logits = outcome("tumours")
    wrong = logits.astype(np.float64)
    wrong[::50] = np.nan
    return instead(y, wrong, logits.astype(np.float64), loss="sigmoid")


@mistake("WL106", "error", torch=True)
def infinite_logits_as_tensors() -> Pair:
    y, logits = outcome("canvases")
    right = cast(logits, "torch.bfloat16")
    wrong = right.clone()
    wrong[3, 4] = float("inf")
    return instead(cast(y, "torch.float32"), wrong, right)


@mistake("WL106")
def a_mask_over_the_class_that_a_label_wants() -> Pair:
    y, logits = outcome("digits")
    wrong = logits.copy()
    wrong[:, 7] = -np.inf  # and one digit in ten is a 7
    return instead(y, wrong, logits, loss="sparse")


# WL107


@cache
def dead(task: str) -> Any:
    """The logits of a network whose hidden units never fire: those of its last bias."""
    alive = network(task)
    w, b, v, c = alive.parameters
    model = Network(len(w), w.shape[1], len(c), 0)
    model.parameters = [w, b - 1000, v, np.linspace(-1, 1, len(c), dtype=np.float32) + c]
    return model.logits(data(task).held_out)


@mistake("WL107")
def dead_units() -> Pair:
    return instead(outcome("digits").labels, dead("digits"), outcome("digits").logits)


@mistake("WL107")
def dead_units_of_twenty_classes_in_bfloat16() -> Pair:
    y, logits = outcome("twenty")
    return instead(y, cast(dead("twenty"), "bfloat16"), cast(logits, "bfloat16"), loss="sparse")


@mistake("WL107")
def an_input_of_zeros() -> Pair:
    y, logits = outcome("wine")
    blank = network("wine").logits(np.zeros_like(data("wine").held_out))
    return instead(one_hot(y, 3), blank, logits, loss="softmax")


@mistake("WL107")
def the_same_canvas_again_and_again() -> Pair:
    y, logits = outcome("canvases")
    return instead(y, np.repeat(logits[5:6], len(y), axis=0), logits)


@mistake("WL107")
def one_answer_for_every_tumour() -> Pair:
    y, logits = outcome("tumours")
    return instead(y, np.full_like(logits, 0.53), logits, loss="sigmoid")


@mistake("WL107", torch=True)
def one_answer_at_every_step_as_tensors() -> Pair:
    y, logits = runs()
    right = cast(logits, "torch.float32")
    return instead(cast(y, "torch.int64"), right[:1, :1].expand(60, 12, 10), right)


# WL108


@mistake("WL108")
def digits_times_ten_thousand() -> Pair:
    y, logits = outcome("digits")
    return instead(y, logits * np.float32(1e4), logits)


@mistake("WL108")
def wine_in_other_units_than_those_of_the_training() -> Pair:
    # Alcohol, ash, ..., proline in micrograms, into a network that was trained on standardised columns.
    raw, y = table("wine")
    x, truth = data("wine").held_out, data("wine").truth
    model = network("wine")
    return Pair(y, model.logits((1e3 * raw).astype(np.float32)), {"loss": "sparse"}, Pair(truth, model.logits(x)))


@mistake("WL108")
def tumours_times_a_hundred_thousand() -> Pair:
    y, logits = outcome("tumours")
    return instead(y, logits * np.float32(1e5), logits, loss="sigmoid")


@mistake("WL108", torch=True)
def tensors_of_absurd_size() -> Pair:
    y, logits = outcome("twenty")
    return instead(cast(y, "torch.int64"), cast(logits * 1e5, "torch.bfloat16"), cast(logits, "torch.bfloat16"))


@mistake("WL108")
def an_untrained_network_fed_with_absurd_numbers() -> Pair:
    y, logits = outcome("digits", "untrained")
    return instead(one_hot(y, 10), logits.astype(np.float64) * 1e6, logits.astype(np.float64))


@mistake("WL108")
def steps_times_a_million() -> Pair:
    y, logits = counting()
    return instead(y[:, 1:], logits[:, :-1] * np.float32(1e6), logits[:, :-1])


# WL109


def reloaded(logits: Any) -> Any:
    """What `np.load` gives of a bfloat16 array that `np.save` wrote."""
    file = io.BytesIO()
    np.save(file, cast(logits, "bfloat16"))
    file.seek(0)
    return np.load(file)


def saved(labels: Any, logits: Any, **options: Any) -> Pair:
    return instead(labels, reloaded(logits), cast(logits, "bfloat16"), **options)


@mistake("WL109", "error")
def saved_digits() -> Pair:
    return saved(*outcome("digits"))


@mistake("WL109", "error")
def saved_wine_with_one_hot_labels() -> Pair:
    y, logits = outcome("wine")
    return saved(one_hot(y, 3), logits, loss="softmax")


@mistake("WL109", "error")
def saved_canvases() -> Pair:
    return saved(*outcome("canvases"), loss="sigmoid")


@mistake("WL109", "error")
def saved_steps() -> Pair:
    return saved(*runs(), loss="sparse")


@mistake("WL109", "error")
def saved_pixels() -> Pair:
    y, logits = pixels()
    return saved(y, np.moveaxis(logits, -1, 1), axis=1)


@mistake("WL109", "error")
def saved_tumours() -> Pair:
    y, logits = outcome("tumours")
    return saved(like(y, "numpy", np.float32), logits, loss="sigmoid")
