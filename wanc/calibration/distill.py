"""Quantisation-aware training: a quantised expert learns to give the velocities of the float one, which is its teacher.

What counts is the guided velocity, since guidance multiplies the difference of two branches' errors. `lessons` tells
where the student is asked for it.

Rounds depend on nothing but the plan and the state that the round before has left. So a killed run that goes on from
its checkpoint gives what an undisturbed one would have given, on the same number of threads.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from wanc.calibration import training_state, trajectories
from wanc.calibration.decision import Decision
from wanc.calibration.fake_quantize import decisions_of, quantize_module
from wanc.calibration.lessons import Lessons, Task
from wanc.calibration.trajectories import guided_velocity
from wanc.errors import UserError
from wanc.runtime.progress import ProgressBar

# Betas of Adam: the second moments follow quickly, as a run has only hundreds of steps.
BETAS = (0.9, 0.99)
WARM_UP_STEPS = 20
# What the average of the parameters keeps of itself in a step, once there have been enough of them.
AVERAGE_DECAY = 0.98


@dataclass(frozen=True)
class TrainingPlan:
    """How an expert is trained: at most `rounds` of `steps` steps, each with `batch` states in both branches.

    A round takes its states from `requests` runs. `learning_rate` falls to 0 along a cosine. Training ends early when
    `patience` rounds in a row have not lowered the error on the validation requests. `levels` is the weights' largest
    code.
    """

    levels: int
    learning_rate: float
    rounds: int
    steps: int = 100
    batch: int = 4
    requests: int = 32
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.levels, self.rounds, self.steps, self.batch, self.patience) < 1 or self.requests < 2:
            raise ValueError(f"a plan of no training: {self}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"a learning rate of {self.learning_rate}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted over all rounds."""
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        return self.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / (self.rounds * self.steps)))


@dataclass(frozen=True)
class TrainingOutcome:
    """The decisions with the least error on the validation requests, and that error after every round.

    The error is the mean squared one of the final latents, in the geometric mean over the requests: few runs that tip
    over to another picture would drown what all the others tell. The first is that of what training has started from.
    """

    decisions: dict[str, Decision]
    errors: tuple[float, ...]


def distill(task: Task, plan: TrainingPlan, checkpoint: Path, *, progress: bool = True) -> TrainingOutcome:
    """Train from the checkpoint, if there is one, to the end of the plan.

    Raises UserError where the loss stops being finite, or where the checkpoint is of another run.
    """
    trainer = _Trainer(task, plan, checkpoint)
    with ProgressBar(f"train expert {task.trained + 1} of 2", total=plan.rounds * plan.steps, enabled=progress) as bar:
        bar.advance(trainer.rounds * plan.steps)
        while trainer.rounds < plan.rounds and trainer.stale < plan.patience:
            trainer.round(bar)
    return trainer.outcome()


class _Trainer:
    """The student as the optimizer leaves it, its running average, and the best average so far."""

    def __init__(self, task: Task, plan: TrainingPlan, checkpoint: Path) -> None:
        self.task, self.plan, self.checkpoint = task, plan, checkpoint
        self.student = copy.deepcopy(task.teacher).requires_grad_(False)
        quantize_module(self.student, task.decisions, levels=plan.levels)
        self.parameters = {name: value for name, value in self.student.named_parameters() if value.requires_grad}
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.averages = {name: value for name, value in self.average.named_parameters() if name in self.parameters}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), betas=BETAS, weight_decay=0.0)
        self.expected = task.sampling.run(task.teachers, task.validation)
        self.run = _digest(task, plan)
        # Of the student as it begins, also where a killed run goes on.
        self.chances = task.influence(self.student, self.expected)
        if checkpoint.exists():
            self._restore()
        else:
            self.errors = [self._validate()]
            self.best = _copied(self.averages)

    @property
    def rounds(self) -> int:
        """How many rounds are done."""
        return len(self.errors) - 1

    @property
    def stale(self) -> int:
        """For how many rounds there has been no better one."""
        return self.rounds - self.errors.index(min(self.errors))

    def round(self, bar: ProgressBar) -> None:
        """Make states, train on them, validate, and save."""
        random = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.rounds)
        lessons = self.task.lessons(self.average, self.rounds * self.plan.requests, self.plan.requests, self.chances)
        first = self.rounds * self.plan.steps
        for step in range(first, first + self.plan.steps):
            chosen = torch.multinomial(lessons.chances, self.plan.batch, replacement=True, generator=random)
            self._step(step, lessons, chosen)
            bar.advance()
        self.errors.append(self._validate())
        if self.stale == 0:
            self.best = _copied(self.averages)
        self._save()

    def outcome(self) -> TrainingOutcome:
        """What the best average has come to."""
        _assign(self.averages, self.best)
        return TrainingOutcome(decisions_of(self.average), tuple(self.errors))

    def _step(self, step: int, lessons: Lessons, chosen: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        velocity = guided_velocity(self.student, lessons.states[chosen], self.task.guidance)
        loss = (velocity - lessons.targets[chosen]).square().mean()
        if not math.isfinite(loss.item()):
            raise UserError(f"the loss is {loss.item()} in training step {step}", hint="choose a lower learning rate")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in self.parameters.items():
                self.averages[name].lerp_(value, 1 - decay)

    def _validate(self) -> float:
        actual = self.task.sampling.run(self.task.experts(self.average), self.task.validation)
        final = trajectories.errors(actual, self.expected)[-1]
        error = float((final + trajectories.NO_ERROR).log().mean().exp())
        if not math.isfinite(error):
            raise UserError(f"the error of the validation runs is {error}", hint="choose a lower learning rate")
        return error

    def _save(self) -> None:
        sections = {
            "student": self.parameters,
            "average": self.averages,
            "best": self.best,
            "optimizer": training_state.of_optimizer(self.optimizer),
            "history": {"errors": torch.tensor(self.errors, dtype=torch.float64)},
        }
        training_state.write(self.checkpoint, sections, self.run)

    def _restore(self) -> None:
        sections = training_state.read(self.checkpoint, self.run)
        _assign(self.parameters, sections["student"])
        _assign(self.averages, sections["average"])
        self.best = sections["best"]
        training_state.restore_optimizer(self.optimizer, sections["optimizer"])
        self.errors = sections["history"]["errors"].tolist()


def _copied(tensors: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


@torch.no_grad()
def _assign(parameters: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _digest(task: Task, plan: TrainingPlan) -> str:
    """What tells a run from others: the plan, what it starts from, and what it learns from and beside."""
    digest = hashlib.sha256(f"{plan} {task.trained} {task.sampling}".encode())
    for name, decision in sorted(task.decisions.items()):
        digest.update(f"{name} {decision.activation_scale}".encode())
        arrays = (decision.codes.values, decision.codes.scales, decision.smoothing)
        digest.update(b"".join(array.tobytes() for array in arrays if array is not None))
    for requests in (task.training, task.validation):
        parts = (requests.noise, requests.text, requests.negative, requests.seeds)
        digest.update(b"".join(part.numpy().tobytes() for part in parts))
    for expert in (*task.teachers, *task.experts(task.teacher)):
        digest.update(b"".join(tensor.numpy().tobytes() for tensor in expert.state_dict().values()))
    return digest.hexdigest()
