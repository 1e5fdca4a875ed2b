"""What every bundle says about running it: its task, its engines, its threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from .backends.offline import stay_offline
from .cache_facts import KEY as KV_CACHE
from .cache_facts import RELATIVE
from .check_bundle import check_bundle
from .directory import Root
from .engine_file import BUILD_IT, CPU, CUDA, ON_TARGET, EngineFile, Key, read_engine_files
from .errors import BundleError, TargetError
from .folder import VerifiedFolder
from .interface import Interface
from .manifest import CAUSAL, MANIFEST, RELATIVE_POSITIONS, SEGMENTS, Manifest
from .progress import OnProgress, ignore
from .requirements import INSTALL
from .segments import Segments
from .strict_json import Fields, JsonValue
from .verify import verified

RUNNABLE = {("onnxruntime", CPU), ("openvino", CPU), ("onnxruntime", CUDA)}
"""(engine, target) of what this runtime can execute: on the processor, and on one GPU, whatever it was called."""
BUILT_ALONE = "tensorrt-rtx"
"""An engine whose files this runtime cannot execute on any machine so far."""
MOST_THREADS = 1024
"""That a bundle may ask for; a machine with fewer has its own number."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, verified. What one task alone needs is read by `VideoBundle`.

    `graphs` and `engines` are by (component, graph); `folder` is where its files are read.
    """

    folder: VerifiedFolder
    manifest: Manifest
    task: str
    graphs: dict[Key, Interface]
    engines: dict[Key, Segments]
    threads: int

    @classmethod
    def open(cls, root: Root, *, on_progress: OnProgress = ignore) -> Bundle:
        """Verify every file of the bundle, then read what it says.

        Raises VerificationError, BundleError, and TargetError where no engine fits this machine. No engine is opened.
        """
        manifest, folder = verified(root, partial(on_progress, "verify"))
        runtime, topology = (section(folder, manifest, name) for name in ("runtime", "topology"))
        paths = {file.path for file in manifest.files}
        files = read_engine_files(topology.objects("engines"), paths)
        by_graph: dict[Key, list[EngineFile]] = {}
        for file in files:
            by_graph.setdefault((file.component, file.graph), []).append(file)
        _check_required(manifest, runtime, folder)
        components = topology.object("components")
        graphs = {(name, graph): Interface.read(components.object(name).object(graph)) for name, graph in by_graph}
        engines = {key: _segments(graphs[key], files, folder, manifest) for key, files in by_graph.items()}
        check_bundle(graphs, runtime, topology, paths, folder)
        if any(file.target == CUDA for segments in engines.values() for file in segments.files):
            _check_cuda()
        return Bundle(
            folder=folder,
            manifest=manifest,
            task=runtime.text("task"),
            graphs=graphs,
            engines=engines,
            threads=runtime.integer("threads", maximum=MOST_THREADS),
        )

    def expect_task(self, task: str) -> None:
        """Raises BundleError unless this is what the bundle is for."""
        if self.task != task:
            raise BundleError(f"the bundle's task is {self.task!r}, not {task!r}", where=self.folder.shown(""))

    def interface(self, component: str, graph: str) -> Interface:
        """What a graph takes and gives. Raises TargetError where there is no such graph."""
        if (component, graph) not in self.graphs:
            raise TargetError(f"this bundle has no engine for {component}/{graph}")
        return self.graphs[component, graph]

    def interfaces(self, component: str) -> dict[str, Interface]:
        """What each graph of a component takes and gives, by the graph's name."""
        return {graph: interface for (owner, graph), interface in sorted(self.graphs.items()) if owner == component}


def section(folder: VerifiedFolder, manifest: Manifest, name: str) -> Fields:
    """`runtime` or `topology` of a bundle's manifest."""
    values = {"runtime": manifest.runtime, "topology": manifest.topology}[name]
    return Fields(cast("JsonValue", values), folder.shown(MANIFEST), name)


def listed(manifest: Manifest, fields: Fields, name: str) -> str:
    """The file that a field names, by its path in the bundle. Raises BundleError unless it was verified."""
    path = fields.text(name)
    if path not in {file.path for file in manifest.files}:
        fields.refuse(name, f"names {ascii(path)[:80]}, which is not a file of the bundle")
    return path


def _segments(
    interface: Interface, files: Sequence[EngineFile], folder: VerifiedFolder, manifest: Manifest
) -> Segments:
    """Of what is offered for a graph the first that this runtime can execute: all of one engine, target and profile.

    Raises TargetError where there is none, and BundleError where its segments do not make up the graph.
    """
    offers: dict[tuple[str, str, str | None], list[EngineFile]] = {}
    for file in files:
        offers.setdefault((file.engine, file.target, file.profile), []).append(file)
    fitting = [offer for offer in offers.values() if all(map(_fits, offer))]
    if not fitting and any(file.built == ON_TARGET for file in files):
        raise TargetError(
            f"the engines of {files[0].component}/{files[0].graph} are not built yet: that takes a machine with "
            + " or ".join(dict.fromkeys(file.target for file in files if file.built == ON_TARGET)),
            where=folder.shown(""),
            hint=f"there, {BUILD_IT} {folder.shown('').rstrip('/')} makes the bundle that runs",
        )
    if not fitting:
        raise TargetError(
            f"no engine of {files[0].component}/{files[0].graph} runs here: this runtime has "
            + ", ".join(f"{engine} on {target}" for engine, target in sorted(RUNNABLE)),
            where=folder.shown(""),
            hint="the bundle holds: " + ", ".join(dict.fromkeys(map(str, files))) + _why_not(files),
        )
    segments = Segments.of(interface, fitting[0], folder.shown(MANIFEST))
    if len(segments.files) > 1 and SEGMENTS not in manifest.requires:
        raise BundleError(
            f"{files[0].component}/{files[0].graph} has {len(segments.files)} segments, "
            f"which `requires` does not say: it lacks {SEGMENTS!r}",
            where=folder.shown(MANIFEST),
        )
    return segments


def _check_required(manifest: Manifest, runtime: Fields, folder: VerifiedFolder) -> None:
    """Raises BundleError where `requires` does not say of a causal model what the runtime's section says."""
    is_causal = KV_CACHE in runtime.values
    is_relative = is_causal and runtime.object(KV_CACHE).values.get("positions") == RELATIVE
    for feature, is_so, said, unsaid in (
        (CAUSAL, is_causal, "runtime.kv_cache is there", "runtime.kv_cache is missing"),
        (RELATIVE_POSITIONS, is_relative, f"positions are {RELATIVE}", f"positions are not {RELATIVE}"),
    ):
        if is_so and feature not in manifest.requires:
            raise BundleError(f"{said}, and `requires` lacks {feature!r}", where=folder.shown(MANIFEST))
        if feature in manifest.requires and not is_so:
            raise BundleError(f"`requires` names {feature!r}, and {unsaid}", where=folder.shown(MANIFEST))


def _check_cuda() -> None:
    """Raises TargetError where the library is missing that executes graphs on a GPU, or is the one without."""
    stay_offline()
    try:
        from .backends.cuda import check_cuda
    except ModuleNotFoundError as error:
        raise TargetError(f"the package {error.name} is missing", hint=INSTALL) from None
    check_cuda()


def _why_not(files: Sequence[EngineFile]) -> str:
    """What to say of engines that are built and not run so far."""
    return f"; {BUILT_ALONE} is built, and not run yet" if {file.engine for file in files} == {BUILT_ALONE} else ""


def _fits(file: EngineFile) -> bool:
    is_runnable = (file.engine, file.target) in RUNNABLE and (file.target == CPU or not file.ranks)
    return is_runnable and file.profile is None and file.built is None
