"""What a model hands to the export: one traceable module per graph, with its inputs declared.

Dimensions are integers or the symbolic form `name` or `k*name` (`2*rows`: an even number, bound to one name). The same
strings become torch dimensions, ONNX `dim_param`s and, in the bundle, what the runtime checks shapes against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wanc.runtime.dimensions import Dimension, split_dimension
from wanc.runtime.interface import BindingTime, Input, Output, Scope

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["BindingTime", "Graph", "Input", "Output", "Scope", "concrete"]


@dataclass(frozen=True)
class Graph:
    """A graph before export.

    `build` makes the module; it is called under a fake tensor mode, so that no weight is allocated. Parameters carry
    their canonical (diffusers) names. `constants` holds the values of its non-parameter buffers by name, `example`
    one valid size for each symbolic name, and `values` what fills an input in a trial run that noise would not suit.
    `named` are names for sizes that are computed of others: {"tokens": "frames*rows*columns"}.
    """

    name: str
    build: Callable[[], torch.nn.Module]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    example: Mapping[str, int]
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict[str, Any])
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    named: Mapping[str, str] = field(default_factory=dict[str, str])


def concrete(shape: tuple[Dimension, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape with every symbolic name replaced by its size."""

    def size(dimension: Dimension) -> int:
        if isinstance(dimension, int):
            return dimension
        factor, name = split_dimension(dimension)
        return factor * sizes[name]

    return tuple(map(size, shape))
