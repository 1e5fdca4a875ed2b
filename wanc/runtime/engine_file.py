"""What runs one segment of one graph: the manifest's list of engine files says it, and no file's name does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, cast, get_args

from .strict_json import Fields, JsonObject, JsonValue

Key = tuple[str, str]
"""(component, graph)."""
CPU, CUDA = "cpu", "cuda"
"""Targets that the runtime executes engines on: the processor, and whichever NVIDIA GPU is there."""
ON_TARGET = "on-target"
"""What `built` says of a lowered graph, of which an engine is made on a machine with its GPU."""
BUILD_IT = "wanc build --on-target"
RANK = "rank"
"""The input that a segment has which several devices execute: int64 [1], the number of the one that does."""
OWN_TOKENS = "rank_tokens"
"""The size that says how many tokens each of them has. An input that they split is so many times as large."""


Operation = Literal["all_to_all", "all_gather"]
"""Of blocks along dimension 0: block i goes to rank i; or every rank gets those of all."""


class RankExchange(NamedTuple):
    """What ranks exchange in front of a file: of the value that each has as `given` becomes what it has as `taken`."""

    operation: Operation
    given: str
    taken: str


class EngineMemory(NamedTuple):
    """Bytes that an engine file takes: `opened` when it is open, `opening` at most until then."""

    opened: int
    opening: int


@dataclass(frozen=True)
class EngineFile:
    """One file that an engine executes.

    A graph that is cut has several, `segment` 0 first. `target` is what the file was compiled for, `device` where it is
    placed; `profile` names the one shape that it takes, None where it takes any. `file` is relative to the bundle;
    `inputs` and `outputs` are the names of the values that the segment takes and gives: those of the graph's interface,
    and those that one segment hands to a later one. `built` is `on-target` where there is no engine yet: then `file` is
    the lowered graph, an ONNX file that nothing executes as it is. `ranks` are the devices that execute it together,
    `device` first: each loads the file, takes its place among them as the input `RANK`, and computes its part of the
    tokens; they exchange the rest: of an engine that cannot do that itself what is in `exchanges`, before the file is
    executed. None where that is the one device's. `memory` is what it takes on a CPU beside its
    activations; None of a file that is executed elsewhere, or that is older.
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
    built: str | None = None
    ranks: tuple[str, ...] = ()
    memory: EngineMemory | None = None
    exchanges: tuple[RankExchange, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> EngineFile:
        """An entry of a manifest's list. Raises BundleError where a field is missing or of another type."""
        built = fields.optional_text("built") if "built" in fields.values else None
        if built not in (None, ON_TARGET):
            fields.refuse("built", f"is {ascii(built)[:80]}, not {ON_TARGET}")
        ranks = _names(fields, "ranks") if "ranks" in fields.values else ()
        if ranks and (len(ranks) == 1 or ranks[0] != fields.text("device")):
            fields.refuse("ranks", "must be several devices, the first of which is `device`")
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
            built=built,
            ranks=ranks,
            memory=_memory(fields.object("memory")) if "memory" in fields.values else None,
            exchanges=tuple(map(_exchange, fields.objects("exchanges"))) if "exchanges" in fields.values else (),
        )

    def as_json(self) -> JsonObject:
        """The entry as JSON values; what most files do not have is left out of theirs."""
        values: dict[str, JsonValue] = asdict(self)
        for name in ("built", "ranks", "memory", "exchanges"):
            if not values[name]:
                del values[name]
        lists: dict[str, JsonValue] = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        if self.memory:
            lists["memory"] = self.memory._asdict()
        if self.exchanges:
            lists["exchanges"] = [exchange._asdict() for exchange in self.exchanges]
        return {**values, **lists}

    def __str__(self) -> str:
        """`tensorrt on sm80 (gpu1), for 480p alone, not built yet`: what says more than engine and target."""
        devices = ", ".join(self.ranks or (self.device,))
        device = f" ({devices})" if devices != self.target else ""
        profile = f", for {self.profile} alone" if self.profile is not None else ""
        state = ", not built yet" if self.built == ON_TARGET else ""
        return f"{self.engine} on {self.target}{device}{profile}{state}"


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


def to_build(topology: Mapping[str, JsonValue]) -> int:
    """How many engine files of a manifest's `topology` are to be built on their target; what is damaged counts none."""
    entries = topology.get("engines")
    found = entries if isinstance(entries, list) else []
    return sum(isinstance(entry, dict) and entry.get("built") == ON_TARGET for entry in found)


def _exchange(fields: Fields) -> RankExchange:
    operation = fields.text("operation")
    if operation not in get_args(Operation):
        fields.refuse("operation", f"is {ascii(operation)[:80]}, not one of {', '.join(get_args(Operation))}")
    return RankExchange(cast("Operation", operation), fields.text("given"), fields.text("taken"))


def _memory(fields: Fields) -> EngineMemory:
    opened, opening = (fields.integer(name) for name in EngineMemory._fields)
    if opening < opened:
        fields.refuse("opening", f"is {opening}, less than the {opened} that stay")
    return EngineMemory(opened, opening)


def _names(fields: Fields, name: str) -> tuple[str, ...]:
    names = fields.texts(name)
    if len(set(names)) < len(names):
        fields.refuse(name, "names one value twice")
    return tuple(names)
