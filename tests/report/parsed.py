"""What was written, read back: the tables of a page and of Markdown, and the numbers in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br"}
BLOCKS = {"small", "td", "th"}
FACTORS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]\d+)?)(%?)")
Tables = dict[str, list[list[str]]]
"""By caption, rows under their header. What stands in small print follows behind a line break."""


@dataclass
class ParsedPage(HTMLParser):
    """A page's tables, elements and texts."""

    tables: Tables = field(default_factory=Tables)
    tags: list[str] = field(default_factory=list[str])
    attributes: list[tuple[str, str, str | None]] = field(default_factory=list[tuple[str, str, str | None]])
    scripts: list[str] = field(default_factory=list[str])
    text: str = ""
    _open: list[str] = field(default_factory=list[str])
    _rows: list[list[str]] = field(default_factory=list[list[str]])
    _caption: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        match tag:
            case "table":
                self._rows, self._caption = [], ""
            case "tr":
                self._rows.append([])
            case "td" | "th":
                self._rows[-1].append("")
            case "small" if {"td", "th"} & set(self._open):
                self._rows[-1][-1] += "\n"
            case "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
            return
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data


def parse_page(html: str) -> ParsedPage:
    """A page, every element of which is closed."""
    parser = ParsedPage()
    parser.feed(html)
    parser.close()
    assert parser._open == []
    return parser


def parse_markdown(markdown: str) -> Tables:
    """The tables of a Markdown text by the headings above them."""
    tables: Tables = {}
    heading = ""
    for line in markdown.splitlines():
        if line.startswith("## "):
            heading = plain(line.removeprefix("## "))
        elif line.startswith("|"):
            cells = [plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            tables.setdefault(heading, []).append(cells)
    return {name: [rows[0], *rows[2:]] for name, rows in tables.items()}


def plain(markdown: str) -> str:
    text = markdown.strip().replace("<br>", "\n").replace("@\u200b", "@")
    return re.sub(r"\\(.)", r"\1", text)


def numbers(text: str) -> list[float]:
    """All numbers of a text; those with a unit in what it is a multiple of."""
    found = [float(number) * (0.01 if percent else 1) for number, percent in NUMBER.findall(text)]
    factor = next((factor for unit, factor in FACTORS.items() if text.split("\n")[0].endswith(unit)), 1)
    return [found[0] * factor, *found[1:]] if found else []
