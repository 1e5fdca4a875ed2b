"""The engine stage: the program's graphs → files that an engine runs, with golden inputs and a report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from wanc.artifacts.canonical import canonical
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program, ProgramComponent, weight_files
from wanc.compiler.stages.stage import Files, Stage, tool_version
from wanc.compiler.weights.embedding import copy_embedding
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import RecipeError
from wanc.models.weights import Weight
from wanc.recipe.schema import Island
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from wanc.compiler.engines.kernels import Kernels
    from wanc.compiler.engines.lowering import CompiledComponent
    from wanc.compiler.engines.quantization_check import Prober
    from wanc.runtime.backends.base import Backend

EMBEDDING_FILE = "engines/text_encoder/embedding.safetensors"


class Compiler(Protocol):
    """What an engine does at build time."""

    def compile_component(
        self, name: str, component: ProgramComponent, graphs: Files, weights: Files, out: Path, finite: FiniteCheck
    ) -> CompiledComponent:
        """Lower every graph of a component into `out/engines/<name>/`; `weights` locates what external tensors name.

        Returns the component as it now is: its files relative to `out`, its weights in the engine's own file. Raises
        CheckpointError where `finite` refuses the values of a weight.
        """
        ...

    def open(self, path: Path) -> Backend:
        """An engine file, opened so that `kernels` can tell what is executed. One thread, so that every machine agrees.

        Raises what the engine's library raises.
        """
        ...

    def kernels(self, backend: Backend) -> Kernels:
        """What was really built, after one execution."""
        ...

    def prober(self, path: Path) -> Prober:
        """The quantised Linears of an engine file, to be executed one by one."""
        ...


@dataclass(frozen=True)
class Engine(Stage):
    """Inputs `program`, `exported` and `source`. Result: what the bundle ships of the model, laid out as in the bundle.

    `allow_unfused` names operators whose fused kernel may be missing, `quantized` the components that the quantize
    stage has quantised, and `emulate` lets floats do what the engine has no integer kernels for.
    """

    name: ClassVar[str] = "engine"
    kind: ClassVar[str]

    targets: tuple[str, ...]
    allow_not_finite: tuple[str, ...] = ()
    allow_unfused: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()
    emulate: bool = False

    @abstractmethod
    def compiler(self) -> Compiler:
        """The engine, imported when it is needed."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.engines.golden import write_golden
        from wanc.compiler.engines.kernels import check_fused, describe

        program, compiler = Program.read(inputs["program"][FILE]), self.compiler()
        weights = weight_files({**inputs["exported"], **inputs["program"]}, inputs["source"])
        checks = {name: FiniteCheck(name, self.allow_not_finite) for name in program.components}
        components: dict[str, CompiledComponent] = {}
        with ProgressBar(self.name, len(program.components), enabled=progress) as bar:
            for name, component in program.components.items():
                components[name] = compiler.compile_component(
                    name, component, inputs["program"], weights, out, checks[name]
                )
                bar.advance()
        embedding = program.embedding and _own_embedding(program.embedding, inputs["source"], out, checks)
        self._check_allowed(checks.values())
        executed = write_golden(components, out, compiler)
        for name in self.quantized:
            self._check_quantized(name, program.components[name], components[name], inputs["program"], out, executed)
        report: dict[str, Any] = {"engine": self.kind, "version": tool_version(self.kind), "components": {}}
        for name, component in program.components.items():
            for graph_name, graph in component.graphs.items():
                kernels = executed[name, graph_name]
                check_fused(f"{name}/{graph_name}", inputs["program"][graph.file], kernels, self.allow_unfused)
                described = describe(kernels, out / components[name].graphs[graph_name].file)
                lowering = components[name].lowering[graph_name]
                report["components"].setdefault(name, {})[graph_name] = {**lowering, **described}
        built = {name: ProgramComponent(entry.graphs, entry.weights) for name, entry in components.items()}
        replace(program, components=built, embedding=embedding).write(out)
        (out / ENGINE_REPORT).write_bytes(canonical(report))

    def _check_quantized(
        self,
        name: str,
        canonical: ProgramComponent,
        built: ProgramComponent,
        files: Files,
        out: Path,
        executed: Mapping[tuple[str, str], Kernels],
    ) -> None:
        """Compare what was built with what the quantize stage decided, whose table goes into the bundle."""
        from wanc.compiler.engines.quantization_check import QuantizedComponent, check_linears, check_products

        of = QuantizedComponent.read(name, files)
        graphs = {graph: files[entry.file] for graph, entry in canonical.graphs.items()}
        if not self.emulate:
            for graph, path in graphs.items():
                products = executed[name, graph].products
                check_products(f"{name}/{graph}", path, canonical.graphs[graph].example, products)
        probers = {graph: self.compiler().prober(out / entry.file) for graph, entry in built.graphs.items()}
        check_linears(name, graphs, probers, of)
        of.table.write(out)

    def _check_allowed(self, checks: Iterable[FiniteCheck]) -> None:
        """A name that allows nothing is misspelt, or left over from a checkpoint that was damaged."""
        found = {name for check in checks for name in check.found}
        if unused := [name for name in self.allow_not_finite if name not in found]:
            raise RecipeError(
                f"model.allow_not_finite names {unused[0]}, which is no tensor, or one whose values all are finite",
                hint="remove it, or look with wanc inspect what the weights are called",
            )


@dataclass(frozen=True)
class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on a CPU, float32."""

    kind: ClassVar[str] = "onnxruntime"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes")

    def compiler(self) -> Compiler:
        from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler

        return OnnxRuntimeCompiler()


@dataclass(frozen=True)
class OpenVinoEngine(Engine):
    """OpenVINO on a CPU, in float32 or with products in bfloat16 between islands of float32."""

    kind: ClassVar[str] = "openvino"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "openvino", "numpy", "ml-dtypes")

    compute: str = "fp32"
    islands: tuple[Island, ...] = ()

    def compiler(self) -> Compiler:
        from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler

        return OpenVinoCompiler(self.compute, self.islands)


def _own_embedding(embedding: Weight, source: Files, out: Path, checks: Mapping[str, FiniteCheck]) -> Weight:
    copied = copy_embedding(embedding, source, out / EMBEDDING_FILE, checks["text_encoder"])
    return replace(copied, file=EMBEDDING_FILE)
