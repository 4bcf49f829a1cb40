"""The errors of files: one sentence that begins with the name, in the same words for every format."""

from __future__ import annotations

import errno
import importlib
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Names of arrays and texts of libraries come from files that nobody checked: no more than this is shown of them.
SHOWN_NAMES = 20
SHOWN_TEXT = 200


class BadFile(Exception):
    """A file that does not hold what it should; the message is one sentence that begins with its name."""


class NoSuchArray(Exception):
    """A name that leads to no array: a missing file, an array missing or not named, a format whose package is missing.

    The message is one sentence that begins with the name.
    """


@contextmanager
def telling(name: str, what: str = "file") -> Iterator[None]:
    """Turn any error inside into one sentence; `what` is the kind of file: ".npz file".

    A library that reads damaged bytes raises errors of any type; its warnings are ignored.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadFile, NoSuchArray):
        raise
    except MemoryError:
        raise BadFile(f"{name} takes more memory than there is") from None
    except OSError as error:
        if not error.strerror or error.errno == errno.EINVAL:  # of a C library, or of an offset that is none
            raise BadFile(f"{name} is a damaged {what}: {one_line(error)}") from None
        missing = error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
        raise (NoSuchArray if missing else BadFile)(f"{name} cannot be read: {error.strerror}") from None
    except Exception as error:
        raise BadFile(f"{name} is a damaged {what}: {one_line(error)}") from None


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turn what the library finds wrong with an array into a sentence that begins with its file's name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise BadFile(f"{name}: {error}") from None


def needed(name: str, what: str, package: str, extra: str) -> Any:
    """Return an optional package, imported when a file needs it; `what` is what needs it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError:
        raise NoSuchArray(f'{name}{what} needs {package}: pip install "withlogits[{extra}]"') from None


def damaged_header(name: str, what: str) -> BadFile:
    """Return the error for a header that no file of this kind can have."""
    return BadFile(f"{name} has a damaged header: {what}")


def not_numbers(name: str, kind: object) -> BadFile:
    """Return the error for an array of strings, times or records."""
    return BadFile(f"{name} holds elements of type {one_line(kind)}, where numbers are expected; save it as numbers")


def one_line(text: object) -> str:
    """Return a library's error text without line ends, cut to `SHOWN_TEXT` characters."""
    if isinstance(text, KeyError) and text.args:
        text = text.args[0]  # as a text, it would be in quotation marks
    words = printable(" ".join(str(text).split())).rstrip(".") or type(text).__name__
    return words if len(words) <= SHOWN_TEXT else f"{words[:SHOWN_TEXT]}..."


def printable(text: str) -> str:
    """Return the text with control characters as Python writes them; spaces of any width stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)


def listed(names: Sequence[str]) -> str:
    """Return the names with commas, `SHOWN_NAMES` at most."""
    shown = ", ".join(one_line(name) for name in names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def chosen(name: str, path: str, member: str | None, held: Sequence[str], what: str = "array") -> str:
    """Return the array that is named, or the only one that there is."""
    if member is not None:
        if member not in held:
            raise NoSuchArray(f"{path} holds no {what} {member!r}; it holds {listed(held) or 'none'}")
        return member
    if not held:
        raise BadFile(f"{name} holds no {what}")
    if len(held) > 1:
        first = one_line(held[0])
        raise NoSuchArray(f"{name} holds {len(held)} {what}s: name one, as {path}:{first} ({listed(held)})")
    return held[0]
