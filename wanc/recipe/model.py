"""The `model` part of a recipe: a Wan checkpoint, any ONNX file, or any torch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from wanc.recipe.checks import LARGEST_SIZE, dimension, fault, not_empty, without_repeats
from wanc.recipe.section import FACTORY, IDENTIFIER, Section
from wanc.runtime.dimensions import Dtype, split_dimension
from wanc.words import Family

Component = Literal["text_encoder", "denoiser_high", "denoiser_low", "vae_decoder"]
COMPONENTS: tuple[Component, ...] = ("text_encoder", "denoiser_high", "denoiser_low", "vae_decoder")

SourcePath = Annotated[Path, Field(strict=False), BeforeValidator(not_empty), PlainSerializer(str, return_type=str)]


def _distinct(inputs: tuple[InputSection, ...]) -> tuple[InputSection, ...]:
    names = [entry.name for entry in inputs]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise fault(f"{name} stands twice", "give each input a name of its own", (index, "name"))
    return inputs


def _in_model_order(components: tuple[Component, ...]) -> tuple[Component, ...]:
    # The order has no meaning, and two recipes that differ only in it have to be one.
    return tuple(component for component in COMPONENTS if component in components)


Identifier = Annotated[str, Field(pattern=IDENTIFIER, max_length=64)]


class InputSection(Section):
    """An argument of a torch module's forward."""

    name: Identifier
    """What it is called in the bundle."""
    dtype: Dtype = "float32"
    """Its number format, by numpy's name."""
    shape: tuple[Annotated[int | str, BeforeValidator(dimension)], ...]
    """Its sizes: whole numbers, and names for those that may change, such as [1, tokens] or [1, 3, 16*rows, 64]."""


KINDS = ("source", "onnx", "torch")
# Keys that only some kinds of model have a use for.
_KINDS_WITH = {
    "family": ("source",),
    "companion": ("source",),
    "components": ("source",),
    "allow": ("source",),
    "example": ("onnx", "torch"),
    "values": ("onnx", "torch"),
    "inputs": ("torch",),
    "outputs": ("torch",),
    "files": ("torch",),
}


class ModelSection(Section):
    """What is built: a Wan checkpoint (`source`), any ONNX file (`onnx`), or any torch module (`torch`)."""

    source: SourcePath | None = None
    """The folder of a Wan checkpoint, relative to the file that this line is written in."""
    family: Family | None = None
    """What kind of checkpoint it is: wan unless given, or wan-causal for one that makes videos chunk by chunk."""
    companion: SourcePath | None = None
    """Another checkpoint, of which the text encoder, the tokenizer and the VAE are taken; source has the denoisers."""
    onnx: SourcePath | None = None
    """An ONNX file, relative to the file that this line is written in."""
    torch: Annotated[str, Field(pattern=FACTORY, max_length=256)] | None = None
    """A function without arguments that returns a torch.nn.Module, as package.module:function."""
    components: (
        Annotated[
            tuple[Component, ...],
            Field(min_length=1),
            AfterValidator(without_repeats),
            AfterValidator(_in_model_order),
        ]
        | None
    ) = None
    """The parts of a checkpoint to build; all of them unless named."""
    inputs: Annotated[tuple[InputSection, ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """The arguments of a torch module's forward, in order."""
    outputs: Annotated[tuple[Identifier, ...], AfterValidator(without_repeats)] | None = None
    """Names for what a torch module returns, in order; output_0, output_1, ... unless given."""
    files: tuple[SourcePath, ...] | None = None
    """Files and folders that the torch function reads besides its own package: a change in them builds again."""
    example: dict[str, Annotated[int, Field(ge=1, le=LARGEST_SIZE)]] | None = None
    """Sizes that work together, by name, such as {tokens: 7}: for tracing, and for the bundle's self-test."""
    values: dict[str, float] | None = None
    """What the self-test fills an input with where noise, ones for integers, would not do, such as {rate: 16000}."""
    allow: tuple[str, ...] | None = None
    """What passes in a checkpoint although wanc does not know it, by name: keys, and weights of nothing but zeros."""
    allow_not_finite: tuple[str, ...] | None = None
    """Names of weights that may hold infinities or NaNs; in all others they are taken for damage."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not kinds:
            hint = "give the folder of a Wan checkpoint as source, an ONNX file as onnx, or a function as torch"
            raise fault("none of source, onnx and torch is given", hint)
        if len(kinds) > 1:
            raise fault(f"{kinds[0]} and {kinds[1]} exclude each other", "remove one of them", (kinds[1],))
        for key, owners in _KINDS_WITH.items():
            if getattr(self, key) is not None and kinds[0] not in owners:
                hint = f"remove it; it says something only of a model given as {' or '.join(owners)}"
                raise fault(f"{kinds[0]} models have no {key}", hint, (key,))
        return self

    @model_validator(mode="after")
    def _torch_is_described(self) -> Self:
        if self.torch is not None and self.inputs is None:
            hint = "add a line such as `inputs: [{name: ids, dtype: int64, shape: [1, tokens]}]`"
            raise fault("a torch model needs its inputs described", hint)
        return self

    @model_validator(mode="after")
    def _example_and_values_fit_the_inputs(self) -> Self:
        # The inputs of an ONNX file are checked against it, when it is read.
        if self.inputs is None:
            return self
        symbols = (split_dimension(size)[1] for entry in self.inputs for size in entry.shape)
        sizes = list(dict.fromkeys(filter(None, symbols)))
        _check_names("example", self.example or {}, sizes, "no input has a size called {}")
        _check_names("values", self.values or {}, [entry.name for entry in self.inputs], "there is no input {}")
        if missing := [name for name in sizes if name not in (self.example or {})]:
            line = ", ".join(f"{name}: 7" for name in sizes)
            raise fault(f"no size is given for {missing[0]}", f"write sizes that work: {{{line}}}", ("example",))
        return self


def _check_names(key: str, given: Mapping[str, object], known: Sequence[str], message: str) -> None:
    if unknown := [name for name in given if name not in known]:
        hint = f"the names are {', '.join(known)}" if known else "remove it"
        raise fault(message.format(unknown[0]), hint, (key, unknown[0]))
