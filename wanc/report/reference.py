"""What the reference stage has made, as reports read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from wanc.errors import BundleError
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.safetensors import SafetensorsFile

Array = np.ndarray[Any, Any]
Unit = Literal["fp32", "bf16"]
FILE = "reference.json"


@dataclass(frozen=True)
class Changed:
    """A run of the reference with one activation off by one in the last place: latents [steps + 1, 1, …], frames, and
    the guided velocity at the unchanged run's states, [tapped steps, 1, …].
    """

    unit: Unit
    latents: Array
    guided: Array
    frames: Array


@dataclass(frozen=True)
class ReferenceClip:
    """One clip; arrays as `compiler.reference.clip` has them, read when they are asked for. Of a causal model they hold
    its chunks side by side in time, each at that step of its own.
    """

    number: int
    prompt: str
    seed: int
    arrays: SafetensorsFile

    @property
    def frames(self) -> Array:
        """uint8 [frames, height, width, 3]."""
        return self.arrays["frames"]

    @property
    def latents(self) -> Array:
        """Before every step and behind the last, float32 [steps + 1, 1, channels, frames, height, width]."""
        return self.arrays["latents"]

    @property
    def guided(self) -> Array:
        """The velocity at every step, float32 [steps, 1, …]."""
        return self.arrays["guided"]

    @property
    def texts(self) -> tuple[Array, Array]:
        """States of the prompt and the negative one, float32 [1, tokens, width]."""
        return self.arrays["text"], self.arrays["negative"]

    def velocities(self, step: int) -> Array:
        """Of each branch, the conditional one first: float32 [branches, 1, …]."""
        return self.arrays[f"velocity/{step}"]

    def blocks(self, step: int) -> Array:
        """Rows of the residual stream behind each block, conditional: float32 [blocks, rows, width]."""
        return self.arrays[f"blocks/{step}"]


@dataclass(frozen=True)
class ReferenceRecord:
    """All clips; `experts` make the steps, and at the `tapped` ones there are rows of blocks. `cache` says how a causal
    model's videos are divided.
    """

    key: str
    timesteps: tuple[float, ...]
    experts: tuple[str, ...]
    tapped: tuple[int, ...]
    changes: tuple[tuple[Unit, int], ...]
    clips: tuple[ReferenceClip, ...]
    cache: CacheFacts | None = None

    @classmethod
    def read(cls, key: str, files: Mapping[str, Path]) -> ReferenceRecord:
        """Of a stage's result. Raises BundleError where it is not one."""
        if FILE not in files:
            raise BundleError("the store has no reference here", where=key)
        found = json.loads(files[FILE].read_bytes())
        clips = tuple(
            ReferenceClip(number, clip["prompt"], clip["seed"], SafetensorsFile(files[f"clip-{number:04}.safetensors"]))
            for number, clip in enumerate(found["clips"])
        )
        changes = tuple(cast("list[tuple[Unit, int]]", found["changes"]))
        timesteps, experts, tapped = (tuple(found[name]) for name in ("timesteps", "experts", "tapped"))
        return cls(key, timesteps, experts, tapped, changes, clips, _cache(found["chunks"]))

    def changed(self, clip: ReferenceClip) -> Iterator[Changed]:
        """What a change in the last place did to a clip, change by change."""
        for unit, draw in self.changes:
            latents, guided, frames = (clip.arrays[f"{unit}/{draw}/{name}"] for name in ("latents", "guided", "frames"))
            yield Changed(unit, latents, guided, frames)


def _cache(found: Mapping[str, int] | None) -> CacheFacts | None:
    if found is None:
        return None
    return CacheFacts(found["chunk"], KeyValueWindow(found["sink"], found["window"]), "fp32")
