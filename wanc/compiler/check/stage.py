"""The check stage: what was built is compared with the model as it was given.

The golden record is what the engine itself computed, and proves that a target computes the same. That this is right is
proved here: every graph of the source is executed untouched, at the example's sizes and at others, and the engine gives
the same names, dtypes, shapes and values, or the build fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.check.origin import Origin
from wanc.compiler.engines.stage import EngineStage
from wanc.compiler.program.laid_out import laid_out
from wanc.compiler.program.program import CHECK_FILE, FILE, Program
from wanc.compiler.stages.stage import Files, Tree, tool_versions
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    # For types alone: what is compared lies in the program, and its passes only matter where something differs.
    from wanc.compiler.fuse import Fuse


@dataclass(frozen=True)
class CheckBuild(EngineStage):
    """Inputs `engines`, `program`, `exported` and `source`. Result: `check.json`, which the manifest repeats.

    `fuse` says which passes were used, and `allow_not_finite` which tensors may hold NaNs and infinities. Those
    components that are in `quantized` were quantised from the input `fused`.
    """

    name: ClassVar[str] = "check"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml-dtypes")

    origin: Origin
    fuse: Fuse
    allow_not_finite: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()

    def key_document(self, inputs: Mapping[str, Tree]) -> dict[str, Any]:
        document, origin = super().key_document(inputs), self.origin
        tools = {**document["tools"], **tool_versions(origin.tools)}
        return {**document, "origin": origin.name, "origin_code": origin.code, "tools": tools}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.check.component import CheckedComponent

        exported = Program.read(inputs["exported"][FILE])
        engines = {name: path for name, path in inputs["engines"].items() if name.startswith("engines/")}
        source = self.origin.open(inputs, out.parent)
        graphs: dict[str, Any] = {}
        with (
            ProgressBar(self.name, len(exported.components), enabled=progress) as bar,
            laid_out(engines, out.parent) as folder,
        ):
            for name in exported.components:
                component = CheckedComponent.of(self, name, inputs, folder)
                for graph in exported.components[name].graphs:
                    graphs[f"{name}/{graph}"] = component.check(source, graph)
                bar.advance()
        (out / CHECK_FILE).write_bytes(canonical({"mode": "on", "against": source.against, "graphs": graphs}))
