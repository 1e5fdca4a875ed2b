"""How one Linear is quantised: what calibration decides, what training decides anew, and what is built of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wanc.calibration.weights import Codes
from wanc.runtime import safetensors
from wanc.runtime.safetensors import SafetensorsFile


@dataclass(frozen=True)
class Decision:
    """How one Linear is quantised.

    `codes` stand for the weight [out, in] times `smoothing`, float64 [in], by which the input is divided; None leaves
    both as they are. `activation_scale` is what one of the 127 int8 steps of the smoothed input stands for; None leaves
    it in float.
    """

    codes: Codes
    smoothing: NDArray[np.float64] | None = None
    activation_scale: float | None = None


def write_decisions(path: Path, decisions: Mapping[str, Decision]) -> None:
    """Write decisions with integer codes into a safetensors file, as `<linear>/codes`, `<linear>/scales` and so on.

    Its folder is made where there is none.
    """
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, decision in decisions.items():
        codes = decision.codes
        arrays |= {f"{name}/codes": codes.values, f"{name}/scales": codes.scales}
        arrays[f"{name}/group"] = np.array([codes.group], np.int64)
        if decision.smoothing is not None:
            arrays[f"{name}/smoothing"] = decision.smoothing
        if decision.activation_scale is not None:
            arrays[f"{name}/activation_scale"] = np.array([decision.activation_scale], np.float64)
    safetensors.write(path, arrays)


def read_decisions(path: Path) -> dict[str, Decision]:
    """What `write_decisions` wrote. Raises BundleError for a damaged file."""
    file = SafetensorsFile(path)
    names = sorted({name.rpartition("/")[0] for name in file})
    return {name: _decision(file, name) for name in names}


def _decision(file: SafetensorsFile, name: str) -> Decision:
    codes = Codes(file[f"{name}/codes"].copy(), file[f"{name}/scales"].copy(), int(file[f"{name}/group"][0]))
    smoothing, scale = (file.get(f"{name}/{what}") for what in ("smoothing", "activation_scale"))
    return Decision(
        codes,
        None if smoothing is None else smoothing.copy(),
        None if scale is None else float(scale[0]),
    )
