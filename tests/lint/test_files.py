"""Files and folders: which are checked, what cannot be, what `withlogits lint` prints and how it ends."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from lint.snippets import CASES, IMPORTS, expected
from withlogits.cli import main
from withlogits.lint import SOURCE_CODES, check_files
from withlogits.lint.files import LONGEST

WRONG = IMPORTS["torch"] + "F.cross_entropy(F.softmax(x, dim=1), y)\n"
FIXABLE = IMPORTS["torch"] + "torch.log(F.softmax(x, dim=1))\n"
RIGHT = IMPORTS["torch"] + "F.cross_entropy(x, y)\n"
LINE = (
    "wrong.py:2:17: WL501 `F.cross_entropy` takes logits and applies the softmax itself, and `F.softmax(x, dim=1)` "
    "holds probabilities of a softmax; fix: pass the logits, without the softmax\n"
)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run `withlogits lint` in this process, in an empty folder; returns exit code, stdout and stderr."""
    pytest.importorskip("typer", reason="the command needs typer: pip install 'withlogits[cli]'")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["withlogits", "lint", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


def test_a_clean_file_a_finding_and_an_error(command: Command) -> None:
    Path("right.py").write_text(RIGHT)
    Path("wrong.py").write_text(WRONG)
    assert command("right.py") == (0, "", "withlogits: 0 found in 1 file\n")
    assert command("right.py", "wrong.py") == (1, LINE, "withlogits: 1 found in 2 files\n")
    code, out, err = command("wrong.py", "missing.py")
    assert (code, out) == (2, LINE)
    assert err == (
        "withlogits: missing.py is not checked: it cannot be read: No such file or directory\n"
        "withlogits: 1 found in 1 file\n"
    )
    assert command("--select", "WL999", "wrong.py") == (
        2,
        "",
        "withlogits: --select WL999 names no code; the codes are WL501 to WL510\n",
    )
    assert command("--json", "--sarif", "wrong.py")[0] == 2
    assert command()[0] == 2


def test_folders(command: Command) -> None:
    for folder in ("a/b", ".venv", "node_modules", "a/generated"):
        Path(folder).mkdir(parents=True)
        Path(folder, "wrong.py").write_text(WRONG)
    Path("a/wrong.txt").write_text(WRONG)
    Path("a/notebook.ipynb").write_text("{}")
    os.symlink(Path("a").absolute(), Path("a/b/loop"))
    code, out, err = command(".", "--exclude", "*generated*")
    assert (code, out, err) == (1, f"a/b/{LINE}", "withlogits: 1 found in 1 file\n")
    assert command(".venv")[1] == f".venv/{LINE}"  # it is named


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ([], ["WL501", "WL509"]),
        (["--select", "WL501"], ["WL501"]),
        (["--select", "wl509,WL504"], ["WL509"]),
        (["--ignore", "WL501"], ["WL509"]),
        (["--select", "WL5", "--ignore", "WL501", "--ignore", "WL509"], []),
    ],
)
def test_select_and_ignore(command: Command, options: list[str], codes: list[str]) -> None:
    Path("both.py").write_text(IMPORTS["torch"] + "F.cross_entropy(F.softmax(x, 1), F.one_hot(y))\n")
    code, out, _ = command("both.py", "--json", *options)
    assert [found["code"] for found in json.loads(out)["findings"]] == codes
    assert code == bool(codes)


def test_fix(command: Command) -> None:
    path = Path("fixable.py")
    path.write_bytes(b"\xef\xbb\xbf" + FIXABLE.replace("\n", "\r\n").encode())
    path.chmod(0o750)
    code, _out, err = command("fixable.py")
    assert (code, err) == (1, "withlogits: 1 found in 1 file; --fix corrects 1\n")
    assert command("--fix", "fixable.py") == (0, "", "withlogits: 0 found in 1 file; 1 corrected\n")
    right = FIXABLE.replace("torch.log(F.softmax(x, dim=1))", "F.log_softmax(x, dim=1)")
    assert path.read_bytes() == b"\xef\xbb\xbf" + right.replace("\n", "\r\n").encode()
    assert path.stat().st_mode & 0o777 == 0o750
    assert command("--fix", "fixable.py") == (0, "", "withlogits: 0 found in 1 file; 0 corrected\n")
    assert list(Path().iterdir()) == [path]


def test_a_read_only_file_is_not_corrected(command: Command) -> None:
    path = Path("fixable.py")
    path.write_text(FIXABLE)
    path.chmod(0o444)
    code, out, err = command("--fix", "fixable.py")
    assert (code, out) == (2, "")
    assert "fixable.py is not checked: it cannot be written: it is read-only" in err
    assert path.read_text() == FIXABLE


def test_json(command: Command) -> None:
    Path("wrong.py").write_text(WRONG)
    Path("old.py").write_text("print 'cross_entropy'\n")
    code, out, _ = command("wrong.py", "old.py", "--json")
    assert code == 2
    assert json.loads(out) == {
        "findings": [
            {
                "path": "wrong.py",
                "line": 2,
                "column": 17,
                "end_line": 2,
                "end_column": 36,
                "fixable": False,
                "code": "WL501",
                "severity": "error",
                "title": "softmax or sigmoid before a loss that takes logits",
                "evidence": (
                    "`F.cross_entropy` takes logits and applies the softmax itself, and `F.softmax(x, dim=1)` holds "
                    "probabilities of a softmax"
                ),
                "fix": "pass the logits, without the softmax",
            }
        ],
        "files": 1,
        "fixed": 0,
        "not_checked": [
            {
                "path": "old.py",
                "why": (
                    "it is no source of Python 3: line 1: Missing parentheses in call to 'print'. Did you mean "
                    "print(...)?"
                ),
            }
        ],
    }


def test_sarif(command: Command) -> None:
    """What SARIF 2.1.0 requires of the parts that are used, and what code hosts require besides."""
    name = "a folder/é #1.py"
    Path("a folder").mkdir()
    Path(name).write_text("\n".join(source.replace("\n", "\n") for source in CASES.values()), encoding="utf-8")
    code, out, _ = command(name, "note.ipynb", "--sarif")
    assert code == 1
    log = json.loads(out)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "withlogits"
    assert [rule["id"] for rule in driver["rules"]] == list(SOURCE_CODES)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert [each["message"]["text"] for each in invocation["toolExecutionNotifications"]] == [
        "note.ipynb is not checked: it is a notebook; export it as a script first"
    ]
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["results"]
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        assert uri.isascii()
        assert " " not in uri
        assert unquote(uri) == name
        region = place["region"]
        assert 1 <= region["startLine"] <= region["endLine"] <= len(lines)
        assert 1 <= region["startColumn"] <= len(lines[region["startLine"] - 1])
        assert (region["startLine"], region["startColumn"]) < (region["endLine"], region["endColumn"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
@pytest.mark.parametrize("form", [[], ["--json"], ["--sarif"], ["--fix"]])
def test_a_name_that_is_no_text(command: Command, form: list[str]) -> None:
    Path(os.fsdecode(b"\xff\n.py")).write_text(WRONG + FIXABLE)
    code, out, err = command(".", *form)
    assert (code, "\n.py" in out, err.count("\n")) == (1, False, 1)


# ---------------------------------------------------------------------------------------------------------- bad input

NO_SOURCE = "it is no source of Python 3: "  # and Python's reason, which depends on its version
DEEP = "it is nested too deeply|it is no source of Python 3: "
BAD: dict[str, tuple[bytes, str]] = {
    "latin-1": ("# é\ncross_entropy".encode("latin-1"), "it is no UTF-8 text, since byte 2 does not fit"),
    "a null byte": (b"cross_entropy\0", NO_SOURCE),
    "unfinished": (b"cross_entropy(", NO_SOURCE + "line 1: "),
    "indented": (b"  cross_entropy", NO_SOURCE + "line 1: unexpected indent"),
    "Python 2": (b"print 'cross_entropy'", NO_SOURCE + "line 1: Missing parentheses"),
    "a number": (b"cross_entropy(08)", NO_SOURCE + "line 1: "),
    "parentheses": (b"cross_entropy = " + b"(" * 999, DEEP),
    "signs": (b"cross_entropy = " + b"-" * 30_000 + b"1", DEEP),
    "attributes": (b"cross_entropy" + b".x" * 30_000, DEEP),
    "a sum": (b"cross_entropy = 1" + b" + 1" * 30_000, DEEP),
    "blocks": (b"cross_entropy\n" + b"".join(b" " * i + b"if x:\n" for i in range(90)) + b" " * 90 + b"x", ""),
    "too many blocks": (b"cross_entropy\n" + b"".join(b" " * i + b"if x:\n" for i in range(199)), DEEP),
    "huge": (b"cross_entropy\n" * (LONGEST // 14 + 1), "it is longer than 2,097,152 bytes"),
    "an escape": (b"x = '\\d'; cross_entropy", ""),
    "empty": (b"", ""),
    "of no interest": (b"this is (no Python", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_checked_is_a_sentence(name: str, tmp_path: Path) -> None:
    content, why = BAD[name]
    path = tmp_path / "a.py"
    path.write_bytes(content)
    said: list[str] = []
    report = check_files([path], announce=said.append)
    assert report.findings == []
    assert report.files == (not why)
    assert len(said) == bool(why)
    assert not why or re.match(f"{re.escape(str(path))} is not checked: ({why})", said[0])
    assert "\n" not in "".join(said)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    os.symlink(tmp_path / "nowhere", tmp_path / "link.py")
    said: list[str] = []
    report = check_files([tmp_path], announce=said.append)
    assert said == [
        f"{tmp_path / 'fifo.py'} is not checked: it is no regular file",
        f"{tmp_path / 'link.py'} is not checked: it cannot be read: No such file or directory",
    ]
    assert (report.files, len(report.not_checked)) == (0, 2)


def test_a_file_without_a_loss_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet that is wrong has a name in it for which a file is parsed."""
    from withlogits.lint import files

    for source in CASES.values():
        assert files._relevant(source.encode()) or not expected(source)
    (tmp_path / "a.py").write_text("x = softmax(y)\n")
    monkeypatch.setattr(files, "_located", None)
    assert check_files([tmp_path]).files == 1


def test_the_hook_runs_the_command() -> None:
    hook = (Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    assert "entry: withlogits lint\n" in hook
    assert "types: [python]\n" in hook
