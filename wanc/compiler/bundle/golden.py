"""Golden inputs and outputs: one small execution of every graph, for `run.py --selftest` on the target.

Inputs are noise only where a component begins: what another graph gives, or an earlier execution, is what that is
expected to give, and text begins at a prompt. They are what the engines gave where they were built, or, where those
cannot be executed there, what the graphs give on the host. So they prove that a target computes what the build
computed; that the build is right is what the parity tests prove.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanc.compiler.engines.kernels import Precision
from wanc.compiler.program.program import ProgramGraph
from wanc.errors import RecipeError
from wanc.models.graph import Input, concrete
from wanc.runtime import safetensors
from wanc.runtime.golden import EXPECTED, FOLDER, INPUTS, TOLERANCES, tensor_name
from wanc.runtime.interface import InputError, Interface
from wanc.runtime.noise import initial_noise
from wanc.runtime.ranges import check_ranges

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Execute = Callable[[str, Arrays], Arrays]
"""What a graph, by name, gives for these inputs."""

RELATIVE_TOLERANCE: Mapping[Precision, float] = {
    # Another CPU sums in another order: far above what that costs in float32, far below any real fault.
    "float32": 1e-4,
    # A sum that comes out a little otherwise is rounded to the next code, now and then: a fraction of what rounding to
    # 8 bits costs itself, which is some 1e-2.
    "integer": 5e-3,
    # Of noise, which no frame before has left, a decoder's thirty in a row make something else if one is rounded to the
    # next code: 3e-2 were seen.
    "integer convolutions": 1e-1,
    # Half of the digits, and a target without such kernels computes in float32: up to all of what rounding costs.
    "half": 3e-2,
}


@dataclass
class Golden:
    """Collects the record of every component; `write` puts it where the self-test looks for it."""

    inputs: dict[str, Array] = field(default_factory=dict[str, Array])
    expected: dict[str, Array] = field(default_factory=dict[str, Array])
    tolerances: dict[str, float] = field(default_factory=dict[str, float])

    def record(
        self, component: str, graphs: Mapping[str, ProgramGraph], given: Mapping[str, Arrays], execute: Execute
    ) -> None:
        """Execute each graph of a component once, at the sizes of its example; `given` are inputs of a graph by name.

        Raises RecipeError where an output holds NaNs, and what `execute` raises.
        """
        known = _Known(component, graphs, given, execute)
        for graph in sorted(graphs):
            outputs = known.outputs(graph)
            self.inputs |= {tensor_name(component, graph, name): array for name, array in known.inputs(graph).items()}
            self.expected |= {tensor_name(component, graph, name): array for name, array in outputs.items()}

    def tolerate(self, component: str, graph: str, precision: Precision) -> None:
        """How far a target may be from what is expected."""
        self.tolerances[f"{component}/{graph}"] = RELATIVE_TOLERANCE[precision]

    def write(self, out: Path) -> None:
        """Write `golden/{inputs,expected}.safetensors` and `tolerances.json` below `out`.

        Tensors are named `<component>/<graph>/<input or output>`.
        """
        folder = out / FOLDER
        folder.mkdir()
        safetensors.write(folder / INPUTS, dict(sorted(self.inputs.items())))
        safetensors.write(folder / EXPECTED, dict(sorted(self.expected.items())))
        (folder / TOLERANCES).write_text(json.dumps(self.tolerances, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class _Known:
    """The graphs of a component, each executed when another needs what it gives."""

    component: str
    graphs: Mapping[str, ProgramGraph]
    given: Mapping[str, Arrays]
    execute: Execute
    _inputs: dict[str, Arrays] = field(default_factory=dict[str, Arrays])
    _outputs: dict[str, Arrays] = field(default_factory=dict[str, Arrays])

    def outputs(self, graph: str) -> Arrays:
        if graph not in self._outputs:
            self._outputs[graph] = self.execute(graph, self.inputs(graph))
            for name, array in self._outputs[graph].items():
                if array.dtype.kind == "f" and np.isnan(array).any():
                    # A self-test could never tell such an output from a broken one.
                    raise RecipeError(
                        f"{self.component}/{graph}: the output {name} holds NaNs for the example's inputs",
                        hint="give values for which it does not, under model.values",
                    )
        return self._outputs[graph]

    def inputs(self, graph: str) -> Arrays:
        if graph not in self._inputs:
            entry = self.graphs[graph]
            given = self.given.get(graph, {})
            self._inputs[graph] = given or {
                value.name: self._input(graph, entry, value, seed) for seed, value in enumerate(entry.inputs)
            }
            try:
                check_ranges(Interface(entry.inputs, entry.outputs), self._inputs[graph])
            except InputError as error:
                raise RecipeError(
                    f"{self.component}/{graph}: {error.message}", hint="give numbers that it takes under model.values"
                ) from None
        return self._inputs[graph]

    def _input(self, graph: str, entry: ProgramGraph, value: Input, seed: int) -> Array:
        """What another graph gives, the shape of an input, or, where the component begins, seeded noise, or ones."""
        shape, dtype = concrete(value.shape, entry.example), np.dtype(value.dtype)
        if value.shape_of is not None:
            return np.array(self._shape(value.shape_of), dtype)
        for giver, other in self.graphs.items():
            for output in other.outputs:
                # A cache comes from a graph without one: the first of a row.
                if giver != graph and value.name in (output.name, output.state):
                    return self.outputs(giver)[output.name]
        if value.name in entry.values:
            return np.full(shape, entry.values[value.name]).astype(dtype)
        return initial_noise(shape, seed).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)

    def _shape(self, name: str) -> tuple[int, ...]:
        shapes = [
            concrete(value.shape, other.example)
            for other in self.graphs.values()
            for value in other.inputs
            if value.name == name
        ]
        return shapes[0]
