"""MLPerf's closed division: what it forbids is refused by the name of its rule, and the open one takes it."""

from __future__ import annotations

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

from .conftest import Write

CLOSED = """
wanc: 1
name: a
division: closed
model: {source: .}
shapes: [{name: 720p, height: 720, width: 1280, frames: 81}]
sampling: {solver: unipc, steps: 20, shift: 12.0, guidance: {high: 4.0, low: 3.0}, boundary: 0.875}
precision: {compute: bf16}
engine: {kind: openvino}
"""
FORBIDDEN = {
    "sampling.steps=19": "model equivalence",
    "sampling.steps=4": "model equivalence",
    "sampling.solver=euler": "model equivalence",
    "sampling.guidance={high: 1, low: 1}": "model equivalence",
    "sampling.boundary=0.9": "model equivalence",
    "shapes=[{name: a, height: 480, width: 832, frames: 81}]": "model equivalence",
    "shapes=[{name: a, height: 720, width: 1280, frames: 77}]": "model equivalence",
    "precision.islands=[norm]": "reference numerics",
    "sampling.cache=teacache": "no caching",
    "sampling.step_cache={every: 2}": "no caching",
    "runtime.kv_cache={cross: true}": "no caching",
    "runtime.step_cache=true": "no caching",
}
TRAINED = "quantize={scheme: int8, method: qat, calibrate: {prompts: p.txt}}"


def test_the_benchmark_as_it_stands_is_taken(write: Write) -> None:
    (loaded,) = load(write("a.yaml", CLOSED))
    assert loaded.recipe.division == "closed"


@pytest.mark.parametrize("change", FORBIDDEN)
def test_what_is_forbidden_is_refused_by_its_rule(write: Write, change: str) -> None:
    with pytest.raises(RecipeError, match=f"closed division's rule '{FORBIDDEN[change]}'") as caught:
        load(write("a.yaml", CLOSED), [change])
    assert "open" in str(caught.value.hint)


def test_training_is_refused_and_quantising_after_training_is_not(write: Write) -> None:
    with pytest.raises(RecipeError, match="rule 'no retraining'"):
        load(write("a.yaml", CLOSED), [TRAINED])
    assert load(write("a.yaml", CLOSED), [TRAINED.replace("qat", "ptq")])


def test_few_step_models_are_refused(write: Write) -> None:
    few = CLOSED.replace("steps: 20", "timesteps: [1000, 750, 500, 250]").replace(
        "{high: 4.0, low: 3.0}", "{high: 1, low: 1}"
    )
    with pytest.raises(RecipeError, match="rule 'model equivalence'"):
        load(write("a.yaml", few))


@pytest.mark.parametrize("change", [change for change in FORBIDDEN if FORBIDDEN[change] != "no caching"])
def test_the_open_division_takes_it(write: Write, change: str) -> None:
    assert load(write("a.yaml", CLOSED.replace("closed", "open")), [change])
