"""What a device's worker is: it executes engine files one at a time, in the order in which it is given them.

A worker never waits for another one. Whoever wants a step of several segments gives each to its worker when what it
takes is there (`micro_batches.py`); so workers cannot wait for each other in a circle, however segments lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..engine_file import EngineFile
from ..errors import TargetError
from .execution import Execution

ROOM = 16
"""Executions that wait for one worker. Who has more waits with them outside."""


class DeviceWorker(Protocol):
    """One device. Several threads may call its methods at once."""

    @property
    def device(self) -> str:
        """What the manifest calls it, such as `cpu.1`."""
        ...

    def offer(self, execution: Execution, seconds: float) -> bool:
        """Put it into the queue, if there is a place within so many seconds; and whether there was.

        Raises TargetError where the device cannot be had.
        """
        ...

    def abandon(self, error: TargetError) -> None:
        """It hangs: all that it has been given fails with this error, and the next execution finds another worker."""
        ...

    def close(self) -> None:
        """Take nothing more, and leave nothing running. What waits fails."""
        ...


class RemoteWorker(DeviceWorker, Protocol):
    """One that opens its engine files itself, in another process."""

    def begin(self) -> None:
        """Get ready for executions, before there is one. Raises TargetError."""
        ...

    def close_files(self, files: Iterable[EngineFile]) -> None:
        """Close those of these that are its own, before its next execution."""
        ...
