"""The `onnxruntime` engine on CPUs: float32 graphs, weights pre-cast and pre-transposed beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from wanc.compiler.engines.weights import WeightFile
from wanc.compiler.finite import FiniteCheck
from wanc.compiler.graph_file import load, save
from wanc.compiler.program import ProgramComponent, ProgramGraph, weight_files
from wanc.compiler.stage import Files

TARGET = "cpu"
SEGMENT = 0


def compile_component(
    name: str,
    component: ProgramComponent,
    program: Files,
    source: Files,
    out: Path,
    finite: FiniteCheck,
) -> tuple[ProgramComponent, dict[str, Any]]:
    """Lower every graph of a component into `out/engines/<name>/`.

    Returns the component as it now is (its files relative to `out`, its weights in the engine's own file) and the
    report of what was built, by graph. Raises CheckpointError where `finite` refuses the values of a weight.
    """
    folder = Path("engines") / name
    (out / folder).mkdir(parents=True)
    weights_name = f"weights.s{SEGMENT}.{TARGET}.bin"
    graphs: dict[str, ProgramGraph] = {}
    report: dict[str, Any] = {}
    with WeightFile(out / folder / weights_name, weight_files(program, source), finite) as weights:
        for graph_name, graph in component.graphs.items():
            model = load(program[graph.file])
            weights.absorb(model)
            file = f"{folder.as_posix()}/{graph_name}.s{SEGMENT}.{TARGET}.onnx"
            save(model, out / file)
            graphs[graph_name] = replace(graph, file=file)
            report[graph_name] = _describe(model)
    if not weights.entries:
        weights.path.unlink()
    stored = {key: replace(entry, file=f"{folder.as_posix()}/{entry.file}") for key, entry in weights.entries.items()}
    return ProgramComponent(graphs, stored), report


def _describe(model: ir.Model) -> dict[str, Any]:
    """What stands in the lowered graph, subgraphs included: nodes by operator, and bytes of weights by dtype."""
    nodes = [
        *model.graph.all_nodes(),
        *(node for function in model.functions.values() for node in function.all_nodes()),
    ]
    operators = Counter(node.op_type if not node.domain else f"{node.domain}.{node.op_type}" for node in nodes)
    stored: Counter[str] = Counter()
    for graph in (model.graph, *model.graph.subgraphs()):
        for initializer in graph.initializers.values():
            assert initializer.const_value is not None
            stored[initializer.const_value.dtype.name.lower()] += initializer.const_value.nbytes
    return {"nodes": dict(sorted(operators.items())), "weight_bytes": dict(sorted(stored.items()))}


def engine_entries(components: Mapping[str, ProgramComponent]) -> list[dict[str, Any]]:
    """The manifest's engine list: which file runs which graph, on what."""
    return [
        {
            "component": name,
            "graph": graph_name,
            "segment": SEGMENT,
            "engine": "onnxruntime",
            "target": TARGET,
            "profile": None,
            "file": graph.file,
        }
        for name, component in sorted(components.items())
        for graph_name, graph in sorted(component.graphs.items())
    ]
