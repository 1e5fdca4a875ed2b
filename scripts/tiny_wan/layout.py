"""Saves the trained parts as the directory that ``diffusers.WanPipeline.from_pretrained`` expects, in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import AutoTokenizer

from . import configuration, tokenizer
from .flow_phase import Denoiser
from .vae_phase import held_out_clips, psnr

CAUSAL_CLASS = "CausalWanTransformer3DModel"
"""What says of the denoiser that it is causal: its weights do not."""


def save(folder: Path, vae: AutoencoderKLWan, denoiser: Denoiser, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Write every component. ``mean`` and ``std`` are float32 [16], the statistics of the latents."""
    tokenizer.save(folder / "tokenizer")
    statistics: configuration.Config = {"latents_mean": mean.tolist(), "latents_std": std.tolist()}
    # A fresh module has plain memory layouts, which the file format wants.
    saved_vae = AutoencoderKLWan(**configuration.VAE, **statistics)
    saved_vae.load_state_dict(vae.state_dict())
    scheduler: Any = UniPCMultistepScheduler(**configuration.SCHEDULER)  # the annotation names another one
    pipeline = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=denoiser.text_encoder.bfloat16(),
        vae=saved_vae.bfloat16(),
        scheduler=scheduler,
        transformer=denoiser.high.bfloat16(),
        transformer_2=denoiser.low.bfloat16(),
        boundary_ratio=configuration.BOUNDARY_RATIO,
        expand_timesteps=False,
    )
    pipeline.save_pretrained(folder)
    # The pipeline writes its own wording of the tokenizer's settings; ours is the shorter one.
    tokenizer.save(folder / "tokenizer")


def save_causal(folder: Path, expert: WanTransformer3DModel) -> None:
    """Write the denoiser alone: what it shares with tiny-wan is taken from there."""
    expert.bfloat16().save_pretrained(folder / "transformer")
    config = folder / "transformer" / "config.json"
    marked = {**json.loads(config.read_text("utf-8")), "_class_name": CAUSAL_CLASS, "num_frame_per_block": 1}
    config.write_text(f"{json.dumps(marked, indent=2)}\n", "utf-8")
    index = {"_class_name": "WanCausalPipeline", "transformer": ["diffusers", CAUSAL_CLASS]}
    (folder / "model_index.json").write_text(f"{json.dumps(index, indent=2)}\n", "utf-8")


def size_in_bytes(folder: Path) -> int:
    """All files together."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def saved_vae_psnr(folder: Path, clips: int) -> float:
    """Reconstruction PSNR in dB of the saved, rounded autoencoder, computed in float32, on held-out clips."""
    vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return round(psnr(vae, held_out_clips(clips)), 2)
