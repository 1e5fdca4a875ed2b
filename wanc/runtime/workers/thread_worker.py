"""A device of this process: a thread that is kept on the device's processors.

Nothing ends a thread that hangs in a library: abandoned, it is left behind, and has nothing that anybody waits for.
"""

from __future__ import annotations

from collections.abc import Collection

from .desk import Desk, DeskWorker
from .execution import Execute


class ThreadWorker(DeskWorker):
    """`execute` is called in the worker's thread; `cores` are the numbers of its processors, none for any."""

    def __init__(self, device: str, cores: Collection[int], execute: Execute) -> None:
        super().__init__(device, lambda: Desk(device, lambda execution: execution.run(execute), cores=cores))
