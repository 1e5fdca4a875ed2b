"""The tables stage: what is known at build time of a denoiser's inputs → its results, as the bundle holds them.

A text-to-video recipe says which timesteps it samples at. What a denoiser computes from the timestep alone is computed
here, on the built engine; a request for another number of steps computes its own. A stage of its own, so that another
schedule compiles nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wanc.compiler.engines.stage import EngineStage
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.laid_out import laid_out
from wanc.compiler.program.program import FILE, Program, ProgramGraph
from wanc.compiler.stages.stage import Files
from wanc.runtime import safetensors
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.golden import tensor_name
from wanc.runtime.model import Model
from wanc.runtime.progress import ProgressBar
from wanc.runtime.tables import table_file

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tables(EngineStage):
    """Inputs `engines`, `program`, `exported` and `source`. Result: `engines/<component>/<graph>.table.safetensors`.

    They lie as in the bundle. `boundary` is the noise level from which up the high-noise expert works, None where there
    is one expert. What this machine cannot execute of the engines is executed as the program has it, by the host.
    """

    name: ClassVar[str] = "tables"
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    timesteps: tuple[float, ...]
    boundary: float | None
    everywhere: tuple[float, ...] = ()
    """Timesteps at which every expert works."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        program = Program.read(inputs["engines"][FILE])
        assert program.model is not None
        model = replace(program.model, boundary=self.boundary)
        with ProgressBar(self.name, len(self.timesteps), enabled=progress) as bar:
            for component, own in by_component(model, self.timesteps).items():
                timesteps = [*own, *self.everywhere]
                for name, graph in program.components[component].graphs.items():
                    if _takes_timestep_alone(graph):
                        rows = self._rows(program, component, name, inputs, out.parent, timesteps)
                        table = out / table_file(component, name)
                        table.parent.mkdir(parents=True, exist_ok=True)
                        safetensors.write(table, {tensor_name(component, name, key): rows[key] for key in rows})
                bar.advance(len(own))

    def _rows(
        self,
        program: Program,
        component: str,
        name: str,
        inputs: Mapping[str, Files],
        scratch: Path,
        timesteps: Iterable[float],
    ) -> dict[str, Array]:
        """Inputs and outputs of a graph by name, an axis of rows in front."""
        from wanc.compiler.bundle.built_graph import BuiltGraph
        from wanc.compiler.graphs.lowerable import lowerable
        from wanc.compiler.host.reference import Reference

        files = program.files_of(component, name)
        graph = program.components[component].graphs[name]
        folder = f"engines/{component}/"
        engines = {name: path for name, path in inputs["engines"].items() if name.startswith(folder)}
        given = [{TIMESTEP: np.array([timestep], np.float32)} for timestep in timesteps]
        with laid_out(engines, scratch) as below:

            def reference() -> Reference:
                canonical = ComponentFiles.read(component, inputs)
                return Reference(canonical, lowerable(canonical), below / "reference")

            built = BuiltGraph(self.engine.compiler(files[0].target), graph, files, below, cache(reference))
            rows = [{**row, **built.run(row)} for row in given]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def by_component(model: Model, timesteps: Iterable[float]) -> dict[str, list[float]]:
    """Which expert works at which of the timesteps."""
    found: dict[str, list[float]] = {}
    for timestep in timesteps:
        found.setdefault(model.component_at(timestep), []).append(timestep)
    return found


def _takes_timestep_alone(graph: ProgramGraph) -> bool:
    return [entry.name for entry in graph.inputs] == [TIMESTEP]
