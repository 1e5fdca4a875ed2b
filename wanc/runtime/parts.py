"""A component that was cut by the time at which its inputs are known: what is known is computed once.

The graph that is run again and again takes some inputs from its caller and the others from the component's other
graphs: cross-attention keys and values from the prompt's, modulations from the timestep's, rope tables from the
sizes'. Each of those is executed when something new goes into it, and its results are kept as long as they are good.
What a graph gives may also stand in a table, computed when the bundle was built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BundleError
from .executor import Executor
from .interface import Input, Interface
from .tables import Table
from .value import Given, Value, as_array

Key = tuple[object, ...]
PASSING = ("build", "chunk")
"""When values are known that others follow, within a request, and that do not come back: timesteps, chunks."""


@dataclass
class Parts:
    """The graphs of one component, for the length of one request."""

    component: str
    graphs: Mapping[str, Interface]
    executor: Executor
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    _kept: dict[str, dict[Key, Mapping[str, Given]]] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self._givers = {output.name: graph for graph, entry in self.graphs.items() for output in entry.outputs}

    def run(self, graph: str, given: Mapping[str, Given], *, branch: str) -> dict[str, Value]:
        """Execute a graph; what the caller has not `given` comes from the other graphs.

        `branch` tells apart what is known for one guidance branch alone. Raises TargetError where an engine fails.
        """
        return self.executor.run(self.component, graph, self.inputs(graph, given, branch))

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Given]]) -> list[dict[str, Value]]:
        """Execute a graph for each branch in `given`, all at once where there are threads for that."""
        inputs = [self.inputs(graph, arrays, branch) for branch, arrays in given.items()]
        return self.executor.run_together(self.component, graph, inputs)

    def inputs(self, graph: str, given: Mapping[str, Given], branch: str) -> dict[str, Given]:
        """All that a graph takes: what is given, and what other graphs make of that."""
        found: dict[str, Mapping[str, Given]] = {}
        inputs: dict[str, Given] = {}
        for tensor in self.graphs[graph].inputs:
            if tensor.name in given:
                inputs[tensor.name] = given[tensor.name]
            elif tensor.shape_of is not None:
                inputs[tensor.name] = np.array(self._shape(tensor.shape_of, given), np.int64)
            else:
                giver = self._giver(tensor)
                if giver not in found:
                    found[giver] = self._results(giver, given, branch)
                inputs[tensor.name] = found[giver][tensor.name]
        return inputs

    def _shape(self, name: str, given: Mapping[str, Given]) -> tuple[int, ...]:
        if name not in given:
            raise BundleError(f"a graph of {self.component} takes the shape of {name}, which is no input")
        return given[name].shape

    def _giver(self, tensor: Input) -> str:
        """The graph whose output this is."""
        if tensor.name not in self._givers:
            raise BundleError(f"no graph of {self.component} gives {tensor.name}, and nobody else does")
        return self._givers[tensor.name]

    def _results(self, graph: str, given: Mapping[str, Given], branch: str) -> Mapping[str, Given]:
        """A graph's outputs: kept ones, if everything that they depend on is as it was."""
        key = self._key(graph, given, branch)
        kept = self._kept.setdefault(graph, {})
        if key not in kept:
            if any(tensor.binding in PASSING for tensor in self.graphs[graph].inputs):
                kept.clear()
            table = self.tables.get(graph)
            found = None if table is None else table.find(given, self.executor.empty)
            kept[key] = found or self.run(graph, given, branch=branch)
        return kept[key]

    def _key(self, graph: str, given: Mapping[str, Given], branch: str) -> Key:
        """What a graph's results depend on, its inputs' included; within a request nothing else changes."""
        parts: list[object] = []
        givers: set[str] = set()
        for tensor in self.graphs[graph].inputs:
            if tensor.shape_of is not None:
                parts.append(self._shape(tensor.shape_of, given))
            elif tensor.name not in given:
                giver = self._giver(tensor)
                if giver not in givers:  # most inputs come from one or two others: each goes in once
                    givers.add(giver)
                    parts.append(self._key(giver, given, branch))
            elif tensor.binding in PASSING:
                parts.append(as_array(given[tensor.name]).tobytes())
            elif tensor.per == "branch":
                parts.append(branch)
        return tuple(parts)
