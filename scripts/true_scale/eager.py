"""The blocks themselves, diffusers' own, with the same codes in their Linears: what compiled segments must equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from scripts.true_scale.drawn import LARGEST, STEP, DrawnCodes
from wanc.models.wan.checkpoint import open_located
from wanc.models.wan.untouched import UntouchedComponent
from wanc.runtime.model import HIGH

Array = np.ndarray[Any, Any]
WEIGHT = ".weight"


def errors(drawn: DrawnCodes, given: Mapping[str, Array], streams: Sequence[Array]) -> list[float]:
    """How far each segment is from the block that it is, ‖found - expected‖ / ‖expected‖.

    `streams` are what the segments hand on, [1, tokens, width], of the last one the velocity; `given` has latents,
    timestep and text. Every block is given what its segment was, so that no error hides behind another.
    """
    *streams, velocity = streams
    codes = drawn.weights()

    def change(name: str, values: Array) -> Array:
        found = codes.get(name.removesuffix(WEIGHT)) if name.endswith(WEIGHT) else None
        return found[1].read(found[0]) if found else values

    component = UntouchedComponent(open_located(drawn.inputs["source"]), HIGH, change)
    for name, module in component.module.named_modules():
        if name in codes:
            module.register_forward_pre_hook(_rounded)
    found: list[float] = []
    blocks = list(cast(Any, component.module).blocks)
    for index, block in enumerate(blocks):
        if index:
            block.register_forward_pre_hook(partial(_given, torch.from_numpy(streams[index - 1].copy())))
        if index < len(streams):
            block.register_forward_hook(partial(_compare, streams[index], found))
    expected = component.run(given)["velocity"]
    return [*found, _distance(velocity, expected)]


def _rounded(_module: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """As QuantizeLinear and DequantizeLinear do it: int8 without a zero point, halves to even."""
    codes = torch.clamp(torch.round(inputs[0] / STEP), -LARGEST - 1, LARGEST)
    return (codes * STEP,)


def _given(stream: torch.Tensor, _block: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (stream, *inputs[1:])


def _compare(stream: Array, found: list[float], _block: object, _inputs: object, output: torch.Tensor) -> None:
    found.append(_distance(stream, output.numpy()))


def _distance(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
