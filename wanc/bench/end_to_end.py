"""From a prompt to frames: a recipe's bundles beside diffusers' own pipeline in float32, on the same threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanc.bench.contest import FLOAT_TOOLS, ContestResult, contest, machine
from wanc.bench.reference import DiffusersReference, psnr, relative_error
from wanc.compiler.pipeline import build
from wanc.errors import UserError
from wanc.recipe.load import load
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline

REFERENCE = "diffusers WanPipeline, eager fp32"
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "wanc onnxruntime": ("engine.kind=onnxruntime",),
    "wanc openvino": ("engine.kind=openvino",),
    "wanc openvino bf16": ("engine.kind=openvino", "precision.compute=bf16"),
}
PROMPT, SEED = "A red circle moves to the left.", 3


def bench_end_to_end(
    recipe: Path, overrides: list[str], *, threads: int, rounds: int, output: Path, progress: bool
) -> dict[str, Any]:
    """Build a recipe's bundle for every engine below `output`, and measure whole videos. Returns the report.

    Raises UserError where the recipe's model is no checkpoint that diffusers can read.
    """
    (loaded,) = load(recipe, overrides)
    source = loaded.recipe.model.source
    if source is None or loaded.recipe.sampling is None or not (Path(source) / "model_index.json").is_file():
        raise UserError("a whole video is compared with diffusers': the recipe needs a checkpoint in its layout")
    torch.set_num_threads(threads)
    pipelines = {
        name: _pipeline(recipe, [*overrides, *settings], name, threads, output, progress)
        for name, settings in VARIANTS.items()
    }
    bundle = next(iter(pipelines.values())).bundle
    noise = initial_noise(bundle.latent_shape(bundle.shape(None, None)), SEED)
    sampling, reference = loaded.recipe.sampling, DiffusersReference(Path(source), bundle.model.text_length)
    steps: dict[str, Callable[[], Any]] = {REFERENCE: lambda: reference.generate(PROMPT, noise, sampling)}
    for name, pipeline in pipelines.items():
        steps[name] = lambda pipeline=pipeline: pipeline.generate(PROMPT, latents=noise)
    measured = contest(steps, rounds, progress=progress)
    wanted = measured[REFERENCE][1]
    contenders: list[dict[str, Any]] = []
    for name, (seconds, video) in measured.items():
        result = ContestResult(name, seconds, relative_error(video.latents, wanted.latents))
        quality = psnr(video.frames, wanted.frames)
        # JSON has no infinity, which is what equal frames have.
        contenders.append({**result.as_json(), "psnr_db": round(quality, 2) if np.isfinite(quality) else None})
    shape = bundle.shape(None, None)
    case = {
        "recipe": loaded.recipe.name,
        "video": f"{shape.frames}x{shape.height}x{shape.width}",
        "steps": sampling.steps,
        "guidance": sampling.guidance.model_dump(),
        "threads": threads,
    }
    return {"case": case, "machine": machine(FLOAT_TOOLS), "threads": threads, "only": None, "contenders": contenders}


def _pipeline(recipe: Path, overrides: list[str], name: str, threads: int, output: Path, progress: bool) -> Pipeline:
    bundle_name = name.removeprefix("wanc ").replace(" ", "-")
    (loaded,) = load(recipe, [*overrides, f"name=bench-{bundle_name}"])
    return Pipeline.open(build(loaded, output, progress=progress).bundle, threads=threads)
