"""The program: what is compiled, as it travels from stage to stage and into the bundle.

On disk it is `program.json` beside one `.onnx` per graph. Weights are by reference: (file, offset, length), where the
file belongs to the checkpoint until the engine stage has written its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from wanc.artifacts.canonical import canonical
from wanc.models.graph import Input, Output
from wanc.models.weights import Weight
from wanc.runtime.model import Model

FILE = "program.json"


@dataclass(frozen=True)
class ProgramGraph:
    """One graph of a component: its `.onnx` file, relative to `program.json`, and its interface."""

    file: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class ProgramComponent:
    """A component's graphs, and every weight that they refer to, by canonical name."""

    graphs: Mapping[str, ProgramGraph]
    weights: Mapping[str, Weight]


@dataclass(frozen=True)
class Program:
    """A task, the model's facts, its components, and the text encoder's embedding table [vocabulary, width]."""

    schema: Literal["wanc.program/1.0"]
    task: Literal["text-to-video"]
    model: Model
    components: Mapping[str, ProgramComponent]
    embedding: Weight

    def write(self, folder: Path) -> None:
        """Write `program.json` into the folder, in canonical form."""
        (folder / FILE).write_bytes(canonical(self.as_json()))

    def as_json(self) -> dict[str, Any]:
        """The program as JSON values."""
        return _adapter().dump_python(self, mode="json")

    @classmethod
    def read(cls, path: Path) -> Program:
        """Read what `write` wrote."""
        return _adapter().validate_json(path.read_bytes())


def _adapter() -> TypeAdapter[Program]:
    return TypeAdapter(Program)
