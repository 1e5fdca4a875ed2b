"""The decoder of Wan's VAE 2.1 at its true size, on random weights: what decoding whole pictures and tiles takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from scripts.tiny_wan.comparison import psnr
from scripts.true_scale import markdown
from wanc.compiler.pipeline import build
from wanc.compiler.planner.recipe_cluster import cluster_of
from wanc.compiler.planner.recipe_plan import SurveyedModel, in_store
from wanc.compiler.stages.worker import call_in_worker
from wanc.folders import Folders
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
Figures = dict[str, Any]
MODEL = replace(MODELS["tiny"], vae=MODELS["wan2.1-t2v-1.3b"].vae)
"""All else is as small as can be."""
RECIPE = """\
wanc: 1
name: vae
model: {{source: model}}
shapes: [{{name: picture, height: {height}, width: {width}, frames: 5}}]
sampling: {{steps: 2, shift: 4.0, guidance: {{high: 1.0, low: 1.0}}}}
engine: {{check: off}}
"""
PROMPTS = "A red fox runs over fresh snow.\nA tram crosses a wet square at night.\n"
FORMATS = {
    "float32": (),
    "bfloat16": ("precision.compute=bf16", "precision.islands=[residual, modulation, norm, rope, time]"),
    "int8": (
        "quantize.vae_decoder=int8",
        "quantize.calibrate.prompts={folder}/prompts.txt",
        "quantize.calibrate.clips=2",
    ),
}
"""Settings of a recipe by what its decoder computes in."""
GIB = 2**30
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{engine}-{side}": {"engine": engine, "size": (side, side)}
        for engine in ("onnxruntime", "openvino")
        for side in (128, 192)
    },
    **{
        f"openvino-192-{name}": {"engine": "openvino", "size": (192, 192), "format": name}
        for name in ("bfloat16", "int8")
    },
    "tiles-128": {"engine": "onnxruntime", "size": (128, 208), "tile": 128},
    "tiles-192": {"engine": "onnxruntime", "size": (192, 288), "tile": 192},
    "720p-256": {"engine": "onnxruntime", "size": (720, 1280), "tile": 256},
    "720p-4gib": {"engine": "onnxruntime", "size": (720, 1280), "budget": 4 * GIB},
}
COLUMNS = (
    "case", "engine", "picture", "tiles", "work", "disk a value", "predicted, MiB", "measured, MiB", "CPU s",
    "PSNR, dB",
)  # fmt: skip
LATENT_FRAMES = 2
"""One through each graph."""


def measured(
    folder: Path,
    engine: str,
    size: tuple[int, int],
    budget: int | None = None,
    tile: int = 0,
    format: str = "float32",
) -> Figures:
    """Build a bundle for pictures of a size, height and width in pixels, and decode two latent frames in a process.

    Pictures are decoded in tiles of `tile` pixels if that is not 0, else as a budget in bytes demands. Peaks are of the
    whole process, and so are the predicted ones. `folder` has the checkpoint, made if it is not there, and the store;
    what float32 gave there before is what pictures in other formats are compared with.
    """
    if not (folder / "model").exists():
        make(MODEL, "diffusers", folder / "model", seed=0)
    (folder / "recipe.yaml").write_text(RECIPE.format(height=size[0], width=size[1]))
    (folder / "prompts.txt").write_text(PROMPTS)
    asked = [f"runtime.decode.tile={{height: {tile}, width: {tile}}}"] if tile else []
    asked += [f"runtime.budgets.device={budget}"] if budget else []
    (loaded,) = load(
        folder / "recipe.yaml",
        [f"engine.kind={engine}", *asked, *(setting.format(folder=folder) for setting in FORMATS[format])],
    )
    result = build(loaded, folder / "out", progress=False, replace=True)
    pictures = folder / f"{engine}-{size[0]}-{size[1]}-{format}.npy"
    row = {
        "engine": engine,
        "format": format,
        "size": list(size),
        **_predicted(loaded, folder, size, budget),
        **call_in_worker("decode", _decode, result.bundle, size, pictures),
    }
    floats = folder / pictures.name.replace(format, "float32")
    return {**row, "psnr_db": round(psnr(np.load(floats), np.load(pictures)), 2) if floats != pictures else None}


def _predicted(loaded: LoadedRecipe, folder: Path, size: tuple[int, int], budget: int | None) -> Figures:
    model = SurveyedModel.of(loaded, in_store(Folders.chosen(folder / "out"), progress=False), (DECODER,))
    assert loaded.recipe.shapes is not None
    how = model.decoding(loaded.recipe.shapes[0], cluster_of(loaded).pools[0].device, budget)
    taken = how.tiled if how.is_tiled and how.tiled is not None else how.whole
    tiling = taken.tiling
    return {
        "tile": list(tiling.tile) if tiling else None,
        "stride": list(tiling.stride) if tiling else None,
        "tiles": tiling.count(*size) if tiling else 1,
        "work": round(taken.work, 3),
        "disk_bytes": taken.disk_bytes,
        "predicted_bytes": taken.bytes,
    }


def _decode(bundle: Path, size: tuple[int, int], pictures: Path) -> Figures:
    """Peaks are told behind each latent frame of each tile: nothing may grow from tile to tile."""
    pipeline, timer, peaks = Pipeline.open(bundle, threads=0), Timer(), list[int]()
    shape = (1, 16, LATENT_FRAMES, *(side // pipeline.bundle.model.spatial_stride for side in size))
    latents = np.random.Generator(np.random.Philox(0)).standard_normal(shape, dtype=np.float32)
    started = time.process_time()
    shown: list[Array] = []
    for frames in pipeline.decode([latents], timer, lambda *_: peaks.append(peak_rss_bytes())):
        assert frames.std() > 1, "the picture is of one colour"
        shown.append(frames.copy())
    peak = peak_rss_bytes()
    np.save(pictures, np.concatenate(shown))
    return {
        "peak_rss_bytes": peak,
        "first_tile_bytes": peaks[LATENT_FRAMES],
        "seconds": round(timer.seconds["decode"], 1),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """For people."""
    lines = ["# Decoding with the VAE of Wan 2.1", "", markdown.row(COLUMNS), markdown.row(["---"] * len(COLUMNS))]
    for name, row in rows.items():
        height, width = row["size"]
        tiles = f"{row['tiles']} of {row['tile'][1]} × {row['tile'][0]}" if row["tile"] else "whole"
        disk = f"{row['disk_bytes'] / (5 * 3 * height * width):.2f} bytes"
        predicted, peak = (f"{row[key] / 2**20:,.0f}" for key in ("predicted_bytes", "peak_rss_bytes"))
        cells = [name, row["engine"], f"{width} × {height}", tiles, f"{row['work']:.2f}×", disk]
        psnr = f"{row['psnr_db']:.1f}" if row.get("psnr_db") else ""
        lines.append(markdown.row([*cells, predicted, peak, f"{row['cpu_seconds']:,.0f}", psnr]))
    what = (
        "Two latent frames, which are five frames of video; random weights; float32, or as the case says, beside that."
    )
    return "\n".join(lines) + f"\n\n{what}\n"
