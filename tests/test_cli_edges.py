"""The command where files or terminals are unusual: outputs that must not be touched, FIFOs, signals, characters."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import withlogits
from cli_processes import finished, partials, process, wait_for_partial
from withlogits.cli import main, terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, FIFOs and signals are those of POSIX")

# A command that writes a file, without the output's name.
EVALUATE = ("evaluate", "x.npy", "y.npy", "--report")
LOSS = ("loss", "x.npy", "y.npy", "--loss", "sparse", "--reduction", "none", "--output")
DEMO = ("demo", "--quick", "--output")
COMMANDS = {"evaluate": EVALUATE, "loss": LOSS, "demo": DEMO}


@pytest.fixture
def folder(tmp_path):
    logits = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32) * 3
    np.save(tmp_path / "x.npy", logits)
    np.save(tmp_path / "y.npy", logits.argmax(1))
    os.symlink("y.npy", tmp_path / "symlink")
    os.link(tmp_path / "y.npy", tmp_path / "hard")
    os.mkdir(tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "kept").chmod(0o444)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        listening.bind("socket")
        os.chdir(here)
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


INPUTS = [(name, path) for name in ("evaluate", "loss") for path in ("x.npy", "./y.npy", "symlink", "hard")]
OTHERS = [(name, path) for name in COMMANDS for path in (".", "folder", "/dev/full", "socket", "kept", "gone/it")]


@pytest.fixture
def command(folder, capsys, monkeypatch):
    """Run `withlogits` in this process, in the folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["withlogits", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.mark.parametrize(("name", "path"), INPUTS + OTHERS)
def test_an_output_is_refused_before_the_work(folder, command, monkeypatch, name, path):
    before = contents(folder)
    for work in ("evaluation.evaluate.plan", "evaluation.losses.evaluate", "demo.run"):
        monkeypatch.setattr(f"withlogits.{work}", None)
    code, out, err = command(*COMMANDS[name], path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    option = "--report" if name == "evaluate" else "--output"
    shown = str(Path(path))
    assert err.startswith(f"withlogits: {option} {shown} ")
    assert re.search("is read as an input|is a folder|is a device|is read-only|there is no folder gone", err)
    assert contents(folder) == before


def test_the_names_of_the_classes_are_an_input(folder):
    (folder / "names").write_text("a\nb\nc\n")
    code, _, err = finished(process(*EVALUATE, "names", "--class-names", "names", cwd=folder))
    assert (code, err) == (2, "withlogits: --report names is read as an input; choose another file\n")


@pytest.mark.parametrize(("name", "begins"), [("evaluate", b"<!DOCTYPE"), ("loss", b"\x93NUMPY"), ("demo", b"\x89PNG")])
def test_an_output_to_a_fifo(folder, name, begins):
    got = []
    reader = threading.Thread(target=lambda: got.append((folder / "fifo").read_bytes()), daemon=True)
    reader.start()
    code, _, err = finished(process(*COMMANDS[name], "fifo", cwd=folder))
    reader.join(10)
    assert code == 0, err
    assert got[0].startswith(begins)
    assert (folder / "fifo").is_fifo()


def test_a_report_on_stdout(folder):
    code, out, _ = finished(process(*EVALUATE, "/dev/stdout", cwd=folder))
    assert code == 0
    assert out.index("perplexity") < out.index("<!DOCTYPE html>")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path, number):
    np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (6_000_000, 1000))  # 24 GB, sparse
    np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.int64, (6_000_000,))
    options = ("--loss", "sparse", "--reduction", "none", "--output", "losses.npy")
    with process("loss", "big.npy", "labels.npy", *options, cwd=tmp_path) as child:
        wait_for_partial(tmp_path)
        child.send_signal(number)
        code, out, err = finished(child)
    assert (code, out, err) == (128 + number, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.npy", "labels.npy"]


def test_the_readmes_install_line_covers_what_it_shows():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def packages(extra):
        for requirement in extras[extra]:
            if inner := re.fullmatch(r"withlogits\[(.*)\]", requirement):
                for name in inner[1].split(","):
                    yield from packages(name)
            else:
                yield re.match(r"[\w-]+", requirement)[0]

    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert "pip install '.[cli]'" in readme
    assert "--report report.html" in readme
    assert set(packages("cli")) == {"typer", "rich", "threadpoolctl", "matplotlib", "jinja2"}


def test_version(folder):
    assert finished(process("--version", cwd=folder)) == (0, f"withlogits {withlogits.__version__}\n", "")


# -------------------------------------------------------------------------------------------------- names of classes

NAMED = ("evaluate", "x.npy", "y.npy", "--class-names")


@pytest.mark.parametrize("path", ["fifo", "pipe"])
def test_class_names_from_a_fifo(folder, path):
    read, write = os.pipe()
    child = process(*NAMED, "fifo" if path == "fifo" else f"/dev/fd/{read}", cwd=folder, pass_fds=(read,))
    if path == "fifo":
        os.close(write)
        write = os.open(folder / "fifo", os.O_WRONLY)
    for part in ("ant\nb", "ee\nc", "at\n"):
        os.write(write, part.encode())
        time.sleep(0.05)
    os.close(write)
    code, out, err = finished(child)
    os.close(read)
    assert (code, err) == (0, "")
    assert "cat (" in out


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/zero", "it is no regular file and no FIFO"),
        ("folder", "Is a directory"),
        ("long", "it is longer than 16,777,216 bytes"),
        ("x.npy", "it is no UTF-8 text"),
        ("fifo", "nothing came from the FIFO for 0.2 seconds"),
    ],
)
def test_class_names_that_are_none(folder, command, monkeypatch, path, text):
    with open(folder / "long", "wb") as stream:
        stream.truncate(1 << 30)
    monkeypatch.setattr(terminal, "PATIENCE", 0.2)
    assert command(*NAMED, path) == (2, "", f"withlogits: --class-names {path} cannot be read: {text}\n")


def test_control_characters_do_not_reach_the_terminal(folder):
    names = ["\x1b[31mred\x1b[0m", "bell\x07 \u202eright to left", "c\x9b2J 全角\u3000空格"]
    (folder / "names").write_text("\n".join(names))
    os.rename(folder / "x.npy", folder / "\x1b]0;x.npy")
    arguments = ("\x1b]0;x.npy", "y.npy", "--class-names", "names", "--report", "r.html")
    code, out, err = finished(process("evaluate", *arguments, cwd=folder))
    assert code == 0
    for text in (out, err):
        assert all(character.isprintable() or character in "\n\u3000" for character in text)
    assert r"\x1b[31mred\x1b[0m (" in out
    assert r"bell\x07 \u202eright to left (" in out
    assert "c\\x9b2J 全角\u3000空格 (" in out
    found = json.loads(finished(process("evaluate", *arguments, "--json", cwd=folder))[1])
    assert found["class_names"] == names


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_unicode_gets_plain_characters(folder, encoding):
    (folder / "names").write_text("猫\nb–\nc\n")
    logits = np.load(folder / "x.npy")
    np.save(folder / "soft.npy", withlogits.softmax(logits))
    options = {"cwd": folder, "env": {"PYTHONIOENCODING": encoding}, "encoding": encoding}
    code, out, err = finished(process("evaluate", "soft.npy", "y.npy", "--class-names", "names", **options))
    assert code == 1
    assert r"\u732b (" in out
    assert ("b– (" if encoding == "cp1252" else "b- (") in out
    assert "Traceback" not in err


def test_the_demo_on_a_terminal_without_unicode(folder):
    code, out, err = finished(process(*DEMO, "it.png", cwd=folder, env={"PYTHONIOENCODING": "ascii"}))
    assert (code, err) == (0, "")
    assert " x " in out
    assert "logsumexp - x" in out
    assert not partials(folder)


# ------------------------------------------------------------------------------------------- labels that are no labels


def test_logits_given_as_labels_too_are_the_guides_finding(folder):
    code, out, err = finished(process("loss", "x.npy", "x.npy", cwd=folder))
    first, second = err.splitlines()
    assert (code, out) == (1, "")
    assert first.startswith("withlogits: --loss sigmoid, since ")
    assert second.startswith("withlogits: x.npy: WL209, labels on another scale: labels reach from -")
    assert second.endswith("; --loss sigmoid computes the loss all the same")
    code, out, err = finished(process("loss", "x.npy", "x.npy", "--loss", "softmax", cwd=folder))
    assert code == 0
    logits = np.load(folder / "x.npy").astype(np.float64)
    expected = withlogits.softmax_cross_entropy_with_logits(labels=logits, logits=logits, reduction="mean")
    # means of 60 losses in float64, which may be summed in another order
    assert float(out) == pytest.approx(float(expected), rel=60 * 2**-52)
    assert err.startswith("withlogits: x.npy: WL205, ")
