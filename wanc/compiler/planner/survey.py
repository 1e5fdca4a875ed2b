"""A survey: what the graph of a component computes, part by part, with sizes still open. No weight is in it.

Tracing and fusing a model takes most of a minute, and a plan is wanted in seconds. So what the planner needs of a
graph is kept as data: surveys of the models that wanc has recipes for ship with it (`surveys/`), any other model is
surveyed once and its survey stays in the store. Blocks are alike: the first is surveyed, one in the middle, the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from wanc.artifacts.canonical import canonical, digest_of
from wanc.compiler.planner.costs import Kind
from wanc.runtime.dimensions import Dimension
from wanc.runtime.model import HIGH, LOW

FILE = "survey.json"
SURVEYED_BLOCKS = 3
"""The first block, which has what comes before it; one that stands for all in the middle; and the last."""
LAYERS = "num_layers"
"""The key of a configuration that says how many blocks there are."""
SHIPPED = Path(__file__).parent / "surveys"

Role = Literal["hidden", "request", "kept", "state", "past"]
"""What a value is that enters: of this execution, of the request, kept for a branch's request, of earlier frames and
replaced, or of finished chunks and left as it is."""


@dataclass(frozen=True)
class SurveyedValue:
    """An activation that is written to memory: its sizes, and whether it is one that islands keep in fp32.

    `role` is there where it enters the part.
    """

    shape: tuple[Dimension, ...]
    is_precise: bool = False
    role: Role | None = None


@dataclass(frozen=True)
class SurveyedKernel:
    """A product with what is computed on its result in one go, or operations between products that are one kernel.

    `takes` and `gives` number the part's values. A product's FLOPs are `flops` times the product of the sizes in
    `scale`. `weight` has the elements of its own weight, and `linear` the path of its module. `copies` numbers the
    values that norms hold in fp32 while they sum.
    """

    kind: Kind
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    flops: int = 0
    scale: tuple[Dimension, ...] = ()
    weight: int = 0
    linear: str | None = None
    copies: tuple[int, ...] = ()


@dataclass(frozen=True)
class SurveyedGraph:
    """The kernels of one graph's piece in their order; `parameters` are the elements of weights that no product has.

    `leaves` numbers the values that go on to the next part, what the graph gives included; `stays` those that come back
    in the next execution, as a decoder's caches.
    """

    values: tuple[SurveyedValue, ...]
    kernels: tuple[SurveyedKernel, ...]
    parameters: int
    leaves: tuple[int, ...]
    stays: tuple[int, ...] = ()


@dataclass(frozen=True)
class SurveyedPart:
    """A block: what is executed again and again, and what is executed once for each branch of a request."""

    name: str
    main: SurveyedGraph
    request: SurveyedGraph | None = None


@dataclass(frozen=True)
class Survey:
    """The parts that were surveyed, in their order; `heads` of the self-attention, where its tokens can be split."""

    parts: tuple[SurveyedPart, ...]
    heads: int | None

    def blocks(self, count: int | None) -> tuple[SurveyedPart, ...]:
        """As many parts as the model has blocks; None are those that were surveyed.

        Raises ValueError where there are too few to say what so many are like.
        """
        if count in (None, len(self.parts)):
            return self.parts
        if len(self.parts) != SURVEYED_BLOCKS or count < SURVEYED_BLOCKS:
            raise ValueError(f"a survey of {len(self.parts)} blocks is none of {count}")
        first, middle, last = self.parts
        stem = first.name.removesuffix("0")
        renamed = [_called(middle, f"{stem}{index}") for index in range(1, count - 1)]
        return (first, *renamed, _called(last, f"{stem}{count - 1}"))

    def write(self, path: Path) -> None:
        path.write_bytes(canonical(_adapter().dump_python(self, mode="json", exclude_defaults=True)))

    @classmethod
    def read(cls, path: Path) -> Survey:
        """What `write` wrote."""
        return _adapter().validate_json(path.read_bytes())


def _called(part: SurveyedPart, name: str) -> SurveyedPart:
    """The part as that block, with the paths that its Linears have there."""

    def moved(graph: SurveyedGraph) -> SurveyedGraph:
        kernels = (
            replace(kernel, linear=name + kernel.linear.removeprefix(part.name))
            if kernel.linear and kernel.linear.startswith(f"{part.name}.")
            else kernel
            for kernel in graph.kernels
        )
        return replace(graph, kernels=tuple(kernels))

    return SurveyedPart(name, moved(part.main), part.request and moved(part.request))


def kind_of(component: str) -> str:
    """Both experts are denoisers, and of one configuration they are one."""
    return "denoiser" if component.startswith("denoiser") else component


def survey_key(
    component: str,
    config: Mapping[str, Any],
    text_length: int,
    fuse: Mapping[str, Any],
    cache: str | None = None,
    positions: str = "absolute",
) -> str:
    """What a survey depends on: the configuration, however many blocks it counts, what is fused, and of a causal model
    the format in which it keeps what is past, and its positions.
    """
    alike = {**config, LAYERS: surveyed_blocks(config)}
    document = {"component": kind_of(component), "config": alike, "text_length": text_length, "fuse": dict(fuse)}
    document |= {"cache": cache, "positions": positions} if cache and component in (HIGH, LOW) else {}
    return digest_of(document).removeprefix("sha256:")[:16]


def surveyed_blocks(config: Mapping[str, Any]) -> int | None:
    """How many of a component's blocks are looked at; None where its configuration does not count them."""
    return min(config[LAYERS], SURVEYED_BLOCKS) if LAYERS in config else None


def shipped(key: str) -> Survey | None:
    """The survey that ships under a key."""
    found = sorted(SHIPPED.glob(f"*.{key}.json"))
    return Survey.read(found[0]) if found else None


def elements(shape: Sequence[Dimension], sizes: Mapping[str, int]) -> int:
    """How many there are: sizes are numbers, names, and sums of products of both. Raises KeyError for another name."""

    def product(text: str) -> int:
        factors = (factor.strip() for factor in text.split("*"))
        return prod(int(factor) if factor.isdigit() else sizes[factor] for factor in factors)

    return prod(sum(map(product, str(size).split("+"))) for size in shape)


@cache
def _adapter() -> TypeAdapter[Survey]:
    return TypeAdapter(Survey)
