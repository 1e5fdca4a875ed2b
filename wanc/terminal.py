"""Tables for people: drawn on a terminal, plain aligned text everywhere else.

What a file says is shown as text and as nothing else: a control character in a name must not reach the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from wanc.runtime.streams import print_result

_INDENT = "  "
# A name of a megabyte must not bury the rest.
_LONGEST_CELL = 400


@dataclass(frozen=True)
class TextTable:
    """Rows of equal length under a title; without a `header`, the first column names what the others say.

    Tables without rows are not shown, nor are columns without text.
    """

    title: str
    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()


def show(tables: Iterable[TextTable]) -> None:
    """Print tables on stdout: with rich on a terminal, otherwise as `as_text`."""
    tables = list(tables)
    if sys.stdout.isatty():
        with suppress(ImportError):  # a broken installation is one of the things that have to be shown
            _draw(tables)
            return
    print_result(as_text(tables))


def as_text(tables: Iterable[TextTable]) -> str:
    """The tables in plain text, the same on every machine."""
    return "\n\n".join(_plain(table) for table in tables if table.rows)


def size_text(count: int) -> str:
    """A number of bytes for people: `512 B`, `1.5 MiB`."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:,.1f} {unit}"


def _plain(table: TextTable) -> str:
    columns = _columns(table)
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    lines = [_INDENT.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([table.title, *(f"{_INDENT}{line}".rstrip() for line in lines)])


def _draw(tables: Iterable[TextTable]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    console = Console()
    for table in tables:
        if not table.rows:
            continue
        drawing = Drawing(
            title=Text(table.title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE,
            show_header=bool(table.header),
        )
        columns = _columns(table)
        for column in columns:
            drawing.add_column(Text(column[0]) if table.header else "", overflow="fold")
        for row in list(zip(*columns, strict=True))[bool(table.header) :]:
            drawing.add_row(*map(Text, row))
        console.print(drawing)


def _columns(table: TextTable) -> list[list[str]]:
    """Clean cells by column, the header's first if there is one."""
    columns = [[_clean(cell) for cell in column] for column in zip(*table.rows, strict=True)]
    names = [[name] for name in table.header] if table.header else [[] for _ in columns]
    return [name + column for name, column in zip(names, columns, strict=True) if any(column)]


def _clean(text: str) -> str:
    """The text in one line, and not too long a one."""
    if len(text) > _LONGEST_CELL:
        text = f"{text[:_LONGEST_CELL]}…"
    return printable(text)


def printable(text: str) -> str:
    """The text in printable characters; all others as Python would write them."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
