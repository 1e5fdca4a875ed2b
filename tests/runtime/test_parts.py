"""A component cut into parts: what is known is computed once, and again when something new goes into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wanc.runtime.errors import BundleError
from wanc.runtime.executor import Executor
from wanc.runtime.interface import Input, Interface, Output
from wanc.runtime.parts import Parts
from wanc.runtime.value import Given, Value, as_array, as_values

Array = NDArray[Any]

LATENTS = Input("latents", (1, "rows"), "step", "request")
TIMESTEP = Input("timestep", (1,), "build", "expert")
TEXT = Input("text", (1,), "request", "branch")
SIZES = Input("latents.shape", (2,), "request", "request", "int64", shape_of="latents")
MODULATION = Input("modulation", (1,), "build", "expert")
TABLE = Input("table", ("rows",), "request", "request")
KEYS = Input("keys", (1,), "request", "branch")


def given_by(tensor: Input) -> Output:
    """The output of another graph that this input takes."""
    return Output(tensor.name, tensor.shape)


GRAPHS = {
    "time": Interface((TIMESTEP,), (given_by(MODULATION),)),
    "shape": Interface((SIZES,), (given_by(TABLE),)),
    "request": Interface((TEXT,), (given_by(KEYS),)),
    "step": Interface((LATENTS, MODULATION, TABLE, KEYS), (Output("velocity", (1, "rows")),)),
}


class Engines:
    """Stands in for the executor: every graph's results are simple sums, and every execution is counted."""

    def __init__(self) -> None:
        self.executions: Counter[str] = Counter()
        self.latest: dict[str, Mapping[str, Array]] = {}

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        assert component == "denoiser"
        self.executions[graph] += 1
        self.latest[graph] = {name: as_array(value) for name, value in inputs.items()}
        return as_values(self._results(graph, self.latest[graph]))

    def _results(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if graph == "time":
            return {"modulation": inputs["timestep"] / 1000}
        if graph == "shape":
            return {"table": np.arange(inputs["latents.shape"][1], dtype=np.float32)}
        if graph == "request":
            return {"keys": 10 * inputs["text"]}
        return {"velocity": inputs["latents"] + inputs["modulation"] + inputs["table"] + inputs["keys"]}


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def parts(engines: Engines) -> Parts:
    return Parts("denoiser", GRAPHS, cast(Executor, engines))


def step(parts: Parts, *, timestep: float = 500, branch: str = "conditional", rows: int = 3) -> Array:
    """One execution of `step` as the loop asks for it; the text is the branch's own."""
    text = {"conditional": 1.0, "unconditional": 2.0}[branch]
    given = {
        "latents": np.zeros((1, rows), np.float32),
        "timestep": np.array([timestep], np.float32),
        "text": np.array([text], np.float32),
    }
    return parts.run("step", given, branch=branch)["velocity"].numpy()


def test_everything_is_computed_once_for_equal_inputs(parts: Parts, engines: Engines) -> None:
    first, again = step(parts), step(parts)
    assert engines.executions == {"time": 1, "shape": 1, "request": 1, "step": 2}
    np.testing.assert_array_equal(first, [[10.5, 11.5, 12.5]])
    np.testing.assert_array_equal(again, first)


def test_a_prompt_is_computed_once_for_each_branch(parts: Parts, engines: Engines) -> None:
    for timestep in (900, 500, 100):
        conditional = step(parts, timestep=timestep)
        unconditional = step(parts, timestep=timestep, branch="unconditional")
        np.testing.assert_array_equal(unconditional - conditional, np.full((1, 3), 10, np.float32))
    assert engines.executions == {"time": 3, "shape": 1, "request": 2, "step": 6}


def test_a_timestep_is_computed_once_and_not_kept_for_good(parts: Parts, engines: Engines) -> None:
    for timestep in (900, 900, 500):
        step(parts, timestep=timestep)
    assert engines.executions["time"] == 2
    step(parts, timestep=900)
    assert engines.executions["time"] == 3, "another one had taken its place"


def test_a_new_size_computes_the_tables_again(parts: Parts, engines: Engines) -> None:
    assert step(parts, rows=3).shape == (1, 3)
    assert step(parts, rows=4).shape == (1, 4)
    assert engines.executions["shape"] == 2
    np.testing.assert_array_equal(step(parts, rows=3), [[10.5, 11.5, 12.5]])
    assert engines.executions == {"time": 1, "shape": 2, "request": 1, "step": 3}, "the first size is still known"


def test_a_size_is_given_as_int64(parts: Parts, engines: Engines) -> None:
    step(parts, rows=7)
    sizes = engines.latest["shape"]["latents.shape"]
    assert sizes.dtype == np.int64
    np.testing.assert_array_equal(sizes, [1, 7])


def test_another_request_knows_nothing(engines: Engines) -> None:
    for _ in range(2):
        step(Parts("denoiser", GRAPHS, cast(Executor, engines)))
    assert engines.executions == {"time": 2, "shape": 2, "request": 2, "step": 2}


def test_parts_take_results_of_other_parts(engines: Engines) -> None:
    """Keys that are turned by the table of positions are known with the request, and once for each branch and size."""
    graphs = {**GRAPHS, "request": Interface((TEXT, TABLE), (given_by(KEYS),))}
    parts = Parts("denoiser", graphs, cast(Executor, engines))
    for branch in ("conditional", "unconditional", "conditional"):
        step(parts, branch=branch)
    assert engines.executions == {"time": 1, "shape": 1, "request": 2, "step": 3}
    step(parts, rows=5)
    assert engines.latest["request"]["table"].shape == (5,)
    assert engines.executions["request"] == 3, "the keys of another size are other keys"


def test_every_graph_takes_what_it_declares_and_no_more(parts: Parts, engines: Engines) -> None:
    step(parts)
    taken = {graph: list(inputs) for graph, inputs in engines.latest.items()}
    assert taken == {graph: [tensor.name for tensor in interface.inputs] for graph, interface in GRAPHS.items()}


def test_what_no_graph_gives_is_the_bundle_s_fault(engines: Engines) -> None:
    graphs = {name: interface for name, interface in GRAPHS.items() if name != "request"}
    with pytest.raises(BundleError) as caught:
        step(Parts("denoiser", graphs, cast(Executor, engines)))
    assert caught.value.message == "no graph of denoiser gives keys, and nobody else does"
    assert engines.executions["step"] == 0


def test_the_shape_of_no_input_is_the_bundle_s_fault(engines: Engines) -> None:
    graphs = {**GRAPHS, "shape": Interface((replace(SIZES, shape_of="absent"),), (given_by(TABLE),))}
    with pytest.raises(BundleError) as caught:
        step(Parts("denoiser", graphs, cast(Executor, engines)))
    assert caught.value.message == "a graph of denoiser takes the shape of absent, which is no input"
