"""What a figure is made of: rectangles, lines, circles and letters, which the template writes as SVG; and scales.

Across a figure everything is in percent of its width, down it in pixels: so it fills the width that it is given, on a
phone too, and its letters keep their size. The space around the field, where the ticks are named, is in pixels.
Colours come from the style sheet, by class. What a mark says when it is pointed at is its `tip`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NAME_COLUMNS = 16  # of the name of a class beside a figure
COLUMN = 7.2  # pixels of one, about


@dataclass(frozen=True)
class Mark:
    """One element of SVG."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    tip: str = ""


@dataclass
class Plot:
    """A field of `height` pixels, what is drawn in and around it, and what it shows in words."""

    height: int
    top: int
    right: int
    bottom: int
    left: int
    message: str = ""
    title: str = ""
    marks: list[Mark] = field(default_factory=list)
    narrow: int = 0  # pixels beyond which it gains nothing by being wider; 0: no bound
    wide: int = 0  # pixels that it needs; in less it scrolls in its own box

    def rect(self, x: float, y: float, w: float, h: float, kind: str, tip: str = "", **more: str) -> None:
        box = {"x": _percent(x), "y": _pixels(y), "width": _percent(w), "height": _pixels(h), "class": kind}
        self.marks.append(Mark("rect", box | more, tip=tip))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        ends = {"x1": _percent(x1), "y1": _pixels(y1), "x2": _percent(x2), "y2": _pixels(y2), "class": kind}
        self.marks.append(Mark("line", ends))

    def circle(self, x: float, y: float, r: float, kind: str, tip: str = "") -> None:
        self.marks.append(
            Mark("circle", {"cx": _percent(x), "cy": _pixels(y), "r": _pixels(r), "class": kind}, tip=tip)
        )

    def letters(self, x: float, y: float, text: str, kind: str, **more: str) -> None:
        self.marks.append(Mark("text", {"x": _percent(x), "y": _pixels(y), "class": kind} | more, text=text))

    def down_ticks(self, scale: Linear | Logarithmic) -> None:
        """Lines across, named at the left."""
        for tick in scale.ticks(4):
            y = self.height * (1 - scale(tick))
            self.line(0, y, 1, y, "grid")
            self.letters(0, y + 4, tick_text(tick), "tick end", dx="-8")

    def across_ticks(self, scale: Linear, y: float, about: int = 5) -> None:
        """Names below."""
        for tick in scale.ticks(about):
            self.letters(scale(tick), y + 18, tick_text(tick), "tick middle")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def _pixels(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Linear:
    """From `low` to `high` as 0 to 1."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int) -> list[float]:
        """About as many round numbers.

        >>> Linear(0, 7).ticks(4)
        [0.0, 2.0, 4.0, 6.0]
        """
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.8)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * index for index in range(first, last + 1)]


@dataclass(frozen=True)
class Logarithmic:
    """From 1/2 to `high` as 0 to 1, so that a count of one is a bar too."""

    high: float

    def __call__(self, value: float) -> float:
        return math.log(2 * value) / math.log(2 * self.high)

    def ticks(self, about: int) -> list[float]:
        """Powers of ten, at most about as many.

        >>> Logarithmic(2e5).ticks(4)
        [1.0, 100.0, 10000.0]
        """
        last = math.floor(math.log10(self.high))
        return [10.0**power for power in range(0, last + 1, 1 + last // (about + 1))]


def tick_text(value: float) -> str:
    """A round number without needless zeros.

    >>> [tick_text(x) for x in (0.0, 0.30000000000000004, 2500.0, 2e7)]
    ['0', '0.3', '2,500', '2e7']
    """
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.10g}"
