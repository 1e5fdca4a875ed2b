"""One graph as it was built: its engine files, executed segment after segment, or the host in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from wanc.compiler.engines.compiler import Compiler, Prober, Probers
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.host.reference import Reference
from wanc.compiler.program.program import ProgramGraph
from wanc.errors import CheckpointError, RecipeError, TargetError
from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import RANK, EngineFile
from wanc.runtime.interface import InputError
from wanc.runtime.segments import shared_axes
from wanc.runtime.session import Session
from wanc.runtime.value import Value, as_value
from wanc.runtime.workers.exchange import check_shared, exchanged

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BuiltGraph:
    """`files` are the graph's, in the order of its segments, below `folder`; `graph` is its interface.

    `reference` gives what executes the component's graphs on the host, where this machine cannot execute an engine.
    """

    compiler: Compiler
    graph: ProgramGraph
    files: Sequence[EngineFile]
    folder: Path
    reference: Callable[[], Reference]

    @property
    def where(self) -> str:
        return f"{self.files[0].component}/{self.files[0].graph}"

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(self._path(file).stat().st_size for file in self.files)

    @property
    def runs_here(self) -> bool:
        """Whether this machine can execute its files."""
        return None not in self._backends

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The graph's outputs by name.

        Raises CheckpointError where the engine does not take the graph or gives other outputs, or each of its ranks
        others; RecipeError where it fails on these inputs.
        """
        values = self._executed(inputs) if self.runs_here else self.reference().run(self.files[0].graph, inputs)
        if missing := [output.name for output in self.graph.outputs if output.name not in values]:
            given = ", ".join(sorted(values.keys() - inputs.keys())) or "none"
            raise CheckpointError(
                f"{self.where}: {self.compiler.engine} gives no output {missing[0]}, but {given}",
                hint="tell us, and build with another engine.kind until then",
            )
        return {output.name: values[output.name] for output in self.graph.outputs}

    def kernels(self) -> Kernels:
        """What was built, of all segments; they have been executed once by each of their ranks, if they can be."""
        opened = zip(self.files, self._backends, strict=True)
        kernels = reduce(add, [self.compiler.report(self._path(file), backend) for file, backend in opened])
        return kernels.of_ranks(self._ranks) if self.runs_here else kernels

    def prober(self) -> Prober:
        """What executes single Linears of all segments, or of the graph on the host where one cannot be executed."""
        probers = [self.compiler.prober(self._path(file)) for file in self.files]
        here = [prober for prober in probers if prober is not None]
        return Probers(here) if len(here) == len(probers) else self.reference().prober(self.files[0].graph)

    def close(self) -> None:
        """Give the memory of its segments back: a component's graphs need not fit in it together."""
        self.__dict__.pop("_backends", None)

    @property
    def _ranks(self) -> int:
        return len(self.files[0].ranks) or 1

    def _executed(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All values that are known behind the last segment, by name; those of the first rank, if there are several."""
        try:
            first, *others = self._by_ranks(inputs)
        except (TargetError, InputError) as error:
            sizes = ", ".join(f"{size}: {count}" for size, count in sorted(self.graph.example.items()))
            raise RecipeError(
                f"{self.where} does not run at the sizes {{{sizes}}}",
                hint="give sizes that work together under model.example, and what inputs have to be under model.values",
            ) from error
        given = [output.name for output in self.graph.outputs if output.name in first]
        for name in given if others else ():
            if any(not np.array_equal(first[name], values[name], equal_nan=True) for values in others):
                raise CheckpointError(f"{self.where}: not all of its ranks give the same {name}")
        return first

    def _by_ranks(self, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
        """The same for each rank: they take turns, segment by segment."""
        check_shared(shared_axes(self.graph.inputs), self._ranks, inputs)
        numbers = [{RANK: np.array([rank])} for rank in range(self._ranks)] if self.files[0].ranks else [{}]
        ranks = [{name: Value(array) for name, array in {**inputs, **own}.items()} for own in numbers]
        for file, backend in zip(self.files, self._backends, strict=True):
            exchanged(file, ranks, np.empty)
            session = Session(file.engine, self._path(file), threads=1, backend=backend)
            for values in ranks:
                outputs = session.run({name: values[name] for name in file.inputs if name in values})
                values |= {name: as_value(given) for name, given in outputs.items()}
        return [{name: value.numpy() for name, value in values.items()} for values in ranks]

    @cached_property
    def _backends(self) -> list[Backend | None]:
        return [self._open(self._path(file)) for file in self.files]

    def _path(self, file: EngineFile) -> Path:
        return self.folder / file.file

    def _open(self, path: Path) -> Backend | None:
        try:
            return self.compiler.execute(path)
        except Exception as error:  # the libraries' exceptions share no base class
            # They name the file that is being built, which will be gone.
            reason = RuntimeError(str(error).replace(str(path), path.name))
            raise CheckpointError(f"{self.where}: {self.compiler.engine} cannot load this graph") from reason
