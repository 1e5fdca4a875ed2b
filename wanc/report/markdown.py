"""The report as a comment on a pull request: the verdict, and the numbers behind it."""

from __future__ import annotations

import re

from wanc.report import tables
from wanc.report.document import ReportDocument
from wanc.report.tables import ReportCell, ReportTable
from wanc.report.wording import OUTCOMES

WORST_PROMPTS = 10
MOST_CHUNKS = 12
"""Of hundreds a comment would be too long."""
# What begins a heading or a list does so at the beginning alone, and would spoil every negative number elsewhere.
MARKS = re.compile(r"([\\`*_\[\]<>|~$&]|^[#+-])")


def markdown(report: ReportDocument) -> str:
    """The report in GitHub's Markdown."""
    verdict = report.verdict
    words = OUTCOMES[verdict.outcome]
    parts = [f"# {_escaped(report.title)}", f"**{words.icon} {words.headline}.** {_escaped(verdict.summary)}"]
    if cause := verdict.cause:
        parts.append(f"It begins at the {cause.kind} **{_escaped(cause.name)}**: {_escaped(cause.detail)}")
    shown = [_table(tell(report)) for tell in (tables.gates, tables.quality, tables.external, tables.speed)]
    shown.insert(2, _table(tables.chunks(report, MOST_CHUNKS)))
    shown += [_table(tables.worst_prompts(report, new, WORST_PROMPTS)) for new in report.bundles[:1]]
    parts += [table for table in shown if table]
    parts += [f"- {_escaped(note)}" for note in report.notes]
    machine = report.machine
    parts.append(
        f"{_escaped(machine.processor)}, {machine.threads} threads on {machine.cores} cores; wanc {report.wanc}."
    )
    return "\n\n".join(parts) + "\n"


def _table(table: ReportTable) -> str:
    if not table.rows:
        return ""
    lines = [
        f"| {' | '.join(map(_escaped, table.header))} |",
        f"|{' --- |' * len(table.header)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in table.rows),
    ]
    note = f"\n\n{_escaped(table.note)}" if table.note else ""
    return f"## {_escaped(table.caption)}\n\n" + "\n".join(lines) + note


def _cell(cell: ReportCell) -> str:
    if cell.outcome:
        return f"{OUTCOMES[cell.outcome].icon} {cell.text}"
    return f"{_escaped(cell.text)}<br>{_escaped(cell.note)}" if cell.note else _escaped(cell.text)


def _escaped(text: str) -> str:
    """Text that stands for itself in one line, and that calls nobody: behind an @ comes a space without width."""
    return MARKS.sub(r"\\\1", " ".join(text.split())).replace("@", "@\u200b")
