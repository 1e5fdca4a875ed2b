"""Makes tiny-wan causal: fine-tunes its low-noise expert to denoise one latent frame behind those that are finished.

Encoder, autoencoder and tokenizer stay tiny-wan's, and are not saved again. Every phase continues from its checkpoint
in the work folder, so a killed run is continued by the same command.

example:
  python -m scripts.train_tiny_wan_causal --work artifacts/train/tiny-wan-causal --out models/tiny-wan-causal
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from numpy.typing import NDArray

from scripts.tiny_wan import causal_phase, latents_phase, layout, steady_latents, training
from scripts.tiny_wan.causal_phase import Clips
from scripts.tiny_wan.configuration import CAUSAL_FRAMES
from scripts.tiny_wan.scenes import TRAINING, Scene, render_round
from scripts.tiny_wan.texts import Texts
from wanc.report.detectors.drawn_shapes import COLOURS


@dataclass(frozen=True)
class CausalSizes:
    """How much of everything; ``checkpoint_every`` counts steps, and is for tests."""

    clips: int = 1600
    steady_steps: int = 600
    steps: int = 5600
    checkpoint_every: int | None = None


SMOKE = CausalSizes(clips=2, steady_steps=1, steps=2, checkpoint_every=1)


def train(sizes: CausalSizes, source: Path, work: Path, out: Path, seed: int) -> None:
    """Run what is not done yet, and save the denoiser to ``out``."""
    work.mkdir(parents=True, exist_ok=True)
    clips = encoded(source, sizes, seed, work)
    expert = WanTransformer3DModel.from_pretrained(source / "transformer_2", torch_dtype=torch.float32)
    plan = training.Plan("causal", sizes.steps, seed, 6e-4, work / "causal.pt", sizes.checkpoint_every)
    layout.save_causal(out, causal_phase.train(clips, Texts.load(source), expert, plan))


def encoded(source: Path, sizes: CausalSizes, seed: int, work: Path) -> Clips:
    """Long clips in which the shape goes round and round, normalised as tiny-wan's latents are, with steady colours."""
    vae = AutoencoderKLWan.from_pretrained(source / "vae", torch_dtype=torch.float32)
    config: Any = vae.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    plan = training.Plan("steady", sizes.steady_steps, seed, 2e-3, work / "steady.pt", sizes.checkpoint_every)
    steady = steady_latents.train(vae, mean, std, plan)
    scenes = [latents_phase.scene(seed + 1, index, index % len(TRAINING)) for index in range(sizes.clips)]
    others = [recoloured(scene, index) for index, scene in enumerate(scenes)]

    def normalised(shown: list[Scene], name: str) -> torch.Tensor:
        def clip(index: int) -> NDArray[np.uint8]:
            return render_round(shown[index], CAUSAL_FRAMES)

        latents = latents_phase.means(vae, sizes.clips, clip, work / f"{name}.pt", batch=2)
        return steady_latents.steadied(steady, (latents - mean) / std, clip)

    attributes = [scene.attributes for scene in scenes]
    return Clips(normalised(scenes, "latents"), normalised(others, "recoloured"), attributes)


def recoloured(scene: Scene, number: int) -> Scene:
    """The same in another colour; which one goes by the number."""
    others = [colour for colour in COLOURS if colour != scene.attributes.colour]
    attributes = scene.attributes._replace(colour=others[number // len(TRAINING) % len(others)])
    return replace(scene, attributes=attributes)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("models/tiny-wan"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, in seconds; for tests")
    for name in ("clips", "steady_steps", "steps"):
        default = asdict(CausalSizes())[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, help=f"default: {default}; a longer run continues a shorter one"
        )
    arguments = parser.parse_args()
    sizes = asdict(SMOKE if arguments.smoke else CausalSizes())
    sizes |= {name: value for name, value in vars(arguments).items() if name in sizes and value is not None}
    train(CausalSizes(**sizes), arguments.source, arguments.work, arguments.out, arguments.seed)
    print(json.dumps({"size_megabytes": round(layout.size_in_bytes(arguments.out) / 1e6, 2)}, indent=2))


if __name__ == "__main__":
    main()
