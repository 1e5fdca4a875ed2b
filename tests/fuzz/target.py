"""What is fuzzed: a reader of foreign bytes, and sound inputs for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A reader. `read` gets the bytes, and a folder that it may write them to; it is emptied for every input.

    It may return whatever it likes or raise UserError, within the limits of `runner`; all else is a finding. `seeds`
    is called once, in the process that reads.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
