"""A sealed bundle of which engines are built: what it asks for, and what a child of it takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import onnx_ir as ir

from wanc.artifacts.files import read_small
from wanc.compiler.engines.tensorrt.on_target import settings_of
from wanc.compiler.on_target.gpus import TargetGpu
from wanc.compiler.program.graph_file import load
from wanc.errors import EXIT_USAGE, BundleError, TargetError, UserError
from wanc.runtime.engine_file import ON_TARGET, EngineFile, read_engine_files
from wanc.runtime.folder import VerifiedFolder
from wanc.runtime.manifest import MANIFEST, MARKER, FileEntry, Manifest
from wanc.runtime.progress import OnProgress
from wanc.runtime.strict_json import Fields, JsonValue, parse_object
from wanc.runtime.verify import verified

Read = TypeVar("Read")
BUILDERS = {"tensorrt": "wanc.compiler.engines.tensorrt.build"}
"""What builds engines on their target, by the engine's name: a module with a function `build_engine`."""


@dataclass(frozen=True)
class Parent:
    """A bundle that was verified just now; `engines` are its engine files, `waiting` those that are to be built."""

    root: Path
    manifest: Manifest
    folder: VerifiedFolder
    engines: tuple[EngineFile, ...]

    @classmethod
    def open(cls, root: Path, on_progress: OnProgress) -> Parent:
        """Verify a bundle and read what engines it has.

        Raises VerificationError where it is damaged, BundleError where it has nothing to build, asks for engines that
        this version does not build, or lacks what they are made of.
        """
        manifest, folder = verified(root, partial(on_progress, "verify"))
        topology = Fields(cast("JsonValue", manifest.topology), folder.shown(MANIFEST), "topology")
        engines = read_engine_files(topology.objects("engines"), {file.path for file in manifest.files})
        parent = cls(root, manifest, folder, engines)
        if not parent.waiting:
            raise BundleError(
                "has no engine that is to be built on its target",
                where=str(root),
                hint="it is what runs: wanc run",
                exit_code=EXIT_USAGE,
            )
        for file in parent.waiting:
            if file.engine not in BUILDERS:
                raise BundleError(
                    f"asks for engines of {ascii(file.engine)[:80]}, which are not built on their target",
                    where=folder.shown(MANIFEST),
                )
            parent.parts(file)
        return parent

    @property
    def waiting(self) -> tuple[EngineFile, ...]:
        return tuple(file for file in self.engines if file.built == ON_TARGET)

    def chosen(self, gpus: Sequence[TargetGpu]) -> dict[EngineFile, TargetGpu]:
        """Those that this machine can build, and the first GPU of each. Raises TargetError where there is none."""
        if not gpus:
            raise TargetError(
                "no GPU is visible here, and engines are built on the GPU that executes them",
                hint="build on a machine that has one: nvidia-smi lists them, and CUDA_VISIBLE_DEVICES may hide them",
            )
        first = {gpu.target: gpu for gpu in reversed(gpus)}
        found = {file: first[file.target] for file in self.waiting if file.target in first}
        if not found:
            wanted = " and ".join(sorted({file.target for file in self.waiting}))
            here = " and ".join(sorted({f"{gpu.target} ({gpu.name})" for gpu in gpus}))
            raise TargetError(
                f"the bundle's engines are for {wanted}, and this machine has {here}",
                where=str(self.root),
                hint="build on such a machine, or set engine.targets in the recipe and build the bundle again",
            )
        return found

    def staying(self, built: Iterable[EngineFile], made: Iterable[str]) -> list[FileEntry]:
        """The files that a child has as they are: not those of which engines were `built`, nor what is `made` anew."""
        names = {file.file for file in built}
        parts = {file.file: self.parts(file) for file in self.waiting}
        needed = {part for name, own in parts.items() if name not in names for part in own}
        gone = {part for name in names for part in parts[name]} - needed
        return [file for file in self.manifest.files if file.path not in {MARKER, *made} and file.path not in gone]

    def parts(self, file: EngineFile) -> set[str]:
        """The files of a lowered graph: itself, how to build it, and its weights.

        Raises BundleError where it is none, or where one of them is not the bundle's.
        """
        folder = file.file.rpartition("/")[0]
        model = self.read(file.file, load)
        tensors = [value.const_value for value in model.graph.initializers.values()]
        weights = {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
        parts = {file.file, str(settings_of(Path(file.file))), *(f"{folder}/{name}" for name in weights)}
        if foreign := sorted(parts - {entry.path for entry in self.manifest.files}):
            message = f"takes {ascii(foreign[0])[:80]}, which is not a file of the bundle"
            raise BundleError(message, where=self.folder.shown(file.file))
        return parts

    def document(self, name: str) -> Fields:
        """A file in JSON. Raises BundleError where there is none."""
        return self.read(name, lambda path: parse_object(read_small(path), where=self.folder.shown(name)))

    def read(self, name: str, reader: Callable[[Path], Read]) -> Read:
        """What `reader` makes of a file. Raises BundleError where that is nothing, or there is no such file."""
        if name not in {file.path for file in self.manifest.files}:
            raise BundleError(f"has no {name}", where=str(self.root))
        try:
            return self.folder.read(name, reader)
        except UserError:
            raise
        except Exception as error:  # libraries' own, of a file that is not what its name says
            raise BundleError("cannot be read", where=self.folder.shown(name)) from error
