"""The training runs from start to end, survives a kill, and leaves a directory that diffusers loads and runs."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training needs torch, an extra")
pytest.importorskip("diffusers", reason="the training needs diffusers, an extra")

from safetensors.torch import load_file  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from scripts import evaluate_tiny_wan, train_tiny_wan  # noqa: E402
from scripts.tiny_wan import (  # noqa: E402
    captions,
    configuration,
    evaluation,
    flow_phase,
    layout,
    scenes,
    tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
WEIGHTS = (
    "text_encoder/model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "transformer_2/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run that nothing disturbed: the folder has ``work`` and ``out``."""
    folder = tmp_path_factory.mktemp("trained")
    train_tiny_wan.train(train_tiny_wan.SMOKE, folder / "work", folder / "out", seed=0)
    return folder


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.nn.utils.clip_grad_norm_

    def killed_in_step(number: int) -> None:
        """Start or continue the run, and let it die in the middle of the step with this number."""
        steps = itertools.count(1)

        def deadly(*arguments: Any, **named: Any) -> torch.Tensor:
            if next(steps) == number:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", deadly)
            with pytest.raises(KeyboardInterrupt):
                train_tiny_wan.train(train_tiny_wan.SMOKE, tmp_path / "work", tmp_path / "out", seed=0)

    # Checkpoints come every two steps: the first run dies one step after that of step 2, the second run makes the
    # last two steps of the autoencoder and dies in the fourth step of the experts.
    killed_in_step(4)
    killed_in_step(2 + 4)
    assert not (tmp_path / "out").exists()
    train_tiny_wan.train(train_tiny_wan.SMOKE, tmp_path / "work", tmp_path / "out", seed=0)

    for name in WEIGHTS:
        one, other = load_file(trained / "out" / name), load_file(tmp_path / "out" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_the_saved_directory_is_small_and_bfloat16(trained: Path) -> None:
    assert layout.size_in_bytes(trained / "out") <= 16e6
    index = json.loads((trained / "out" / "model_index.json").read_text(encoding="utf-8"))
    assert (index["_class_name"], index["boundary_ratio"], index["expand_timesteps"]) == ("WanPipeline", 0.875, False)
    for name in WEIGHTS:
        assert {value.dtype for value in load_file(trained / "out" / name).values()} == {torch.bfloat16}


def test_the_metrics_name_what_was_measured(trained: Path) -> None:
    metrics = json.loads((trained / "work" / "metrics.json").read_text(encoding="utf-8"))
    assert {"vae_seconds", "latents_seconds", "flow_seconds", "held_out_vae_psnr_db", "size_megabytes"} <= set(metrics)


def test_the_pipeline_generates_the_same_clip_from_the_same_noise(trained: Path) -> None:
    generate = evaluate_tiny_wan.torch_generator(trained / "out", steps=2, guidance=3.0)
    clips = [generate("A red circle moves left.", seed) for seed in (1, 1, 2)]
    assert clips[0].shape == (17, 64, 64, 3)
    assert clips[0].dtype == np.uint8
    np.testing.assert_array_equal(clips[0], clips[1])
    assert (clips[0] != clips[2]).any()


def test_transformers_and_tokenizers_read_the_same_tokenizer(trained: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(trained / "out" / "tokenizer")
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.model_max_length) == (0, 1, 64)
    built = tokenizer.build()
    for language in captions.LANGUAGES:
        sentence = captions.caption(scenes.HELD_OUT[3], language, 2)
        assert loaded(sentence).input_ids == built.encode(sentence).ids


def test_text_is_embedded_as_the_pipeline_does(trained: Path) -> None:
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(trained / "out", torch_dtype=torch.float32)
    denoiser = flow_phase.Denoiser(len(pipeline.tokenizer))
    denoiser.text_encoder = pipeline.text_encoder
    prompts = ["A red circle moves left.", "", "On a dark background, a cyan cross drifts upwards."]
    expected = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=configuration.MAX_TEXT_TOKENS)
    found = denoiser.embed(*flow_phase.tokenise(prompts, tokenizer.build()))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_noise_levels_meet_at_the_boundary() -> None:
    level = torch.tensor([0.0, flow_phase.boundary_level(), 1.0])
    torch.testing.assert_close(flow_phase.shifted(level), torch.tensor([0.0, configuration.BOUNDARY_RATIO, 1.0]))


def test_the_noise_of_a_seed_is_fixed() -> None:
    noise = evaluation.noise(5)
    assert (noise.shape, noise.dtype) == ((1, 16, 5, 8, 8), np.float32)
    assert (noise == evaluation.noise(5)).all()
    assert abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize("script", [pytest.param("train_tiny_wan", marks=pytest.mark.slow), "evaluate_tiny_wan"])
def test_help_shows_an_example(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"python -m scripts.{script}" in done.stdout
