"""A component of a program, and where all lies that it names: what a stage is handed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wanc.artifacts.canonical import digest_of
from wanc.compiler.program.program import FILE, OWN, Program, ProgramComponent, weight_files
from wanc.compiler.program.quant_table import TABLES
from wanc.compiler.stages.stage import Files, Tree

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ComponentFiles:
    """`graphs` locates the component's `.onnx` files, `weights` what their external tensors name."""

    name: str
    component: ProgramComponent
    graphs: Files
    weights: Files

    @classmethod
    def read(cls, name: str, inputs: Mapping[str, Files]) -> ComponentFiles:
        """The component among a stage's inputs `program`, `exported` and `source`."""
        program = Program.read(inputs["program"][FILE])
        weights = weight_files({**inputs["exported"], **inputs["program"]}, inputs["source"])
        return cls(name, program.components[name], inputs["program"], weights)

    def path(self, graph: str) -> Path:
        """The file of one of its graphs."""
        file = self.component.graphs[graph].file
        assert file is not None, f"{self.name}/{graph} has been compiled"
        return self.graphs[file]

    def model(self, graph: str) -> ir.Model:
        """One of its graphs, read anew."""
        from wanc.compiler.program.graph_file import load

        return load(self.path(graph))


def component_inputs(name: str, program: Tree, exported: Tree, source: Tree) -> dict[str, Tree]:
    """What a stage is given that works on one component alone, so that a change of another does not reach its key.

    Of `program.json` the key has what it says of this component; the stage promises to read nothing else in it.
    """
    described = Program.read(program.locate()[FILE])
    if len(described.components) == 1:
        return {"program": program, "exported": exported, "source": source}
    component = described.components[name]
    alone = Program(described.task, None, {name: component}, None).as_json()
    files = {weight.file for weight in component.weights.values()}
    own = [f"{name}/", *(f"{folder}/{name}." for folder in ("probes", TABLES))]
    kept = program.only(lambda file: file.startswith(tuple(own)))
    return {
        "program": Tree({**kept.digests, FILE: digest_of(alone)}, program.locate),
        "exported": exported.only(lambda file: f"{OWN}{file}" in files),
        "source": source.only(files.__contains__),
    }
