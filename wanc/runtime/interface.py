"""What a bundle's graph takes and gives, as its manifest declares it, and whether given arrays fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from .bundle import Bundle, section
from .dimensions import Dimension, Dtype, split_dimension
from .errors import EXIT_DATA, UserError
from .strict_json import Fields

TASK = "graph"
COMPONENT, GRAPH = "model", "main"
"""What the one component of such a bundle is called, and its one graph."""

DTYPES: tuple[str, ...] = get_args(Dtype)


class InputError(UserError):
    """Input arrays that a bundle's graph cannot take, or a file of them that cannot be read."""

    exit_code = EXIT_DATA


@dataclass(frozen=True)
class Tensor:
    """One declared input or output; `dtype` is numpy's name.

    For an input also when it becomes known and for whom (`binding`, `per`), and whose shape it is (`shape_of`).
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    binding: str = "request"
    per: str = "request"
    shape_of: str | None = None

    def __str__(self) -> str:
        return f"{self.dtype} {shown_shape(self.shape)}"


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of the one graph that a bundle runs."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def of(cls, bundle: Bundle, component: str, graph: str) -> Interface:
        """What the bundle's manifest says. Raises BundleError."""
        topology = section(bundle.root, bundle.manifest, "topology")
        entry = topology.object("components").object(component).object(graph)
        return cls(*(tuple(map(_tensor, entry.objects(side))) for side in ("inputs", "outputs")))

    def check(self, given: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Compare arrays, given as name → (dtype, shape), with the declared inputs.

        Raises InputError naming what was expected and what was found.
        """
        declared = {tensor.name: tensor for tensor in self.inputs}
        if unknown := [name for name in given if name not in declared]:
            takes = ", ".join(declared) or "none"
            raise InputError(f"this bundle has no input {ascii(unknown[0])[:80]}", hint=f"it takes: {takes}")
        if missing := [tensor for tensor in self.inputs if tensor.name not in given]:
            raise InputError(f"the input {missing[0].name!r} is missing", hint=f"it is {missing[0]}")
        sizes: dict[str, tuple[int, str]] = {}
        for tensor in self.inputs:
            dtype, shape = given[tensor.name]
            if dtype != tensor.dtype or len(shape) != len(tensor.shape):
                raise _mismatch(tensor, dtype, shape)
            for size, dimension in zip(shape, tensor.shape, strict=True):
                _check_dimension(tensor, shape, size, dimension, sizes)


def _check_dimension(
    tensor: Tensor, shape: tuple[int, ...], size: int, dimension: Dimension, sizes: dict[str, tuple[int, str]]
) -> None:
    """Compare one size, and remember in `sizes` what a name stands for, and in which input that was seen first."""
    factor, name = split_dimension(dimension)
    if size % factor if name else size != factor:
        raise _mismatch(tensor, tensor.dtype, shape)
    if name:
        known, first = sizes.setdefault(name, (size // factor, tensor.name))
        if known != size // factor:
            raise InputError(
                f"the input {tensor.name!r} is {tensor.dtype} {list(shape)}, and {tensor} was expected: "
                f"{name} is {size // factor} here and {known} in {first!r}"
            )


def shown_shape(shape: tuple[Dimension, ...]) -> str:
    """[1, 2*rows]"""
    return f"[{', '.join(map(str, shape))}]"


def _mismatch(tensor: Tensor, dtype: str, shape: tuple[int, ...]) -> InputError:
    return InputError(f"the input {tensor.name!r} is {dtype} {list(shape)}, and {tensor} was expected")


def _tensor(fields: Fields) -> Tensor:
    dtype = fields.text("dtype")
    if dtype not in DTYPES:
        fields.refuse("dtype", f"is {ascii(dtype)[:80]}, not one of {', '.join(DTYPES)}")
    tensor = Tensor(fields.text("name"), dtype, tuple(fields.dimensions("shape")))
    if "binding" not in fields.values:
        return tensor
    shape_of = fields.text("shape_of") if fields.values.get("shape_of") is not None else None
    return replace(tensor, binding=fields.text("binding"), per=fields.text("per"), shape_of=shape_of)
