"""Measures what its decoder in fewer bits costs tiny-wan: pictures of held-out videos beside the float decoder's.

Each variant of recipes/tiny-wan-vae-decoder.yaml is built, and decodes the same latents, which the float bundle has
denoised. Rounds of all variants take turns, so that their times can be compared where nothing else runs.

example:
  python -m scripts.vae_decoder_tiny_wan --out docs/results
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scripts.tiny_wan.comparison import psnr
from scripts.tiny_wan.evaluation import cases
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.decode import decode
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "tiny-wan-vae-decoder.yaml"
NAME = "vae-decoder-tiny-wan"
VIDEOS, STEPS = 40, 20
FLOAT = "float"
Array = np.ndarray[Any, Any]
Figures = dict[str, Any]


def built(out: Path) -> dict[str, Pipeline]:
    """The recipe's variants, each open."""
    found: dict[str, Pipeline] = {}
    for loaded in load(RECIPE):
        bundle = build(loaded, out, progress=sys.stderr.isatty(), replace=True).bundle
        found[str(loaded.recipe.name).removeprefix(f"{RECIPE.stem}-")] = Pipeline.open(bundle, threads=1)
    return found


def denoised(pipeline: Pipeline, videos: int) -> list[Array]:
    """The latents of held-out videos, float32 [1, channels, frames, height, width]."""
    asked = cases(videos)
    return [pipeline.generate(one.prompt, seed=one.seed, steps=STEPS).latents for one in asked]


def frames(pipeline: Pipeline, latents: Array) -> Array:
    """What a bundle shows of latents, uint8 [frames, height, width, 3]."""
    model, interfaces = pipeline.bundle.model, pipeline.bundle.interfaces(DECODER)
    made = decode([latents], model.latent_mean, model.latent_std, pipeline.executor, interfaces)
    return np.concatenate([picture.copy() for picture in made])


def measure(pipelines: Mapping[str, Pipeline], latents: Sequence[Array]) -> dict[str, Figures]:
    """The PSNR of each video beside the float bundle's, and the median time of one."""
    found: dict[str, Figures] = {name: {"psnr_db": [], "seconds": []} for name in pipelines}
    for one in latents:
        shown: dict[str, Array] = {}
        for name, pipeline in pipelines.items():
            started = time.perf_counter()
            shown[name] = frames(pipeline, one)
            found[name]["seconds"].append(time.perf_counter() - started)
        for name, pictures in shown.items():
            if name != FLOAT:
                found[name]["psnr_db"].append(round(psnr(shown[FLOAT], pictures), 2))
    return {name: {**figures, "seconds": median(figures["seconds"])} for name, figures in found.items()}


def engine_bytes(pipeline: Pipeline) -> int:
    """What the decoder's files take open."""
    files = (file for segments in pipeline.bundle.engines.values() for file in segments.files)
    return sum(file.memory.opened for file in files if file.component == DECODER and file.memory)


def report(found: Mapping[str, Figures]) -> str:
    """The page: a row for each variant."""
    rows = []
    for name, figures in found.items():
        db = figures["psnr_db"]
        beside = f"{np.mean(db):.1f} | {np.percentile(db, 5):.1f} | {min(db):.1f}" if db else "| |"
        times = found[FLOAT]["seconds"] / figures["seconds"]
        rows.append(f"| {name} | {beside} | {times:.2f} | {figures['bytes'] / 2**20:.1f} |")
    head = (
        f"PSNR of {VIDEOS} held-out videos, each decoded of the same latents beside the float decoder, in dB; how\n"
        "many times as fast it was on one core, by the median of rounds in turn; and the MiB of its open engines. The\n"
        "decoder of tiny-wan has few channels, which kernels of integers gain little by.\n\n"
        "| decoder | mean | 5th percentile | worst | times as fast | MiB |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
    )
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the report")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        pipelines = built(Path(folder))
        found = measure(pipelines, denoised(pipelines[FLOAT], VIDEOS))
        found = {name: {**figures, "bytes": engine_bytes(pipelines[name])} for name, figures in found.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"recipe": RECIPE.name, "videos": VIDEOS, "steps": STEPS, "variants": found})
    write_whole(given.out / f"{NAME}.json", f"{document}\n".encode(), "the report")
    write_whole(given.out / f"{NAME}.md", report(found).encode(), "the report")


if __name__ == "__main__":
    main()
