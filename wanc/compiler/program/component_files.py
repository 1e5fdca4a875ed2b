"""A component of a program, and where all lies that it names: what a stage is handed of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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

    @property
    def only_graph(self) -> str:
        """The name of its graph, where it has one, as what is quantised has."""
        (graph,) = self.component.graphs
        return graph

    def path(self, graph: str) -> Path:
        """The file of one of its graphs."""
        file = self.component.graphs[graph].file
        assert file is not None, f"{self.name}/{graph} has been compiled"
        return self.graphs[file]

    def model(self, graph: str) -> ir.Model:
        """One of its graphs, read anew."""
        from wanc.compiler.program.graph_file import load

        return load(self.path(graph))


def component_inputs(names: Collection[str], program: Tree, exported: Tree, source: Tree) -> dict[str, Tree]:
    """What a stage is given that works on some components alone, so that a change of others does not reach its key.

    Of `program.json` the key has what it says of these; the stage promises to read nothing else in it.
    """
    described = Program.read(program.locate()[FILE])
    chosen = {name: described.components[name] for name in names}
    if chosen.keys() == described.components.keys():
        return {"program": program, "exported": exported, "source": source}
    alone = replace(described, components=chosen, embedding=None, placement=None).as_json()
    files = {weight.file for component in chosen.values() for weight in component.weights.values()}
    own = [f"{name}/" for name in names] + [f"{folder}/{name}." for folder in ("probes", TABLES) for name in names]
    kept = program.only(lambda file: file.startswith(tuple(own)))
    return {
        "program": Tree({**kept.digests, FILE: digest_of(alone)}, program.locate),
        "exported": exported.only(lambda file: f"{OWN}{file}" in files),
        "source": source.only(files.__contains__),
    }
