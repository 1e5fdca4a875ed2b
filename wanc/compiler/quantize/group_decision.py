"""What is decided on Linears of one input, and the arrays that it is written as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wanc.calibration.weights import FP8, Codes
from wanc.compiler.quantize.linear_groups import LinearGroup
from wanc.runtime import safetensors
from wanc.runtime.safetensors import SafetensorsFile

Array = np.ndarray[Any, Any]
NUMBERS, DIVISORS, INPUTS = "numbers", "divisors", "inputs"
CODES, SCALES, OUTPUTS = "codes", "scales", "outputs"


@dataclass(frozen=True)
class GroupDecision:
    """How Linears of a group are quantised: their input's divisors [channels] and step, and each one's codes by name.

    `inputs` are rows of the input as it will be, [rows, in], and `outputs` what each Linear made of them in float.
    """

    group: LinearGroup
    alpha: float | None
    divisors: Array | None
    activation_scale: float | None
    codes: Mapping[str, Codes]
    sqnr_db: Mapping[str, float]
    rows_per_sample: float
    inputs: Array
    outputs: Mapping[str, Array]


def write_decision(path: Path, decided: GroupDecision) -> None:
    """Write a decision that has the codes of one Linear at most."""
    numbers = [decided.rows_per_sample, _number(decided.alpha), _number(decided.activation_scale)]
    arrays = {INPUTS: decided.inputs}
    if decided.divisors is not None:
        arrays[DIVISORS] = decided.divisors
    for name, codes in decided.codes.items():
        numbers += [codes.group, decided.sqnr_db[name]]
        # What reads these files knows no fp8: its bits are as good.
        values = codes.values.view(np.uint8) if codes.values.dtype == FP8 else codes.values
        arrays |= {CODES: values, SCALES: codes.scales, OUTPUTS: decided.outputs[name]}
    safetensors.write(path, {**arrays, NUMBERS: np.array(numbers, np.float64)})


def read_decision(path: Path, group: LinearGroup) -> GroupDecision:
    """What `write_decision` wrote of this group, bit by bit. Raises BundleError for a damaged file."""
    file = SafetensorsFile(path)
    rows_per_sample, alpha, activation_scale, *of_codes = file[NUMBERS].tolist()
    codes, sqnr_db, outputs = dict[str, Codes](), dict[str, float](), dict[str, Array]()
    if of_codes:
        (linear,) = group.linears
        width, sqnr_db[linear.name] = of_codes
        values = file[CODES].copy()
        codes[linear.name] = Codes(
            values.view(FP8) if values.dtype == np.uint8 else values, file[SCALES].copy(), int(width)
        )
        outputs[linear.name] = file[OUTPUTS].copy()
    return GroupDecision(
        group,
        _given(alpha),
        file[DIVISORS].copy() if DIVISORS in file else None,
        _given(activation_scale),
        codes,
        sqnr_db,
        rows_per_sample,
        file[INPUTS].copy(),
        outputs,
    )


def _number(value: float | None) -> float:
    """None is no number in the file."""
    return np.nan if value is None else value


def _given(number: float) -> float | None:
    return None if np.isnan(number) else number
