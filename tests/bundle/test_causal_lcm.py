"""`lcm` in a bundle makes the video that Self-Forcing's procedure makes with diffusers' own transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

import wanc as package
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.causal import CausalVideo, chunks_of
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.timer import Timer

from .test_causal import Pass, asked, expected, open_experts

LISTED, SHIFT, BOUNDARY = (1000, 750, 500, 250), 5.0, 875.0
SAMPLING = f"sampling={{solver: lcm, timesteps: {[*LISTED]}, shift: {SHIFT}}}"
TOLERANCE = 1e-4
"""Relative; each chunk is made behind those that were made before, and roundings of 1e-6 grow from chunk to chunk."""


@pytest.fixture(scope="module")
def pipeline(causal_recipe: Path, causal_bundle: Path) -> Pipeline:
    (loaded,) = load(causal_recipe, ["name=causal-lcm", SAMPLING])
    return package.open(build(loaded, causal_bundle.parents[1], progress=False).bundle, threads=1)


def begun(pipeline: Pipeline) -> CausalVideo:
    request = replace(asked(pipeline), negative_prompt=None)
    return pipeline.video(request, pipeline.encode(request, Timer()))


def sampled(video: CausalVideo, experts: Mapping[str, WanTransformer3DModel], chunks: int) -> list[np.ndarray]:
    """`pipeline/causal_inference.py` of Self-Forcing with two experts, without guidance: at each step the clean sample,
    and new noise for the next one; in double precision.
    """
    warped = [SHIFT * listed / (1000 + (SHIFT - 1) * listed) for listed in LISTED]
    clean: list[np.ndarray] = []
    for chunk in range(chunks):
        latents, again = video.noise_of(chunk, 1), video.solver_of(chunk).noise_of
        for step, sigma in enumerate(warped):
            timestep = 1000 * sigma
            name = "denoiser_high" if timestep >= BOUNDARY else "denoiser_low"
            asked_for = Pass(chunk, name, timestep, latents, video.texts[0], np.empty(0))
            velocity = expected(experts[name], asked_for, clean, video.model.facts.window)
            sample = torch.from_numpy(latents).double() - sigma * torch.from_numpy(velocity).double()
            if step + 1 < len(warped):
                noise = torch.from_numpy(again(step, latents.shape)).double()
                sample = torch.lerp(sample, noise, warped[step + 1])
            latents = sample.float().numpy()
        clean.append(latents)
    return clean


def error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    return max(
        float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in zip(found, wanted, strict=True)
    )


def test_a_video_is_that_of_self_forcings_procedure(pipeline: Pipeline) -> None:
    count = pipeline.latent_frames(asked(pipeline))
    found = [np.array(chunk) for chunk in chunks_of(begun(pipeline), count)]
    wanted = sampled(begun(pipeline), open_experts(), count)
    assert error(found, wanted) < TOLERANCE
    # A planted fault: the noise of a step is that of the step before.
    video = begun(pipeline)
    solver_of = video.solver_of

    def late(chunk: int):  # type: ignore[no-untyped-def]
        solver = solver_of(chunk)
        noise_of = solver.noise_of
        solver.noise_of = lambda step, shape: noise_of(max(0, step - 1), shape)
        return solver

    spoiled = [np.array(chunk) for chunk in chunks_of(replace(video, solver_of=late), count)]
    assert error(spoiled, wanted) > 100 * TOLERANCE
