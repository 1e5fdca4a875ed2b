"""A training loop that can be killed at any moment and continued to the same result.

Two things make that true: each step draws from a generator that is seeded by (seed, phase, step), so no generator
state has to be saved; and checkpoints replace each other atomically.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

SECONDS_BETWEEN_CHECKPOINTS = 120.0
SECONDS_BETWEEN_LINES = 20.0

Model = TypeVar("Model", bound=torch.nn.Module)


class Stateful(Protocol):
    """A model, an optimiser, a running average: whatever must survive a kill."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """One phase of training.

    ``checkpoint_every`` counts steps; ``None`` means by time, every two minutes.
    """

    name: str
    steps: int
    seed: int
    learning_rate: float
    checkpoint: Path
    checkpoint_every: int | None = None

    def random(self, step: int) -> np.random.Generator:
        """The generator of one step, which depends on nothing that happened before."""
        return np.random.default_rng([self.seed, *self.name.encode(), step])

    def rate(self, step: int) -> float:
        """Short linear warm-up, then a cosine down to a two-hundredth."""
        warm_up = min(100, max(1, self.steps // 10))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        progress = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * progress)))


def run(
    plan: Plan,
    state: Mapping[str, Stateful],
    optimiser: torch.optim.Optimizer,
    step_function: Callable[[int, np.random.Generator], float],
    inspect: Callable[[int], str] | None = None,
    inspect_every: int = 0,
) -> None:
    """Call ``step_function`` for each step that the checkpoint has not seen; leave the state after the last step."""
    first = _load(plan, state)
    if first >= plan.steps:
        print(f"{plan.name}: done before ({first} steps)", flush=True)
        return
    begun = saved = printed = time.monotonic()
    average = None
    for step in range(first, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        torch.manual_seed(int(plan.random(step).integers(2**62)))
        loss = step_function(step, plan.random(step))
        if not math.isfinite(loss):
            raise SystemExit(f"error: the loss of {plan.name} is {loss} at step {step}; lower its learning rate")
        average = loss if average is None else 0.98 * average + 0.02 * loss

        now, done = time.monotonic(), step + 1
        due = now - saved > SECONDS_BETWEEN_CHECKPOINTS
        if plan.checkpoint_every is not None:
            due = done % plan.checkpoint_every == 0
        if due or done == plan.steps:
            save(plan, state, done)
            saved = time.monotonic()
        if now - printed > SECONDS_BETWEEN_LINES or done == plan.steps:
            pace = (now - begun) / (done - first)
            left = pace * (plan.steps - done) / 60
            print(
                f"{plan.name}: {done}/{plan.steps}  loss {average:.4f}  {pace:.2f} s/step  {left:.1f} min left",
                flush=True,
            )
            printed = now
        if inspect is not None and (done == plan.steps or (inspect_every and done % inspect_every == 0)):
            print(f"{plan.name}: {done}/{plan.steps}  {inspect(done)}", flush=True)


class TwoThreads(Generic[Model]):
    """The gradients of a step in two halves, each in a thread of its own, of a copy that shares the weights.

    That beats two threads inside of every small operation, above all on a machine that does other work too.
    """

    def __init__(self, model: Model) -> None:
        self._models = (model, copy.deepcopy(model))
        for mine, other in self._pairs():
            other.data = mine.data
        torch.set_num_threads(1)
        self._workers = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, loss: Callable[..., torch.Tensor], *halves: Sequence[Any]) -> float:
        """Add the gradients of `loss(model, *half)` to the model that was given; the mean of both losses."""

        def one(model: Model, half: Sequence[Any]) -> float:
            found = loss(model, *half)
            found.backward()
            return float(found.detach())

        losses = list(self._workers.map(one, self._models, halves))
        for mine, other in self._pairs():
            if mine.grad is not None and other.grad is not None:
                mine.grad.add_(other.grad).div_(2)
                other.grad = None
        return sum(losses) / 2

    def _pairs(self) -> Iterator[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        return zip(*(model.parameters() for model in self._models), strict=True)


def save(plan: Plan, state: Mapping[str, Stateful], step: int) -> None:
    """Write the checkpoint beside the old one, then replace the old one."""
    plan.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = plan.checkpoint.with_suffix(".partial")
    torch.save({"step": step, **{name: item.state_dict() for name, item in state.items()}}, partial)
    os.replace(partial, plan.checkpoint)


def _load(plan: Plan, state: Mapping[str, Stateful]) -> int:
    """Restore the state if there is a checkpoint, and return the number of steps done."""
    if not plan.checkpoint.exists():
        return 0
    saved = torch.load(plan.checkpoint, weights_only=True)
    for name, item in state.items():
        item.load_state_dict(saved[name])
    print(f"{plan.name}: continuing at step {saved['step']}", flush=True)
    return int(saved["step"])
