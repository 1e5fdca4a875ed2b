from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from wanc.compiler.engines.openvino import compiler as openvino
from wanc.compiler.engines.whole_islands import WHOLE
from wanc.compiler.graphs import hoist
from wanc.compiler.passes.registry import all_passes
from wanc.recipe.load import load
from wanc.recipe.schema import PARTS, GuidanceSection, PassName, Recipe
from wanc.words import ISLANDS

Write = Callable[[str, str | bytes], Path]


def test_defaults(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    recipe = loaded.recipe
    assert recipe.model.components is None
    assert recipe.sampling is not None
    assert recipe.sampling.fps == 16
    assert recipe.sampling.negative_prompt == ""
    assert recipe.sampling.timesteps is None
    assert (recipe.precision.compute, recipe.islands) == ("fp32", ISLANDS)
    assert (recipe.fuse.passes, recipe.fuse.skip, recipe.fuse.hoist) == ("default", (), PARTS)
    assert (recipe.quantize.scheme, recipe.quantize.rounds_activations) == ("none", False)
    assert [(device.kind, device.count) for device in recipe.partition.devices] == [("cpu", 1)]
    assert (recipe.engine.kind, recipe.targets) == ("onnxruntime", ("cpu",))
    assert recipe.engine.allow_unfused == ()
    assert recipe.runtime.threads == 0


def test_few_step_model(write: Write, tiny: str) -> None:
    text = tiny.replace("steps: 20", "timesteps: [1000, 750, 500, 250]")
    text = text.replace("  guidance: {high: 4.0, low: 3.0}\n", "")
    (loaded,) = load(write("recipe.yaml", text))
    assert loaded.recipe.sampling is not None
    assert loaded.recipe.sampling.steps is None
    assert loaded.recipe.sampling.timesteps == (1000.0, 750.0, 500.0, 250.0)
    assert loaded.recipe.sampling.guidance == GuidanceSection(high=1.0, low=1.0)


def test_components_have_the_models_order(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["model.components=[vae_decoder, denoiser_low]"])
    assert loaded.recipe.model.components == ("denoiser_low", "vae_decoder")


def test_recipes_are_frozen_and_hashable(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    with pytest.raises(ValidationError):
        setattr(loaded.recipe, "name", "other")  # noqa: B010
    assert hash(loaded.recipe) == hash(Recipe.model_validate(loaded.recipe.model_dump()))


def test_bf16_takes_an_engine_that_has_it(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["precision.compute=bf16", "engine.kind=openvino"])
    assert (loaded.recipe.precision.compute, loaded.recipe.engine.kind) == ("bf16", "openvino")


def test_passes_are_named_in_any_order(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["fuse.passes=[rope, fold]", "fuse.skip=[fold]"])
    assert (loaded.recipe.fuse.passes, loaded.recipe.fuse.skip) == (("rope", "fold"), ("fold",))


def test_the_passes_that_a_recipe_can_name_are_those_that_there_are() -> None:
    assert set(get_args(PassName)) == {entry.name for entry in all_passes()}


def test_the_parts_that_a_recipe_can_name_are_those_of_a_denoising_step() -> None:
    # What a branch keeps of the past is decoded where it is used: in a part of its own it would be kept in float32.
    assert set(PARTS) == {*hoist.PARTS.values()} - {"chunk-branch"}


def test_the_islands_that_a_recipe_can_name_are_those_that_the_engine_makes() -> None:
    """`time` is no kind of operation but a graph of its own."""
    assert set(ISLANDS) == {*openvino.ISLANDS, *WHOLE}
