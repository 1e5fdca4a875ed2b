"""A component's graphs as they are executed: one that was cut is executed part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wanc.compiler.check.trials import Arrays
from wanc.compiler.program.program import ProgramGraph

Array = np.ndarray[Any, Any]


class Part(Protocol):
    """A graph that can be executed, with its interface. A built one is a `BuiltGraph`."""

    @property
    def graph(self) -> ProgramGraph: ...

    def run(self, inputs: Arrays) -> Arrays: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Recorded:
    """A part that is not executed again on the inputs of the golden record: what it gave for them stands there."""

    part: Part
    inputs: Arrays
    outputs: Arrays

    @property
    def graph(self) -> ProgramGraph:
        return self.part.graph

    def run(self, inputs: Arrays) -> Arrays:
        """Raises what the part raises."""
        same = inputs.keys() == self.inputs.keys() and all(
            np.array_equal(array, self.inputs[name]) for name, array in inputs.items()
        )
        return self.outputs if same else self.part.run(inputs)

    def close(self) -> None:
        self.part.close()


@dataclass(frozen=True)
class Together:
    """The parts of a component by name: what one takes another one gives."""

    parts: Mapping[str, Part]

    def run(self, graph: str, inputs: Arrays) -> dict[str, Array]:
        """What a graph of the program gives, by name: executed with the parts that were cut off it.

        Raises what the parts raise.
        """
        values = dict(inputs)
        self._complete(graph, values)
        return {name: array for name, array in values.items() if name not in inputs}

    def needed(self, graph: str) -> list[str]:
        """The parts that a graph of the program is executed with, itself last."""
        found = [graph]
        for part in found:
            found += [giver for giver in self._givers(part).values() if giver not in found]
        return found[::-1]

    def _complete(self, part: str, values: dict[str, Array]) -> None:
        wanted, givers = self.parts[part], self._givers(part)
        for entry in wanted.graph.inputs:
            if entry.name in values:
                continue
            if entry.shape_of is not None:
                values[entry.name] = np.array(values[entry.shape_of].shape, entry.dtype)
            elif entry.name in givers:
                self._complete(givers[entry.name], values)
        values |= wanted.run({entry.name: values[entry.name] for entry in wanted.graph.inputs})
        if len(self.parts) > 1:  # they need not fit in memory together
            wanted.close()

    def _givers(self, part: str) -> dict[str, str]:
        """For each input of a part the one that gives it, where one does; caches are given."""
        taken = {entry.name for entry in self.parts[part].graph.inputs}
        return {
            output.name: name
            for name, other in self.parts.items()
            for output in other.graph.outputs
            if name != part and output.name in taken and output.state is None
        }
