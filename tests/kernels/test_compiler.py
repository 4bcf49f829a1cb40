"""Object files on disk: used when they are right, made again when they are not, and never required."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processes import NOBODY, PACKAGE, environment, run, start
from withlogits.kernels.cpu import compiler, pool
from withlogits.kernels.cpu.job import SIGMOID_JOB, SigmoidSpec
from withlogits.kernels.cpu.target import Target

SPEC = SigmoidSpec(x="float32", result="softplus")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

USE = """
import sys
import numpy as np
import withlogits
loss = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
value, gradient = loss(labels=np.arange(300) % 50, logits=np.linspace(-3, 3, 300 * 50, dtype="f").reshape(300, 50))
print(float(value.sum()), float(abs(gradient).sum()))
"""


class Compiler:
    """Counts how often something is compiled, in a cache folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.count, compile_ = folder, 0, compiler.compiled

        def counted(spec: Any, name: str, target: Target) -> bytes:
            self.count += 1
            return compile_(spec, name, target)

        monkeypatch.setattr(compiler, "compiled", counted)
        monkeypatch.setenv("WITHLOGITS_CACHE_DIR", str(folder))

    def load(self) -> bool:
        """Was the kernel compiled; that it works is tried in any case."""
        before = self.count
        address = compiler._load(SPEC)
        x, result = np.float32([1.0, -2.0, 30.0]), np.zeros(3, np.float32)
        slots = dict.fromkeys((name.rstrip(".") for name in SIGMOID_JOB.planned), 0)
        head = SIGMOID_JOB.head(slots | {"columns": 3, "x_column": 4, "o_column": 4})
        filled = SIGMOID_JOB.fill(x.ctypes.data, 0, result.ctypes.data, 0, 0, 0, 0, 0, 1.0, 1.0)
        compiler.SIGNATURE(address)(head + filled, 0, 1)
        np.testing.assert_allclose(result, np.log1p(np.exp(x)), rtol=1e-6)
        return self.count > before

    @property
    def file(self) -> Path:
        (found,) = self.folder.iterdir()
        return found


@pytest.fixture
def compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(tmp_path / "cache", monkeypatch)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users may enter, as those of pytest may not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for inner in folder.rglob("*"):
        if inner.is_dir():
            inner.chmod(0o755)
    shutil.rmtree(folder)


def test_what_was_compiled_once_is_read(compiles: Compiler) -> None:
    assert compiles.load()
    assert not compiles.load()
    assert stat.S_IMODE(compiles.folder.stat().st_mode) == 0o700 or os.name == "nt"


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "only its head": lambda content: content[: len(compiler.MAGIC) + 32],
    "one byte short": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "something appended": lambda content: content + b"x",
    "one bit of the code": lambda content: flipped(content, len(content) - 100),
    "one bit of the digest": lambda content: flipped(content, len(compiler.MAGIC) + 5),
    "another format": lambda content: flipped(content, 3),
    "nonsense": lambda content: os.urandom(5000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_again_and_replaced(compiles: Compiler, damage: str) -> None:
    compiles.load()
    compiles.file.write_bytes(DAMAGES[damage](compiles.file.read_bytes()))
    assert compiles.load()
    assert not compiles.load()


def test_the_file_of_another_kernel_is_not_taken_for_this_one(compiles: Compiler) -> None:
    compiles.load()
    file = compiles.file
    compiler._load(SigmoidSpec(x="float32", result="sigmoid"))
    (other,) = set(compiles.folder.iterdir()) - {file}
    os.replace(other, file)
    assert compiles.load()
    assert not compiles.load()


@pytest.mark.skipif(not ROOT, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_run(compiles: Compiler) -> None:
    compiles.load()
    os.chown(compiles.file, NOBODY, NOBODY)
    assert compiles.load()
    assert not compiles.load()


@pytest.mark.skipif(ROOT, reason="root reads everything")
def test_an_unreadable_file_is_compiled_again(compiles: Compiler) -> None:
    compiles.load()
    compiles.file.chmod(0)
    assert compiles.load()
    assert not compiles.load()


def test_a_folder_in_the_place_of_the_file(compiles: Compiler) -> None:
    compiles.load()
    file = compiles.file
    file.unlink()
    file.mkdir()
    assert compiles.load()
    assert [path.name for path in compiles.folder.iterdir()] == [file.name]  # nothing half-written stays


@pytest.mark.parametrize("place", ["below a file", "a file", "below /proc"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = {"below a file": tmp_path / "file" / "cache", "a file": tmp_path / "file", "below /proc": Path("/proc/x")}
    compiles = Compiler(folder[place], monkeypatch)
    assert compiles.load()
    assert compiles.load()


def test_no_cache_if_its_folder_is_set_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiles = Compiler(tmp_path, monkeypatch)
    monkeypatch.setenv("WITHLOGITS_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    assert compiles.load()
    assert compiles.load()
    assert list(tmp_path.iterdir()) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("WITHLOGITS_CACHE_DIR", raising=False)
    assert compiler.cache_folder() == tmp_path / "home" / ".cache" / "withlogits"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert compiler.cache_folder() == tmp_path / "caches" / "withlogits"
    monkeypatch.setenv("WITHLOGITS_CACHE_DIR", str(tmp_path / "own"))
    assert compiler.cache_folder() == tmp_path / "own"
    monkeypatch.setenv("WITHLOGITS_CACHE_DIR", "")
    assert compiler.cache_folder() is None


def test_what_cannot_be_written_leaves_nothing_behind(compiles: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        error: BaseException = OSError("no space left on device")
        assert compiles.load()
        assert list(compiles.folder.iterdir()) == []
        error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            compiles.load()
        assert list(compiles.folder.iterdir()) == []
    assert compiles.load()
    assert not compiles.load()


def test_versions_and_processors_do_not_share_files(compiles: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite

    compiles.load()
    target = compiler.host()
    for place, attribute, other in (
        (llvmlite, "__version__", "0.0"),
        (compiler, "host", lambda: replace(target, features=target.features + ",")),
        (compiler, "MAGIC", b"another format\n"),
    ):
        monkeypatch.setattr(place, attribute, other)
        assert compiles.load(), attribute
        assert not compiles.load()


def test_many_threads_compile_a_kernel_once(compiles: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_addresses", {})
    gate, found = threading.Barrier(8), []

    def ask() -> None:
        gate.wait()
        found.append(compiler.address(SPEC))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiles.count == 1
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_failed_compilation_is_tried_again(compiles: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_addresses", {})
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "compiled", lambda spec, name, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compiler.address(SPEC)
    assert compiler.address(SPEC)


def test_simd_bits() -> None:
    assert compiler.simd_bits("+sse2,+avx512f,+avx2") == 512
    assert compiler.simd_bits("+sse2,-avx512f,+avx2") == 256
    assert compiler.simd_bits("+sse2,-avx2") == 128
    assert compiler.simd_bits("") == 128


def test_two_processes_that_fill_one_empty_cache(tmp_path: Path) -> None:
    env = environment(WITHLOGITS_CACHE_DIR=str(tmp_path))
    waiting = USE.replace("loss =", "from withlogits.kernels.cpu import compiler; input()\nloss =")
    both = [start(waiting, env=env) for _ in range(2)]
    results = []
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        results.append(process.communicate(timeout=120))
        assert process.returncode == 0
    assert results[0] == results[1]
    assert results[0][1] == ""
    assert all(path.suffix == ".o" for path in tmp_path.iterdir())  # no temporary file stays
    alone = "import withlogits.kernels.cpu.compiler as c\nc.compiled = None\n" + USE
    assert run(alone, env=env) == results[0][0]


# Root may write anywhere, so it becomes a user that nobody knows. Python itself may lie where that user cannot read, so
# all modules are loaded before, by compiling once; then the package is forgotten and imported anew.
SOMEBODY_ELSE = f"""
import os, sys
if os.geteuid() == 0:
    os.environ["WITHLOGITS_CACHE_DIR"], chosen = "", os.environ.get("WITHLOGITS_CACHE_DIR")
    exec(sys.argv[1], {{"print": lambda *_: None}})
    os.environ.pop("WITHLOGITS_CACHE_DIR") if chosen is None else os.environ.update(WITHLOGITS_CACHE_DIR=chosen)
    for name in [name for name in sys.modules if name.startswith("withlogits")]:
        del sys.modules[name]
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def homeless(package_parent: Path, **more: str) -> dict[str, str]:
    """Nothing but where the package is."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return {**kept, "PYTHONPATH": str(package_parent), **more}


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}])
def test_a_read_only_installation_without_a_home(shared_folder: Path, home: dict[str, str]) -> None:
    site = shared_folder / "site"
    shutil.copytree(PACKAGE, site / "withlogits", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (site, *site.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    where = f"print(withlogits.__file__, os.access({str(site)!r}, os.W_OK))"
    out = run(SOMEBODY_ELSE + USE + where, USE, env=homeless(site, PYTHONDONTWRITEBYTECODE="1", **home), cwd="/")
    assert out == run(USE) + f"{site}/withlogits/__init__.py False\n"


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_a_read_only_cache_is_read_and_nothing_more(shared_folder: Path) -> None:
    """Filled by root or by us, used by who may not write."""
    folder = shared_folder / "cache"
    folder.mkdir()
    expected = run(USE, env=environment(WITHLOGITS_CACHE_DIR=str(folder)))
    files = sorted(folder.iterdir())
    for path in files:
        path.chmod(0o444)
    folder.chmod(0o555)
    env = environment(WITHLOGITS_CACHE_DIR=str(folder), HOME=None)
    alone = "import withlogits.kernels.cpu.compiler as c\nc.compiled = None\n" + USE
    assert run(SOMEBODY_ELSE + alone, USE, env=env) == expected
    more = USE + "withlogits.logsumexp(np.zeros((3, 4), 'f'))"  # a kernel that is not there
    assert run(SOMEBODY_ELSE + more, more, env=env) == expected
    assert sorted(folder.iterdir()) == files


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_another_thread_compiles() -> None:
    """The child has its own locks, those of the compiler too."""
    out = run(
        """
        import os, signal, threading, time
        from llvmlite import binding, ir  # a fork while modules are imported is Python's own affair
        import numpy as np
        import withlogits
        from withlogits.kernels.cpu import compiler
        from withlogits.kernels.cpu.job import SigmoidSpec

        def compile_all():
            for x in ("float32", "float64", "float16"):
                for z in ("float32", "bool", "int8"):
                    compiler.address(SigmoidSpec(x=x, z=z))
                    time.sleep(0.01)

        thread = threading.Thread(target=compile_all)
        thread.start()
        statuses = []
        while thread.is_alive():
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                compiler.address(SigmoidSpec(x="float32", result=("sigmoid", "softplus", "logit")[len(statuses) % 3]))
                assert withlogits.softplus(np.zeros(3))[0] == np.log(2.0)
                os._exit(0)
            statuses.append(os.waitpid(child, 0)[1])
        assert len(statuses) > 1, statuses
        assert not any(statuses), statuses
        print("done")
        """,
        env=environment(WITHLOGITS_CACHE_DIR=""),
        timeout=200,
    )
    assert out == "done\n"


def test_the_pools_own_kernels_are_kernels_like_others() -> None:
    """Compiled by the first large call, and shared by all pools."""
    assert compiler.address(pool.PoolSpec("lead")) != compiler.address(pool.PoolSpec("serve"))
