"""A recipe's budget of memory: how its model is cut for it, how pictures are decoded, and what each size takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wanc.compiler.bundle.memory import KEY, MemoryPlan, check_least
from wanc.compiler.planner.recipe_cluster import cluster_of
from wanc.compiler.planner.recipe_plan import SurveyedModel, by_size, residents
from wanc.compiler.planner.resident import Bounds, Resident, VideoMemory
from wanc.compiler.program.program import Placement, Segment
from wanc.compiler.stages.running import Run
from wanc.errors import RecipeError
from wanc.recipe.load import LoadedRecipe
from wanc.runtime.tiling import Tiling


@dataclass(frozen=True)
class WithinBudget:
    """Where the segments lie, the memory of each size of video, the largest first, and the tiles of its pictures."""

    device: str
    bounds: Bounds
    shapes: Sequence[Resident]
    tilings: Mapping[str, Tiling]

    @property
    def placement(self) -> Placement:
        """All on one device, its components cut."""
        segments = [
            Segment(name, index, *pair, self.device)
            for name, pairs in self.bounds.items()
            for index, pair in enumerate(pairs)
        ]
        return Placement((self.device,), tuple(segments))

    @property
    def memory(self) -> MemoryPlan:
        """What is known of it before anything is built."""
        values = {one.shape: {phase: memory.values for phase, memory in one.phases.items()} for one in self.shapes}
        return MemoryPlan(self.shapes[0].budget, values)


def within_budget(loaded: LoadedRecipe, run: Run) -> WithinBudget | None:
    """The cut and the memory of a recipe with a budget; None of one without.

    Raises RecipeError, with the bytes that are missing, where the budget is too small for any of its sizes of video.
    """
    recipe = loaded.recipe
    budget = recipe.runtime.device_budget
    if budget is None:
        return None
    model, device = SurveyedModel.of(loaded, run), cluster_of(loaded).pools[0].device
    try:
        sizes = by_size(recipe)
        ways = {shape.name: model.decoding(shape, device, budget).way for shape in sizes}
        videos = [VideoMemory(model.costs(shape), ways[shape.name].values) for shape in sizes]
        bounds, shapes = residents(recipe, videos, budget)
        for entry in shapes:
            check_least(entry.shape, entry.phases, budget)
    except RecipeError as error:
        error.where = error.where or loaded.marks.where(KEY)
        raise
    tilings = {name: way.tiling for name, way in ways.items() if way.tiling is not None}
    return WithinBudget(recipe.partition.devices[0].kind, bounds, shapes, tilings)
