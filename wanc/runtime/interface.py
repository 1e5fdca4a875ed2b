"""What a graph takes and gives, as a model declares it and a manifest repeats it, and whether given arrays fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, cast, get_args

from .dimensions import LARGEST_SIZE, MOST_DIMENSIONS, NAMED, Dimension, Dtype, split_dimension
from .errors import EXIT_DATA, UserError
from .strict_json import Fields

TASK = "graph"
COMPONENT, GRAPH = "model", "main"
"""What the one component of such a bundle is called, and its one graph."""

BindingTime = Literal["build", "request", "chunk", "step"]
Scope = Literal["branch", "expert", "request"]
DTYPES: tuple[str, ...] = get_args(Dtype)

MOST_VALUES = 4096
"""Inputs, or outputs, of one graph: as many as an archive of arrays may have."""
MOST_NAME = 512

AnyValue = TypeVar("AnyValue")


class InputError(UserError):
    """Input arrays that a bundle's graph cannot take, or a file of them that cannot be read."""

    exit_code = EXIT_DATA


@dataclass(frozen=True)
class Input:
    """One graph input: when its value becomes known (`binding`), and for whom (`per`). `dtype` is numpy's name.

    Where `shape_of` names an input of the component, the value is that input's shape. `range` is the least and the
    largest number that it may hold, where its numbers say which entries of a table are taken.
    """

    name: str
    shape: tuple[Dimension, ...]
    binding: BindingTime
    per: Scope
    dtype: Dtype = "float32"
    shape_of: str | None = None
    range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Output:
    """One graph output. `state` names the input that takes this value at the next execution (a cache)."""

    name: str
    shape: tuple[Dimension, ...]
    state: str | None = None
    dtype: Dtype = "float32"


def carried(outputs: Iterable[Output], values: Mapping[str, AnyValue]) -> dict[str, AnyValue]:
    """What the next execution takes of what this one gave, by the names of its inputs."""
    return {output.state: values[output.name] for output in outputs if output.state is not None}


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of one graph."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @classmethod
    def read(cls, fields: Fields) -> Interface:
        """What a manifest says of a graph.

        Raises BundleError for what no graph has: two values of one name, sizes that no array can have.
        """
        inputs, outputs = (_values(fields, side) for side in ("inputs", "outputs"))
        return cls(tuple(map(_input, inputs)), tuple(map(_output, outputs)))

    def check(self, given: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Compare arrays, given as name → (dtype, shape), with the declared inputs.

        Raises InputError naming what was expected and what was found.
        """
        declared = {tensor.name: tensor for tensor in self.inputs}
        if unknown := [name for name in given if name not in declared]:
            takes = ", ".join(declared) or "none"
            raise InputError(f"this bundle has no input {ascii(unknown[0])[:80]}", hint=f"it takes: {takes}")
        if missing := [tensor for tensor in self.inputs if tensor.name not in given]:
            raise InputError(f"the input {missing[0].name!r} is missing", hint=f"it is {_shown(missing[0])}")
        sizes: dict[str, tuple[int, str]] = {}
        for tensor in self.inputs:
            dtype, shape = given[tensor.name]
            if dtype != tensor.dtype or len(shape) != len(tensor.shape):
                raise _mismatch(tensor, dtype, shape)
            for size, dimension in zip(shape, tensor.shape, strict=True):
                _check_dimension(tensor, shape, size, dimension, sizes)


def _check_dimension(
    tensor: Input, shape: tuple[int, ...], size: int, dimension: Dimension, sizes: dict[str, tuple[int, str]]
) -> None:
    """Compare one size, and remember in `sizes` what a name stands for, and in which input that was seen first."""
    factor, name = split_dimension(dimension)
    if size % factor if name else size != factor:
        raise _mismatch(tensor, tensor.dtype, shape)
    if name:
        known, first = sizes.setdefault(name, (size // factor, tensor.name))
        if known != size // factor:
            raise InputError(
                f"the input {tensor.name!r} is {tensor.dtype} {list(shape)}, and {_shown(tensor)} was expected: "
                f"{name} is {size // factor} here and {known} in {first!r}"
            )


def shown_shape(shape: tuple[Dimension, ...]) -> str:
    """[1, 2*rows]"""
    return f"[{', '.join(map(str, shape))}]"


def _shown(tensor: Input) -> str:
    return f"{tensor.dtype} {shown_shape(tensor.shape)}"


def _mismatch(tensor: Input, dtype: str, shape: tuple[int, ...]) -> InputError:
    return InputError(f"the input {tensor.name!r} is {dtype} {list(shape)}, and {_shown(tensor)} was expected")


def _values(fields: Fields, side: str) -> list[Fields]:
    entries = fields.objects(side)
    if len(entries) > MOST_VALUES:
        fields.refuse(side, f"has {len(entries)} entries, more than the {MOST_VALUES} allowed")
    seen: set[str] = set()
    for entry in entries:
        name = entry.text("name")
        if not (0 < len(name) <= MOST_NAME and name.isprintable()):
            entry.refuse("name", f"must be 1 to {MOST_NAME} characters that can be printed, not {ascii(name)[:80]}")
        if name in seen:
            entry.refuse("name", f"is {ascii(name)[:80]}, as another one's of these {side}")
        seen.add(name)
    return entries


def _shape(fields: Fields) -> tuple[Dimension, ...]:
    shape = tuple(fields.dimensions("shape", most=LARGEST_SIZE))
    if len(shape) > MOST_DIMENSIONS:
        fields.refuse("shape", f"has {len(shape)} dimensions, more than the {MOST_DIMENSIONS} allowed")
    for index, size in enumerate(shape):
        if isinstance(size, str) and not NAMED.fullmatch(size):
            fields.refuse(f"shape[{index}]", f"must be a size, `name` or `2*name`, not {ascii(size)[:80]}")
    return shape


def _input(fields: Fields) -> Input:
    return Input(
        fields.text("name"),
        _shape(fields),
        cast(BindingTime, _one_of(fields, "binding", get_args(BindingTime))),
        cast(Scope, _one_of(fields, "per", get_args(Scope))),
        cast(Dtype, _one_of(fields, "dtype", DTYPES)),
        fields.optional_text("shape_of"),
        _range(fields),
    )


def _range(fields: Fields) -> tuple[int, int] | None:
    """Bundles of an earlier version have none."""
    if fields.values.get("range") is None:
        return None
    low, high = fields.whole_numbers("range", 2)
    return low, high


def _output(fields: Fields) -> Output:
    dtype = cast(Dtype, _one_of(fields, "dtype", DTYPES))
    return Output(fields.text("name"), _shape(fields), fields.optional_text("state"), dtype)


def _one_of(fields: Fields, name: str, known: tuple[str, ...]) -> str:
    value = fields.text(name)
    if value not in known:
        fields.refuse(name, f"is {ascii(value)[:80]}, not one of {', '.join(known)}")
    return value
