"""Runs of torch experts: the solver's steps, the right expert, guidance, and what an error at one step does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch, an extra")

from wanc.calibration.trajectories import Run, errors, guided_velocity, influence  # noqa: E402

from .small_experts import SAMPLING, experts, requests  # noqa: E402


def test_a_run_is_what_the_runtime_does() -> None:
    """The loop of `denoise`, written out for one request."""
    both, asked = experts(), requests(3)
    found = SAMPLING.run(both, asked)
    solver = SAMPLING.create_solver()
    latents, text, negative = asked.noise[1:2], asked.text[1:2], asked.negative[1:2]
    for step, timestep in enumerate(solver.timesteps.tolist()):
        expert, guidance = (both[0], 2.0) if step < 2 else (both[1], 1.5)
        at = torch.tensor([float(timestep)])
        conditional, unconditional = expert(latents, at, text), expert(latents, at, negative)
        velocity = unconditional + guidance * (conditional - unconditional)
        latents = torch.from_numpy(solver.step(velocity.numpy(), latents.numpy()))
        torch.testing.assert_close(found.velocities[step, 1:2], velocity)
        torch.testing.assert_close(found.latents[step + 1, 1:2], latents)
    assert found.latents.shape == (7, *asked.noise.shape)
    torch.testing.assert_close(found.latents[0], asked.noise)


def test_a_run_can_end_early_and_begin_with_what_is_known() -> None:
    both, asked = experts(), requests(3)
    whole, part = SAMPLING.run(both, asked), SAMPLING.run(both, asked, stop=2)
    assert len(part.velocities) == 2
    torch.testing.assert_close(part.latents, whole.latents[:3], rtol=0, atol=0)

    def never(*_arguments: Any) -> torch.Tensor:
        raise AssertionError("the high-noise expert's velocities are known")

    torch.testing.assert_close(
        SAMPLING.run([never, both[1]], asked, known=[*part.velocities]).latents, whole.latents, rtol=0, atol=0
    )


def test_errors_are_of_every_step_and_request() -> None:
    asked = requests(4)
    expected = SAMPLING.run(experts(), asked)
    assert not errors(expected, expected).any()
    moved = expected.latents.clone()
    moved[3, 1] += 0.5
    found = errors(Run(moved, expected.velocities), expected)
    assert found.shape == (6, 4)
    assert found[2, 1].item() == pytest.approx(0.25)
    assert int(found.count_nonzero()) == 1


def test_the_influence_of_a_step_is_the_solvers_own_where_velocities_do_not_answer() -> None:
    """An expert that always says the same: an error at one step goes on as the solver's arithmetic has it."""
    asked = requests(2)

    def still(latents: torch.Tensor, *_rest: Any) -> torch.Tensor:
        return torch.full_like(latents, 0.3)

    def wrong(latents: torch.Tensor, *_rest: Any) -> torch.Tensor:
        return torch.full_like(latents, 0.5)

    expected = SAMPLING.run([still, still], asked)
    for expert, steps in ((0, range(2)), (1, range(2, 6))):
        found = influence([still, still], SAMPLING, asked, expected, wrong, expert)
        for ratio, step in zip(found.tolist(), steps, strict=True):
            solver, latents = SAMPLING.create_solver(), np.zeros(1, np.float32)
            for each in range(6):
                latents = solver.step(np.full(1, each == step, np.float32), latents)
            assert ratio == pytest.approx(float(latents[0]) ** 2, rel=1e-2)


def test_states_are_chosen_and_joined() -> None:
    asked = requests(5)
    states = asked.at(asked.noise, 700.0)
    both = type(states).joined([states, states[torch.tensor([4, 0])]])
    assert (len(states), len(both)) == (5, 7)
    torch.testing.assert_close(both.latents[5], asked.noise[4])
    expert = experts()[0]
    torch.testing.assert_close(guided_velocity(expert, both, 2.0)[6], guided_velocity(expert, states, 2.0)[0])
