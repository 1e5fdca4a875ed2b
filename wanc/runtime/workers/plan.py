"""What the process of one device needs to know of a bundle; its digest is part of every message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..engine_file import EngineFile
from ..folder import PlainFolder, folder_of
from ..strict_json import JsonValue, parse_object


@dataclass(frozen=True)
class DevicePlan:
    """`files` are those that the device executes, each as its own: which other ranks there are is not its affair.

    It is kept on the processors `cores`, where it opens a file with so many `threads`; `thrifty` are components whose
    engines keep no memory between executions.
    """

    device: str
    folder: PlainFolder
    files: tuple[EngineFile, ...]
    threads: int
    cores: frozenset[int]
    thrifty: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        device: str,
        folder: PlainFolder,
        files: Iterable[EngineFile],
        threads: int,
        cores: frozenset[int],
        thrifty: Iterable[str] = (),
    ) -> DevicePlan:
        """The share of one device in a bundle's `files`."""
        own = tuple(_alone(file, device) for file in files if device in (file.ranks or (file.device,)))
        return cls(device, folder, own, threads, cores, tuple(sorted(thrifty)))

    def as_bytes(self) -> bytes:
        """What `read` reads."""
        values: Mapping[str, JsonValue] = {
            "device": self.device,
            "folder": self.folder.as_json(),
            "files": [file.as_json() for file in self.files],
            "threads": self.threads,
            "cores": [*sorted(self.cores)],
            "thrifty": list(self.thrifty),
        }
        return json.dumps(values).encode()

    @classmethod
    def read(cls, data: bytes) -> DevicePlan:
        """Raises BundleError for what is no plan."""
        fields = parse_object(data, where="the plan of a device")
        cores = fields.values.get("cores")
        return cls(
            device=fields.text("device"),
            folder=folder_of(fields.object("folder")),
            files=tuple(map(EngineFile.read, fields.objects("files"))),
            threads=fields.integer("threads"),
            cores=frozenset(fields.whole_numbers("cores", len(cores) if isinstance(cores, list) else 0)),
            thrifty=tuple(fields.texts("thrifty")),
        )

    def has(self, file: EngineFile) -> bool:
        """Whether the device executes this file of the bundle."""
        return self.device in (file.ranks or (file.device,))

    def index(self, file: EngineFile) -> int:
        """What messages call a file of the bundle. Raises ValueError where the device does not execute it."""
        return self.files.index(_alone(file, self.device))


def digest_of_plan(data: bytes) -> str:
    """What both sides must have of it."""
    return hashlib.sha256(data).hexdigest()


def _alone(file: EngineFile, device: str) -> EngineFile:
    return replace(file, device=device, ranks=(), exchanges=())
