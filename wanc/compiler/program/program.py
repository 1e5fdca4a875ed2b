"""The program: what is compiled, as it travels from stage to stage and into the bundle.

On disk it is `program.json` beside one `.onnx` per graph. Weights are by reference: (file, offset, length), where the
file belongs to the model's source until the engine stage has written its own. A model that has no such files, such as a
torch module in memory, has its weights beside `program.json`; they are named `program/<file>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from wanc.artifacts.canonical import canonical
from wanc.compiler.first_fault import first_fault
from wanc.compiler.stages.stage import Files
from wanc.errors import BundleError
from wanc.models.graph import Input, Output
from wanc.models.weights import Weight
from wanc.runtime.engine_file import EngineFile
from wanc.runtime.interface import Interface
from wanc.runtime.model import Model

FILE = "program.json"
ENGINE_REPORT = "engine_report.json"
"""What the engine stage writes beside it: the kernels that it built."""
CHECK_FILE = "check.json"
"""What the check stage writes: how the engines were compared with the source. The manifest has it."""
OWN = "program/"
"""What the names of weight files begin with that lie beside `program.json`, not in the model's source."""

Task = Literal["text-to-video", "graph"]


@dataclass(frozen=True)
class ProgramGraph:
    """One graph of a component: its `.onnx` file, relative to `program.json`, and its interface.

    `example` gives a size for each symbolic dimension, and `values` what fills an input in place of noise: together
    they are a request that the graph can execute. `named` are names for sizes that are computed of others. `hoist` tags
    it with the parts that are cut off where it is lowered; behind the engine stage those are graphs of their own, and
    `file` is None: the program's `engines` say what is run.
    """

    file: str | None
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    example: Mapping[str, int]
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    hoist: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class ProgramComponent:
    """A component's graphs, and every weight that they refer to, by canonical name.

    `blocks` are the paths of the modules that it is a row of, in the order of execution: `blocks.0`, `blocks.1`.
    """

    graphs: Mapping[str, ProgramGraph]
    weights: Mapping[str, Weight]
    blocks: tuple[str, ...] = ()

    @property
    def interfaces(self) -> dict[str, Interface]:
        """What each graph takes and gives."""
        return {name: Interface(graph.inputs, graph.outputs) for name, graph in self.graphs.items()}


@dataclass(frozen=True)
class Segment:
    """The blocks of a component from `first` up to `stop`, that one not included, on one device.

    What comes before a component's first block belongs to its first segment, what comes behind the last one to its
    last. All graphs of the component are cut at the same blocks. `ranks` are devices that split the tokens of a
    denoiser's step, in their order, `device` first; none where the one device executes all of it.
    """

    component: str
    index: int
    first: int
    stop: int
    device: str
    ranks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Which segment is executed where; a component's segments in their order."""

    devices: tuple[str, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Program:
    """A task and the components that do it.

    For `text-to-video` there are also the model's facts and the text encoder's embedding table [vocabulary, width]; the
    task `graph` is to execute one graph, `model/main`, as it is. A checkpoint may hold the table twice: then
    `embedding_twin` is the other one, until both were compared. `placement` is there behind the partition stage,
    `engines` behind the engine stage.
    """

    task: Task
    model: Model | None
    components: Mapping[str, ProgramComponent]
    embedding: Weight | None
    placement: Placement | None = None
    engines: tuple[EngineFile, ...] = ()
    embedding_twin: Weight | None = None
    schema: Literal["wanc.program/1.1"] = "wanc.program/1.1"

    @property
    def targets(self) -> tuple[str, ...]:
        """What the engines are compiled for, in the order of the recipe."""
        return tuple(dict.fromkeys(file.target for file in self.engines))

    def files_of(self, component: str, graph: str) -> tuple[EngineFile, ...]:
        """The engine files of a graph for the first target, in the order of its segments."""
        key = (component, graph, *self.targets[:1])
        found = [file for file in self.engines if (file.component, file.graph, file.target) == key]
        return tuple(sorted(found, key=lambda file: file.segment))

    def write(self, folder: Path) -> None:
        """Write `program.json` into the folder, in canonical form."""
        (folder / FILE).write_bytes(canonical(self.as_json()))

    def as_json(self) -> dict[str, Any]:
        """The program as JSON values."""
        return _adapter().dump_python(self, mode="json")

    @classmethod
    def read(cls, path: Path) -> Program:
        """Read what `write` wrote. Raises BundleError for anything else."""
        try:
            return _adapter().validate_json(path.read_bytes(), strict=True)
        except ValidationError as error:
            raise BundleError(f"is no program: {first_fault(error)}", where=str(path)) from None


def weight_files(program: Files, source: Files) -> Files:
    """Every file that a program's weights can name."""
    return {**source, **{f"{OWN}{name}": path for name, path in program.items()}}


@cache
def _adapter() -> TypeAdapter[Program]:
    return TypeAdapter(Program)
