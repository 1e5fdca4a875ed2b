"""What one component became, read back from its engine files: executed once, counted, and compared with the program."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from wanc.compiler.bundle.built_graph import BuiltGraph
from wanc.compiler.bundle.golden import Arrays, Golden
from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.kernels import Kernels, check_fused, describe
from wanc.compiler.engines.quantization_check import (
    QuantizedComponent,
    check_attentions,
    check_linears,
    check_named,
    check_products,
    check_rounded,
)
from wanc.compiler.graphs.by_blocks import block_ends
from wanc.compiler.graphs.lowerable import LowerableGraph, lowerable
from wanc.compiler.host.reference import Reference
from wanc.compiler.passes.apply import joined_reports
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.quant_table import QuantTable
from wanc.runtime.engine_file import EngineFile


@dataclass(frozen=True)
class Examined:
    """A component's graphs by name: as they are lowered, as they were built, with which kernels, and executed by whom.

    `here` are those that this machine has executed; the host has executed the others in their place.
    """

    compiler: Compiler
    files: ComponentFiles
    graphs: Mapping[str, LowerableGraph]
    built: Mapping[str, BuiltGraph]
    kernels: Mapping[str, Kernels]
    here: frozenset[str]
    lowerings: Mapping[str, Sequence[Mapping[str, Any]]]

    def check_fused(self, allowed: Iterable[str]) -> None:
        """Raises UserError where a fused kernel is missing that is not `allowed` to be."""
        for graph, entry in self.graphs.items():
            where = f"{self.files.name}/{graph}"
            check_fused(where, entry.model, self.kernels[graph], allowed, self.compiler.has_kernel)

    def check_numbers(self) -> None:
        """Raises UserError where a product is not in the numbers that the quantize stage decided on."""
        for graph, entry in self.graphs.items():
            where, kernels = f"{self.files.name}/{graph}", self.kernels[graph]
            if kernels.linears is not None:
                check_named(where, entry.model, kernels.linears)
                check_attentions(where, entry.model, kernels.attentions)
            check_products(where, entry.model, entry.graph.example, kernels.products)

    def check_exact(self) -> QuantTable:
        """Compare what was built with what the quantize stage decided; its table goes into the bundle.

        Raises UserError where exactness is missing.
        """
        of = QuantizedComponent.read(self.files.name, self.files.graphs)
        models = {graph: entry.model for graph, entry in self.graphs.items()}
        check_linears(self.files.name, models, {graph: entry.prober() for graph, entry in self.built.items()}, of)
        check_rounded(self.files.name, models.values(), of.table)
        return of.table

    def for_target(self, compiler: Compiler, compiled: Sequence[Compiled]) -> Examined:
        """The same component as it was built for another target, which this machine cannot execute."""
        built = {
            name: replace(entry, compiler=compiler, files=_files(compiled, name)) for name, entry in self.built.items()
        }
        kernels = {name: entry.kernels() for name, entry in built.items()}
        lowerings = {name: _lowerings(compiled, name) for name in self.graphs}
        return replace(self, compiler=compiler, built=built, kernels=kernels, here=frozenset(), lowerings=lowerings)

    def report(self) -> dict[str, Any]:
        """Every graph's kernels, and what lowering did to its segments together."""
        return {
            graph: {
                **joined_reports(self.lowerings[graph]),
                **describe(self.kernels[graph], entry.size),
                "executed": graph in self.here,
                **({"block_ends": ends} if (ends := self._block_ends(graph)) else {}),
            }
            for graph, entry in self.built.items()
        }

    def _block_ends(self, graph: str) -> list[str]:
        """Where whoever looks for a fault finds what goes from block to block."""
        return block_ends(self.graphs[graph].model, self.files.component.blocks)


def examine(
    compiler: Compiler,
    files: ComponentFiles,
    compiled: Sequence[Compiled],
    folder: Path,
    given: Mapping[str, Arrays],
    golden: Golden,
    allow_not_finite: Collection[str] = (),
) -> Examined:
    """Execute every graph of a component for the golden record, and read back what was built.

    `folder` has the engine files as the bundle has them, `given` the inputs of graphs that do not begin with noise.
    Raises CheckpointError where the engine does not take a graph, RecipeError where it does not run at the example's
    sizes.
    """
    graphs = lowerable(files)

    @cache
    def reference() -> Reference:
        return Reference(files, graphs, folder / "reference" / files.name, allow_not_finite)

    built = {
        name: BuiltGraph(compiler, entry.graph, _files(compiled, name), folder, reference)
        for name, entry in graphs.items()
    }
    kernels: dict[str, Kernels] = {}
    here: set[str] = set()

    def execute(name: str, inputs: Arrays) -> Arrays:
        outputs = built[name].run(inputs)
        kernels[name] = built[name].kernels()
        here.update({name} if built[name].runs_here else ())
        built[name].close()
        return outputs

    golden.record(files.name, {name: entry.graph for name, entry in graphs.items()}, given, execute)
    for name, entry in kernels.items():
        golden.tolerate(files.name, name, entry.precision)
    lowerings = {name: _lowerings(compiled, name) for name in graphs}
    return Examined(compiler, files, graphs, built, kernels, frozenset(here), lowerings)


def _lowerings(compiled: Iterable[Compiled], graph: str) -> list[Mapping[str, Any]]:
    return [entry.lowered[graph] for entry in compiled if graph in entry.lowered]


def _files(compiled: Iterable[Compiled], graph: str) -> list[EngineFile]:
    found = [file for entry in compiled for file in entry.files if file.graph == graph]
    return sorted(found, key=lambda file: file.segment)
