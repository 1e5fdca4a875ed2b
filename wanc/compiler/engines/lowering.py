"""What every engine's lowering begins with: the canonical graph with its weights carried out into one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanc.compiler.passes.apply import apply_passes, count_nodes, passes_report
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile
from wanc.models.weights import Weight

TARGET = "cpu"
SEGMENT = 0
NO_WAY_AROUND = "tell us, and build with another engine.kind until then"


@dataclass(frozen=True)
class LoweredComponent:
    """A component's `.onnx` files by graph, the weights in the file beside them, and what passes did to each graph."""

    files: Mapping[str, Path]
    weights: Mapping[str, Weight]
    reports: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class CompiledComponent(ProgramComponent):
    """A component as an engine has it, and what lowering did to each graph, for the engine's report."""

    lowering: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


def lower(
    name: str,
    component: ProgramComponent,
    graphs: Files,
    weights: Files,
    folder: Path,
    finite: FiniteCheck,
    passes: Iterable[Pass],
) -> LoweredComponent:
    """Write every graph of a component into a folder, rewritten by the engine's passes, and one weight file.

    Raises CheckpointError where `finite` refuses the values of a weight.
    """
    folder.mkdir(parents=True)
    files: dict[str, Path] = {}
    reports: dict[str, dict[str, Any]] = {}
    with WeightFile(folder / f"weights.s{SEGMENT}.{TARGET}.bin", weights, finite) as stored:
        for graph_name, graph in component.graphs.items():
            model = load(graphs[graph.file])
            before = count_nodes(model)
            applied = apply_passes(model, passes, where=f"{name}/{graph_name}", hint=NO_WAY_AROUND)
            reports[graph_name] = passes_report(before, count_nodes(model), applied)
            stored.absorb(model)
            files[graph_name] = folder / f"{graph_name}.s{SEGMENT}.{TARGET}.onnx"
            save(model, files[graph_name])
    if not stored.entries:
        stored.path.unlink()
    return LoweredComponent(files, stored.entries, reports)
