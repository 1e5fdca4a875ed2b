"""An ONNX file as it was given, executed as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.check.origin import Origin
from wanc.compiler.stages.stage import Files

if TYPE_CHECKING:
    from wanc.compiler.check.asked import Asked
    from wanc.compiler.check.trials import Arrays, Refused, Source, Trial


@dataclass(frozen=True)
class OnnxOrigin(Origin):
    """The file itself: nothing of what the export made of it is read."""

    name: ClassVar[str] = "onnx"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")

    def open(self, inputs: Mapping[str, Files], scratch: Path) -> Source:
        from wanc.models.onnx_file import MODEL

        del scratch
        return OnnxSource(inputs["source"][MODEL])


class OnnxSource:
    """Executed by onnxruntime, or where that has no kernels for it by onnx's reference implementation."""

    def __init__(self, path: Path) -> None:
        from wanc.compiler.check.plain import NOT_OPTIMISED, REFERENCE, PlainGraph, ReferenceGraph
        from wanc.compiler.check.trials import NoKernel

        self._path = path
        try:
            self._graph, self.against = PlainGraph(path), NOT_OPTIMISED
        except NoKernel:
            self._graph, self.against = ReferenceGraph(path), REFERENCE

    def trials(self, component: str, graph: str, asked: Asked) -> Iterator[Trial | Refused]:
        """As `Source.trials`: the file is the one graph of its program."""
        from wanc.compiler.check.trials import attempt

        del component, graph
        return attempt(self, asked)

    def run(self, inputs: Arrays) -> Arrays:
        """As `Untouched.run`."""
        return self._graph.run(inputs)

    def run_moved(self, inputs: Arrays) -> Arrays:
        """As `Untouched.run_moved`; the reference keeps its weights."""
        from wanc.compiler.check.moved import moved, moved_weights
        from wanc.compiler.check.plain import PlainGraph

        if isinstance(self._graph, PlainGraph):
            return PlainGraph(self._path, moved_weights(self._path)).run(moved(inputs))
        return self._graph.run(moved(inputs))
