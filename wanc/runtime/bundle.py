"""What every bundle says about running it: its task, its engines, its threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .errors import BundleError, TargetError
from .manifest import MANIFEST, Manifest
from .safe_read import Progress
from .strict_json import Fields, JsonValue
from .verify import ensure_verified

RUNNABLE = {("onnxruntime", "cpu"), ("openvino", "cpu")}
"""(engine, target) of what this runtime can execute."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, verified. What one task alone needs is read by `VideoBundle` and `Interface`."""

    root: Path
    manifest: Manifest
    task: str
    engines: dict[tuple[str, str], Path]
    threads: int

    @classmethod
    def open(cls, root: Path, *, progress: Progress | None = None) -> Bundle:
        """Verify every file of the bundle, then read what it says.

        Raises VerificationError, BundleError, and TargetError where no engine fits this machine.
        """
        manifest = ensure_verified(root, progress)
        runtime, topology = (section(root, manifest, name) for name in ("runtime", "topology"))
        return Bundle(
            root=root,
            manifest=manifest,
            task=runtime.text("task"),
            engines=_engines(topology.objects("engines"), root, manifest),
            threads=runtime.integer("threads"),
        )

    def expect_task(self, task: str) -> None:
        """Raises BundleError unless this is what the bundle is for."""
        if self.task != task:
            raise BundleError(f"the bundle's task is {self.task!r}, not {task!r}", where=str(self.root))


def section(root: Path, manifest: Manifest, name: str) -> Fields:
    """`runtime` or `topology` of a bundle's manifest."""
    values = {"runtime": manifest.runtime, "topology": manifest.topology}[name]
    return Fields(cast("JsonValue", values), str(root / MANIFEST), name)


def listed(root: Path, manifest: Manifest, fields: Fields, name: str) -> Path:
    """The file that a field names. Raises BundleError unless it is one of those that were verified."""
    path = fields.text(name)
    if path not in {file.path for file in manifest.files}:
        fields.refuse(name, f"names {ascii(path)[:80]}, which is not a file of the bundle")
    return root / path


def _engines(entries: list[Fields], root: Path, manifest: Manifest) -> dict[tuple[str, str], Path]:
    """The first entry for each graph that this runtime can execute. Raises TargetError where a graph has none."""
    chosen: dict[tuple[str, str], Path] = {}
    offered: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        key = (entry.text("component"), entry.text("graph"))
        engine, target = entry.text("engine"), entry.text("target")
        offered.setdefault(key, []).append(f"{engine} on {target}")
        if (engine, target) in RUNNABLE:
            chosen.setdefault(key, listed(root, manifest, entry, "file"))
    for key, offers in offered.items():
        if key not in chosen:
            raise TargetError(
                f"no engine of {'/'.join(key)} runs here: this machine offers "
                + ", ".join(f"{engine} on {target}" for engine, target in sorted(RUNNABLE)),
                where=str(root),
                hint=f"the bundle holds: {', '.join(offers)}",
            )
    return chosen
