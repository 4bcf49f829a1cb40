"""The files to check: which ones, what cannot be read, what a comment leaves out, and what is corrected."""

from __future__ import annotations

import ast
import codecs
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from withlogits.evaluation.files.errors import one_line, printable
from withlogits.evaluation.output import open_output
from withlogits.guide.findings import CODES, Finding
from withlogits.lint.reader import Reader
from withlogits.lint.rules import Located, findings
from withlogits.lint.text import Text

SOURCE_CODES = tuple(code for code in CODES if code.startswith("WL5"))
LONGEST = 1 << 21  # bytes of a file
PASSES = 10  # corrections may leave room for more of them
# A file without any of these is not parsed: every loss of the table has one in its name, and a logarithm needs two.
NAMED = tuple(
    name.encode()
    for name in (
        *("cross_entropy", "crossentropy", "bce", "nll_loss", "nllloss", "kl_div", "kldiv", "ctc_loss", "ctcloss"),
        *("focal_loss", "soft_margin", "softmargin"),
    )
)
ACTIVATIONS = (b"softmax", b"sigmoid", b"expit")
NOQA = re.compile(r"#\s*noqa(?P<codes>\s*:\s*[a-z]+\d+(?:[\s,]+[a-z]+\d+)*)?", re.IGNORECASE)
SHARED = re.compile(r"^\s*(?:global|nonlocal)\s+(.+)", re.MULTILINE)
NAME = re.compile(r"\w+")
NOT_OURS = {"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"}


class NotChecked(Exception):
    """Why a file was not checked; `harmless` if it is none of ours."""

    def __init__(self, why: str, harmless: bool = False) -> None:
        super().__init__(why)
        self.harmless = harmless


@dataclass(frozen=True)
class SourceFinding:
    """A finding and its place: lines and columns from 1, the end column after the last character.

    Attributes
    ----------
    finding : Finding
        Code, severity, title, evidence and fix.
    path : str
        The file.
    line, column, end_line, end_column : int
        The expression that the finding is about.
    fixable : bool
        Whether `fix=True` corrects it.
    """

    finding: Finding
    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    fixable: bool

    def to_dict(self) -> dict[str, Any]:
        """The same in one dictionary, as JSON takes it."""
        found: dict[str, Any] = asdict(self)
        finding: dict[str, Any] = found.pop("finding")
        return found | finding

    def __str__(self) -> str:
        found = self.finding
        return f"{printable(self.path)}:{self.line}:{self.column}: {found.code} {found.evidence}; fix: {found.fix}"


@dataclass
class Report:
    """What was found in files."""

    findings: list[SourceFinding] = field(default_factory=list)
    files: int = 0
    fixed: int = 0
    not_checked: list[tuple[str, NotChecked]] = field(default_factory=list)


def check(source: str, path: str = "<source>", codes: Iterable[str] = SOURCE_CODES) -> list[SourceFinding]:
    r"""Return wrong pairs of model output and loss in Python source, which is parsed and not run.

    Parameters
    ----------
    source : str
        The text of a module.
    path : str
        Its name, for the findings.
    codes : iterable of str
        The findings that are wanted; by default all of "WL501" to "WL510".

    Returns
    -------
    list of SourceFinding
        In the order of the text; without those that a comment ``# noqa`` or ``# noqa: WL501`` leaves out.

    Raises
    ------
    NotChecked
        If the source cannot be parsed.

    Examples
    --------
    >>> from withlogits.lint import check
    >>> source = "import torch.nn.functional as F\nloss = F.cross_entropy(F.softmax(x, dim=1), y)"
    >>> for found in check(source, "train.py"):
    ...     print(found.finding.code, found.line, found.finding.fix)
    WL501 2 pass the logits, without the softmax
    """
    text, found = _located(source, frozenset(codes))
    return [_placed(each, path, text) for each in found]


def corrected(source: str, codes: Iterable[str] = SOURCE_CODES) -> tuple[str, int]:
    """Return the source with its safe corrections, and their number."""
    wanted, count = frozenset(codes), 0
    for _ in range(PASSES):
        text, found = _located(source, wanted)
        edits = [each.edits for each in found if each.edits]
        changed = text.edited(edits) if edits else source
        if changed == source:
            break
        source, count = changed, count + len(found) - len(_located(changed, wanted)[1])
    return source, count


def check_files(
    paths: Sequence[Path],
    codes: Iterable[str] = SOURCE_CODES,
    exclude: Sequence[str] = (),
    fix: bool = False,
    announce: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check files, and the .py files in folders; what cannot be checked is announced in one sentence."""
    report, wanted = Report(), frozenset(codes)
    for path in _found(paths, exclude):
        try:
            report.files += 1
            content = _content(path)
            if not _relevant(content):
                continue
            source = _decoded(content)
            if fix:
                source, count = corrected(source, wanted)
                if count:
                    _write(path, content, source)
                report.fixed += count
            report.findings += check(source, str(path), wanted)
        except OSError as error:
            report.not_checked.append((str(path), NotChecked(f"it cannot be read: {error.strerror or error}")))
        except NotChecked as error:
            report.not_checked.append((str(path), error))
        else:
            continue
        report.files -= 1
        announce(f"{path} is not checked: {report.not_checked[-1][1]}")
    return report


def _found(paths: Sequence[Path], exclude: Sequence[str]) -> Iterator[Path]:
    """Yield the files that are named, and those in folders."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in NOT_OURS)
            every = (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
            yield from (file for file in every if not any(fnmatch(str(file), pattern) for pattern in exclude))


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file of bounded length."""
    if path.suffix == ".ipynb":
        raise NotChecked("it is a notebook; export it as a script first", harmless=True)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotChecked("it is no regular file")
    if status.st_size > LONGEST:
        raise NotChecked(f"it is longer than {LONGEST:,} bytes", harmless=True)
    return path.read_bytes()


def _write(path: Path, before: bytes, source: str) -> None:
    """Replace a file by its corrected source, after the byte order mark that it may have had."""
    mark = codecs.BOM_UTF8 if before.startswith(codecs.BOM_UTF8) else b""
    try:
        with open_output(path) as stream:
            stream.write(mark + source.encode())
    except OSError as error:
        why = str(error.strerror or error).removeprefix(f"{path} ")
        raise NotChecked(f"it {why}") from None


def _relevant(content: bytes) -> bool:
    lower = content.lower()
    return any(name in lower for name in NAMED) or (b"log(" in lower and any(name in lower for name in ACTIVATIONS))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotChecked(f"it is no UTF-8 text, since byte {error.start} does not fit") from None


def _located(source: str, codes: frozenset[str]) -> tuple[Text, list[Located]]:
    """Return what is found in a source and is wanted."""
    shared = frozenset(NAME.findall(" ".join(SHARED.findall(source))))
    try:
        tree, text = _parsed(source), Text(source)
        found = [each for use in Reader(shared).read(tree) for each in findings(use, text)]
    except (RecursionError, MemoryError):
        raise NotChecked("it is nested too deeply") from None
    return text, [each for each in found if each.finding.code in codes and not _left_out(each, text)]


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source's own escapes
            return ast.parse(source)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise NotChecked(f"it is no source of Python 3: {line}{one_line(error.msg)}") from None
    except ValueError as error:  # null bytes, surrogates
        raise NotChecked(f"it is no source of Python 3: {one_line(error)}") from None


def _left_out(found: Located, text: Text) -> bool:
    """Whether a comment on the first or last line of the expression or of its call leaves a finding out."""
    nodes = (found.node, found.call)
    for number in {line for node in nodes for line in (node.lineno, node.end_lineno or node.lineno)}:
        if match := NOQA.search(text.line(number)):
            codes = match["codes"]
            if codes is None or found.finding.code in re.findall(r"[A-Z]+\d+", codes.upper()):
                return True
    return False


def _placed(found: Located, path: str, text: Text) -> SourceFinding:
    node = found.node
    end = node.end_lineno or node.lineno
    columns = text.column(node.lineno, node.col_offset), text.column(end, node.end_col_offset or 0)
    return SourceFinding(found.finding, path, node.lineno, columns[0], end, columns[1], bool(found.edits))
