"""What the commands print, on any terminal, and the text that they read."""

from __future__ import annotations

import codecs
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from withlogits.evaluation.files.errors import printable

# What a terminal without Unicode shows instead; any other character is written as its escape.
PLAIN = {"−": "-", "–": "-", "×": "x", "…": "...", "“": '"', "”": '"', "’": "'", "✓": "yes", "✗": "no", "·": "*"}
LONGEST_TEXT = 1 << 24  # bytes of a text file
PATIENCE = 10.0  # seconds for which a FIFO may send nothing


def write_any_character() -> None:
    """Let stdout and stderr replace what their encoding cannot express."""
    codecs.register_error("withlogits", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="withlogits")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found), error.end


def show(text: object) -> None:
    """Print a result on stdout; a control character in a name is written as its escape."""
    print("\n".join(map(printable, str(text).split("\n"))))


def say(text: str) -> None:
    """Print a line on stderr."""
    print(f"withlogits: {printable(text)}", file=sys.stderr, flush=True)


def usage(text: str) -> NoReturn:
    """End the command because of its command line."""
    say(text)
    raise typer.Exit(2)


@contextmanager
def progress_of(total: int) -> Iterator[Callable[[int], None] | None]:
    """Draw a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("logits", total=total)
        yield lambda count: bar.advance(task, count)


def lines_of(path: Path, option: str) -> list[str]:
    """Return the lines of a text file or a FIFO of bounded length; anything else is an error of the command line."""
    try:
        return _read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        why = "it is no UTF-8 text"
    except OSError as error:
        why = error.strerror or str(error)
    usage(f"{option} {path} cannot be read: {why}")


def _read(path: Path) -> bytes:
    # A FIFO that nobody writes to would block the opening.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb", buffering=0) as stream:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError("it is no regular file and no FIFO")
        content = b""
        while len(content) <= LONGEST_TEXT:
            if stat.S_ISFIFO(mode) and not select.select([descriptor], [], [], PATIENCE)[0]:
                raise OSError(f"nothing came from the FIFO for {PATIENCE:g} seconds")
            part = stream.read(LONGEST_TEXT + 1 - len(content))
            if not part:
                return content
            content += part
    raise OSError(f"it is longer than {LONGEST_TEXT:,} bytes")
