"""What a device is to the planner: memory, peak rates, bandwidths, and the share of a peak that kernels reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wanc.compiler.planner.costs import Format
from wanc.errors import RecipeError


@dataclass(frozen=True)
class Efficiency:
    """The share of a peak rate that kernels reach, above 0 and at most 1, and where that number comes from.

    `source` begins with `fitted` (to a published time), `measured` (by a profile), `assumed` (from another kind or
    format) or `recipe`.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Device:
    """One kind of device.

    `memory` is what one process can allocate, in bytes. `peaks` are the vendor's dense FLOP/s by format; one that the
    device has no units for is absent. `fp32` means true float32, TF32 off. `bandwidth` is that of its memory,
    `host_link` that of copies to and from the host's, both in bytes/s. `pcie` names its bus (`links.LINKS`), `nvlink`
    the peak bytes/s in one direction, None where there is none. `capability` is what an engine is built for.
    """

    kind: str
    capability: str
    memory: int
    peaks: Mapping[Format, float]
    efficiencies: Mapping[Format, Efficiency]
    bandwidth: float
    host_link: float
    pcie: str = "pcie-gen4"
    nvlink: float | None = None

    def rate(self, number_format: Format) -> float:
        """FLOP/s that kernels are expected to reach; an error where the device does not multiply in this format."""
        if number_format not in self.peaks:
            raise RecipeError(
                f"{self.kind} does not multiply in {number_format}",
                hint=f"choose a precision of {', '.join(self.peaks)}, or another kind of device",
            )
        return self.peaks[number_format] * self.efficiencies[number_format].value

    def with_efficiencies(self, values: Mapping[str, float], source: str) -> Device:
        """This device with other efficiencies, by format; an error names what is no format of it or no share."""
        changed: dict[Format, Efficiency] = {}
        formats: dict[str, Format] = {known: known for known in self.peaks}
        for name, value in values.items():
            if name not in formats:
                raise RecipeError(
                    f"efficiency of {self.kind}: {name!r} is no format that it multiplies in",
                    hint=f"it has {', '.join(self.peaks)}",
                )
            if not 0 < value <= 1:
                raise RecipeError(
                    f"efficiency of {self.kind} in {name} is {value}",
                    hint="write the share of the peak rate that is reached, above 0 and at most 1",
                )
            changed[formats[name]] = Efficiency(value, source)
        return replace(self, efficiencies={**self.efficiencies, **changed})
