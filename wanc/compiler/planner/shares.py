"""Where a step's FLOPs are, and how much faster 8-bit Linears can make it."""

from __future__ import annotations

from wanc.amdahl import at_most
from wanc.compiler.planner.costs import ComponentCosts, Kind


def flops_share(component: ComponentCosts, kind: Kind) -> float:
    """The share of all FLOPs of one execution that kernels of a kind have."""
    kernels = list(component.kernels())
    total = sum(kernel.flops * kernel.count for kernel in kernels)
    return sum(kernel.flops * kernel.count for kernel in kernels if kernel.kind == kind) / total if total else 0.0


def eight_bit_bound(component: ComponentCosts) -> float:
    """How many times faster a step of 16-bit products can become at most by 8-bit Linears alone."""
    return at_most(flops_share(component, "linear"))
