"""The compiler, top to bottom: a recipe becomes a bundle.

resolve    the recipe, the files of its model and all defaults → the lock
export     the model → graphs in standard ONNX, weights by reference
fuse       graphs → canonical form, tagged with what is known before a step
quantize   text encoder, denoisers → the same in fewer bits, as real prompts and trajectories have it
partition  which blocks run where; so far on one device
engine     graphs, cut → files that an engine runs, one compile action for each segment (see `engine_stages`)
check      what the engine gives, compared with what the untouched model gives (see `check.stage`)
tables     what a video recipe's timesteps give, computed by those
seal       everything that ships → the bundle
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.refs import recipe_of, ref_of
from wanc.artifacts.seal import check_destination
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import DamagedBlobError, Store
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.engine_stages import EngineStages
from wanc.compiler.bundle.input_shapes import input_shapes
from wanc.compiler.bundle.lock import lock_of
from wanc.compiler.bundle.memory import MemoryPlan
from wanc.compiler.bundle.seal import Seal, created, requirements
from wanc.compiler.bundle.standing import check_owner, id_at, recipe_names
from wanc.compiler.bundle.tables import Tables
from wanc.compiler.check.onnx_source import OnnxOrigin
from wanc.compiler.check.origin import Origin
from wanc.compiler.check.stage import CheckBuild
from wanc.compiler.check.torch_source import TorchOrigin
from wanc.compiler.check.wan_source import WanOrigin
from wanc.compiler.engines.distributions import NOT_BUILT_WITH, PINNED
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.stage import Compile
from wanc.compiler.engines.tensorrt.engine import TensorRtEngine
from wanc.compiler.engines.tensorrt_rtx.engine import TensorRtRtxEngine
from wanc.compiler.executor import IN_PROCESS, runner_of
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.export.torch_module import ExportTorch, TorchInput
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.partition import Partition
from wanc.compiler.placement import check_peak, placement, planned_placement, whole_model
from wanc.compiler.planner.recipe_plan import plan_recipe, recipe_costs
from wanc.compiler.program.program import Placement
from wanc.compiler.quantize.experts import QuantizeStages, quantized_components
from wanc.compiler.resolve import Resolved, resolve
from wanc.compiler.stages.runner import OnEnd, Runner, StageRun
from wanc.compiler.stages.running import Action, Run, RunAll, in_turn
from wanc.compiler.stages.stage import Stage, Tree, tool_version
from wanc.compiler.stages.worker import CrashError
from wanc.compiler.within_budget import WithinBudget, within_budget
from wanc.errors import EXIT_UNAVAILABLE, RecipeError, UserError
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.model import KINDS
from wanc.runtime.cache_facts import CLEAN
from wanc.runtime.manifest import Manifest
from wanc.runtime.solvers.create import create_schedule
from wanc.runtime.tiling import Tiling
from wanc.runtime.voice import explain, say
from wanc.words import CPU

HOST = "onnxruntime"
"""What every build executes graphs with, whatever its engine is."""
GPU = "gpu0"
"""What the device is called that engines for GPUs are placed on."""


@dataclass(frozen=True)
class BuildResult:
    """What a build made."""

    bundle: Path
    id: str
    stages: tuple[StageRun, ...]

    def as_json(self) -> dict[str, Any]:
        stages = [run.as_json() for run in self.stages]
        return {"bundle": str(self.bundle), "id": self.id, "stages": stages, "report": None}


@dataclass(frozen=True)
class BuildPlan:
    """The stages of a build with their inputs, ready to be looked up or run."""

    resolved: Resolved
    export: Stage
    fuse: Fuse
    quantization: QuantizeStages | None
    partition: Partition
    engines: EngineStages
    tilings: Mapping[str, Tiling]
    memory: MemoryPlan | None = None

    @classmethod
    def of(
        cls, resolved: Resolved, placement: Placement | None = None, within: WithinBudget | None = None
    ) -> BuildPlan:
        """The stages of a recipe's build; `placement` is where its segments lie, if that was planned, and `within` how
        its budget is kept, if it has one.
        """
        fuse = resolved.recipe.fuse
        passes = None if fuse.passes == "default" else fuse.passes
        return cls(
            resolved,
            export_stage(resolved),
            Fuse(passes, fuse.skip, fuse.hoist),
            QuantizeStages.of(resolved),
            _partition(resolved, placement),
            _engines(resolved),
            within.tilings if within else {},
            within.memory if within else None,
        )

    def seal(self, destination: Path) -> Seal:
        """The last stage, which makes the bundle at `destination`."""
        quantization = self.quantization.tools if self.quantization else ()
        stages = (*self.export.tools, *self.fuse.tools, *quantization, *self.engines.tools)
        tools = (*stages, *(requirements(self.resolved).keys() - NOT_BUILT_WITH))
        return Seal(self.resolved, lock_of(self.resolved, tools), destination, self.memory, self.tilings)

    def run(self, run: Run, run_all: RunAll | None = None) -> Tree:
        """Everything before the seal; `run` yields the result of one stage.

        `run_all` yields those of several that do not depend on each other; unless given, one after the other.
        """
        run_all = run_all or in_turn(run)
        exported = run(self.export, {"source": self.resolved.layout})
        program = fused = run(self.fuse, {"program": exported})
        if self.quantization is not None:
            program = self.quantization.run(run, program, exported, self.resolved.source)
        placed = program.joined(run(self.partition, {"program": program}))
        engines, tables = self.engines.run(run, run_all, placed, exported, self.resolved.source)
        last: list[Action] = [tables] if tables else []
        if self.check is not None:
            # Tables are of a schedule: another one is nothing to compare again.
            checked = {"engines": engines, "program": placed, "exported": exported, "source": self.resolved.source}
            last.append((self.check, {**checked, **({"fused": fused} if self.quantization is not None else {})}))
        for made in run_all(last):
            engines = engines.joined(made)
        return engines

    @property
    def check(self) -> CheckBuild | None:
        """What compares the engines with the source; None where the recipe does without."""
        origin, recipe = _origin(self.resolved), self.resolved.recipe
        if recipe.engine.check == "off":
            return None
        allowed, quantized = recipe.model.allow_not_finite or (), quantized_components(self.resolved)
        return CheckBuild(self.engines.engine, origin, self.fuse, allowed, quantized)


def _partition(resolved: Resolved, placement: Placement | None) -> Partition:
    """As it was planned, or all of it on one device: the processor, or the GPU that executes engines for GPUs."""
    partition, is_for_gpus = resolved.recipe.partition, resolved.recipe.targets[0] != "cpu"
    return Partition(partition.cut, GPU if is_for_gpus else partition.devices[0].kind, placement)


def planned_build(loaded: LoadedRecipe, resolved: Resolved, run: Run) -> BuildPlan:
    """The stages of a recipe's build, with its model cut as it is planned; `run` yields what surveys say of it.

    Raises UserError where it cannot be built, or finds no room.
    """
    _engine(resolved)  # what cannot be built is refused before its model is surveyed for a plan
    within = within_budget(loaded, run)
    return BuildPlan.of(resolved, within.placement if within else _placement(loaded, run), within)


def _placement(loaded: LoadedRecipe, run: Run) -> Placement | None:
    """Where the planner puts a model for the devices that a recipe names; None where there is nothing to choose.

    Raises RecipeError where nothing fits, NotBuiltYetError where wanc cannot build what fits.
    """
    recipe = loaded.recipe
    names_devices, most_bytes = "devices" in recipe.partition.model_fields_set, recipe.engine.max_build_memory
    is_on_one_processor = recipe.targets == CPU and sum(device.count for device in recipe.partition.devices) == 1
    if recipe.sampling is None or is_on_one_processor:
        return None
    if names_devices:
        return planned_placement(plan_recipe(loaded, run), most_bytes)
    if most_bytes is not None:
        costs = recipe_costs(loaded, run)[0]
        return placement(costs, whole_model(costs, GPU), most_bytes)
    return None


def export_stage(resolved: Resolved) -> Stage:
    """The stage that knows how to read this kind of model."""
    model = resolved.recipe.model
    example, values = model.example or {}, model.values or {}
    if model.onnx is not None:
        return ExportOnnx(example, values)
    if model.torch is not None:
        inputs = tuple(TorchInput(entry.name, entry.dtype, entry.shape) for entry in model.inputs or ())
        is_checked = resolved.recipe.engine.check == "on"
        return ExportTorch(model.torch, inputs, model.outputs, example, values, is_checked)
    return Export(resolved.model.components, resolved.recipe.cache_format, resolved.recipe.cache_positions)


def _origin(resolved: Resolved) -> Origin:
    """What executes this kind of model untouched."""
    model = resolved.recipe.model
    if model.onnx is not None:
        return OnnxOrigin()
    return TorchOrigin() if model.torch is not None else WanOrigin(resolved.model.components)


def _engines(resolved: Resolved) -> EngineStages:
    recipe = resolved.recipe
    assemble = Assemble(
        _engine(resolved),
        tokenizer=resolved.tokenizer,
        allow_not_finite=recipe.model.allow_not_finite or (),
        allow_unfused=recipe.engine.allow_unfused,
        quantized=quantized_components(resolved),
        emulate=recipe.quantize.emulate,
        zeros=resolved.model.zeros if resolved.task == "text-to-video" else None,
    )
    engine = assemble.engine
    # Within a budget it has to be known what the largest request takes.
    is_for_sizes = engine.is_for_sizes or recipe.runtime.budgets is not None
    requests = input_shapes(resolved) if is_for_sizes else ()
    return EngineStages(tuple(recipe.targets), assemble, _tables(resolved, engine), requests)


def _engine(resolved: Resolved) -> Engine:
    """The engine of a recipe.

    Raises UserError where its library is not installed, or is of another version: before there is any work.
    """
    recipe = resolved.recipe
    kind, compute, streaming = recipe.engine.kind, recipe.precision.compute, recipe.engine.weight_streaming
    islands = recipe.islands if compute != "fp32" else ()
    engines: dict[str, Engine] = {
        "onnxruntime": OnnxRuntimeEngine(),
        "openvino": OpenVinoEngine(compute, islands),
        "tensorrt-rtx": TensorRtRtxEngine(compute, islands, streaming),
        "tensorrt": TensorRtEngine(compute, islands, streaming),
    }
    tool_version(HOST)
    for tool in engines[kind].tools:
        version, extra = tool_version(tool, engines[kind].extra), engines[kind].extra
        if (wanted := PINNED.get(tool, version)) != version:
            raise UserError(
                f"{kind} is built with {tool} {wanted}, and {version} is installed",
                hint=f"pip install 'wanc[{extra}]'",
                exit_code=EXIT_UNAVAILABLE,
            )
    return engines[kind]


def _tables(resolved: Resolved, engine: Engine) -> Tables | None:
    sampling = resolved.recipe.sampling
    if sampling is None:
        return None
    steps, timesteps = sampling.steps, sampling.timesteps
    schedule = create_schedule(sampling.solver, shift=sampling.shift, steps=steps, timesteps=timesteps)
    everywhere = (CLEAN,) if resolved.recipe.runtime.kv_cache is not None else ()
    return Tables(engine, tuple(schedule.timesteps.tolist()), resolved.boundary, everywhere)


def build(
    loaded: LoadedRecipe,
    output: Path,
    *,
    store: Path | None = None,
    replace: bool = False,
    paranoid: bool = False,
    progress: bool = True,
    executor: str = IN_PROCESS,
) -> BuildResult:
    """Build one recipe into `output/bundles/<name>`, through a store: the one in `output/store` unless given.

    Everything that an earlier build has computed is taken from the store; `paranoid` reads the checkpoint again even
    where it looks unchanged. A bundle of this recipe that stands there already gives way to the new one; one of another
    recipe's file, or of another store, does only where `replace` says so. `executor` is where stages run (see
    `executor`). Raises UserError; then nothing half-written is left, and what was finished stays.
    """
    created()  # what is wrong with the date shows before the work, not at its end
    damaged: set[str] = set()
    while True:
        try:
            return _build(loaded, output, store or output / "store", replace, paranoid, progress, executor)
        except DamagedBlobError as error:
            # It has been set aside, so that the stage which made it runs again; a disk that breaks it again is broken.
            if str(error) in damaged:
                raise
            damaged.add(str(error))
            say(f"warning: {error}")


def _build(
    loaded: LoadedRecipe,
    output: Path,
    root: Path,
    replace: bool,
    paranoid: bool,
    progress: bool,
    executor: str,
) -> BuildResult:
    store = Store.open(root)
    destination = output / "bundles" / loaded.recipe.name
    check_destination(destination)
    bounded = _bounded(loaded.recipe.engine.max_build_memory)
    with store.session(on_wait=say), runner_of(executor, store, progress, bounded) as runner:
        resolved = _resolve(loaded, store, runner, paranoid=paranoid)
        if not replace:
            check_owner(destination, loaded.files[0], resolved.recipe_digest, resolved.source.digest, store)
        with _placed(loaded):
            plan = planned_build(loaded, resolved, runner.run)
            engines = plan.run(runner.run, runner.run_all)
        before = id_at(destination, store)
        bundle_id = plan.seal(destination).run(runner, engines)
        keys = [run.key for run in runner.runs if run.key is not None]
        # Who finds that the very bundle stands there already does not come to own it.
        owner = recipe_of(store.root, destination) if before == bundle_id else []
        name, others = ref_of(store.root, destination)
        store.set_ref(name, keys, recipe=[*(owner or recipe_names(loaded.files[0], store))], **others)
    if before not in (None, bundle_id):
        say(f"{destination}: {bundle_id} in place of {before}")
    return BuildResult(destination, bundle_id, tuple(runner.runs))


def _bounded(most_bytes: int | None) -> OnEnd:
    """What refuses an engine that took more memory to build than it may."""

    def check(stage: Stage, run: StageRun) -> None:
        if stage.name == Compile.name:
            check_peak(stage.label, run.peak_rss_bytes, most_bytes)

    return check


@contextmanager
def _placed(loaded: LoadedRecipe) -> Generator[None]:
    """A stage may find that recipe and model do not fit, or crash, and does not know where the recipe says what."""
    model = loaded.recipe.model
    (kind,) = [kind for kind in KINDS if getattr(model, kind) is not None]
    try:
        yield
    except RecipeError as error:
        error.where = error.where or loaded.marks.where(error.key or f"model.{kind}")
        raise
    except CrashError as error:
        error.where = str(getattr(model, kind))
        raise


def rebuild_and_compare(
    result: BuildResult, loaded: LoadedRecipe, *, progress: bool = True, executor: str = IN_PROCESS
) -> list[str]:
    """Build once more, with nothing from the store, and list the bundle's files that came out different.

    The second build lives beside the first and is removed. An empty list means that the bundles are bit-identical.
    """
    scratch = result.bundle.parent / f".{result.bundle.name}.check"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        again = build(loaded, scratch, paranoid=True, progress=progress, executor=executor)
        return differences(result.bundle, again.bundle)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def differences(first: Path, second: Path) -> list[str]:
    """Paths of the files in which two bundles differ; `manifest.json` alone when they differ in nothing else."""
    one, two = Manifest.read(first), Manifest.read(second)
    ours = {file.path: (file.sha256, file.executable) for file in one.files}
    theirs = {file.path: (file.sha256, file.executable) for file in two.files}
    different = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    return different or ([] if one.id == two.id else ["manifest.json"])


def _resolve(loaded: LoadedRecipe, store: Store, runner: Runner, *, paranoid: bool) -> Resolved:
    started = time.perf_counter()
    resolved = resolve(loaded, SourceDigests(store, paranoid=paranoid), progress=runner.progress)
    runner.runs.append(StageRun("resolve", time.perf_counter() - started, cached=False, peak_rss_bytes=0))
    explain(f"resolve: {runner.runs[-1].seconds:.1f} s; the store is {store.root}")
    return resolved
