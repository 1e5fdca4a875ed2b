"""Seeded inputs for comparing a build with its source: noise at two sets of sizes, and numbers that reach edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from wanc.compiler.check.asked import Asked
from wanc.models.graph import Input, concrete
from wanc.runtime.dimensions import split_dimension

Array = np.ndarray[Any, Any]
Kind = Literal["noise", "edges", "wide"]
"""How inputs are drawn: `noise` as golden records are, `edges` with values far from the others, negative ones, masks
that mask whole rows and lengths below the padding, `wide` with integers that take more than 32 bits."""

LARGE_ELEMENTS = 2**18
"""Of all inputs at the example's sizes: from there on the other sizes are smaller, not larger."""
Change = Callable[[int], int]
"""Another size for one; 0 where there is none."""
MORE: tuple[Change, ...] = (lambda size: 2 * size, lambda size: size + 1)
LESS: tuple[Change, ...] = (
    lambda size: 2 if size == 1 else size // 2 if size % 2 == 0 else 0,
    lambda size: 2 if size == 1 else size - 1,
)
EVERY, FACTOR = 7, {"float16": 30, "float32": 300, "float64": 300}
"""One in so many floats is so many times as large in a draw of edges."""
BEYOND = 2**33


def other_sizes(asked: Asked) -> Iterator[dict[str, int]]:
    """Sizes of which each differs from the example's, those first that keep most of what sizes may be tied by.

    Doubling keeps equal ones equal, sums sums, and multiples multiples.
    """
    example = asked.example
    symbols = {split_dimension(size)[1] for value in asked.inputs for size in value.shape} - {""}
    if not symbols:
        return
    elements = sum(math.prod(concrete(value.shape, example)) for value in asked.inputs)
    for change in (*LESS, *MORE) if elements >= LARGE_ELEMENTS else (*MORE, *LESS):
        sizes = {name: change(size) if name in symbols else size for name, size in example.items()}
        if all(sizes.values()):
            yield sizes


def kinds(asked: Asked) -> Iterator[Kind]:
    """The ways besides noise in which a graph's inputs can be drawn."""
    if any(value.name not in asked.values and value.shape_of is None for value in asked.inputs):
        yield "edges"
    if asked.wide - asked.values.keys():
        yield "wide"


def draw(asked: Asked, sizes: Mapping[str, int], kind: Kind) -> dict[str, Array]:
    """Inputs by name. What the recipe gives a value has that value, in every draw."""
    shapes = {value.name: concrete(value.shape, sizes) for value in asked.inputs}
    padding = min((size for shape in shapes.values() for size in shape if size > 1), default=1)
    drawn: dict[str, Array] = {}
    for seed, value in enumerate(asked.inputs):
        shape, dtype = shapes[value.name], np.dtype(value.dtype)
        generator = np.random.Generator(np.random.Philox(seed))
        if value.shape_of is not None:
            drawn[value.name] = np.array(shapes[value.shape_of], dtype)
        elif value.name in asked.values:
            drawn[value.name] = np.full(shape, asked.values[value.name]).astype(dtype)
        elif kind == "edges" and value.name in asked.masks:
            drawn[value.name] = _mask(shape, dtype, generator)
        elif dtype.kind == "f":
            drawn[value.name] = _floats(shape, dtype, kind, generator)
        else:
            is_wide = kind == "wide" and value.name in asked.wide
            drawn[value.name] = (
                _wide(shape, dtype, generator) if is_wide else _integers(value, shape, kind, padding, generator)
            )
    return drawn


def _floats(shape: tuple[int, ...], dtype: np.dtype[Any], kind: Kind, generator: np.random.Generator) -> Array:
    noise = generator.standard_normal(shape, dtype=np.float32)
    if kind == "edges":
        flat = noise.reshape(-1)
        flat[::EVERY] *= FACTOR[dtype.name]
        flat[EVERY // 2 :: 2 * EVERY] = 0.0
    return noise.astype(dtype)


def _mask(shape: tuple[int, ...], dtype: np.dtype[Any], generator: np.random.Generator) -> Array:
    """What is added to scores: the least number there is, now and then, and for a whole row."""
    least = np.finfo(dtype).min
    mask = np.where(generator.integers(0, 3, shape) == 0, least, dtype.type(0))
    if mask.ndim:
        mask.reshape(-1, shape[-1])[-1:] = least
    return mask


def _wide(shape: tuple[int, ...], dtype: np.dtype[Any], generator: np.random.Generator) -> Array:
    least = 0 if dtype.kind == "u" else -BEYOND
    return generator.integers(least, BEYOND, shape).astype(dtype)


def _integers(value: Input, shape: tuple[int, ...], kind: Kind, padding: int, generator: np.random.Generator) -> Array:
    if kind == "noise":
        return np.ones(shape, value.dtype)
    if value.range is not None:  # indices: negative ones are ONNX's alone
        return generator.integers(0, value.range[1] + 1, shape).astype(value.dtype)
    if len(shape) < 2 and value.dtype != "bool":  # lengths, of which some are below the padding
        return generator.integers(1, min(padding, np.iinfo(value.dtype).max) + 1, shape).astype(value.dtype)
    drawn = generator.integers(0, 2, shape).astype(value.dtype)
    if len(shape) >= 2 and math.prod(shape[:-1]) > 1:  # a mask that masks a whole row
        drawn.reshape(-1, shape[-1])[-1] = 0
    return drawn
