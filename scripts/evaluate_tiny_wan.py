"""Checks that the tiny model does what prompts say: colour, direction and shape of clips for held-out prompts.

Generates one clip for each of 200 (prompt, seed) pairs, half English and half Chinese, and reads the attributes back
with a detector that has no trained part. Exits with 1 if a bound is missed.

examples:
  python -m scripts.evaluate_tiny_wan tiny.wanc
  python -m scripts.evaluate_tiny_wan --torch models/tiny-wan
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.tiny_wan import evaluation
from scripts.tiny_wan.configuration import GUIDANCE_SCALE, MAX_TEXT_TOKENS, NEGATIVE_PROMPT, STEPS
from scripts.tiny_wan.progress import counted
from scripts.tiny_wan.scenes import FRAMES, SIZE

PAIRS = 200
LOWEST_AGREEMENT = {"colour": 0.90, "direction": 0.90, "shape": 0.80}
HIGHEST_SHUFFLED_AGREEMENT = 0.40


def bundle_generator(bundle: Path, steps: int) -> evaluation.Generate:
    """Generate with a compiled bundle; needs no torch."""
    from wanc.runtime.pipeline import Pipeline

    pipeline = Pipeline.open(bundle)
    return lambda prompt, seed: pipeline.generate(prompt, seed=seed, steps=steps).frames


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


def measure(generate: evaluation.Generate, pairs: int) -> list[evaluation.Answer]:
    """Answer all cases, with progress on stderr."""
    return list(counted(evaluation.answer(generate, evaluation.cases(pairs)), pairs, "clips"))


def report(answers: list[evaluation.Answer]) -> dict[str, dict[str, float]]:
    """Agreement per attribute: of all clips, of each language, and with shuffled prompts."""
    rows = {"all": evaluation.agreement(answers)}
    for language in ("en", "zh"):
        rows[language] = evaluation.agreement([each for each in answers if each.case.language == language])
    rows["shuffled"] = evaluation.agreement(evaluation.shuffled(answers))
    return rows


def misses(rows: dict[str, dict[str, float]]) -> list[str]:
    """One sentence for each bound that is missed."""
    found = []
    for name, lowest in LOWEST_AGREEMENT.items():
        if rows["all"][name] < lowest:
            found.append(f"{name} agrees in {rows['all'][name]:.1%} of the clips, less than {lowest:.0%}")
        if rows["shuffled"][name] > HIGHEST_SHUFFLED_AGREEMENT:
            found.append(
                f"{name} agrees in {rows['shuffled'][name]:.1%} of the clips even with shuffled prompts, "
                f"more than {HIGHEST_SHUFFLED_AGREEMENT:.0%}"
            )
    return found


def main() -> int:
    """Read the command line, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="the compiled bundle")
    parser.add_argument("--torch", type=Path, metavar="DIR", help="evaluate this diffusers pipeline instead")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="number of clips (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="denoising steps (default: %(default)s)")
    parser.add_argument(
        "--guidance", type=float, default=GUIDANCE_SCALE, help="guidance, with --torch only (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    source: Path | None = arguments.torch or arguments.bundle
    if source is None or (arguments.torch and arguments.bundle):
        parser.error("give either a bundle or --torch DIR")
    if not source.exists():
        parser.error(f"there is no {source}")
    if arguments.torch:
        generate = torch_generator(source, arguments.steps, arguments.guidance)
    else:
        generate = bundle_generator(source, arguments.steps)
    rows = report(measure(generate, arguments.pairs))
    missed = misses(rows)
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
