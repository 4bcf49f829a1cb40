"""The text of a file: the parts of it that nodes of its syntax tree stand for, and edits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

SHOWN = 60  # characters of an expression
LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")


class Edit(NamedTuple):
    """A part of the text, by its bytes, and what replaces it."""

    start: int
    end: int
    new: str


class Text:
    """The source of a file, as bytes of UTF-8, since the columns of a syntax tree count bytes."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self.starts = [match.start() for match in LINE.finditer(self.bytes)]

    def at(self, line: int, column: int) -> int:
        """Return the place of a node's line and column."""
        return self.starts[line - 1] + column

    def span(self, node: ast.expr | ast.keyword) -> tuple[int, int]:
        """Return the first byte of a node and the one after its last."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def of(self, node: ast.expr | ast.keyword) -> str:
        """Return the text of a node."""
        start, end = self.span(node)
        return self.bytes[start:end].decode()

    def line(self, number: int) -> str:
        """Return a line."""
        end = self.starts[number] if number < len(self.starts) else len(self.bytes)
        return self.bytes[self.starts[number - 1] : end].decode()

    def column(self, line: int, column: int) -> int:
        """Return the column of a place in characters, from 1."""
        start = self.starts[line - 1]
        return len(self.bytes[start : start + column].decode()) + 1

    def shown(self, node: ast.expr) -> str:
        """Return the text of a node as a finding shows it."""
        return self.one_line(self.of(node))

    @staticmethod
    def one_line(text: str) -> str:
        """Return a text on one line, of bounded length."""
        text = " ".join(text.split())
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def edit(self, node: ast.expr, new: str, keeps: Iterable[ast.expr | ast.keyword] = ()) -> tuple[Edit, ...]:
        """Return the edit that replaces a node; none if a comment stands outside of what it keeps."""
        start, end = self.span(node)
        lost, place = b"", start
        for kept in sorted(map(self.span, keeps)):
            lost, place = lost + self.bytes[place : kept[0]], kept[1]
        return () if b"#" in lost + self.bytes[place:end] else (Edit(start, end, new),)

    def separators(self, *nodes: ast.expr) -> list[bytes]:
        """Return what stands between nodes that follow each other, without white space."""
        spans = [self.span(node) for node in nodes]
        return [self.bytes[left:right].strip() for (_, left), (right, _) in pairwise(spans)]

    def insert(self, node: ast.expr, new: str) -> Edit:
        """Return the edit that puts a text before a node."""
        start, _ = self.span(node)
        return Edit(start, start, new)

    def edited(self, edits: Sequence[tuple[Edit, ...]]) -> str:
        """Return the text after edits, of which those that overlap earlier ones are left for another time."""
        taken: list[Edit] = []
        for group in edits:
            if all(each.end <= other.start or each.start >= other.end for each in group for other in taken):
                taken += group
        result = self.bytes
        for start, end, new in sorted(taken, reverse=True):
            result = result[:start] + new.encode() + result[end:]
        return result.decode()
