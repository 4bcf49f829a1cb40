"""The demo: its scores against small examples done by hand, its truths against mpmath, and a quick run of it all."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

import withlogits
from withlogits.data import load_digits
from withlogits.demo import canvases, run, speed, story, tail, usual
from withlogits.demo.network import Adam, Network, train

# ----------------------------------------------------------------------------------------------------------- canvases


@pytest.fixture(scope="module")
def composed():
    images, labels = load_digits()
    return canvases.compose(images, labels, 2000, seed=0)


def test_canvases_hold_none_to_three_digits(composed):
    assert composed.images.shape == (2000, 12, 12)
    assert composed.images.dtype == np.float32
    assert composed.rows.shape == (2000, 144)
    many = composed.present.sum(axis=1)
    assert set(many) == {0, 1, 2, 3}
    assert composed.images.max() == 1.0
    assert not composed.images[many == 0].any()
    assert composed.images[many > 0].any(axis=(1, 2)).all()


def test_a_canvas_is_its_digits_laid_over_one_another():
    digits = np.zeros((2, 8, 8), np.float32)
    digits[0], digits[1] = 0.25, 0.75
    composed = canvases.compose(digits, np.array([4, 6]), 300, seed=1)
    corners = [(top, left) for top in (0, 4) for left in (0, 4)]
    for image, present in zip(composed.images, composed.present, strict=True):
        assert set(np.unique(image)) <= {0.0, 0.25, 0.75}
        assert bool(present[6]) == (image == 0.75).any()
        if present[6]:
            assert any((image[t : t + 8, left : left + 8] == 0.75).all() for t, left in corners)
        assert present[[0, 1, 2, 3, 5, 7, 8, 9]].sum() == 0


def test_canvases_are_the_same_for_a_seed(composed):
    images, labels = load_digits()
    again = canvases.compose(images, labels, 2000, seed=0)
    np.testing.assert_array_equal(again.images, composed.images)
    assert (canvases.compose(images, labels, 2000, seed=1).images != composed.images).any()


# ------------------------------------------------------------------------------------------------------------- scores

PRESENT = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], np.float32)
GUESSES = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8], [0.3, 0.4]])


def test_scores_by_hand():
    got = canvases.score(GUESSES, PRESENT, 0.5)  # sets {0}, {0, 1}, {1}, {}
    assert got.exact == 0.5
    assert got.f1 == pytest.approx(2 * 3 / (4 + 4))
    # digit 0 ranks + + − −: 1; digit 1 ranks − + + −: (1/2 + 2/3) / 2
    assert got.mean_average_precision == pytest.approx((1 + 7 / 12) / 2)


def test_scores_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    present = (rng.random((200, 10)) < 0.3).astype(np.float32)
    for probabilities in (rng.random((200, 10)), np.round(rng.random((200, 10)), 1)):
        got = canvases.score(probabilities, present, 0.5)
        said = probabilities > 0.5
        assert got.exact == pytest.approx(metrics.accuracy_score(present, said))
        assert got.f1 == pytest.approx(metrics.f1_score(present, said, average="micro"))
        expected = metrics.average_precision_score(present, probabilities, average="macro")
        assert got.mean_average_precision == pytest.approx(expected)


def test_nothing_said_and_nothing_there():
    assert canvases.score(np.zeros((3, 2)), np.zeros((3, 2), np.float32), 0.5) == (1.0, 0.0, 0.0)


def test_the_best_threshold_gets_most_sets_right():
    best = canvases.best_threshold(GUESSES, PRESENT)
    shares = {t: canvases.score(GUESSES, PRESENT, t).exact for t in (best, *np.linspace(0, 1, 1001))}
    assert shares[best] == max(shares.values())


def test_labels_for_softmax_share_1():
    got = canvases.as_distribution(np.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], np.float32))
    np.testing.assert_array_equal(got, [[0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0]])


# ------------------------------------------------------------------------------------------------------------ network


def test_the_networks_gradients_are_those_of_its_loss():
    rng = np.random.default_rng(0)
    network = Network(6, 5, 4, seed=1)
    network.parameters = [p.astype(np.float64) for p in network.parameters]
    x, labels = rng.standard_normal((7, 6)), rng.integers(0, 4, 7)
    loss = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    _, gradients = network.loss_and_gradients(loss, x, labels)
    for parameter, gradient in zip(network.parameters, gradients, strict=True):
        for where in np.ndindex(parameter.shape):
            held, values = parameter[where], []
            for step in (1e-6, -1e-6):
                parameter[where] = held + step
                values.append(network.loss_and_gradients(loss, x, labels)[0])
            parameter[where] = held
            assert gradient[where] == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7)


def test_adams_first_step_is_the_rate():
    parameter = np.array([1.0, -1.0, 3.0], np.float32)
    Adam([parameter]).step([np.array([5.0, -0.01, 2.0], np.float32)], 0.1)
    np.testing.assert_allclose(parameter, [0.9, -0.9, 2.9], rtol=1e-5)


def test_training_is_the_same_for_a_seed_and_lowers_the_loss():
    images, labels = load_digits()
    loss = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    runs = [
        list(train(Network(64, 32, 10, 1), loss, images.reshape(-1, 64), labels, steps=80, seed=2)) for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert np.mean(runs[0][-10:]) < 0.7 * runs[0][0]


# --------------------------------------------------------------------------------------------------------------- tail


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([20.0, 0.0, 0.0], 0),
        ([1000.0, 0.0], 1),
        ([0.5, 0.25, -3.0], 2),
        ([70.0, 0.0], 0),
        ([90.0, 0.0], 0),
        ([100.0, 0.0], 0),
        ([1.0, -np.inf], 0),
        ([7.0], 0),
    ],
)
def test_the_truth_is_mpmaths(row, label):
    with mpmath.workdps(80):
        expected = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(x) - mpmath.mpf(row[label])) for x in row))
        assert float(tail.truth(row, label)) == pytest.approx(float(expected), rel=1e-15)


def test_the_tail_shows_what_each_formula_says():
    (row,) = tail.compare([((20, 0, 0), 0)])
    assert (row.textbook, row.shifted) == (0.0, 0.0)
    assert row.ours == np.float32(row.truth)
    assert row.truth == pytest.approx(4.12e-9, rel=1e-3)


def test_wrong_losses_are_counted():
    logits = np.array([[20, 0, 0], [15, 0, 0], [1, 0, 0]], np.float32)
    textbook, shifted, ours = tail.count_wrong(logits, np.zeros(3, int))
    assert (textbook.off, textbook.zero) == (2, 1)
    assert (shifted.off, shifted.zero) == (2, 1)
    assert ours == ("withlogits", 0, 0)


# -------------------------------------------------------------------------------------------------- the usual formulas


def test_the_usual_formulas_are_right_where_they_can_be():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((20, 5)), rng.integers(0, 5, 20)
    z = np.eye(5)[labels]
    expected, gradient = withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)(labels=z, logits=x)
    np.testing.assert_allclose(usual.log_of_softmax(x, labels), expected)
    np.testing.assert_allclose(usual.logsumexp_minus(x, labels), expected)
    for formula, z_or_labels in ((usual.sparse_loss_and_gradient, labels), (usual.softmax_loss_and_gradient, z)):
        loss, slope = formula(x, z_or_labels)
        np.testing.assert_allclose(loss, expected)
        np.testing.assert_allclose(slope, gradient)
    expected, gradient = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)(labels=z, logits=x)
    loss, slope = usual.sigmoid_loss_and_gradient(x, z)
    np.testing.assert_allclose(loss, expected)
    np.testing.assert_allclose(slope, gradient)


def test_a_wrong_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(usual, "logsumexp_minus", lambda x, labels: np.zeros(len(x)))
    with pytest.raises(AssertionError):
        next(speed.time(4, 5, 1))


# -------------------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "picture.png"
    console = Console(file=io.StringIO(), width=120)
    return run(console, output, quick=True), console.file.getvalue(), output


def test_no_digit_is_both_seen_and_held_out():
    digits = story.split()
    assert len(digits.training) == 1297
    assert len(digits.held_out) == 500
    seen = {image.tobytes() for image in digits.training}
    assert sum(image.tobytes() in seen for image in digits.held_out) == 0


def test_sparse_softmax_and_softmax_train_the_same_network(told):
    exclusive = told[0].exclusive
    assert exclusive.sparse == exclusive.softmax
    assert exclusive.same
    assert exclusive.accuracy > 0.6


def test_the_guide_is_silent_on_both_tasks_and_names_the_planted_mistake(told):
    first, second, planted = told[0].asked
    assert not first
    assert not second
    assert (first.loss, second.loss) == ("sparse", "sigmoid")
    assert planted.codes[0] == "WL101"
    assert "WL101  probabilities passed as logits (softmax)" in told[1]


def test_the_console_tells_what_was_found(told):
    found, text, output = told
    for words in (
        "1  Exactly one is true: which digit is this?",
        "losses and weights are the same to the last bit",
        f"Held out, {found.exclusive.accuracy:.1%} of the digits are right.",
        "2  Several may be true: which digits are in this picture?",
        "Softmax has its best chance",
        "3  The tail",
        "4.12231e-09",
        "4  The speed here: 256 × 1000 float32 logits",
        "The picture:",
    ):
        assert words in " ".join(text.split("\n"))
    for asked in (found.not_exclusive.sigmoid, found.not_exclusive.softmax):
        assert f"{asked.scores.exact:.1%}" in text
    assert str(output) in text


def test_scores_are_those_of_the_held_out_canvases(told):
    part = told[0].not_exclusive
    for asked in (part.sigmoid, part.softmax):
        assert asked.probabilities.shape == part.held_out.present.shape
        assert asked.scores == canvases.score(asked.probabilities, part.held_out.present, asked.threshold)
        assert asked.exact[-1] == asked.scores.exact
        assert asked.steps[-1] == story.QUICK.canvas_steps
    np.testing.assert_allclose(part.softmax.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_picture_is_a_png_for_a_phone(told):
    image = imread(told[2])
    height, width = image.shape[:2]
    assert width == 1080
    assert 2 < height / width < 3
    assert image[..., :3].std() > 0.1


def test_the_story_is_the_same_at_every_run(told, tmp_path):
    again = run(Console(file=io.StringIO()), tmp_path / "again.png", quick=True)
    assert again.exclusive.sparse == told[0].exclusive.sparse
    assert again.not_exclusive.sigmoid.scores == told[0].not_exclusive.sigmoid.scores
    assert again.not_exclusive.softmax.scores == told[0].not_exclusive.softmax.scores
    assert again.wrong == told[0].wrong


def demo(folder, *arguments, code="pass"):
    program = (
        f"import sys; sys.argv = ['withlogits', 'demo', *sys.argv[1:]]; {code}\nfrom withlogits.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(withlogits.__file__).parents[1]), "COLUMNS": "200"},
    )


def test_the_command(tmp_path):
    done = demo(tmp_path, "--quick")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "withlogits-demo.png").read_bytes().startswith(b"\x89PNG")
    assert f"The picture: {tmp_path / 'withlogits-demo.png'}" in done.stdout


@pytest.mark.parametrize("name", ["matplotlib", "threadpoolctl"])
def test_what_the_demo_lacks_is_named(tmp_path, name):
    done = demo(tmp_path, "--quick", code=f"sys.modules[{json.dumps(name)}] = None")
    expected = f'withlogits: the demo needs {name}: pip install "withlogits[cli]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_an_output_without_a_folder_is_refused_before_anything_is_trained(tmp_path):
    done = demo(tmp_path, "--output", "no/picture.png")
    expected = "withlogits: --output no/picture.png cannot be written: there is no folder no; make it first\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
