"""Schemes: what becomes of a Linear's weight and of its input, and the rounding that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wanc.calibration.gptq import round_by_moments
from wanc.calibration.weights import FP8, GROUP, LARGEST_FP8, LEVELS, Codes, round_to_fp8, round_to_nearest

WeightFormat = Literal["int8", "int4", "fp8"]
InputFormat = Literal["int8", "uint8", "fp8"]
LARGEST: Mapping[InputFormat, float] = {"int8": 127.0, "fp8": LARGEST_FP8}
"""The code that the threshold of an input becomes, where its step is found before the model is built."""


@dataclass(frozen=True)
class Scheme:
    """How a Linear is quantised: `weights`, and `inputs` where they are rounded as well.

    Inputs are rounded in steps that calibration found (int8, fp8), or that each execution finds anew (uint8, with a
    zero point).
    """

    weights: WeightFormat
    inputs: InputFormat | None = None

    @property
    def is_static(self) -> bool:
        """Whether the steps of inputs have to be found before the model is built."""
        return self.inputs in LARGEST

    @property
    def levels(self) -> int:
        """The largest code of an integer weight."""
        return LEVELS[self.weights]

    @property
    def needs_moments(self) -> bool:
        """Whether so few bits are left that columns have to stand in for each other."""
        return self.weights == "int4"

    def codes(self, weights: NDArray[np.float32], moments: NDArray[np.float32] | None = None) -> Codes:
        """The codes of a weight, float32 [out, in]; `moments` [in, in] are those of its inputs, where needed."""
        if self.weights == "fp8":
            return round_to_fp8(weights)
        levels, group = self.levels, GROUP[self.weights]
        if moments is not None:
            return round_by_moments(weights, moments, levels=levels, group=group)
        return round_to_nearest(weights, levels=levels, group=group)


SCHEMES: Mapping[str, Scheme] = {
    "int8": Scheme("int8", "int8"),
    "int8-dynamic": Scheme("int8", "uint8"),
    "int8-weight": Scheme("int8"),
    "int4-weight": Scheme("int4"),
    "fp8": Scheme("fp8", "fp8"),
}
"""By the names that recipes use."""


def rounded_inputs(values: NDArray[Any], inputs: InputFormat | None, scale: float | None) -> NDArray[np.float32]:
    """An activation as a quantised Linear sees it, float32, shaped as it was.

    `scale` is what a code of 1 stands for. It is None for uint8, whose range is that of the values, zero included, as
    in ONNX's DynamicQuantizeLinear.
    """
    if inputs is None:
        return values.astype(np.float32, copy=False)
    if inputs == "uint8":
        # In float32 throughout: a range that is rounded otherwise is another step.
        low, high = (np.float32(bound) for bound in (min(0.0, values.min()), max(0.0, values.max())))
        step = (high - low) / np.float32(255) or np.float32(1)
        zero = np.clip(np.rint(-low / step), 0, 255)
        return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)
    assert scale is not None
    steps = values / np.float32(scale)
    if inputs == "fp8":
        codes = np.clip(steps, -LARGEST_FP8, LARGEST_FP8).astype(FP8).astype(np.float32)
    else:
        codes = np.clip(np.rint(steps), -128, 127)
    return (codes * np.float32(scale)).astype(np.float32)
