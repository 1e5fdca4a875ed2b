"""A program: its components with their graphs and weights, from `program.json` and the `.onnx` files that it names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wanc.artifacts.files import hash_file
from wanc.compiler.program.program import ENGINE_REPORT, Program, ProgramGraph
from wanc.errors import BundleError
from wanc.inspection.engine_report import kernels_of, read_report
from wanc.inspection.graph import describe_model
from wanc.inspection.small_file import read_json
from wanc.inspection.tensors import tally
from wanc.runtime.engine_file import ON_TARGET
from wanc.runtime.manifest import check_paths
from wanc.runtime.strict_json import Fields

Locate = Callable[[str], Path | None]
"""Where the file lies that a program calls by this name, if it is there."""


def describe_program(path: Path) -> dict[str, Any]:
    """A `program.json` with the graphs that lie beside it. Raises UserError where something is damaged."""
    document = {"kind": "program", "path": str(path), "size": path.stat().st_size, "digest": hash_file(path)[0]}
    return {**document, **describe_content(path, beside(path.parent))}


def describe_content(path: Path, locate: Locate) -> dict[str, Any]:
    """What a `program.json` says, but for its own name. Raises UserError where it, or one of its graphs, is damaged."""
    raw = read_json(path)
    try:
        program = Program.read(path)
        graphs = [graph for part in program.components.values() for graph in part.graphs.values()]
        check_paths(
            [*(graph.file for graph in graphs if graph.file), *(file.file for file in program.engines)], where=str(path)
        )
        report = read_report(locate(ENGINE_REPORT))
        components = {name: _component(program, raw, name, locate, report) for name in program.components}
        table = program.embedding
        embedding = {"file": table.file, "weights": tally([(table.dtype, table.shape)])} if table else None
    except ValueError as error:
        raise BundleError("is a damaged program", where=str(path)) from error
    return {
        "schema": program.schema,
        "task": program.task,
        "model": raw.get("model"),
        "components": components,
        "embedding": embedding,
    }


def beside(folder: Path) -> Locate:
    """Files below a folder."""

    def locate(name: str) -> Path | None:
        path = folder / name
        return path if os.path.isfile(path) else None

    return locate


def _component(
    program: Program, raw: Mapping[str, Any], name: str, locate: Locate, report: Fields | None
) -> dict[str, Any]:
    part, described = program.components[name], raw["components"][name]["graphs"]
    return {
        "graphs": {
            graph: {
                **_graph(entry, _files(program, name, graph), described[graph], locate),
                **kernels_of(report, name, graph),
            }
            for graph, entry in part.graphs.items()
        },
        "weights": tally((weight.dtype, weight.shape) for weight in part.weights.values()),
    }


def _files(program: Program, component: str, graph: str) -> dict[str, bool]:
    """The files that a graph lies in, and whether each is ONNX: its own, or what an engine has made of its segments."""
    own = program.components[component].graphs[graph].file
    if own is not None:
        return {own: not own.endswith(".xml")}
    files = program.files_of(component, graph)
    return {file.file: file.engine == "onnxruntime" or file.built == ON_TARGET for file in files}


def _graph(
    entry: ProgramGraph, files: Mapping[str, bool], described: Mapping[str, Any], locate: Locate
) -> dict[str, Any]:
    """The interface as the program declares it; the rest from the files, or None where there are none.

    The file's weights are those that the program refers to, and the small constants that stayed inside the graph.
    Nothing here looks into files that are not ONNX.
    """
    found = {path: is_onnx for file, is_onnx in files.items() if (path := locate(file))}
    models = [describe_model(path) for path, is_onnx in found.items() if is_onnx]
    # Of a graph in several segments the first one stands for all, except where there is something to count.
    model = models[0] if models else {}
    return {
        "file": next(iter(files), None),
        "segments": len(files),
        "size": sum(path.stat().st_size for path in found) if found else None,
        "inputs": [
            {"dtype": value.dtype, **written} for value, written in zip(entry.inputs, described["inputs"], strict=True)
        ],
        "outputs": [
            {"dtype": value.dtype, **written}
            for value, written in zip(entry.outputs, described["outputs"], strict=True)
        ],
        "example": described["example"],
        "opsets": model.get("opsets"),
        "nodes": sum(entry["nodes"] for entry in models) if models else None,
        "operators": dict(sorted(sum((Counter(entry["operators"]) for entry in models), Counter()).items())) or None,
        "weights": model.get("weights") if len(models) == 1 else None,
    }
