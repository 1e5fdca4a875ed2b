"""What the tests of the compiler share: a small checkpoint's graphs, lowered and opened, and a finished build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wanc.artifacts.records import ActionRecord
from wanc.artifacts.store import Store
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.tracing import bind
from wanc.compiler.export.wan import Traced
from wanc.compiler.pipeline import BuildResult
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.compiler.weights.finite import FiniteCheck
from wanc.models.wan.checkpoint import Checkpoint
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.session import Session

RECIPE = """\
wanc: 1
name: tiny
model:
  source: model
shapes: [{name: wide, height: 32, width: 48, frames: 5}]
sampling: {steps: 2, shift: 5.0, guidance: {high: 4.0, low: 3.0}}
"""


@dataclass(frozen=True)
class Lowered:
    """One component: its graphs as exported (`<graph>.onnx` in `folder`) and as lowered, with open sessions."""

    folder: Path
    exported: Mapping[str, ProgramGraph]
    lowered: Mapping[str, ProgramGraph]
    paths: Mapping[str, Path]
    sessions: Mapping[str, Session]


def lower(name: str, checkpoint: Checkpoint, traced: Traced, folder: Path) -> Lowered:
    """A component on the way that a build takes: traced, bound, saved, compiled."""
    component = checkpoint.components[name]
    graphs: dict[str, ProgramGraph] = {}
    for graph, model in traced.graphs(name, component, checkpoint):
        file = f"{graph.name}.onnx"
        save(bind(model, component.weights, where=component.folder), folder / file)
        graphs[graph.name] = ProgramGraph(file, graph.inputs, graph.outputs, graph.example, graph.values)
    program = {str(graph.file): folder / str(graph.file) for graph in graphs.values()}
    source = {file: checkpoint.root / file for file in checkpoint.files}
    files = ComponentFiles(name, ProgramComponent(graphs, component.weights), program, source)
    compiled = compile_segment(OnnxRuntimeCompiler(), files, whole(files), CPU, folder, FiniteCheck(name))
    paths = {file.graph: folder / file.file for file in compiled.files}
    sessions = {key: Session("onnxruntime", path, threads=1) for key, path in paths.items()}
    return Lowered(folder, graphs, compiled.graphs, paths, sessions)


def assembled(assemble: Assemble, inputs: Mapping[str, Files], folder: Path) -> Path:
    """What the engine stage makes of a program in one segment for each component, as it lies in a bundle."""
    compiled: dict[str, Files] = {}
    for name in Program.read(inputs["program"]["program.json"]).components:
        out = folder / f"compiled-{name}"
        out.mkdir(parents=True)
        segment = whole(ComponentFiles.read(name, inputs))
        stage = Compile(assemble.engine, segment, CPU, assemble.allow_not_finite)
        stage.run(inputs, out, progress=False)
        compiled[name] = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    out = folder / "out"
    out.mkdir()
    assemble.run({**inputs, **compiled}, out, progress=False)
    for name in compiled:
        shutil.copytree(folder / f"compiled-{name}" / "engines", out / "engines", dirs_exist_ok=True)
    return out


@dataclass(frozen=True)
class Project:
    """A recipe with its checkpoint, and what was built of it into `output`."""

    root: Path
    output: Path
    result: BuildResult

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    def load(self, *overrides: str) -> LoadedRecipe:
        (loaded,) = load(self.recipe, overrides)
        return loaded

    def copy(self, to: Path) -> Project:
        """The same in another place, for a test that changes something."""
        root, output = (
            shutil.copytree(path, to / path.name, copy_function=shutil.copy2) for path in (self.root, self.output)
        )
        bundle = output / self.result.bundle.relative_to(self.output)
        return Project(root, output, BuildResult(bundle, self.result.id, self.result.stages))


def _is_of(record: ActionRecord, stage: Stage) -> bool:
    """Whether a record is that of a stage as far as its name tells, and of which segment it compiles."""
    segment = json.loads(json.dumps(asdict(stage.segment))) if isinstance(stage, Compile) else None
    return record.stage == stage.name and record.document["parameters"].get("segment") == segment


@dataclass
class Replay:
    """Stands in for the worker: hands out what a finished build has stored, and remembers which stages were asked."""

    store: Store
    ran: list[str]
    compiled: list[str] = field(default_factory=list[str])
    """The components whose segments were."""

    def __call__(self, stage: Stage, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> int:
        assert not progress
        self.ran.append(stage.name)
        self.compiled += [stage.segment.component] if isinstance(stage, Compile) else []
        (record,) = [record for record in self.store.records() if _is_of(record, stage)]
        for path, blob in record.files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.store.path(blob), out / path)
        return 1
