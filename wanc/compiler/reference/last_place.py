"""A model that differs in the last place of one activation: what another order of summation would do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import torch

Unit = Literal["fp32", "bf16"]
DIGITS: dict[Unit, int] = {"fp32": 24, "bf16": 8}
"""Binary digits of a number, the one before the point included."""


def moved(values: torch.Tensor, unit: Unit, random: np.random.Generator) -> torch.Tensor:
    """Every value, float32, up or down by one unit in the last place that it has in a format, as chance has it."""
    _, exponent = torch.frexp(values)
    up = torch.from_numpy(random.integers(0, 2, values.shape, dtype=np.int8)).to(values.dtype) * 2 - 1
    return values + torch.ldexp(up, exponent - DIGITS[unit])


@contextmanager
def one_place_off(denoiser: torch.nn.Module, unit: Unit, draw: int) -> Generator[str]:
    """For the length of a `with`: the GELU of one of the blocks is one place off; its name.

    `draw` chooses the block, and how each value moves: the same in every execution of these sizes, as another kernel
    would be.
    """
    blocks = cast(Any, denoiser).blocks
    block = int(np.random.default_rng(draw).integers(len(blocks)))

    def move(_part: object, _inputs: object, values: torch.Tensor) -> torch.Tensor:
        return moved(values, unit, np.random.default_rng([draw, block]))

    hook = blocks[block].ffn.net[0].register_forward_hook(move)
    try:
        yield f"blocks.{block}.ffn.net.0"
    finally:
        hook.remove()
