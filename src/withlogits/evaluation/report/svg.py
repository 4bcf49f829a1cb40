"""Figures drawn by matplotlib, as SVG within a page: coloured by the page's style sheet, in the page's fonts.

matplotlib places the marks. What it writes is reduced to a flat list of paths, circles and texts, each with a class for
the style sheet, and the text that is shown when it is pointed at. One unit is a pixel at the figure's own width.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

WIDTH = 420  # of a figure that fills a phone, and half of a desk
LETTERS = 13  # pixels
COLUMN = 7.4  # pixels of a narrow letter, about
# Texts stay texts, and a class may be called "$x$".
STYLE: Any = {"svg.fonttype": "none", "text.parse_math": False, "font.size": LETTERS}
TICK = re.compile(r"[xy]tick_\d+")
RADIUS = "4.5"


@contextmanager
def style() -> Iterator[None]:
    """Set matplotlib's parameters while figures are made, whatever the caller has set."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.simplefilter("ignore")  # letters that its own font lacks, which the page's fonts have
        yield


@dataclass(frozen=True)
class Plot:
    """A figure, the sentence that says what it shows, and the widths between which it may be shown."""

    message: str
    svg: str = ""
    title: str = ""
    widest: int = 0
    narrowest: int = 0  # it scrolls in its own box where there is less; 0: it shrinks instead


class Drawing:
    """A figure of matplotlib whose margins are in pixels; `mark` names what the page is to show."""

    def __init__(
        self, width: float, height: float, *, top: float, right: float, bottom: float, left: float, log: bool = False
    ) -> None:
        self.width, self.height = width + left + right, height + top + bottom
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
        self.marks: list[tuple[str, str, dict[str, str]]] = []
        self.axes = self.add_axes(left, bottom, width, height, log)

    def add_axes(self, left: float, bottom: float, width: float, height: float, log: bool = False) -> Any:
        """Return further axes at this place, of which only a line below is drawn."""
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes: Any = self.figure.add_axes(place, xscale="log" if log else "linear")
        axes.tick_params(which="both", length=0, pad=8)
        axes.set_axisbelow(True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
            axis.set_minor_locator(NullLocator())
        self.mark(axes.spines["bottom"], "axis")
        self.mark(axes.spines["left"], "none")
        return axes

    def mark(self, artist: Any, kind: str, tip: str = "", **attributes: str) -> None:
        """Show an artist in a class of the style sheet."""
        artist.set_gid(f"mark {len(self.marks)}")
        artist.set_clip_on(False)
        self.marks.append((kind, tip, attributes))

    def text(self, x: float, y: float, text: str, kind: str, at: Any = None, axes: Any = None, **options: Any) -> None:
        """Write a text on its baseline, `at` pixels beside a point of the data."""
        options = {"xytext": at or (0, 0), "textcoords": "offset points", "annotation_clip": False} | options
        self.mark((axes or self.axes).annotate(text, (x, y), **options), kind)

    def label(self, x: float, y: float, text: str, ha: str = "left") -> None:
        """Write a text at pixels from the axes' lower left corner, or from the right side if it ends there."""
        self.text(1.0 if ha == "right" else 0.0, 0.0, text, "name", (x, y), xycoords="axes fraction", ha=ha)

    def svg(self) -> str:
        """Return the element, without a name, which the page gives it."""
        written = io.StringIO()
        self.figure.savefig(written, format="svg", transparent=True)
        drawn = ElementTree.fromstring(written.getvalue())
        root = ElementTree.Element("svg", viewBox=f"0 0 {_short(self.width)} {_short(self.height)}")
        self._collect(drawn, root, None)
        return ElementTree.tostring(root, encoding="unicode")

    def _collect(self, group: ElementTree.Element, root: ElementTree.Element, mark: Any) -> None:
        """Append the marks in a group to the page's element, without groups and styles."""
        name = group.get("id", "")
        if name.startswith("mark "):
            mark = self.marks[int(name[5:])]
        elif TICK.fullmatch(name):
            mark = ("tick", "", {})
        for element in group:
            tag = element.tag.rpartition("}")[2]
            if tag == "g":
                self._collect(element, root, mark)
            elif mark is not None and tag in ("path", "text", "use"):
                kind, tip, attributes = mark
                attributes = {"class": kind, **attributes, **({"data-tip": tip} if tip else {})}
                if tag == "use":
                    place = {"cx": _short(element.get("x")), "cy": _short(element.get("y")), "r": RADIUS}
                    ElementTree.SubElement(root, "circle", attributes | place)
                elif tag == "path":
                    path = " ".join(map(_short, element.get("d", "").split()))
                    ElementTree.SubElement(root, "path", attributes | {"d": path})
                elif element.text:
                    place = {key: _short(element.get(key)) for key in ("x", "y")}
                    turned = element.get("transform", "")
                    if not turned.startswith("rotate(-0 "):
                        place["transform"] = turned
                    if anchor := re.search("text-anchor: (middle|end)", element.get("style", "")):
                        place["text-anchor"] = anchor[1]
                    ElementTree.SubElement(root, "text", attributes | place).text = element.text


def _short(number: Any) -> str:
    """Return a coordinate to a tenth of a pixel, and letters of a path as they are."""
    try:
        return f"{float(number):.1f}".removesuffix(".0")
    except ValueError:
        return str(number)


def tick_text(value: float) -> str:
    """Return a round number without needless zeros.

    >>> [tick_text(x) for x in (0.0, 0.30000000000000004, 2500.0, 2e7, 1e-05)]
    ['0', '0.3', '2,500', '2e7', '1e-5']
    """
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.10g}"
