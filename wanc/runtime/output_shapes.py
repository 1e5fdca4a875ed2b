"""The shapes of a graph's outputs, known before it is executed: so that their memory can be there before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

from .dimensions import NAMED, split_dimension

Shape = tuple[int, ...]
Declared = Sequence[int | str | None]
"""As an ONNX file has it: a number, a name such as `rows`, a multiple of one such as `2*rows`, or nothing known."""


def output_shapes(
    inputs: Mapping[str, Declared], outputs: Mapping[str, Declared], given: Mapping[str, Shape]
) -> dict[str, Shape]:
    """Of the outputs, those whose sizes are numbers, or follow from the shapes that the inputs are `given` in."""
    sizes: dict[str, int] = {}
    for name, shape in given.items():
        for dimension, size in zip(inputs[name], shape, strict=False):
            factor, named = _split(dimension)
            if named and (size % factor or sizes.setdefault(named, size // factor) != size // factor):
                return {}  # the engine will say what is wrong with it
    solved = {name: tuple(_size(dimension, sizes) for dimension in declared) for name, declared in outputs.items()}
    return {name: cast(Shape, shape) for name, shape in solved.items() if None not in shape}


def _size(dimension: int | str | None, sizes: Mapping[str, int]) -> int | None:
    if isinstance(dimension, int):
        return dimension
    factor, named = _split(dimension)
    return factor * sizes[named] if named in sizes else None


@cache
def _split(dimension: int | str | None) -> tuple[int, str]:
    """As `split_dimension`; without a name where it is a number, or nothing that follows from others."""
    is_named = isinstance(dimension, str) and NAMED.fullmatch(dimension)
    return split_dimension(dimension) if dimension is not None and is_named else (1, "")
