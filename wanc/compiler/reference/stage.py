"""The reference stage: videos of the untouched model, and what a change in the last place of it does to them.

Reports hold bundles against these. The model is the checkpoint's own, in diffusers' and transformers' modules, in
float32 and on one thread, so that every machine agrees; noise, solver and guidance are the runtime's. All clips of a
recipe's `evaluate` are sampled once, and kept in the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.artifacts.canonical import canonical
from wanc.artifacts.kept import keep, restore
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.trajectory import Trajectory
from wanc.runtime import safetensors
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.progress import ProgressBar
from wanc.runtime.strict_json import JsonValue

if TYPE_CHECKING:
    from wanc.compiler.reference.clip import ClipMaker

Array = np.ndarray[Any, Any]
RESULT = "reference.json"


def clip_file(clip: int) -> str:
    """What is known of a clip; see `clip.ClipMaker.make`."""
    return f"clip-{clip:04}.safetensors"


@dataclass(frozen=True)
class SampleReference(Stage):
    """Inputs `exported` and `source`. Result: `reference.json`, and for each clip a file.

    `size` is that of the videos, height, width and frames; `clips` are a prompt and a seed each. `draws` are changes
    in the last place that are tried with each of the clips, for float32 and for bfloat16. `cache` says how a causal
    model's videos are divided, and how far it looks back; all that it sees of the past is float32.
    """

    name: ClassVar[str] = "reference"
    tools: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "numpy", "tokenizers", "ftfy")
    resumes: ClassVar[bool] = True

    components: tuple[str, ...]
    trajectory: Trajectory
    size: tuple[int, int, int]
    clips: tuple[tuple[str, int], ...]
    negative_prompt: str
    draws: int
    tokenizer: str
    cache: CacheFacts | None = None

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        import torch

        from wanc.compiler.reference.clip import ClipMaker

        torch.set_num_threads(1)
        program = Program.read(inputs["exported"][FILE])
        maker, kept = ClipMaker.of(self, program, inputs["source"]), scratch_of(out)
        with ProgressBar(self.name, len(self.clips) * (1 + len(maker.changes)), enabled=progress) as bar:
            for number in range(len(self.clips)):
                name = clip_file(number)
                if restore(kept / name, out / name):
                    bar.advance(1 + len(maker.changes))
                    continue
                self._make(number, maker, out / name, bar)
                keep(kept / name, partial(shutil.copyfile, out / name))
        clips: list[JsonValue] = [{"prompt": prompt, "seed": seed} for prompt, seed in self.clips]
        (out / RESULT).write_bytes(canonical({**maker.described, "clips": clips}))

    def _make(self, number: int, maker: ClipMaker, path: Path, bar: ProgressBar) -> None:
        prompt, seed = self.clips[number]
        safetensors.write(path, maker.make(prompt, seed, bar.advance))
