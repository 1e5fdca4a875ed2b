"""The causal fine-tune: what a chunk may see while it is trained, and a training that ends in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel  # noqa: E402

from scripts import train_tiny_wan_causal  # noqa: E402
from scripts.tiny_wan import causal_phase  # noqa: E402
from wanc.models.wan.checkpoint import open_checkpoint  # noqa: E402

TINY = Path(__file__).parents[1] / "models" / "tiny-wan"


@pytest.fixture(scope="module")
def model() -> causal_phase.TeacherForced:
    expert = WanTransformer3DModel.from_pretrained(TINY / "transformer_2", torch_dtype=torch.float32)
    return causal_phase.build(expert).eval()


def velocities(model: causal_phase.TeacherForced, past: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        text = torch.zeros(1, 64, 128)
        return model.train_on(past, noisy, torch.full((1, noisy.shape[2]), 0.5), text)


def test_a_chunk_sees_what_is_past_and_clean_and_itself(model: causal_phase.TeacherForced) -> None:
    generator = torch.Generator().manual_seed(1)
    past, noisy, other = (torch.randn(1, 16, 9, 4, 4, generator=generator) for _ in range(3))
    found = velocities(model, past, noisy)
    later, itself = past.clone(), noisy.clone()
    later[:, :, 4:] = other[:, :, 4:]
    torch.testing.assert_close(velocities(model, later, noisy)[:, :, :5], found[:, :, :5])
    assert not torch.allclose(velocities(model, later, noisy)[:, :, 5:], found[:, :, 5:])
    itself[:, :, 4] = other[:, :, 4]
    changed = velocities(model, past, itself)
    torch.testing.assert_close(changed[:, :, [0, 1, 2, 3, 5, 6, 7, 8]], found[:, :, [0, 1, 2, 3, 5, 6, 7, 8]])
    assert not torch.allclose(changed[:, :, 4], found[:, :, 4])


def test_the_first_chunk_is_given_up(model: causal_phase.TeacherForced) -> None:
    """Clean chunks hand on what they saw, so that it is the mask which is looked at."""
    seen = causal_phase.visible(9)
    assert seen[9 + 7].nonzero().flatten().tolist() == [*range(7 - causal_phase.RECENT, 7), 9 + 7]
    assert seen[7].nonzero().flatten().tolist() == [*range(7 - causal_phase.RECENT, 8)]


def test_a_past_in_another_colour_is_of_the_same_scene() -> None:
    scene = train_tiny_wan_causal.latents_phase.scene(1, 3, 3)
    other = train_tiny_wan_causal.recoloured(scene, 3)
    assert other.attributes.colour != scene.attributes.colour
    assert (other.attributes.shape, other.start, other.speed) == (scene.attributes.shape, scene.start, scene.speed)


@pytest.mark.slow
def test_a_few_steps_make_a_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):  # a finished training is not made again
        train_tiny_wan_causal.train(train_tiny_wan_causal.SMOKE, TINY, tmp_path / "work", tmp_path / "causal", seed=0)
    found = open_checkpoint(tmp_path / "causal", family="wan-causal", companion=TINY)
    assert [*found.components] == ["text_encoder", "denoiser_high", "vae_decoder"]
    assert found.causal["num_frame_per_block"].value == 1
    assert np.prod(found.components["denoiser_high"].weights["patch_embedding.weight"].shape) > 0
