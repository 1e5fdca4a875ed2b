from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from wanc.recipe import Recipe, load
from wanc.recipe.schema import Guidance

Write = Callable[[str, str | bytes], Path]


def test_defaults(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    recipe = loaded.recipe
    assert recipe.model.components is None
    assert recipe.sampling is not None
    assert recipe.sampling.fps == 16
    assert recipe.sampling.negative_prompt == ""
    assert recipe.sampling.timesteps is None
    assert recipe.precision.compute == "fp32"
    assert recipe.fuse.passes == "default"
    assert recipe.quantize.scheme == "none"
    assert [(device.kind, device.count) for device in recipe.partition.devices] == [("cpu", 1)]
    assert (recipe.engine.kind, recipe.engine.targets) == ("onnxruntime", ("cpu",))
    assert recipe.runtime.threads == 0


def test_few_step_model(write: Write, tiny: str) -> None:
    text = tiny.replace("steps: 20", "timesteps: [1000, 750, 500, 250]")
    text = text.replace("  guidance: {high: 4.0, low: 3.0}\n", "")
    (loaded,) = load(write("recipe.yaml", text))
    assert loaded.recipe.sampling is not None
    assert loaded.recipe.sampling.steps is None
    assert loaded.recipe.sampling.timesteps == (1000.0, 750.0, 500.0, 250.0)
    assert loaded.recipe.sampling.guidance == Guidance(high=1.0, low=1.0)


def test_components_have_the_models_order(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["model.components=[vae_decoder, denoiser_low]"])
    assert loaded.recipe.model.components == ("denoiser_low", "vae_decoder")


def test_recipes_are_frozen_and_hashable(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    with pytest.raises(ValidationError):
        setattr(loaded.recipe, "name", "other")  # noqa: B010
    assert hash(loaded.recipe) == hash(Recipe.model_validate(loaded.recipe.model_dump()))
