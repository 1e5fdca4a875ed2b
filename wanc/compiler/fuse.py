"""The fuse stage: every graph in canonical form, and tagged with what is cut off where it is lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program, ProgramComponent
from wanc.compiler.stages.stage import Files, Stage
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from wanc.compiler.passes.rewrite import Pass

REPORT_FILE = "fuse_report.json"
LEAVE_OUT = "leave it out, and tell us: fuse.skip: [{name}]"


@dataclass(frozen=True)
class Fuse(Stage):
    """Input `program`. Result: the same program, smaller, and `fuse_report.json`: what each pass did to each graph.

    `passes` are names; None stands for those that are used by default. `skip` takes some of them away. `hoist` names
    the parts that will be cut off: the graphs themselves stay whole.
    """

    name: ClassVar[str] = "fuse"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "numpy")

    passes: tuple[str, ...] | None
    skip: tuple[str, ...]
    hoist: tuple[str, ...]

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        program = Program.read(inputs["program"][FILE])
        report: dict[str, Any] = {"schema": "wanc.fuse/1.1", "components": {}}
        components: dict[str, ProgramComponent] = {}
        graphs = sum(len(component.graphs) for component in program.components.values())
        with ProgressBar(self.name, graphs, enabled=progress) as bar:
            for name in program.components:
                (out / name).mkdir()
                files = ComponentFiles.read(name, {"exported": {}, "source": {}, **inputs})
                reports = report["components"][name] = {}
                for graph in files.component.graphs:
                    reports[graph] = self._fuse(files, graph, out)
                    bar.advance()
                tagged = {key: replace(graph, hoist=self.hoist) for key, graph in files.component.graphs.items()}
                components[name] = replace(files.component, graphs=tagged)
        replace(program, components=components).write(out)
        (out / REPORT_FILE).write_bytes(canonical(report))

    def _fuse(self, files: ComponentFiles, graph: str, out: Path) -> dict[str, Any]:
        from wanc.compiler.passes.apply import apply_passes, count_nodes, passes_report
        from wanc.compiler.program.graph_file import save

        model = files.model(graph)
        before = count_nodes(model)
        applied = apply_passes(model, self.chosen(), where=f"{files.name}/{graph}", hint=LEAVE_OUT)
        save(model, out / str(files.component.graphs[graph].file))
        return passes_report(before, count_nodes(model), applied)

    def chosen(self) -> list[Pass]:
        """The passes that are used, in their order."""
        from wanc.compiler.passes.registry import all_passes

        return [entry for entry in all_passes() if self._uses(entry.name, by_default=entry.by_default)]

    def _uses(self, name: str, *, by_default: bool) -> bool:
        named = by_default if self.passes is None else name in self.passes
        return named and name not in self.skip
