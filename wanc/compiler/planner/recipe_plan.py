"""The plan of a recipe: its model surveyed, its devices looked up, every size planned. No weight is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from wanc.artifacts.store import Store
from wanc.compiler.fuse import Fuse
from wanc.compiler.planner.building import Building, building
from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.links import LINKS, link_of
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.overrides import with_overrides
from wanc.compiler.planner.plan import Plan, plan_video
from wanc.compiler.planner.published import Published, published_for
from wanc.compiler.planner.recipe_costs import video_costs
from wanc.compiler.planner.survey import FILE, Survey, shipped, survey_key
from wanc.compiler.planner.survey_stage import SurveyComponent
from wanc.compiler.resolve import check_fits, open_model
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Tree
from wanc.errors import RecipeError
from wanc.folders import Folders
from wanc.models.source import ModelSource
from wanc.models.wan.checkpoint import Checkpoint, open_located
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.partition import PartitionSection
from wanc.recipe.schema import FuseSection
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.safetensors import header_bytes
from wanc.runtime.voice import say

LIGHTER = "int8"
"""The scheme that is tried where nothing fits, in order to say whether it would."""


@dataclass(frozen=True)
class PlannedShape:
    """One size of a recipe's videos: its costs and plan, what building engines takes, and what is published of it."""

    shape: ShapeSection
    costs: VideoCosts
    plan: Plan
    building: Building
    published: tuple[Published, ...]


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
                "build": asdict(entry.building),
                "published": [asdict(found) for found in entry.published],
            }
            for entry in self.shapes
        }
        return {"name": self.name, **sizes[self.largest.plan.shape], "shapes": sizes}


def plan_recipe(loaded: LoadedRecipe, folders: Folders, *, progress: bool) -> RecipePlan:
    """Plan all sizes of a recipe's videos.

    Raises RecipeError where the recipe makes no videos, where its options cannot be met, and where nothing fits.
    """
    recipe = loaded.recipe
    if recipe.shapes is None or recipe.sampling is None:
        hint = "give a Wan checkpoint as model.source"
        raise RecipeError(
            "only text-to-video models can be planned so far", where=loaded.marks.where("model"), hint=hint
        )
    model = open_model(loaded)
    check_fits(loaded, model)
    checkpoint = open_located(model.files, model.components)
    surveys = surveyed(recipe.fuse, model, checkpoint, folders, progress=progress)
    by_size = sorted(recipe.shapes, key=lambda shape: -shape.height * shape.width * shape.frames)
    try:
        cluster = cluster_of(recipe.partition)
        options = options_of(recipe.partition)
        planned: list[PlannedShape] = []
        for shape in by_size:
            costs = video_costs(recipe, checkpoint, surveys, shape)
            lighter = (
                video_costs(recipe, checkpoint, surveys, shape, LIGHTER) if recipe.quantize.scheme == "none" else None
            )
            asked = replace(options, lighter=(LIGHTER, lighter) if lighter else None)
            plan = plan_video(costs, cluster, asked)
            planned.append(_planned(shape, costs, plan, cluster))
            # One set of engines serves all sizes.
            options = _pinned(options, plan)
    except RecipeError as error:
        error.where = error.where or loaded.marks.where("partition")
        raise
    return RecipePlan(recipe.name, tuple(planned))


def _planned(shape: ShapeSection, costs: VideoCosts, plan: Plan, cluster: Cluster) -> PlannedShape:
    kinds = frozenset(pool.device.kind for pool in cluster.pools)
    steps = sum(expert.executions for expert in costs.experts)
    published = tuple(published_for((shape.height, shape.width, shape.frames), steps, kinds))
    return PlannedShape(shape, costs, plan, building(costs, plan), published)


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


def surveyed(
    fuse: FuseSection, model: ModelSource, checkpoint: Checkpoint, folders: Folders, *, progress: bool
) -> dict[str, Survey]:
    """The survey of each component: one that ships, or one that is made, or was made before."""
    passes = None if fuse.passes == "default" else fuse.passes
    stage = Fuse(passes, fuse.skip, fuse.hoist)
    found: dict[str, Survey] = {}
    keys: dict[str, str] = {}
    missing: list[str] = []
    for name, component in checkpoint.components.items():
        keys[name] = survey_key(name, component.config, checkpoint.text_length, asdict(stage))
        known = shipped(keys[name])
        if known is not None:
            found[name] = known
        else:
            missing.append(name)
    if missing:
        found |= _survey(missing, keys, stage, model, folders, progress=progress)
    return found


def _survey(
    missing: list[str], keys: Mapping[str, str], fuse: Fuse, model: ModelSource, folders: Folders, *, progress: bool
) -> dict[str, Survey]:
    say(f"tracing some blocks of {' and '.join(missing)}: no survey of this model ships with wanc")
    store = Store.open(folders.store)
    found: dict[str, Survey] = {}
    with store.session(on_wait=say):
        runner = Runner(store, progress)
        source = {"source": _headers(model)}
        for name in missing:
            same = next((other for other in found if keys[other] == keys[name]), None)
            if same is not None:
                found[name] = found[same]
                continue
            result = runner.run(SurveyComponent(name, fuse), source)
            found[name] = Survey.read(result.locate()[FILE])
    return found


def _headers(model: ModelSource) -> Tree:
    """The model's files by what a survey reads of them: headers and configurations, never a weight."""

    def digest(name: str) -> str:
        path = model.files[name]
        read = header_bytes(path) if name.endswith(".safetensors") else path.read_bytes()
        return f"sha256:{hashlib.sha256(read).hexdigest()}"

    return Tree({name: digest(name) for name in model.files}, lambda: dict(model.files))


def cluster_of(partition: PartitionSection) -> Cluster:
    """The devices of a recipe, with what it says of their kinds."""
    changes = {
        name: {key: value for key, value in kind.model_dump(exclude_unset=True).items() if value is not None}
        for name, kind in (partition.kinds or {}).items()
    }
    devices = with_overrides(changes)
    pools: list[Pool] = []
    for entry in partition.devices:
        device = devices[entry.kind]
        pools.append(Pool(device, entry.count, link_of(entry.link, device)))
    between = (
        link_of(partition.between, pools[0].device) if partition.between == "pcie" else LINKS.get(partition.between)
    )
    return Cluster.of(pools, between if len(pools) > 1 else None, devices["cpu"])


def options_of(partition: PartitionSection) -> PlanOptions:
    """What a recipe pins, and what it leaves to the planner."""

    def free(value: Any) -> Any:
        return None if value == "auto" else value

    return PlanOptions(
        objective=partition.objective,
        requests=partition.requests,
        branches=free(partition.branches),
        experts=free(partition.experts),
        replicas=free(partition.replicas),
        stages=free(partition.stages),
        ulysses=free(partition.ulysses),
        allow_idle=partition.allow_idle,
        offload_text_encoder=True,
    )
