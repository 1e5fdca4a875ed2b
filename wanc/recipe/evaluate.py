"""The part of a recipe about its report: what is made to be judged, and what is demanded of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from wanc.recipe.checks import fault, without_repeats
from wanc.recipe.gates import gate_hint, unsound
from wanc.recipe.model import SourcePath
from wanc.recipe.section import Section
from wanc.runtime.video_limits import LARGEST_SEED

MOST_CLIPS, MOST_DRAWS = 1000, 16


class EvaluateSection(Section):
    """What the report of a build is about; without this part there is none."""

    prompts: SourcePath
    """A text file with a prompt in each line, none of which calibration has seen; # begins a comment."""
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...], Field(min_length=1), AfterValidator(without_repeats)
    ] = (0,)
    """The seeds that each prompt is made with."""
    clips: Annotated[int, Field(ge=1, le=MOST_CLIPS)] = 8
    """The most videos that are made: every prompt with the first seed, then with the next."""
    shape: str | None = None
    """Their size, by its name under shapes; the first unless given."""
    against: Literal["reference"] = "reference"
    """What they are held against: the untouched model in float32, with the same noise."""
    draws: Annotated[int, Field(ge=0, le=MOST_DRAWS)] = 1
    """How many changes in the last place are tried with each clip for the noise floor; 0 for no floor."""
    pairs: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many steps are timed in turn with the baseline's."""
    gates: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Demands, such as `psnr_db: ">= 30"`, `velocity_error: "<= 1.05 baseline"` or `psnr_db: "<= 3 floors"`."""

    @field_validator("gates")
    @classmethod
    def _gates_make_sense(cls, gates: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in gates.items():
            if (hint := gate_hint(name)) is not None:
                raise fault(f"{name!r} is no gate", hint, (name,))
            if (found := unsound(name, text)) is not None:
                raise fault(found.message, found.hint, (name,))
        return gates
