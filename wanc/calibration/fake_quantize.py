"""Linears that compute in float what their quantised form will, so that training can see what rounding costs.

Codes have no gradient. It is taken to pass through rounding as if nothing were there, and to end where a value is
clipped (the straight-through estimator, Bengio et al., arXiv 1308.3432); a scale learns from how far each code is from
its value (LSQ, Esser et al., arXiv 1902.08153).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wanc.calibration.weights import Codes

ACTIVATION_LEVELS = 127


@dataclass(frozen=True)
class Decision:
    """How one Linear is quantised: what calibration decides, and what training decides anew.

    `codes` stand for the weight [out, in] times `smoothing`, float64 [in], by which the input is divided; None leaves
    both as they are. `activation_scale` is what one of the 127 int8 steps of the smoothed input stands for; None leaves
    it in float.
    """

    codes: Codes
    smoothing: NDArray[np.float64] | None = None
    activation_scale: float | None = None


class FakeQuantizedLinear(torch.nn.Module):
    """A Linear whose weights, and input where it has a scale, are rounded in every forward pass.

    `weight` [out, in] is what training moves and what is rounded; `growth` [out, groups] is the natural logarithm of
    how much the weights' scales have grown. The activation's scale stays what it is: Linears of one input share it.
    """

    weight: torch.nn.Parameter
    growth: torch.nn.Parameter
    bias: torch.Tensor | None
    shrink: torch.Tensor | None
    first_scales: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, decision: Decision, levels: int) -> None:
        """`levels` is the largest code of a weight. Raises ValueError where the decision is not about this Linear."""
        super().__init__()
        codes = decision.codes
        if codes.values.shape != tuple(linear.weight.shape):
            raise ValueError(f"codes {codes.values.shape} for a weight {tuple(linear.weight.shape)}")
        if int(np.abs(codes.values).max(initial=0)) > levels:
            raise ValueError(f"a code beyond {levels}")
        if (step := decision.activation_scale) is not None and not 0 < step < math.inf:
            raise ValueError(f"an activation's scale of {step}")
        self.levels, self.group, self.decision = levels, codes.group, decision
        # Each weight starts in the middle of its code's step: the model that training starts from is the decided one.
        self.weight = torch.nn.Parameter(torch.from_numpy(codes.weights()))
        self.growth = torch.nn.Parameter(torch.zeros(codes.scales.shape))
        self.register_buffer("first_scales", torch.from_numpy(codes.scales))
        bias = cast(torch.Tensor | None, linear.bias)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        smoothing = decision.smoothing
        self.register_buffer("shrink", None if smoothing is None else torch.from_numpy(1 / smoothing).float())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out], float32."""
        if self.shrink is not None:
            inputs = inputs * self.shrink
        if (step := self.decision.activation_scale) is not None:
            inputs = torch.fake_quantize_per_tensor_affine(inputs, step, 0, -ACTIVATION_LEVELS, ACTIVATION_LEVELS)
        return torch.nn.functional.linear(inputs, self.rounded_weight(), self.bias)

    def rounded_weight(self) -> torch.Tensor:
        """What the codes stand for, float32 [out, in]."""
        return cast(torch.Tensor, _Round.apply(self.weight, self._scales(), self.levels))

    @torch.no_grad()
    def decide(self) -> Decision:
        """The decision that training has come to."""
        scales = self.first_scales * self.growth.exp()
        codes = _nearest(self.weight, self._scales(), self.levels)[0].to(torch.int8)
        return Decision(
            Codes(codes.numpy(), scales.numpy(), self.group), self.decision.smoothing, self.decision.activation_scale
        )

    def _scales(self) -> torch.Tensor:
        """Each weight's scale, [out, in]."""
        scales = self.first_scales * self.growth.exp()
        return scales.repeat_interleave(self.group, dim=1)[:, : self.weight.shape[1]]


def _nearest(values: torch.Tensor, scales: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and the values in steps before rounding. A scale of 0 has the code 0 alone."""
    steps = torch.where(scales > 0, values / scales, 0.0)
    return steps.round().clamp(-levels, levels), steps


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scales: torch.Tensor, levels: int) -> torch.Tensor:
        codes, steps = _nearest(values, scales, levels)
        # Half a step beyond the largest code is inside still: a weight that lies on it must not be stuck there.
        inside = steps.round().abs() <= levels
        ctx.save_for_backward(inside, torch.where(inside, codes - steps, codes))
        return codes * scales

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        inside, slope = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * inside, gradient * slope, None


def quantize_module(module: torch.nn.Module, decisions: Mapping[str, Decision], *, levels: int) -> None:
    """Put a FakeQuantizedLinear in place of every Linear that has a decision, by its name in the module.

    Raises ValueError where a name is that of no Linear: a decision that is not carried out must not pass unnoticed.
    """
    linears = {name: child for name, child in module.named_modules() if isinstance(child, torch.nn.Linear)}
    if missing := decisions.keys() - linears.keys():
        raise ValueError(f"{min(missing)} is no Linear of this module")
    for name, decision in decisions.items():
        module.set_submodule(name, FakeQuantizedLinear(linears[name], decision, levels))


def decisions_of(module: torch.nn.Module) -> dict[str, Decision]:
    """What `quantize_module` was given, as training has changed it."""
    return {name: child.decide() for name, child in module.named_modules() if isinstance(child, FakeQuantizedLinear)}
