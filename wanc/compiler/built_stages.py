"""What the stages of a build left of a bundle's components: programs that can be executed, from export on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.records import ActionRecord
from wanc.artifacts.refs import last_sealed, read_ref, ref_of
from wanc.artifacts.store import Store
from wanc.compiler.host.chain import Chain, chain_of
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.stages.stage import Files
from wanc.errors import EXIT_NOT_COMPARABLE, BundleError, UserError
from wanc.runtime.interface import Interface
from wanc.runtime.manifest import Manifest

EXPORT = "export"
STAGES = (EXPORT, "fuse", "quantize", "train")
"""The names of those that change what a component computes, in their order; the engine comes behind them."""


@dataclass(frozen=True)
class BuiltComponent:
    """A component as one stage has left it."""

    name: str
    stage: str
    record: ActionRecord
    files: ComponentFiles

    @property
    def told(self) -> Mapping[str, Any]:
        """What the stage was told: its parameters, and beside them `code` and the versions of tools."""
        return _told(self.record)

    @property
    def digests(self) -> dict[str, str]:
        """Of the files that are the component's own; what they name of a checkpoint is the same for all."""
        return {path: blob.digest for path, blob in self.record.files.items() if path.startswith(f"{self.name}/")}

    @property
    def interfaces(self) -> dict[str, Interface]:
        """Of its graphs."""
        return self.files.component.interfaces

    def graph(self, name: str, folder: Path) -> Chain:
        """One of its graphs, ready to be executed; pieces of it are written below `folder`, which is made."""
        return chain_of(self.files, name, folder)


class BuiltBundle:
    """The stages of a bundle that a store knows.

    Raises UserError, with the exit code of what is not comparable, where the store does not know how the bundle was
    built, or where what a stage left is gone.
    """

    def __init__(self, store: Store, bundle: Path, source: Files) -> None:
        self._store, self._bundle, self._source = store, bundle, source
        if last_sealed(store.root, bundle) != Manifest.read(bundle).id:
            raise self._unknown("the store does not know how this bundle was built")
        self._records = list(self._read())

    def stages(self, component: str) -> Iterator[BuiltComponent]:
        """What each stage that worked on a component made of it, in their order."""
        exported, program = dict[str, Path](), dict[str, Path]()
        for stage in STAGES:
            for record in self._records:
                if record.stage == stage and _is_about(record, component):
                    program |= {path: self._store.path(blob) for path, blob in record.files.items()}
                    exported = exported or program
                    given = {"program": dict(program), "exported": exported, "source": self._source}
                    yield BuiltComponent(component, stage, record, ComponentFiles.read(component, given))

    def _read(self) -> Iterator[ActionRecord]:
        for key in read_ref(self._store.root / "refs" / ref_of(self._store.root, self._bundle)[0]):
            record = self._store.lookup(key)
            if record is None:
                raise self._unknown("the store no longer has all that this bundle was built of")
            yield record

    def _unknown(self, reason: str) -> UserError:
        hint = "build it again, or say which store has built it: --store FOLDER"
        return UserError(reason, where=str(self._bundle), hint=hint, exit_code=EXIT_NOT_COMPARABLE)


def _told(record: ActionRecord) -> Mapping[str, Any]:
    document = dict(record.document)
    told = document.pop("parameters", {})
    if not isinstance(told, dict):
        raise BundleError("has parameters of another form", where=record.key)
    return {**{name: value for name, value in document.items() if name != "inputs"}, **told}


def _is_about(record: ActionRecord, component: str) -> bool:
    return any(path.startswith(f"{component}/") for path in record.files)
