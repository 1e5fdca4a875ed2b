"""One segment of one component, compiled: what the actions hand to the one that assembles them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from wanc.artifacts.canonical import canonical
from wanc.compiler.program.program import ProgramGraph
from wanc.models.weights import Weight
from wanc.runtime.engine_file import EngineFile

FILE = "compiled.json"
NOTES = ".build.json"
"""What the name of a file ends with that says how the engine file of this name was built. It does not ship."""


@dataclass(frozen=True)
class Compiled:
    """`graphs` are all that the component has, by name, with their interfaces; `lowered` says of
    those that run here what passes did to each.

    `weights` are what an engine keeps in files of its own, and `not_finite` the tensors that were allowed to be so.
    """

    files: tuple[EngineFile, ...]
    graphs: Mapping[str, ProgramGraph]
    lowered: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, Weight]
    not_finite: tuple[str, ...]

    def write(self, out: Path) -> None:
        (out / FILE).write_bytes(canonical(_adapter().dump_python(self, mode="json")))

    @classmethod
    def read(cls, path: Path) -> Compiled:
        """What `write` wrote."""
        return _adapter().validate_json(path.read_bytes())


def numbered(files: Iterable[EngineFile]) -> tuple[EngineFile, ...]:
    """The files of all segments, each graph's numbered from 0 on in the order of execution, for each target.

    A segment's graph may be several files, between which ranks exchange: `segment` is then the number of the file.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    found: list[EngineFile] = []
    for file in sorted(files, key=lambda file: file.segment):
        graph = (file.component, file.graph, file.target)
        found.append(replace(file, segment=counts[graph]))
        counts[graph] += 1
    return tuple(found)


@cache
def _adapter() -> TypeAdapter[Compiled]:
    return TypeAdapter(Compiled)
