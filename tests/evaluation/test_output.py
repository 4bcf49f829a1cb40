"""Outputs: an input, a device, a folder or a read-only file is refused; links are followed; nothing is left behind."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.report_cases import exclusive
from withlogits import evaluate
from withlogits.evaluation.output import check_output, npy_writer, open_output

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, FIFOs and permissions are those of POSIX")

READ = "is read as an input; choose another file"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with an input, and with other names of it."""
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", np.arange(3))
    os.mkdir("folder")
    os.mkdir("store.zarr")
    Path("store.zarr/zarr.json").write_text("{}")
    os.symlink("y.npy", "symlink")
    os.symlink("symlink", "link to link")
    os.link("y.npy", "hard link")
    os.symlink("store.zarr", "store link")
    return tmp_path


def names(folder="."):
    return sorted(os.listdir(folder))


def content(path):
    return Path(path).read_bytes()


def refused(path, inputs=(), code=None):
    """The sentence with which an output is refused, before and while it is opened; nothing is touched."""
    before, held = names(), content("y.npy")
    sentences = set()
    for attempt in (check_output, lambda *arguments: open_output(*arguments).__enter__()):
        with pytest.raises(OSError, match=r"\[Errno \d+\] ") as raised:
            attempt(path, inputs)
        assert code is None or raised.value.errno == code
        sentences.add(raised.value.strerror)
    assert (names(), content("y.npy")) == (before, held)
    (sentence,) = sentences
    assert sentence.isprintable()
    return sentence


OTHER_NAMES = ["y.npy", "./y.npy", "folder/../y.npy", "symlink", "link to link", "hard link"]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("path", OTHER_NAMES)
def test_an_input_under_any_of_its_names(here, path, absolute):
    output = f"{here}/{path}" if absolute else path
    for name in ("y.npy", f"{here}/y.npy", "symlink", "hard link", Path("y.npy")):
        assert refused(output, ["other.npy", name], errno.EEXIST) == f"{output} {READ}"


@given(
    steps=st.lists(st.sampled_from([".", "folder/..", "store link/.."]), max_size=4), last=st.sampled_from(OTHER_NAMES)
)
def test_an_input_by_any_way(steps, last):
    assert refused("/".join([*steps, last]), ["y.npy"]).endswith(READ)


def test_an_array_of_a_file_with_several():
    np.savez("both.npz", x=np.zeros(3), y=np.zeros(3))
    assert refused("both.npz", ["both.npz:x"]) == f"both.npz {READ}"
    np.save("with:colon.npy", np.zeros(3))
    assert refused("with:colon.npy", ["with:colon.npy"]) == f"with:colon.npy {READ}"


@pytest.mark.parametrize("path", ["store.zarr/zarr.json", "store.zarr/new", "store link/c", "store.zarr"])
def test_what_lies_inside_an_input(path):
    assert refused(path, ["store.zarr"]) == f"{path} {READ}"
    assert refused(path, ["store link"]) == f"{path} {READ}"


def test_a_device_a_socket_and_a_folder():
    text = "is a device or a socket; choose a regular file, a pipe or /dev/stdout"
    os.symlink("/dev/full", "device")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path in ("/dev/full", "/dev/zero", "device", "socket"):
            assert refused(path) == f"{path} {text}"
    os.symlink("folder", "folder link")
    for path in (".", "folder", "folder/", "folder link", "/"):
        assert refused(path, code=errno.EISDIR) == f"{path} is a folder; give it the name of a file"


def test_a_read_only_file_is_refused_to_root_too():
    Path("kept").write_text("kept")
    os.chmod("kept", 0o444)
    os.symlink("kept", "link")
    for path in ("kept", "link"):
        assert refused(path, code=errno.EACCES) == f"{path} cannot be written: it is read-only"


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="no folder that takes no file from anybody")
def test_a_folder_that_takes_no_file():
    assert refused("/sys/kernel/r.html").startswith("/sys/kernel/r.html cannot be written: ")
    os.symlink("/sys/kernel/r.html", "link")
    assert refused("link").startswith("link cannot be written: ")


def test_a_folder_that_is_not_there():
    os.symlink("gone/target", "dangling")
    for path, folder in (("gone/r", "gone"), ("y.npy/r", "y.npy"), ("dangling", f"{os.getcwd()}/gone")):
        why = f"cannot be written: there is no folder {folder}; make it first"
        assert refused(path, code=errno.ENOENT) == f"{path} {why}"
    os.symlink("loop", "loop")
    assert refused("loop").startswith("loop cannot be written: ")
    assert refused("x" * 300).endswith("cannot be written: File name too long")
    assert refused("a\n\x1b[31m/r").startswith(r"a\n\x1b[31m/r cannot be written: there is no folder a\n\x1b[31m;")


def write(path, data=b"new"):
    check_output(path)
    with open_output(path) as stream:
        stream.write(data)


def test_a_new_file_has_the_usual_permissions():
    write("new")
    Path("usual").touch()
    assert content("new") == b"new"
    assert os.stat("new").st_mode == os.stat("usual").st_mode
    write("x" * 250)  # as long as a name may be, nearly
    assert not [name for name in names() if name.endswith(".partial")]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
@pytest.mark.parametrize("path", ["old", "link", "link to it"])
def test_a_link_is_written_through_and_permissions_stay(path, mode):
    os.mkdir("elsewhere")
    Path("elsewhere/old").write_text("old")
    os.chmod("elsewhere/old", mode)
    os.symlink("elsewhere/old", "old")
    os.symlink("old", "link")
    os.symlink(os.path.abspath("link"), "link to it")
    write(path)
    assert names("elsewhere") == ["old"]
    assert content("elsewhere/old") == b"new"
    assert stat.S_IMODE(os.lstat("elsewhere/old").st_mode) == mode
    assert all(os.path.islink(link) for link in ("old", "link", "link to it"))


def test_a_dangling_link_makes_its_target():
    os.symlink("folder/target", "link")
    write("link")
    assert os.path.islink("link")
    assert content("folder/target") == b"new"


def test_a_fifo_is_written_as_a_stream():
    os.mkfifo("fifo")
    os.symlink("fifo", "link")
    for path in ("fifo", "link"):
        got = []
        reader = threading.Thread(target=lambda got=got: got.append(content("fifo")))
        reader.start()
        with npy_writer(path, (2,), np.dtype("f4"), False) as append:
            append(np.ones(2, np.float32))
        reader.join(10)
        assert got[0].endswith(np.ones(2, np.float32).tobytes())
        assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    assert names("folder") == []


TO_STDOUT = """
import sys
from withlogits.evaluation.output import check_output, open_output
print("before")
check_output(sys.argv[1])
with open_output(sys.argv[1]) as stream:
    stream.write(b"bytes\\n")
print("after")
"""


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into", ["pipe", "file", "terminal"])
def test_stdout_is_written_as_a_stream(path, into):
    if not os.path.exists(path):
        pytest.skip(f"there is no {path}")
    ours, theirs = os.openpty()
    with open("out", "wb") as out:
        place = {"pipe": subprocess.PIPE, "file": out, "terminal": theirs}[into]
        done = subprocess.run([sys.executable, "-c", TO_STDOUT, path], stdout=place, timeout=60, check=True)
    os.close(theirs)
    got = {"pipe": done.stdout, "file": content("out"), "terminal": b""}[into]
    if into == "terminal":
        got = os.read(ours, 1000).replace(b"\r\n", b"\n")
    os.close(ours)
    assert got == b"before\nbytes\nafter\n"


class Failure(BaseException):
    pass


@pytest.mark.parametrize("before", [None, b"before"])
def test_an_error_leaves_what_was_there(before):
    if before is not None:
        Path("it").write_bytes(before)
    held = names()

    def fail():
        with open_output("it") as stream:
            stream.write(b"half")
            assert len(names()) == len(held) + 1
            raise Failure

    with pytest.raises(Failure):
        fail()
    assert names() == held
    assert before is None or content("it") == before


def test_the_report_never_replaces_what_was_evaluated():
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(3, 4)))
    evaluation = evaluate("y.npy", "x.npy")
    held = content("y.npy"), content("x.npy")
    for path in ("x.npy", "./y.npy", "symlink", "hard link"):
        with pytest.raises(FileExistsError, match="is read as an input; choose another file"):
            evaluation.report(path)
    assert (content("y.npy"), content("x.npy")) == held
    with pytest.raises(IsADirectoryError):
        exclusive().report("folder")
    os.mkfifo("fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append(content("fifo")))
    reader.start()
    evaluation.report("fifo")
    reader.join(10)
    assert got[0].startswith(b"<!DOCTYPE html>")
