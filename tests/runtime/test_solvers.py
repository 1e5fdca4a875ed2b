"""Each solver against its counterpart in diffusers, step by step, and the schedules that Wan's experts rely on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_flow_match_lcm

from wanc.runtime.errors import UserError
from wanc.runtime.solvers.base import Solver
from wanc.runtime.solvers.create import SOLVERS, create_schedule, create_solver
from wanc.runtime.solvers.schedule import count_high_noise_steps

SHIFTS = [1.0, 3.0, 5.0, 12.0]
STEPS = range(1, 51)
SHAPE = (1, 2, 3, 4, 5)
FEW_STEP_LISTS = [[1000, 750, 500, 250], [1000, 757, 522], [1000, 500], [875.0, 12.5]]

# diffusers' DPM-Solver++ does it to its own tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Relative to the largest element. Ours leaves one float32 rounding (6e-8); diffusers in float32 carries a sample of its
# own through all the steps and gathers up to ten of them.
STEP_TOLERANCE = 1e-6


REAL_TIMESTEPS = ("euler", "lcm")
NOISE = np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)


@pytest.fixture(autouse=True)
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one scheduler adds of noise is drawn from torch's generator, which we do not have."""
    monkeypatch.setattr(scheduling_flow_match_lcm, "randn_tensor", lambda *_, **__: torch.from_numpy(NOISE))


def solver_of(name: str, **settings: Any) -> Solver:
    return create_solver(name, noise_of=lambda _step, shape: NOISE.reshape(shape), **settings)


def reference_scheduler(name: str, shift: float):
    if name == "lcm":
        return diffusers.FlowMatchLCMScheduler(shift=shift)
    if name == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift, "solver_order": 2}
    if name == "unipc":
        return diffusers.UniPCMultistepScheduler(solver_type="bh2", final_sigmas_type="zero", **flow)
    return diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", final_sigmas_type="zero", **flow)


def even_reference(name: str, steps: int, shift: float):
    scheduler = reference_scheduler(name, shift)
    scheduler.set_timesteps(steps)
    return scheduler


def listed_reference(name: str, timesteps: Sequence[float], shift: float):
    """diffusers takes raw sigmas for UniPC and Euler; for DPM-Solver++ it takes none, so the schedule is UniPC's."""
    raw = [timestep / 1000 for timestep in timesteps]
    if name != "dpm++":
        scheduler = reference_scheduler(name, shift)
        scheduler.set_timesteps(sigmas=np.array(raw))
        return scheduler
    donor = listed_reference("unipc", timesteps, shift)
    scheduler = even_reference(name, len(timesteps), shift)
    scheduler.sigmas, scheduler.timesteps = donor.sigmas, donor.timesteps
    return scheduler


def oscillating_velocity(latents: np.ndarray, sigma: float) -> np.ndarray:
    """A denoiser far from linear and from smooth, so that every coefficient of the solver matters."""
    return (np.sin(3 * latents + 5 * sigma) + 0.7 * latents).astype(np.float32)


def assert_same_schedule(solver: Solver, scheduler) -> None:
    np.testing.assert_allclose(solver.sigmas, scheduler.sigmas.numpy(), rtol=1e-6)
    expected = scheduler.timesteps.numpy()
    assert solver.timesteps.dtype == expected.dtype
    if expected.dtype == np.int64:
        np.testing.assert_array_equal(solver.timesteps, expected)
    else:
        np.testing.assert_allclose(solver.timesteps, expected, rtol=1e-6)


def largest_step_error(solver: Solver, scheduler, dtype: torch.dtype) -> float:
    """The worst relative error of a step, when both start each step from our latents.

    In float64 the reference evaluates its own formulas on its own float32 sigmas, free of its own roundings.
    """
    scheduler.sigmas = scheduler.sigmas.to(dtype)
    scheduler.set_begin_index(0)
    latents = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    worst = 0.0
    for index in range(solver.steps):
        velocity = oscillating_velocity(latents, float(solver.sigmas[index]))
        (expected,) = scheduler.step(
            torch.from_numpy(velocity).to(dtype),
            scheduler.timesteps[index],
            torch.from_numpy(latents).to(dtype),
            return_dict=False,
        )
        latents = solver.step(velocity, latents)
        assert latents.dtype == np.float32
        worst = max(worst, float(np.abs(latents - expected.numpy()).max() / np.abs(expected.numpy()).max()))
    return worst


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_step_equals_diffusers_in_exact_arithmetic(name: str, shift: float) -> None:
    for steps in STEPS:
        solver, scheduler = solver_of(name, steps=steps, shift=shift), even_reference(name, steps, shift)
        assert_same_schedule(solver, scheduler)
        assert largest_step_error(solver, scheduler, torch.float64) < STEP_TOLERANCE, f"{steps} steps"


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_step_equals_diffusers_as_shipped(name: str, shift: float) -> None:
    """In float32 diffusers carries its own roundings, so what is checked is that they are all there is."""
    for steps in (1, 2, 3, 4, 14, 15, 20, 40, 50):
        solver, scheduler = solver_of(name, steps=steps, shift=shift), even_reference(name, steps, shift)
        assert largest_step_error(solver, scheduler, torch.float32) < STEP_TOLERANCE, f"{steps} steps"


@pytest.mark.parametrize("timesteps", FEW_STEP_LISTS)
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_listed_timesteps_equal_diffusers(name: str, shift: float, timesteps: list[float]) -> None:
    solver, scheduler = solver_of(name, timesteps=timesteps, shift=shift), listed_reference(name, timesteps, shift)
    assert_same_schedule(solver, scheduler)
    assert largest_step_error(solver, scheduler, torch.float64) < STEP_TOLERANCE


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_whole_trajectory_equals_diffusers(name: str) -> None:
    """Each side goes its own way for 40 steps: the smooth flow to a Gaussian target neither amplifies roundings."""
    solver, scheduler = solver_of(name, steps=40, shift=12.0), even_reference(name, 40, 12.0)
    scheduler.set_begin_index(0)
    ours = np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    theirs = torch.from_numpy(ours.copy())
    for index, sigma in enumerate(solver.sigmas[:-1].tolist()):
        ours = solver.step(gaussian_velocity(ours, sigma), ours)
        velocity = torch.from_numpy(gaussian_velocity(theirs.numpy(), sigma))
        theirs = scheduler.step(velocity, scheduler.timesteps[index], theirs, return_dict=False)[0]
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=5e-6)


def gaussian_velocity(latents: np.ndarray, sigma: float, deviation: float = 0.5) -> np.ndarray:
    """The exact velocity field when clean samples are normal with the given deviation: E[noise - clean | latents]."""
    clean, noise = (1 - sigma) * deviation**2, sigma
    return (latents * ((noise - clean) / ((1 - sigma) ** 2 * deviation**2 + sigma**2))).astype(np.float32)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm++", 2), ("unipc", 2)])
def test_error_falls_with_the_order_of_the_method(name: str, order: int) -> None:
    """A check that leans on no other implementation: for a Gaussian target the flow has a closed form."""

    def error(steps: int) -> float:
        solver = create_solver(name, steps=steps, shift=1.0)
        latents = np.ones((1,), np.float32)
        sigmas = solver.sigmas.astype(np.float64)
        last = steps - steps // 10  # near sigma = 0 every solver drops to first order, so measure before it
        spread = [math.hypot((1 - sigma) * 0.5, sigma) for sigma in sigmas]
        for index in range(last):
            latents = solver.step(gaussian_velocity(latents, float(sigmas[index])), latents)
        return abs(float(latents[0]) - spread[last] / spread[0])

    assert error(40) / error(80) > 0.8 * 2**order


@pytest.mark.parametrize(
    ("steps", "shift", "boundary", "high", "low"),
    [
        (40, 12.0, 0.875, 26, 14),
        (20, 12.0, 0.875, 13, 7),
        (50, 12.0, 0.875, 32, 18),
        (40, 3.0, 0.875, 13, 27),
        (40, 5.0, 0.9, 15, 25),
    ],
    ids=["t2v-40", "t2v-20", "t2v-50", "t2v-converted-shift-3", "i2v-40"],
)
def test_steps_of_the_two_experts(steps: int, shift: float, boundary: float, high: int, low: int) -> None:
    timesteps = create_solver("unipc", steps=steps, shift=shift).timesteps
    count = count_high_noise_steps(timesteps, boundary)
    assert (count, steps - count) == (high, low)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_few_step_schedule_gives_each_expert_two_steps(name: str) -> None:
    schedule = create_schedule(name, timesteps=[1000, 750, 500, 250], shift=5.0)
    expected = [1000.0, 937.5, 2500 / 3, 625.0] if name in REAL_TIMESTEPS else [999, 937, 833, 625]
    np.testing.assert_allclose(schedule.timesteps, expected, rtol=1e-6)
    assert count_high_noise_steps(schedule.timesteps, 0.875) == 2


def test_the_boundary_itself_belongs_to_the_high_noise_expert() -> None:
    assert count_high_noise_steps(np.array([900, 875, 874]), 0.875) == 2


def test_schedules_stay_finite_up_to_the_most_steps() -> None:
    for name in SOLVERS:
        solver = create_solver(name, steps=1000, shift=12.0)
        latents = np.ones((2,), np.float32)
        for sigma in solver.sigmas[:-1].tolist():
            latents = solver.step(gaussian_velocity(latents, sigma), latents)
        assert np.isfinite(latents).all(), name


def test_noise_that_is_added_anew_is_other_noise_at_each_step() -> None:
    """A step goes to the clean sample, here zero: what stands behind it is noise alone, and behind the last nothing."""
    solver, latents = create_solver("lcm", steps=4, shift=5.0), np.ones((1, 500), np.float32)
    seen = [latents := solver.step(latents / np.float32(sigma), latents) for sigma in solver.sigmas[:-1]]
    for (index, one), sigma in zip(enumerate(seen[:-1]), solver.sigmas[1:], strict=False):
        assert abs(float(one.std()) / float(sigma) - 1) < 0.2
        assert all(abs(np.corrcoef(one, other)[0, 1]) < 0.2 for other in seen[index + 1 : -1])
    assert not np.abs(seen[-1]).max() > 1e-6


def misuse_of(arguments: dict[str, object]) -> Callable[[], object]:
    return lambda: create_solver(**({"name": "unipc", "shift": 5.0} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "heun", "steps": 4}, "no solver is called 'heun'"),
        ({"steps": 0}, "0 sampling steps"),
        ({"steps": 1001}, "1001 sampling steps"),
        ({"steps": 4, "shift": 0.0}, "the shift is 0.0"),
        ({"steps": 4, "shift": math.nan}, "the shift is nan"),
        ({}, "either a number of steps or a list of timesteps"),
        ({"steps": 2, "timesteps": [1000, 500]}, "either a number of steps or a list of timesteps"),
        ({"timesteps": []}, "cannot be a schedule"),
        ({"timesteps": [500, 750]}, "cannot be a schedule"),
        ({"timesteps": [1001, 750]}, "cannot be a schedule"),
        ({"timesteps": [750, 0]}, "cannot be a schedule"),
        ({"timesteps": [750, math.nan]}, "cannot be a schedule"),
        ({"timesteps": [1000, 999.9999]}, "two steps have the same noise level"),
    ],
)
def test_numbers_that_make_no_schedule_are_user_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        misuse_of(arguments)()


def test_misuse_of_a_solver_is_a_bug_and_not_a_user_error() -> None:
    solver = create_solver("euler", steps=1, shift=1.0)
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="one shape"):
        solver.step(ones[:1], ones)
    with pytest.raises(ValueError, match="float32"):
        solver.step(ones.astype(np.float64), ones)  # type: ignore[arg-type]
    solver.step(ones, ones)
    with pytest.raises(RuntimeError, match="all of them were made"):
        solver.step(ones, ones)
