"""Tables: the same plain text everywhere, drawn on a terminal, and never a way for a file to write to the terminal."""

from __future__ import annotations

import sys

import pytest

from wanc.terminal import TextTable, as_text, show, size_text

TABLES = [
    TextTable("first", [("a", "1"), ("longer", "22")]),
    TextTable("nothing", []),
    TextTable("second", [("x", "", "z"), ("xx", "", "")], ("one", "empty", "three")),
]
TEXT = """\
first
  a       1
  longer  22

second
  one  three
  x    z
  xx"""


def test_plain_text_is_aligned_without_empty_tables_and_columns() -> None:
    assert as_text(TABLES) == TEXT


def test_what_is_no_terminal_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLES)
    assert capsys.readouterr().out == f"{TEXT}\n"


def test_a_terminal_gets_the_same_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show([*TABLES, TextTable("[bold]third[/bold]", [("[red]markup[/red]", "[/]")])])
    drawn = capsys.readouterr().out
    for word in ("first", "longer", "22", "second", "three", "[bold]third[/bold]", "[red]markup[/red]", "[/]"):
        assert word in drawn
    assert "nothing" not in drawn and "empty" not in drawn


def test_a_terminal_without_rich_gets_plain_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    show(TABLES)
    assert capsys.readouterr().out == f"{TEXT}\n"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202eright to left", "\\u202eright to left"),
        ("half \udc80 of a pair", "half \\udc80 of a pair"),
        ("蓝色 é", "蓝色 é"),
        ("x" * 500, "x" * 400 + "…"),
    ],
    ids=["escapes", "lines", "direction", "surrogate", "text", "length"],
)
def test_cells_are_one_line_of_printable_text(cell: str, shown: str) -> None:
    assert as_text([TextTable("t", [(cell,)])]) == f"t\n  {shown}"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**19, "1.5 MiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**50, "5,120.0 TiB"),
    ],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size_text(count) == text
