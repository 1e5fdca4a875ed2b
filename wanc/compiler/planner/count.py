"""A survey at one size of video, in the numbers that an engine will have: what the planner counts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from wanc.compiler.planner.costs import ComponentCosts, Format, Kernel, PartCosts
from wanc.compiler.planner.survey import (
    Survey,
    SurveyedGraph,
    SurveyedKernel,
    SurveyedPart,
    SurveyedValue,
    elements,
)

BYTES: Mapping[Format, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
PRECISE = BYTES["fp32"]
ELSEWHERE = ("kept", "state", "past")
"""The roles of what is counted by itself: it is there before and behind an execution."""


@dataclass(frozen=True)
class Numbers:
    """In which numbers a component is held and computed.

    `linear` says for the path of each Linear in what it is multiplied, and `stored` how many bytes an element of its
    weight has; all else is in `compute`, attention in `attention`. Convolutions are Linears where it `convolves` so.
    """

    compute: Format
    attention: Format
    linear: Callable[[str], Format]
    stored: Callable[[str], float]
    convolves: bool = False

    def linear_of(self, kernel: SurveyedKernel) -> str | None:
        """The path of the Linear that a kernel is; None where it is none to these numbers."""
        return kernel.linear if self.convolves or kernel.kind == "linear" else None


def count_component(
    name: str,
    survey: Survey,
    blocks: int | None,
    sizes: Mapping[str, int],
    numbers: Numbers,
    *,
    executions: int,
    branches: int = 1,
) -> ComponentCosts:
    """What a component costs with as many blocks, at these sizes."""
    parts = tuple(_part(part, sizes, numbers) for part in survey.blocks(blocks))
    tokens = sizes["frames"] * sizes["rows"] * sizes["columns"] if survey.heads else None
    return ComponentCosts(name, parts, executions, branches, survey.heads, tokens)


def _part(part: SurveyedPart, sizes: Mapping[str, int], numbers: Numbers) -> PartCosts:
    main = _Counted(part.main, sizes, numbers)
    request = [_Counted(part.request, sizes, numbers)] if part.request else []
    return PartCosts(
        part.name,
        tuple(map(main.kernel, part.main.kernels)),
        weights=main.weights + sum(graph.weights for graph in request),
        activation=main.peak,
        leaves=main.leaves,
        kept=main.kept,
        exchanged=main.exchanged,
    )


@dataclass(frozen=True)
class _Counted:
    """One graph's piece at these sizes."""

    graph: SurveyedGraph
    sizes: Mapping[str, int]
    numbers: Numbers

    @cached_property
    def bytes(self) -> list[int]:
        """Of each value, as it lies in memory: what only quantised products take is written in their numbers."""
        takers: dict[int, set[int]] = {}
        for kernel in self.graph.kernels:
            for value in kernel.takes:
                takers.setdefault(value, set()).add(self._input_bytes(kernel))
        return [self._bytes(value, takers.get(index, set())) for index, value in enumerate(self.graph.values)]

    def _bytes(self, value: SurveyedValue, takers: set[int]) -> int:
        each = BYTES[self.numbers.compute]
        if value.is_precise:
            each = PRECISE
        elif value.role is None and len(takers) == 1:
            each = min(each, *takers)
        return elements(value.shape, self.sizes) * each

    def _input_bytes(self, kernel: SurveyedKernel) -> int:
        return BYTES[self._format(kernel)] if kernel.kind != "other" else BYTES[self.numbers.compute]

    def _format(self, kernel: SurveyedKernel) -> Format:
        if (linear := self.numbers.linear_of(kernel)) is not None:
            return self.numbers.linear(linear)
        return self.numbers.attention if kernel.kind == "attention" else self.numbers.compute

    def kernel(self, kernel: SurveyedKernel) -> Kernel:
        """With its FLOPs and bytes."""
        return Kernel(
            kernel.kind,
            self._format(kernel),
            flops=kernel.flops * elements(kernel.scale, self.sizes) if kernel.flops else 0,
            moved=sum(self.bytes[value] for value in (*kernel.takes, *kernel.gives)),
            weights=self._weight(kernel),
        )

    def _weight(self, kernel: SurveyedKernel) -> int:
        if (linear := self.numbers.linear_of(kernel)) is None:
            return kernel.weight * BYTES[self.numbers.compute]
        return round(kernel.weight * self.numbers.stored(linear))

    @property
    def weights(self) -> int:
        """Bytes of all parameters: those of norms and biases are in the compute type as well."""
        products = sum(self._weight(kernel) for kernel in self.graph.kernels)
        return products + self.graph.parameters * BYTES[self.numbers.compute]

    @property
    def leaves(self) -> int:
        return sum(self.bytes[value] for value in self.graph.leaves)

    @property
    def kept(self) -> int:
        """What a branch's request keeps, or a decoder keeps of earlier frames and replaces: old and new."""
        values = self.graph.values
        kept = [index for index, value in enumerate(values) if value.role in ("kept", "state")]
        return sum(self.bytes[index] for index in (*kept, *self.graph.stays))

    @property
    def exchanged(self) -> int:
        """Queries, keys, values and results of attentions in which every token looks at every token."""
        values = self.graph.values
        around = [
            (*kernel.takes, *kernel.gives)
            for kernel in self.graph.kernels
            if kernel.kind == "attention" and not any(values[index].role == "kept" for index in kernel.takes)
        ]
        return sum(self.bytes[index] for indices in around for index in indices)

    @property
    def peak(self) -> int:
        """The most that is alive at once: what was computed and is still needed, and what is being written.

        A norm holds what it sums over in fp32 until its result takes that place, one result at a time.
        """
        last = {value: number for number, kernel in enumerate(self.graph.kernels) for value in kernel.takes}
        last.update(dict.fromkeys(self.graph.leaves, len(self.graph.kernels)))
        counted = {index for index, value in enumerate(self.graph.values) if value.role not in ELSEWHERE}
        counted -= set(self.graph.stays)
        alive = {index for index in counted if self.graph.values[index].role is not None}
        most = 0
        for number, kernel in enumerate(self.graph.kernels):
            held = sum(self.bytes[index] for index in alive)
            written = [self.bytes[index] for index in kernel.gives if index in counted]
            copies = sum(self._copy(index) for index in kernel.copies)
            precise = sum(self.bytes[index] for index in kernel.gives if self.graph.values[index].is_precise)
            result = max((size for size in written), default=0) + precise if copies else sum(written)
            most = max(most, held + copies + result)
            alive = {index for index in (*alive, *kernel.gives) if index in counted and last.get(index, -1) > number}
        return most

    def _copy(self, index: int) -> int:
        value = self.graph.values[index]
        return 0 if value.is_precise else elements(value.shape, self.sizes) * PRECISE


def video_sizes(
    height: int, width: int, frames: int, *, strides: tuple[int, int], patch: tuple[int, int], text_length: int
) -> dict[str, int]:
    """The sizes that graphs are written in, of a video in pixels and frames.

    `strides` are the decoder's, in time and space; `patch` is how many latents a token is high and wide.
    """
    time, space = strides
    high, wide = height // space, width // space
    return {
        "frames": (frames - 1) // time + 1, "height": high, "width": wide,
        "rows": high // patch[0], "columns": wide // patch[1], "tokens": text_length,
    }  # fmt: skip


def flops(parts: Sequence[PartCosts], *, kind: str | None = None) -> int:
    """Of one execution, of all products or of those of one kind."""
    found = (kernel for part in parts for kernel in part.kernels if kind in (None, kernel.kind))
    return sum(prod((kernel.flops, kernel.count)) for kernel in found)
