"""What will be used, and in which order: what to open ahead, and what can be closed because it is needed last."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LOOKS_AHEAD = 64
"""Entries of a line that may be skipped: a graph whose result is in a table is not executed after all."""


class GraphUse(NamedTuple):
    """One execution of a graph, for so many branches at once."""

    component: str
    graph: str
    branches: int = 1


@dataclass(eq=False)
class Line:
    """The names that one request will use, in their order, and how many of them are behind it."""

    names: Sequence[str]
    done: int = 0
    _places: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def __post_init__(self) -> None:
        for place, name in enumerate(self.names):
            self._places.setdefault(name, []).append(place)

    @property
    def distinct(self) -> Collection[str]:
        """Each name once, also those that are behind it."""
        return self._places

    def advance(self, name: str) -> None:
        """It is used now. A name that does not come soon is another request's."""
        if self.distance(name) <= LOOKS_AHEAD:
            self.done += int(self.distance(name)) + 1

    def distance(self, name: str) -> float:
        """How many uses of others come before its next one; infinite if none of it comes."""
        places = self._places.get(name, [])
        index = bisect_left(places, self.done)
        return places[index] - self.done if index < len(places) else math.inf


class Uses:
    """The lines of all requests that are under way."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def add(self, names: Sequence[str]) -> Line:
        """What a request will use from now on."""
        self._lines.append(line := Line(names))
        return line

    def remove(self, line: Line) -> None:
        """A request that is done, or that ends early."""
        self._lines.remove(line)

    def advance(self, name: str) -> None:
        """Something is used: by whichever request, all that expected it next are past it."""
        for line in self._lines:
            line.advance(name)

    def distance(self, name: str) -> float:
        """How soon it will be used: the number of other uses before; infinite if nobody expects it."""
        return min((line.distance(name) for line in self._lines), default=math.inf)

    def upcoming(self) -> Iterator[str]:
        """Each name that is expected, in the order of the next uses."""
        distances = {name: self.distance(name) for line in self._lines for name in line.distinct}
        expected = [name for name, distance in distances.items() if distance < math.inf]
        yield from sorted(expected, key=lambda name: (distances[name], name))
