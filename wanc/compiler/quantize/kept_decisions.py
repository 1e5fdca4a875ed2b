"""Decisions, each kept in a file as soon as it is made: a stage that was stopped decides nothing twice.

What goes on to the graph is read from these files, whether it was decided just now or before the stage was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wanc.artifacts.kept import forget_damaged, keep
from wanc.compiler.quantize.group_decision import GroupDecision, read_decision, write_decision
from wanc.compiler.quantize.linear_groups import LinearGroup


class KeptDecisions:
    """The decisions on `groups` in a folder of a stage that resumes (see `artifacts.kept`)."""

    def __init__(self, folder: Path, groups: Sequence[LinearGroup]) -> None:
        self._folder = folder
        self._numbers = {group.name: number for number, group in enumerate(groups)}

    def keep(self, group: LinearGroup, decisions: Iterator[GroupDecision]) -> None:
        """Write the decisions on a group's `alone`, one after the other. Raises OutputError."""
        for path, decided in zip(self._paths(group), decisions, strict=True):
            keep(path, lambda place, decided=decided: write_decision(place, decided))

    def has(self, group: LinearGroup) -> bool:
        """Whether the group is decided on; what is damaged is removed, and said to be."""
        paths = self._paths(group)
        for path in paths:
            forget_damaged(path)
        return all(path.exists() for path in paths)

    def read(self, group: LinearGroup) -> Iterator[GroupDecision]:
        """The decisions on a group that is decided on, in their order."""
        for path, one in zip(self._paths(group), alone(group), strict=True):
            yield read_decision(path, one)

    def _paths(self, group: LinearGroup) -> list[Path]:
        number = self._numbers[group.name]
        return [self._folder / f"decision-{number:04}-{index:04}.safetensors" for index in range(len(alone(group)))]


def alone(group: LinearGroup) -> list[LinearGroup]:
    """A group's Linears one by one, as they are decided on; together where none is quantised."""
    return [replace(group, linears=(linear,)) for linear in group.linears] if group.quantized else [group]
