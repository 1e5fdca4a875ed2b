"""What runs one segment of one graph: the manifest's list of engine files says it, and no file's name does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .strict_json import Fields, JsonObject, JsonValue

Key = tuple[str, str]
"""(component, graph)."""


@dataclass(frozen=True)
class EngineFile:
    """One file that an engine executes.

    A graph that is cut has several, `segment` 0 first. `target` is what the file was compiled for, `device` where it is
    placed; `profile` names the one shape that it takes, None where it takes any. `file` is relative to the bundle;
    `inputs` and `outputs` are the names of the values that the segment takes and gives: those of the graph's interface,
    and those that one segment hands to a later one.
    """

    component: str
    graph: str
    segment: int
    engine: str
    target: str
    profile: str | None
    device: str
    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def read(cls, fields: Fields) -> EngineFile:
        """An entry of a manifest's list. Raises BundleError where a field is missing or of another type."""
        return cls(
            component=fields.text("component"),
            graph=fields.text("graph"),
            segment=fields.integer("segment"),
            engine=fields.text("engine"),
            target=fields.text("target"),
            profile=fields.optional_text("profile"),
            device=fields.text("device"),
            file=fields.text("file"),
            inputs=_names(fields, "inputs"),
            outputs=_names(fields, "outputs"),
        )

    def as_json(self) -> JsonObject:
        """The entry as JSON values."""
        values: dict[str, JsonValue] = asdict(self)
        return {**values, "inputs": list(self.inputs), "outputs": list(self.outputs)}

    def __str__(self) -> str:
        """`tensorrt on sm80 (gpu1), for 480p alone`: device and profile where they say more."""
        device = f" ({self.device})" if self.device != self.target else ""
        profile = f", for {self.profile} alone" if self.profile is not None else ""
        return f"{self.engine} on {self.target}{device}{profile}"


def read_engine_files(entries: Iterable[Fields], files: set[str]) -> tuple[EngineFile, ...]:
    """A manifest's list, in its order; `files` are the paths that were verified.

    Raises BundleError for a file that is not one of those, and for a segment that is listed twice for one engine,
    target, profile and device.
    """
    found: dict[tuple[object, ...], EngineFile] = {}
    for fields in entries:
        entry = EngineFile.read(fields)
        if entry.file not in files:
            fields.refuse("file", f"names {ascii(entry.file)[:80]}, which is not a file of the bundle")
        key = (entry.component, entry.graph, entry.segment, entry.engine, entry.target, entry.profile, entry.device)
        if key in found:
            fields.refuse("segment", f"repeats segment {entry.segment} of {entry.component}/{entry.graph} ({entry})")
        found[key] = entry
    return tuple(found.values())


def _names(fields: Fields, name: str) -> tuple[str, ...]:
    names = fields.texts(name)
    if len(set(names)) < len(names):
        fields.refuse(name, "names one value twice")
    return tuple(names)
