"""The engine stage's compile actions: one for each segment of a component, whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.lowered_graph import InputShapes
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.stage import Files, Stage, Tree, tool_versions
from wanc.compiler.weights.finite import FiniteCheck
from wanc.runtime.progress import ProgressBar


@dataclass(frozen=True)
class EngineStage(Stage):
    """A stage that works with an engine: its key covers that engine's code and tools, and no other's."""

    engine: Engine

    def key_document(self, inputs: Mapping[str, Tree]) -> dict[str, Any]:
        document, engine = super().key_document(inputs), self.engine
        tools = {**document["tools"], **tool_versions(engine.tools, engine.extra)}
        return {**document, "engine": engine.name, "engine_code": engine.code, "tools": tools}


@dataclass(frozen=True)
class Compile(EngineStage):
    """Inputs `program`, `exported` and `source`, as far as they are about one component. Result: a segment's engines.

    They lie as in the bundle, `engines/<component>/…`, beside `compiled.json`. `target` is what they are compiled for;
    `allow_not_finite` names tensors that may hold NaNs and infinities, `zeros` those of a checkpoint that may be
    nothing but zeros; None where the model is no checkpoint. `requests` say which shapes inputs have, for an engine
    that takes no others, and where memory is counted.
    """

    name: ClassVar[str] = "compile"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "numpy", "ml-dtypes")

    segment: Segment
    target: str
    allow_not_finite: tuple[str, ...] = ()
    zeros: tuple[str, ...] | None = None
    requests: tuple[InputShapes, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name} {self.segment.component}/{self.segment.index}"

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """For a whole component; of one that is cut nothing is said."""
        from wanc.compiler.program.disk_use import executed_bytes, with_others

        files = ComponentFiles.read(self.segment.component, inputs)
        if (self.segment.first, self.segment.stop) != (0, len(files.component.blocks)):
            return 0
        return with_others(self.engine.copies(len(files.component.graphs)) * executed_bytes(files))

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.engines.segment import compile_segment

        component = self.segment.component
        files = ComponentFiles.read(component, inputs)
        finite = FiniteCheck(component, self.allow_not_finite, zeros=self.zeros)
        with ProgressBar(self.label, 1, enabled=progress) as bar:
            compiler = self.engine.compiler(self.target)
            compiled = compile_segment(compiler, files, self.segment, self.target, out, finite, self.requests)
            compiled.write(out)
            bar.advance()
