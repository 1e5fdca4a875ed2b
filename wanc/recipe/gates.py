"""What a report demands of a bundle, as recipes and files write it.

A demand is a comparison with a number, `>= 30`, or with a multiple of something measured beside it: `<= 1.05 baseline`,
`<= 3 floors`. Of what is measured against the reference such multiples are of the distance from it: at most so many
times as far from the reference as the baseline is, or as a change in the last place moves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Kind = Literal["quality", "speed", "size"]
Of = Literal["value", "baseline", "floors"]
CHUNK_GATES: Mapping[str, str] = {
    "chunk_velocity_error": "velocity_error",
    "chunk_sqnr_db": "sqnr_db",
    "chunk_psnr_db": "psnr_db",
}
"""Of the chunk of each video of a causal model that is furthest from the reference, what others are of all of it."""
GATES: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("psnr_db", "ssim", "ms_ssim", "xpsnr_db", "vmaf", "flicker_ratio", "motion_ratio",
         "motion_direction_degrees", "repeated_frames", "time_shift_frames", "colour_shift_delta_e",
         "saturation_shift", "brightness_shift", "cosine", "sqnr_db", "velocity_error", "block_error", "text_error",
         "decoded_psnr_db", "prompt_agreement", *CHUNK_GATES),
        "quality",
    ),
    **dict.fromkeys(
        ("open_seconds", "text_seconds", "step_seconds", "decode_seconds", "first_frame_seconds", "total_seconds",
         "step_speedup", "peak_rss_bytes"),
        "speed",
    ),
    **dict.fromkeys(("size_bytes", "int8_linear_share"), "size"),
}  # fmt: skip
"""By name, what a demand is about."""
EXTERNAL, MEAN = "external.", "mean"
"""What a scorer outside of wanc says: `external.<dimension>`, from 0 to 1, and `external.mean`, in percent."""
DIMENSION = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
EXAMPLES = 'a demand is such as ">= 30", "<= 1.05 baseline" or "<= 3 floors"'
_FORM = re.compile(r"(>=|<=) *([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?) *(baseline|floors?)?")


@dataclass(frozen=True)
class Demand:
    """A comparison with `number`, or with so many times what `of` names."""

    text: str
    is_least: bool
    number: float
    of: Of

    @classmethod
    def parse(cls, text: str) -> Demand:
        """Raises ValueError, which says what is wrong."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no demand")
        sign, number, of = match.groups()
        words: Mapping[str | None, Of] = {None: "value", "baseline": "baseline", "floor": "floors", "floors": "floors"}
        return cls(text.strip(), sign == ">=", float(number), words[of])

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value keeps it; `bound` is what the number comes to."""
        return value >= bound if self.is_least else value <= bound


@dataclass(frozen=True)
class DemandFault:
    """What is wrong with a demand, and what to do about it."""

    message: str
    hint: str


def is_external(name: str) -> bool:
    """Whether a gate is about what a scorer outside of wanc says."""
    return name.startswith(EXTERNAL) and DIMENSION.fullmatch(name.removeprefix(EXTERNAL)) is not None


def kind_of(name: str) -> Kind:
    """What a gate is about."""
    return "quality" if is_external(name) else GATES[name]


def gate_hint(name: str) -> str | None:
    """Which gate may have been meant; None where the name is one."""
    if name in GATES or is_external(name):
        return None
    near = get_close_matches(name[:60].casefold(), [*GATES, EXTERNAL + MEAN], n=1)
    return f"did you mean {near[0]}?" if near else f"the gates are {', '.join(GATES)}"


def unsound(name: str, text: str) -> DemandFault | None:
    """What is wrong with a demand as it is written of a gate; None where it is sound."""
    try:
        demand = Demand.parse(text)
    except ValueError as error:
        return DemandFault(str(error), EXAMPLES)
    reason = gate_fault(name, demand)
    return None if reason is None else DemandFault(f"{text!r} cannot be judged", reason)


def gate_fault(name: str, demand: Demand) -> str | None:
    """Why a gate makes no sense; None where it does."""
    if is_external(name):
        return _external_fault(name, demand)
    kind = GATES[name]
    if demand.of == "floors" and kind != "quality":
        return f"{name} is no distance from the reference, and has no noise floor"
    if demand.of != "value" and kind == "quality" and demand.is_least:
        return f"multiples of a distance are bounded from above, such as `<= {demand.number:g} {demand.of}`"
    if name == "prompt_agreement" and demand.of == "floors":
        return "prompt_agreement is of prompts, and a noise floor a distance from the reference"
    if name == "prompt_agreement" and demand.of == "value" and demand.number > 1:
        return "prompt_agreement is between 0 and 1"
    if name == "block_error" and demand.of != "baseline":
        return "block_error is of a baseline's blocks, such as `<= 1.05 baseline`"
    if name == "step_speedup" and demand.of != "value":
        return "step_speedup is a multiple of the baseline already, such as `>= 1.1`"
    return None


def _external_fault(name: str, demand: Demand) -> str | None:
    most, unit = (100, " percent") if name == EXTERNAL + MEAN else (1, "")
    if demand.of != "value":
        return f"{name} is of the new bundle alone, and has no {demand.of}"
    return f"{name} is between 0 and {most}{unit}" if demand.number > most else None
