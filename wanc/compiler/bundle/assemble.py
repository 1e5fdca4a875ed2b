"""The engine stage's last action: what was compiled becomes one program, with a golden record and a report.

Everything is read back from what was built: each engine file is executed once, if this machine can execute it, and
what it did is compared with what the program asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wanc.artifacts.canonical import canonical
from wanc.compiler.engines.compiled import FILE as COMPILED
from wanc.compiler.engines.compiled import Compiled, numbered
from wanc.compiler.engines.stage import EngineStage
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.laid_out import laid_out
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program, ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.embedding import copy_embedding, open_embedding
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import RecipeError
from wanc.models.weights import Weight
from wanc.runtime.engine_file import EngineFile
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.progress import ProgressBar
from wanc.runtime.segments import Segments

if TYPE_CHECKING:
    from wanc.compiler.bundle.golden import Arrays, Golden
    from wanc.runtime.model import Model
    from wanc.runtime.text import Tokenizer

EMBEDDING_FILE = "engines/text_encoder/embedding.safetensors"
GOLDEN_PROMPT = "A red circle moves to the left. 一个蓝色的正方形"
"""At which the golden record of a text encoder begins: two scripts, and an end mark."""
OTHER_PROMPTS = (
    "",
    "  Tom &amp;amp; Jerry’s “ﬁne”  caf\u00e9 \t in Zürich…  ",
    "Два синих квадрата вращаются, 3.5 раза! → 赤い丸が左に動く。",
    "a red circle and a blue square " * 100,
)
"""Whose ids alone are recorded: nothing, what is cleaned first, other scripts, and more than is read."""


@dataclass(frozen=True)
class Assemble(EngineStage):
    """Inputs `program`, `exported`, `source`, and every compile action's result. Result: all but the engine files.

    That is `program.json`, the golden record, the report, the QuantTables and the embedding. `tokenizer` names its file
    among the source's; `allow_unfused` are operators whose fused kernel may be missing, `quantized` the components that
    the quantize stage has quantised, and `emulate` lets floats do what the engine has no kernels for in denoisers.
    `zeros` are as in `Compile`.
    """

    name: ClassVar[str] = "engine"
    tools: ClassVar[tuple[str, ...]] = (
        "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes", "tokenizers", "ftfy",
    )  # fmt: skip

    tokenizer: str | None = None
    allow_not_finite: tuple[str, ...] = ()
    allow_unfused: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()
    emulate: bool = False
    zeros: tuple[str, ...] | None = None

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """The embedding: all else is small."""
        embedding = Program.read(inputs["program"][FILE]).embedding
        return embedding.length if embedding else 0

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.bundle.golden import Golden

        program, golden = Program.read(inputs["program"][FILE]), Golden()
        compiled = [Compiled.read(files[COMPILED]) for files in inputs.values() if COMPILED in files]
        finite = FiniteCheck("text_encoder", self.allow_not_finite, zeros=self.zeros)
        embedding = program.embedding and _own_embedding(program, inputs["source"], out, finite)
        self._check_allowed({*finite.found, *(name for entry in compiled for name in entry.not_finite)})
        engines = {
            name: path for files in inputs.values() for name, path in files.items() if name.startswith("engines/")
        }
        described: dict[str, dict[str, Any]] = {}
        components: dict[str, ProgramComponent] = {}
        with (
            ProgressBar(self.name, len(program.components), enabled=progress) as bar,
            laid_out(engines, out.parent) as folder,
        ):
            for name in program.components:
                own = [entry for entry in compiled if any(file.component == name for file in entry.files)]
                given = self._given(name, program, inputs["source"])
                files = ComponentFiles.read(name, inputs)
                for target, found in self._examine(files, own, folder, given, golden, out).items():
                    described.setdefault(target, {})[name] = found
                components[name] = _component(program.components[name], own)
                bar.advance()
        golden.write(out)
        self._write_prompts(program, inputs["source"], out)
        files = numbered(file for entry in compiled for file in entry.files)
        check_order(components, files)
        replace(program, components=components, embedding=embedding, embedding_twin=None, engines=files).write(out)
        (out / ENGINE_REPORT).write_bytes(canonical(self._report(described)))

    def _report(self, described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The components as they are for the first target, and beside them as they are for the others."""
        first, *others = described
        report = {"engine": self.engine.name, "version": self.engine.version, "components": described[first]}
        more = {"target": first, "others": {target: described[target] for target in others}} if others else {}
        return {**report, **more}

    def _examine(
        self,
        files: ComponentFiles,
        compiled: list[Compiled],
        folder: Path,
        given: Mapping[str, Arrays],
        golden: Golden,
        out: Path,
    ) -> dict[str, dict[str, Any]]:
        """What each target's engines are. Those of the first one are executed, or the host in their place."""
        from wanc.compiler.bundle.examine import examine

        by_target: dict[str, list[Compiled]] = {}
        for entry in compiled:
            by_target.setdefault(entry.files[0].target, []).append(entry)
        first, *others = by_target
        compiler = self.engine.compiler(first)
        examined = examine(compiler, files, by_target[first], folder, given, golden, self.allow_not_finite)
        all_of_them = {
            first: examined,
            **{name: examined.for_target(self.engine.compiler(name), by_target[name]) for name in others},
        }
        is_quantized = files.name in self.quantized
        is_emulated = self.emulate and files.name in (HIGH, LOW)  # all schemes of others have kernels
        for entry in all_of_them.values():
            if is_quantized and not is_emulated:
                entry.check_numbers()
            entry.check_fused(self.allow_unfused)
        if is_quantized:
            examined.check_exact().write(out)
        return {target: entry.report() for target, entry in all_of_them.items()}

    def _given(self, component: str, program: Program, source: Files) -> dict[str, Arrays]:
        """The golden inputs of a text encoder: those of a prompt. What others begin with is noise."""
        import numpy as np

        from wanc.runtime.encode import COMPONENT, GRAPH
        from wanc.runtime.text import clean_prompt

        if component != COMPONENT or self.tokenizer is None or program.embedding is None or program.model is None:
            return {}
        ids = self._open_tokenizer(program.model, source).encode(clean_prompt(GOLDEN_PROMPT))
        rows = open_embedding(program.embedding, source).gather(ids)
        return {GRAPH: {"embeddings": rows[None], "mask": np.ones((1, len(ids)), np.int64)}}

    def _write_prompts(self, program: Program, source: Files, out: Path) -> None:
        """The record of what comes before that: the ids of prompts."""
        from wanc.runtime.golden_prompts import GoldenPrompt, write_prompts

        if self.tokenizer is None or program.model is None:
            return
        tokenizer = self._open_tokenizer(program.model, source)
        write_prompts([GoldenPrompt.record(prompt, tokenizer) for prompt in (GOLDEN_PROMPT, *OTHER_PROMPTS)], out)

    def _open_tokenizer(self, model: Model, source: Files) -> Tokenizer:
        from wanc.runtime.text import Tokenizer

        assert self.tokenizer is not None, "a text-to-video model has a tokenizer"
        return Tokenizer.open(source[self.tokenizer].parent, model.text_length)

    def _check_allowed(self, found: Iterable[str]) -> None:
        """A name that allows nothing is misspelt, or left over from a checkpoint that was damaged."""
        if unused := [name for name in self.allow_not_finite if name not in set(found)]:
            raise RecipeError(
                f"model.allow_not_finite names {unused[0]}, which is no tensor, or one whose values all are finite",
                hint="remove it, or look with wanc inspect what the weights are called",
            )


def check_order(components: Mapping[str, ProgramComponent], files: Iterable[EngineFile]) -> None:
    """That no execution can wait for itself, on whichever devices segments lie and in whichever order they are asked.

    A worker executes what lies in its queue and waits for no other, and nothing lies there before all that it takes is
    given. So one waits for those in front of it, which wait for nothing else, and for earlier segments: which is no
    circle as long as segments take what earlier ones give alone. `Segments.of` raises BundleError where one does not.
    """
    by_graph: dict[tuple[str, str, str, str | None], list[EngineFile]] = {}
    for file in files:
        by_graph.setdefault((file.component, file.graph, file.target, file.profile), []).append(file)
    for (component, graph, *_), own in by_graph.items():
        Segments.of(components[component].interfaces[graph], own, f"{component}/{graph}")


def _component(canonical: ProgramComponent, compiled: Iterable[Compiled]) -> ProgramComponent:
    """A component as the bundle has it; weights that several segments have are told apart by their files."""
    graphs, weights = {}, dict[str, Weight]()
    for entry in compiled:
        graphs = entry.graphs
        for name, weight in entry.weights.items():
            known = weights.get(name)
            weights[name if known in (None, weight) else f"{name}@{weight.file}"] = weight
    return replace(canonical, graphs=graphs, weights=weights)


def _own_embedding(program: Program, source: Files, out: Path, finite: FiniteCheck) -> Weight:
    assert program.embedding is not None, "only a text-to-video program has one"
    (out / EMBEDDING_FILE).parent.mkdir(parents=True)
    copied = copy_embedding(program.embedding, source, out / EMBEDDING_FILE, finite, program.embedding_twin)
    return replace(copied, file=EMBEDDING_FILE)
