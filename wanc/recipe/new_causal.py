"""The text of a new recipe for a model that makes videos chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wanc.recipe.new import StarterFacts, head, sampling_lines
from wanc.recipe.schema import KeyValueCacheSection
from wanc.recipe.show import flow

_CAUSAL = """\
  source: {source}  # relative to this file{about}{companion}
  family: wan-causal

# Each size is compiled. Height and width are multiples of 16, frames are 4n + 1; a run may ask for any number of them.
shapes:
  - {shape}

sampling:
{sampling}
  # fps: 16

runtime:
  kv_cache:
    chunk: {cache.chunk}  # latent frames that are made together{guessed}
    window: {cache.window}  # finished chunks in sight
    sink: {cache.sink}  # of a video's first chunks, which are never given up
    precision: fp32  # or fp16, int8, int4
    positions: absolute  # or relative to what is in sight
  threads: 0  # all cores

# What follows are the defaults.
precision: {{compute: fp32}}
engine: {{kind: onnxruntime}}
"""


class Distilled(NamedTuple):
    """How a distilled model was trained to be sampled, with new noise at each step."""

    timesteps: Sequence[float]
    shift: float


DISTILLED: Mapping[str, Distilled] = {
    # Self-Forcing's list is warped by its shift, CausVid's already is.
    r"self.?forcing": Distilled((1000, 750, 500, 250), 5.0),
    r"causvid": Distilled((1000, 757, 522), 1.0),
}
"""By what such a model is called: its configuration does not say it."""


def causal_starter(
    source: str, name: str, facts: StarterFacts, cache: KeyValueCacheSection, *, says_chunk: bool
) -> str:
    """As `starter`, of a causal model, with its cache; `says_chunk` is whether the checkpoint says its chunk."""
    return head(name) + _CAUSAL.format(
        source=flow(source),
        sampling=_sampling(name, source, facts),
        cache=cache,
        guessed="" if says_chunk else "; the checkpoint does not say how many",
        **facts.lines,
    )


def _sampling(name: str, source: str, facts: StarterFacts) -> str:
    for pattern, known in DISTILLED.items():
        if re.search(pattern, f"{source} {name}", re.IGNORECASE):
            timesteps = flow([*known.timesteps])
            return (
                f"  solver: lcm  # new noise at each step, as it was distilled\n"
                f"  timesteps: {timesteps}\n"
                f"  shift: {flow(known.shift)}"
            )
    return sampling_lines(facts) + "\n  # A distilled model has other ones: `solver: lcm`, its timesteps, no guidance."
