"""The engine stage: the program's graphs → files that an engine runs, with golden inputs and a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.embedding import copy_embedding
from wanc.compiler.finite import FiniteCheck
from wanc.compiler.program import FILE, Program, ProgramComponent
from wanc.compiler.stage import Files, Stage, tool_version
from wanc.errors import RecipeError
from wanc.models.weights import Weight
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
    allow_not_finite: tuple[str, ...] = ()

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.engines.onnxruntime import compile_component
        from wanc.compiler.golden import write_golden

        program = Program.read(inputs["program"][FILE])
        checks = {name: FiniteCheck(name, self.allow_not_finite) for name in program.components}
        report: dict[str, Any] = {"engine": self.kind, "version": tool_version("onnxruntime"), "components": {}}
        components: dict[str, ProgramComponent] = {}
        with ProgressBar(self.name, len(program.components), enabled=progress) as bar:
            for name, component in program.components.items():
                components[name], report["components"][name] = compile_component(
                    name, component, inputs["program"], inputs["source"], out, checks[name]
                )
                bar.advance()
        embedding = program.embedding and _own_embedding(program.embedding, inputs["source"], out, checks)
        self._check_allowed(checks.values())
        write_golden(components, out)
        replace(program, components=components, embedding=embedding).write(out)
        (out / REPORT_FILE).write_bytes(canonical(report))

    def _check_allowed(self, checks: Iterable[FiniteCheck]) -> None:
        """A name that allows nothing is misspelt, or left over from a checkpoint that was damaged."""
        found = {name for check in checks for name in check.found}
        if unused := [name for name in self.allow_not_finite if name not in found]:
            raise RecipeError(
                f"model.allow_not_finite names {unused[0]}, which is no tensor, or one whose values all are finite",
                hint="remove it, or look with wanc inspect what the weights are called",
            )


def _own_embedding(embedding: Weight, source: Files, out: Path, checks: Mapping[str, FiniteCheck]) -> Weight:
    copied = copy_embedding(embedding, source, out / EMBEDDING_FILE, checks["text_encoder"])
    return replace(copied, file=EMBEDDING_FILE)
