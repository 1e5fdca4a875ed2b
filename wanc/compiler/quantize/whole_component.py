"""A program's component as calibration takes it: one graph, and the chain that executes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from wanc.compiler.graphs.whole import whole
from wanc.compiler.host.chain import Chain
from wanc.compiler.program.graph_file import load
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.runtime.denoise import GRAPH


def parts_of(component: ProgramComponent, graphs: Files) -> dict[str, ir.Model]:
    """The graphs of a component by name."""
    return {name: load(graphs[graph.file]) for name, graph in component.graphs.items()}


def chain_of(
    name: str, component: ProgramComponent, graphs: Files, weights: Files, folder: Path, *, taps: Iterable[str] = ()
) -> Chain:
    """A denoiser's whole graph, ready to be executed from `folder`, which is made."""
    folder.mkdir(parents=True)
    return Chain(whole(parts_of(component, graphs), GRAPH), weights, folder, FiniteCheck(name), taps=taps)
