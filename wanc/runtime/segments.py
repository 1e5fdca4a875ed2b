"""The engine files of one graph in the order in which they are executed, and what each hands on to later ones.

That a segment takes only what the graph takes and what earlier ones give is also why segments on several devices cannot
stop each other: see `workers.micro_batches`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .dimensions import split_dimension
from .engine_file import OWN_TOKENS, RANK, EngineFile
from .errors import BundleError
from .interface import Input, Interface


@dataclass(frozen=True)
class Segments:
    """A graph as it is executed: `inputs` and `outputs` are the whole graph's. Most graphs are one file.

    `shared` are inputs of which ranks have equal parts, each with the axis of its tokens.
    """

    files: tuple[EngineFile, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shared: tuple[tuple[str, int], ...] = ()

    @classmethod
    def whole(cls, file: EngineFile) -> Segments:
        """A graph that is not cut."""
        return cls((file,), file.inputs, file.outputs)

    @classmethod
    def of(cls, interface: Interface, files: Iterable[EngineFile], where: str) -> Segments:
        """The segments of a graph with this interface.

        Raises BundleError, about the manifest at `where`, unless they are numbered from 0 on, every segment takes what
        the graph takes or an earlier one gives, and every output of the graph is given by exactly one.
        """
        inputs, outputs = (tuple(entry.name for entry in side) for side in (interface.inputs, interface.outputs))
        ordered = tuple(sorted(files, key=lambda file: file.segment))
        segments = cls(ordered, inputs, outputs, shared_axes(interface.inputs))
        if fault := segments._fault():
            first = segments.files[0]
            raise BundleError(f"{first.component}/{first.graph}: {fault}", where=where)
        return segments

    @cached_property
    def dropped(self) -> tuple[tuple[str, ...], ...]:
        """For each segment the values that nobody needs once it has run."""
        last: dict[str, int] = {}
        for index, file in enumerate(self.files):
            sent = (exchange.given for exchange in file.exchanges)
            last |= dict.fromkeys((*sent, *file.inputs, *file.outputs), index)
        kept = set(self.outputs)
        dropped: list[list[str]] = [[] for _ in self.files]
        for name, final in last.items():
            if name not in kept:
                dropped[final].append(name)
        return tuple(map(tuple, dropped))

    def _fault(self) -> str | None:
        for index, file in enumerate(self.files):
            if file.segment != index:
                return f"segment {index} is missing" if file.segment > index else f"segment {file.segment} comes twice"
        given: dict[str, int] = {}
        taken = set(self.inputs)
        for file in self.files:
            if len(file.ranks) != len(self.files[0].ranks):
                return f"segment {file.segment} has {len(file.ranks)} ranks, segment 0 {len(self.files[0].ranks)}"
            exchanged = {exchange.taken for exchange in file.exchanges} | ({RANK} if file.ranks else set[str]())
            sent = [exchange.given for exchange in file.exchanges]
            needed = [*sent, *(name for name in file.inputs if name not in exchanged)]
            if unknown := [name for name in needed if name not in given and name not in taken]:
                return f"segment {file.segment} takes {_short(unknown[0])}, which nothing before it gives"
            if file.exchanges and not file.ranks:
                return f"segment {file.segment} exchanges {_short(sent[0])}, and no ranks execute it"
            for name in file.outputs:
                if given.setdefault(name, file.segment) != file.segment:
                    return f"segments {given[name]} and {file.segment} both give {_short(name)}"
        if absent := [name for name in self.outputs if name not in given]:
            return f"no segment gives the output {_short(absent[0])}"
        return self._whole_fault(self.files[0]) if len(self.files) == 1 else None

    def _whole_fault(self, file: EngineFile) -> str | None:
        """A graph that is not cut is the file: it takes and gives what the graph does, and nothing else."""
        if untaken := set(self.inputs) - set(file.inputs):
            return f"its one segment does not take the input {_short(min(untaken))}"
        if unknown := set(file.outputs) - set(self.outputs):
            return f"its one segment gives {_short(min(unknown))}, which the graph does not"
        return None


def shared_axes(inputs: Iterable[Input]) -> tuple[tuple[str, int], ...]:
    """Which inputs of a graph its ranks have equal parts of, as `Segments.shared`."""
    return tuple(
        (entry.name, axis)
        for entry in inputs
        for axis, size in enumerate(entry.shape)
        if split_dimension(size)[1] == OWN_TOKENS
    )


def _short(name: str) -> str:
    return ascii(name)[:80]
