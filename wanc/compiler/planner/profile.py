"""What products were measured to take on a kind of device: `wanc bench` writes it, `partition.profiles` names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from wanc.artifacts.files import read_small
from wanc.compiler.first_fault import first_fault
from wanc.compiler.planner.costs import Format
from wanc.compiler.planner.devices import Device, Efficiency
from wanc.errors import RecipeError

SUFFIX = ".profile.json"


@dataclass(frozen=True)
class Profile:
    """`rates` are the FLOP/s of all products of a denoising step by their number format, on a device of this `kind`.

    `machine` is what it was measured on, in words.
    """

    kind: str
    machine: str
    rates: Mapping[Format, float]
    schema: Literal["wanc.profile/1.0"] = "wanc.profile/1.0"

    def text(self) -> str:
        """The file's content."""
        return f"{json.dumps(asdict(self), indent=1)}\n"

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Raises RecipeError for a file that cannot be read or is no profile."""
        try:
            return TypeAdapter(cls).validate_json(read_small(path), strict=True)
        except OSError as error:
            raise RecipeError(f"{path} cannot be read", hint="name a file that wanc bench wrote") from error
        except ValidationError as error:
            hint = f"name a file that wanc bench wrote: its name ends with {SUFFIX}"
            raise RecipeError(f"{path} is no profile of a device: {first_fault(error)}", hint=hint) from None

    def applied(self, device: Device) -> Device:
        """The device with these rates, as shares of its peaks. Raises RecipeError where one is above its peak."""
        if device.kind != self.kind:
            return device
        found = dict(device.efficiencies)
        for number_format, rate in self.rates.items():
            peak = device.peaks.get(number_format)
            if peak is None or not 0 < rate <= peak:
                had = f"{peak:.3g} at most" if peak else "no such units"
                raise RecipeError(
                    f"{rate:.3g} FLOP/s in {number_format} were measured on {self.kind}, which has {had}",
                    hint=f"say what it has: partition.kinds.{self.kind}.peaks.{number_format}",
                )
            found[number_format] = Efficiency(rate / peak, f"measured on {self.machine}")
        return replace(device, efficiencies=found)
