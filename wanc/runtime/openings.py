"""How engine files are opened: for how many executions at once, on which processors and how many threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .cores import available_cores, cores_here, threads_here
from .engine_file import CUDA, EngineFile

MOST_LANES = 2
"""Executions of one graph at once: guidance has two branches."""


@dataclass(frozen=True)
class Opening:
    """How a file is opened: for so many executions at once, on these processors and so many threads."""

    lanes: int
    threads: int
    cores: frozenset[int]


class Openings:
    """`threads` are those of a run, 0 for every core; `cores` the processors of each device that has its own."""

    def __init__(self, threads: int, cores: Mapping[str, frozenset[int]]) -> None:
        self._threads, self._cores = threads, cores
        self._announced: dict[str, Opening] = {}

    def announce(self, files: Iterable[EngineFile], branches: int) -> None:
        """This thread will have them executed, for so many branches at once: for that they are opened, by whomever."""
        for file in files:
            self._announced[file.file] = self.of(file, branches)

    def announce_once(self, files: Iterable[EngineFile]) -> None:
        """The same for one execution, unless it is known already."""
        for file in files:
            self._announced.setdefault(file.file, self.of(file, 1))

    def known(self, file: EngineFile) -> Opening:
        """As it was announced. What stands in another file's place never was."""
        return self._announced.get(file.file) or self.of(file, 1)

    def of(self, file: EngineFile, branches: int) -> Opening:
        """For so many branches that this thread will execute.

        A device executes one branch at a time, but several ranks the same file. A GPU is busy with one execution, and
        would need the memory of all.
        """
        if file.device in self._cores:
            own, ranks = self._cores[file.device], len(file.ranks) or 1
            return Opening(ranks, ranks * self.threads_of(file.device), own if ranks == 1 else cores_here())
        threads = threads_here(self._threads)
        lanes = 1 if file.target == CUDA else min(branches, threads or available_cores(), MOST_LANES)
        return Opening(lanes, threads, cores_here())

    def threads_of(self, device: str) -> int:
        """How many threads one execution has on a device that has processors of its own."""
        own = len(self._cores[device])
        return min(self._threads or own, own) or 1
