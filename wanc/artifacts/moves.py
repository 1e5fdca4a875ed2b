"""Large blobs on their way out of the store into a bundle, and back again when the seal does not get through.

A seal renames them into its private directory and publishes that. Before the first rename a journal says which files
will go where, so that whoever opens the store after a kill can put back what never reached its bundle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import read_small, sync_directory, write_new
from wanc.artifacts.located import path_of, text_of
from wanc.errors import BundleError
from wanc.runtime.strict_json import JsonValue, parse_object

JOURNAL = "moves.json"


@dataclass(frozen=True)
class Move:
    """One file: where it is, where it waits for the bundle to be published, and where the bundle will have it.

    `inode` tells it from the file of a replaced bundle, which has the same name in the private directory after an
    exchange. `mode` is what the file had before.
    """

    source: Path
    staged: Path
    final: Path
    inode: int
    mode: int

    def undo(self) -> None:
        """Put the file back if it still waits for its bundle. A fault costs the file, which can be made again."""
        with suppress(OSError):
            if os.lstat(self.staged).st_ino == self.inode and not os.path.lexists(self.source):
                os.chmod(self.staged, self.mode)
                self.staged.rename(self.source)
                sync_directory(self.source.parent)


Announce = Callable[[Sequence[Move]], None]
"""Is called by a seal with everything that it is going to move, before it moves any of it."""


def write_journal(workdir: Path, moves: Sequence[Move]) -> None:
    """Write down, durably, what is going to be moved. Raises OutputError or OSError."""
    entries: list[JsonValue] = [
        {
            "source": text_of(move.source),
            "staged": text_of(move.staged),
            "final": text_of(move.final),
            "inode": str(move.inode),  # may be beyond what JSON can say in a number
            "mode": move.mode,
        }
        for move in moves
    ]
    write_new(workdir / JOURNAL, canonical({"moves": entries}))
    sync_directory(workdir)
    sync_directory(workdir.parent)


def undo_journal(workdir: Path) -> None:
    """Put back what the journal of a dead seal names, if there is one. A torn journal is one that nothing followed."""
    try:
        fields = parse_object(read_small(workdir / JOURNAL), where=str(workdir))
        moves = [
            Move(
                source=path_of(entry.text("source")),
                staged=path_of(entry.text("staged")),
                final=path_of(entry.text("final")),
                inode=int(entry.text("inode")),
                mode=entry.integer("mode"),
            )
            for entry in fields.objects("moves")
        ]
    except (OSError, ValueError, BundleError):
        return
    for move in moves:
        move.undo()
