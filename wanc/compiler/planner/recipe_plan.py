"""The plan of a recipe: its model surveyed, its devices looked up, every size planned. No weight is read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from wanc.artifacts.store import Store
from wanc.compiler.fuse import Fuse
from wanc.compiler.planner.building import Building, building
from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.decoding import HELD, Decoding, choose
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import Plan, plan_video
from wanc.compiler.planner.published import Published, published_for
from wanc.compiler.planner.recipe_cluster import cluster_of
from wanc.compiler.planner.recipe_costs import decoder, video_costs
from wanc.compiler.planner.resident import Bounds, Resident, VideoMemory, resident, segment_bounds
from wanc.compiler.planner.sessions import Sessions, sessions_of
from wanc.compiler.planner.survey import FILE, Survey, shipped, survey_key
from wanc.compiler.planner.survey_stage import SurveyComponent
from wanc.compiler.program.cuts import cut_blocks
from wanc.compiler.resolve import check_fits, open_model
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.running import Run
from wanc.compiler.stages.stage import Stage, Tree
from wanc.compiler.tiles import recipe_tilings
from wanc.errors import RecipeError
from wanc.folders import Folders
from wanc.models.source import ModelSource
from wanc.models.wan.checkpoint import Checkpoint, open_located
from wanc.models.wan.facts import facts_of
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.quantize import Scheme
from wanc.recipe.schema import Recipe
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.model import DECODER
from wanc.runtime.safetensors import header_bytes
from wanc.runtime.voice import say
from wanc.words import CPU

LIGHTER: Scheme = "int8"
"""The scheme that is tried where nothing fits, in order to say whether it would."""


@dataclass(frozen=True)
class PlannedShape:
    """One size of a recipe's videos: its costs and plan, how pictures are decoded, what building engines takes, and
    what is published of it.
    """

    shape: ShapeSection
    costs: VideoCosts
    plan: Plan
    decoding: Decoding
    building: Building
    published: tuple[Published, ...]
    resident: Resident | None = None
    """What it takes of the recipe's budget of memory, if it has one."""
    sessions: Sessions | None = None
    """How many of a causal model find room, and what one takes."""


@dataclass(frozen=True)
class RecipePlan:
    """`shapes` are the recipe's, the largest first: the placement was chosen for that one, and holds for all."""

    name: str
    shapes: tuple[PlannedShape, ...]

    @property
    def largest(self) -> PlannedShape:
        return self.shapes[0]

    def as_json(self) -> dict[str, Any]:
        """What programs read: the plan of the largest size, and the other sizes' below it."""
        sizes = {
            entry.plan.shape: {
                **entry.plan.as_json(),
                "decode": asdict(entry.decoding),
                "build": asdict(entry.building),
                "published": [asdict(found) for found in entry.published],
                **({"budget": entry.resident.as_json()} if entry.resident else {}),
                **({"sessions": asdict(entry.sessions)} if entry.sessions else {}),
            }
            for entry in self.shapes
        }
        return {"name": self.name, **sizes[self.largest.plan.shape], "shapes": sizes}


@dataclass(frozen=True)
class SurveyedModel:
    """A recipe with its model, which was surveyed."""

    recipe: Recipe
    checkpoint: Checkpoint
    surveys: Mapping[str, Survey]

    @classmethod
    def of(cls, loaded: LoadedRecipe, run: Run, components: Collection[str] | None = None) -> SurveyedModel:
        """All components are surveyed unless some are named.

        Raises RecipeError where the recipe makes no videos, or does not fit the model.
        """
        recipe = loaded.recipe
        if recipe.sampling is None:
            where, hint = loaded.marks.where("model"), "give a Wan checkpoint as model.source"
            raise RecipeError("only text-to-video models can be planned so far", where=where, hint=hint)
        model = open_model(loaded)
        check_fits(loaded, model)
        checkpoint = open_located(model.files, model.components)
        return cls(recipe, checkpoint, surveyed(recipe, model, checkpoint, run, components))

    def costs(self, shape: ShapeSection, scheme: Scheme | None = None) -> VideoCosts:
        """What a size of video costs; with another scheme than the recipe's if one is given."""
        return video_costs(self.recipe, self.checkpoint, self.surveys, shape, scheme)

    def decoding(self, shape: ShapeSection, device: Device, budget: int | None) -> Decoding:
        """How its pictures are decoded on a device. Raises RecipeError where nothing fits into `budget` bytes."""
        counted = decoder(self.recipe, self.checkpoint, self.surveys[DECODER], shape, device)
        if budget is not None:  # within one no engine keeps memory between executions, in tiles or not
            counted = replace(counted, held=replace(counted.held, whole=counted.held.tiled))
        named = recipe_tilings(self.recipe, facts_of(self.checkpoint).model).get(shape.name)
        may_tile = self.recipe.runtime.decode.tile == "auto" and self.recipe.engine.kind in HELD
        return choose(counted, named, may_tile=may_tile, budget=budget, what=shape.name)


def plan_recipe(loaded: LoadedRecipe, run: Run, activations: Mapping[str, int] | None = None) -> RecipePlan:
    """Plan all sizes of a recipe's videos; `run` yields the result of a stage, where its model has to be surveyed.

    `activations` are bytes that engines were found to need, by component, in place of those counted. Raises RecipeError
    where the recipe makes no videos, where its options cannot be met, and where nothing fits.
    """
    recipe = loaded.recipe
    model, budget = SurveyedModel.of(loaded, run), recipe.runtime.device_budget
    planned: list[PlannedShape] = []
    try:
        cluster, options = cluster_of(loaded), options_of(recipe, activations or {})
        for shape in by_size(recipe):
            costs = model.costs(shape)
            lighter = (LIGHTER, model.costs(shape, LIGHTER)) if recipe.quantize.scheme == "none" else None
            plan = plan_video(costs, cluster, replace(options, lighter=lighter))
            how = model.decoding(shape, _decoding_device(plan, cluster), budget)
            sessions = sessions_of(plan, costs) if costs.experts[0].looks_back else None
            planned.append(replace(_planned(shape, costs, plan, cluster, how), sessions=sessions))
            # One set of engines serves all sizes.
            options = _pinned(options, plan)
    except RecipeError as error:
        error.where = error.where or loaded.marks.where("partition")
        raise
    return RecipePlan(recipe.name, tuple(_within_budget(planned, recipe)))


def recipe_costs(loaded: LoadedRecipe, run: Run) -> list[VideoCosts]:
    """What each size of a recipe's videos costs, the largest first. Raises as `plan_recipe`."""
    model = SurveyedModel.of(loaded, run)
    return [model.costs(shape) for shape in by_size(loaded.recipe)]


def by_size(recipe: Recipe) -> list[ShapeSection]:
    """The sizes of a recipe's videos, the largest first."""
    return sorted(recipe.shapes or (), key=lambda shape: -shape.height * shape.width * shape.frames)


def _decoding_device(plan: Plan, cluster: Cluster) -> Device:
    """What executes the decoder."""
    kinds = [device.kind for device in plan.devices if any(one.component == DECODER for one in device.segments)]
    return next(pool.device for pool in cluster.pools if pool.device.kind == kinds[0])


def _planned(shape: ShapeSection, costs: VideoCosts, plan: Plan, cluster: Cluster, how: Decoding) -> PlannedShape:
    kinds = frozenset(pool.device.kind for pool in cluster.pools)
    steps = sum(expert.executions for expert in costs.experts)
    published = tuple(published_for((shape.height, shape.width, shape.frames), steps, kinds))
    return PlannedShape(shape, costs, plan, how, building(costs, plan), published)


def residents(recipe: Recipe, videos: Sequence[VideoMemory], budget: int) -> tuple[Bounds, list[Resident]]:
    """How a recipe's model is cut for a budget, and what each size of video takes of it."""
    kind = recipe.engine.kind
    bounds = segment_bounds(videos, budget, kind)
    if recipe.partition.cut != "none":
        bounds = {name: cut_blocks(pairs[-1][1], recipe.partition.cut) for name, pairs in bounds.items()}
    return bounds, [resident(video, bounds, budget, kind) for video in videos]


def _within_budget(planned: list[PlannedShape], recipe: Recipe) -> list[PlannedShape]:
    """With what each size takes of the recipe's budget."""
    if recipe.runtime.device_budget is None:
        return planned
    videos = [VideoMemory(entry.costs, entry.decoding.way.values) for entry in planned]
    _, found = residents(recipe, videos, recipe.runtime.device_budget)
    return [replace(entry, resident=one) for entry, one in zip(planned, found, strict=True)]


def _pinned(options: PlanOptions, plan: Plan) -> PlanOptions:
    """The options with what was chosen for the largest size, so that no smaller one asks for other engines."""
    lanes = {(device.replica, device.lane) for device in plan.devices}
    ranks = {device.ranks for device in plan.devices}
    first = [device for device in plan.devices if (device.replica, device.lane) == min(lanes)]
    stages = sum(1 / device.ranks for device in first)
    return replace(
        options,
        branches=plan.branches,
        experts=plan.experts,
        replicas=plan.replicas,
        stages=round(stages),
        ulysses=ranks.pop() if len(ranks) == 1 else options.ulysses,
    )


def in_store(folders: Folders, *, progress: bool) -> Run:
    """What runs a stage through the store, which is opened when there is one to run."""

    def run(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        store = Store.open(folders.store)
        with store.session(on_wait=say):
            return Runner(store, progress).run(stage, inputs)

    return run


def surveyed(
    recipe: Recipe,
    model: ModelSource,
    checkpoint: Checkpoint,
    run: Run,
    components: Collection[str] | None = None,
) -> dict[str, Survey]:
    """The survey of each component, or of those named: one that ships, or one that is made, or was made before."""
    fuse, cache, positions = recipe.fuse, recipe.cache_format, recipe.cache_positions
    passes = None if fuse.passes == "default" else fuse.passes
    stage = Fuse(passes, fuse.skip, fuse.hoist)
    by_key: dict[str, Survey] = {}
    found: dict[str, Survey] = {}
    for name, component in checkpoint.components.items():
        if components is not None and name not in components:
            continue
        key = survey_key(name, component.config, checkpoint.text_length, asdict(stage), cache, positions)
        if key not in by_key:
            by_key[key] = shipped(key) or _survey(SurveyComponent(name, stage, cache, positions), model, run)
        found[name] = by_key[key]
    return found


def _survey(stage: SurveyComponent, model: ModelSource, run: Run) -> Survey:
    say(f"tracing some blocks of {stage.component}: no survey of this model ships with wanc")
    result = run(stage, {"source": _headers(model)})
    return Survey.read(result.locate()[FILE])


def _headers(model: ModelSource) -> Tree:
    """The model's files by what a survey reads of them: headers and configurations, never a weight."""

    def digest(name: str) -> str:
        path = model.files[name]
        read = header_bytes(path) if name.endswith(".safetensors") else path.read_bytes()
        return f"sha256:{hashlib.sha256(read).hexdigest()}"

    return Tree({name: digest(name) for name in model.files}, lambda: dict(model.files))


def options_of(recipe: Recipe, activations: Mapping[str, int]) -> PlanOptions:
    """What a recipe pins, and what it leaves to the planner.

    Several processors are one chain of devices with one copy of the model, which is what runs; that ranks split a step
    has to be asked for there, since what they exchange is copied.
    """
    partition = recipe.partition

    def free(value: Any, on_processors: Any = None) -> Any:
        return (on_processors if recipe.targets == CPU else None) if value == "auto" else value

    return PlanOptions(
        objective=partition.objective,
        requests=partition.requests,
        branches=free(partition.branches, "serial"),
        experts=free(partition.experts),
        replicas=free(partition.replicas, 1),
        stages=free(partition.stages),
        ulysses=free(partition.ulysses, 1),
        allow_idle=partition.allow_idle,
        offload_text_encoder=recipe.targets != CPU,
        activations=activations,
    )
