"""What a component's graphs compute, executed on the machine that builds: for engines that cannot be executed here.

The graphs are those that are lowered, in float32 and as the program has them: quantised, where they are. A graph is
executed piece by piece, so that its weights need not fit in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wanc.compiler.engines.compiler import Prober, Probers
from wanc.compiler.engines.onnxruntime.probe import OnnxRuntimeProber
from wanc.compiler.graphs.lowerable import LowerableGraph
from wanc.compiler.host.chain import Chain
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.weights.finite import FiniteCheck

Array = np.ndarray[Any, Any]


class Reference:
    """`graphs` are the component's, as they are lowered; what is executed is written below `folder`, which is made.

    Weights of the names in `allow_not_finite` may hold NaNs and infinities.
    """

    def __init__(
        self,
        files: ComponentFiles,
        graphs: Mapping[str, LowerableGraph],
        folder: Path,
        allow_not_finite: Collection[str] = (),
    ) -> None:
        self._files, self._graphs, self._folder, self._allowed = files, graphs, folder, allow_not_finite
        self._chains: dict[str, Chain] = {}

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """A graph's outputs, by name. Raises what ONNX Runtime raises."""
        (outputs,) = self._chain(graph).run([inputs])
        return outputs

    def prober(self, graph: str) -> Prober:
        """The quantised Linears of a graph, one by one."""
        chain = self._chain(graph)
        return Probers([OnnxRuntimeProber(chain.file(index)) for index in range(len(chain.pieces))])

    def _chain(self, graph: str) -> Chain:
        if graph not in self._chains:
            folder = self._folder / graph
            folder.mkdir(parents=True)
            model, finite = self._graphs[graph].model, FiniteCheck(self._files.name, self._allowed)
            # On one thread, as engines are executed for the record, so that every machine agrees.
            self._chains[graph] = Chain(model.clone(), self._files.weights, folder, finite, threads=1)
        return self._chains[graph]
