"""Memory for the phases of a video, as a bundle's budget was planned."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from .budget import COMPONENTS
from .executor import Executor
from .video_bundle import Shape, VideoBundle


class PhaseRooms:
    """Room beside a bundle's engines, which are closed for it where a budget makes that necessary."""

    def __init__(self, bundle: VideoBundle, executor: Executor) -> None:
        self._bundle, self._executor = bundle, executor

    def planned(self, height: int, width: int) -> Shape:
        """The bundle's shape of this size."""
        return next(one for one in self._bundle.shapes if (one.height, one.width) == (height, width))

    def values(self, phase: str, shape: Shape) -> int:
        """Bytes that are alive beside engines, as they were planned; nothing is counted without a plan."""
        memory = self._bundle.memory
        if memory is None:
            return 0
        planned = self.planned(shape.height, shape.width)
        # What a causal model computes of a chunk is the same however long the video is.
        share = shape.frames / planned.frames if self._bundle.cache is None else 1.0
        return memory.values(planned.name, phase, share)

    def reserve(self, phase: str, shape: Shape) -> AbstractContextManager[None]:
        """For the length of a `with`, where there is a budget of this phase; others have room in a video's as a whole.

        Raises TargetError where the budget is too small for that.
        """
        if phase not in self._bundle.phases:
            return nullcontext()
        return self._executor.reserve(self.values(phase, shape), COMPONENTS[phase])

    def check(self, shape: Shape) -> None:
        """Raises TargetError where a phase of such a video finds no room."""
        for phase in self._bundle.phases:
            self._executor.check_room(self.values(phase, shape), COMPONENTS[phase])

    def fit_side_by_side(self, shape: Shape) -> bool:
        """Whether all phases of such videos find room at once, and no file is closed."""
        memory, budget = self._bundle.memory, self._executor.residency.budget
        if memory is None or budget is None:
            return True
        values = sum(self.values(phase, shape) for phase in self._bundle.phases)
        return values + memory.weights(self.planned(shape.height, shape.width).name) <= budget
