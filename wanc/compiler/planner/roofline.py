"""How long kernels take on a device: as long as their products, or as long as their bytes, whichever is more."""

from __future__ import annotations

from wanc.compiler.planner.costs import ComponentCosts, Kernel, PartCosts
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.links import Link

# The share of a memory's bandwidth that kernels reach that do nothing but read and write.
BANDWIDTH_REACHED = 0.8
# Ulysses exchanges queries, keys, values and the attention's output: one all-to-all each.
COLLECTIVES = 4


def kernel_seconds(kernel: Kernel, device: Device, ranks: int = 1) -> float:
    """Of all `count` of them, on one of `ranks` devices that split the tokens: each reads all of the weights."""
    products = kernel.flops / ranks / device.rate(kernel.format) if kernel.flops else 0.0
    moved = (kernel.moved / ranks + kernel.weights) / (device.bandwidth * BANDWIDTH_REACHED)
    return kernel.count * max(products, moved)


def exchange_seconds(part: PartCosts, ranks: int, link: Link) -> float:
    """What one execution of a part spends in collectives; they wait for each other, and products wait for them."""
    if ranks == 1 or not part.exchanged:
        return 0.0
    sent = part.exchanged * (ranks - 1) / ranks**2
    return sent / link.bandwidth + COLLECTIVES * link.latency


def part_seconds(part: PartCosts, device: Device, ranks: int = 1, link: Link | None = None) -> float:
    """Of one execution. A part whose tokens are not split is executed whole by every rank."""
    split = ranks if part.is_split else 1
    computing = sum(kernel_seconds(kernel, device, split) for kernel in part.kernels)
    return computing + (exchange_seconds(part, split, link) if link else 0.0)


def component_seconds(component: ComponentCosts, device: Device) -> float:
    """Of all that one video takes of a component, branches one behind the other, on one device."""
    once = sum(part_seconds(part, device) for part in component.parts)
    return once * component.executions * component.branches
