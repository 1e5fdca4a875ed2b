"""Building the engines of a bundle's lowered graphs with the GPU of this machine, and what was built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.tensorrt.asked import asked_kernels, check_built
from wanc.compiler.engines.tensorrt.building import BuildTask
from wanc.compiler.engines.tensorrt.comparison import Comparison
from wanc.compiler.engines.tensorrt.log import parse_log
from wanc.compiler.engines.tensorrt.on_target import BuildSettings
from wanc.compiler.engines.tensorrt.process import build_in_process
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.on_target.gpus import TargetGpu
from wanc.compiler.on_target.parent import BUILDERS, Parent
from wanc.compiler.program.graph_file import load
from wanc.errors import EXIT_REFUSED, OutputError, UserError
from wanc.runtime.engine_file import EngineFile

SUFFIX = ".engine"


@dataclass(frozen=True)
class BuiltEngine:
    """An engine file, named as the child has it, where it lies, its kernels, and how near it is to its graph."""

    name: str
    path: Path
    kernels: Kernels
    comparison: Comparison


@dataclass(frozen=True)
class Allowed:
    """Operators that may be built in pieces, and how far a graph's outputs may be from what is expected of it."""

    unfused: tuple[str, ...]
    tolerance: float


def build_engine(parent: Parent, file: EngineFile, gpu: TargetGpu, allowed: Allowed, scratch: Path) -> BuiltEngine:
    """Build one engine below `scratch`.

    Raises UserError where the library is missing, of another version, or out of memory, where its process dies, or
    where it has built something else than the graph asks for; CheckpointError where it does not take the graph,
    OutputError where the engine cannot be written, VerificationError where the parent is changed meanwhile.
    """
    return parent.folder.read(file.file, lambda graph: _built(graph.resolve(), file, gpu, allowed, scratch))


def check_near(where: str, comparison: Comparison, tolerance: float) -> None:
    """Raises UserError, with the exit code of a gate that said no, where an engine is too far from its graph."""
    for output, error in comparison.errors.items():
        if not error <= tolerance:
            raise UserError(
                f"{where}: the output {output} is {error:.1e} from what the graph gives, and may be {tolerance:.0e}",
                hint="this is a fault of the compiler or of the library, not of the recipe: tell us",
                exit_code=EXIT_REFUSED,
            )


def _built(graph: Path, file: EngineFile, gpu: TargetGpu, allowed: Allowed, scratch: Path) -> BuiltEngine:
    where = f"{file.component}/{file.graph}" + (f", segment {file.segment}" if file.segment else "")
    name = str(Path(file.file).with_suffix(SUFFIX))
    engine = scratch / name
    engine.parent.mkdir(parents=True, exist_ok=True)
    model, settings = load(graph), BuildSettings.read(graph, str(graph))
    task = BuildTask(
        str(graph), str(engine), file.target, settings.profiles, settings.values, settings.weight_streaming
    )
    try:
        outcome = build_in_process(BUILDERS[file.engine], task, where, file.engine, gpu.variables)
    except OutputError as error:
        error.where = str(scratch.parent)  # the folder itself will be gone
        raise
    try:
        log = parse_log(outcome.messages)
    except ValueError as error:
        hint = "this is a fault of wanc, or of the library's version: tell us"
        raise UserError(
            f"{where}: what {file.engine} has built cannot be told", hint=hint, exit_code=EXIT_REFUSED
        ) from error
    kernels = BuildReport.of(log, model, settings.example).as_kernels
    check_built(where, asked_kernels(model, settings.example), kernels, allowed.unfused)
    comparison = outcome.comparison or Comparison()
    check_near(where, comparison, allowed.tolerance)
    return BuiltEngine(name, engine, kernels, comparison)
