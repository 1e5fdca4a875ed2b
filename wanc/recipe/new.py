"""The text of a new recipe."""

from __future__ import annotations

import re

from wanc.errors import RecipeError
from wanc.recipe.section import FILE_NAME, PATTERNS
from wanc.recipe.show import flow

_STARTER = """\
# yaml-language-server: $schema=recipe.schema.json
wanc: 1
name: {name}
version: 0.1.0

model:
  source: {source}  # relative to this file

# Each size is compiled. Height and width are multiples of 16, frames are 4n + 1.
shapes:
  - {{name: 480p, height: 480, width: 832, frames: 81}}

sampling:
  solver: unipc  # or euler, dpm++
  steps: 40
  shift: 12.0  # how much the steps lean towards high noise
  guidance: {{high: 4.0, low: 3.0}}  # of the high-noise expert, which works first, and of the low-noise expert
  # boundary: 0.875  # the noise level at which the experts change over; the model's own unless given
  # negative_prompt: ""
  # fps: 16

# What follows are the defaults.
precision: {{compute: fp32}}
quantize: {{scheme: none}}
engine: {{kind: onnxruntime, targets: [cpu]}}
runtime: {{threads: 0}}  # 0 is all cores

# One bundle for each variant, here {name}-fast and {name}-fine:
# matrix:
#   fast: {{sampling.steps: 20}}
#   fine: {{sampling.steps: 50}}
"""


def starter(source: str, name: str) -> str:
    """The text of a recipe called `name` for the checkpoint at `source`, which is relative to where it is saved.

    Raises:
        RecipeError: `name` cannot be the name of a bundle.
    """
    if not re.fullmatch(FILE_NAME, name):
        raise RecipeError(f"{flow(name)} is no name for a recipe", hint=f"it has to be {PATTERNS[FILE_NAME]}")
    return _STARTER.format(name=flow(name), source=flow(source))
