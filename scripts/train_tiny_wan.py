"""Trains the tiny text-to-video model from nothing, and saves it as a diffusers pipeline.

Phases: tokenizer (built, not trained), video autoencoder, latents, then text encoder and both experts together. Every
phase continues from its checkpoint in the work folder, so a killed run is continued by the same command.

example:
  python -m scripts.train_tiny_wan --work artifacts/train/tiny-wan --out models/tiny-wan
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from scripts.tiny_wan import flow_phase, latents_phase, layout, training, vae_phase
from wanc.runtime.whole_file import write_whole

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sizes:
    """How much of everything; ``checkpoint_every`` counts steps, and is for tests."""

    vae_steps: int = 3000
    clips: int = 3200
    flow_steps: int = 3000
    flow_batch: int = 32
    inspection_clips: int = 48
    checkpoint_every: int | None = None


SMOKE = Sizes(vae_steps=4, clips=8, flow_steps=6, flow_batch=2, inspection_clips=1, checkpoint_every=2)


def train(sizes: Sizes, work: Path, out: Path, seed: int) -> dict[str, float]:
    """Run the phases that are not done yet, save the model to ``out``, and return what was measured."""
    work.mkdir(parents=True, exist_ok=True)
    metrics_file = work / "metrics.json"
    metrics: dict[str, float] = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.exists() else {}

    def write_metrics() -> None:
        write_whole(metrics_file, f"{json.dumps(metrics, indent=2)}\n".encode(), "what was measured")

    def timed(name: str, phase: Callable[[], Result]) -> Result:
        """Run a phase and add its time to what earlier, killed runs took."""
        begun = time.monotonic()
        try:
            return phase()
        finally:
            metrics[f"{name}_seconds"] = round(metrics.get(f"{name}_seconds", 0.0) + time.monotonic() - begun, 1)
            write_metrics()

    torch.manual_seed(seed)
    vae = vae_phase.build()
    plan = training.Plan("vae", sizes.vae_steps, seed, 2e-3, work / "vae.pt", sizes.checkpoint_every)
    timed("vae", lambda: vae_phase.train(vae, plan, max(1, sizes.inspection_clips // 4)))
    latents = timed(
        "latents", lambda: latents_phase.encode(vae, sizes.clips, seed, work / f"latents-{sizes.vae_steps}.pt")
    )
    plan = training.Plan("flow", sizes.flow_steps, seed, 1.5e-3, work / "flow.pt", sizes.checkpoint_every)
    denoiser = timed("flow", lambda: flow_phase.train(latents, plan, sizes.flow_batch))

    layout.save(out, vae, denoiser, latents.mean, latents.std)
    metrics["size_megabytes"] = round(layout.size_in_bytes(out) / 1e6, 2)
    metrics["held_out_vae_psnr_db"] = timed("inspection", lambda: layout.saved_vae_psnr(out, sizes.inspection_clips))
    write_metrics()
    return metrics


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints and of metrics.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="CPU threads of the autoencoder (default: all)"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, in seconds; for tests")
    for name, default in asdict(Sizes()).items():
        if name in ("vae_steps", "clips", "flow_steps", "flow_batch"):
            option = "--" + name.replace("_", "-")
            parser.add_argument(option, type=int, help=f"default: {default}; a longer run continues a shorter one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = asdict(SMOKE if arguments.smoke else Sizes())
    sizes |= {name: value for name, value in vars(arguments).items() if name in sizes and value is not None}
    metrics = train(Sizes(**sizes), arguments.work, arguments.out, arguments.seed)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
