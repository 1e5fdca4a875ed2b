"""What a bundle says of the memory that it needs: values as they were predicted, engines as they were built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wanc.errors import RecipeError
from wanc.runtime.budget import PhaseMemory
from wanc.runtime.engine_file import EngineFile

GIB = 2**30
KEY = "runtime.budgets.device"


@dataclass(frozen=True)
class MemoryPlan:
    """The recipe's budget in bytes, and for each shape what is alive beside engines in each phase."""

    budget: int
    values: Mapping[str, Mapping[str, int]]

    def as_manifest(self, files: Sequence[EngineFile]) -> dict[str, Any]:
        """What a bundle with these engine files says.

        Raises RecipeError where they are larger than was predicted, and the budget is too small after all.
        """
        shapes: dict[str, dict[str, dict[str, int]]] = {}
        for shape, values in self.values.items():
            phases = {phase: PhaseMemory.of(phase, size, files) for phase, size in values.items()}
            check_least(shape, phases, self.budget)
            shapes[shape] = {phase: memory.as_json(self.budget) for phase, memory in phases.items()}
        return {"budgets": {"device": self.budget}, "shapes": shapes}


def check_least(shape: str, phases: Mapping[str, PhaseMemory], budget: int) -> None:
    """Raises RecipeError, with the bytes that are missing, where a phase takes more whatever is closed for it."""
    phase = max(phases, key=lambda name: phases[name].least)
    needed = phases[phase].least
    if (missing := needed - budget) > 0:
        raise RecipeError(
            f"{shape} takes {needed / GIB:.3f} GiB in the phase {phase}, and the budget is {budget / GIB:.3f} GiB: "
            f"{missing:,} bytes are missing",
            key=KEY,
            hint=f"set {KEY} to at least {needed}, or take smaller sizes of video",
        )
