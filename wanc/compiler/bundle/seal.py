"""The seal stage: engines, tokenizer, runtime and lock → the bundle, a directory that nobody writes to again."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import wanc.runtime
from wanc.artifacts.canonical import canonical, digest_of, key_of
from wanc.artifacts.moves import Announce
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.seal import YEAR_10000, BundleFacts, BundleFile, seal
from wanc.artifacts.store import Store
from wanc.artifacts.why import explain_miss, told
from wanc.compiler.bundle.memory import MemoryPlan
from wanc.compiler.bundle.standing import look_at
from wanc.compiler.engines.distributions import DISTRIBUTIONS, ON_TARGET, RUN_BY
from wanc.compiler.program import program as programs
from wanc.compiler.program.program import CHECK_FILE, Task
from wanc.compiler.resolve import Resolved
from wanc.compiler.stages.code_version import check_code, code_version
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.source_code import read_code
from wanc.compiler.stages.stage import KEY_SCHEMA, Tree, tool_version
from wanc.compiler.tiles import tilings_document
from wanc.compiler.video_document import video_document
from wanc.errors import UserError
from wanc.runtime.cache_facts import KEY as CACHE
from wanc.runtime.cache_facts import RELATIVE
from wanc.runtime.manifest import CAUSAL, NOT_CHECKED, RANKS, RELATIVE_POSITIONS, SEGMENTS, TILES, Manifest
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.progress import ProgressBar
from wanc.runtime.tiling import Tiling
from wanc.runtime.video_facts import DECODE
from wanc.runtime.voice import explain, is_asked_why, say

NAME = "seal"
ENTRY = "run.py"
# Larger blobs are renamed into the bundle and only located from the store: two copies of a model are one too many.
ADOPT_BYTES = 64 * 2**20
RUNTIME_REQUIREMENTS: Mapping[Task, tuple[str, ...]] = {
    "text-to-video": ("av", "ftfy", "numpy", "tokenizers"),
    "graph": ("numpy",),
}
TOKENIZER_FILE = "tokenizer/tokenizer.json"
NO_BYTECODE = b"Python keeps no bytecode here: the bundle is sealed.\n"
"""What stands in every folder of Python in place of the folder `__pycache__`, which can then not be made."""
MEDIA_TYPES = {
    "": "text/plain",
    ".py": "text/x-python",
    ".txt": "text/plain",
    ".json": "application/json",
    ".onnx": "application/onnx",
    ".xml": "application/xml",
    ".safetensors": "application/vnd.safetensors",
    ".bin": "application/octet-stream",
    ".engine": "application/octet-stream",
}
ROLES = {
    ENTRY: "entry", "engines": "engine", "golden": "golden", "runtime": "runtime", "tokenizer": "tokenizer",
}  # fmt: skip
DATE_VARIABLE = "SOURCE_DATE_EPOCH"
_SECONDS = re.compile(r"[0-9]{1,15}")
RUN_PY = Path(__file__).with_name("run.py")
"""What a bundle is run with, written for a folder that has the runtime beside it."""


def requirements(resolved: Resolved) -> dict[str, str]:
    """The distributions that running a bundle of this recipe takes, in order, each with its version.

    Raises UserError where one is missing, of those that are not for the target alone.
    """
    kind, target = resolved.recipe.engine.kind, resolved.recipe.targets[0]
    elsewhere = {**ON_TARGET, **RUN_BY.get((kind, target), {})}
    engine = RUN_BY.get((kind, target), DISTRIBUTIONS[kind])
    names = sorted((*RUNTIME_REQUIREMENTS[resolved.task], *engine))
    return {name: elsewhere.get(name) or tool_version(name) for name in names}


@dataclass(frozen=True)
class Seal:
    """Makes the bundle of a resolved recipe at `destination`, unless the very same one stands there already.

    `tilings` are the tiles of shapes, by name, that the planner has chosen.
    """

    resolved: Resolved
    lock: Mapping[str, Any]
    destination: Path
    memory: MemoryPlan | None = None
    """How the recipe's budget is kept, if it has one."""
    tilings: Mapping[str, Tiling] = field(default_factory=dict[str, Tiling])

    def run(self, runner: Runner, engines: Tree) -> str:
        """Returns the bundle's id. Raises UserError where something else stands at the destination.

        What stands there is read whole: one that is damaged is set aside, and sealed again.
        """
        started = time.perf_counter()
        document = self.key_document(engines)
        record, _ = self._standing(runner, document)
        cached = record is not None
        if record is None:
            if is_asked_why():
                explain(told(f"{NAME}: runs", explain_miss(NAME, document, runner.store.records())))
            with runner.store.sealing(on_wait=say) as announce:
                # Another build may have sealed it while this one waited.
                record, damage = self._standing(runner, document)
                cached = record is not None
                if record is None:
                    record = self._seal(runner, engines, document, announce, damage)
        runner.note(NAME, started, cached, record)
        return str(record.meta["id"])

    def key_document(self, engines: Tree) -> dict[str, Any]:
        """Everything that the bundle depends on."""
        return {
            "schema": KEY_SCHEMA,
            "stage": NAME,
            "code": code_version(__name__),
            "parameters": {
                "lock": dict(self.lock),
                "created": created(),
                "tiles": tilings_document(self.tilings),
                **({"memory": asdict(self.memory)} if self.memory else {}),
            },
            "inputs": {"engines": engines.digest, "source": self.resolved.source.digest, "runtime": _program_digest()},
            "tools": requirements(self.resolved),
        }

    def _standing(self, runner: Runner, document: dict[str, Any]) -> tuple[ActionRecord | None, str | None]:
        """The record of this very seal, if its bundle is there; and what is wrong with a bundle that is damaged."""
        record = runner.store.lookup(key_of(document))
        wanted = str(record.meta["id"]) if record else None
        with ProgressBar("verify", enabled=runner.progress, transient=True) as bar:
            standing = look_at(self.destination, wanted, runner.store, bar.move_to)
        return (record if standing.is_wanted else None), standing.damage

    def _seal(
        self, runner: Runner, engines: Tree, document: dict[str, Any], announce: Announce, damage: str | None
    ) -> ActionRecord:
        started = time.perf_counter()
        located = dict(engines.locate())
        check = located.pop(CHECK_FILE, None)
        files = [*_engine_files(located, engines.digests), *_program_files(), *self._other_files()]
        facts = self._facts(programs.Program.read(located[programs.FILE]), check)
        check_code()  # of the runtime, which was read just now and is in the key as it was before
        if damage:
            say(f"warning: {self.destination}: {damage}: it is set aside and sealed again")
        set_aside = partial(runner.store.set_aside, name=self.destination.name) if damage else None
        with ProgressBar(NAME, enabled=runner.progress, transient=True) as bar:
            sealed = seal(self.destination, files, facts, announce=announce, set_aside=set_aside, progress=bar.move_to)
        self._note_adopted(runner.store, sealed.path, [file for file in files if file.move])
        # The bundle itself lies outside the store: the record only remembers which one came out.
        with runner.store.workdir() as workdir:
            (workdir / "out").mkdir()
            seconds = round(time.perf_counter() - started, 3)
            meta = {"id": sealed.id, "seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}
            return runner.store.commit(key_of(document), stage=NAME, document=document, tree=workdir / "out", meta=meta)

    def _note_adopted(self, store: Store, bundle: Path, files: list[BundleFile]) -> None:
        """What was renamed into the bundle is from now on found there, unless it is still elsewhere."""
        sizes = {entry.path: Blob(entry.sha256, entry.size) for entry in Manifest.read(bundle).files}
        for file in files:
            if store.find(sizes[file.path]) is None:
                store.relocate(sizes[file.path], bundle / file.path)

    def _other_files(self) -> list[BundleFile]:
        tokenizer = self.resolved.model.tokenizer
        lines = [f"{name}=={version}" for name, version in requirements(self.resolved).items()]
        return [
            *([_file(TOKENIZER_FILE, tokenizer, digest=self._tokenizer_digest)] if tokenizer else ()),
            _file("requirements.txt", ("\n".join(lines) + "\n").encode(), role="requirements"),
            _file("recipe.lock.json", canonical(self.lock), role="lock"),
        ]

    @property
    def _tokenizer_digest(self) -> str:
        assert self.resolved.tokenizer is not None
        return self.resolved.blobs[self.resolved.tokenizer].digest

    def _facts(self, program: programs.Program, check: Path | None) -> BundleFacts:
        recipe = self.resolved.recipe
        return BundleFacts(
            name=recipe.name,
            version=recipe.version,
            created=created(),
            entry=ENTRY,
            recipe_sha256=self.resolved.recipe_digest,
            topology=_topology(program),
            requires=_required(program, video := self._video_facts(program)),
            runtime={"task": program.task, "threads": recipe.runtime.threads, **video},
            targets=[{"backend": recipe.engine.kind, "device": target} for target in recipe.targets],
            parents=[{"role": "model", "digest": self.resolved.source.digest}],
            check=NOT_CHECKED if check is None else json.loads(check.read_bytes()),
        )

    def _video_facts(self, program: programs.Program) -> dict[str, Any]:
        """What the runtime has to know to make a video; nothing for other tasks."""
        recipe = self.resolved.recipe
        if recipe.sampling is None or program.model is None or program.embedding is None:
            return {}
        model = replace(program.model, boundary=self.resolved.boundary)
        memory = {} if self.memory is None else {"memory": self.memory.as_manifest(program.engines)}
        return {**video_document(recipe, model, self.tilings), "embedding": program.embedding.file, **memory}


def created() -> int:
    """The bundle's date, in seconds since 1970: SOURCE_DATE_EPOCH, or the epoch itself. Never the clock.

    Raises UserError where the variable holds no time between 1970 and 9999.
    """
    text = os.environ.get(DATE_VARIABLE, "0")
    if not _SECONDS.fullmatch(text) or int(text) >= YEAR_10000:
        raise UserError(
            f"{DATE_VARIABLE} must be a number of seconds since 1970, as date +%s says it, not {text[:40]!r}"
        )
    return int(text)


def _topology(program: programs.Program) -> dict[str, Any]:
    """Components → graphs → interface, and the engine files that run them."""
    components = {
        name: {graph: {key: entry[key] for key in ("inputs", "outputs")} for graph, entry in part["graphs"].items()}
        for name, part in program.as_json()["components"].items()
    }
    order = sorted(program.engines, key=lambda file: (file.component, file.graph, file.segment))
    return {"components": components, "engines": [file.as_json() for file in order]}


def _required(program: programs.Program, video: Mapping[str, Any]) -> list[str]:
    """The features without which a reader would misread the bundle."""
    files = program.engines
    needed = {
        SEGMENTS: any(file.segment for file in files),
        RANKS: any(file.ranks for file in files),
        TILES: DECODE in video,
        CAUSAL: CACHE in video,
        RELATIVE_POSITIONS: video.get(CACHE, {}).get("positions") == RELATIVE,
    }
    return sorted(feature for feature, is_needed in needed.items() if is_needed)


def _engine_files(located: Mapping[str, Path], digests: Mapping[str, str]) -> list[BundleFile]:
    return [
        _file(name, path, move=path.stat().st_size > ADOPT_BYTES, digest=digests[name])
        for name, path in located.items()
    ]


def _sources() -> dict[str, Path]:
    """The Python that ships, by its place in the bundle."""
    root = Path(wanc.runtime.__file__).parent
    runtime = {f"runtime/{path.relative_to(root).as_posix()}": path for path in sorted(root.rglob("*.py"))}
    return {ENTRY: RUN_PY, **runtime}


def _program_files() -> list[BundleFile]:
    sources = {name: path.read_bytes() for name, path in _sources().items()}
    folders = {name.rpartition("/")[0] for name in sources}
    caches = dict.fromkeys((f"{folder}/__pycache__".lstrip("/") for folder in sorted(folders)), NO_BYTECODE)
    return [_file(name, data) for name, data in (sources | caches).items()]


def _program_digest() -> str:
    """Of what the Python that ships does: for another comment alone a bundle that stands is not sealed anew."""
    shipped, entry = code_version("wanc.runtime", inside=True), read_code(RUN_PY.read_bytes()).digest.hex()
    return digest_of({"runtime": shipped, ENTRY: entry})


def _file(
    name: str, source: Path | bytes, *, role: str | None = None, move: bool = False, digest: str | None = None
) -> BundleFile:
    kind, media_type = role or ROLES.get(name.split("/")[0], "description"), MEDIA_TYPES[Path(name).suffix]
    return BundleFile(name, source, kind, media_type, move=move, digest=digest)
