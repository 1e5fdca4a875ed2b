"""`wanc build --on-target`: a sealed bundle with lowered graphs → another one, with engines in their place.

The parent is read and never written to. Its child has its files, but for the graphs and weights that engines were made
of; a program, a report and a manifest of its own; and names its parent. Golden record, tables and runtime stay: the
record is what the graphs compute on the machine that made the parent, so the child's self-test is held to that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import require_space
from wanc.artifacts.private import abandoned, private_directory
from wanc.artifacts.seal import BundleFacts, BundleFile, check_destination, seal
from wanc.compiler.engines.kernels import describe
from wanc.compiler.on_target.engines import Allowed, BuiltEngine, build_engine
from wanc.compiler.on_target.gpus import TargetGpu, visible_gpus
from wanc.compiler.on_target.parent import Parent
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program
from wanc.compiler.stages.stage import tool_version
from wanc.errors import EXIT_USAGE, BundleError, OutputError, UserError
from wanc.runtime.engine_file import EngineFile, Key
from wanc.runtime.golden import FOLDER as GOLDEN
from wanc.runtime.golden import TOLERANCES as TOLERANCES_FILE
from wanc.runtime.manifest import Manifest
from wanc.runtime.progress import OnProgress
from wanc.runtime.strict_json import Fields, JsonValue

LOCK, TOLERANCES = "recipe.lock.json", f"{GOLDEN}/{TOLERANCES_FILE}"
MADE = (FILE, ENGINE_REPORT)
"""What a child says anew."""
_SUFFIX = ".building"
Built = Mapping[EngineFile, BuiltEngine]


@dataclass(frozen=True)
class ChildResult:
    """A child that stands sealed; `engines` are how many were built, and `waiting` how many still are to be."""

    bundle: Path
    id: str
    parent: str
    engines: int
    waiting: int

    def as_json(self) -> dict[str, Any]:
        numbers = {"engines": self.engines, "to_build": self.waiting}
        return {"bundle": str(self.bundle), "id": self.id, "parent": self.parent, **numbers}


def build_on_target(root: Path, output: Path, *, replace: bool, on_progress: OnProgress) -> ChildResult:
    """Build what a bundle asks for on this machine's GPUs, into `output/bundles/<name>-<target>`.

    What is for other GPUs stays as it is. A bundle that stands there already is replaced only where `replace` says so.
    Raises UserError; then nothing of the child is left.
    """
    parent = Parent.open(root, on_progress)
    chosen, child = parent.chosen(visible_gpus()), _Child.of(parent)
    tool_version("onnxruntime")  # which executes the graphs that engines are compared with
    name = "-".join([parent.manifest.name, *sorted({file.target for file in chosen})])
    destination = output / "bundles" / name
    _check_destination(destination, root, replace=replace)
    destination.parent.mkdir(parents=True, exist_ok=True)
    # An engine has about the size of the weights that it is made of.
    require_space(destination.parent, sum(file.size for file in parent.manifest.files))
    affixes = {"prefix": f".{name}.", "suffix": _SUFFIX}
    for _ in abandoned(destination.parent, **affixes):
        pass  # its owner was killed: it goes
    with private_directory(destination.parent, **affixes) as scratch:
        built: dict[EngineFile, BuiltEngine] = {}
        for number, (file, gpu) in enumerate(chosen.items()):
            on_progress("engines", number, len(chosen))
            built[file] = build_engine(parent, file, gpu, child.allowed[file.component, file.graph], scratch)
        on_progress("engines", len(chosen), len(chosen))
        files = child.files(built, [*chosen.values()])
        sealed = seal(destination, files, child.facts(name, built))
    waiting = len(parent.waiting) - len(built)
    return ChildResult(destination, sealed.id, parent.manifest.id, len(built), waiting)


def _check_destination(destination: Path, parent: Path, *, replace: bool) -> None:
    """Before anything is built. Raises UserError."""
    check_destination(destination)
    if not os.path.isdir(destination) or not os.listdir(destination):
        return
    if os.path.samefile(destination, parent):
        raise UserError("is the bundle itself, which is never changed", where=str(parent), hint="name another output")
    if not replace:
        raise OutputError(
            "a bundle stands here already",
            where=str(destination),
            hint="name another output with -o, or say --replace",
            exit_code=EXIT_USAGE,
        )


@dataclass(frozen=True)
class _Child:
    """What is known of a child before its engines are built: all that can be wrong with its parent is found by then.

    `allowed` says by (component, graph) what an engine may be; `created` is in seconds since 1970.
    """

    parent: Parent
    program: Program
    report: Fields
    allowed: Mapping[Key, Allowed]
    created: int

    @classmethod
    def of(cls, parent: Parent) -> _Child:
        """Raises BundleError where the parent does not say what it takes."""
        report, recipe = parent.document(ENGINE_REPORT), parent.document(LOCK).object("recipe")
        for file in parent.waiting:
            _reported(report, file.target).object(file.component).object(file.graph)
        unfused, tolerances = tuple(recipe.object("engine").texts("allow_unfused")), parent.document(TOLERANCES)
        keys = {(file.component, file.graph) for file in parent.waiting}
        allowed = {key: Allowed(unfused, tolerances.number("/".join(key))) for key in keys}
        return cls(parent, parent.read(FILE, Program.read), report, allowed, _seconds(parent.manifest))

    def files(self, built: Built, gpus: Sequence[TargetGpu]) -> list[BundleFile]:
        """Everything that the child has."""
        staying = [
            BundleFile(
                file.path, self.parent.root / file.path, file.role, file.media_type, file.executable, digest=file.sha256
            )
            for file in self.parent.staying(built, MADE)
        ]
        engines = [
            BundleFile(engine.name, engine.path, "engine", "application/octet-stream", move=True)
            for engine in built.values()
        ]
        listed = {file.path: file for file in self.parent.manifest.files}
        names = {file.path for file in (*staying, *engines)}
        program, report = self._program(names, built).as_json(), self._report(built, gpus)
        content = {FILE: canonical(program), ENGINE_REPORT: canonical(report)}
        made = [BundleFile(name, data, listed[name].role, listed[name].media_type) for name, data in content.items()]
        return [*staying, *engines, *made]

    def facts(self, name: str, built: Built) -> BundleFacts:
        """What the manifest says: all that the parent's does, with the engines' files, and the parent."""
        manifest = self.parent.manifest
        engines: list[JsonValue] = [_engine(file, built).as_json() for file in self.parent.engines]
        return BundleFacts(
            name=name,
            version=manifest.version,
            created=self.created,
            entry=manifest.entry,
            recipe_sha256=manifest.recipe_sha256,
            topology={**manifest.topology, "engines": engines},
            runtime=manifest.runtime,
            targets=manifest.targets,
            requires=manifest.requires,
            parents=[{"role": "bundle", "digest": manifest.id}, *manifest.parents],
            check=manifest.check,
        )

    def _program(self, names: set[str], built: Built) -> Program:
        """The parent's, with the engines' files, and without the weights that are in them."""
        components = {
            name: replace(part, weights={key: weight for key, weight in part.weights.items() if weight.file in names})
            for name, part in self.program.components.items()
        }
        engines = tuple(_engine(file, built) for file in self.program.engines)
        return replace(self.program, components=components, engines=engines)

    def _report(self, built: Built, gpus: Sequence[TargetGpu]) -> dict[str, Any]:
        """The parent's, with what was built in place of what was to be."""
        graphs: dict[tuple[str, str, str], list[BuiltEngine]] = {}
        for file, engine in built.items():
            graphs.setdefault((file.target, file.component, file.graph), []).append(engine)
        for (target, component, graph), engines in graphs.items():
            entry = _reported(self.report, target).object(component).object(graph).values
            kernels = reduce(add, [engine.kernels for engine in engines])
            entry.pop("built", None)
            entry |= describe(kernels, sum(engine.path.stat().st_size for engine in engines))
            entry["compared"] = {name: error for engine in engines for name, error in engine.comparison.errors.items()}
            entry["not_compared"] = [*{reason: None for engine in engines if (reason := engine.comparison.reason)}]
        return {**self.report.values, "built_on": {gpu.target: gpu.name for gpu in gpus}}


def _engine(file: EngineFile, built: Built) -> EngineFile:
    """An entry of the parent's as the child has it."""
    engine = built.get(file)
    return file if engine is None else replace(file, file=engine.name, built=None)


def _reported(report: Fields, target: str) -> Fields:
    """What a report says of the engines for a target: those of the first one stand before those of the others."""
    others = report.object("others") if "others" in report.values else None
    return others.object(target) if others and target in others.values else report.object("components")


def _seconds(manifest: Manifest) -> int:
    """When the parent was made: so the same engines make the same child at any time."""
    try:
        return int(datetime.strptime(f"{manifest.created}+0000", "%Y-%m-%dT%H:%M:%SZ%z").timestamp())
    except ValueError:
        raise BundleError(f"{manifest.created} is no time", where=manifest.name) from None
