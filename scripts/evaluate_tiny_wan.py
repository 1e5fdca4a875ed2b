"""Checks that the tiny model does what prompts say: colour, direction and shape of clips for held-out prompts.

Generates one clip for each of 200 (prompt, seed) pairs, half English and half Chinese, and reads the attributes back
with a detector that has no trained part. Exits with 1 if a bound is missed.

examples:
  python -m scripts.evaluate_tiny_wan tiny.wanc
  python -m scripts.evaluate_tiny_wan --torch models/tiny-wan
  python -m scripts.evaluate_tiny_wan artifacts/bundles/tiny-wan-causal --frames 65
  python -m scripts.evaluate_tiny_wan artifacts/bundles/tiny-wan-causal --change keep --pairs 32
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.tiny_wan import evaluation
from scripts.tiny_wan.configuration import GUIDANCE_SCALE, MAX_TEXT_TOKENS, NEGATIVE_PROMPT, STEPS
from scripts.tiny_wan.progress import counted
from scripts.tiny_wan.scenes import FRAMES, SIZE
from wanc.runtime.request import MEMORY

PAIRS = 200
LOWEST_AGREEMENT = {"colour": 0.90, "direction": 0.90, "shape": 0.80}
LOWEST_AGREEMENT_OF_LONG_CLIPS = {"colour": 0.70, "direction": 0.70, "shape": 0.70}
LOWEST_AGREEMENT_OF_CHANGED_CLIPS = {"colour": 0.70, "direction": 0.70, "shape": 0.45}
"""A shape that has begun is given up less readily than a colour; by chance it agrees in a quarter of the clips."""
HIGHEST_SHUFFLED_AGREEMENT = 0.40
CHUNKS, CHANGED_AT = 20, 10
"""Of a clip whose prompt changes; a chunk is a latent frame."""


def bundle_generator(bundle: Path, steps: int | None, frames: int) -> evaluation.Generate:
    """Generate with a compiled bundle, at its own number of steps unless one is given; needs no torch."""
    from wanc.runtime.pipeline import Pipeline

    pipeline = Pipeline.open(bundle)
    return lambda prompt, seed: pipeline.generate(prompt, seed=seed, steps=steps, frames=frames).frames


def changed_generator(bundle: Path, steps: int | None, memory: str) -> evaluation.GenerateChanged:
    """Generate with a causal bundle clips whose prompt changes."""
    from wanc.runtime.pipeline import Pipeline

    pipeline = Pipeline.open(bundle)
    frames = 4 * (CHUNKS - 1) + 1
    return lambda prompt, later, seed: (
        pipeline.generate(
            prompt, seed=seed, steps=steps, frames=frames, changes={CHANGED_AT: later}, memory=memory
        ).frames
    )


def torch_generator(folder: Path, steps: int, guidance: float) -> evaluation.Generate:
    """Generate with the diffusers pipeline in float32, from the same noise as a bundle does."""
    import torch
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def generate(prompt: str, seed: int) -> NDArray[np.uint8]:
        result: Any = pipeline(
            prompt, negative_prompt=NEGATIVE_PROMPT, height=SIZE, width=SIZE, num_frames=FRAMES,
            num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=MAX_TEXT_TOKENS,
            latents=torch.from_numpy(evaluation.noise(seed)), output_type="np",
        )  # fmt: skip
        return np.rint(result.frames[0] * 255).astype(np.uint8)

    return generate


def measure(generate: evaluation.Generate, pairs: int, *, goes_round: bool = False) -> list[evaluation.Answer]:
    """Answer all cases, with progress on stderr."""
    answers = evaluation.answer(generate, evaluation.cases(pairs), goes_round=goes_round)
    return list(counted(answers, pairs, "clips"))


def report(answers: list[evaluation.Answer]) -> dict[str, dict[str, float]]:
    """Agreement per attribute: of all clips, of each language, and with shuffled prompts."""
    rows = {"all": evaluation.agreement(answers)}
    for language in ("en", "zh"):
        rows[language] = evaluation.agreement([each for each in answers if each.case.language == language])
    rows["shuffled"] = evaluation.agreement(evaluation.shuffled(answers))
    return rows


def measure_changed(generate: evaluation.GenerateChanged, pairs: int) -> dict[str, dict[str, float]]:
    """Agreement per attribute before and after the change, and after it with what was asked before."""
    first = 4 * (CHANGED_AT - 1) + 1
    answers = list(counted(evaluation.answer_changed(generate, evaluation.changed_cases(pairs), first), pairs, "clips"))
    rows = zip(("before", "after", "kept"), zip(*answers, strict=True), strict=True)
    return {name: evaluation.agreement([*of_part]) for name, of_part in rows}


def misses(rows: dict[str, dict[str, float]], bounds: Mapping[str, float] = LOWEST_AGREEMENT) -> list[str]:
    """One sentence for each bound that is missed; languages have none of their own."""
    found = []
    for name, lowest in bounds.items():
        for row in ("all", "before", "after"):
            if row in rows and rows[row][name] < lowest:
                found.append(f"{name} agrees in {rows[row][name]:.1%} of the clips ({row}), less than {lowest:.0%}")
        for row, words in (("shuffled", "even with shuffled prompts"), ("kept", "with the prompt from before")):
            if row in rows and rows[row][name] > HIGHEST_SHUFFLED_AGREEMENT:
                share = f"{rows[row][name]:.1%} of the clips {words}"
                found.append(f"{name} agrees in {share}, more than {HIGHEST_SHUFFLED_AGREEMENT:.0%}")
    return found


def main() -> int:
    """Read the command line, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="the compiled bundle")
    parser.add_argument("--torch", type=Path, metavar="DIR", help="evaluate this diffusers pipeline instead")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="number of clips (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the bundle's own)")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of a bundle's clips (default: %(default)s)")
    parser.add_argument(
        "--change",
        choices=MEMORY,
        help=f"change the prompt at chunk {CHANGED_AT} of {CHUNKS}, and keep or renew what is in sight of the past",
    )
    parser.add_argument(
        "--guidance", type=float, default=GUIDANCE_SCALE, help="guidance, with --torch only (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    source: Path | None = arguments.torch or arguments.bundle
    if source is None or (arguments.torch and arguments.bundle):
        parser.error("give either a bundle or --torch DIR")
    if arguments.torch and (arguments.change or arguments.frames != FRAMES):
        parser.error("--change and --frames are about a bundle")
    if not source.exists():
        parser.error(f"there is no {source}")
    is_long = arguments.frames > FRAMES
    bounds = LOWEST_AGREEMENT_OF_LONG_CLIPS if is_long else LOWEST_AGREEMENT
    if arguments.change:
        bounds = LOWEST_AGREEMENT_OF_CHANGED_CLIPS
        rows = measure_changed(changed_generator(source, arguments.steps, arguments.change), arguments.pairs)
    else:
        if arguments.torch:
            generate = torch_generator(source, arguments.steps or STEPS, arguments.guidance)
        else:
            generate = bundle_generator(source, arguments.steps, arguments.frames)
        rows = report(measure(generate, arguments.pairs, goes_round=is_long))
    missed = misses(rows, bounds)
    if arguments.json:
        print(json.dumps({"pairs": arguments.pairs, "agreement": rows, "missed": missed}, indent=2))
    else:
        for row, values in rows.items():
            print(f"{row:9}" + "".join(f"  {name} {value:6.1%}" for name, value in values.items()))
    for sentence in missed:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
