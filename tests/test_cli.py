"""The command as a user meets it: what goes to stdout and stderr, and how it exits."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import withlogits
from cli_processes import SOURCE, finished, partials, process, wait_for_partial
from withlogits.cli import main
from withlogits.evaluation import losses


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run `withlogits` in this process, in a folder with example files; returns exit code, stdout and stderr."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((100, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    np.save("one_hot.npy", np.eye(10, dtype=np.float32)[labels])
    np.save("several.npy", (rng.random((100, 10)) < 0.3).astype(np.uint8))
    np.savez_compressed("both.npz", logits=logits, labels=labels)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["withlogits", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


NO_FOLDER = "cannot be written: there is no folder nowhere; make it first"
SPARSE = "withlogits: --loss sparse, since int64 labels of shape (100,) are the numbers of classes\n"


# ------------------------------------------------------------------------------------------------------------- loss


def test_one_row_of_labels_for_all(command):
    logits, row = np.load("logits.npy"), np.full(10, 0.1, np.float32)
    np.save("row.npy", row)
    expected = withlogits.softmax_cross_entropy_with_logits(
        labels=row, logits=logits.astype(np.float64), reduction="mean"
    )
    code, out, err = command("loss", "logits.npy", "row.npy")
    assert (code, float(out)) == (0, pytest.approx(expected, rel=1e-15))
    assert err == "withlogits: --loss softmax, since float32 labels of shape (10,) are one distribution for all rows\n"


@pytest.mark.parametrize("name", ["evaluate", "doctor"])
def test_what_the_guide_cannot_mend_is_one_sentence(command, name):
    np.save("row.npy", np.full(10, 0.1, np.float32))
    code, out, err = command(name, "logits.npy", "row.npy")
    assert (code, out) == (1, "")
    assert err == (
        "withlogits: row.npy: labels have shape (10,) and logits (100, 10), classes on axis 0: class indices belong to "
        "--loss sparse; --loss softmax takes labels of the logits' shape, whose rows sum to 1 (WL202)\n"
    )


def test_the_mean_is_the_librarys(command):
    code, out, err = command("loss", "logits.npy", "labels.npy")
    expected = withlogits.sparse_softmax_cross_entropy_with_logits(
        labels=np.load("labels.npy"), logits=np.load("logits.npy").astype(np.float64), reduction="mean"
    )
    assert (code, err) == (0, SPARSE)
    assert float(out) == pytest.approx(expected, rel=1e-15)
    assert out == f"{float(out)}\n"


@pytest.mark.parametrize(
    ("labels", "loss", "function"),
    [
        ("labels.npy", "sparse", withlogits.sparse_softmax_cross_entropy_with_logits),
        ("one_hot.npy", "softmax", withlogits.softmax_cross_entropy_with_logits),
        ("several.npy", "sigmoid", withlogits.sigmoid_cross_entropy_with_logits),
    ],
)
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_each_loss_chosen_or_found(command, monkeypatch, labels, loss, function, reduction):
    monkeypatch.setattr(losses, "BUDGET", 70)
    code, out, err = command("loss", "logits.npy", labels, "--loss", loss, "--reduction", reduction)
    assert (code, err) == (0, "")
    logits = np.load("logits.npy")
    if reduction != "none":
        logits = logits.astype(np.float64)
    expected = function(labels=np.load(labels), logits=logits, reduction=reduction)
    got = np.array(out.split(), expected.dtype).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=0 if reduction == "none" else 1e-15)
    code, found, err = command("loss", "logits.npy", labels, "--reduction", reduction)
    assert (code, found) == (0, out)
    assert err.startswith(f"withlogits: --loss {loss}, since ")


def test_members_of_an_archive(command):
    expected = command("loss", "logits.npy", "labels.npy")
    assert command("loss", "both.npz:logits", "both.npz:labels") == expected


def test_axis_and_an_archive_that_has_to_be_unpacked(command, monkeypatch):
    monkeypatch.setattr(losses, "BUDGET", 70)
    _, expected, _ = command("loss", "logits.npy", "labels.npy")
    np.savez_compressed("t.npz", np.ascontiguousarray(np.load("logits.npy").T))
    code, out, err = command("loss", "t.npz", "labels.npy", "--axis", 0, "--loss", "sparse")
    assert (code, out) == (0, expected)
    assert re.fullmatch(r"withlogits: t\.npz: unpacking 4,000 bytes into \S+, since its blocks do not lie .*\n", err)


def test_ignored_rows(command):
    labels = np.load("labels.npy")
    labels[::4] = -1
    np.save("padded.npy", labels)
    code, out, _ = command("loss", "logits.npy", "padded.npy", "--ignore-index", -1, "--json")
    result = json.loads(out)
    assert (code, result["counted"], result["ignored"], result["ignore_index"]) == (0, 75, 25, -1)
    np.save("all.npy", np.full(100, -1))
    code, out, err = command("loss", "logits.npy", "all.npy", "--ignore-index", -1, "--loss", "sparse")
    assert (code, out, err) == (0, "0.0\n", "withlogits: nothing counts, and the mean of nothing is 0\n")


def test_json(command):
    code, out, err = command("loss", "logits.npy", "labels.npy", "--json")
    _, value, _ = command("loss", "logits.npy", "labels.npy")
    assert (code, err) == (0, SPARSE)
    assert json.loads(out) == {
        "value": float(value),
        "unit": "nats",
        "reduction": "mean",
        "loss": "sparse",
        "reason": "int64 labels of shape (100,) are the numbers of classes",
        "axis": 1,
        "ignore_index": None,
        "counted": 100,
        "ignored": 0,
        "nan": 0,
        "infinite": 0,
        "logits": {"file": "logits.npy", "shape": [100, 10], "dtype": "float32"},
        "labels": {"file": "labels.npy", "shape": [100], "dtype": "int64"},
        "output": None,
    }


def test_ignored_answers(command):
    rng = np.random.default_rng(0)
    answers, logits = (rng.random((40, 3)) < 0.3) * 1.0, np.load("logits.npy")[:40, :3]
    np.save("x.npy", logits)
    for name, mark in (("-1", -1.0), ("255", 255.0), ("nan", np.nan)):
        missing = rng.random((40, 3)) < 0.2
        np.save("z.npy", np.where(missing, mark, answers))
        code, out, err = command("loss", "x.npy", "z.npy", "--loss", "sigmoid", "--ignore-index", name, "--json")
        result = json.loads(out, parse_constant=pytest.fail)
        kept = ~missing
        expected = withlogits.sigmoid_cross_entropy_with_logits(
            labels=answers[kept], logits=logits[kept].astype(np.float64), reduction="mean"
        )
        assert (code, err, result["counted"], result["ignored"]) == (0, "", kept.sum(), missing.sum())
        assert result["value"] == pytest.approx(expected, rel=1e-14)
        assert str(result["ignore_index"]) == name
    code, _, err = command("loss", "logits.npy", "labels.npy", "--loss", "sparse", "--ignore-index", "nan")
    assert (code, err) == (
        2,
        "withlogits: --ignore-index nan goes with 0 and 1 (--loss sigmoid), and the loss is sparse\n",
    )


@pytest.mark.parametrize("order", "CF")
def test_output(command, monkeypatch, order):
    monkeypatch.setattr(losses, "BUDGET", 17)
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((4, 3, 5)), rng.integers(0, 3, (4, 5))
    np.save("l.npy", np.asarray(logits, order=order))
    np.save("y.npy", labels)
    options = ("--axis", 1, "--reduction", "none", "--output", "losses.npy")
    assert command("loss", "l.npy", "y.npy", "--loss", "sparse", *options) == (0, "", "")
    expected = withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, axis=1)
    np.testing.assert_array_equal(np.load("losses.npy"), expected)
    code, out, _ = command("loss", "l.npy", "y.npy", *options, "--json")
    assert (code, json.loads(out)["value"], json.loads(out)["output"]) == (0, None, "losses.npy")
    assert not partials(Path())


def test_losses_on_stdout_come_in_the_order_of_the_indices(command, monkeypatch):
    monkeypatch.setattr(losses, "BUDGET", 17)
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((4, 3, 5)).astype(np.float32), rng.integers(0, 3, (4, 5))
    np.save("l.npy", np.asfortranarray(logits))
    np.save("y.npy", labels)
    code, out, _ = command("loss", "l.npy", "y.npy", "--axis", 1, "--reduction", "none")
    expected = withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, axis=1)
    assert code == 0
    assert out.split() == [str(value) for value in expected.ravel()]


def test_nan_ends_a_mean_and_is_noted_in_a_list(command):
    logits = np.load("logits.npy")
    logits[[7, 9]] = np.nan
    np.save("logits.npy", logits)
    text = "logits.npy: the loss at [7] is NaN, since a logit is NaN (2 of 100 are NaN)"
    arguments = ("loss", "logits.npy", "labels.npy", "--loss", "sparse")
    assert command(*arguments) == (1, "", f"withlogits: {text}; --reduction none shows the losses one by one\n")
    code, out, err = command(*arguments, "--reduction", "none")
    assert (code, out.split()[7:10:2], err) == (0, ["nan", "nan"], f"withlogits: {text}\n")


def test_an_infinite_loss_is_a_result(command):
    logits = np.load("logits.npy")
    logits[3, np.load("labels.npy")[3]] = -np.inf
    np.save("logits.npy", logits)
    code, out, err = command("loss", "logits.npy", "labels.npy", "--loss", "sparse")
    why = "since the label wants what an infinite logit rules out (1 of 100 are inf)"
    assert (code, out, err) == (0, "inf\n", f"withlogits: logits.npy: the loss at [3] is inf, {why}\n")
    _, out, _ = command("loss", "logits.npy", "labels.npy", "--json")
    assert json.loads(out)["value"] == "inf"
    assert json.loads(out)["infinite"] == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it.npy is empty (0 bytes)"),
        (b"hello", "it.npy is no .npy, .npz, .safetensors, .parquet, .zarr or HDF5 file: it begins with b'hello'"),
        (b"\x80\x04", "it.npy is a pickle, which is never opened; save the array with numpy.save"),
    ],
)
def test_bad_files_are_one_sentence_and_exit_1(command, content, text):
    Path("it.npy").write_bytes(content)
    assert command("loss", "it.npy", "labels.npy") == (1, "", f"withlogits: {text}\n")
    assert command("loss", "logits.npy", "it.npy") == (1, "", f"withlogits: {text}\n")


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        (
            np.where(np.arange(100) == 77, 12, 3),
            (),
            (
                "labels[77] = 12 is outside [0, 10) for logits with 10 classes; "
                "the logits lack classes, or the labels want another numbering (WL206); "
                "to skip padding pass --ignore-index 12"
            ),
        ),
        (np.zeros(50, int), (), "class indices of shape (100,) or (100, 1) are expected"),
        (np.zeros(10, int), (), "the labels fit classes on another axis: pass --axis 0"),
        (np.zeros((100, 10)), ("--loss", "sparse"), "labels have dtype float64, and --loss sparse takes class indices"),
        (
            np.zeros(100, int),
            ("--loss", "softmax"),
            "class indices belong to --loss sparse; --loss softmax takes labels",
        ),
        (np.zeros(100, int), ("--loss", "sigmoid"), "--loss sigmoid takes one label for each logit"),
    ],
)
def test_labels_that_do_not_fit_are_told_in_the_words_of_the_command_line(command, labels, options, text):
    np.save("it.npy", labels)
    code, out, err = command("loss", "logits.npy", "it.npy", *options)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("withlogits: it.npy: ")
    assert text in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("missing.npy", "labels.npy"), "missing.npy cannot be read: No such file or directory"),
        (("both.npz", "labels.npy"), "both.npz holds 2 arrays: name one, as both.npz:logits (logits, labels)"),
        (("both.npz:x", "labels.npy"), "both.npz holds no array 'x'; it holds logits, labels"),
        (
            ("logits.npy", "one_hot.npy", "--loss", "sigmoid", "--axis", "1"),
            "--axis names the axis of exclusive classes, and the sigmoid loss has none: leave it out",
        ),
        (
            ("logits.npy", "one_hot.npy", "--loss", "softmax", "--ignore-index", "1"),
            "--ignore-index goes with class numbers or 0 and 1 (--loss sparse, sigmoid), and the loss is softmax",
        ),
        (
            ("logits.npy", "labels.npy", "--output", "o.npy"),
            "--output takes the losses one by one: --reduction none, and not mean",
        ),
        (
            ("logits.npy", "labels.npy", "--reduction", "none", "--json"),
            "--json is a summary: with --reduction none, name a file for the losses with --output",
        ),
        (
            ("logits.npy", "labels.npy", "--loss", "sparse", "--reduction", "none", "--output", "labels.npy"),
            "--output labels.npy is read as an input; choose another file",
        ),
        (
            ("logits.npy", "labels.npy", "--loss", "sparse", "--reduction", "none", "--output", "no/o.npy"),
            "--output no/o.npy cannot be written: there is no folder no; make it first",
        ),
    ],
)
def test_a_command_line_that_cannot_be_meant_exits_2(command, arguments, text):
    assert command("loss", *arguments) == (2, "", f"withlogits: {text}\n")


@pytest.mark.parametrize("arguments", [("loss",), ("loss", "logits.npy", "labels.npy", "--loss", "hinge"), ("what",)])
def test_typers_own_usage_errors_exit_2(command, arguments):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: withlogits")
    assert "Error: " in err


def test_an_output_that_failed_leaves_nothing_behind(command, monkeypatch):
    monkeypatch.setattr(losses, "BUDGET", 70)
    np.save("bad.npy", np.where(np.arange(100) == 77, 12, 3))
    Path("losses.npy").write_text("before")
    code, _, _ = command("loss", "logits.npy", "bad.npy", "--reduction", "none", "--output", "losses.npy")
    assert code == 1
    assert Path("losses.npy").read_text() == "before"
    assert not partials(Path())


def test_a_bar_is_drawn_where_stderr_is_a_terminal(command, monkeypatch):
    monkeypatch.setattr(losses, "BUDGET", 70)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = command("loss", "logits.npy", "labels.npy")
    assert (code, len(out.split())) == (0, 1)
    assert "100%" in err


# -------------------------------------------------------------------------------------------- memory and interruption

PEAK = """
import resource, runpy
import numpy as np
from withlogits.evaluation import files, losses
small = files.open_array("small.npy"), files.open_array("small_labels.npy")
losses.evaluate(losses.pair_up(*small, "sparse"))  # the kernels are compiled, the threads are there
def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = megabytes()
import atexit
atexit.register(lambda: print("grew by", megabytes() - before, "MB", file=sys.stderr))
"""


@pytest.mark.parametrize("name", ["big.npy", "big.npz"])
def test_a_large_file_takes_little_memory(tmp_path, name):
    np.save(tmp_path / "small.npy", np.zeros((100, 1000), np.float32))
    np.save(tmp_path / "small_labels.npy", np.zeros(100, int))
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (75_000, 1000))  # 300 MB, sparse
    np.save(tmp_path / "labels.npy", np.zeros(75_000, int))
    if name == "big.npz":
        np.savez_compressed(tmp_path / "big.npz", big)
    del big
    code, out, err = finished(process("loss", name, "labels.npy", code=PEAK, cwd=tmp_path))
    assert code == 0, err
    assert float(out) == pytest.approx(np.log(1000), rel=1e-14)
    grown = float(re.search(r"grew by (\S+) MB", err)[1])
    assert grown < 60


def test_an_interrupt_exits_130_with_one_line(tmp_path):
    np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (6_000_000, 1000))  # 24 GB, sparse
    np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.int64, (6_000_000,))
    arguments = ("loss", "big.npy", "labels.npy", "--reduction", "none", "--output", "losses.npy")
    with process(*arguments, cwd=tmp_path) as child:
        first = child.stderr.readline()
        assert first.startswith("withlogits: --loss sparse, since")
        wait_for_partial(tmp_path)
        child.send_signal(signal.SIGINT)
        code, out, err = finished(child)
    assert (code, out, err) == (130, "", "withlogits: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.npy", "labels.npy"]


def test_a_reader_that_leaves_is_no_error_text(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((200_000, 3), np.float32))
    np.save(tmp_path / "y.npy", np.zeros(200_000, int))
    with process("loss", "x.npy", "y.npy", "--reduction", "none", cwd=tmp_path) as child:
        assert child.stdout.readline() == "1.0986123\n"
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(60) == 1
    assert err.count("\n") == 1
    assert err.startswith("withlogits: --loss sparse")


# ----------------------------------------------------------------------------------------------- evaluate and doctor


@pytest.fixture
def pair(command):
    """Clean logits and labels in the command's folder."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((300, 6)).astype(np.float32) * 3
    labels = logits.argmax(1)
    labels[::9] = 0
    np.save("x.npy", logits)
    np.save("y.npy", labels)
    np.save("from_one.npy", labels + 1)
    np.save("hot.npy", np.eye(6, dtype=np.int8)[labels])
    return labels, logits


def test_evaluate_prints_what_python_says(command, pair):
    code, out, err = command("evaluate", "x.npy", "y.npy")
    assert (code, err) == (0, "")
    assert out.startswith("logits x.npy (300, 6) float32, labels y.npy (300,) int64; loss: sparse\n")
    assert out.replace(" x.npy", "").replace(" y.npy", "") == f"{withlogits.evaluate(*pair)}\n"
    assert out.index("nothing found") < out.index("perplexity")


def test_evaluate_as_json(command, pair):
    code, out, _ = command("evaluate", "x.npy", "y.npy", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["loss"] == withlogits.evaluate(*pair).loss
    assert found["diagnosis"]["findings"] == []
    assert found["sources"] == {"logits": "x.npy", "labels": "y.npy"}
    assert json.dumps(found, allow_nan=False)


def test_evaluate_with_weights_and_thresholds_of_missing_labels(command):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((100, 10)) < 0.2, np.nan, np.load("several.npy"))
    np.save("missing.npy", labels)
    np.save("weights.npy", rng.random(100))
    arguments = ("logits.npy", "missing.npy", "--loss", "sigmoid", "--ignore-index")
    extra = ("--sample-weight", "weights.npy", "--thresholds", "0.3,0.5", "--calibration-bins", "7", "--classwise")
    code, out, err = command("evaluate", *arguments, "nan", *extra, "--json")
    options = {"thresholds": [0.3, 0.5], "calibration_bins": 7, "classwise": True}
    weights = np.load("weights.npy")
    expected = withlogits.evaluate(
        labels, np.load("logits.npy"), loss="sigmoid", ignore_index=np.nan, sample_weight=weights, **options
    )
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["sources"].pop("sample_weight") == "weights.npy"
    names = ("loss", "ignored", "auroc", "brier", "thresholds", "calibration", "classwise_calibration_error")
    assert {name: found[name] for name in names} == {name: expected.to_dict()[name] for name in names}
    assert command("doctor", *arguments, "nan")[0] == 0
    assert command("doctor", *arguments, "-7")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ignore-index", "x"), "--ignore-index is 'x', where a whole number or nan is expected"),
        (("--thresholds", "0.3,2"), "--thresholds is ['0.3', '2'], where probabilities between 0 and 1 are expected"),
        (("--calibration-bins", "0"), "--calibration-bins is 0, where 1 to 1000 is expected"),
        (("--sample-weight", "nowhere.npy"), "nowhere.npy"),
    ],
)
def test_options_of_an_evaluation_that_are_wrong(command, arguments, words):
    code, out, err = command("evaluate", "logits.npy", "several.npy", "--loss", "sigmoid", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_evaluate_with_names_and_a_report(command, pair):
    Path("names.txt").write_text("ant\nbee\ncow\ndog\neel\nfox\n")
    code, out, err = command("evaluate", "x.npy", "y.npy", "--class-names", "names.txt", "--report", "r.html")
    assert code == 0
    assert "ant as " in out
    assert err == f"withlogits: the report: {Path('r.html').resolve()}\n"
    assert '<html lang="en"' in Path("r.html").read_text()
    code, *_ = command("evaluate", "x.npy", "y.npy", "--report", "r.html", "--language", "zh")
    assert code == 0
    assert '<html lang="zh' in Path("r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("x.npy", "y.npy"), 0, "nothing found"),
        (("x.npy", "from_one.npy"), 1, "fix: labels = labels - 1"),
        (("x.npy", "hot.npy", "--loss", "sparse"), 1, "WL201"),
        (("x.npy", "hot.npy"), 0, "softmax: exactly one class"),
        (("x.npy", "hot.npy", "--loss", "sigmoid"), 1, "warning WL204"),
        (("y.npy", "x.npy"), 1, "WL104"),
    ],
)
@pytest.mark.usefixtures("pair")
def test_doctor_exits_1_if_something_is_wrong(command, arguments, code, words):
    ended, out, err = command("doctor", *arguments)
    assert (ended, err) == (code, "")
    assert words in out
    ended, out, _ = command("doctor", *arguments, "--json")
    assert ended == code
    assert json.loads(out)["subject"].startswith("logits ")


@pytest.mark.usefixtures("pair")
def test_doctor_speaks_of_its_options(command, pair):
    labels, logits = pair
    void = np.where(np.arange(300) % 7 == 0, 255, labels).astype(np.uint8)
    np.save("void.npy", void)
    np.save("images.npy", np.moveaxis(logits.reshape(3, 10, 10, 6), -1, 1))
    np.save("masks.npy", void.reshape(3, 10, 10))
    code, out, _ = command("doctor", "x.npy", "void.npy")
    assert (code, "fix: --loss sparse --ignore-index 255\n" in out) == (1, True)
    assert command("doctor", "x.npy", "void.npy", "--ignore-index", "255")[0] == 0
    _, out, _ = command("doctor", "images.npy", "masks.npy", "--axis", "1")
    assert "fix: --loss sparse --axis 1 --ignore-index 255\n" in out
    _, out, _ = command("doctor", "images.npy", "masks.npy", "--axis", "1", "--ignore-index", "255")
    assert "labels  (3, 10, 10) uint8, class numbers\n" in out
    assert "write   --loss sparse --ignore-index 255\n" in out
    assert "figures      loss " in out
    found = json.loads(command("doctor", "x.npy", "void.npy", "--json")[1])
    assert found["findings"][0]["fix"] == "--loss sparse --ignore-index 255"


def test_doctor_leaves_out_missing_answers(command):
    rng = np.random.default_rng(0)
    answers = (rng.random((200, 5)) < 0.3) * 1.0
    np.save("x.npy", (4 * answers - 2 + rng.normal(size=(200, 5))).astype(np.float32))
    for name, mark in (("nan", np.nan), ("-1", -1), ("255", 255)):
        np.save("y.npy", np.where(rng.random((200, 5)) < 0.1, mark, answers))
        code, out, _ = command("doctor", "x.npy", "y.npy", "--loss", "sigmoid")
        assert (code, f"fix: --loss sigmoid --ignore-index {name}\n" in out) == (1, True)
        assert command("doctor", "x.npy", "y.npy", "--loss", "sigmoid", "--ignore-index", name)[0] == 0
    code, _, err = command("doctor", "x.npy", "y.npy", "--ignore-index", "none")
    assert code == 2
    assert err.startswith("withlogits: --ignore-index is 'none', where a whole number or nan is expected")


@pytest.mark.parametrize("name", ["evaluate", "doctor"])
@pytest.mark.usefixtures("pair")
def test_what_cannot_be_evaluated(command, name):
    np.save("short.npy", np.zeros(7, np.int64))
    code, out, err = command(name, "x.npy", "short.npy")
    assert (code, out) == (1, "")
    assert err.startswith("withlogits: short.npy: labels have shape (7,) and logits (300, 6)")
    assert err.count("\n") == 1
    assert command(name, "x.npy", "none.npy")[0] == 2
    assert command(name, "x.npy")[0] == 2
    code, _, err = command(name, "x.npy", "y.npy", "--axis", "4")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("logits", "labels", "begins"),
    [
        ("nan.npy", "y.npy", "nan.npy: WL106, NaN or infinite logits: of 1,800 logits 1,800 are NaN"),
        ("soft.npy", "y.npy", "soft.npy: WL101, probabilities passed as logits (softmax): all 1,800"),
        ("x.npy", "from_one.npy", "from_one.npy: WL206, labels out of range: "),
        ("x.npy", "sorted.npy", "x.npy and sorted.npy: WL305, labels in another order than the logits: "),
    ],
)
def test_figures_that_should_not_be_believed_exit_1(command, pair, logits, labels, begins):
    y, x = pair
    np.save("nan.npy", np.full_like(x, np.nan))
    np.save("soft.npy", withlogits.softmax(x))
    np.save("sorted.npy", np.sort(y))
    code, out, err = command("evaluate", logits, labels)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"withlogits: {begins}")
    assert "nats" in out


@pytest.mark.usefixtures("pair")
def test_swapped_files_are_diagnosed_and_not_evaluated(command):
    code, out, err = command("evaluate", "y.npy", "x.npy")
    assert (code, err) == (1, "")
    assert "WL104" in out
    assert "nats" not in out


@pytest.mark.usefixtures("pair")
def test_a_report_without_its_package_is_refused_before_the_work(command, monkeypatch):
    for missing in ({"jinja2"}, {"jinja2", "matplotlib"}):
        spec = dict.fromkeys({"jinja2", "matplotlib"} - missing, "installed").get
        monkeypatch.setattr("withlogits.evaluation.report.page.find_spec", spec)
        code, out, err = command("evaluate", "x.npy", "y.npy", "--report", "r.html")
        assert (code, out) == (2, "")
        needs = " and ".join(sorted(missing))
        assert err == f'withlogits: the report needs {needs}: pip install "withlogits[report]"\n'


@pytest.mark.usefixtures("pair")
def test_options_that_cannot_be_meant(command):
    code, _, err = command("evaluate", "x.npy", "y.npy", "--report", "nowhere/r.html")
    assert (code, err) == (2, f"withlogits: --report nowhere/r.html {NO_FOLDER}\n")
    Path("two.txt").write_text("a\nb\n")
    code, _, err = command("evaluate", "x.npy", "y.npy", "--class-names", "two.txt")
    assert (code, err) == (2, "withlogits: --class-names has 2 names, and the logits 6 classes\n")
    code, _, err = command("evaluate", "x.npy", "y.npy", "--class-names", "gone.txt")
    assert (code, err) == (2, "withlogits: --class-names gone.txt cannot be read: No such file or directory\n")


SLOWLY = """\
import withlogits.evaluation.evaluate as e, time
counting = e.counting
def slowly(*args):
    for n, size in enumerate(counting(*args)):
        yield size
        if n == 1:
            print("half", file=sys.stderr, flush=True)
            time.sleep(60)
e.counting = slowly
e.BUDGET = 600
"""


def test_an_interrupt_prints_what_was_seen(command, pair, tmp_path):
    child = process("evaluate", "x.npy", "y.npy", code=SLOWLY, cwd=tmp_path)
    assert child.stderr.readline() == "half\n"
    child.send_signal(signal.SIGINT)
    code, out, err = finished(child)
    assert code == 130, err
    assert err == "withlogits: interrupted; what follows is of the first 66.7% of the logits\n"
    assert "counted             200 rows" in out


# ------------------------------------------------------------------------------------------------- info, and the rest


def test_info(command):
    code, out, err = command("info")
    assert (code, err) == (0, "")
    assert out.startswith(f"withlogits {withlogits.__version__}, Python {sys.version.split()[0]}\n")
    assert re.search(rf"^NumPy\s+{re.escape(version('numpy'))}\s+yes\s*$", out, re.MULTILINE)
    assert re.search(r"^PyTorch\s+\S+\s+yes\s*$", out, re.MULTILINE)
    for key in withlogits.engine.describe():
        assert re.search(rf"^{key.replace('_', ' ')}\s", out, re.MULTILINE)


def test_info_as_json(command):
    code, out, err = command("info", "--json")
    report = json.loads(out)
    assert (code, err, report["version"]) == (0, "", withlogits.__version__)
    assert report["engine"].keys() == withlogits.engine.describe().keys()
    assert report["frameworks"]["NumPy"] == {"version": version("numpy"), "served": True}
    served = {name for name, found in report["frameworks"].items() if found["served"]}
    assert served == {"NumPy", "PyTorch", "JAX", "TensorFlow"}


def test_info_imports_no_framework(tmp_path):
    code = "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    status, _, err = finished(process("info", code=code, cwd=tmp_path))
    assert status == 0
    assert not {"torch", "jax", "tensorflow", "keras", "matplotlib"} & set(err.split())


@pytest.mark.parametrize("missing", [("typer",), ("rich",), ("typer", "rich")])
def test_without_the_extra_the_command_says_what_to_install(tmp_path, missing):
    code = f"sys.modules.update(dict.fromkeys({missing!r}))"
    expected = f'withlogits: the command needs {" and ".join(missing)}: pip install "withlogits[cli]"\n'
    assert finished(process("info", code=code, cwd=tmp_path)) == (2, "", expected)


def test_python_m_withlogits_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "withlogits", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: withlogits [OPTIONS] COMMAND")
    for name in ("demo", "loss", "info"):
        assert f"  {name} " in done.stdout
