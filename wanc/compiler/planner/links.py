"""What connects devices: bytes/s in one direction, and the latency of one message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wanc.compiler.planner.devices import Device
from wanc.errors import RecipeError

# The share of a link's nominal rate that messages of some hundred megabytes reach.
REACHED = 0.8


@dataclass(frozen=True)
class Link:
    """`bandwidth` is bytes/s in one direction as large messages reach it, `latency` seconds for one message."""

    kind: str
    bandwidth: float
    latency: float

    def seconds(self, message: float) -> float:
        """For a message of so many bytes; one of no bytes is not sent."""
        return message / self.bandwidth + self.latency if message else 0.0


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        "pcie-gen4": Link("pcie-gen4", REACHED * 31.5e9, 10e-6),
        "pcie-gen5": Link("pcie-gen5", REACHED * 63e9, 10e-6),
        # One adapter of 400 Gbit/s a device; 100 Gbit/s and TCP.
        "infiniband": Link("infiniband", REACHED * 50e9, 5e-6),
        "ethernet": Link("ethernet", REACHED * 12.5e9, 50e-6),
    }
)
"""By kind; `nvlink` and `pcie` depend on the devices (`link_of`)."""
KINDS = ("nvlink", "pcie", *LINKS)


def link_of(kind: str, device: Device) -> Link:
    """The link of this kind between devices of that one; an error where they have none."""
    if kind == "nvlink":
        if device.nvlink is None:
            raise RecipeError(f"{device.kind} has no NVLink", hint="write `link: pcie`")
        return Link("nvlink", REACHED * device.nvlink, 5e-6)
    if kind == "pcie":
        return LINKS[device.pcie]
    if kind not in LINKS:
        raise RecipeError(f"{kind!r} is no kind of link", hint=f"choose one of {', '.join(KINDS)}")
    return LINKS[kind]
