"""The denoising loop, with stand-ins for the engines: which branches run, how guidance combines them, and NaNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wanc.runtime.denoise import Expert, denoise
from wanc.runtime.errors import TargetError
from wanc.runtime.executor import Executor
from wanc.runtime.interface import Input, Interface, Output
from wanc.runtime.parts import Parts
from wanc.runtime.solvers.create import create_solver
from wanc.runtime.value import Value

TEXT, NEGATIVE = np.full((1, 2, 3), 2.0, np.float32), np.full((1, 2, 3), 5.0, np.float32)
LATENTS = np.zeros((1, 1, 1, 2, 2), np.float32)


class Engines:
    """The velocity is the text's first value everywhere, so that branches can be told apart."""

    def __init__(self, bad_from: int | None = None) -> None:
        self.calls: list[tuple[str, float, float]] = []
        self._bad_from = bad_from

    def run(self, component: str, graph: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Value]:
        assert graph == "step"
        value = float(inputs["text"].flat[0])
        self.calls.append((component, float(inputs["timestep"][0]), value))
        is_bad = self._bad_from is not None and len(self.calls) > self._bad_from
        return {"velocity": Value(np.full_like(inputs["latents"], np.nan if is_bad else value))}

    def run_together(
        self, component: str, graph: str, inputs: Sequence[Mapping[str, NDArray[Any]]]
    ) -> list[dict[str, Value]]:
        return [self.run(component, graph, entry) for entry in inputs]


STEP = Interface(
    (
        Input("latents", LATENTS.shape, "step", "request"),
        Input("timestep", (1,), "build", "expert"),
        Input("text", TEXT.shape, "request", "branch"),
    ),
    (Output("velocity", LATENTS.shape),),
)


def parts(engines: Engines, component: str) -> Parts:
    """A component in one graph, from which nothing was cut off."""
    return Parts(component, {"step": STEP}, cast(Executor, engines))


def test_guidance_extrapolates_from_the_negative_branch() -> None:
    velocity = Expert("high", 3.0).velocity(parts(Engines(), "high"), LATENTS, 900, TEXT, NEGATIVE)
    np.testing.assert_array_equal(velocity, np.full_like(LATENTS, 5.0 + 3.0 * (2.0 - 5.0)))
    assert velocity.dtype == np.float32


def test_a_guidance_of_one_runs_one_branch() -> None:
    engines = Engines()
    velocity = Expert("low", 1.0).velocity(parts(engines, "low"), LATENTS, 100, TEXT, NEGATIVE)
    np.testing.assert_array_equal(velocity, np.full_like(LATENTS, 2.0))
    assert engines.calls == [("low", 100.0, 2.0)]


def test_every_step_asks_its_expert_and_is_counted() -> None:
    engines, told = Engines(), []
    solver = create_solver("euler", steps=4, shift=1.0)
    denoise(
        lambda component: parts(engines, component),
        solver,
        lambda timestep: Expert("high" if timestep >= 500 else "low", 1.0),
        LATENTS,
        TEXT,
        NEGATIVE,
        lambda phase, done, total: told.append((phase, done, total, len(engines.calls))),
    )
    expected = ["high" if timestep >= 500 else "low" for timestep in solver.timesteps]
    assert [component for component, _, _ in engines.calls] == expected
    assert [timestep for _, timestep, _ in engines.calls] == [float(t) for t in solver.timesteps]
    assert told == [("denoise", done, 4, done) for done in range(5)]


def test_the_parts_of_an_expert_are_opened_when_it_takes_over() -> None:
    engines, opened = Engines(), []
    solver = create_solver("euler", steps=4, shift=1.0)

    def open_parts(component: str) -> Parts:
        opened.append((component, len(engines.calls)))
        return parts(engines, component)

    expert_at = lambda timestep: Expert("high" if timestep > 600 else "low", 1.0)  # noqa: E731
    denoise(open_parts, solver, expert_at, LATENTS, TEXT, NEGATIVE)
    high = sum(timestep > 600 for timestep in solver.timesteps)
    assert opened == [("high", 0), ("low", high)]


def test_a_nan_is_an_error_at_its_step() -> None:
    solver, engines = create_solver("euler", steps=4, shift=1.0), Engines(bad_from=2)
    with pytest.raises(TargetError) as caught:
        denoise(
            lambda component: parts(engines, component),
            solver,
            lambda _: Expert("high", 1.0),
            LATENTS,
            TEXT,
            NEGATIVE,
        )
    assert f"the step at timestep {solver.timesteps[2]:g}" in caught.value.message
