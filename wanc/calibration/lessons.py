"""What a quantised expert is to learn: states that it will meet, and the velocities that its teacher gives there.

Half of the requests are run by the teacher, and half by the student itself, whose own errors bring it to states that
the teacher would never see. The low-noise expert learns behind the quantised high-noise one. A state is drawn the more
often the more an error there does to the final latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wanc.calibration import trajectories
from wanc.calibration.decision import Decision
from wanc.calibration.trajectories import Requests, Run, States, TrajectorySampling, guided_velocity

# Validation requests on which the influence of every step is measured.
INFLUENCED = 4


@dataclass(frozen=True)
class Lessons:
    """Where the trained expert may be asked, what the teacher answers there, and how often it is asked, relatively."""

    states: States
    targets: torch.Tensor
    chances: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[Lessons]) -> Lessons:
        """All of them, one after the other."""
        return cls(
            States.joined([part.states for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.chances for part in parts]),
        )


@dataclass(frozen=True)
class Task:
    """What is to be learnt: expert number `trained` of two, 0 being the high-noise one, behind and before the `others`.

    `teachers` are the float experts. `others` are those that the trained one works with: what stands in its own place
    is not used. `decisions` are what training starts from, by the name of the Linear.
    """

    teachers: Sequence[torch.nn.Module]
    others: Sequence[torch.nn.Module]
    trained: int
    decisions: dict[str, Decision]
    sampling: TrajectorySampling
    training: Requests
    validation: Requests

    def __post_init__(self) -> None:
        if not len(self.training) or not len(self.validation):
            raise ValueError("no requests to train on" if not len(self.training) else "no requests to validate on")
        if not self.decisions:
            raise ValueError("no Linear is quantised: there is nothing to train")

    @property
    def teacher(self) -> torch.nn.Module:
        """The float model of the trained expert."""
        return self.teachers[self.trained]

    @property
    def guidance(self) -> float:
        """The guidance scale of the trained expert."""
        return self.sampling.guidance[self.trained]

    @property
    def steps(self) -> range:
        """The sampling steps of the trained expert."""
        return self.sampling.steps_of(self.trained)

    def experts(self, trained: torch.nn.Module) -> list[torch.nn.Module]:
        """Both, with this one in its place."""
        return [trained if number == self.trained else other for number, other in enumerate(self.others)]

    def influence(self, student: torch.nn.Module, expected: Run) -> torch.Tensor:
        """What an error of the student at each of its steps does to the final latents, of a few validation requests.

        `expected` is the teachers' run of these.
        """
        few = slice(INFLUENCED)
        runs = Run(expected.latents[:, few], expected.velocities[:, few])
        return trajectories.influence(self.teachers, self.sampling, self.validation[few], runs, student, self.trained)

    @torch.no_grad()
    def lessons(self, student: torch.nn.Module, first: int, count: int, chances: torch.Tensor) -> Lessons:
        """Of so many training requests from the first on, which are gone through again and again.

        `chances` [steps of the expert] are how often each step is to be drawn.
        """
        chosen = (torch.arange(count) + first) % len(self.training)
        by_teacher, by_student = chosen.chunk(2)
        parts = self._lessons(self.teacher, by_teacher, chances) + self._lessons(student, by_student, chances)
        return Lessons.joined(parts)

    def _lessons(self, expert: torch.nn.Module, chosen: torch.Tensor, chances: torch.Tensor) -> list[Lessons]:
        """Lessons on the states that this expert comes to, one for each step."""
        requests = self.training[chosen]
        run = self.sampling.run(self.experts(expert), requests, stop=self.steps.stop)
        parts: list[Lessons] = []
        for chance, step in zip(chances, self.steps, strict=True):
            states = self.sampling.states(requests, run, step)
            own = expert is self.teacher
            targets = run.velocities[step] if own else guided_velocity(self.teacher, states, self.guidance)
            parts.append(Lessons(states, targets, chance.expand(len(chosen))))
        return parts
