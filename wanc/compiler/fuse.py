"""The fuse stage: every graph in canonical form, and cut by the time at which its inputs are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.program.program import FILE, Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.runtime.progress import ProgressBar

REPORT_FILE = "fuse_report.json"
LEAVE_OUT = "leave it out, and tell us: fuse.skip: [{name}]"


@dataclass(frozen=True)
class Fuse(Stage):
    """Input `program`. Result: the same program, smaller, and `fuse_report.json`: what each pass did to each graph.

    `passes` are names; None stands for those that are used by default. `skip` takes some of them away. `hoist` names
    the parts that are cut off.
    """

    name: ClassVar[str] = "fuse"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "numpy")

    passes: tuple[str, ...] | None
    skip: tuple[str, ...]
    hoist: tuple[str, ...]

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        program = Program.read(inputs["program"][FILE])
        report: dict[str, Any] = {"schema": "wanc.fuse/1.0", "components": {}}
        components: dict[str, ProgramComponent] = {}
        graphs = sum(len(component.graphs) for component in program.components.values())
        with ProgressBar(self.name, graphs, enabled=progress) as bar:
            for name, component in program.components.items():
                (out / name).mkdir()
                fused: dict[str, ProgramGraph] = {}
                reports = report["components"][name] = {}
                for graph_name, graph in component.graphs.items():
                    path = inputs["program"][graph.file]
                    parts, reports[graph_name] = self._fuse(f"{name}/{graph_name}", graph, path, out / name)
                    fused |= parts
                    bar.advance()
                components[name] = replace(component, graphs=fused)
        replace(program, components=components).write(out)
        (out / REPORT_FILE).write_bytes(canonical(report))

    def _fuse(
        self, where: str, graph: ProgramGraph, path: Path, folder: Path
    ) -> tuple[dict[str, ProgramGraph], dict[str, Any]]:
        from wanc.compiler.graphs.hoist import hoist
        from wanc.compiler.passes.apply import apply_passes, count_nodes, passes_report
        from wanc.compiler.passes.registry import all_passes
        from wanc.compiler.program.graph_file import load, save

        component, _, name = where.partition("/")
        model = load(path)
        before = count_nodes(model)
        chosen = [entry for entry in all_passes() if self._uses(entry.name, by_default=entry.by_default)]
        applied = apply_passes(model, chosen, where=where, hint=LEAVE_OUT)
        after = count_nodes(model)
        parts = hoist(name, model, graph.inputs, graph.outputs, graph.example, self.hoist)
        graphs: dict[str, ProgramGraph] = {}
        for part in parts:
            save(part.model, folder / f"{part.name}.onnx")
            values = {key: value for key, value in graph.values.items() if key in {entry.name for entry in part.inputs}}
            graphs[part.name] = ProgramGraph(
                f"{component}/{part.name}.onnx", part.inputs, part.outputs, part.example, values
            )
        sizes = {part.name: count_nodes(part.model) for part in parts}
        return graphs, {**passes_report(before, after, applied), "parts": sizes}

    def _uses(self, name: str, *, by_default: bool) -> bool:
        named = by_default if self.passes is None else name in self.passes
        return named and name not in self.skip
