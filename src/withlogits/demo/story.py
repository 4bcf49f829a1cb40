"""The parts of the demo in their order: two trainings, the tail, the speed, the guide, and the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import withlogits
from withlogits.data import load_digits
from withlogits.demo import canvases, picture, speed, tail
from withlogits.demo.network import Network, train
from withlogits.demo.results import Asked, Exclusive, NotExclusive, Story
from withlogits.evaluation.files.errors import printable
from withlogits.guide import Diagnosis

Floats = NDArray[np.float32]

HELD_OUT = 500  # digits that no network is trained on, alone or in a canvas


@dataclass(frozen=True)
class Size:
    """How much is trained and measured."""

    digit_steps: int
    canvas_steps: int
    hidden: int
    training_canvases: int
    held_out_canvases: int
    checkpoints: int
    timed: tuple[int, int]
    rounds: int


FULL = Size(3000, 6000, 256, 60_000, 3000, 20, (4096, 1000), speed.ROUNDS)
QUICK = Size(60, 120, 32, 600, 200, 3, (256, 1000), 3)


class Digits(NamedTuple):
    """The real digits, split once for all parts."""

    training: Floats  # (N, 8, 8)
    training_labels: NDArray[np.int64]
    held_out: Floats
    held_out_labels: NDArray[np.int64]


def run(console: Console, output: Path, quick: bool = False) -> Story:
    """Run every part, print its results, and draw them into the file `output`."""
    size = QUICK if quick else FULL
    digits = split()
    console.print(
        f"[bold]withlogits {withlogits.__version__}[/]: {len(digits.training)} real digits to train on, "
        f"{len(digits.held_out)} held out; UCI Optical Recognition of Handwritten Digits, CC BY 4.0"
    )
    # Matrix products as small as these gain little from threads, and lose much where other programs want the cores.
    with threadpool_limits(1, "blas"):
        exclusive = tell_exclusive(console, digits, size)
        not_exclusive = tell_not_exclusive(console, digits, size)
    tails, wrong = tell_tail(console, digits, exclusive)
    timings = tell_speed(console, size)
    asked = tell_guide(console, digits, exclusive, not_exclusive)
    story = Story(exclusive, not_exclusive, tails, wrong, timings, asked)
    picture.draw(story, output)
    console.print(Text.assemble("\nThe picture: ", (printable(str(output.absolute())), "bold")), soft_wrap=True)
    return story


def split() -> Digits:
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(images))
    kept, held = order[HELD_OUT:], order[:HELD_OUT]
    return Digits(images[kept], labels[kept], images[held], labels[held])


# -------------------------------------------------------------------------------------------------- exclusive classes


def tell_exclusive(console: Console, digits: Digits, size: Size) -> Exclusive:
    heading(console, "1  Exactly one is true: which digit is this?")
    x = digits.training.reshape(len(digits.training), -1)
    one_hot = np.eye(10, dtype=np.float32)[digits.training_labels]
    sparse = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    softmax = withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)
    # in float64, where both losses take one path; in float32 index labels have a faster one, within 1 ulp of the other
    networks = [Network(64, 64, 10, seed=1, dtype=np.float64) for _ in range(2)]
    with bars(console) as progress:
        losses = [
            train_with_bar(progress, name, network, loss, x, labels, size.digit_steps)
            for name, network, loss, labels in (
                ("sparse softmax, labels 0 to 9", networks[0], sparse, digits.training_labels),
                ("softmax, one-hot labels", networks[1], softmax, one_hot),
            )
        ]
    weights = (network.parameters for network in networks)
    same = losses[0] == losses[1] and all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    logits = networks[0].logits(digits.held_out.reshape(len(digits.held_out), -1)).astype(np.float32)
    accuracy = float((logits.argmax(axis=1) == digits.held_out_labels).mean())
    console.print(
        f"{size.digit_steps} batches each: losses and weights are "
        + ("the same to the last bit" if same else "[bold]not the same to the last bit, as they should be[/]")
        + f". Held out, {accuracy:.1%} of the digits are right."
    )
    return Exclusive(losses[0], losses[1], same, accuracy, logits)


# ------------------------------------------------------------------------------------------ classes not exclusive


def tell_not_exclusive(console: Console, digits: Digits, size: Size) -> NotExclusive:
    heading(console, "2  Several may be true: which digits are in this picture?")
    seen = canvases.compose(digits.training, digits.training_labels, size.training_canvases, seed=2)
    held_out = canvases.compose(digits.held_out, digits.held_out_labels, size.held_out_canvases, seed=3)
    sigmoid = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)
    softmax = withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)
    with bars(console) as progress:
        asked = [
            ask(progress, name, loss, labels, to_probabilities, seen, held_out, size)
            for name, loss, labels, to_probabilities in (
                ("sigmoid", sigmoid, seen.present, withlogits.sigmoid),
                ("softmax", softmax, canvases.as_distribution(seen.present), withlogits.softmax),
            )
        ]
    table = table_of("held out", "sets right", "F1", "mean avg. precision", "threshold", "sets right at 1/2")
    for a in asked:
        s = a.scores
        numbers = (s.exact, s.f1, s.mean_average_precision)
        table.add_row(a.loss, *(f"{n:.1%}" for n in numbers), f"{a.threshold:.2f}", f"{a.at_half.exact:.1%}")
    console.print(table)
    console.print(
        "Softmax has its best chance: its labels share 1 among the digits that are there (among all ten where there is "
        "none), and each threshold is the one with the most sets right on training canvases."
    )
    return NotExclusive(held_out, *asked)


def ask(
    progress: Progress,
    name: str,
    loss: Callable[..., Any],
    labels: Floats,
    to_probabilities: Callable[[Floats], Floats],
    seen: canvases.Canvases,
    held_out: canvases.Canvases,
    size: Size,
) -> Asked:
    """Train one network, and score it on held-out canvases now and then."""
    network = Network(canvases.SIDE**2, size.hidden, 10, seed=4)
    tuned_on = seen.rows[: size.held_out_canvases], seen.present[: size.held_out_canvases]
    every = size.canvas_steps // size.checkpoints
    steps: list[int] = []
    exact: list[float] = []
    threshold = 0.5

    def check(step: int) -> None:
        nonlocal threshold
        if step % every == 0:
            threshold = canvases.best_threshold(to_probabilities(network.logits(tuned_on[0])), tuned_on[1])
            said = to_probabilities(network.logits(held_out.rows)) > threshold
            steps.append(step)
            exact.append(canvases.exact_share(said, held_out.present > 0))

    train_with_bar(progress, name, network, loss, seen.rows, labels, size.canvas_steps, check)
    logits = network.logits(held_out.rows)
    probabilities = to_probabilities(logits)
    scores, at_half = (canvases.score(probabilities, held_out.present, t) for t in (threshold, 0.5))
    return Asked(name, steps, exact, threshold, scores, at_half, logits, probabilities)


# ------------------------------------------------------------------------------------------------ tail and speed


def tell_tail(console: Console, digits: Digits, exclusive: Exclusive) -> tuple[list[tail.Tail], list[tail.Wrong]]:
    heading(console, "3  The tail: rows about which a network is sure (float32)")
    tails = tail.compare([((20, 0, 0), 0), ((40, 0, 0), 0), ((90, 0, 0), 0), ((1000, 0, 0), 1)])
    table = table_of("logits", "label", "log(softmax)", "logsumexp − x", "withlogits", "truth")
    for row in tails:
        x = f"[{', '.join(f'{logit:g}' for logit in row.logits)}]"
        table.add_row(Text(x), str(row.label), *(f"{v:.6g}" for v in (row.textbook, row.shifted, row.ours, row.truth)))
    console.print(table)
    right = exclusive.logits.argmax(axis=1) == digits.held_out_labels
    wrong = tail.count_wrong(exclusive.logits[right], digits.held_out_labels[right])
    found = "; ".join(f"{w.formula} for {w.off} (exactly 0 for {w.zero})" for w in wrong)
    console.print(
        f"Of {np.count_nonzero(right)} held-out digits that the network of part 1 gets right, the loss is off by more "
        f"than 1 % with {found}."
    )
    return tails, wrong


def tell_speed(console: Console, size: Size) -> list[speed.Timing]:
    rows, classes = size.timed
    heading(console, f"4  The speed here: {rows} × {classes} float32 logits, {withlogits.get_num_threads()} threads")
    timings = []
    table = table_of("", "usual NumPy", "withlogits", "ratio")
    for timing in speed.time(rows, classes, size.rounds):
        timings.append(timing)
        milliseconds = (f"{1000 * seconds:.3g} ms" for seconds in (timing.usual, timing.ours))
        table.add_row(timing.task.replace("\n", " "), *milliseconds, f"{timing.ratio:.1f} ×")
    console.print(table)
    return timings


def tell_guide(console: Console, digits: Digits, exclusive: Exclusive, not_exclusive: NotExclusive) -> list[Diagnosis]:
    heading(console, "5  The guide: withlogits.diagnose(labels, logits) on both tasks, and on a planted mistake")
    labels, present = digits.held_out_labels, not_exclusive.held_out.present
    asked = [
        ("which digit is this?", labels, exclusive.logits),
        ("which digits are there?", present, not_exclusive.sigmoid.logits),
        ("the first again, with a softmax too many", labels, withlogits.softmax(exclusive.logits)),
    ]
    diagnoses = []
    for question, z, x in asked:
        diagnosis = withlogits.diagnose(z, x)
        diagnoses.append(diagnosis)
        console.print(f"[italic]{question}[/]")
        console.print(Text(str(diagnosis)), soft_wrap=True)
    return diagnoses


# ----------------------------------------------------------------------------------------------------- on the console


def heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def table_of(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0))


def bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console)


def train_with_bar(
    progress: Progress,
    name: str,
    network: Network,
    loss: Callable[..., Any],
    x: Floats,
    labels: Any,
    steps: int,
    check: Callable[[int], None] | None = None,
) -> list[float]:
    """Train with a progress bar and return the loss of each batch; `check` is called with the number of steps done."""
    task = progress.add_task(name, total=steps, note="")
    losses = []
    for value in train(network, loss, x, labels, steps=steps, seed=5):
        losses.append(value)
        if check is not None:
            check(len(losses))
        if len(losses) % 50 == 0 or len(losses) == steps:
            progress.update(task, completed=len(losses), note=f"loss {np.mean(losses[-50:]):.4f}")
    return losses
