"""A recipe's budget of memory: how its model is cut for it, and what each size of video takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wanc.compiler.bundle.memory import KEY, MemoryPlan, check_least
from wanc.compiler.planner.recipe_plan import Run, recipe_costs
from wanc.compiler.planner.resident import Bounds, Resident, resident, segment_bounds
from wanc.compiler.program.program import Placement, Segment
from wanc.errors import RecipeError
from wanc.recipe.load import LoadedRecipe


@dataclass(frozen=True)
class WithinBudget:
    """Where the segments lie, and the memory of each size of video, the largest first."""

    device: str
    bounds: Bounds
    shapes: Sequence[Resident]

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
    budget, kind = recipe.runtime.device_budget, recipe.engine.kind
    if budget is None:
        return None
    costs = recipe_costs(loaded, run)
    bounds = segment_bounds(costs, budget, kind)
    if recipe.partition.cut == "blocks":
        bounds = {name: [(block, block + 1) for block in range(pairs[-1][1])] for name, pairs in bounds.items()}
    shapes = [resident(entry, bounds, budget, kind) for entry in costs]
    try:
        for entry in shapes:
            check_least(entry.shape, entry.phases, budget)
    except RecipeError as error:
        error.where = loaded.marks.where(KEY)
        raise
    return WithinBudget(recipe.partition.devices[0].kind, bounds, shapes)
