"""What is found in source, and what is not; the texts; the corrections."""

from __future__ import annotations

import ast

import pytest

from withlogits.guide import CODES
from withlogits.lint import SOURCE_CODES, check, corrected
from lint.snippets import CASES, IMPORTS, expected
