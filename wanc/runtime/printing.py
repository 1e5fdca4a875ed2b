"""What a command prints: results on stdout, everything alongside on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .destination import STDOUT
from .streams import complain, print_result
from .voice import say

if TYPE_CHECKING:
    from .execute import Report


def print_report(report: Report, output: Path | None, *, as_json: bool) -> None:
    """Print what came of a run: on stderr where its output has gone to stdout, which then holds nothing else."""
    text = json.dumps(report.as_json()) if as_json else report.as_text()
    (complain if output == STDOUT else print_result)(text)


def print_note(note: str) -> None:
    """Tell people at once, on stderr, what is not quite as it was asked for."""
    say(f"note: {note}")
