"""The reference: videos of the untouched model, and of it with one activation off in the last place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from wanc.compiler.clips import clips_of
from wanc.compiler.make_reference import make_reference
from wanc.compiler.reference.last_place import Unit, moved, one_place_off
from wanc.compiler.reference.sampling import tapped_steps
from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.report.quality import floors
from wanc.report.reference import ReferenceRecord
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline

from .conftest import CLIPS, PROMPTS

Array = np.ndarray[Any, Any]


def test_a_clip_is_the_untouched_models_from_the_runtimes_noise(record: ReferenceRecord, tiny_bundle: Path) -> None:
    """A float bundle makes the same video but for rounding; what they share is the solver."""
    pipeline = Pipeline.open(tiny_bundle, threads=1)
    for number, clip in enumerate(record.clips):
        assert (clip.prompt, clip.seed) == (PROMPTS[number], 0)
        np.testing.assert_array_equal(clip.latents[0], initial_noise(clip.latents[0].shape, 0))
        made = pipeline.generate(clip.prompt, seed=clip.seed)
        scale = float(np.abs(clip.latents[-1]).max())
        np.testing.assert_allclose(clip.latents[-1], made.latents, atol=1e-4 * scale)
        difference = np.abs(clip.frames.astype(int) - made.frames)
        assert clip.frames.dtype == np.uint8 and difference.max() <= 1 and difference.mean() < 0.01
    assert len(record.clips) == CLIPS


def test_what_is_known_of_a_run_fits_together(record: ReferenceRecord) -> None:
    clip, steps = record.clips[0], len(record.timesteps)
    assert clip.latents.shape == (steps + 1, 1, 16, 5, 8, 8) and clip.guided.shape == (steps, 1, 16, 5, 8, 8)
    assert record.experts[0] == "denoiser_high" and record.experts[-1] == "denoiser_low"
    for step in range(steps):
        conditional, unconditional = clip.velocities(step)
        expected = unconditional + np.float32(3.0) * (conditional - unconditional)
        np.testing.assert_allclose(clip.guided[step], expected, atol=1e-5)
    assert record.tapped == (0, 7, 8, 19)
    assert all(clip.blocks(step).shape == (5, 64, 160) for step in record.tapped)
    assert all(np.isfinite(clip.blocks(step)).all() for step in record.tapped)


def test_the_floor_of_a_format_is_what_its_last_place_is_worth(record: ReferenceRecord) -> None:
    """Float32 has 24 binary digits and bfloat16 has 8: a place of one is 65,536 of the other's."""
    fp32, bf16 = floors(record)
    assert (fp32.unit, bf16.unit) == ("fp32", "bf16") and fp32.draws == bf16.draws == CLIPS
    assert 1e-8 < fp32.velocity_error < 1e-5 < 1e-4 < bf16.velocity_error < 2e-2
    assert fp32.summary["psnr_db"].mean > 85 and 50 < bf16.summary["psnr_db"].mean < 85
    assert [entry.step for entry in fp32.drift] == list(range(len(record.timesteps)))
    assert fp32.drift[-1].sqnr_db > bf16.drift[-1].sqnr_db + 40


FORMATS = {"fp32": np.float32, "bf16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("unit", FORMATS)
@given(
    st.lists(
        st.floats(2.0**-90, 2.0**90, width=32) | st.floats(-(2.0**90), -(2.0**-90), width=32), min_size=1, max_size=20
    )
)
def test_values_move_by_one_place(unit: Unit, values: list[float]) -> None:
    """To a neighbour in the format; but for powers of two, below which the places are half as large."""
    array = np.array(values, FORMATS[unit])
    change = moved(torch.from_numpy(array.astype(np.float32)), unit, np.random.default_rng(0)).numpy()
    for value, other in zip(array, change, strict=True):
        place = abs(float(np.nextafter(abs(value), FORMATS[unit](np.inf))) - abs(float(value)))
        assert abs(float(other) - float(value)) == place


def test_a_model_is_one_place_off_for_a_while() -> None:
    folder = ROOT / "models" / "tiny-wan" / "transformer"
    model: Any = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    random = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 16, 2, 4, 4, generator=random), torch.randn(1, 8, 128, generator=random)

    @torch.no_grad()
    def velocity() -> Array:
        return model(latents, torch.tensor([900.0]), text, return_dict=False)[0].numpy()

    before = velocity()
    for unit in get_args(Unit):
        with one_place_off(model, unit, 0) as name:
            first, second = velocity(), velocity()
        assert name.startswith("blocks.") and not np.array_equal(first, before)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(velocity(), before)


def test_each_expert_is_looked_into_at_both_of_its_ends() -> None:
    assert tapped_steps(["high"] * 3 + ["low"] * 2) == [0, 2, 3, 4]
    assert tapped_steps(["high"]) == [0]


def test_every_prompt_comes_with_the_first_seed_before_one_comes_with_the_next(evaluated: Path) -> None:
    (loaded,) = load(evaluated, ["evaluate.seeds=[3, 5]", "evaluate.clips=4"])
    assert clips_of(loaded) == (*((prompt, 3) for prompt in PROMPTS), (PROMPTS[0], 5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.prompts=nowhere.txt", "the prompts cannot be read"),
        ("evaluate=null", "does not say what its report is about"),
    ],
)
def test_a_recipe_that_says_too_little(override: str, message: str, evaluated: Path, tmp_path: Path) -> None:
    (loaded,) = load(evaluated, [override])
    with pytest.raises(RecipeError, match=message):
        make_reference(loaded, tmp_path / "store", progress=False)
    assert not list(tmp_path.iterdir())
