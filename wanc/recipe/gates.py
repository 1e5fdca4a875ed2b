"""What a report demands of a bundle, as recipes and files write it.

A demand is a comparison with a number, `>= 30`, or with a multiple of something measured beside it: `<= 1.05 baseline`,
`<= 3 floors`. Of what is measured against the reference such multiples are of the distance from it: at most so many
times as far from the reference as the baseline is, or as a change in the last place moves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["quality", "speed", "size"]
Of = Literal["value", "baseline", "floors"]
GATES: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("psnr_db", "ssim", "ms_ssim", "xpsnr_db", "vmaf", "flicker_ratio", "motion_ratio",
         "motion_direction_degrees", "repeated_frames", "time_shift_frames", "colour_shift_delta_e",
         "saturation_shift", "brightness_shift", "cosine", "sqnr_db", "velocity_error", "block_error", "text_error",
         "decoded_psnr_db"),
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


def gate_fault(name: str, demand: Demand) -> str | None:
    """Why a gate makes no sense; None where it does."""
    kind = GATES[name]
    if demand.of == "floors" and kind != "quality":
        return f"{name} is no distance from the reference, and has no noise floor"
    if demand.of != "value" and kind == "quality" and demand.is_least:
        return f"multiples of a distance are bounded from above, such as `<= {demand.number:g} {demand.of}`"
    if name == "block_error" and demand.of != "baseline":
        return "block_error is of a baseline's blocks, such as `<= 1.05 baseline`"
    if name == "step_speedup" and demand.of != "value":
        return "step_speedup is a multiple of the baseline already, such as `>= 1.1`"
    return None
