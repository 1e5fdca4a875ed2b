"""What has to be known of a lowered graph to build its engine elsewhere: it lies beside the graph, in the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wanc.artifacts.canonical import canonical
from wanc.compiler.engines.tensorrt.profiles import Profile
from wanc.errors import BundleError

SETTINGS = ".settings.json"
"""What the name of their file ends with, behind the graph's."""


@dataclass(frozen=True)
class BuildSettings:
    """`profiles`, `values` and `weight_streaming` are as in `BuildTask`, `example` as in `LoweredGraph`."""

    profiles: tuple[Profile, ...]
    values: tuple[str, ...]
    example: Mapping[str, int]
    weight_streaming: bool

    def write(self, graph: Path) -> None:
        """Write them beside a graph."""
        settings_of(graph).write_bytes(canonical(asdict(self)))

    @classmethod
    def read(cls, graph: Path, where: str) -> BuildSettings:
        """What `write` wrote beside a graph, which errors call `where`. Raises BundleError for anything else."""
        try:
            return TypeAdapter(cls).validate_json(settings_of(graph).read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError("has no settings to build it with", where=where) from error


def settings_of(graph: Path) -> Path:
    """Where the settings of a graph lie."""
    return graph.with_name(graph.name + SETTINGS)
