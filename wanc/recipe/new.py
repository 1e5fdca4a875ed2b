"""The text of a new recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wanc.errors import RecipeError
from wanc.recipe.section import FILE_NAME, PATTERNS
from wanc.recipe.show import flow

_HEAD = """\
# yaml-language-server: $schema=recipe.schema.json
wanc: 1
name: {name}
version: 0.1.0

model:
"""
_VIDEO = """\
  source: {source}  # relative to this file{about}{companion}

# Each size is compiled. Height and width are multiples of 16, frames are 4n + 1.
shapes:
  - {shape}

sampling:
{sampling}
  # negative_prompt: ""
  # fps: 16

# What follows are the defaults.
precision: {{compute: fp32}}
quantize: {{scheme: none}}
engine: {{kind: onnxruntime}}
runtime: {{threads: 0}}  # 0 is all cores

# One bundle for each variant, here {name}-fast and {name}-fine:
# matrix:
#   fast: {{sampling.steps: 20}}
#   fine: {{sampling.steps: 50}}
"""
_GRAPH = """\

# What follows are the defaults.
engine: {kind: onnxruntime}
runtime: {threads: 0}  # 0 is all cores
"""
_TWO_SCALES = "{high: 4.0, low: 3.0}  # of the high-noise expert, which works first, and of the low-noise expert"
_ONE_SCALE = "{high: 5.0, low: 5.0}  # the model has one expert, and so one scale"
_LARGE = {"name": "480p", "height": 480, "width": 832, "frames": 81}
_SMALL = {"name": "64p", "height": 64, "width": 64, "frames": 17}


@dataclass(frozen=True)
class StarterFacts:
    """What a Wan checkpoint says that a recipe for it goes by."""

    experts: int = 2
    shift: float = 12.0
    says_boundary: bool = True
    """Whether the checkpoint of two experts says where they change over; if not, its recipe has to."""
    is_small: bool = False
    """It was made for trying things out: what large models are made for would take it minutes."""
    about: str = ""
    """A line about what lies there."""
    companion: str | None = None
    """Where its text encoder, its tokenizer and its VAE are, unless they lie there."""

    @property
    def lines(self) -> dict[str, str]:
        """What stands in the text of a recipe for it, whichever its family."""
        return {
            "about": f"\n  # {self.about}" if self.about else "",
            "companion": f"\n  companion: {flow(self.companion)}" if self.companion else "",
            "shape": flow(_SMALL if self.is_small else _LARGE),
        }


def starter(source: str, name: str, facts: StarterFacts = StarterFacts()) -> str:
    """The text of a recipe called `name` for the checkpoint at `source`, which is relative to where it is saved.

    Raises:
        RecipeError: `name` cannot be the name of a bundle.
    """
    return head(name) + _VIDEO.format(name=name, source=flow(source), sampling=sampling_lines(facts), **facts.lines)


def sampling_lines(facts: StarterFacts) -> str:
    """How a model is sampled that was not distilled."""
    two = facts.experts == 2
    lines = [
        "solver: unipc  # or euler, dpm++",
        f"steps: {40 if two else 50}",
        f"shift: {flow(facts.shift)}  # how much the steps lean towards high noise",
        f"guidance: {_TWO_SCALES if two else _ONE_SCALE}",
    ]
    if two:
        meaning = "the noise level at which the experts change over; the model's own unless given"
        lines.append(f"{'# ' if facts.says_boundary else ''}boundary: 0.875  # {meaning}")
    return "\n".join(f"  {line}" for line in lines)


def graph_starter(name: str, model: Mapping[str, object], comments: Sequence[str] = ()) -> str:
    """The same for an ONNX file or a torch module: `model` is that part of the recipe. Raises RecipeError."""
    lines = [f"  # {comment}" for comment in comments]
    for key, value in model.items():
        lines += _entry(key, value)
    return head(name) + "\n".join(lines) + "\n" + _GRAPH


def _entry(key: str, value: object) -> list[str]:
    if isinstance(value, tuple):
        return [f"  {key}:", *(f"    - {flow(item)}" for item in value)]
    return [f"  {key}: {flow(value)}"]


def check_name(name: str) -> None:
    """Raises RecipeError for what cannot be the name of a bundle."""
    if not re.fullmatch(FILE_NAME, name):
        raise RecipeError(f"{flow(name)} is no name for a recipe", hint=f"it has to be {PATTERNS[FILE_NAME]}")


def head(name: str) -> str:
    """How a recipe begins, up to what its model is. Raises RecipeError."""
    check_name(name)
    return _HEAD.format(name=flow(name))
