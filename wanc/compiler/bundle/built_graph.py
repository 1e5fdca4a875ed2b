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
from wanc.runtime.engine_file import EngineFile
from wanc.runtime.interface import InputError
from wanc.runtime.session import Session
from wanc.runtime.value import as_array

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

        Raises CheckpointError where the engine does not take the graph or gives other outputs, RecipeError where it
        fails on these inputs.
        """
        if not self.runs_here:
            values = self.reference().run(self.files[0].graph, inputs)
        else:
            values = dict(inputs)
            for file, backend in zip(self.files, self._backends, strict=True):
                values |= self._run(file, backend, {name: values[name] for name in file.inputs if name in values})
        if missing := [output.name for output in self.graph.outputs if output.name not in values]:
            given = ", ".join(sorted(values.keys() - inputs.keys())) or "none"
            raise CheckpointError(
                f"{self.where}: {self.compiler.engine} gives no output {missing[0]}, but {given}",
                hint="tell us, and build with another engine.kind until then",
            )
        return {output.name: values[output.name] for output in self.graph.outputs}

    def kernels(self) -> Kernels:
        """What was built, of all segments; they have been executed once, if they can be."""
        opened = zip(self.files, self._backends, strict=True)
        return reduce(add, [self.compiler.report(self._path(file), backend) for file, backend in opened])

    def prober(self) -> Prober:
        """What executes single Linears of all segments, or of the graph on the host where one cannot be executed."""
        probers = [self.compiler.prober(self._path(file)) for file in self.files]
        here = [prober for prober in probers if prober is not None]
        return Probers(here) if len(here) == len(probers) else self.reference().prober(self.files[0].graph)

    def close(self) -> None:
        """Give the memory of its segments back: a component's graphs need not fit in it together."""
        self.__dict__.pop("_backends", None)

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

    def _run(self, file: EngineFile, backend: Backend | None, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            outputs = Session(file.engine, self._path(file), threads=1, backend=backend).run(inputs)
            return {name: as_array(given) for name, given in outputs.items()}
        except (TargetError, InputError) as error:
            sizes = ", ".join(f"{size}: {count}" for size, count in sorted(self.graph.example.items()))
            raise RecipeError(
                f"{self.where} does not run at the sizes {{{sizes}}}",
                hint="give sizes that work together under model.example, and what inputs have to be under model.values",
            ) from error
