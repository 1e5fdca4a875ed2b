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
    """Raises NoKernel where neither library can execute the file."""

    def __init__(self, path: Path) -> None:
        from wanc.compiler.check.plain import NOT_OPTIMISED, PlainGraph

        self.against = NOT_OPTIMISED
        self._path, self._graph = path, PlainGraph(path)

    def trials(self, component: str, graph: str, asked: Asked) -> Iterator[Trial | Refused]:
        """As `Source.trials`: the file is the one graph of its program."""
        from wanc.compiler.check.trials import attempt

        del component, graph
        return attempt(self, asked)

    def run(self, inputs: Arrays) -> Arrays:
        return self._graph.run(inputs)

    def run_moved(self, inputs: Arrays) -> Arrays:
        from wanc.compiler.check.moved import moved, moved_weights
        from wanc.compiler.check.plain import PlainGraph

        return PlainGraph(self._path, moved_weights(self._path)).run(moved(inputs))
