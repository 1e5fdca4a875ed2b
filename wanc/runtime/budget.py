"""What a run may take of memory: as its bundle was planned, as it was asked, and as this machine has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .byte_size import byte_size
from .cache_facts import KEY as KV_CACHE
from .engine_file import EngineFile
from .errors import TargetError, UserError
from .memory import available_bytes
from .model import DECODER, HIGH, LOW, TEXT_ENCODER
from .strict_json import Fields
from .voice import say

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "text": (TEXT_ENCODER,),
    "denoise": (HIGH, LOW),
    "decode": (DECODER,),
    "video": (HIGH, LOW, DECODER),
}
"""Whose engines a phase executes."""
AT_ONCE, IN_CHUNKS = ("text", "denoise", "decode"), ("text", "video")
"""The phases of a video, and those of a causal model, whose pictures are decoded while later chunks are made."""


@dataclass(frozen=True)
class PhaseMemory:
    """Bytes of one phase: `values` that are alive beside engines, as predicted, `weights` of all its open engines, and
    `largest`, what opening the largest of their files takes.
    """

    values: int
    weights: int
    largest: int

    @classmethod
    def of(cls, phase: str, values: int, files: Iterable[EngineFile]) -> PhaseMemory:
        """With the engine files of a phase, among all of a bundle."""
        own = [file.memory for file in files if file.component in COMPONENTS[phase] and file.memory is not None]
        return cls(values, sum(one.opened for one in own), max((one.opening for one in own), default=0))

    @property
    def least(self) -> int:
        """What the phase takes within any budget."""
        return self.values + self.largest

    @property
    def whole(self) -> int:
        """What it takes if nothing is closed."""
        return self.values + self.weights

    def as_json(self, budget: int) -> dict[str, int]:
        peak = max(self.least, min(budget, self.whole))
        return {"values": self.values, "weights": self.weights, "least": self.least, "peak": peak}


@dataclass(frozen=True)
class MemoryFacts:
    """The part of a manifest's `runtime` about memory: the recipe's budget, and what each shape needs by phase."""

    budget: int
    shapes: Mapping[str, Mapping[str, PhaseMemory]]

    @classmethod
    def read(cls, runtime: Fields, shapes: Iterable[str], files: Sequence[EngineFile]) -> MemoryFacts | None:
        """None of a bundle without a budget; else for its `shapes` and engine `files`. Raises BundleError."""
        if "memory" not in runtime.values:
            return None
        fields, names = runtime.object("memory"), IN_CHUNKS if KV_CACHE in runtime.values else AT_ONCE
        planned = fields.object("shapes")
        return cls(
            fields.object("budgets").integer("device", minimum=1),
            {name: _phases(planned.object(name), files, names) for name in shapes},
        )

    @property
    def least(self) -> int:
        """The smallest budget within which the smallest video can be made."""
        return min(max(memory.least for memory in phases.values()) for phases in self.shapes.values())

    def weights(self, shape: str) -> int:
        """Of all open engines, of whatever phase."""
        return sum(phase.weights for phase in self.shapes[shape].values())

    def values(self, shape: str, phase: str, share: float) -> int:
        """What to reserve for a phase of a video with `share` as many frames as the shape has that was planned.

        Fewer are counted as if they were all: what kernels need does not fall to nothing.
        """
        return round(self.shapes[shape][phase].values * max(share, 1.0))


def _phases(fields: Fields, files: Sequence[EngineFile], names: Sequence[str]) -> dict[str, PhaseMemory]:
    """What stands there besides `values` follows from the files."""
    return {phase: PhaseMemory.of(phase, fields.object(phase).integer("values"), files) for phase in names}


def chosen_budget(planned: MemoryFacts | None, asked: str | None) -> int | None:
    """The budget of a run, in bytes: what was asked, or else what the recipe says, and no more than there is.

    None where neither says anything. Raises TargetError where no shape could be made in it, and UserError where a
    bundle without a plan is asked to keep one.
    """
    if planned is None:
        if asked is None:
            return None
        raise UserError(
            "this bundle was not planned within a budget, so that none can be kept",
            hint="build it with runtime.budgets.device, which also cuts it into pieces that come and go",
        )
    wanted = planned.budget if asked is None else byte_size(asked)
    available = available_bytes()
    budget = wanted if available is None else min(wanted, available)
    if (missing := planned.least - budget) > 0:
        who = "the budget is" if budget == wanted else "this machine has left"
        raise TargetError(
            f"{who} {budget:,} bytes, and this bundle's smallest video takes {planned.least:,}: "
            f"{missing:,} are missing",
            hint=f"allow at least {planned.least} bytes, or build for smaller sizes of video",
        )
    if budget < wanted:
        say(f"note: of a budget of {wanted:,} bytes this machine has {budget:,} left, and these are kept to")
    return budget
