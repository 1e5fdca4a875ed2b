"""Elements of a page. Every text that goes into one is escaped, unless it is an element itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from wanc.report.document import Outcome
from wanc.report.tables import ReportCell, ReportTable
from wanc.report.wording import OUTCOMES

VOID = ("img", "input", "br", "meta")


class Markup(str):
    """HTML that was made here, as opposed to text that somebody wrote."""


def element(tag: str, *children: str | None, **attributes: str | int | bool | None) -> Markup:
    """An element. `class_` is the attribute `class`, `data_clip` is `data-clip`; None and False leave one out."""
    start = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{start}>") if tag in VOID else Markup(f"<{tag}{start}>{together(*children)}</{tag}>")


def together(*children: str | None) -> Markup:
    """Elements and texts after each other; None is nothing."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))


def table_of(table: ReportTable, class_: str = "") -> Markup | None:
    """A table that scrolls by itself where it is wider than the page; None of one without rows."""
    if not table.rows:
        return None
    head = element("tr", *(element("th", name, scope="col") for name in table.header))
    rows = [_row(row, table.header) for row in table.rows]
    caption = element("caption", table.caption)
    whole = element("table", caption, element("thead", head), element("tbody", *rows), class_=class_ or None)
    scrolling = element("div", whole, class_="scroll", role="region", tabindex=0, aria_label=table.caption)
    return element("div", scrolling, table.note and element("small", table.note), class_="table")


def _row(row: Sequence[ReportCell], header: Sequence[str]) -> Markup:
    heads = [cell for cell in row if not cell.outcome][:1]
    cells = (
        _cell(cell, label, is_head=any(cell is head for head in heads)) for cell, label in zip(row, header, strict=True)
    )
    return element("tr", *cells)


def _cell(cell: ReportCell, label: str, *, is_head: bool) -> Markup:
    """A cell, with what it would be called where its column has no header: on a telephone."""
    shown = chip(cell.outcome, cell.text) if cell.outcome else cell.text
    note = element("small", cell.note) if cell.note else None
    if is_head:
        return element("th", shown, note, scope="row", data_label=label)
    return element("td", shown, note, data_label=label)


def chip(outcome: Outcome, text: str) -> Markup:
    """A word in the colour of an outcome, with its icon."""
    icon = element("span", OUTCOMES[outcome].icon, aria_hidden="true")
    return element("span", icon, f" {text}", class_=f"chip {outcome}")
