"""Where a step's FLOPs are, and how much faster 8-bit Linears can make it."""

from __future__ import annotations

from wanc.compiler.planner.costs import ComponentCosts, Kind

# Products of 8-bit numbers are at most twice as fast as those of 16-bit ones.
EIGHT_BIT_SPEED = 2


def flops_share(component: ComponentCosts, kind: Kind) -> float:
    """The share of all FLOPs of one execution that kernels of a kind have."""
    kernels = list(component.kernels())
    total = sum(kernel.flops * kernel.count for kernel in kernels)
    return sum(kernel.flops * kernel.count for kernel in kernels if kernel.kind == kind) / total if total else 0.0


def eight_bit_bound(component: ComponentCosts) -> float:
    """How many times faster a step of 16-bit products can become at most by 8-bit Linears alone (Amdahl's law)."""
    return 1 / (1 - flops_share(component, "linear") * (1 - 1 / EIGHT_BIT_SPEED))
