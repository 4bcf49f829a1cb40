"""The code in the README and in the pages of docs/ runs as it stands, and prints what it is said to print.

A line ``print(...)  # text`` promises ``text``, and so do comment lines right below a ``print(...)``. White space
is not compared. The blocks of a page share their names.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCUMENTS = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "codes").glob("*.md"))]

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMISE = re.compile(r"^ *print\(.*\)(?:  # (?P<beside>.*)|(?P<below>(?:\n *# .*)+))$", re.MULTILINE)
_FILE = re.compile(r"`((?:[\w-]+/)*\w+\.py)`")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Each python block of a page, with the number of the line before its first."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in _BLOCK.finditer(text)]


def promises(code: str) -> dict[int, str]:
    """The outputs that a block promises, by the line of the print."""
    return {
        code.count("\n", 0, match.start()) + 1: squeezed(match["beside"] or match["below"].replace("#", " "))
        for match in _PROMISE.finditer(code)
    }


def squeezed(text: str) -> str:
    return "".join(text.split())


def run_page(page: Path) -> int:
    """Run a page's code, compare what it prints with what it promises, and return how many promises were kept."""
    printed: dict[int, str] = {}
    expected: dict[int, str] = {}

    def record(*values: object) -> None:
        line = sys._getframe(1).f_lineno
        printed[line] = printed.get(line, "") + squeezed("".join(map(str, values)))

    names: dict[str, object] = {"__name__": page.stem, "print": record}
    for offset, code in python_blocks(page):
        expected |= {line + offset: text for line, text in promises(code).items()}
        # The leading newlines give every line the number that it has in the page.
        exec(compile("\n" * offset + code, str(page), "exec"), names)
    assert {line: printed.get(line) for line in expected} == expected
    return len(expected)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    files = [
        path.as_posix()
        for folder in ("src", "tests", "benchmarks", "examples", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for name in _FILE.findall(page.read_text(encoding="utf-8")):
        assert any(path.endswith(f"/{name}") for path in files), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "tensorflow":
        pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow-cpu")
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_a_broken_promise_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 2\nprint(x,   3)  # 2 3\n```\n", encoding="utf-8")
    assert run_page(page) == 1
    page.write_text("# A page\n\n```python\n# a remark\n\nprint(2)\n# 3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="'2'"):
        run_page(page)
    page.write_text("# A page\n\n```python\nfor x in ():\n    print(x)  # 2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="None"):
        run_page(page)


def test_the_two_readmes_show_the_same_code() -> None:
    english, chinese = ([ast.dump(ast.parse(code)) for _, code in python_blocks(page)] for page in READMES)
    assert english
    assert english == chinese


@pytest.mark.parametrize(
    "page", [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing
