"""The engine stage: the program's graphs → files that an engine runs, with golden inputs and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.embedding import copy_embedding
from wanc.compiler.program import FILE, Program, ProgramComponent
from wanc.compiler.stage import Files, Stage, tool_version
from wanc.runtime.progress import ProgressBar

EMBEDDING_FILE = "engines/text_encoder/embedding.safetensors"
REPORT_FILE = "engine_report.json"


@dataclass(frozen=True)
class Engine(Stage):
    """Inputs `program` and `source`. Result: what the bundle ships of the model, laid out as in the bundle."""

    name: ClassVar[str] = "engine"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml-dtypes")

    kind: str
    targets: tuple[str, ...]

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.engines.onnxruntime import compile_component
        from wanc.compiler.golden import write_golden

        program = Program.read(inputs["program"][FILE])
        report: dict[str, Any] = {"engine": self.kind, "version": tool_version("onnxruntime"), "components": {}}
        components: dict[str, ProgramComponent] = {}
        with ProgressBar(self.name, len(program.components), enabled=progress) as bar:
            for name, component in program.components.items():
                components[name], report["components"][name] = compile_component(
                    name, component, inputs["program"], inputs["source"], out
                )
                bar.advance()
        write_golden(components, out)
        embedding = copy_embedding(program.embedding, inputs["source"], out / EMBEDDING_FILE)
        replace(program, components=components, embedding=replace(embedding, file=EMBEDDING_FILE)).write(out)
        (out / REPORT_FILE).write_bytes(canonical(report))
