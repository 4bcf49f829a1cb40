"""Numbers, counts and classes as people read them: few digits, and never a rounding that hides an error."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from withlogits.evaluation.files.errors import printable
from withlogits.evaluation.report.texts import Texts
from withlogits.evaluation.results import Evaluation

NOTHING = "–"


def decimal(value: float | None, digits: int = 4) -> str:
    """Return a number to so many significant digits; thousands are grouped, a tiny or huge one has an exponent.

    >>> [decimal(x) for x in (0.0, 0.40760598, 12.3456, 31250.26, 4.1223e-09, float("nan"), float("inf"))]
    ['0', '0.4076', '12.35', '31,250', '4.122e-9', '–', 'inf']
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0 or math.isinf(value):
        return f"{value:.0f}".removeprefix("-0") or "0"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.split("e")[1])  # of the rounded value: 9.99996 has that of 10
    if exponent < -4 or exponent > 6:
        return scientific.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def percent(value: float | None) -> str:
    """Return a share of one in percent; a share below 1 is never shown as 100%, one above 0 never as 0%.

    >>> [percent(x) for x in (0.0, 1.0, 0.8421, 0.99971, 0.99999, 0.00001, float("nan"))]
    ['0%', '100%', '84.2%', '99.97%', '>99.99%', '<0.01%', '–']
    """
    if value is None or not math.isfinite(value):
        return decimal(value)
    if value in (0, 1):
        return f"{value:.0%}"
    if 0 < value < 0.00005:
        return "<0.01%"
    if 0.99995 <= value < 1:
        return ">99.99%"
    return f"{value:.2%}" if value < 0.01 or value >= 0.99 else f"{value:.1%}"


def whole(value: float) -> str:
    """Return a count, its thousands grouped; a sum of weights to four digits.

    >>> whole(1234567), whole(70.5)
    ('1,234,567', '70.50')
    """
    return f"{int(value):,}" if float(value).is_integer() else decimal(value)


def plural(forms: str, count: float) -> str:
    """Fill in `"{n} row|{n} rows"`; a language without a plural has one form.

    >>> plural("{n} row|{n} rows", 1), plural("{n} row|{n} rows", 1200)
    ('1 row', '1,200 rows')
    """
    singular, _, several = forms.partition("|")
    return (singular if count == 1 else several or singular).format(n=whole(count))


def compact(count: float) -> str:
    """Return a count in at most four characters, for a cell.

    >>> [compact(n) for n in (7, 980, 12345, 999_999, 3_400_000)]
    ['7', '980', '12k', '1M', '3.4M']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if round(count / (size / 1000)) >= 1000 and count >= 1000:
            value = count / size
            return f"{value:.1f}".removesuffix(".0") + letter if value < 9.95 else f"{value:.0f}{letter}"
    return str(count) if isinstance(count, int) or not float(count).is_integer() else f"{count:.0f}"


def width(text: str) -> int:
    """Return how many columns a text takes; a Chinese character takes two.

    >>> width("cat"), width("猫")
    (3, 2)
    """
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def short(text: str, columns: int) -> str:
    """Return the text, or as much of it as these columns hold and an ellipsis; control characters as escapes.

    >>> short("Cardigan Welsh corgi", 10)
    'Cardigan…'
    """
    text = printable(text)
    if width(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width(kept + character) > columns - 1:
            break
        kept += character
    return kept.rstrip() + "…"


@dataclass(frozen=True)
class Words:
    """The texts of a language, and what they say of an evaluation."""

    evaluation: Evaluation
    texts: Texts

    def __call__(self, key: str, **fields: object) -> str:
        """Return a text with its fields filled in; a key that is none by itself is one with the kind of classes."""
        if key not in self.texts:
            key += "_exclusive" if self.evaluation.exclusive else "_independent"
        return self.texts[key].format(**fields)

    @property
    def unit(self) -> str:
        """What is counted: rows, or elements of independent classes."""
        return self("rows" if self.evaluation.exclusive else "elements")

    def rows(self, count: float) -> str:
        """Return the count of rows in words."""
        return plural(self.texts["rows_count"], count)

    def count(self, count: float) -> str:
        """Return the count of rows, or of elements, in words."""
        return plural(self.texts["rows_count" if self.evaluation.exclusive else "elements_count"], count)

    def spoken(self, index: int) -> str:
        """Return the name of a class within a sentence, where a bare number could be anything."""
        key = "class_number" if self.evaluation.class_names is None else "class_named"
        return self(key, name=self.evaluation.name_of(index))
