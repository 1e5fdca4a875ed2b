"""Runs and lessons of experts that look back alone: each chunk behind what its run has made; planted faults are seen.

The expected velocities are those of diffusers' transformer in one pass for each chunk, request and branch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch, an extra")
pytest.importorskip("diffusers", reason="causal experts need diffusers, an extra")

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel  # noqa: E402

from tests.models.test_causal import CONFIG  # noqa: E402
from wanc.calibration.causal_sampling import CausalSampling  # noqa: E402
from wanc.calibration.decision import Decision  # noqa: E402
from wanc.calibration.distill import TrainingPlan, distill  # noqa: E402
from wanc.calibration.fake_quantize import quantize_module  # noqa: E402
from wanc.calibration.lessons import Task  # noqa: E402
from wanc.calibration.trajectories import Requests, Run, TrajectorySampling, guided_velocity, influence  # noqa: E402
from wanc.calibration.weights import round_to_nearest  # noqa: E402
from wanc.models.wan import causal_sequence as sequence_module  # noqa: E402
from wanc.models.wan.causal_sequence import CausalSequence, causal_sequence  # noqa: E402
from wanc.models.wan.untouched_sequence import run_behind  # noqa: E402
from wanc.runtime.cache_facts import CacheFacts  # noqa: E402
from wanc.runtime.kvcache import KeyValueWindow  # noqa: E402
from wanc.runtime.noise import chunk_stream, initial_noise  # noqa: E402
from wanc.runtime.solvers.create import create_solver  # noqa: E402

from .small_experts import equal  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
FACTS = CacheFacts(2, KeyValueWindow(1, 1), "fp32")
CHUNKS = [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
"""Of seven frames: the third is the first that no longer sees all, and the last one is shorter."""
SHAPE = (4, 7, 2, 4)
STEPS, HIGH_STEPS, GUIDANCE = 3, 1, (2.0, 1.5)
TOLERANCE = 1e-5
"""Relative; float32 sums in another order differ by about 1e-6."""
LEVELS = 3  # so coarse that training has much to mend
PLAN = TrainingPlan(levels=LEVELS, learning_rate=2e-3, rounds=2, steps=50, batch=8, requests=16)


def whole(seed: int) -> WanTransformer3DModel:
    """An expert that is not causal by itself."""
    torch.manual_seed(seed)
    model = cast(WanTransformer3DModel, WanTransformer3DModel.from_config({**CONFIG, "num_layers": 2})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def experts() -> list[CausalSequence]:
    """The same weights, asked by chunks."""
    found: list[CausalSequence] = []
    for seed in (0, 1):
        model = causal_sequence({**CONFIG, "num_layers": 2}, FACTS)
        model.load_state_dict(whole(seed).state_dict())
        found.append(cast(CausalSequence, model.requires_grad_(False)))
    return found


def sampling(solver: str = "unipc") -> CausalSampling:
    return CausalSampling(partial(create_solver, solver, shift=3.0, steps=STEPS), GUIDANCE, HIGH_STEPS, FACTS)


def requests(count: int, seed: int = 0) -> Requests:
    random = torch.Generator().manual_seed(seed)
    noise, text = torch.randn(count, *SHAPE, generator=random), torch.randn(count, 5, 16, generator=random)
    return Requests(noise, text, torch.zeros(count, 5, 16), torch.arange(count) + 100 * seed)


def off(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def sampled_alone(asked: Requests, solver_name: str) -> Run:
    """One request, as the runtime would make it, without anything that this is about."""
    pair, latents, velocities = [whole(0), whole(1)], list[Any](), list[Any]()
    for number, frames in enumerate(CHUNKS):

        def added(step: int, shape: tuple[int, ...], number: int = number) -> np.ndarray[Any, Any]:
            return initial_noise(shape, int(asked.seeds[0]), stream=chunk_stream(number, step))

        solver = create_solver(solver_name, shift=3.0, steps=STEPS, noise_of=added)
        states, given = [asked.noise[:, :, frames].numpy()], list[np.ndarray[Any, Any]]()
        for step, timestep in enumerate(solver.timesteps.tolist()):
            at = {"latents": states[-1], "timestep": np.array([timestep], np.float32)}
            expert = int(step >= HIGH_STEPS)
            past = [one[-1] for one in latents]
            conditional, unconditional = (
                run_behind(pair[expert], {**at, "text": text.numpy()}, past, FACTS.window)
                for text in (asked.text, asked.negative)
            )
            given.append(unconditional + GUIDANCE[expert] * (conditional - unconditional))
            states.append(solver.step(given[-1], states[-1]))
        latents.append(np.stack(states))
        velocities.append(np.stack(given))
    return Run(*(torch.from_numpy(np.concatenate(parts, axis=3)) for parts in (latents, velocities)))


@pytest.mark.parametrize("solver", ["unipc", "lcm"])
def test_a_run_is_made_chunk_by_chunk(solver: str) -> None:
    asked, how = requests(3), sampling(solver)
    with torch.no_grad():
        found, alone = how.run(experts(), asked), sampled_alone(asked[1:2], solver)
    assert found.latents.shape == (STEPS + 1, *asked.noise.shape)
    assert off(found.velocities[:, 1:2], alone.velocities) < TOLERANCE
    assert off(found.latents[:, 1:2], alone.latents) < TOLERANCE


def at_once(how: CausalSampling, asked: Requests, run: Run) -> list[float]:
    """How far the velocities of all chunks in one pass are from the run's, at each step."""
    pair = experts()
    return [
        off(guided_velocity(pair[expert], how.states(asked, run, step), GUIDANCE[expert]), run.velocities[step])
        for step in range(STEPS)
        for expert in [how.expert_at(step)]
    ]


def test_all_chunks_are_asked_at_once() -> None:
    asked, how = requests(2), sampling()
    assert max(at_once(how, asked, how.run(experts(), asked))) < TOLERANCE


def everything(chunks: int, window: KeyValueWindow) -> torch.Tensor:
    del window
    return torch.ones(chunks, chunks, dtype=torch.bool)


def later(chunks: int, window: KeyValueWindow) -> torch.Tensor:
    """The one behind a chunk, besides what it is to see."""
    return sequence_visible(chunks, window) | torch.eye(chunks, dtype=torch.bool).roll(1, 1)


def all_before(chunks: int, window: KeyValueWindow) -> torch.Tensor:
    del window
    return torch.ones(chunks, chunks, dtype=torch.bool).tril()


sequence_visible = sequence_module.visible


@pytest.mark.parametrize("mask", [everything, later, all_before])
def test_another_mask_is_seen(mask: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, how = requests(2), sampling()
    run = how.run(experts(), asked)
    monkeypatch.setattr(sequence_module, "visible", mask)
    assert min(at_once(how, asked, run)) > 10 * TOLERANCE


def test_a_run_can_begin_with_what_is_known() -> None:
    asked, how, pair = requests(2), sampling(), experts()
    made = how.run(pair, asked)
    never = cast(CausalSequence, None)
    again = how.run([never, pair[1]], asked, known=[*made.velocities[:HIGH_STEPS]])
    torch.testing.assert_close(again.latents, made.latents, rtol=0, atol=0)


def test_an_error_of_one_chunk_travels_into_later_ones_alone() -> None:
    asked, how, pair = requests(1), sampling(), experts()
    made = how.run(pair, asked)
    wrong = made.velocities[:1].clone()
    wrong[:, :, :, CHUNKS[1]] += 0.1
    moved = (how.run(pair, asked, known=[*wrong]).latents[-1] - made.latents[-1]).abs().amax(dim=(0, 1, 3, 4))
    assert not moved[:2].any() and moved[2:].all()


def test_an_error_has_influence_behind_its_chunk_as_well() -> None:
    """More than where no chunk sees another one."""
    asked, how, pair = requests(2), sampling(), experts()
    made = how.run(pair, asked)
    found = influence(pair, how, asked, made, rounded(pair[0]), 0)
    assert found.shape == (HIGH_STEPS,) and torch.isfinite(found).all()


# Lessons


def decisions(expert: CausalSequence) -> dict[str, Decision]:
    return {
        name: Decision(round_to_nearest(linear.weight.numpy(), levels=LEVELS), None, None)
        for name, linear in expert.blocks.named_modules(prefix="blocks")
        if isinstance(linear, torch.nn.Linear)
    }


def rounded(expert: CausalSequence) -> CausalSequence:
    made = causal_sequence({**CONFIG, "num_layers": 2}, FACTS)
    made.load_state_dict(expert.state_dict())
    quantize_module(made, decisions(expert), levels=LEVELS)
    return made.requires_grad_(False)


def task(trained: int = 0, **changes: Any) -> Task:
    teachers = experts()
    made = Task(
        teachers=teachers,
        others=teachers,
        trained=trained,
        decisions=decisions(teachers[trained]),
        sampling=sampling(),
        training=requests(16, seed=1),
        validation=requests(4, seed=2),
    )
    return dataclasses.replace(made, **changes)


def behind_another_past(asked: Task, student: CausalSequence) -> tuple[float, float]:
    """How far the student's lessons are from its own run's past and noisy chunks, and their targets from the teacher's
    answer there, chunk by chunk.
    """
    trained = asked.trained
    lessons = asked.lessons(student, 0, 4, torch.ones(len(asked.steps)))
    own = asked.training[2:4]
    run = asked.sampling.run(asked.experts(student), own)
    at = torch.cat([torch.cat([run.latents[-1], run.latents[step]], dim=2) for step in asked.steps])
    answers: list[torch.Tensor] = []
    for step in asked.steps:
        timestep = np.array([asked.sampling.timesteps[step]], np.float32)
        clean = [run.latents[-1][:1, :, frames].numpy() for frames in CHUNKS]
        for number, frames in enumerate(CHUNKS):
            given = {"latents": run.latents[step][:1, :, frames].numpy(), "timestep": timestep}
            conditional, unconditional = (
                run_behind(whole(trained), {**given, "text": text[:1].numpy()}, clean[:number], FACTS.window)
                for text in (own.text, own.negative)
            )
            answers.append(torch.from_numpy(unconditional + GUIDANCE[trained] * (conditional - unconditional)))
    targets = lessons.targets[2 * len(asked.steps) :][::2]
    count = len(CHUNKS)
    expected = [torch.cat(answers[first : first + count], dim=2) for first in range(0, len(answers), count)]
    return off(lessons.states.latents[2 * len(asked.steps) :], at), off(targets, torch.cat(expected))


@pytest.mark.parametrize("trained", [0, 1])
def test_a_student_learns_behind_its_own_chunks(trained: int) -> None:
    with torch.no_grad():
        found = behind_another_past(task(trained), rounded(experts()[trained]))
    assert max(found) < TOLERANCE


def test_the_past_of_a_teacher_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the student never met its own errors."""
    states = CausalSampling.states

    def of_the_teacher(how: CausalSampling, asked: Requests, run: Run, step: int) -> Any:
        clean = how.run(experts(), asked).latents[-1:]
        return states(how, asked, Run(torch.cat([run.latents[:-1], clean]), run.velocities), step)

    monkeypatch.setattr(CausalSampling, "states", of_the_teacher)
    with torch.no_grad():
        assert min(behind_another_past(task(), rounded(experts()[0]))) > 10 * TOLERANCE


def test_what_is_clean_learns_as_well() -> None:
    """What is seen of the past is no constant: the second chunk by way of the third, which saw it."""
    asked = task()
    student = rounded(experts()[0]).requires_grad_(True)
    lessons = asked.lessons(student, 0, 4, torch.ones(1))
    states = dataclasses.replace(lessons.states, latents=lessons.states.latents.clone().requires_grad_(True))
    guided_velocity(student, states, 2.0)[:, :, CHUNKS[-1]].sum().backward()
    gradient = states.latents.grad.abs().amax(dim=(0, 1, 3, 4))
    seen = [*range(6), 7 + 6]  # all clean ones before it, and of the noisy ones itself
    assert gradient[seen].all() and not gradient[[frame for frame in range(14) if frame not in seen]].any()


# Training


def test_the_error_falls_and_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = distill(task(), PLAN, tmp_path / "undisturbed.safetensors")
    assert min(undisturbed.errors) < 0.7 * undisturbed.errors[0]
    original, steps = torch.optim.AdamW.step, itertools.count(1)

    def deadly(self: Any, *arguments: Any) -> Any:
        if next(steps) == 60:  # in the second round; the first is saved
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", deadly)
        with pytest.raises(KeyboardInterrupt):
            distill(task(), PLAN, tmp_path / "killed.safetensors")
    resumed = distill(task(), PLAN, tmp_path / "killed.safetensors")
    assert resumed.errors == undisturbed.errors and equal(resumed.decisions, undisturbed.decisions)


def test_a_run_of_other_chunks_is_another_run(tmp_path: Path) -> None:
    """Where a checkpoint would go on with what is told otherwise; a run of the same says the same of itself."""
    other = dataclasses.replace(sampling(), facts=dataclasses.replace(FACTS, window=KeyValueWindow(0, 2)))
    assert repr(sampling()) == repr(sampling()) != repr(other)
    assert repr(TrajectorySampling(sampling().create_solver, GUIDANCE, HIGH_STEPS)) != repr(sampling())
