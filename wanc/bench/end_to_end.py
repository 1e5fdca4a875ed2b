"""From a prompt to frames: a recipe's bundles beside diffusers' own pipeline, on the same threads.

Errors are of the final latents, and told as multiples of what a change in the last place of the reference does as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from wanc.bench.contest import FLOAT_TOOLS, ContestResult, contest, machine
from wanc.bench.reference import DiffusersReference, psnr, relative_error
from wanc.compiler.pipeline import build
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.compiler.reference.last_place import Unit
from wanc.errors import UserError
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.denoise import GRAPH
from wanc.runtime.folder import PlainFolder
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline
from wanc.words import Compute, EngineKind

REFERENCE, AUTOCAST = "diffusers WanPipeline, eager fp32", "diffusers WanPipeline, autocast bf16"
ENGINES: tuple[tuple[EngineKind, Compute], ...] = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
"""What is built and executed on a processor."""
NOT_QUANTIZED = "quantize={scheme: none}"
PROMPT, SEED = "A red circle moves to the left.", 3


@dataclass(frozen=True)
class MeasuredVariant:
    """A bundle of the recipe: what it is called, and the overrides that it is built with."""

    name: str
    compute: Compute
    overrides: tuple[str, ...]


def contenders(loaded: LoadedRecipe) -> list[MeasuredVariant]:
    """The bundles of a recipe that are measured: for every engine that it leaves open, in floats and as it quantises.

    Raises UserError where it fixes an engine that is not executed on a processor.
    """
    recipe = loaded.recipe
    fixed_kind = "kind" in recipe.engine.model_fields_set
    fixed_compute = "compute" in recipe.precision.model_fields_set
    engines: list[tuple[EngineKind, Compute]] = [
        (kind, compute)
        for kind, compute in ENGINES
        if (not fixed_kind or kind == recipe.engine.kind) and (not fixed_compute or compute == recipe.precision.compute)
    ]
    if not engines:
        asked = f"{recipe.engine.kind} in {recipe.precision.compute}"
        raise UserError(
            f"{asked} is not executed on this processor, so that there is nothing to measure",
            where=str(loaded.files[0]),
            hint="leave it to the benchmark: --set engine.kind=openvino --set precision.compute=bf16",
        )
    schemes = ", ".join(recipe.quantize.schemes)
    found: list[MeasuredVariant] = []
    for kind, compute in engines:
        name = f"wanc {kind}" if compute == "fp32" else f"wanc {kind} {compute}"
        settings = (f"engine.kind={kind}", f"precision.compute={compute}")
        found.append(MeasuredVariant(name, compute, (*settings, *([NOT_QUANTIZED] if schemes else []))))
        if schemes:
            found.append(MeasuredVariant(f"{name}, {schemes}", compute, settings))
    return found


def bench_end_to_end(
    recipe: Path, overrides: list[str], *, threads: int, rounds: int, output: Path, progress: bool
) -> dict[str, Any]:
    """Build a recipe's bundles below `output`, and measure whole videos. Returns the report.

    Raises UserError where the recipe's model is no checkpoint that diffusers can read.
    """
    loaded, *others = load(recipe, overrides)
    if others:
        hint = f"measure one of them, as a recipe of its own; it has {1 + len(others)}"
        raise UserError("a recipe of several variants is not measured at once", where=str(recipe), hint=hint)
    source = loaded.recipe.model.source
    if source is None or loaded.recipe.sampling is None or not (Path(source) / "model_index.json").is_file():
        raise UserError("a whole video is compared with diffusers': the recipe needs a checkpoint in its layout")
    torch.set_num_threads(threads)
    ours = {one.name: one for one in contenders(loaded)}
    pipelines = {name: _pipeline(recipe, overrides, one, threads, output, progress) for name, one in ours.items()}
    bundle = next(iter(pipelines.values())).bundle
    noise = initial_noise(bundle.latent_shape(bundle.shape(None, None)), SEED)
    sampling, reference = loaded.recipe.sampling, DiffusersReference(Path(source), bundle.model.text_length)
    steps: dict[str, Callable[[], Any]] = {
        REFERENCE: lambda: reference.generate(PROMPT, noise, sampling),
        AUTOCAST: lambda: reference.generate(PROMPT, noise, sampling, is_autocast=True),
    }
    for name, pipeline in pipelines.items():
        steps[name] = lambda pipeline=pipeline: pipeline.generate(PROMPT, latents=noise)
    measured = contest(steps, rounds, progress=progress)
    wanted = measured[REFERENCE][1]
    floors: dict[Compute, float] = {
        unit: relative_error(reference.generate(PROMPT, noise, sampling, off=unit).latents, wanted.latents)
        for unit in get_args(Unit)
    }
    entries: list[dict[str, Any]] = []
    for name, (seconds, video) in measured.items():
        linears, products = _shares(pipelines[name].bundle.folder) if name in pipelines else (0.0, 0.0)
        error = relative_error(video.latents, wanted.latents)
        compute: Compute = ours[name].compute if name in ours else "bf16" if name == AUTOCAST else "fp32"
        quality = psnr(video.frames, wanted.frames)
        result = ContestResult(name, seconds, error, int8_linear_share=linears, int8_total_share=products)
        entries.append(
            {
                **result.as_json(),
                "floors": error / floors[compute],
                # JSON has no infinity, which is what equal frames have.
                "psnr_db": round(quality, 2) if np.isfinite(quality) else None,
            }
        )
    shape = bundle.shape(None, None)
    case = {
        "recipe": loaded.recipe.name,
        "video": f"{shape.frames}x{shape.height}x{shape.width}",
        "steps": sampling.steps,
        "guidance": sampling.guidance.model_dump(),
        "threads": threads,
        "floors": floors,
    }
    only = "int8" if loaded.recipe.quantize.schemes else None
    return {"case": case, "machine": machine(FLOAT_TOOLS), "threads": threads, "only": only, "contenders": entries}


def _pipeline(
    recipe: Path, overrides: list[str], contender: MeasuredVariant, threads: int, output: Path, progress: bool
) -> Pipeline:
    own = re.sub(r"[ ,]+", "-", contender.name.removeprefix("wanc "))
    (loaded,) = load(recipe, [*overrides, *contender.overrides])
    name = f"name={loaded.recipe.name}-{own}"
    (loaded,) = load(recipe, [*overrides, *contender.overrides, name])
    return Pipeline.open(build(loaded, output, progress=progress).bundle, threads=threads)


def _shares(folder: PlainFolder) -> tuple[float, float]:
    """The least shares in INT8 of a bundle's denoisers: of the Linears of a step, and of all that it multiplies."""
    report = folder.read(ENGINE_REPORT, lambda path: json.loads(path.read_bytes()))
    steps = [graphs[GRAPH] for graphs in report["components"].values() if GRAPH in graphs]
    return min(step["int8_linear_share"] for step in steps), min(step["int8_total_share"] for step in steps)
