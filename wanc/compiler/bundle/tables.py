"""The tables stage: what is known at build time of a denoiser's inputs → its results, as the bundle holds them.

A text-to-video recipe says which timesteps it samples at. What a denoiser computes from the timestep alone is computed
here, on the built engine; a request for another number of steps computes its own. A stage of its own, so that another
schedule compiles nothing again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from wanc.compiler.program.program import FILE, Program, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.runtime import safetensors
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.golden import tensor_name
from wanc.runtime.model import Model
from wanc.runtime.progress import ProgressBar
from wanc.runtime.session import Session
from wanc.runtime.tables import table_file

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tables(Stage):
    """Input `engines`. Result: `engines/<component>/<graph>.table.safetensors`, as it lies in the bundle.

    `engine` is the library that executes the graphs, with its version; `boundary` is the noise level from which up the
    high-noise expert works, None where there is one expert.
    """

    name: ClassVar[str] = "tables"
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    engine: tuple[str, str]
    timesteps: tuple[float, ...]
    boundary: float | None

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        program = Program.read(inputs["engines"][FILE])
        assert program.model is not None
        model = replace(program.model, boundary=self.boundary)
        with ProgressBar(self.name, len(self.timesteps), enabled=progress) as bar:
            for component, timesteps in by_component(model, self.timesteps).items():
                for name, graph in program.components[component].graphs.items():
                    if _takes_timestep_alone(graph):
                        with _beside_its_weights(graph.file, inputs["engines"], out.parent) as path:
                            rows = _rows(Session(self.engine[0], path, threads=1), timesteps)
                        table = out / table_file(component, name)
                        table.parent.mkdir(parents=True, exist_ok=True)
                        safetensors.write(table, {tensor_name(component, name, key): rows[key] for key in rows})
                bar.advance(len(timesteps))


def by_component(model: Model, timesteps: Iterable[float]) -> dict[str, list[float]]:
    """Which expert works at which of the timesteps."""
    found: dict[str, list[float]] = {}
    for timestep in timesteps:
        found.setdefault(model.component_at(timestep), []).append(timestep)
    return found


def _takes_timestep_alone(graph: ProgramGraph) -> bool:
    return [entry.name for entry in graph.inputs] == [TIMESTEP]


@contextmanager
def _beside_its_weights(file: str, engines: Files, scratch: Path) -> Generator[Path]:
    """An engine file in a folder of its own with all others of its component, under the names that they know.

    In the store they lie each under its digest. They are linked, and copied where they are on another file system.
    """
    folder = Path(file).parent
    with TemporaryDirectory(dir=scratch) as name:
        for other, path in engines.items():
            if Path(other).parent == folder:
                target = Path(name) / Path(other).name
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copyfile(path, target)
        yield Path(name) / Path(file).name


def _rows(session: Session, timesteps: Iterable[float]) -> dict[str, Array]:
    """Inputs and outputs by name, an axis of rows in front."""
    inputs = [{TIMESTEP: np.array([timestep], np.float32)} for timestep in timesteps]
    rows = [{**row, **session.run(row)} for row in inputs]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
