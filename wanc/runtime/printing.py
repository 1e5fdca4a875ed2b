"""What a command prints: results on stdout, everything alongside on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .destination import STDOUT
from .errors import EXIT_IO, UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from .execute import Report


def print_report(report: Report, output: Path | None, *, as_json: bool) -> None:
    """Print what came of a run: on stderr where its output has gone to stdout, which then holds nothing else."""
    text = json.dumps(report.as_json()) if as_json else report.as_text()
    print(text, file=sys.stderr if output == STDOUT else sys.stdout)


def print_note(note: str) -> None:
    """Tell people at once, on stderr, what is not quite as it was asked for."""
    print(f"note: {note}", file=sys.stderr, flush=True)


def replace_closed_streams() -> None:
    """Let /dev/null stand for standard streams that are closed.

    Else the next file that is opened has the number of one of them, and what anybody prints ends up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    if sys.stderr is None:  # print would take stdout for it
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class _Checked(io.FileIO):
    """Standard output, whose faults are errors for the reader."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is left in a buffer would fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise UserError("standard output cannot be written", exit_code=EXIT_IO) from error


@contextmanager
def checked_stdout() -> Generator[None]:
    """What the block prints has arrived when it ends. Raises UserError, exit code 74: a full disk, a reader gone."""
    plain = sys.stdout
    try:
        number = plain.fileno()
    except (AttributeError, OSError):  # it is closed, or no file
        yield
        return
    plain.flush()
    buffer = io.BufferedWriter(_Checked(number, "w", closefd=False))
    # A file's name that is no text must not end a run whose work is done.
    errors = "backslashreplace" if plain.errors == "strict" else plain.errors
    sys.stdout = io.TextIOWrapper(buffer, plain.encoding, errors, line_buffering=bool(plain.line_buffering))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = plain
